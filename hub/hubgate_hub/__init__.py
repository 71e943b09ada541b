"""hubgate's other half: what is installed in the hubs.

    c.JupyterHub.authenticator_class = "hubgate"

`assertion` knows what a proof of identity looks like, `keys` where the gateway's public keys come from, `authenticator`
what JupyterHub wants to hear; `doors` are the pages for logging in and out, `selfcheck` says at start what is wrong.
Importing this package imports none of them: the first one runs without JupyterHub.
"""

__version__ = "0.1.0"

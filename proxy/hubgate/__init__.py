"""hubgate: an authenticating front-end proxy and load balancer for sites that run several JupyterHubs."""

from importlib.metadata import version

__version__ = version("hubgate")

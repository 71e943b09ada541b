"""`hubgate demo`: everything around the gateway, brought up for real on one machine.

Its parts are nouns of their own (a Redis, a Keycloak, JupyterHubs, the gateway's process), and the tests are built on
the same ones. Nothing in here is for production: passwords and keys stand in the source.
"""

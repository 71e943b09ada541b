"""The hubs are at the other end of this wire: their state, their connections, the requests that are forwarded to them."""

"""The hubs are at the other end of this wire: their state, connections to them, the requests that go there."""

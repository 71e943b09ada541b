"""Redis is at the other end of this wire: what outlives a request, shared by all workers and machines of a site."""

from __future__ import annotations

from hubgate.store.address import parse_address
from hubgate.store.base import Store
from hubgate.store.memory import MemoryStore
from hubgate.store.redis import RedisStore


def open_store(url: str, *, ca: str | None = None) -> Store:
    """The store at this address: `memory://`, `redis://`, `rediss://` or `redis+sentinel://host:port,host:port/service/db`.

    `ca`: file with the certificate authorities that `rediss://` is checked against instead of the system's. Nothing is
    connected yet: that happens with the first call, so that a gateway starts while its store is away. Raises
    OperatorFault when the address makes no sense; the message doesn't repeat it, since it may hold a password.
    """
    if url == "memory://":
        return MemoryStore()
    return RedisStore(parse_address(url), ca=ca)

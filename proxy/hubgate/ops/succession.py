"""Which configuration comes after the present one, without a restart?

The file is read and checked as at the start. What the process that started holds for all that follow (addresses, and
the store where sessions are known to be ended) can't change under it; nor can the program, since new workers would load
another hubgate's modules into this one's. Whoever wants that restarts. How one follows the other is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version

from hubgate.config import Config, ConfigFaults, Fault
from hubgate.errors import OperatorFault
from hubgate.store.address import Address, Login, parse_address

_PROGRAM = version("hubgate")


def following(present: Config, load: Callable[[], Config]) -> Config:
    """The configuration that `load` gives now. OperatorFault (ConfigFaults, with every fault) if it can't follow."""
    if (installed := version("hubgate")) != _PROGRAM:
        raise OperatorFault("reload_refused", f"hubgate {installed} is installed, and this is {_PROGRAM}: restart it")
    config = load()
    if faults := tuple(_fixed(present, config)):
        raise ConfigFaults("what only a restart changes", faults)
    return config


def needs(present: Config, following: Config) -> frozenset[str]:
    """What must not be missing (parts of `/readyz`) in workers with the configuration `following`, before those with
    the present one leave.

    Who can't reach the store must not replace those who still know sessions. The provider may well be away while
    somebody announces that; but if what is said about it has changed, it must be seen to be right.
    """
    return frozenset({"store"} if present.oidc == following.oidc else {"store", "oidc"})


def _fixed(present: Config, new: Config) -> Iterator[Fault]:
    for key, before, after in (
        ("gateway.listen", _spoken(*present.gateway.listen), _spoken(*new.gateway.listen)),
        ("gateway.ops_listen", _spoken(present.gateway.ops_listen), _spoken(new.gateway.ops_listen)),
        ("store.url", _place(present), _place(new)),
    ):
        if before != after:
            yield Fault(key, str(after), f"{before}, as it was at the start")


def _spoken(*addresses: object) -> str:
    return ", ".join(str(address or "nowhere") for address in addresses)


def _place(config: Config) -> Address | str:
    """Where the store is, without who we are there: a password changes while everything goes on."""
    url = config.store.url.reveal()
    if url == "memory://":
        return url
    return replace(parse_address(url), login=Login(), sentinel_login=Login())

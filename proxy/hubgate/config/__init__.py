"""The configuration: one TOML file, read once, checked as a whole.

`load` gives a `Config` or raises `ConfigFaults` with everything that is wrong. `tables` says which keys there are,
`values` and `secret` how one is read, `checks` what they must be for each other; `reading` puts it together, `faults`
into words.
"""

from hubgate.config.faults import ConfigFaults, Fault
from hubgate.config.reading import load, parse
from hubgate.config.secret import Secret, Surroundings
from hubgate.config.tables import (
    Affinity,
    Announcement,
    Config,
    Gateway,
    Health,
    Hub,
    Identity,
    Keycloak,
    Limits,
    Log,
    Mail,
    Mfa,
    Oidc,
    Pool,
    Portal,
    Session,
    Store,
    Tls,
)

__all__ = [
    "Affinity",
    "Announcement",
    "Config",
    "ConfigFaults",
    "Fault",
    "Gateway",
    "Health",
    "Hub",
    "Identity",
    "Keycloak",
    "Limits",
    "Log",
    "Mail",
    "Mfa",
    "Oidc",
    "Pool",
    "Portal",
    "Secret",
    "Session",
    "Store",
    "Surroundings",
    "Tls",
    "load",
    "parse",
]

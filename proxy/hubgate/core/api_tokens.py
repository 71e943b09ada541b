"""Does a program ask here, with a token of JupyterHub's?

A program comes with `Authorization` and nothing else: no cookie of ours, and none of the fields by which browsers say
who asks (Fetch Metadata), which no script can leave out. So what runs in a browser never passes for a program, and its
requests end with its session. A field counts as a token wherever JupyterHub, or JupyterHub's authentication in a
notebook server, may read it as one, however oddly it is written; what is odd is nobody's.

Knows neither hubs nor whose a token is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl

from hubgate.core.identity import Identity, Proof

# As `jupyterhub.handlers.base.auth_header_pat` and `jupyterhub.services.auth`: on text, whose blanks are more than two.
_READ_AS_TOKEN = re.compile(r"(?:token|bearer)\s+(.+)", re.IGNORECASE | re.DOTALL)
_TOKEN = re.compile(r"[!-~]{8,512}")
_API = re.compile(r"(?:hub|user/[^/]+(?:/[^/]+)?)/api(?:/.*)?", re.DOTALL)


def token_in(fields: Sequence[bytes]) -> str | None:
    """The token that a request's Authorization fields are read as; None: as none. "": as one that nobody gave out."""
    read = [match for field in fields if (match := _READ_AS_TOKEN.match(field.decode("latin-1").strip()))]
    if not read:
        return None
    token = read[0][1]
    return token if len(fields) == 1 and _TOKEN.fullmatch(token) else ""


def is_program(names: Iterable[str]) -> bool:
    """Whether no browser sends these header names (Fetch Metadata, W3C), cookies apart."""
    return not any(name.lower().startswith("sec-fetch-") for name in names)


def has_token_in_query(raw: str) -> bool:
    """Whether a request target brings a token in its query, which notebook servers may prefer to the header's."""
    _, _, query = raw.partition("?")
    return any(name == "token" for name, _ in parse_qsl(query, keep_blank_values=True, errors="replace"))


def is_api(below: str) -> bool:
    """Whether a path, as it follows the pool's, is one of JupyterHub's API or of a notebook server's."""
    return _API.fullmatch(below) is not None


@dataclass(frozen=True, slots=True)
class Standing:
    """What somebody's programs go by: who logged in last, proved how, and until when that is good enough for tokens,
    in seconds since the epoch."""

    identity: Identity
    proof: Proof
    until: float


def standing_of(identity: Identity, proof: Proof, *, now: float, age: float, before: Standing | None) -> Standing:
    """The standing after a login at `now`; `age`: for how many seconds a second factor is good.

    A login that only went on from an older proof takes nothing away from a newer one.
    """
    until = min(proof.auth_time or now, now) + age
    if before is not None and before.until > until:
        return Standing(identity, before.proof, before.until)
    return Standing(identity, proof, until)

"""Whose is it? What a request carries, what its answer must say, and the bytes that nobody else's answer has.

A request names its user, its own mark and the behaviour that is wanted of the hub in its target. The hub puts into the
answer what it saw: the mark, who it was told is asking, a digest of the fields that came, and a serial number that no
other answer has. The content is made of mark, serial and user, so that a single foreign byte can't go unnoticed; a
repeated request has the mark of the one before, and its answer still can't be taken for that one's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qs

Zone = Literal["hub", "user"]
"""Below `hub/` the hub is told who asks; below `user/` nobody is."""

FIELD = b"X-Soak"
NOBODY = "-"


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `how`: the hub's behaviour (catalogue.py); `size`: bytes of the answer's content; `up`: bytes of the
    request's, -1: it has no body; `pause`: milliseconds that the hub takes its time."""

    user: str
    mark: str
    how: str
    method: str = "GET"
    pool: str = "htc"
    zone: Zone = "hub"
    size: int = 0
    up: int = -1
    pause: int = 0

    @property
    def target(self) -> str:
        """As it stands in the request line."""
        where = f"hub/soak/{self.user}" if self.zone == "hub" else f"user/{self.user}/soak"
        return f"/{self.pool}/{where}/{self.mark}/{self.how}?size={self.size}&up={self.up}&pause={self.pause}"

    @classmethod
    def read(cls, method: str, target: str) -> Ask:
        """Out of a request line. Raises ValueError."""
        path, _, query = target.partition("?")
        match path.split("/"):
            case ["", pool, "hub", "soak", user, mark, how]:
                zone: Zone = "hub"
            case ["", pool, "user", user, "soak", mark, how]:
                zone = "user"
            case _:
                raise ValueError(f"not a target of the soak's: {target!r}")
        told = {name: int(value) for name, (value,) in parse_qs(query, strict_parsing=True).items()}
        return cls(user, mark, how, method, pool, zone, told["size"], told["up"], told["pause"])


@dataclass(frozen=True, slots=True)
class Said:
    """What a hub says about the request that it answers: the value of `X-Soak`.

    `how`: what it really does (a moody hub chooses by itself). `user`: REMOTE_USER, `subject`: that of the assertion,
    both `-` where nothing is disclosed. `fields`: `digest` of what came along.
    """

    mark: str
    serial: int
    how: str
    user: str
    subject: str
    hub: str
    fields: str

    def __str__(self) -> str:
        return f"{self.mark} {self.serial} {self.how} {self.user} {self.subject} {self.hub} {self.fields}"

    @classmethod
    def read(cls, value: bytes) -> Said:
        """Out of a field's value. Raises ValueError."""
        mark, serial, how, user, subject, hub, fields = value.decode("ascii").split(" ")
        return cls(mark, int(serial), how, user, subject, hub, fields)

    def content(self, user: str, size: int) -> bytes:
        """The body of this answer to this user."""
        return content(f"{self.mark} {self.serial} {user}", size)


def content(what: str, size: int) -> bytes:
    """Bytes that only this has, from the first one on."""
    return hashlib.shake_128(what.encode()).digest(size)


def uploaded(ask: Ask) -> bytes:
    """The body of a request."""
    return content(f"{ask.mark} up {ask.user}", max(ask.up, 0))


def digest(fields: Iterable[tuple[bytes, bytes]], cookie: bytes) -> str:
    """Of the fields that pass a gateway as they are, in their order, and of the Cookie that a hub may see."""
    lines = [b"%b:%b" % pair for pair in fields]
    return hashlib.sha1(b"\n".join((*lines, b"cookie:" + cookie)), usedforsecurity=False).hexdigest()[:16]

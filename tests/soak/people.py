"""Who asks, and with which words: sessions with their cookies, and header fields that come again or never again."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.kit.person import Person

Fields = list[tuple[bytes, bytes]]

_BROWSER: Fields = [
    (b"User-Agent", b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0"),
    (b"Accept", b"*/*"),
    (b"Accept-Encoding", b"gzip, deflate, br, zstd"),
    (b"Accept-Language", b"en-GB,en;q=0.9,de;q=0.8"),
    (b"Sec-Fetch-Mode", b"cors"),
    (b"Sec-Fetch-Dest", b"empty"),
    (b"Sec-Fetch-Site", b"same-origin"),
    (b"sec-ch-ua", b'"Chromium";v="140", "Not=A?Brand";v="24"'),
    (b"Cache-Control", b"no-cache"),
    (b"DNT", b"1"),
]

SPOOFS: Fields = [
    (b"REMOTE_USER", b"mallory"),
    (b"remote-user", b"mallory"),
    (b"X-Hubgate-Assertion", b"forged"),
    (b"X-Forwarded-For", b"192.0.2.66"),
    (b"X-Forwarded-User", b"mallory"),
    (b"Forwarded", b"for=192.0.2.66"),
    (b"X-Real-IP", b"192.0.2.66"),
    (b"Keep-Alive", b"timeout=5"),
    (b"TE", b"trailers"),
]
"""What must not reach a hub, whoever says it."""

FOREIGN = b"jupyterhub-soak-foreign"
"""The name of a cookie that no hub has given this person."""


@dataclass(eq=False)
class Session:
    """One browser of one user. `own`: the gateway's cookies, which end with the session; `tagged`: the hub's cookie as
    the browser has it, `untagged` as the hub gave it; `hubs`: who answers for it, by pool, once it is known."""

    user: str
    own: dict[str, str]
    sets: list[Fields]
    tagged: bytes = b""
    untagged: bytes = b""
    hubs: dict[str, str] = field(default_factory=dict)
    _usual: list[tuple[bytes, bytes]] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"Session({self.user})"

    def take(self, tagged: bytes, untagged: bytes) -> None:
        """The hub has set its cookie."""
        self.tagged, self.untagged = tagged, untagged
        self._usual.clear()

    def bound(self, name: str, value: str) -> None:
        """The gateway has set the cookie of this name."""
        self.own[name] = value
        self._usual.clear()

    def usual_cookies(self, rng: random.Random) -> tuple[bytes, bytes]:
        """One of a handful of Cookie fields that this browser sends, as it is sent and as a hub may see it."""
        if not self._usual:
            self._usual += [self.cookies(rng), self.cookies(rng, b"_xsrf=y"), self.cookies(rng, b"load=1", b"a=b")]
        return rng.choice(self._usual)

    def cookies(self, rng: random.Random, *more: bytes) -> tuple[bytes, bytes]:
        """The Cookie field as it is sent, and as a hub may see it."""
        ours = [f"{name}={value}".encode() for name, value in self.own.items()]
        theirs = list(more)
        seen = list(more)
        if self.tagged:
            at = rng.randint(0, len(theirs))
            theirs.insert(at, b"jupyterhub-soak=" + self.tagged)
            seen.insert(at, b"jupyterhub-soak=" + self.untagged)
        if rng.random() < 0.1:
            theirs.append(FOREIGN + b"=made-up")  # without a tag: it stays here
        return b"; ".join((*ours, *theirs) if rng.random() < 0.5 else (*theirs, *ours)), b"; ".join(seen)


def session_of(person: Person, url: str, user: str, rng: random.Random) -> Session:
    """The session of somebody who has logged in."""
    cookies = person.cookies(url + "/")
    own = {name: value for name, value in cookies.items() if name.startswith("hubgate")}
    if "hubgate" not in own:
        raise LookupError(f"no session: {sorted(cookies)}")
    return Session(user, own, [_repeated(user, number, rng) for number in range(6)])


def _repeated(user: str, number: int, rng: random.Random) -> Fields:
    """Fields that this session sends again and again, word by word."""
    fields = rng.sample(_BROWSER, rng.randint(2, len(_BROWSER)))
    fields.append((b"X-Soak-Session", f"{user}-{number}".encode()))
    fields += [(b"X-Again-%d" % index, _word(rng, 5, 60)) for index in range(rng.randint(0, 4))]
    rng.shuffle(fields)
    return fields


_nonces = itertools.count()


def never_again(rng: random.Random) -> Fields:
    """Fields that nobody has sent before: names, values and their number."""
    nonce = next(_nonces)
    fields = rng.sample(_BROWSER, rng.randint(0, len(_BROWSER)))
    fields.append((b"X-Nonce", b"%d" % nonce))
    for index in range(rng.choice((0, 1, 3, 10, 40))):
        fields.append((b"X-%b-%d-%d" % (_word(rng, 1, 12), nonce, index), _word(rng, 0, rng.choice((10, 100, 900)))))
    if rng.random() < 0.2:
        fields.append((b"Authorization", b"token " + _word(rng, 10, 40)))
    rng.shuffle(fields)
    return fields


def _word(rng: random.Random, least: int, most: int) -> bytes:
    letters = b"abcdefghijklmnopqrstuvwxyz0123456789"
    return bytes(rng.choices(letters, k=rng.randint(least, most)))


def spoken(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """As lines."""
    return b"".join(b"%b: %b\r\n" % pair for pair in fields)


def with_spoofs(fields: Sequence[tuple[bytes, bytes]], rng: random.Random) -> Fields:
    """The same, among others that must stay at the gateway."""
    mixed = list(fields)
    for spoof in rng.sample(SPOOFS, rng.randint(1, 3)):
        mixed.insert(rng.randint(0, len(mixed)), spoof)
    if rng.random() < 0.3:
        mixed.insert(rng.randint(0, len(mixed)), (b"Connection", b"keep-alive, X-Listed"))
        mixed.insert(rng.randint(0, len(mixed)), (b"X-Listed", b"stays here"))
    return mixed

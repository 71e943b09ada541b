"""What can a single value of the configuration be?

Types for one value each: how it is written in TOML, how it is read, and what an operator is told when it can't be. They
look at nothing but their own value, the environment and the file that the value names; what two keys mean for each
other is asked in `checks`.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, ValidationInfo

from hubgate.config.faults import Refusal
from hubgate.config.secret import Secret, resolved, surroundings, why_not
from hubgate.core.colour import is_colour
from hubgate.core.freshness import ACTIONS, is_place

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


# -- texts


def _one_line(value: str) -> str:
    if not value.isprintable():
        raise Refusal("a text on one line, without control characters")
    return value


def _prose(value: str) -> str:
    if not all(c.isprintable() or c == "\n" for c in value):
        raise Refusal("a text without control characters")
    return value


Text = Annotated[str, AfterValidator(_one_line)]
"""One line of text, may be empty."""

Word = Annotated[str, Field(min_length=1), AfterValidator(_one_line)]
"""One line of text, not empty."""


_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")


def _language(value: str) -> str:
    if not _LANGUAGE.fullmatch(value):
        raise Refusal('a language (BCP 47), such as "en", "de" or "pt-BR"')
    return value


Language = Annotated[str, AfterValidator(_language)]


def _in_languages(one: Callable[[str], str]) -> PlainValidator:
    def check(value: object) -> str | Mapping[str, str]:
        match value:
            case str():
                return one(value)
            case dict() if value and all(isinstance(text, str) and text for text in value.values()):
                return {_language(language): one(text) for language, text in value.items()}
            case _:
                raise Refusal('a text in quotes, or one for each language, as { en = "…", de = "…" }')

    return PlainValidator(check)


def _said(value: str) -> str:
    if not value.strip():
        raise Refusal("a text that is not empty")
    return _prose(value)


LocalText = Annotated[str | Mapping[str, str], _in_languages(_one_line)]
"""One line for people, in one language or in several."""

LocalProse = Annotated[str | Mapping[str, str], _in_languages(_prose)]
"""The same of several lines."""

LocalWords = Annotated[str | Mapping[str, str], _in_languages(_said)]
"""The same, and not empty."""


def _matching(pattern: str, expected: str) -> AfterValidator:
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise Refusal(expected)
        return value

    return AfterValidator(check)


Name = Annotated[
    str,
    _matching(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
        'a short name of letters, digits, ".", "_", "-", such as "htc01": it becomes part of cookies, keys and claims',
    ),
]
Token = Annotated[str, _matching(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", 'a header name (RFC 9110, 5.1), as "REMOTE_USER"')]
Domain = Annotated[
    str,
    _matching(r"(?!-)[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*", 'the part after the "@", such as "example.org"'),
    AfterValidator(str.lower),
]
PoolPath = Annotated[
    str,
    _matching(
        r"/|(/(?!\.\.?/)[A-Za-z0-9._~-]+)+/",
        'a path that starts and ends with "/", such as "/htc/" (the base_url of its hubs)',
    ),
]


def _place(value: str) -> str:
    if not is_place(value):
        raise Refusal(
            f'{", ".join(ACTIONS)}, or a path below the pool\'s, without a slash in front, as "hub/spawn", "user/*/lab"'
        )
    return value


Place = Annotated[str, AfterValidator(_place)]
"""Where a fresh second factor can be demanded."""


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except (re.error, RecursionError, OverflowError) as error:
        raise Refusal(f"a regular expression ({error})") from None
    return value


Pattern = Annotated[str, Field(min_length=1), AfterValidator(_pattern)]


# -- durations

_PART = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST = 10 * 365 * 86400.0
_DURATION = 'a duration such as "90s", "30m", "12h" or "7d"'


def _seconds(value: object) -> float:
    if not isinstance(value, str):
        raise Refusal(_DURATION)
    parts = _PART.findall(value)
    if not parts or "".join(number + unit for number, unit in parts) != value:
        raise Refusal(_DURATION)
    total = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if total > _LONGEST:
        raise Refusal("a duration of ten years at most")
    return total


def _positive(value: float) -> float:
    if value <= 0:
        raise Refusal(f"{_DURATION}, longer than nothing")
    return value


Duration = Annotated[float, BeforeValidator(_seconds), AfterValidator(_positive)]
"""Seconds, more than none."""

DurationOrZero = Annotated[float, BeforeValidator(_seconds)]
"""Seconds; none has a meaning of its own, which the key tells."""


# -- times and colours


def _moment(value: object) -> float:
    expected = "a date and time with its offset, without quotes, such as 2026-11-24T08:00:00+01:00"
    if not isinstance(value, datetime):
        raise Refusal(expected)
    if value.tzinfo is None:
        raise Refusal(expected, found=f"{value}, without an offset")
    return value.timestamp()


Moment = Annotated[float, PlainValidator(_moment)]
"""Seconds since the epoch."""


def _colour(value: str) -> str:
    if value and not is_colour(value):
        raise Refusal('a colour as "#0b6374", or "" for hubgate\'s')
    return value.lower()


OptionalColour = Annotated[str, AfterValidator(_colour)]
"""`#rrggbb`, or empty."""


# -- addresses

_HOST = re.compile(r"(?=.{1,253}$)(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. `host`: an IP address or a name; `port` 0: one that the system picks."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


_LISTEN = 'address and port, such as "0.0.0.0:8443", "127.0.0.1:8080" or "[::]:8443"'


def _address(value: object) -> Address:
    if isinstance(value, Address):
        return value
    if not isinstance(value, str):
        raise Refusal(_LISTEN)
    host, colon, port = value.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        known = is_ip(host) and ":" in host
    else:
        known = bool(_HOST.fullmatch(host)) and (is_ip(host) or not host.replace(".", "").isdigit())
    if not colon or not known or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise Refusal(_LISTEN)
    return Address(host, int(port))


def _address_or_none(value: object) -> Address | None:
    return None if value == "" else _address(value)


Listen = Annotated[Address, BeforeValidator(_address)]
OptionalListen = Annotated[Address | None, BeforeValidator(_address_or_none)]


def _network(value: object) -> Network:
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value
    expected = 'an address range, such as "10.0.0.0/8" or "192.0.2.7"'
    if not isinstance(value, str):
        raise Refusal(expected)
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise Refusal(expected) from None
    if "/" in value and str(network.network_address) != str(ipaddress.ip_address(value.partition("/")[0])):
        raise Refusal(f'the range itself: did you mean "{network}"?')
    return network


Cidr = Annotated[Network, BeforeValidator(_network)]


def is_ip(host: str) -> bool:
    """Whether this is an IP address, without brackets."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return "%" not in host


def is_loopback(host: str) -> bool:
    """Whether a host names this machine itself (RFC 6761, 6.3; RFC 1122, 3.2.1.3)."""
    if is_ip(host):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def _split(value: str, expected: str) -> SplitResult:
    """An http(s) URL with a host, no user, query or fragment."""
    _one_line(value)
    try:
        parts = urlsplit(value)
        # Reading the port is what checks it.
        sound = parts.port != 0
    except ValueError:
        raise Refusal(expected) from None
    host = parts.hostname or ""
    sound = sound and (is_ip(host) if ":" in host else bool(_HOST.fullmatch(host)))
    if not sound or parts.scheme not in ("http", "https") or " " in value or "\\" in value:
        raise Refusal(expected)
    if "@" in parts.netloc or "?" in value or "#" in value or parts.netloc.endswith(":"):
        raise Refusal(f"{expected}, without user, password, query or fragment")
    return parts


def authority(host: str, port: int | None, *, secure: bool) -> str:
    """A host as a browser puts it into `Host`: lower case, brackets around IPv6, no default port of the scheme."""
    name = f"[{host}]" if ":" in host else host
    default = 443 if secure else 80
    return name.lower() if port is None or port == default else f"{name.lower()}:{port}"


def _origin(example: str) -> AfterValidator:
    def check(value: str) -> str:
        expected = f'an address without a path, such as "{example}"'
        parts = _split(value, expected)
        if parts.path not in ("", "/"):
            raise Refusal(expected)
        return f"{parts.scheme}://{authority(parts.hostname or '', parts.port, secure=parts.scheme == 'https')}"

    return AfterValidator(check)


Origin = Annotated[str, _origin("https://jupyter.example.org")]
"""Scheme, host and port in one normal form, without a trailing slash."""

HubUrl = Annotated[str, _origin("http://10.0.0.11:8000")]


def _url(value: str) -> str:
    _split(value, 'an address such as "https://id.example.org/realms/site"')
    return value


Url = Annotated[str, AfterValidator(_url)]
"""An http(s) URL, kept exactly as it was written."""

OptionalUrl = Annotated[str, AfterValidator(lambda value: _url(value) if value else value)]


def _link(value: str) -> str:
    """Where a person may be sent: no `javascript:`."""
    _one_line(value)
    if (
        not value
        or re.fullmatch(r"(https?://[^\s/]|mailto:[^\s@]+@)\S*", value)
        or re.fullmatch(r"/([^/\\\s]\S*)?", value)
    ):
        return value
    raise Refusal('a link such as "https://…", "mailto:help@example.org" or "/page", or "" for none')


Link = Annotated[str, AfterValidator(_link)]


def _host(value: str) -> str:
    expected = 'a host name, such as "htc.example.org", with a port only if people type one'
    try:
        parts = urlsplit(f"//{value}")
        port = parts.port
    except ValueError:
        raise Refusal(expected) from None
    host = parts.hostname or ""
    if parts.netloc != value or "@" in value or value.endswith(":") or port == 0:
        raise Refusal(expected)
    if not (is_ip(host) if ":" in host else _HOST.fullmatch(host)):
        raise Refusal(expected)
    return value.lower()


Host = Annotated[str, AfterValidator(_host)]


_SCHEMES = ("memory", "redis", "rediss", "redis+sentinel", "rediss+sentinel")
_STORE = "redis://, rediss://, redis+sentinel://host:port,host:port/service/db or memory://"


def _store_url(value: Secret) -> Secret:
    """The scheme; what follows it is read by `hubgate.store`, which is asked by whoever loads a configuration."""
    scheme, separator, rest = value.reveal().partition("://")
    if not separator or scheme not in _SCHEMES or (scheme == "memory") != (not rest):
        # Without a scheme it may be anything, also just a password.
        known = separator and re.fullmatch(r"[a-zA-Z0-9+.-]{1,20}", scheme)
        raise Refusal(_STORE, found=f"an address that starts with {scheme}://" if known else "no address (not shown)")
    return value


StoreUrl = Annotated[Secret, AfterValidator(_store_url)]

_MAIL = "smtps://, smtp+starttls:// or smtp://, and a host, with a port or not"


def _mail_url(value: str) -> str:
    scheme, separator, rest = _one_line(value).partition("://")
    if not separator or scheme not in ("smtp", "smtps", "smtp+starttls"):
        raise Refusal(_MAIL)
    if "@" in rest:
        raise Refusal(
            f"{_MAIL}; user and password are keys of their own", found=f"an address that starts with {scheme}://"
        )
    _host(rest)
    return f"{scheme}://{rest}"


MailUrl = Annotated[str, AfterValidator(_mail_url)]

_ADDRESS = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~.-]+@{_HOST.pattern}"

Mailbox = Annotated[
    str,
    _matching(
        rf"{_ADDRESS}|[^<>()\[\],;:@\"\\\x00-\x1f]+ <{_ADDRESS}>",
        'a mail address, with a name before it or not: "Example Lab <jupyter@example.org>"',
    ),
]
"""One mail address (RFC 5322, 3.4)."""

_SHORTEST_KEY = 32


def _signing_key(value: Secret) -> Secret:
    if len(value.reveal()) < _SHORTEST_KEY:
        raise Refusal(
            f"{_SHORTEST_KEY} characters or more; `hubgate new-secret` prints a good one",
            found=f"a key of {len(value.reveal())} characters (not shown)",
        )
    return value


SigningKey = Annotated[Secret, AfterValidator(_signing_key)]


# -- files


def _existing_file(value: str, info: ValidationInfo[Any]) -> str:
    path = resolved(value, surroundings(info))
    try:
        with path.open("rb"):
            return str(path.absolute())
    except OSError as error:
        raise Refusal("a file that hubgate can read", found=why_not(path, error)) from None


def _existing_directory(value: str, info: ValidationInfo[Any]) -> str:
    path = resolved(value, surroundings(info))
    try:
        os.listdir(path)
    except OSError as error:
        raise Refusal("a directory that hubgate can read", found=why_not(path, error)) from None
    return str(path.absolute())


_PICTURES: Mapping[str, re.Pattern[bytes]] = {
    ".svg": re.compile(rb"(?s).*<svg[\s>]"),
    ".png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    ".webp": re.compile(rb"(?s)RIFF....WEBP"),
    ".jpg": re.compile(rb"\xff\xd8\xff"),
}
_LARGEST_PICTURE = 256 * 1024


def _picture(value: str, info: ValidationInfo[Any]) -> str:
    expected = f"a picture, {', '.join(_PICTURES)}, of {_LARGEST_PICTURE // 1024} KiB at most"
    path = resolved(value, surroundings(info))
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_PICTURE + 1)
    except OSError as error:
        raise Refusal(expected, found=why_not(path, error)) from None
    if len(content) > _LARGEST_PICTURE:
        raise Refusal(expected, found=f"{path}: {path.stat().st_size // 1024} KiB")
    begins = _PICTURES.get(path.suffix)
    if begins is None or not begins.match(content):
        raise Refusal(expected, found=f"{path}: something else")
    return str(path.absolute())


def _sink(value: str, info: ValidationInfo[Any]) -> str:
    if value == "-":
        return value
    path = resolved(value, surroundings(info))
    if path.is_dir():
        raise Refusal('"-" or a file to append to', found=f"{path}: is a directory")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise Refusal('"-" or a file to append to', found=f"{path}: can't be written")
    return str(path.absolute())


ExistingFile = Annotated[str, AfterValidator(_existing_file)]
OptionalFile = Annotated[str, AfterValidator(lambda value, info: _existing_file(value, info) if value else value)]
OptionalDirectory = Annotated[
    str, AfterValidator(lambda value, info: _existing_directory(value, info) if value else value)
]
OptionalPicture = Annotated[str, AfterValidator(lambda value, info: _picture(value, info) if value else value)]
Sink = Annotated[str, AfterValidator(_sink)]
"""`-` for standard output, else the absolute path of a file."""

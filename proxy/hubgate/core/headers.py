"""Which header fields pass, and in whose name do they speak?

Towards a hub: what concerns one connection only stays here (RFC 9110, 7.6.1), and no field passes in which a client
could speak in our name, or in that of a proxy, in any spelling that somebody behind us may fold to the same name:
CGI and WSGI turn `-` into `_` and put `HTTP_` in front, others drop what isn't a letter (oauth2-proxy
CVE-2025-64484, Caddy CVE-2026-30851). So names are compared by their letters and digits alone. Towards a client:
nothing passes that would act on more than the answer it came with (`Alt-Svc`, `Clear-Site-Data`, a service worker's
wider scope …), and no cookie of a name that is ours. And a page is somebody's: browsers keep none, since after Log Out
their back button would show it to whoever comes next (only `no-store` keeps Chromium from it).

What is decided about a name is remembered, so that a request costs one look-up a field. Framing never passes, since
the engine writes its own. Knows nothing about who the user is, nor about connections.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, NamedTuple

from hubgate.core.cookies import may_set
from hubgate.core.site import ASSERTION_HEADER
from hubgate.errors import ClientFault

Network = IPv4Network | IPv6Network


class UpstreamHeaders(NamedTuple):
    """What may be sent on of a request's header.

    `lines`: end-to-end fields in their order, each `Name: value` CRLF; Host among them, exactly once. `cookie`: the
    Cookie fields joined by `; ` (RFC 9113, 8.2.3), None without; whose cookies are in it is cookies.py's question.

    A named tuple and not a frozen dataclass: one is made for each request, in half the time.
    """

    lines: list[bytes]
    cookie: bytes | None

    def __repr__(self) -> str:
        # Authorization is among them.
        return f"UpstreamHeaders({len(self.lines)} lines, {'no cookie' if self.cookie is None else 'cookies'})"


# What happens to a field of a request. Plain integers, since they are compared for each field of each request.
_KEEP: Final = 0
_DROP: Final = 1
_COOKIE: Final = 2
_HOST: Final = 3
_CONNECTION: Final = 4

_TREATED = {
    b"cookie": _COOKIE,
    b"host": _HOST,
    b"connection": _CONNECTION,
    # Framing, which the engine writes itself, and hop-by-hop fields (RFC 9110, 7.6.1).
    b"content-length": _DROP,
    b"transfer-encoding": _DROP,
    b"upgrade": _DROP,
    b"expect": _DROP,
    b"keep-alive": _DROP,
    b"proxy-connection": _DROP,
    b"proxy-authenticate": _DROP,
    b"proxy-authorization": _DROP,
    b"te": _DROP,
    b"trailer": _DROP,
    b"http2-settings": _DROP,
    # The one end-to-end field in this table: it passes as it is spelled here, its look-alikes don't.
    b"authorization": _KEEP,
}

# Names by their letters and digits alone. What remote-user authenticators read, ...
_LOOK_ALIKES = frozenset(
    (
        b"remoteuser remoteusername remotegroup remotegroups remoteemail remotename "
        b"xremoteuser xremoteusername xremotegroup xremotegroups xremoteemail xremotename "
        b"xuser xusername xauthuser xauthusername xauthemail xauthenticateduser xwebauthuser authuser "
        # ... what a proxy says to the one behind it, ...
        b"forwarded forwardedfor xrealip xclientip trueclientip cfconnectingip xclusterclientip xscheme xurlscheme "
        b"xhost xproto frontendhttps proxy xrewriteurl "
        # ... and what changes the method after it was judged.
        b"xhttpmethodoverride xhttpmethod xmethodoverride"
    ).split()
)
_LOOK_ALIKE_FAMILIES = (b"xhubgate", b"xforwarded", b"xauthrequest", b"xoriginal", b"oidc", b"sslclient", b"xsslclient")

# Towards a client.
_KEEP_ANSWER: Final = 0
_DROP_ANSWER: Final = 1
_SET_COOKIE: Final = 2
_CONTENT_TYPE: Final = 3

_ANSWERS = {
    b"set-cookie": _SET_COOKIE,
    b"content-type": _CONTENT_TYPE,
    b"set-cookie2": _DROP_ANSWER,
    b"connection": _DROP_ANSWER,
    b"keep-alive": _DROP_ANSWER,
    b"proxy-connection": _DROP_ANSWER,
    b"proxy-authenticate": _DROP_ANSWER,
    b"proxy-authentication-info": _DROP_ANSWER,
    b"te": _DROP_ANSWER,
    b"trailer": _DROP_ANSWER,
    b"transfer-encoding": _DROP_ANSWER,
    b"upgrade": _DROP_ANSWER,
    # Acts on the whole origin or longer than the answer: not for one user's notebook server to say.
    b"alt-svc": _DROP_ANSWER,
    b"clear-site-data": _DROP_ANSWER,
    b"service-worker-allowed": _DROP_ANSWER,
    b"strict-transport-security": _DROP_ANSWER,
    b"nel": _DROP_ANSWER,
    b"report-to": _DROP_ANSWER,
    # Orders to a web server in front of us to hand out its own files.
    b"x-accel-redirect": _DROP_ANSWER,
    b"x-sendfile": _DROP_ANSWER,
    b"x-lighttpd-send-file": _DROP_ANSWER,
    b"x-reproxy-url": _DROP_ANSWER,
}

LARGEST_HEAD = 64 * 1024
"""Bytes of all fields that are sent on: what Tornado takes (JupyterHub, Jupyter Server), and four times what
configurable-http-proxy does."""
_LONGEST_CONNECTION = 1024

_MEMO = 1024
_LONGEST_LINE = 512
_NOT_ALPHANUMERIC = re.compile(rb"[^a-z0-9]+")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PAGES = (b"text/html", b"application/xhtml+xml")
_USUAL_CONNECTIONS = frozenset({b"keep-alive", b"close", b"Keep-Alive", b"Close"})


class HeaderRules:
    """The rules of one site. `identity_header`: the field that carries the user's name to hubs, e.g. `REMOTE_USER`.

    Raises ValueError for a name that is no token, or that HTTP itself needs.
    """

    def __init__(self, *, identity_header: str) -> None:
        treated = {_folded(name) for name in _TREATED}
        own = {_folded(name.encode()) for name in (identity_header, ASSERTION_HEADER)}
        if not _TOKEN.fullmatch(identity_header.encode()) or b"" in own or not treated.isdisjoint(own):
            raise ValueError(f"{identity_header!r} can't be the name of the identity header")
        # Treated names pass as they are spelled in the table, and in no other spelling.
        self._spoken_for = _LOOK_ALIKES | treated | own | {b"x" + name for name in own}
        # By name as it was spelled; emptied when full, so that inventing names costs the inventor most.
        self._requests: dict[bytes, int] = {}
        self._answers: dict[bytes, int] = {}
        # Whole lines that pass: nearly all of an answer came with another one a moment ago. Half of what names cost.
        self._answer_lines: set[bytes] = set()

    def to_upstream(self, raw_headers: Sequence[tuple[bytes, bytes]]) -> UpstreamHeaders:
        """What may be sent to a hub of a client's header fields, as the parser read them.

        Raises ClientFault: `host_malformed` (not exactly one Host), `header_malformed` (a name that is no token, a
        control character in a value, a Connection that lists without end), `headers_too_large` (431).
        """
        memo = self._requests
        lines: list[bytes] = []
        cookie: bytes | None = None
        hosts = 0
        listed: list[bytes] = []
        for pair in raw_headers:
            name, value = pair
            action = memo.get(name)
            if action is None:
                action = self._classified(name)
            if action == _KEEP:
                lines.append(b"%b: %b\r\n" % pair)
            elif action == _COOKIE:
                cookie = value if cookie is None else cookie + b"; " + value
            elif action == _HOST:
                hosts += 1
                lines.append(b"%b: %b\r\n" % pair)
            elif action == _CONNECTION and value not in _USUAL_CONNECTIONS:
                listed.append(value)
        if hosts != 1:
            raise ClientFault("host_malformed", "exactly one Host field is needed")
        if listed:
            connection = b",".join(listed)
            if len(connection) > _LONGEST_CONNECTION:
                # 2 MB of names, which the parser lets pass, took two seconds of everybody's time.
                raise ClientFault("header_malformed", "Connection lists more names than anybody needs")
            named = _tokens(connection) - {b"host"}
            lines = [line for line in lines if line.partition(b":")[0].lower() not in named]
        # The parser has seen to this; a second look at all of it at once costs 0.5 us and makes it our own promise.
        sent = b"".join((*lines, cookie or b""))
        if len(sent) > LARGEST_HEAD:
            raise ClientFault("headers_too_large", "more than any hub takes", status=431)
        if len(sent.translate(None, b"\r\n\0")) != len(sent) - 2 * len(lines):
            raise ClientFault("header_malformed", "a control character in a header field")
        return UpstreamHeaders(lines, cookie)

    def passes(self, name: bytes) -> bool:
        """Whether `to_upstream` sends a field of this name on, for what it is. Raises ClientFault as it does."""
        action = self._requests.get(name)
        return (self._classified(name) if action is None else action) == _KEEP

    def to_client(self, lines: Sequence[bytes], set_cookie: Callable[[bytes], bytes | None]) -> list[bytes]:
        """What may be sent to the client of an answer's header `lines` (`Name: value`, no CRLF, no status line).

        Content-Length passes: framing is the engine's. `set_cookie` gets the value of each Set-Cookie field that may
        pass, and returns the value to send, or None (`HubCookieTags.outgoing`, bound to a user).
        """
        passes = self._answer_lines
        if passes.issuperset(lines):
            return list(lines)
        kept: list[bytes] = []
        listed: frozenset[bytes] | None = None
        page = False
        for line in lines:
            if line in passes:
                kept.append(line)
                continue
            name, _, value = line.partition(b":")
            action = self._answers.get(name)
            if action is None:
                action = self._classified_answer(name)
            if action == _KEEP_ANSWER:
                kept.append(line)
                self._remember_line(line)
            elif action == _SET_COOKIE:
                value = value.strip()
                passed = set_cookie(value) if may_set(value) else None
                if passed is not None:
                    kept.append(b"%b: %b" % (name, passed))
            elif action == _CONTENT_TYPE:
                kept.append(line)
                if value.strip().lower().startswith(_PAGES):
                    page = True
                else:
                    self._remember_line(line)
            elif value.strip() not in _USUAL_CONNECTIONS and name.lower() == b"connection":
                listed = _tokens(value) if listed is None else listed | _tokens(value)
        if listed is not None:
            kept = [line for line in kept if line.partition(b":")[0].lower() not in listed]
        if page:
            kept = [line for line in kept if line.partition(b":")[0].lower() != b"cache-control"]
            kept.append(b"Cache-Control: no-store")
        return kept

    def _remember_line(self, line: bytes) -> None:
        if len(line) <= _LONGEST_LINE:
            if len(self._answer_lines) >= _MEMO:
                self._answer_lines.clear()
            self._answer_lines.add(line)

    def _classified(self, name: bytes) -> int:
        if _TOKEN.fullmatch(name) is None:
            raise ClientFault("header_malformed", "a header field name is no token (RFC 9110, 5.1)")
        action = _TREATED.get(name.lower())
        if action is None:
            folded = _folded(name)
            spoken_for = not folded or folded in self._spoken_for or folded.startswith(_LOOK_ALIKE_FAMILIES)
            action = _DROP if spoken_for else _KEEP
        return _remember(self._requests, name, action)

    def _classified_answer(self, name: bytes) -> int:
        action = _ANSWERS.get(name.lower())
        if action is None:
            usable = _TOKEN.fullmatch(name) is not None and not _folded(name).startswith(b"xhubgate")
            action = _KEEP_ANSWER if usable else _DROP_ANSWER
        return _remember(self._answers, name, action)


def _remember(memo: dict[bytes, int], name: bytes, action: int) -> int:
    if len(memo) >= _MEMO:
        memo.clear()
    if len(name) <= 64:
        memo[name] = action
    return action


def _folded(name: bytes) -> bytes:
    folded = _NOT_ALPHANUMERIC.sub(b"", name.lower())
    while folded.startswith(b"http") and folded != b"http":
        folded = folded[4:]
    return folded


def _tokens(value: bytes) -> frozenset[bytes]:
    return frozenset(token.strip().lower() for token in value.split(b","))


@lru_cache(maxsize=4096)
def forwarded_lines(*, client: str, host: str, proto: str) -> bytes:
    """The lines that tell a hub how the request reached us, each with CRLF; nothing that a client said is in them.

    `client`: IP address. `host`: `name[:port]` as people see it. `proto`: http or https. JupyterHub reads the first
    proto of Forwarded (RFC 7239), then X-Scheme, then X-Forwarded-Proto; its proxy appends to the X-Forwarded ones.
    Cached: a client sends many requests.
    """
    name, _, port = host.rpartition(":") if host[-1:] != "]" else ("", "", "")
    if not name:
        port = "443" if proto == "https" else "80"
    node = f'"[{client}]"' if ":" in client else client
    return (
        f"X-Forwarded-For: {client}\r\n"
        f"X-Forwarded-Proto: {proto}\r\n"
        f"X-Forwarded-Host: {host}\r\n"
        f"X-Forwarded-Port: {port}\r\n"
        f"X-Real-IP: {client}\r\n"
        f'Forwarded: for={node};host="{host}";proto={proto}\r\n'
    ).encode("ascii")


def client_address(peer: str, forwarded_for: Sequence[str], trusted: Sequence[Network]) -> str:
    """The address of whoever is behind the proxies that we trust.

    `peer`: who is connected to us. `forwarded_for`: the X-Forwarded-For fields in their order. `trusted`: whose word
    counts. Read from the right, each address is the word of the one before, so the first that isn't trusted is the
    client; an entry that is no address ends what can be believed.
    """
    if not trusted or not forwarded_for:
        return canonical_address(peer)
    believed = peer
    for told in reversed([entry.strip() for entry in ",".join(forwarded_for).split(",")]):
        address = _address(believed)
        if address is None or not any(address in network for network in trusted):
            break
        if _address(told) is None:
            break
        believed = told
    return canonical_address(believed)


@lru_cache(maxsize=4096)
def canonical_address(text: str) -> str:
    """An address as it is written everywhere here, whoever wrote it."""
    return str(_address(text) or text)


@lru_cache(maxsize=4096)
def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An address out of `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`, `fe80::1%eth0`."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # What a socket that listens on both families calls an IPv4 peer.
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address

"""What was decided on is what is sent: no spelling of a path or a host leads to another place than it says.

Bob may use `htc` and not `hpc`; the hub of `hpc` must never hear of him. What is forwarded is byte for byte what he
sent, once, to the hub that the plainest reading names, and no careless reader behind us reads another place from it.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, unquote_to_bytes

import pytest

from tests.attacks.door import Door, door

# Where somebody wants to go who may not, from where he may.
GOALS = ("hpc/hub/home", "hpc/user/alice/lab", "htc/hub/login", "_hubgate/callback", "_hubgate/logout")
UPS = (
    *("..", "%2e%2e", "%2E%2E", ".%2e", "%2e.", "%252e%252e", "%25252e%25252e", "..;", "..;x=1", "%2e%2e;", "..%3b"),
    *("..%00", "%00..", "..%20", "%c0%ae%c0%ae", "%e0%80%ae%e0%80%ae", "%f0%80%80%ae.", "%u002e%u002e", "..%0d%0a"),
    *("...", "....", ". .", ".%09.", "..%5c..", "..\\..", "%uff0e%uff0e", "%ef%bc%8e%ef%bc%8e", "..%ff", "..#", "..?"),
)
SLASHES = (
    *("/", "//", "///", "%2f", "%2F", "%252f", "%25252f", "\\", "%5c", "%5C", "%255c", "/./", "/%2e/", "%2f%2f"),
    *("/;/", "/;x/", ";/", "%3b/", "/%3b/", "%c0%af", "%e0%80%af", "%ef%bc%8f", "/%20/", "/%09/", "/%0a/", "/%00/"),
)


def _paths() -> list[str]:
    paths = []
    for goal in GOALS:
        for up in UPS:
            paths += [f"/htc/{up}/{goal}", f"/htc/user/bob/{up}/{up}/{up}/{goal}", f"/{up}/{goal}"]
        for slash in SLASHES:
            spelled = goal.replace("/", slash)
            paths += [f"/{spelled}", f"{slash}{goal}", f"/htc{slash}..{slash}{goal}", f"/htc/{slash}{goal}"]
        for index in range(len(goal)):
            encoded = "".join(f"%{ord(c):02x}" if i == index else c for i, c in enumerate(goal))
            paths += [f"/{encoded}", f"/{encoded.replace('%', '%25')}"]
    paths += [
        f"/{prefix}/hub/home" for prefix in ("hpcx", "HPC", "Hpc", "xhpc", "hpc.", "hpc%20", "hpc~", "hp", "hpc;x")
    ]
    paths += ["/hpc", "/hpc?x", "/hpc;x", "/hpc%3fx", "/hpc%23x", "/hpc%26", "/hpc.", "/hpc,/", "/hpc%2f", "/hpc%5c"]
    paths += [f"/htc/hub/home{end}" for end in ("#/hpc/", "?/../hpc/", "?next=/hpc/", ";/../../hpc/", "%3f/../../hpc/")]
    paths += ["/htcx/", "/HTC/hub/home", "/htc.hub/home", "/htc%20/hub/", "/htc%2e/hub/", "/%68%74%63/hub/home", "/ht/"]
    paths += [f"/{own}/login?next=/" for own in ("_HUBGATE", "_hubgatex", "_hubgate%20", "_hubgate.", "%5f%68ubgate")]
    paths += [f"/htc/_hubgate/{page}" for page in ("login", "callback", "jwks.json", "..%2f..%2f_hubgate/callback")]
    return sorted(dict.fromkeys(paths))


PATHS = _paths()


def _resolved(path: str) -> str:
    kept: list[str] = []
    for segment in path.split("/")[1:]:
        if segment == "..":
            kept = kept[:-1]
        elif segment != ".":
            kept.append(segment)
    return "/" + "/".join(kept)


def _collapsed(path: str) -> str:
    return re.sub("/+", "/", path)


def _without_parameters(path: str) -> str:
    return re.sub(r";[^/]*", "", path)


READERS = {
    "as it stands": lambda path: path,
    "decoded": unquote,
    "decoded twice": lambda path: unquote(unquote(path)),
    "a browser's URL": lambda path: _resolved(re.sub("(?i)%2e", ".", path.replace("\\", "/"))),
    "nginx": lambda path: _resolved(_collapsed(unquote(path))),
    "tomcat": lambda path: _resolved(_collapsed(_without_parameters(unquote(_without_parameters(path))))),
    "a Windows": lambda path: _resolved(_collapsed(unquote(path).replace("\\", "/"))),
    "two proxies": lambda path: _resolved(_collapsed(unquote(_resolved(_collapsed(unquote(path)))))),
    "cut at NUL": lambda path: unquote(path).partition("\0")[0],
    "Latin-1": lambda path: unquote_to_bytes(path).decode("latin-1"),
}


def place(path: str) -> str:
    """Where a path belongs, by the plainest comparison there is."""
    first, _, rest = path.removeprefix("/").partition("/")
    if first == "_hubgate" or path == "/":
        return "portal"
    if first not in {"htc", "hpc"}:
        return "nowhere"
    hub = rest == "hub" or rest.startswith("hub/")
    return f"{first} {'login' if rest == 'hub/login' else 'hub' if hub else 'notebook'}"


async def judged(at: Door, data: bytes, target: str, *, user: str, what: object) -> int:
    """One answer at most, one request at most, and that one where everybody reads that it belongs. The status."""
    replies = await at.told(data)
    assert len(replies) == 1, (what, replies)
    status = replies[0].status
    assert status < 500, (what, replies)
    heard = {name: hub.requests for name, hub in at.hubs.items() if hub.requests}
    got = at.received()
    assert len(got) <= 1, (what, got)
    if not got:
        assert status in {200, 302, 303, 307, 400, 401, 403, 404, 405, 421}, (what, replies)
        if status == 200:
            assert place(target.partition("?")[0]) == "portal", what
        return status
    assert got[0].line == f"GET {target} HTTP/1.1".encode("latin-1"), what
    path = target.partition("?")[0]
    readings = {place(reader(path)) for reader in READERS.values()}
    (where,) = readings
    assert status == 200
    assert next(iter(heard)).startswith(where[:3]), (what, heard)
    told = got[0].values(b"REMOTE_USER")
    assert told == ([user.encode()] if where.endswith(("hub", "login")) else []), (what, where, told)
    assert not (user == "bob" and "hpc01" in heard), what
    return status


@pytest.fixture
async def at():
    async with door(login=("alice", "bob")) as found:
        yield found


@pytest.mark.parametrize("user", ["alice", "bob"])
async def test_no_spelling_of_a_path_leads_elsewhere(at, user) -> None:
    assert len(PATHS) > 700
    statuses = []
    for path in PATHS:
        data = at.request(path.encode("latin-1", "replace"), user=user)
        statuses.append(await judged(at, data, path, user=user, what=path))
    # Were all of them refused for another reason, nothing would have been tried.
    assert {200, 400, 404} <= set(statuses)
    assert statuses.count(400) > 300


async def test_without_a_session_no_spelling_reaches_a_hub(at) -> None:
    for path in PATHS:
        fields = (b"Accept: text/html",) if len(path) % 2 else ()
        replies = await at.told(at.request(path.encode("latin-1", "replace"), *fields))
        assert len(replies) == 1, path
        assert replies[0].status in {302, 303, 307, 400, 401, 404, 200}, (path, replies)
        if replies[0].status == 200:
            assert place(path.partition("?")[0]) == "portal"
    assert at.received() == []


async def test_honest_names_pass_as_they_are(at) -> None:
    """The other half of the promise: what people call their files is sent on unchanged."""
    for path in (
        "/htc/user/bob/files/a%2Fb.txt",
        "/htc/user/bob/files/100%25%20%C3%BC%20%2B.ipynb",
        "/htc/user/bob/files/.ipynb_checkpoints/.hidden/..x",
        "/htc/user/bob/files/a;b/c=d,e@f:g!h$i&j'k(l)*m+n~o",
        "/htc/user/bob//files//x",
        "/htc/user/bob/files/[1]|2",
        '/htc/user/bob/x?p=%zz\\^`{}<>"|&q=%2e%2e/../%00&r=http://evil/',
        "/htc/hub/home?next=//evil/%2f%2e%2e",
        "/htc/hub/spawn/bob/a%20b",
        "/htc/hub/%F0%9F%98%80",
    ):
        assert await judged(at, at.request(path.encode(), user="bob"), path, user="bob", what=path) == 200


async def test_forms_of_the_target_that_are_no_path(at) -> None:
    host = at.netloc.decode()
    other = b"hpc.example.org"
    refused = [
        *(
            b"*",
            b"",
            b"htc/hub/home",
            b"hpc01/hub",
            at.netloc,
            other + b":443",
            b"?x",
            b"#x",
            b"//" + at.netloc + b"/htc/",
        ),
        *(
            b"//evil.example/htc/hub/home",
            b"///htc/hub/home",
            b"/\\evil.example/htc/",
            b"\\htc\\hub",
            b"./htc/",
            b"../htc/",
        ),
        *(
            b"http:/htc/hub/home",
            b"http:htc",
            b"http:///htc/hub/home",
            b"http://",
            b"javascript:alert(1)",
            b"file:///etc",
        ),
        *(b"ftp://" + at.netloc + b"/htc/", b"ws://" + at.netloc + b"/htc/", b"gopher://" + at.netloc + b"/htc/"),
        *(b"http://" + other + b"/htc/hub/home", b"http://evil.example@" + at.netloc + b"/htc/hub/home"),
        *(b"http://" + at.netloc + b"@evil.example/htc/hub/home", b"http://" + at.netloc + b".evil.example/htc/"),
        *(b"http://" + at.netloc + b"#/htc/", b"http://" + at.netloc + b"/htc/#x", b"http://" + at.netloc + b"\\htc"),
        *(b"http://" + at.netloc + b"//evil.example/htc/", b"http://" + at.netloc + b"/htc/../hpc/hub/home"),
        *(b"http://127.0.0.1/htc/hub/home", b"http://127.0.0.1:1/htc/hub/home", b"http://[::1]/htc/", b"http://[/htc/"),
        *(b"/htc/\xff", "/htc/ü".encode(), b"/htc/\x7f", b"/htc/%", b"/htc/%2", b"/htc/%zz", b"/htc/%u0041"),
    ]
    for target in refused:
        for method in (b"GET", b"POST", b"OPTIONS"):
            replies = await at.told(at.request(target, user="alice", method=method))
            assert [reply.status for reply in replies] in ([400], [404], [405], [421]), (target, method, replies)
            assert at.received() == [], target
    for method in (b"CONNECT", b"TRACE"):
        for target in (at.netloc, b"/htc/hub/home", b"http://" + at.netloc + b"/htc/hub/home", b"*"):
            replies = await at.told(at.request(target, user="alice", method=method))
            assert all(400 <= reply.status < 500 for reply in replies), (method, target, replies)
            assert at.received() == []
    for spelled in (f"http://{host}", f"HTTP://{host}", f"hTTp://{host}"):
        target = f"{spelled}/htc/hub/home?q=%2F"
        data = at.request(target.encode(), user="alice")
        assert await judged(at, data, "/htc/hub/home?q=%2F", user="alice", what=target) == 200


async def test_hosts_that_are_not_exactly_one_of_ours(at) -> None:
    port = str(at.port).encode()
    malformed = [
        *(b"", b" ", b",", b"127.0.0.1:" + port + b", evil.example", b"127.0.0.1:" + port + b" evil.example"),
        *(b"alice@127.0.0.1:" + port, b"127.0.0.1:" + port + b"@evil.example", b"127.0.0.1:" + port + b"/htc"),
        *(b"127.0.0.1:" + port + b"#", b"127.0.0.1:" + port + b"?", b"127.0.0.1:" + port + b";x", b"127.0.0.1\\x"),
        *(b"127.0.0.1:" + port + b":80", b"127.0.0.1:", b"127.0.0.1:x", b"127.0.0.1:-1", b"127.0.0.1:+" + port),
        *(b"127.0.0.1:99999", b"127.0.0.1:0", b"127.0.0.1.:" + port, b".127.0.0.1:" + port, b"[127.0.0.1]x", b"[::1"),
        *(b"[::1%25lo]:" + port, b"*", b"*:" + port, b"127.0.0.1%3a" + port, b"127.0.0.1:" + port + b"%00", b"\xff"),
        *("１２７.0.0.1:".encode() + port, b"127.0.0.1:" + "１".encode(), "\u212a.example".encode(), b'"127.0.0.1"'),
        *(b"http://127.0.0.1:" + port, b"<script>", b"127.0.0.1:" + port + b"\x0b", b"a" * 5000 + b"/"),
    ]
    for host in malformed:
        for user in ("alice", ""):
            (reply,) = await at.told(at.request(b"/htc/hub/home", user=user, host=host))
            assert reply.status == 400, (host, reply)
    foreign = [
        *(
            b"evil.example",
            b"127.0.0.1",
            b"127.0.0.1:1",
            b"127.0.0.1:80",
            b"localhost:" + port,
            b"[::1]:" + port,
            b"0:" + port,
        ),
        *(
            b"127.1:" + port,
            b"0x7f000001:" + port,
            b"2130706433:" + port,
            b"127.0.0.1.evil.example",
            b"evil127.0.0.1:" + port,
        ),
        *(b"a" * 5000, b"127.0.0.1.nip.io:" + port),
    ]
    for host in foreign:
        for user in ("alice", ""):
            (reply,) = await at.told(at.request(b"/htc/hub/home", user=user, host=host))
            assert reply.status == 421, (host, reply)
            assert host[:40] not in reply.body, "a page does not repeat it"
    for fields in (
        (b"Host: " + at.netloc,),
        (b"Host: evil.example",),
        (b"HOST: evil.example",),
        (b"Host:",),
        (b"Host : evil.example",),
        (b"\tHost: evil.example",),
        (b"X: y\r\n Host: evil.example",),
    ):
        (reply,) = await at.told(at.request(b"/htc/hub/home", *fields, user="alice"))
        assert reply.status == 400, (fields, reply)
    assert at.received() == []
    for ignored in (b"X-Forwarded-Host", b"X-Host", b"X-HTTP-Host-Override", b"Forwarded", b"X-Original-Host"):
        (reply,) = await at.told(at.request(b"/htc/hub/home", ignored + b": evil.example", user="alice"))
        assert reply.status == 200
        (got,) = at.received()
        assert got.values(b"Host") == [at.netloc]
        assert got.values(b"X-Forwarded-Host") == [at.netloc]


async def test_headers_do_not_move_a_request(at) -> None:
    """Names by which other gateways are told another path, method or host."""
    for name in (
        *(b"X-Original-URL", b"X-Original-URI", b"X-Rewrite-URL", b"X-Forwarded-Uri", b"X-Forwarded-Prefix"),
        *(b"X-Forwarded-Path", b"X-Envoy-Original-Path", b"X-HTTP-Method-Override", b"X-HTTP-Method", b"X-Script-Name"),
        *(b"Content-Location", b"Destination", b"Referer", b"X-Accel-Redirect", b"Location", b"X-Request-URI"),
    ):
        for value in (b"/hpc/hub/home", b"http://127.0.0.1/hpc/", b"PUT", b"/_hubgate/logout"):
            (reply,) = await at.told(at.request(b"/htc/user/bob/x", name + b": " + value, user="bob"))
            assert reply.status == 200
            (got,) = at.received()
            assert got.line == b"GET /htc/user/bob/x HTTP/1.1"
            assert got.values(b"REMOTE_USER") == []
            (reply,) = await at.told(at.request(b"/hpc/hub/home", name + b": /htc/", user="bob"))
            assert reply.status == 403
            assert at.received() == []


@pytest.fixture
async def rooted():
    """The pool `hpc` at a host of its own, at its root: whatever isn't ours there goes to its hub."""

    def adapt(document) -> None:
        port = document["gateway"]["public_url"].rpartition(":")[2]
        document["pools"][1] |= {"host": f"localhost:{port}", "path": "/"}

    async with door(adapt, login=("alice",)) as found:
        async with await found.site.logged_in("alice") as person:
            there = f"http://localhost:{found.port}"
            await person.get(there + "/hub/home")
            found.cookies["alice"] = f"hubgate={person.cookies(there)['hubgate']}".encode()
        found.received()
        yield found


async def test_our_own_prefix_never_reaches_a_hub_in_any_spelling(rooted) -> None:
    """A hub that is given `/_hubgate/callback?code=…` in whatever spelling learns a code."""
    host = b"localhost:%d" % rooted.port
    for page in (
        "_hubgate/callback?code=x",
        "_hubgate/login?next=/",
        "_hubgate/handover?code=x",
        "_hubgate",
        "_hubgate/",
    ):
        path, question, query = page.partition("?")
        spelled = {f"/{path}", f"/x/../{path}", f"/%2e/{path}", f"/./{path}", f"//{path}", f"/;/{path}", f"/{path};x"}
        spelled |= {f"/{path.replace('/', slash)}" for slash in SLASHES}
        for index, char in enumerate(path):
            once = f"%{ord(char):02x}"
            for encoded in (once, once.upper(), once.replace("%", "%25")):
                spelled.add(f"/{path[:index]}{encoded}{path[index + 1 :]}")
        for each in sorted(spelled):
            data = rooted.request(f"{each}{question}{query}".encode("latin-1"), user="alice", host=host)
            (reply,) = await rooted.told(data)
            if rooted.received():
                # Three decodings, or Unicode's compatibility forms, are nobody's: another name altogether.
                assert "portal" not in {place(reader(each)) for reader in READERS.values()}, each
                assert "%25252f" in each or "%ef%bc%8f" in each
            else:
                assert reply.status in {303, 307, 400, 401, 404}, (each, reply)
    (reply,) = await rooted.told(rooted.request(b"/_hubgatex", user="alice", host=host))
    assert reply.status == 200
    assert len(rooted.received()) == 1

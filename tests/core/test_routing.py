"""Where a request belongs, and that nobody behind us can read it as belonging elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import unquote, unquote_to_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hubgate.core.routing import (
    NoRoute,
    PoolRoute,
    PortalRoute,
    Route,
    Router,
    Target,
    Zone,
    normal_host,
    parse_target,
)
from hubgate.core.site import Site
from hubgate.errors import ClientFault
from tests.core.strategies import HOSTS, PORTAL, SITE, paths, pool, respelled

ROUTER = Router(SITE)


def route(raw: str, host: str = PORTAL) -> Route:
    return ROUTER.match(parse_target(raw, [host], secure=True))


def where(raw: str, host: str = PORTAL) -> str:
    """`pool zone`, `portal`, the reason for none, or the code of the refusal."""
    try:
        match route(raw, host):
            case PoolRoute(pool, zone):
                return f"{pool.name} {zone.value}"
            case PortalRoute():
                return "portal"
            case NoRoute(why):
                return why
    except ClientFault as fault:
        return fault.code


@pytest.mark.parametrize(
    ("raw", "host", "expected"),
    [
        ("/", PORTAL, "portal"),
        ("/?a=b", PORTAL, "portal"),
        ("/favicon.ico", PORTAL, "portal"),
        ("/robots.txt", PORTAL, "portal"),
        ("/_hubgate/login?next=%2Fhtc%2F", PORTAL, "portal"),
        ("/_hubgate", PORTAL, "portal"),
        ("/_hubgate/x", "gpu.example.org", "portal"),
        ("/_hubgate/x", "dev.example.org:8443", "portal"),
        ("/_hubgatex", PORTAL, "unknown_path"),
        ("/_HUBGATE/x", PORTAL, "unknown_path"),
        ("/htc", PORTAL, "htc notebook"),
        ("/htc?x", PORTAL, "htc notebook"),
        ("/htc/", PORTAL, "htc notebook"),
        ("/htc/hub", PORTAL, "htc hub"),
        ("/htc/hub/", PORTAL, "htc hub"),
        ("/htc/hubs/", PORTAL, "htc notebook"),
        ("/htc/hub/login", PORTAL, "htc login"),
        ("/htc/hub/login?next=", PORTAL, "htc login"),
        ("/htc/hub/login/", PORTAL, "htc hub"),
        ("/htc/hub/api/users", PORTAL, "htc hub"),
        ("/htc/user/alice/lab", PORTAL, "htc notebook"),
        ("/htc/_hubgate/x", PORTAL, "htc notebook"),
        ("/htcx", PORTAL, "unknown_path"),
        ("/htcx/", PORTAL, "unknown_path"),
        ("/HTC/", PORTAL, "unknown_path"),
        ("/ht", PORTAL, "unknown_path"),
        ("/lab/deep/hub/login", PORTAL, "inner login"),
        ("/lab/deep", PORTAL, "inner notebook"),
        ("/lab/deeper/", PORTAL, "outer notebook"),
        ("/lab", PORTAL, "outer notebook"),
        ("/", "gpu.example.org", "gpu notebook"),
        ("/hub/login", "gpu.example.org", "gpu login"),
        ("/htc/", "gpu.example.org", "gpu notebook"),
        ("/favicon.ico", "gpu.example.org", "gpu notebook"),
        ("/", "dev.example.org:8443", "unknown_path"),
        ("/dev/hub/", "dev.example.org:8443", "dev hub"),
        ("/dev/", "dev.example.org", "unknown_host"),
        ("/dev/", PORTAL, "unknown_path"),
        ("/htc/", "other.example.org", "unknown_host"),
        ("/htc/", "JUPYTER.Example.ORG:443", "htc notebook"),
        # File names as people have them.
        ("/htc/user/alice/files/a%2Fb.txt", PORTAL, "htc notebook"),
        ("/htc/user/alice/files/100%25.txt", PORTAL, "htc notebook"),
        ("/htc/user/alice/files/%C3%BC%20%2B.ipynb", PORTAL, "htc notebook"),
        ("/htc/user/alice/files/.ipynb_checkpoints/a", PORTAL, "htc notebook"),
        ("/htc/user/alice/files/a;b/c", PORTAL, "htc notebook"),
        ("/htc/user/alice//files", PORTAL, "htc notebook"),
        ("/htc/user/a@b.org/x[1]|2/(3)", PORTAL, "htc notebook"),
        ('/htc/user/alice/x?p=%zz\\^`{}<>"', PORTAL, "htc notebook"),
    ],
)
def test_belongs(raw: str, host: str, expected: str) -> None:
    assert where(raw, host) == expected


@pytest.mark.parametrize(
    "raw",
    [
        "/htc/../hpc/",
        "/htc/./hub/",
        "/htc/..",
        "/htc/.",
        "/htc/%2e%2e/hpc/",
        "/htc/%2E./hpc/",
        "/htc/..%2fhpc/",
        "/htc/..%5chpc/",
        "/htc/..;/hpc/",
        "/htc/..;x=1/hpc/",
        "/htc/%2e%2e%3b/hpc/",
        "/htc/%252e%252e/hpc/",
        "/htc/%252e%252e%252fhpc/",
        "/htc/user/alice/%00",
        "/htc/user/alice/%2500",
        "/htc/user/alice/%0d%0aX:%20y",
        "/htc/user/alice/%7f",
        "/htc/%c0%ae%c0%ae/hpc/",
        "/htc/%e0%80%af",
        "/htc/%ff",
        "//htc/",
        "//jupyter.example.org/htc/",
        "/%2f/htc/",
        "/%68tc/",
        "/htc%2fhub%2flogin",
        "/htc%2f",
        "/htc%5c",
        "/htc%3bx/",
        "/htc;x/hub/",
        "/htc;x",
        "/htc//hub/login",
        "/htc//hub/%20",
        "/htc/hub//login",
        "/htc/hub/log%69n",
        "/htc/hub/log%2569n",
        "/htc/hub/login;x",
        "/htc/%68ub/login",
        "/htc/hub%2flogin",
        "/%5fhubgate/callback",
        "/_hubgat%65/callback",
        "/_hubgate%2fcallback",
        "/_hubgate/%63allback",
        "/_hubgate/call;x",
        "/_hubgate//callback",
        "/%255fhubgate/callback",
        "/x/../_hubgate/callback",
        "/lab/%64eep/",
        "/lab//deep/",
    ],
)
def test_ambiguous_is_refused(raw: str) -> None:
    assert where(raw) == "target_ambiguous"


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "*",
        "htc/",
        "jupyter.example.org:443",
        "ftp://jupyter.example.org/htc/",
        "javascript:alert(1)",
        "/htc\\hub",
        "/htc/ hub",
        "/htc/\thub",
        "/htc/\x00",
        "/htc/\x7f",
        "/htc/ü",
        "/htc/\udcff",
        "/htc/#fragment",
        "/htc/?a#fragment",
        "/htc/?a b",
        "/htc/?ü",
        "/htc/%",
        "/htc/%4",
        "/htc/%zz/",
        "/htc/%u002e/",
    ],
)
def test_malformed_is_refused(raw: str) -> None:
    assert where(raw) == "target_malformed"


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        [PORTAL, PORTAL],
        [""],
        ["a, b"],
        ["user@jupyter.example.org"],
        ["jupyter.example.org/"],
        ["jupyter.example.org:"],
        ["jupyter.example.org:0"],
        ["jupyter.example.org:99999"],
        ["jupyter.example.org:4a"],
        ["jupyter.example.org."],
        [".example.org"],
        ["jupyter example.org"],
        ["jüpyter.example.org"],
        ["[::1"],
        ["[zz]"],
        ["\u212aeep.example.org"],  # the sign for kelvin, which is a "k" in lower case
    ],
)
def test_exactly_one_plain_host(hosts: list[str]) -> None:
    with pytest.raises(ClientFault) as caught:
        parse_target("/", hosts, secure=True)
    assert caught.value.code == "host_malformed"


def test_hosts_in_normal_form() -> None:
    assert normal_host("A.Example.Org:443", True) == "a.example.org"
    assert normal_host("a.example.org:443", False) == "a.example.org:443"
    assert normal_host("a.example.org:80", False) == "a.example.org"
    assert normal_host("a.example.org:00443", True) == "a.example.org"
    assert normal_host("[::1]:8443", True) == "[::1]:8443"
    assert normal_host("127.0.0.1:8443", True) == "127.0.0.1:8443"


def test_absolute_form_becomes_origin_form() -> None:
    def parse(raw: str) -> Target:
        return parse_target(raw, [PORTAL], secure=True)

    assert parse("https://jupyter.example.org/htc/?q=1").raw == "/htc/?q=1"
    assert parse("HTTP://JUPYTER.example.org:443/htc/%20").raw == "/htc/%20"
    assert parse("https://jupyter.example.org").raw == "/"
    assert parse("https://jupyter.example.org?q").raw == "/?q"
    for other in (
        "https://other/htc/",
        "https://a@jupyter.example.org/",
        "https:///htc/",
        "https://jupyter.example.org:1/",
    ):
        with pytest.raises(ClientFault, match="host_malformed"):
            parse(other)
    with pytest.raises(ClientFault, match="target_malformed"):
        parse("https://jupyter.example.org#x")


def test_a_site_that_names_its_default_port() -> None:
    router = Router(Site("https://Jupyter.example.org:443", (pool("htc", "/htc/"), pool("x", "/x/", host="x.org:443"))))
    assert isinstance(router.match(parse_target("/htc/", [PORTAL], secure=True)), PoolRoute)
    assert isinstance(router.match(parse_target("/x/", ["x.org"], secure=True)), PoolRoute)
    assert router.match(parse_target("/", [PORTAL], secure=True)) == PortalRoute("/", PORTAL)


# -- what others may read: written for this test, by the others' manners


def _resolved(segments: list[str]) -> str:
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            kept = kept[:-1]
        elif segment != ".":
            kept.append(segment)
    return "/" + "/".join(kept)


def _like_configurable_http_proxy(path: str) -> str:
    """WHATWG URL parser, then decodeURIComponent."""
    segments = path.replace("\\", "/").lstrip("/").split("/")
    return unquote(
        _resolved([re.sub("(?i)%2e", ".", s) if re.fullmatch(r"(?i)(\.|%2e){1,2}", s) else s for s in segments])
    )


def _like_nginx(path: str) -> str:
    """Decode, merge slashes, resolve dots."""
    return _resolved(re.sub("/+", "/", unquote(path))[1:].split("/"))


def _like_tomcat(path: str) -> str:
    """Cut parameters, decode, cut again, turn backslashes, resolve dots."""
    cut = re.sub(r";[^/]*", "", unquote(re.sub(r";[^/]*", "", path)).replace("\\", "/"))
    return _resolved(re.sub("/+", "/", cut)[1:].split("/"))


def _like_two_proxies(path: str) -> str:
    return _like_nginx(_like_nginx(path))


READERS: list[Callable[[str], str]] = [
    unquote,
    _like_configurable_http_proxy,
    _like_nginx,
    _like_tomcat,
    _like_two_proxies,
]


def _place(path: str, host: str) -> tuple[str, bool, bool] | None:
    """Pool, whether the hub answers, whether it is its login; by the plainest comparison there is."""
    if path == "/_hubgate" or path.startswith("/_hubgate/"):
        return ("", False, False)
    pools = [p for p in SITE.pools if SITE.pool_host(p) == host and (path + "/").startswith(p.path)]
    if not pools:
        return None
    base = max((p.path for p in pools), key=len)
    name = next(p.name for p in pools if p.path == base)
    rest = path[len(base) :]
    return (name, rest == "hub" or rest.startswith("hub/"), rest == "hub/login")


@settings(max_examples=500)
@given(path=paths, host=st.sampled_from(HOSTS))
@example(path="/htc/hub/..%2fuser/x/", host=PORTAL)
@example(path="/htc/user/%2e%2e;/hub/login", host=PORTAL)
def test_nobody_reads_a_routed_path_as_leading_elsewhere(path: str, host: str) -> None:
    try:
        target = parse_target(path, [host], secure=True)
        found = ROUTER.match(target)
    except ClientFault:
        return
    assert target.raw == path
    assert re.fullmatch(r"/[!-~]*", target.raw)
    assert "\\" not in target.path
    if isinstance(found, PoolRoute):
        expected = (found.pool.name, found.zone is not Zone.NOTEBOOK, found.zone is Zone.LOGIN)
        for reader in READERS:
            assert _place(reader(target.path), host) == expected
    elif isinstance(found, PortalRoute):
        assert found.path == target.path
        assert all(reader(target.path) == target.path for reader in READERS)
    else:
        assert all(_place(reader(target.path), host) is None for reader in READERS)


@given(
    data=st.data(),
    path=st.sampled_from(("/htc/", "/htc/hub/login", "/htc/user/a b/é", "/_hubgate/callback", "/lab/deep/x")),
)
def test_encoding_a_path_anew_never_leads_elsewhere(data: st.DataObject, path: str) -> None:
    plain = where("/" + "/".join(_escaped(segment) for segment in path[1:].split("/")))
    assert where(data.draw(respelled(path))) in {plain, "target_ambiguous", "target_malformed", "unknown_path"}


def _escaped(segment: str) -> str:
    return "".join(
        c if re.fullmatch(r"[A-Za-z0-9_.-]", c) else "".join(f"%{b:02X}" for b in c.encode()) for c in segment
    )


@given(path=paths, host=st.sampled_from(HOSTS))
def test_the_short_way_is_the_long_way(path: str, host: str) -> None:
    """A path taken for plain has the same route when all its readings are compared."""
    try:
        target = parse_target(path, [host], secure=True)
    except ClientFault:
        return
    if target.plain:
        assert ROUTER.match(target) == ROUTER.match(target._replace(plain=False))
        assert unquote_to_bytes(target.path) == target.path.encode()

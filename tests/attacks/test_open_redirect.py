"""Nobody is sent away: `next` and every other word about where to go ends on this site, as browsers read it.

What a browser makes of a Location is written down here once more (WHATWG URL: tabs and line ends vanish, backslashes
are slashes, a scheme needs no slashes), apart from the code that is judged by it.
"""

from __future__ import annotations

import hashlib
import re
from html.parser import HTMLParser
from urllib.parse import parse_qs, quote, quote_from_bytes, urlsplit

import pytest

from tests.attacks.door import Door, door
from tests.kit.raw import Reply

EVIL = "ev.il"

# `{host}` is the site's own. Each is sent as it is, percent-encoded once.
LEADING_AWAY = (
    *("https://ev.il", "http://ev.il/", "HTTPS://EV.il", "hTTp:ev.il", "http:/ev.il"),
    *("//ev.il", "///ev.il", "////ev.il", "/////ev.il", "\\\\ev.il", "/\\ev.il"),
    *("\\/ev.il", "/\\/ev.il", "//\\ev.il", "/\\\\ev.il", "\\ev.il", "/\\\t/ev.il"),
    *("/\t/ev.il", "/\n/ev.il", "/\r/ev.il", "/\r\n/ev.il", "\t//ev.il", " //ev.il"),
    *("\x00//ev.il", "\x01//ev.il", "\x0b//ev.il", "/\x00/ev.il", "/\x0b/ev.il"),
    *("\u00a0//ev.il", "\u3000//ev.il", "\ufeff//ev.il", "\u200b//ev.il", "\u2028//ev.il"),
    *("\x85//ev.il", "/\x85/ev.il", "/\u2028/ev.il", "/\u00a0/ev.il"),
    *("／／ev.il", "/／ev.il", "／ev.il", "⁄⁄ev.il", "∕∕ev.il", "//ev。il"),
    *("//ev%E3%80%82il", "//ev.il%2f..", "//ev.il%00.{host}", "//ev.il%23@{host}/"),
    *("//{host}@ev.il", "//{host}:80@ev.il/", "https://{host}@ev.il", "https://{host}\\@ev.il"),
    *("https://ev.il\\@{host}", "https://ev.il#@{host}/", "https://ev.il?@{host}/", "http://{host}.ev.il"),
    *("http://{host}%2eev.il", "http://{host}\uff0eev.il", "http://ev.il:80#{host}", "http://ev.il;{host}"),
    *("http://{host}%00.ev.il/", "http://{host}%0d%0a.ev.il", "http://{host} .ev.il", "http://{host}\t.ev.il"),
    *(
        "http://a{host}",
        "http://127.0.0.1/",
        "http://127.0.0.1:1/",
        "https://{host}:1/",
        "http://[::1]/",
        "http://2130706433/",
    ),
    *(
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "java\tscript:alert(1)",
        "java\nscript:alert(1)",
        " javascript:alert(1)",
    ),
    *(
        "\x01javascript:alert(1)",
        "javascript://{host}/%0aalert(1)",
        "javascript:/*//{host}/*/alert(1)",
        "jAvAsCrIpT&colon;alert(1)",
    ),
    *(
        "data:text/html,<script>alert(1)</script>",
        "vbscript:x",
        "file:///etc/passwd",
        "ftp://ev.il",
        "blob:https://ev.il/x",
    ),
    *("about:blank", "mailto:a@ev.il", "intent://ev.il", "view-source:https://ev.il", "x-evil:y", "filesystem:x"),
    *("/%2f/ev.il", "/%2fev.il", "/%5cev.il", "/%5c%5cev.il", "%2f%2fev.il", "%5c%5cev.il"),
    *("/%252fev.il", "/%25252fev.il", "/%09/ev.il", "/%0a/ev.il", "/%0d/ev.il", "/%00/ev.il"),
    *("/.//ev.il", "/..//ev.il", "/./\\ev.il", "/%2e//ev.il", "/%2e%2e//ev.il", "/.;//ev.il"),
    *("/x/..//ev.il", "/x/../..//ev.il", "/x/%2e%2e//ev.il", "/..;/..//ev.il", "/;/..//ev.il"),
    *("/htc/../\\ev.il", "/htc/..%2f/ev.il", "/htc/%2e%2e%2f%2fev.il", "//%0aev.il", "/ /ev.il"),
    *("ev.il", "ev.il/", "www.ev.il", ".ev.il", "@ev.il", ":80", ":@ev.il", "?//ev.il"),
    *("#//ev.il", "../evil", "./evil", "..", ".", ";//ev.il", "=//ev.il", "next=//ev.il", "'//ev.il"),
    *('"//ev.il', "<//ev.il", "(//ev.il)", "[//ev.il]", "{//ev.il}", "|//ev.il", "^//ev.il"),
    *(
        "/\r\nLocation: https://ev.il",
        "/\r\n\r\n<script>alert(1)</script>",
        "/\nSet-Cookie: hubgate=x",
        "/%0d%0aX-Injected: y",
    ),
    *(
        "/\u010a\u010dX-Injected: y",
        "/嘊嘍X-Injected: y",
        "/\r\tX-Injected: y",
        "/\ud800".encode("utf-16", "surrogatepass").hex(),
    ),
    *("http://{host}//ev.il", "http://{host}/\\ev.il", "http://{host}/../..//ev.il", "http://{host}\\\\ev.il"),
    *(
        "http://{host}/%2f/ev.il",
        "http:///{host}/evil",
        "http://",
        "http:",
        "https:",
        "://",
        "//",
        "///",
        "/\\",
        "\\",
        ":",
    ),
    *("/" + "a" * 5000, "/" + "%61" * 2000, "//" * 2000 + "ev.il", "/" + "../" * 1000 + "/ev.il"),
)
STAYING = {
    "/htc/hub/home": "/htc/hub/home",
    "/htc/hub/spawn?profile=a%2Fb&c=d#cell-1": "/htc/hub/spawn?profile=a%2Fb&c=d#cell-1",
    "/htc/user/alice/lab/tree/a%20b.ipynb?x=//ev.il": "/htc/user/alice/lab/tree/a%20b.ipynb?x=//ev.il",
    "http://{host}/htc/hub/home": "/htc/hub/home",
}


def destination(location: str, own: str) -> str:
    """The host, or the other scheme, that a browser on `own` goes to."""
    text = re.sub(r"[\t\r\n]", "", location.strip("".join(map(chr, range(33)))))
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", text)
    if scheme and scheme[1].lower() not in {"http", "https"}:
        return scheme[0]
    text = text.replace("\\", "/")
    if scheme:
        text = "//" + text[scheme.end() :].lstrip("/")
    if not text.startswith("//"):
        return own
    authority = re.split(r"[/?#]", text.lstrip("/"), maxsplit=1)[0]
    return authority.rpartition("@")[2].lower()


def location_of(reply: Reply) -> str:
    """The one Location of an answer, which is plain ASCII without a blank."""
    (value,) = reply.fields("Location")
    assert re.fullmatch(rb"[!-~]+", value), value
    assert not reply.fields("X-Injected")
    return value.decode()


def vectors(at: Door) -> list[str]:
    return [vector.replace("{host}", at.netloc.decode()) for vector in LEADING_AWAY]


def encoded(vector: str) -> list[bytes]:
    """A parameter's value as it can come: encoded as a browser does, fully, and hardly at all."""
    octets = vector.encode("utf-8", "surrogatepass")
    spellings = [quote(octets), "".join(f"%{byte:02x}" for byte in octets)]
    if re.fullmatch(rb"[!-\"$-~]*", octets) and b"&" not in octets and b"%" not in octets and b"+" not in octets:
        spellings.append(octets.decode())
    return [spelling.encode() for spelling in spellings if len(spelling) < 15_000]


class Links(HTMLParser):
    """Where a page leads, by a click or by itself."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(reply.body.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.found += [given[name] for name in ("href", "action", "src", "formaction", "data") if name in given]
        if given.get("http-equiv", "").lower() == "refresh":
            self.found.append(given["content"].partition("=")[2])


@pytest.fixture
async def at():
    async with door() as found:
        yield found


async def test_the_judge_knows_where_browsers_go(at) -> None:
    for away in ("//ev.il", "/\\ev.il", "/\t/ev.il", " //ev.il", "\x01//ev.il"):
        assert destination(away, "own") == EVIL
    for away in ("http:ev.il", "HTTPS:\\\\ev.il", "http://own@ev.il/", "///ev.il"):
        assert destination(away, "own") == EVIL
    assert destination("java\nscript:x", "own") == "javascript:"
    for stays in ("/x//ev.il", "x", "", "?//ev.il", "/x\\evil", "/%2f/ev.il", "http://own/x"):
        assert destination(stays, "own") == "own"
    away = [vector for vector in vectors(at) if destination(vector, at.netloc.decode()) != at.netloc.decode()]
    assert len(away) > 70, "vectors that lead nowhere attack nothing"


async def test_next_of_the_login_leads_nobody_away_who_has_a_session(at) -> None:
    own = at.netloc.decode()
    for vector in vectors(at):
        for value in encoded(vector):
            reply = await at.ask(b"/_hubgate/login?next=" + value, user="alice")
            assert destination(location_of(reply), own) == own, (vector, reply)
        for query in (b"next=" + value + b"&next=/htc/", b"next=/&next=" + value):
            reply = await at.ask(b"/_hubgate/login?" + query, user="alice")
            assert destination(location_of(reply), own) == own, (vector, reply)
    for vector, expected in STAYING.items():
        value = quote(vector.replace("{host}", own), safe="").encode()
        assert location_of(await at.ask(b"/_hubgate/login?next=" + value, user="alice")) == expected
    assert at.received() == []


async def test_next_is_no_other_parameter(at) -> None:
    for name in (
        "rd",
        "redirect",
        "redirect_uri",
        "return",
        "returnTo",
        "url",
        "continue",
        "dest",
        "target",
        "Next",
        "next[]",
    ):
        reply = await at.ask(f"/_hubgate/login?{name}=https%3A%2F%2Fev.il".encode(), user="alice")
        assert location_of(reply) == "/"


async def test_next_survives_a_whole_login_and_leads_nobody_away(at) -> None:
    """The value lies in the store meanwhile, and comes out at the callback."""
    own = at.netloc.decode()
    chosen = [vector for vector in vectors(at) if len(vector) < 100][::3]
    async with await at.site.logged_in() as alice:
        for vector in (*chosen, *(vector.replace("{host}", own) for vector in STAYING)):
            alice.session.cookie_jar.clear(lambda cookie: cookie.key == "hubgate")
            value = quote(vector.encode("utf-8", "surrogatepass"), safe="")
            page = await alice.get(f"{at.site.url}/_hubgate/login?next={value}&on=1", follow=False)
            page = await alice.get(page.headers["Location"], follow=False)
            page = await alice.get(page.headers["Location"], follow=False)
            assert page.status == 303, (vector, page)
            assert destination(page.headers["Location"], own) == own, (vector, page)
            assert "hubgate" in alice.cookies(at.site.url)


async def test_the_page_that_keeps_fragments_leads_nobody_away(at) -> None:
    own = at.netloc.decode()
    for vector in (*vectors(at), "/htc/hub/home"):
        for value in encoded(vector):
            reply = await at.ask(b"/_hubgate/login?next=" + value, b"Sec-Fetch-Mode: navigate", b"Sec-Fetch-Site: none")
            if reply.status == 302:
                assert destination(location_of(reply), own) == urlsplit(at.site.provider_url).netloc
                continue
            if reply.status == 429:  # the flood of these very vectors
                continue
            assert reply.status == 200, (vector, reply)
            for link in Links(reply).found:
                assert destination(link, own) == own, (vector, link)
            (onward,) = {link for link in Links(reply).found if "next=" in link}
            (after,) = parse_qs(urlsplit(onward).query)["next"]
            assert destination(after, own) == own, (vector, after)


async def test_next_of_moving_leads_nobody_away(at) -> None:
    own = at.netloc.decode()
    landing = (await at.ask(b"/", user="alice")).body.decode()
    (token,) = set(re.findall(r'name="csrf" value="([^"]+)"', landing))
    form = b"Content-Type: application/x-www-form-urlencoded"
    for vector in vectors(at):
        for value in encoded(vector):
            body = b"csrf=%b&pool=htc&next=%b" % (token.encode(), value)
            if len(body) > 16_000:
                continue
            reply = await at.ask(b"/_hubgate/move", form, method=b"POST", user="alice", body=body)
            assert reply.status == 303
            assert destination(location_of(reply), own) == own, (vector, reply)


async def test_log_out_and_its_receipt_take_no_address(at) -> None:
    own = at.netloc.decode()
    for name in (
        "next",
        "redirect_uri",
        "post_logout_redirect_uri",
        "returnTo",
        "rd",
        "continue",
        "pool",
        "closed",
        "ended",
    ):
        for vector in vectors(at)[::19]:
            for value in encoded(vector)[:1]:
                query = name.encode() + b"=" + value
                receipt = await at.ask(b"/_hubgate/logged-out?" + query)
                assert receipt.status == 200
                for link in Links(receipt).found:
                    assert destination(link, own) == own, (vector, link)
                assert EVIL not in receipt.body.decode()
                asked = await at.ask(b"/_hubgate/logout?" + query, user="alice")
                for link in Links(asked).found:
                    assert destination(link, own) == own, (vector, link)
                assert location_of(await at.ask(b"/_hubgate/logout?" + query)) == "/_hubgate/logged-out"
                assert (await at.ask(b"/_hubgate/farewell?code=x&" + query)).status == 404
    landing = (await at.ask(b"/", user="alice")).body.decode()
    (token,) = set(re.findall(r'name="csrf" value="([^"]+)"', landing))
    body = f"csrf={token}&next=//ev.il&post_logout_redirect_uri=https://ev.il".encode()
    form = b"Content-Type: application/x-www-form-urlencoded"
    reply = await at.ask(b"/_hubgate/logout?next=//ev.il", form, method=b"POST", user="alice", body=body)
    assert location_of(reply).startswith(f"{at.site.url}/_hubgate/logged-out?")


async def test_pages_of_odd_addresses_link_to_this_site_alone(at) -> None:
    own = at.netloc.decode()
    for vector in vectors(at):
        path = quote_from_bytes(vector.encode("utf-8", "surrogatepass"), safe="/\\:@?&=;,.!$'()*+<>\"|^{}[]~").encode()
        for index, target in enumerate((path, b"/" + path, b"/nowhere?" + path, b"/htc/" + path, b"/hpc/hub/?" + path)):
            if len(target) > 15_000:
                continue
            for user in ("alice", "")[index % 2 :]:
                replies = await at.told(at.request(target, b"Accept: text/html", user=user))
                at.received()
                (reply,) = replies
                if reply.status in {302, 303, 307}:
                    assert destination(location_of(reply), own) == own, (target, reply)
                elif reply.status != 200 and reply.field("Content-Type") == b"text/html; charset=utf-8":
                    for link in Links(reply).found:
                        assert destination(link, own) == own, (target, link)


@pytest.fixture
async def two_hosts():
    def adapt(document) -> None:
        port = document["gateway"]["public_url"].rpartition(":")[2]
        document["pools"][1]["host"] = f"localhost:{port}"

    async with door(adapt) as found:
        yield found, b"localhost:%d" % found.port


async def test_next_of_a_handover_leads_nobody_away(two_hosts) -> None:
    at, there = two_hosts
    portal, host = at.netloc.decode(), there.decode()
    cookie = "c" * 43
    state = hashlib.sha256(cookie.encode()).hexdigest()
    for vector in [*vectors(at), *(vector.replace(portal, host) for vector in vectors(at) if portal in vector)]:
        for value in encoded(vector)[:2]:
            asked = await at.ask(b"/_hubgate/login?next=" + value, b"Accept: text/html", host=there)
            assert destination(location_of(asked), host) == portal
            (after,) = parse_qs(urlsplit(location_of(asked)).query)["next"]
            assert destination(after, host) == host, (vector, after)
            give = f"/_hubgate/handover?host={host}&state={state}&next=".encode() + value
            given = await at.ask(give, b"Accept: text/html", user="alice")
            assert destination(location_of(given), portal) == host, (vector, given)
            take = location_of(given).partition(host)[2].encode()
            taken = await at.ask(take, b"Accept: text/html", b"Cookie: hubgate-handover=" + cookie.encode(), host=there)
            assert destination(location_of(taken), host) == host, (vector, taken)


async def test_a_handover_goes_to_hosts_of_the_site_alone(two_hosts) -> None:
    at, there = two_hosts
    host = there.decode()
    for named in (
        *(
            EVIL,
            f"{host}.{EVIL}",
            f"{EVIL}/{host}",
            f"{host}@{EVIL}",
            f"{EVIL}#{host}",
            f"{EVIL}?{host}",
            f"{host}/",
            f" {host}",
        ),
        *(
            f"{host} ",
            f"{host}\n",
            host.upper(),
            f"//{host}",
            f"http://{host}",
            "localhost",
            "localhost:1",
            at.netloc.decode(),
            "",
        ),
        *(f"{host}%00", f"{host}\x00", f"{host},{EVIL}", f"{EVIL}\\{host}", f"x{host}", "ⓛocalhost" + host[9:]),
    ):
        query = f"host={quote(named)}&state={'0' * 64}&next=/"
        for extra in ("", f"&host={host}"):
            reply = await at.ask(f"/_hubgate/handover?{query}{extra}".encode(), b"Accept: text/html", user="alice")
            assert reply.status == 400, (named, reply)
            assert not reply.fields("Location")


async def test_pages_of_the_portal_asked_for_elsewhere_lead_to_the_portal(two_hosts) -> None:
    at, there = two_hosts
    for page in (b"logout", b"callback", b"logged-out"):
        for vector in vectors(at)[:: 1 if page == b"logout" else 5]:
            for value in encoded(vector)[1:]:
                reply = await at.ask(b"/_hubgate/" + page + b"?next=" + value, host=there)
                assert reply.status == 307, reply
                assert location_of(reply).startswith(at.site.url + "/_hubgate/")

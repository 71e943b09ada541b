"""Words stay words: names, groups, titles, paths and errors change neither a page nor a header nor a line of a log.

A page that shows a hostile word is compared with the same page that shows a harmless one: the same elements with the
same attributes, in the same order, or the word has become markup.
"""

from __future__ import annotations

import io
import json
import logging
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from hubgate.core.health import Observation
from hubgate.core.identity import Identity, Proof
from hubgate.ops.logs import AccessLog, JsonFormatter, MalformedRequests
from tests.attacks.door import HANDSHAKE, Door, door
from tests.kit.raw import Reply

HOSTILE = (
    "<script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg/onload=alert(1)>",
    '" onmouseover=alert(1) x="',
    "' autofocus onfocus=alert(1) '",
    "`onclick=alert(1)",
    "</form><form action=//evil.example>",
    "<base href=//evil.example>",
    '<meta http-equiv="refresh" content="0;url=//evil.example">',
    "<input name=csrf value=x>",
    "<!--",
    "--><b>",
    "<![CDATA[<b>]]>",
    "</style><b>",
    "</textarea></bdi></p></main>",
    "{{ 7 * 7 }}",
    "{% include '/etc/passwd' %}",
    "${7*7} #{7*7} <%= 7*7 %>",
    "%s %n {0} {session.csrf} {0.__class__}",
    "&lt;b&gt; &#60;b&#62; &amp;",
    "\u202ereversed\u202c \u2066isolated",
    "\ufeff\u200b\u2028\u2029",
    "javascript:alert(1)",
    "__proto__ constructor prototype",
    "＜script＞alert(1)＜/script＞",
    "+ADw-script+AD4-alert(1)+ADw-/script+AD4-",
    "a" * 3000,
)
HARMLESS = "harmless"


class _Shape(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.text: list[str] = []
        self.links: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self.links += [value or "" for name, value in attrs if name in {"href", "action", "src"}]

    def handle_endtag(self, tag: str) -> None:
        self.elements.append((f"/{tag}", ()))

    def handle_comment(self, data: str) -> None:
        self.elements.append(("!--", ()))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def shape(reply: Reply) -> _Shape:
    assert reply.field("Content-Type") == b"text/html; charset=utf-8", reply
    return _Shape(reply.body.decode())


async def session_of(at: Door, identity: Identity, *, acr: str = "mfa") -> bytes:
    """The cookie of somebody whom the provider calls like this."""
    cookie, _ = await at.site.served.live._sessions.create(
        identity,
        Proof(acr, ("pwd", "otp"), 1),
        provider_sid="",
        id_token="",
        refresh_token="",
        address="",
        user_agent="",
    )
    return b"Cookie: hubgate=" + cookie.encode()


def one_word_is_enough(document: dict[str, Any]) -> None:
    """A hub is down, and may be left, as soon as a test says so."""
    document["health"] = {"move_after": "0s", "fall": 1, "interval": "60s"}


PEOPLES_PAGES = (b"/", b"/hpc/hub/home", b"/_hubgate/logout", b"/_hubgate/nowhere")


async def test_names_that_are_markup_change_no_page() -> None:
    async with door(login=()) as at:

        async def pages(word: str) -> dict[bytes, _Shape]:
            identity = Identity(
                "https://id.example.org", f"s-{word}", "mallory", word, f"{word}@x", ("htc-users", word)
            )
            field = await session_of(at, identity, acr=word)
            return {
                page: shape(await at.ask(page, field, b"Accept: text/html", b"Sec-Fetch-Mode: navigate"))
                for page in PEOPLES_PAGES
            }

        expected = await pages(HARMLESS)
        assert HARMLESS in "".join(expected[b"/"].text)
        for word in HOSTILE:
            for page, found in (await pages(word)).items():
                assert found.elements == expected[page].elements, (word, page)
                assert not [link for link in found.links if "evil" in link or link.startswith("javascript")]
                assert word in "".join(found.text) or page == b"/_hubgate/nowhere" or "\u2028" in word, (word, page)


async def test_titles_and_groups_of_pools_that_are_markup_change_no_page() -> None:
    """Who writes a pool's title may be another person than who runs the gateway."""

    async def pages(word: str) -> dict[bytes, _Shape]:
        def adapt(document: dict[str, Any]) -> None:
            for pool in document["pools"]:
                pool |= {"title": word, "description": word, "section": word + pool["name"], "help": word}
            document["pools"][1]["groups"] = [word]
            document["portal"] = {"title": word, "help_text": word}
            one_word_is_enough(document)

        async with door(adapt, login=("bob",)) as at:
            found = {
                page: shape(await at.ask(page, b"Accept: text/html", user="bob"))
                for page in (b"/", b"/hpc/hub/home", b"/nowhere")
            }
            await at.ask(b"/htc/hub/home", user="bob")
            (home,) = [name for name, hub in at.hubs.items() if hub.raw]
            at.site.served.registry.report(home, Observation.UNREACHABLE, 0.0)
            waiting = await at.ask(b"/htc/hub/home", b"Accept: text/html", user="bob")
            assert waiting.status == 503
            return found | {b"waiting": shape(waiting)}

    expected = await pages(HARMLESS)
    for word in ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onfocus=alert(1) '", "{{ 7 * 7 }}"):
        for page, found in (await pages(word)).items():
            assert found.elements == expected[page].elements, (word, page)
            assert word in "".join(found.text)


@pytest.fixture
async def at():
    async with door(one_word_is_enough, login=("alice", "bob")) as found:
        yield found


async def test_addresses_that_are_markup_change_no_page(at) -> None:
    """What may stand in a request target goes into links and forms of pages about it."""
    words = ("<script>alert(1)</script>", '"><img/src=x/onerror=alert(1)>', "'autofocus/onfocus=alert(1)'", "{{7*7}}")
    words += (
        "</a><base/href=//evil.example>",
        "javascript:alert(1)",
        "&quot;onclick=alert(1)",
        "%22%3E%3Cscript%3E",
        "`x`",
    )
    await at.ask(b"/htc/hub/home", user="alice")
    (home,) = [name for name, hub in at.hubs.items() if hub.raw]
    at.site.served.registry.report(home, Observation.UNREACHABLE, 0.0)
    assert (await at.ask(b"/htc/hub/home", user="alice")).status == 503
    for prefix in (
        *(b"/nowhere/%s", b"/nowhere?%s", b"/_hubgate/%s", b"/_hubgate/static/%s", b"/hpc/hub/%s", b"/htc/hub/?%s"),
        *(b"/htc/hub/%s", b"/_hubgate/callback?error=%s&state=%s", b"/_hubgate/callback?code=x&state=%s"),
        *(b"/_hubgate/logged-out?pool=%s&closed=%s&ended=%s", b"/_hubgate/farewell?code=%s", b"/htc/../%s"),
        *(b"/_hubgate/handover?host=%s", b"/_hubgate/login?next=/%s", b"/%%00%s"),
    ):
        for user in ("bob", "") if prefix.startswith(b"/hpc") else ("alice", ""):
            fields = (b"Accept: text/html", b"Sec-Fetch-Mode: navigate")
            harmless = await at.ask(prefix.replace(b"%s", HARMLESS.encode()), *fields, user=user)
            for word in words:
                reply = await at.ask(prefix.replace(b"%s", word.encode()), *fields, user=user)
                if not reply.body or b"html" not in (reply.field("Content-Type") or b""):
                    continue
                found = shape(reply)
                assert not re.search(rb"(?i)<script>|<img|<base|<svg/|\son\w+=", reply.body), (prefix, word)
                assert not [link for link in found.links if not re.match(r"/(?![/\\])|https?://127\.0\.0\.1|#", link)]
                if reply.status == harmless.status and b"html" in (harmless.field("Content-Type") or b""):
                    assert found.elements == shape(harmless).elements, (prefix, word)
    at.received()


async def test_problem_documents_stay_documents(at) -> None:
    for word in ("</script><script>alert(1)</script>", '","login_url":"//evil.example', "\\u003cb\\u003e", "%0d%0a"):
        for prefix in ("/htc/hub/", "/htc/hub/?", "/nowhere/", "/_hubgate/callback?error="):
            reply = await at.ask((prefix + word).encode(), b"Accept: application/json")
            document = json.loads(reply.body)
            assert document["status"] == reply.status
            assert document.get("login_url", at.site.url + "/").startswith(at.site.url + "/")
            assert reply.field("Content-Type") == b"application/problem+json"


async def test_nothing_begins_a_header_of_its_own(at) -> None:
    """Line ends in whatever encoding, wherever something that a client says comes back in a head."""
    ends = (
        "%0d%0a",
        "%0a",
        "%0d",
        "%250d%250a",
        "%E5%98%8A%E5%98%8D",
        "%c4%8d%c4%8a",
        "%u000d%u000a",
        "%00%0d%0a",
        "%23%0d%0a",
    )
    for end in ends:
        injected = f"{end}Set-Cookie:%20hubgate=x{end}X-Injected:%20y{end}{end}<script>"
        for target in (
            *(
                f"/_hubgate/login?next=/{injected}",
                f"/_hubgate/login?next={injected}",
                f"/htc/hub/{injected}",
                f"/{injected}",
            ),
            *(
                f"/htc/hub/home?{injected}",
                f"/_hubgate/callback?state={injected}&code={injected}",
                f"/_hubgate/{injected}",
            ),
            *(
                f"/_hubgate/handover?host={injected}",
                f"/_hubgate/farewell?code={injected}",
                f"/_hubgate/static/{injected}",
            ),
            *(f"/_hubgate/static/hubgate.css?v={injected}", f"/_hubgate/logged-out?pool={injected}", f"/?{injected}"),
        ):
            for user in ("alice", ""):
                for fields in ((b"Accept: text/html", b"Sec-Fetch-Mode: navigate"), ()):
                    (reply,) = await at.told(at.request(target.encode(), *fields, user=user))
                    assert not reply.fields("X-Injected"), target
                    assert b"hubgate=x" not in b"".join(reply.fields("Set-Cookie")), target
                    assert b"X-Injected" not in b"".join(line.partition(b":")[0] for line in reply.head.split(b"\r\n"))
        at.received()


@pytest.mark.parametrize("username", ["o.neill@lab.example.org", "müller", "李明", "a~b-c_d.e", "x" * 255, "user%name"])
async def test_unusual_usernames_make_whole_headers(username) -> None:
    async with door(login=()) as at:
        field = await session_of(
            at, Identity("https://id.example.org", "s", username, groups=("htc-users", 'a"\\\u2028b'))
        )
        reply = await at.ask(b"/htc/hub/home", field)
        assert reply.status == 200
        (got,) = at.received()
        assert got.values(b"REMOTE_USER") == [username.encode()]
        assert [name for name, _ in got.fields].count(b"X-Hubgate-Assertion") == 1
        token = re.search(rb'name="csrf" value="([^"]+)"', (await at.ask(b"/", field)).body)
        assert token
        form = b"Content-Type: application/x-www-form-urlencoded"
        out = await at.ask(b"/_hubgate/logout", field, form, method=b"POST", body=b"csrf=" + token[1])
        assert out.status == 303
        cookies = out.fields("Set-Cookie")
        assert len(cookies) > 5
        assert all(re.fullmatch(rb"[!-~]+=; Path=/[!-:<-~]*; Max-Age=0; [ -~]+", cookie) for cookie in cookies), cookies


async def test_every_line_of_a_log_is_one_line_of_json(at) -> None:
    """Access log, audit log and the gateway's own log, written by the real writers, fed by hostile requests."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(MalformedRequests())
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        forged = b'{"log":"audit","event":"login","outcome":"ok","user":"forged"}'
        for word in (
            *(
                b"\\n" + forged,
                b'","user":"forged"',
                b"%0a" + forged.replace(b" ", b""),
                b"\\u000a" + forged,
                b"%1b[2J%07",
            ),
            *(
                b"%e2%80%a8" + forged,
                b"\x1b[31m",
                b"<b>",
                b"%00",
                b"..%0d%0a",
                b"\xe2\x80\xa8forged",
                b"\x7f",
                b"'" * 50,
            ),
        ):
            for target in (
                b"/htc/hub/" + word,
                b"/" + word,
                b"/_hubgate/callback?state=" + word,
                b"/_hubgate/login?next=/" + word,
            ):
                for fields in (
                    (),
                    (b"User-Agent: " + word, b"X-Forwarded-For: " + word, b"Referer: " + word),
                    HANDSHAKE,
                ):
                    for more in ({"user": "alice"}, {"user": "bob"}, {}, {"host": word[:20]}, {"method": b"PROPFIND"}):
                        await at.told(at.request(target, *fields, **more) + b"\n" * (fields is HANDSHAKE))
            await at.told(b"GET /" + word + b"\r\n\r\n")
            await at.told(b"X" * 40 + b" / HTTP/1.1\r\nHost: " + word + b"\r\n\r\n")
        at.received()
    finally:
        root.removeHandler(handler)
    written: list[bytes] = []
    access = AccessLog(written.append)
    for visit, line in at.site.access:
        access(visit, **line)
    access.flush()
    lines = b"".join([*written, *at.site.lines, stream.getvalue().encode()]).splitlines(keepends=True)
    assert len(lines) > 600
    for line in lines:
        assert line.endswith(b"}\n")
        assert re.fullmatch(rb"[ -~]+\n", line), line
        record = json.loads(line)
        assert record["log"] in {"access", "audit", "gateway"}
        assert record.get("user") in {None, "alice", "bob"}, line
    logins = [json.loads(line) for line in at.site.lines if b'"login"' in line]
    assert {record["user"] for record in logins if record["outcome"] == "ok"} == {"alice", "bob"}
    assert "Traceback" not in stream.getvalue()

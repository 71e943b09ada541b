"""Every page, in every mood: it renders, it is valid in its bones, and nothing that a stranger chose becomes markup."""

from __future__ import annotations

import ast
import base64
import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

import hubgate
from hubgate.web.paths import ACCOUNT_PATH, LOGOUT_PATH, MFA_PATH, MOVE_PATH
from hubgate.web.problems import PROBLEMS, told_as
from hubgate.web.render import CSRF_FIELD
from hubgate.web.templates import packaged_templates
from hubgate.web.words import load_words
from tests.gallery import (
    CLOSED,
    HOSTILE,
    HPC,
    HTC,
    NOW,
    REQUEST,
    TWELVE,
    all_up,
    pages_for,
    pool,
    portal_of,
    samples,
    session,
)

SAMPLES = samples()
VOID = {"meta", "link", "input", "path", "circle", "rect", "br", "img"}


class Outline(HTMLParser):
    """What a browser makes of a page: elements with attributes, text, and whether every element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.texts: dict[str, str] = {}
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute twice: {tag} {attrs}"
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open, f"</{tag}> closes nothing"
            assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self.open:
            self.texts[self.open[-1]] = self.texts.get(self.open[-1], "") + data

    def all(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        return [
            attributes
            for name, attributes in self.elements
            if name == tag and all(attributes.get(key) == value for key, value in wanted.items())
        ]

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.text))


def html(response: web.Response) -> str:
    assert isinstance(response.body, bytes)
    return response.body.decode()


def outline(name: str) -> Outline:
    return Outline(html(SAMPLES[name]()))


def policy(response: web.Response) -> dict[str, str]:
    return dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))


@pytest.mark.parametrize("name", SAMPLES)
def test_it_is_a_page(name: str) -> None:
    page = outline(name)
    assert page.all("html")[0] == {"lang": "en", "dir": "ltr"}
    assert len(page.all("main", id="content")) == 1
    assert page.all("a")[0]["href"] == "#content"
    assert len(page.all("h1")) == 1
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels)), levels
    title = page.texts["title"].strip()
    assert len(title) > len(" · Example Lab Jupyter") or "long" in name or "hostile" in name
    assert "<bdi>" not in title or "hostile" in name
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = {word for _, attributes in page.elements for word in attributes.get("aria-labelledby", "").split()}
    named |= {word for _, attributes in page.elements for word in attributes.get("aria-describedby", "").split()}
    assert named <= set(ids)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_request_can_be_named(name: str) -> None:
    page = outline(name)
    assert (HOSTILE if name == "receipt-hostile" else REQUEST) in page.words


@pytest.mark.parametrize("name", SAMPLES)
def test_nothing_inline_and_nothing_from_elsewhere(name: str) -> None:
    response = SAMPLES[name]()
    page, rules = Outline(html(response)), policy(response)
    standalone = name in {"problem-unknown-host", "problem-host-malformed"}
    for tag, attributes in page.elements:
        assert not [key for key in attributes if key.startswith("on") or key == "style"], (tag, attributes)
        href = attributes.get("href", "").lower()
        assert not href.startswith(("javascript:", "//"))
        # Recovery codes are saved as a file without ever lying on a server under an address.
        assert not href.startswith("data:") or ("download" in attributes and href.startswith("data:text/plain;"))
        if tag in {"link", "script", "img"}:
            where = attributes.get("href") or attributes.get("src") or ""
            assert where.startswith("/_hubgate/static/"), where
    assert len(page.all("style")) == (1 if standalone else 0)
    scripts = page.all("script")
    if scripts:
        assert rules["script-src"] == f"'nonce-{scripts[0]['nonce']}'"
        assert len(scripts) == 1
    else:
        assert "script-src" not in rules
    assert rules["default-src"] == "'none'"
    assert rules["frame-ancestors"] == "'none'"
    assert rules["base-uri"] == "'none'"
    assert "unsafe" not in response.headers["Content-Security-Policy"]


@pytest.mark.parametrize("name", SAMPLES)
def test_the_headers_of_a_page(name: str) -> None:
    response, page = SAMPLES[name](), outline(name)
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert response.headers["Strict-Transport-Security"].startswith("max-age=")
    has_form = bool(page.all("form"))
    # An Origin of `null` would fail our own CSRF check; without a form not even the origin needs to be told.
    assert response.headers["Referrer-Policy"] == ("strict-origin" if has_form else "no-referrer")
    targets = policy(response)["form-action"].split()
    assert targets == (["'self'", "https://jupyter.example.org", "https://id.example.org"] if has_form else ["'none'"])


@pytest.mark.parametrize("name", SAMPLES)
def test_every_form_is_ours_and_carries_the_token(name: str) -> None:
    for form in re.findall(r"<form.*?</form>", html(SAMPLES[name]()), re.DOTALL):
        parts = Outline(form)
        assert parts.all("form")[0]["method"] == "post"
        assert parts.all("form")[0]["action"] in {LOGOUT_PATH, MOVE_PATH, MFA_PATH, ACCOUNT_PATH}
        assert parts.all("input", name=CSRF_FIELD)[0]["value"] == "csrf-token-of-this-session"
        assert parts.all("button", type="submit")


@pytest.mark.parametrize("name", [name for name in SAMPLES if "hostile" in name])
def test_strangers_words_stay_words(name: str) -> None:
    page = outline(name)
    assert HOSTILE in page.words
    assert not page.all("img")
    assert "alert(1)" not in page.texts.get("script", "")
    assert "49" not in page.words.replace(REQUEST, "")  # {{7*7}} was not worked out


@settings(max_examples=40)
@given(st.text(min_size=1, max_size=60))
def test_any_name_renders(name: str) -> None:
    who = session(name, name)
    place = pool("htc", name, name, name, ask=name)
    closed = pool("hpc", name, name, name, ask=name, groups=(name,))
    body = html(pages_for(place, closed, portal=portal_of(name, name)).landing(who, state_of=all_up, request_id=name))
    elements = [tag for tag, _ in Outline(body).elements if tag != "a"]
    plain = pages_for(pool("htc", "x", "x", "x", ask="x"), pool("hpc", "x", "x", "x", ask="x", groups=("x",)))
    usual = html(plain.landing(session("x", "x"), state_of=all_up, request_id="x"))
    assert elements == [tag for tag, _ in Outline(usual).elements if tag != "a"]


class TestLanding:
    def test_sections_and_pools_come_in_the_order_of_the_configuration(self) -> None:
        body = html(pages_for(*reversed(TWELVE)).landing(session(), state_of=all_up, request_id=REQUEST))
        links = [link["href"] for link in Outline(body).all("a") if link["href"].startswith("/p")]
        assert links == [entry.path for entry in reversed(TWELVE)]

    def test_scattered_pools_of_a_section_are_gathered(self) -> None:
        scattered = [pool("a", "A", "", "HTC"), pool("b", "B", "", "HPC"), pool("c", "C", "", "HTC")]
        body = html(pages_for(*scattered).landing(session(), state_of=all_up, request_id=REQUEST))
        links = [link["href"] for link in Outline(body).all("a") if re.fullmatch("/[abc]/", link["href"])]
        assert links == ["/a/", "/c/", "/b/"]

    def test_what_is_not_open_is_told_apart_and_is_no_link(self) -> None:
        page = outline("landing")
        assert "Not open to you" in page.words
        assert "Open to members of ai-testbed, ai-admins. Ask for access at https://help.example.org/ai" in page.words
        assert not page.all("a", href=CLOSED.path)
        assert page.all("a", href="https://help.example.org/ai")

    def test_the_state_is_told_in_words(self) -> None:
        for state, words in (("up", "Ready"), ("degraded", "Ready, some hubs down"), ("down", "Not answering")):
            body = html(pages_for(HTC).landing(session(), state_of=lambda _, told=state: told, request_id=REQUEST))
            assert words in Outline(body).words

    def test_a_pool_with_a_host_of_its_own_is_linked_there(self) -> None:
        elsewhere = replace(HTC, host="htc.example.org")
        response = pages_for(elsewhere, HPC).landing(session(), state_of=all_up, request_id=REQUEST)
        page = Outline(html(response))
        assert page.all("a", href="https://htc.example.org/htc/")
        assert page.all("a", href="/hpc/")
        assert "https://htc.example.org" in response.headers["Content-Security-Policy"]

    def test_who_since_when_and_how(self) -> None:
        page = outline("landing")
        assert "Ada Lovelace ada" in page.words
        assert "2 hours ago" in page.words
        assert "one-time code" in page.words
        assert "at level mfa" in outline("landing-level").words

    def test_nothing_open_is_said_kindly(self) -> None:
        assert "Nothing is open to you yet" in outline("landing-none").words


class TestProblems:
    def test_every_code_that_the_source_names_has_words_of_its_own(self) -> None:
        # Codes that end inside the gateway and are never shown, each with its reason.
        unseen = {
            "refresh_refused",  # ends the session; the person meets the login
            "hub_api_failed",  # after the end of a session, in the log
            "logout_token_refused",  # a provider is told, behind everybody's back
        }
        named = set(_codes(Path(hubgate.__file__).parent)) - unseen
        assert {"target_malformed", "no_hub_available", "id_token_refused"} <= named
        assert not [code for code in sorted(named) if told_as(code)[0] == "unexpected"]

    def test_no_sentences_without_a_code(self) -> None:
        keys = load_words([packaged_templates()])["en"]
        said = {key.split(".")[1] for key in keys if key.startswith("problem.") and key.endswith(".title")}
        assert said == {*PROBLEMS, "unexpected"}

    def test_an_unheard_of_code_is_told_kindly(self) -> None:
        page = outline("problem-unheard-of")
        assert "That did not work" in page.words
        assert "unheard_of" in page.words

    @pytest.mark.parametrize("code", PROBLEMS)
    def test_there_is_always_a_way_on(self, code: str) -> None:
        page = outline(f"problem-{code.replace('_', '-')}")
        assert page.all("a", href="https://jupyter.example.org/")
        assert [link for link in page.all("a") if "button" in link.get("class", "")]

    def test_no_blame_and_no_jargon(self) -> None:
        for code in PROBLEMS:
            words = outline(f"problem-{code.replace('_', '-')}").words.lower()
            for word in ("illegal", "invalid", "forbidden", "error", "fatal", "oidc", "token ", "csrf ", "exception"):
                for name in ("csrf_failed", "provider_error", "api token"):  # the last is what hubs call them
                    words = words.replace(name, "")
                assert word not in words, (code, word)

    def test_retry_after_is_header_and_words(self) -> None:
        response = pages_for(HTC).problem("provider_unavailable", status=503, request_id=REQUEST, retry_after=90)
        assert response.headers["Retry-After"] == "90"
        assert response.status == 503
        assert "in about 90 seconds" in Outline(html(response)).words

    def test_try_again_needs_an_address_on_this_host(self) -> None:
        for made_up in ("//evil.example/", "/\\evil.example/", "https://evil.example/", "javascript:alert(1)"):
            response = pages_for(HTC).problem("internal", status=500, request_id=REQUEST, retry_url=made_up)
            assert "evil" not in html(response)
            assert "javascript" not in html(response)

    def test_no_hub_looks_again_by_itself_only_where_that_can_help(self) -> None:
        pages = pages_for(HTC)
        looking = pages.problem("no_hub_available", status=503, request_id=REQUEST, retry_after=5, retry_url="/htc/")
        resting = pages.problem("no_hub_available", status=503, request_id=REQUEST, retry_after=5)
        assert "waiting.js" in html(looking)
        assert "waiting.js" not in html(resting)

    def test_a_page_at_a_foreign_address_brings_its_style_along(self) -> None:
        response = SAMPLES["problem-unknown-host"]()
        page, rules = Outline(html(response)), policy(response)
        digest = base64.b64encode(hashlib.sha256(page.texts["style"].encode()).digest()).decode()
        assert rules["style-src"] == f"'sha256-{digest}'"
        assert not page.all("link")

    def test_without_https_nothing_is_promised_for_later(self) -> None:
        response = pages_for(HTC, public_url="http://127.0.0.1:8000").problem(
            "internal", status=500, request_id=REQUEST
        )
        assert "Strict-Transport-Security" not in response.headers

    def test_programs_get_a_problem_document(self) -> None:
        response = pages_for(HTC).problem_json(
            "session_required", 401, REQUEST, login_url="https://jupyter.example.org/_hubgate/login"
        )
        assert response.headers["Content-Type"].startswith("application/problem+json")
        assert response.headers["Cache-Control"] == "no-store"
        assert json.loads(html(response)) == {
            "type": "urn:hubgate:problem:session_required",
            "title": "Please log in",
            "status": 401,
            "detail": "You are not logged in, or your session has ended. Your notebooks and files are not affected by "
            "that. Log in, then do it once more. Nothing was changed.",
            "code": "session_required",
            "request_id": REQUEST,
            "login_url": "https://jupyter.example.org/_hubgate/login",
        }

    def test_an_unheard_of_code_is_a_document_too(self) -> None:
        response = pages_for(HTC).problem_json("unheard_of", 418, REQUEST, retry_after=3)
        assert response.headers["Retry-After"] == "3"
        assert json.loads(html(response))["title"] == "That did not work"


class TestWaiting:
    def test_it_names_the_hub_and_says_since_when(self) -> None:
        page = outline("waiting")
        assert "htc01 is not answering" in page.words
        assert "4 minutes ago" in page.words
        assert SAMPLES["waiting"]().headers["Retry-After"] == "10"
        assert page.all("meta", content="10")

    def test_moving_is_offered_after_the_grace_time_only(self) -> None:
        for name, offered in (("waiting", False), ("waiting-choice", True), ("waiting-only", False)):
            page = outline(name)
            assert bool(page.all("form", action=MOVE_PATH)) is offered, name
            assert bool(page.all("input", name="pool", value="htc")) is offered
            assert bool(page.all("input", name="next", value="/htc/user/ada/lab?x=1")) is offered
        assert "you can choose here to be moved" in outline("waiting").words
        assert "you can choose here to be moved" not in outline("waiting-only").words
        assert outline("waiting").all("script")[0]["data-reload"] == "91"

    def test_what_moving_means_is_said_before(self) -> None:
        words = outline("waiting-choice").words
        assert "Notebooks that run on htc01 stay there" in words
        assert words.index("is not moved") < words.index("Move me")


class TestReceipt:
    def test_what_was_ended(self) -> None:
        words = outline("receipt").words
        assert "High-throughput computing, High-performance computing" in words
        assert "3 open connections were closed" in words
        assert "Your session at the login service has ended" in words

    def test_what_was_not_ended_is_said_and_what_to_do(self) -> None:
        page = outline("receipt-left")
        assert "1 open connection was closed" in page.words
        assert "We could not end your session at the login service" in page.words
        assert "Close all windows of this browser" in page.words

    def test_nothing_is_claimed_that_is_not_known(self) -> None:
        assert "login service" not in outline("receipt-none").words


def test_the_clock_tells_the_date_of_another_day() -> None:
    old = pages_for(HTC).waiting(
        session=session(),
        pool=HTC,
        hub="htc01",
        since=NOW - 3 * 86400,
        url="/htc/",
        retry_after=5,
        may_move_at=None,
        request_id=REQUEST,
    )
    assert re.search(r">Friday, 18 September 2026, \d\d:\d\d ", html(old))
    assert "3 days ago" in Outline(html(old)).words


def test_a_nonce_is_used_once() -> None:
    assert policy(SAMPLES["continue"]())["script-src"] != policy(SAMPLES["continue"]())["script-src"]


def _codes(folder: Path) -> Iterator[str]:
    """Codes of the faults that people or programs are told about, as the source names them."""
    told = {"ClientFault", "UpstreamFault", "ProviderFault", "HubgateFault"}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Name(id=name), args=[ast.Constant(value=str(code)), *_]) if name in told:
                    yield code

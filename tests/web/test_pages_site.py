"""Sentences, static files, and a site's own directory over ours."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from aiohttp import web
from pytest_aiohttp.plugin import AiohttpClient

import hubgate
from hubgate.errors import OperatorFault
from hubgate.web.paths import STATIC_PATH
from hubgate.web.render import Pages
from hubgate.web.templates import packaged_templates
from hubgate.web.words import Words, load_words
from tests.gallery import HTC, REQUEST, all_up, pages_for, session

ROOT = Path(__file__).resolve().parents[2]


def html(pages: Pages) -> str:
    body = pages.landing(session(), state_of=all_up, request_id=REQUEST).body
    assert isinstance(body, bytes)
    return body.decode()


class TestWords:
    def test_places_are_escaped_and_isolated(self) -> None:
        words = Words({"greeting": "Hello {name} & co"}, language="en")
        assert words("greeting", name="<b>") == "Hello <bdi>&lt;b&gt;</bdi> &amp; co"
        assert words.plain("greeting", name="<b>") == "Hello <b> & co"

    def test_braces_in_a_name_stay_braces(self) -> None:
        words = Words({"greeting": "Hello {name}"}, language="en")
        assert words("greeting", name="{name.__class__}") == "Hello <bdi>{name.__class__}</bdi>"

    @pytest.mark.parametrize(
        ("seconds", "told"),
        [
            (-5, "a few moments"),
            (0, "a few moments"),
            (4.9, "a few moments"),
            (5, "5 seconds"),
            (119, "119 seconds"),
            (120, "2 minutes"),
            (7199, "119 minutes"),
            (7200, "2 hours"),
            (172799, "47 hours"),
            (172800, "2 days"),
        ],
    )
    def test_spans_are_told_coarsely(self, seconds: float, told: str) -> None:
        assert load_words([packaged_templates()])["en"].span(seconds) == told

    def test_a_language_that_nobody_wrote(self) -> None:
        with pytest.raises(OperatorFault, match="messages_missing"):
            load_words([packaged_templates()], wanted=["tlh"])

    def test_every_sentence_is_said_somewhere(self) -> None:
        """A sentence that no page says would be translated for nothing."""
        templates = " ".join(path.read_text() for path in packaged_templates().glob("*.html"))
        source = templates + "".join(path.read_text() for path in (ROOT / "proxy/hubgate/web").glob("*.py"))
        built = ("problem.", "landing.factor.", "time.", "ago.", "date.weekdays.", "date.months.", "notice.")
        built += ("letter.", "receipt.connections.", "language.", "mfa.reason.", "mfa.trouble.", "mfa.manage_left.")
        built += ("account.ended.",)
        unsaid = [
            key
            for key in load_words([packaged_templates()])["en"]
            if f'"{key}"' not in source and f"'{key}'" not in source and not key.startswith(built)
        ]
        assert unsaid == ["landing.up", "landing.degraded", "landing.down"]  # said as "landing." ~ state


class TestOverrides:
    def test_one_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "messages").mkdir()
        (tmp_path / "messages" / "en.toml").write_text('[landing]\nheading_one = "Welcome to the <farm>"\n')
        page = html(pages_for(HTC, override=tmp_path))
        assert "Welcome to the &lt;farm&gt;" in page
        assert "Log Out" in page

    def test_a_translation_may_be_incomplete(self, tmp_path: Path) -> None:
        (tmp_path / "messages").mkdir()
        (tmp_path / "messages" / "ar.toml").write_text('[language]\ndirection = "rtl"\n[page]\nlog_out = "خروج"\n')
        words = load_words([packaged_templates(), tmp_path])["ar"]
        assert (words.language, words.direction) == ("ar", "rtl")
        assert words("page.log_out") == "خروج"
        assert words("landing.up") == "Ready"

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ('[landing]\nheadline = "x"', "landing.headline: nobody says this sentence"),
            ('[waiting]\nheading = "{hub} {password}"', "waiting.heading: nothing fills the place {password}"),
            ('[waiting]\nheading = "{hub.__class__}"', "nothing fills the place {hub.__class__}"),
            ('[waiting]\nheading = "{hub"', "expected '}'"),
            ("[waiting]\nheading = 3", "a sentence is expected"),
            ("[waiting", "Expected ']'"),
        ],
    )
    def test_a_bad_sentence_is_found_at_the_start(self, tmp_path: Path, text: str, complaint: str) -> None:
        (tmp_path / "messages").mkdir()
        (tmp_path / "messages" / "en.toml").write_text(text)
        with pytest.raises(OperatorFault, match="messages_malformed") as caught:
            pages_for(HTC, override=tmp_path)
        assert complaint in caught.value.message

    def test_a_block_of_a_template(self, tmp_path: Path) -> None:
        (tmp_path / "base.html").write_text(
            '{% extends "hubgate/base.html" %}{% block logo %}<img src="{{ static("lab.png") }}" alt="">{% endblock %}'
        )
        (tmp_path / "static").mkdir()
        (tmp_path / "static" / "lab.png").write_bytes(b"\x89PNG")
        page = html(pages_for(HTC, override=tmp_path))
        assert re.search(r'<img src="/_hubgate/static/lab\.png\?v=[0-9a-f]{16}" alt="">', page)
        assert '<svg class="mark"' not in page
        assert "High-throughput computing" in page

    def test_colours(self, tmp_path: Path) -> None:
        assert "site.css" not in html(pages_for(HTC))
        (tmp_path / "static").mkdir()
        (tmp_path / "static" / "site.css").write_text(":root { --accent: #606; }")
        pages = pages_for(HTC, override=tmp_path)
        page = html(pages)
        assert page.index("hubgate.css") < page.index("site.css")
        body = pages.problem("unknown_host", status=421, request_id=REQUEST).body
        assert isinstance(body, bytes)
        assert "--accent: #606" in body.decode()

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("landing.html", "{% if %}"),
            ("base.html", '{% extends "nowhere.html" %}'),
            ("receipt.html", "{{ no_such_fact }}"),
            ("waiting.html", "{{ words('no.such.sentence') }}"),
            ("static/site.css", "</STYLE><b>"),
        ],
    )
    def test_a_bad_file_is_found_at_the_start(self, tmp_path: Path, name: str, text: str) -> None:
        (tmp_path / "static").mkdir()
        (tmp_path / name).write_text(text)
        with pytest.raises(OperatorFault, match="templates_malformed"):
            pages_for(HTC, override=tmp_path)


class TestFiles:
    @pytest.fixture
    async def client(self, aiohttp_client: AiohttpClient, tmp_path: Path):  # type: ignore[no-untyped-def]  # generic client
        (tmp_path / "static").mkdir()
        for name in ("logo.svg", ".hidden.css", "notes.md", "two words.css", "run.sh"):
            (tmp_path / "static" / name).write_text("x")
        (tmp_path / "secret.css").write_text("secret")
        pages = pages_for(HTC, override=tmp_path)
        app = web.Application()
        app.router.add_get(STATIC_PATH + "{name}", pages.files.serve)
        return await aiohttp_client(app)

    async def test_a_linked_file_is_kept_for_ever_and_a_bare_one_is_asked_for(self, client) -> None:  # type: ignore[no-untyped-def]  # generic client
        linked = re.search(r"/_hubgate/static/hubgate\.css\?v=\w+", html(pages_for(HTC)))
        assert linked
        async with client.get(linked[0]) as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"] == "text/css; charset=utf-8"
            assert "immutable" in answer.headers["Cache-Control"]
            etag = answer.headers["ETag"]
        async with client.get(STATIC_PATH + "hubgate.css", headers={"If-None-Match": f'"other", W/{etag}'}) as answer:
            assert answer.status == 304
            assert answer.headers["Cache-Control"] == "public, no-cache"
            assert answer.headers["ETag"] == etag
            assert await answer.read() == b""
        async with client.get(STATIC_PATH + "hubgate.css?v=old") as answer:
            assert answer.headers["Cache-Control"] == "public, no-cache"

    async def test_an_image_with_script_in_it_runs_nothing(self, client) -> None:  # type: ignore[no-untyped-def]  # generic client
        async with client.get(STATIC_PATH + "logo.svg") as answer:
            assert answer.headers["Content-Type"] == "image/svg+xml"
            assert "sandbox" in answer.headers["Content-Security-Policy"]
            assert "script-src" not in answer.headers["Content-Security-Policy"]
            assert answer.headers["X-Content-Type-Options"] == "nosniff"

    @pytest.mark.parametrize(
        "name",
        [
            "../secret.css",
            "..%2Fsecret.css",
            "%2e%2e%2fsecret.css",
            "..%5csecret.css",
            ".hidden.css",
            "notes.md",
            "run.sh",
            "two%20words.css",
            "hubgate.css%00",
            "HUBGATE.CSS",
            "",
            "nothing.css",
            "hubgate.css/",
        ],
    )
    async def test_only_plain_names_of_known_types(self, client, name: str) -> None:  # type: ignore[no-untyped-def]  # generic client
        from yarl import URL

        async with client.get(URL(f"{STATIC_PATH}{name}", encoded=True)) as answer:
            assert answer.status == 404
            assert b"secret" not in await answer.read()

    def test_files_for_the_portal(self) -> None:
        pages = pages_for(HTC)
        icon, robots = pages.files.answer("favicon.svg"), pages.files.answer("robots.txt")
        assert icon is not None
        assert robots is not None
        assert isinstance(robots.body, bytes)
        assert b"Disallow: /" in robots.body
        assert pages.files.answer("nothing.png") is None


class TestColours:
    """WCAG 2.2, 1.4.3 and 1.4.11, on the custom properties as they come."""

    @pytest.mark.parametrize("mode", ["light", "dark"])
    @pytest.mark.parametrize(
        ("front", "back", "least"),
        [(front, back, 4.5) for front in ("ink", "soft", "accent", "accent-strong") for back in ("ground", "surface")]
        + [(state, back, 4.5) for state in ("up", "degraded", "down") for back in ("ground", "surface")]
        + [
            ("ink", "tint", 4.5),
            ("ink", "warn-tint", 4.5),
            ("on-accent", "accent", 4.5),
            ("on-accent", "accent-strong", 4.5),
        ]
        + [("edge", "ground", 3.0), ("edge", "surface", 3.0), ("focus", "ground", 3.0), ("focus", "surface", 3.0)]
        + [("degraded", "warn-tint", 3.0), ("accent", "tint", 4.5)],
    )
    def test_contrast(self, mode: str, front: str, back: str, least: float) -> None:
        colours = _colours(mode)
        assert _contrast(colours[front], colours[back]) >= least

    def test_both_modes_name_the_same_colours(self) -> None:
        assert set(_blocks()[0]) >= set(_blocks()[1])
        assert {name for name, value in _blocks()[0].items() if value.startswith("#")} == set(_blocks()[1])


class TestInstalled:
    def test_templates_are_found_beside_the_code(self, tmp_path: Path) -> None:
        """As in a wheel: `hubgate/templates`, and no checkout in sight."""
        package = tmp_path / "hubgate"
        shutil.copytree(Path(hubgate.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "templates", package / "templates")
        said = "from hubgate.web import templates; print(templates.packaged_templates()); print(templates.__file__)"
        answer = subprocess.run(
            [sys.executable, "-c", said],
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert answer.stdout.split() == [str(package / "templates"), str(package / "web" / "templates.py")]

    @pytest.mark.nightly
    def test_the_wheel_has_every_template(self, tmp_path: Path) -> None:
        uv = Path(sys.executable).parent / "uv"
        subprocess.run(
            [str(uv), "build", "--wheel", "--quiet", "--out-dir", str(tmp_path), str(ROOT)], timeout=250, check=True
        )
        with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
            packed = {name.removeprefix("hubgate/templates/") for name in wheel.namelist() if "/templates/" in name}
        here = {str(path.relative_to(ROOT / "templates")) for path in (ROOT / "templates").rglob("*") if path.is_file()}
        assert packed == here


def _blocks() -> list[dict[str, str]]:
    style = (packaged_templates() / "static" / "hubgate.css").read_text()
    return [
        dict(re.findall(r"--([\w-]+): ([^;]+);", block)) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    ]


def _colours(mode: str) -> dict[str, str]:
    light, dark = _blocks()[:2]
    return light if mode == "light" else light | dark


def _luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(front: str, back: str) -> float:
    lighter, darker = sorted((_luminance(front), _luminance(back)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)

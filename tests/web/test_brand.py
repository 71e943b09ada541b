"""A site's picture, colour, words and announcements on its pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from aiohttp import web
from pytest_aiohttp.plugin import AiohttpClient

from hubgate.core.announcement import Announcement, Level
from hubgate.core.colour import GROUNDS, contrast
from hubgate.errors import OperatorFault
from hubgate.web.brand import STYLE, brand_of
from hubgate.web.paths import STATIC_PATH
from hubgate.web.render import Pages
from hubgate.web.templates import packaged_templates
from tests.gallery import CLOSED, HPC, HTC, NOW, REQUEST, all_up, pages_for, portal_of, session

SCRIPTED = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><script>fetch("/")</script></svg>'
DAY = 86400.0


def html(response: web.Response) -> str:
    assert isinstance(response.body, bytes)
    return response.body.decode()


def landing(pages: Pages) -> str:
    return html(pages.landing(session(), state_of=all_up, request_id=REQUEST))


def waiting(pages: Pages) -> str:
    return html(
        pages.waiting(
            session=session(),
            pool=HPC,
            hub="hpc01",
            since=NOW - 60,
            url="/hpc/",
            retry_after=5,
            may_move_at=None,
            request_id=REQUEST,
        )
    )


class TestLogo:
    @pytest.fixture
    def pages(self, tmp_path: Path) -> Pages:
        (tmp_path / "our lab.svg").write_bytes(SCRIPTED)
        (tmp_path / "night.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        logo, dark = str(tmp_path / "our lab.svg"), str(tmp_path / "night.png")
        return pages_for(HTC, portal=portal_of(logo=logo, logo_dark=dark))

    def test_it_takes_the_place_of_the_mark(self, pages: Pages) -> None:
        page = landing(pages)
        assert re.search(r'<img src="/_hubgate/static/logo\.svg\?v=[0-9a-f]{16}" alt="">', page)
        assert re.search(
            r'<source media="\(prefers-color-scheme: dark\)" srcset="/_hubgate/static/logo-dark\.png\?v=\w{16}">', page
        )
        assert 'class="mark"' not in page
        assert 'class="mark"' in landing(pages_for(HTC))

    def test_where_our_files_are_not_served_there_is_the_mark(self, pages: Pages) -> None:
        page = html(pages.problem("unknown_host", status=421, request_id=REQUEST))
        assert 'class="mark"' in page
        assert "<img" not in page

    async def test_script_in_a_picture_stays_dead(self, pages: Pages, aiohttp_client: AiohttpClient) -> None:
        """Attack: an SVG with script in it, opened by itself."""
        app = web.Application()
        app.router.add_get(STATIC_PATH + "{name}", pages.files.serve)
        client = await aiohttp_client(app)
        async with client.get(STATIC_PATH + "logo.svg") as answer:
            assert await answer.read() == SCRIPTED
            assert answer.headers["Content-Type"] == "image/svg+xml"
            rules = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in rules
            assert "sandbox" in rules
            assert "script-src" not in rules

    def test_one_that_went_away_since_it_was_checked(self, tmp_path: Path) -> None:
        with pytest.raises(OperatorFault, match=r"portal\.logo"):
            pages_for(HTC, portal=portal_of(logo=str(tmp_path / "gone.svg")))


class TestColour:
    def test_our_style_sheet_has_the_grounds_that_a_sites_colour_is_judged_on(self) -> None:
        style = (packaged_templates() / "static" / "hubgate.css").read_text()
        for scheme, block in zip(("light", "dark"), re.findall(r":root \{(.*?)\}", style, re.DOTALL), strict=False):
            told = dict(re.findall(r"--([\w-]+): ([^;]+);", block))
            assert (told["ground"], told["surface"]) == GROUNDS["light" if scheme == "light" else "dark"]

    def test_without_a_colour_there_is_no_sheet(self) -> None:
        assert STYLE not in landing(pages_for(HTC))
        assert brand_of(portal_of()).files[STYLE].body == b""

    @pytest.mark.parametrize("accent", ["#7a1f5c", "#0033a0", "#8a5200", "#000000"])
    def test_all_that_is_made_from_a_colour_can_be_read(self, accent: str) -> None:
        style = brand_of(portal_of(accent=accent)).files[STYLE].body.decode()
        light, dark = (
            dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", each)) for each in style.split("@media (prefers")
        )
        assert light["accent"] == accent
        for colours, grounds in ((light, GROUNDS["light"]), (dark, GROUNDS["dark"])):
            for ground in grounds:
                assert contrast(colours["accent"], ground) >= 4.5
                assert contrast(colours["accent-strong"], ground) >= 4.5
            assert contrast(colours["on-accent"], colours["accent"]) >= 4.5
            assert contrast(colours["accent"], colours["tint"]) >= 4.5

    def test_it_comes_after_ours_and_before_the_sites_own(self, tmp_path: Path) -> None:
        (tmp_path / "static").mkdir()
        (tmp_path / "static" / "site.css").write_text(":root { --radius: 0; }")
        pages = pages_for(HTC, portal=portal_of(accent="#7a1f5c", accent_dark="#ffcc00"), override=tmp_path)
        sheets = re.findall(r"/_hubgate/static/([\w.]+\.css)\?v=", landing(pages))
        assert sheets == ["hubgate.css", "brand.css", "site.css"]
        alone = html(pages.problem("unknown_host", status=421, request_id=REQUEST))
        assert "--accent: #7a1f5c" in alone
        assert "--accent: #ffcc00" in alone


def test_links_of_the_footer_are_on_every_page() -> None:
    portal = portal_of(privacy_url="/privacy", imprint_url="https://example.org/imprint", accessibility_url="/a11y")
    pages = pages_for(HTC, HPC, portal=portal).to("de")
    problem = html(pages.problem("internal", status=500, request_id=REQUEST))
    for page in (landing(pages), waiting(pages), problem):
        assert '<a href="/privacy">Datenschutz</a>' in page
        assert '<a href="https://example.org/imprint">Impressum</a>' in page
        assert '<a href="/a11y">Barrierefreiheit</a>' in page


class TestAnnouncements:
    def test_site_and_pools(self) -> None:
        site = Announcement("All is slow.", Level.WARNING)
        htc = Announcement("New nodes.", pools=("htc",))
        hidden = Announcement("For others.", pools=(CLOSED.name,))
        pages = pages_for(HTC, HPC, CLOSED, announcements=[site, htc, hidden])
        page = landing(pages)
        assert "All is slow." in page
        assert "Announcement: <bdi>High-throughput computing</bdi>" in page
        assert "For others." not in page
        assert "All is slow." in waiting(pages)
        assert "New nodes." not in waiting(pages)

    def test_a_maintenance_before_it_while_it_lasts_and_after(self) -> None:
        def told(begins: float, ends: float | None) -> tuple[str, str]:
            work = Announcement("Cables.", Level.MAINTENANCE, NOW + begins, ends and NOW + ends, ("hpc",), 7 * DAY)
            pages = pages_for(HTC, HPC, announcements=[work])
            return landing(pages), waiting(pages)

        for page in told(8 * DAY, 9 * DAY):
            assert "Cables." not in page
        for page in told(3 * DAY, 4 * DAY):
            assert "Planned maintenance" in page
            assert "from Thursday, 24 September 2026" in page
            assert "Maintenance until" not in page
        for page in told(-60, DAY):
            assert "Cables." in page
            assert "Planned" not in page
        assert "Maintenance until Tuesday, 22 September 2026" in told(-60, DAY)[0]
        assert "Maintenance is under way." in told(-60, None)[0]
        for page in told(-DAY, -60):
            assert "Cables." not in page

    def test_a_problem_that_passes_is_explained_by_it_and_no_other(self) -> None:
        pages = pages_for(HTC, HPC, announcements=[Announcement("Power cut."), Announcement("Disks.", pools=("hpc",))])

        def problem(code: str, **about: object) -> str:
            return html(pages.problem(code, status=503, request_id=REQUEST, **about))  # type: ignore[arg-type]  # few

        assert "Power cut." in problem("provider_unavailable")
        assert "Disks." not in problem("provider_unavailable")
        assert "Disks." in problem("upstream_unreachable", pool=HPC)
        assert "Power cut." not in problem("unknown_path")

    def test_strangers_are_told_nothing_about_a_pool_for_some(self) -> None:
        pages = pages_for(HTC, CLOSED, announcements=[Announcement("Secret upgrade.", pools=(CLOSED.name,))])
        for who, told in ((None, False), (session(), True)):
            page = pages.problem("store_unavailable", status=503, request_id=REQUEST, pool=CLOSED, session=who)
            assert ("Secret upgrade." in html(page)) is told

    def test_links_in_it_can_be_followed_and_markup_is_text(self) -> None:
        page = landing(pages_for(HTC, announcements=[Announcement("See https://status.example.org <b>now</b>")]))
        assert '<a href="https://status.example.org" rel="noreferrer">' in page
        assert "&lt;b&gt;now" in page

    def test_in_the_language_of_the_page(self) -> None:
        news = Announcement({"en": "New nodes.", "de": "Neue Knoten."}, Level.MAINTENANCE, NOW - 60, NOW + 60)
        pages = pages_for(HTC, announcements=[news])
        assert "<bdi>New nodes.</bdi>" in landing(pages)
        assert '<bdi lang="en">New nodes.</bdi>' in landing(pages.to("fr"))
        german = landing(pages.to("de"))
        assert "Neue Knoten." in german
        assert "Montag, 21. September 2026, von" in german

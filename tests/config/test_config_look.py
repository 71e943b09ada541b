"""How pages look and what is announced: what a site may write, and what it is told when that can't be."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from hubgate.config import Portal
from hubgate.core.announcement import Announcement, Level
from hubgate.core.colour import TEXT_CONTRAST, least_contrast
from tests.config.sample import faults_of, read_in, sound, spoilt

PICTURE = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><rect width="8" height="8"/></svg>'


def with_announcement(text: str) -> dict[str, Any]:
    return sound() | tomllib.loads(f"[[announcements]]\n{text}")


class TestPortal:
    def test_texts_by_language(self) -> None:
        portal = read_in(spoilt(portal__welcome={"de": "Willkommen", "en": "Welcome"}, portal__help_text="Ask.")).portal
        assert portal.welcome == {"de": "Willkommen", "en": "Welcome"}
        assert portal.help_text == "Ask."

    @pytest.mark.parametrize(
        "value", [3, [], {}, {"de": 3}, {"de": ""}, {"d": "x"}, {"de_CH": "x"}, {"de": "a\nb"}, "a\x07"]
    )
    def test_texts_that_are_none(self, value: object) -> None:
        (fault,) = faults_of(spoilt(portal__welcome=value))
        assert fault.key == "portal.welcome"

    def test_pools_by_language(self) -> None:
        config = read_in(spoilt(pools__0__title={"en": "Batch farm", "de": "Rechenfarm"}, pools__0__section="HTC"))
        assert [config.site(language).pools[0].title for language in ("de", "fr", "")] == [
            "Rechenfarm",
            "Batch farm",
            "Batch farm",
        ]
        assert config.site("de").pools[0].section == "HTC"

    @pytest.mark.parametrize("value", ["javascript:alert(1)", "//evil.example", "example.org", "data:text/html,x"])
    @pytest.mark.parametrize("key", ["privacy_url", "imprint_url", "accessibility_url", "help_url"])
    def test_a_link_leads_to_a_page(self, key: str, value: str) -> None:
        (fault,) = faults_of(spoilt(**{f"portal__{key}": value}))
        assert fault.key == f"portal.{key}"

    @pytest.mark.parametrize("value", ["", "e", "en_US", "english language", "de;q=1"])
    def test_languages_are_named_by_their_tags(self, value: str) -> None:
        (fault,) = faults_of(spoilt(portal__languages=["en", value]))
        assert fault.key == "portal.languages[1]"


class TestColours:
    @pytest.mark.parametrize("value", ["red", "#fff", "rgb(1,2,3)", "#12345g", "#112233; } body { display: none"])
    def test_only_colours(self, value: str) -> None:
        (fault,) = faults_of(spoilt(portal__accent=value))
        assert fault.key == "portal.accent"
        assert "#0b6374" in fault.expected

    def test_one_that_cannot_be_read_is_refused_with_its_figure_and_another_is_offered(self) -> None:
        (fault,) = faults_of(spoilt(portal__accent="#FFCC00"))
        assert fault.key == "portal.accent"
        assert fault.found == '"#ffcc00", with a contrast of 1.38 to the light pages\' #f3f5f6'
        assert "4.5 or more" in fault.expected
        offered = fault.expected.rpartition('"#')[2].rstrip('"')
        assert least_contrast(f"#{offered}", "light") >= TEXT_CONTRAST
        assert not faults_of(spoilt(portal__accent=f"#{offered}"))

    def test_light_and_dark_are_judged_each_on_its_own_ground(self) -> None:
        assert [fault.key for fault in faults_of(spoilt(portal__accent_dark="#123456"))] == ["portal.accent_dark"]
        assert not faults_of(spoilt(portal__accent="#123456", portal__accent_dark="#ffcc00"))

    def test_the_default_has_no_colour_of_its_own(self) -> None:
        assert Portal().accent == ""


class TestLogo:
    def test_a_picture_is_found_beside_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "lab.svg").write_bytes(PICTURE)
        assert read_in(spoilt(portal__logo="lab.svg"), tmp_path).portal.logo == str(tmp_path / "lab.svg")

    @pytest.mark.parametrize(
        ("name", "content", "found"),
        [
            ("lab.gif", b"GIF89a", "something else"),
            ("lab.png", PICTURE, "something else"),
            ("lab.svg", b"<html>", "something else"),
            ("lab.svg", PICTURE + b" " * 300_000, "293 KiB"),
        ],
    )
    def test_what_is_no_picture(self, tmp_path: Path, name: str, content: bytes, found: str) -> None:
        (tmp_path / name).write_bytes(content)
        (fault,) = faults_of(spoilt(portal__logo=name), tmp_path)
        assert (fault.key, fault.found) == ("portal.logo", f"{tmp_path / name}: {found}")

    def test_one_that_is_not_there(self, tmp_path: Path) -> None:
        (fault,) = faults_of(spoilt(portal__logo="lab.svg"), tmp_path)
        assert fault.key == "portal.logo"
        assert "no such file" in fault.found

    def test_a_dark_one_needs_a_light_one(self, tmp_path: Path) -> None:
        (tmp_path / "lab.svg").write_bytes(PICTURE)
        (fault,) = faults_of(spoilt(portal__logo_dark="lab.svg"), tmp_path)
        assert fault.key == "portal.logo_dark"


class TestAnnouncements:
    def test_times_and_pools(self) -> None:
        config = read_in(
            with_announcement(
                'text = { en = "New racks", de = "Neue Schränke" }\nlevel = "maintenance"\n'
                'from = 2026-11-24T08:00:00+01:00\nuntil = 2026-11-24 09:00:00Z\nnotice = "2d"\npools = ["htc"]'
            )
        )
        (told,) = config.told()
        assert told == Announcement(
            {"en": "New racks", "de": "Neue Schränke"},
            Level.MAINTENANCE,
            1795503600.0,
            1795510800.0,
            ("htc",),
            172800.0,
        )

    def test_the_simplest(self) -> None:
        assert read_in(with_announcement('text = "Hello"')).told() == (Announcement("Hello", notice=604800.0),)

    @pytest.mark.parametrize(
        ("text", "key", "said"),
        [
            ('text = ""', "announcements[0].text", "not empty"),
            ('level = "info"', "announcements[0].text", "what is said"),
            ('text = "x"\nlevel = "alarm"', "announcements[0].level", '"maintenance"'),
            ('text = "x"\nfrom = 2026-11-24T08:00:00', "announcements[0].from", "with its offset"),
            ('text = "x"\nfrom = "2026-11-24T08:00:00Z"', "announcements[0].from", "without quotes"),
            ('text = "x"\nuntil = 2026-11-24', "announcements[0].until", "with its offset"),
            (
                'text = "x"\nfrom = 2026-11-24T08:00:00Z\nuntil = 2026-11-24T09:00:00+01:00',
                "announcements[0].until",
                "a later time than from",
            ),
            ('text = "x"\nlevel = "maintenance"', "announcements[0].from", "when the maintenance begins"),
            ('text = "x"\npools = ["htc", "htd"]', "announcements[0].pools[1]", "htc, hpc"),
            ('text = "x"\nfrm = 2026-11-24T08:00:00Z', "announcements[0].frm", "did you mean from?"),
            ('text = "x"\nfrom_ = 2026-11-24T08:00:00Z', "announcements[0].from_", "did you mean from?"),
        ],
    )
    def test_what_cannot_be_told(self, text: str, key: str, said: str) -> None:
        (fault,) = faults_of(with_announcement(text))
        assert fault.key == key
        assert said in fault.expected

    def test_one_that_is_over_is_worth_a_word(self) -> None:
        config = read_in(with_announcement('text = "x"\nuntil = 2020-01-01T00:00:00Z'))
        assert any(caution.startswith("announcements[0] is over") for caution in config.cautions)
        assert not any("announcements" in each for each in read_in(with_announcement('text = "x"')).cautions)

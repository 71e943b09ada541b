"""What is said is said in every language, and each request is answered in its own."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from aiohttp import web

from hubgate.core.site import Site
from hubgate.errors import OperatorFault
from hubgate.web.render import Pages
from hubgate.web.templates import packaged_templates
from hubgate.web.words import Words, load_words, places
from tests.gallery import HPC, HTC, LANGUAGES, REQUEST, all_up, pages_for, portal_of, samples, session

MESSAGES = packaged_templates() / "messages"
TRANSLATIONS = sorted(path.stem for path in MESSAGES.glob("*.toml") if path.stem != "en")


def written(language: str) -> dict[str, str]:
    """The sentences of one of our files, by dotted key."""

    def below(table: dict[str, object], prefix: str) -> dict[str, str]:
        flat: dict[str, str] = {}
        for key, value in table.items():
            flat |= below(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)}
        return flat

    return below(tomllib.loads((MESSAGES / f"{language}.toml").read_text()), "")


def html(response: web.Response) -> str:
    assert isinstance(response.body, bytes)
    return response.body.decode()


def landing(pages: Pages) -> web.Response:
    return pages.landing(session(), state_of=all_up, request_id=REQUEST)


class TestTranslations:
    def test_the_gallery_shows_them_all(self) -> None:
        assert sorted(LANGUAGES) == sorted(["en", *TRANSLATIONS])

    @pytest.mark.parametrize("language", TRANSLATIONS)
    def test_every_sentence_is_said_with_the_same_places(self, language: str) -> None:
        english, said = written("en"), written(language)
        assert list(said) == list(english)
        assert not [key for key in said if places(said[key]) != places(english[key])]

    @pytest.mark.parametrize("language", TRANSLATIONS)
    def test_nothing_was_left_in_english(self, language: str) -> None:
        english, said = written("en"), written(language)
        same = {key for key, sentence in said.items() if sentence == english[key] and re.search("[a-z]{4}", sentence)}
        alike = {"language.direction", "language.plural", "page.title", "landing.title", "problem.status"}
        alike |= {
            "notice.about",
            "notice.info",
            "notice.maintenance",
            "time.minutes.one",
            "time.minutes.other",
        }  # French has them, too
        assert not {key for key in same - alike if not key.startswith("date.")}

    @pytest.mark.parametrize("language", TRANSLATIONS)
    def test_people_are_addressed_politely(self, language: str) -> None:
        rude = {"de": r"\b(du|dein\w*|dir|dich)\b", "fr": r"\b(tu|ton|ta|tes|toi)\b"}[language]
        assert not [key for key, sentence in written(language).items() if re.search(rude, sentence, re.IGNORECASE)]

    def test_french_puts_a_space_that_does_not_break_before_its_marks(self) -> None:
        said = written("fr")
        del said["language.plural"]
        wrong = [key for key, sentence in said.items() if re.search(r"[^\u202f\u00a0]([;!?]|:(?![^\s]))", sentence)]
        assert not [key for key in wrong if not key.startswith("date.")]
        assert not [key for key, sentence in said.items() if "'" in sentence]


class TestCounting:
    @pytest.mark.parametrize(
        ("language", "count", "told"),
        [
            ("en", 0, "0 open connections were closed."),
            ("en", 1, "1 open connection was closed."),
            ("de", 0, "0 offene Verbindungen wurden geschlossen."),
            ("de", 1, "1 offene Verbindung wurde geschlossen."),
            ("fr", 0, "0 connexion ouverte a été fermée."),
            ("fr", 1, "1 connexion ouverte a été fermée."),
            ("fr", 2, "2 connexions ouvertes ont été fermées."),
        ],
    )
    def test_each_language_counts_in_its_own_way(self, language: str, count: int, told: str) -> None:
        assert load_words([packaged_templates()])[language].counted("receipt.connections", count) == told

    def test_a_case_that_english_does_not_have(self) -> None:
        words = load_words([packaged_templates()])["de"]
        assert (words.span(3 * 86400), words.span(3 * 86400, "ago")) == ("3 Tage", "vor 3 Tagen")

    def test_a_site_can_add_a_language_with_more_forms(self, tmp_path: Path) -> None:
        (tmp_path / "messages").mkdir()
        (tmp_path / "messages" / "pl.toml").write_text(
            """[language]
plural = "'one' if n == 1 else 'few' if n % 10 in (2, 3, 4) and n % 100 not in (12, 13, 14) else 'many'"
[time]
minutes.one = "{count} minuta"
minutes.few = "{count} minuty"
minutes.many = "{count} minut"
minutes.other = "{count} minuty"
""",
            encoding="utf-8",
        )
        words = load_words([packaged_templates(), tmp_path])["pl"]
        told = [words.counted("time.minutes", count) for count in (1, 2, 5, 12, 22)]
        assert told == ["1 minuta", "2 minuty", "5 minut", "12 minut", "22 minuty"]
        assert words.counted("time.hours", 5) == "5 hours"  # not written yet: said in English

    @pytest.mark.parametrize("rule", ["'one' if", "1", "'several'", "n / 0", "n.real.x.y"])
    def test_a_rule_that_cannot_be_read_is_found_at_the_start(self, tmp_path: Path, rule: str) -> None:
        (tmp_path / "messages").mkdir()
        (tmp_path / "messages" / "tlh.toml").write_text(f'[language]\nplural = "{rule}"\n')
        with pytest.raises(OperatorFault, match=r"messages_malformed.*language\.plural"):
            load_words([packaged_templates(), tmp_path])


class TestTimes:
    ZONE = timezone(timedelta(hours=1), "CET")
    BEGINS = datetime(2026, 11, 24, 8, 5, tzinfo=ZONE)

    @pytest.mark.parametrize(
        ("language", "day", "period", "until"),
        [
            (
                "en",
                "Tuesday, 24 November 2026, 08:05 CET",
                "Tuesday, 24 November 2026, from 08:05 to 10:05 CET",
                "from Tuesday, 24 November 2026, 08:05 CET to Thursday, 26 November 2026, 08:05 CET",
            ),
            (
                "de",
                "Dienstag, 24. November 2026, 08:05 Uhr CET",
                "Dienstag, 24. November 2026, von 08:05 bis 10:05 Uhr CET",
                "von Dienstag, 24. November 2026, 08:05 Uhr CET bis Donnerstag, 26. November 2026, 08:05 Uhr CET",
            ),
            (
                "fr",
                "mardi 24 novembre 2026 à 08:05 CET",
                "mardi 24 novembre 2026, de 08:05 à 10:05 CET",
                "du mardi 24 novembre 2026 à 08:05 CET au jeudi 26 novembre 2026 à 08:05 CET",
            ),
        ],
    )
    def test_dates_are_written_as_people_write_them(self, language: str, day: str, period: str, until: str) -> None:
        words = load_words([packaged_templates()])[language]
        assert words.moment(self.BEGINS, now=datetime(2026, 11, 25, tzinfo=UTC)) == day
        assert words.moment(self.BEGINS, now=self.BEGINS) == words.clock(self.BEGINS)
        assert words.period(self.BEGINS, self.BEGINS + timedelta(hours=2)) == period
        assert words.period(self.BEGINS, self.BEGINS + timedelta(days=2)) == until
        assert words.clock(self.BEGINS) in words.period(self.BEGINS, None)

    def test_on_the_day_when_clocks_change_each_time_has_its_zone(self) -> None:
        words = load_words([packaged_templates()])["en"]
        begins = datetime(2026, 3, 29, 1, tzinfo=self.ZONE)
        ends = datetime(2026, 3, 29, 8, tzinfo=timezone(timedelta(hours=2), "CEST"))
        day = "Sunday, 29 March 2026"
        assert words.period(begins, ends) == f"from {day}, 01:00 CET to {day}, 08:00 CEST"

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_every_day_and_month_has_a_name(self, language: str) -> None:
        words = load_words([packaged_templates()])[language]
        told = {words.date(datetime(2026, month, month, tzinfo=UTC)) for month in range(1, 13)}
        assert len(told) == 12
        assert len({words.date(self.BEGINS + timedelta(days=day)).split()[0] for day in range(7)}) == 7


class TestChoice:
    @pytest.mark.parametrize(
        ("wish", "given"),
        [
            ("", "en"),
            ("de", "de"),
            ("de-AT,de;q=0.9,en;q=0.8", "de"),
            ("fr;q=0.4, de;q=0.6", "de"),
            ("tlh, fr;q=0.1", "fr"),
            ("en;q=0.2, *;q=0.1", "en"),
            ("*", "en"),
        ],
    )
    def test_a_page_comes_in_the_language_that_was_asked_for(self, wish: str, given: str) -> None:
        response = landing(pages_for(HTC, HPC).to(wish))
        assert response.headers["Content-Language"] == given
        assert response.headers["Vary"] == "Accept-Language"
        assert f'<html lang="{given}" dir="ltr">' in html(response)

    def test_the_site_says_which_languages_and_which_first(self) -> None:
        pages = pages_for(HTC, portal=portal_of(languages=("fr", "DE")))
        assert landing(pages).headers["Content-Language"] == "fr"
        assert landing(pages.to("en, de;q=0.1")).headers["Content-Language"] == "de"
        with pytest.raises(OperatorFault, match="no messages in 'tlh'; there are de, en, fr"):
            pages_for(HTC, portal=portal_of(languages=("tlh",)))

    def test_one_language_alone_is_no_choice(self) -> None:
        response = landing(pages_for(HTC, portal=portal_of(languages=("de",))).to("fr"))
        assert response.headers["Content-Language"] == "de"
        assert "Vary" not in response.headers

    def test_programs_are_told_in_their_language_too_and_go_by_the_code(self) -> None:
        response = pages_for(HTC).to("de").problem_json("session_required", 401, REQUEST)
        told = json.loads(html(response))
        assert (told["title"], told["code"]) == ("Bitte melden Sie sich an", "session_required")
        assert response.headers["Content-Language"] == "de"
        assert response.headers["Vary"] == "Accept-Language"

    def test_a_sites_texts_follow_the_page(self) -> None:
        texts = {"en": "Ask Ada.", "de": "Fragen Sie Ada."}
        pages = pages_for(HTC, portal=portal_of(text=texts, welcome={"de": "Willkommen im Labor."}))
        assert "Fragen Sie Ada." in html(landing(pages.to("de")))
        assert "Ask Ada." in html(landing(pages.to("fr")))  # not written: the first one that is
        assert "Willkommen im Labor." in html(landing(pages.to("de")))

    def test_its_pools_too(self) -> None:
        texts = {"en": "Open pool", "de": "Rechenfarm"}

        def site_in(language: str) -> Site:
            return Site("https://jupyter.example.org", (replace(HTC, title=texts.get(language, texts["en"])),))

        pages = Pages(site_in("en"), portal_of(), site_in=site_in).to("de")
        waiting = pages.waiting(
            session=session(),
            pool=site_in("en").pools[0],
            hub="htc01",
            since=0.0,
            url="/htc/",
            retry_after=5,
            may_move_at=None,
            request_id=REQUEST,
        )
        receipt = pages.receipt(request_id=REQUEST, pools=site_in("en").pools)
        for page in (landing(pages), waiting, receipt):
            assert "Rechenfarm" in html(page)
            assert "Open pool" not in html(page)

    def test_a_site_replaces_one_sentence_of_a_translation(self, tmp_path: Path) -> None:
        (tmp_path / "messages").mkdir()
        (tmp_path / "messages" / "de.toml").write_text('[landing]\nheading = "Womit fangen wir an?"\n')
        pages = pages_for(HTC, HPC, override=tmp_path)
        assert "Womit fangen wir an?" in html(landing(pages.to("de")))
        assert "Zur Startseite" in html(pages.to("de").problem("internal", status=500, request_id=REQUEST))
        assert "Where would you like to work?" in html(landing(pages))


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_no_page_says_something_in_english(language: str) -> None:
    """What a template says by itself, past `words`, would be the same in every language."""
    english, translated = samples(language="en"), samples(language=language)
    for name in english:
        told, meant = html(translated[name]()), html(english[name]())
        assert f'<html lang="{language}"' in told
        for sentence in ("Log Out", "Request number", "What you can do", "Skip to", "Try again"):
            assert sentence not in told, (name, sentence)
        assert told != meant


def test_words_need_no_file() -> None:
    assert Words({"x.one": "{count} sheep", "x.other": "{count} sheep"}, language="en").counted("x", 3) == "3 sheep"

"""The pages of refusal, by themselves; real hubs show them in tests/hub/test_real_hub_*.py."""

import re
from pathlib import Path

import pytest

import hubgate_hub
from hubgate_hub.assertion import Refused
from hubgate_hub.doors import ADVICE, TurnedAway

SOURCES = "".join(path.read_text() for path in Path(hubgate_hub.__file__).parent.glob("*.py"))


def test_advice_is_for_reasons_that_exist():
    for reason in ADVICE:
        assert re.search(rf'Refused\(\s*"{reason}"', SOURCES), reason


@pytest.mark.parametrize("reason", [*ADVICE, "wrong_audience", "a_later_one"])
def test_every_page_says_what_to_do(reason):
    away = TurnedAway(Refused(reason, "for-the-log"), gateway_url="https://g.example.org", user="alice", hub="htc01")
    page = away.details
    assert 'href="https://g.example.org/"' in page
    assert f"Reason: {reason}, hub: htc01" in page
    assert "{" not in page
    assert "for-the-log" not in page
    # It goes into the status line.
    assert re.fullmatch(r"[A-Za-z' ]{5,70}", away.reason)
    # Anything else would have JupyterHub write the request's headers to its log.
    assert away.status_code in (403, 503)
    assert away.headers["Cache-Control"] == "no-store"


def test_a_page_may_go_on_by_itself():
    headers = TurnedAway(Refused("before_start")).headers
    assert headers["Refresh"] == headers["Retry-After"] == "2"
    assert "Refresh" not in TurnedAway(Refused("keys_unavailable")).headers


def test_names_and_urls_are_text():
    away = TurnedAway(Refused("not_admitted"), user="<script>{x}", gateway_url='https://g"><b>', hub="<i>")
    page = away.details
    assert "&lt;script&gt;{x}" in page
    assert not re.search(r"<(script|b|i)>", page)
    assert 'href="https://g&quot;&gt;&lt;b&gt;/"' in page


def test_without_a_gateway_there_is_no_link():
    assert "href" not in TurnedAway(Refused("not_set_up")).details

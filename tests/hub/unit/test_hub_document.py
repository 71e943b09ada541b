"""docs/identity-assertion.md says what the code does."""

import base64
import json
import re
from pathlib import Path

import pytest

from hubgate_hub import assertion

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "identity-assertion.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```(text|json \w+)\n(.*?)```", DOCUMENT, re.DOTALL))
TOKEN = "".join(BLOCKS["text"].split())


def part(number):
    text = TOKEN.split(".")[number]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def test_the_example_is_accepted_as_the_page_says():
    now, started = map(int, re.search(r"At (\d+) the hub `htc01`, started before (\d+)", DOCUMENT).groups())
    keys = assertion.parse_keys(BLOCKS["json jwks"].encode())
    claims = json.loads(BLOCKS["json claims"])
    expect = assertion.Expectation(issuer=claims["iss"], audience="htc01")
    found = assertion.verify(TOKEN, keys[assertion.key_id(TOKEN)], expect=expect, use="login", now=now)
    assertion.check_fresh(found, started=started - 1)
    assert (found.username, found.groups) == ("alice", ("atlas", "hpc-users"))


def test_the_example_reads_as_the_page_says():
    assert part(0) == json.loads(BLOCKS["json header"])
    assert part(1) == json.loads(BLOCKS["json claims"])


def test_every_claim_of_the_example_is_explained():
    table = DOCUMENT.partition("**Claims**")[2].partition("## Keys")[0]
    explained = set(re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines() if "|" in line)))
    assert set(part(1)) <= explained


def test_every_reason_is_explained():
    sources = (ROOT / "hub" / "hubgate_hub").glob("*.py")
    text = "".join(source.read_text(encoding="utf-8") for source in sources)
    raised = set(re.findall(r'Refused\(\s*"(\w+)"', text)) | set(
        re.findall(r'"((?:wrong|empty|missing)_\w+|\w+_malformed)"', text)
    )
    assert {"tampered", "wrong_issuer", "wrong_audience", "empty_sub", "replayed", "no_account"} <= raised
    checks = DOCUMENT.partition("## What a hub checks")[2].partition("## Example")[0]
    assert raised <= set(re.findall(r"`(\w+)`", checks))


@pytest.mark.parametrize("figure", [f"{assertion.SIZE_LIMIT:,}".replace(",", " "), f"{assertion.LONGEST} s"])
def test_figures(figure):
    assert figure in DOCUMENT

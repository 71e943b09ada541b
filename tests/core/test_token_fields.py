"""What is a program's request, and which token is in it?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from hubgate.core.api_tokens import (
    Standing,
    has_token_in_query,
    is_api,
    is_program,
    standing_of,
    token_in,
)
from hubgate.core.identity import Identity, Proof
from hubgate.core.routing import Router, parse_target
from hubgate.core.site import Pool, Site, Upstream

TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    "field", [b"token " + TOKEN.encode(), b"Bearer " + TOKEN.encode(), b"TOKEN \t " + TOKEN.encode()]
)
def test_it_is_read_as_jupyterhub_reads_it(field: bytes) -> None:
    assert token_in([field]) == TOKEN


@pytest.mark.parametrize("field", [b"Basic " + TOKEN.encode(), b"token", b"", TOKEN.encode(), b"tokens x"])
def test_what_jupyterhub_takes_for_no_token(field: bytes) -> None:
    assert token_in([field]) is None


def test_the_blanks_that_only_python_takes_for_blanks() -> None:
    """JupyterHub's expression runs on text, where a no-break space is a blank like others."""
    assert token_in([b"\xa0token\xa0" + TOKEN.encode()]) == TOKEN
    assert token_in([b"token\x85" + TOKEN.encode()]) == TOKEN


@pytest.mark.parametrize(
    "fields",
    [
        [b"token " + TOKEN.encode() + b" and more"],
        [b"token short"],
        [b"token " + b"x" * 513],
        [b"token caf\xe9caf\xe9caf\xe9"],
        [b"token " + TOKEN.encode(), b"token " + TOKEN.encode()],
        [b"Basic YTpi", b"token " + TOKEN.encode()],
    ],
)
def test_what_nobody_gave_out(fields: list[bytes]) -> None:
    assert token_in(fields) == ""


def test_none_without_the_field() -> None:
    assert token_in([]) is None


def test_a_browser_is_no_program() -> None:
    assert is_program(["Host", "Accept", "Authorization", "Cookie"])
    assert not is_program(["Host", "Sec-Fetch-Site"])
    assert not is_program(["sec-fetch-mode"])


@pytest.mark.parametrize("raw", ["/a?token=x", "/a?b=c&token=", "/a?%74oken=x", "/a?b&token=x&c", "/a?toke%6E=x"])
def test_a_token_in_the_query(raw: str) -> None:
    assert has_token_in_query(raw)


@pytest.mark.parametrize("raw", ["/a", "/a?", "/token", "/a?tokens=x", "/a?b=token", "/a?tok%2565n=x"])
def test_no_token_in_the_query(raw: str) -> None:
    assert not has_token_in_query(raw)


API = ["hub/api", "hub/api/", "hub/api/users/x", "user/x/api", "user/x/api/kernels/k/channels", "user/x/gpu/api/status"]
OTHER = [
    "",
    "hub/",
    "hub/home",
    "hub/apis",
    "hub/login",
    "hub/token",
    "api/",
    "user/x/lab",
    "user/x/files/a/api/b",
    "user/x/proxy/80/api/x",
    "user//api/x",
    "user/api",
    "services/s/api/x",
    "x/hub/api/users",
]


@pytest.mark.parametrize("below", API)
def test_the_api(below: str) -> None:
    assert is_api(below)


@pytest.mark.parametrize("below", OTHER)
def test_everything_else_is_for_people(below: str) -> None:
    assert not is_api(below)


POOL = Pool("htc", "/htc/", (Upstream("htc01", "http://127.0.0.1:1", "htc"),), api_tokens=True)
ROUTER = Router(Site("https://jupyter.example.org", (POOL,)))


@pytest.mark.parametrize(
    ("raw", "api"),
    [
        ("/htc/hub/api/users", True),
        ("/htc/user/x/api/contents/My%20Notebook.ipynb?content=1", True),
        ("/htc/user/x/api/contents/.ipynb_checkpoints", True),
        ("/htc/user/j%C3%BCrgen/api/status", True),
        ("/htc/hub/%61pi/users", False),
        ("/htc/hub//api/users", False),
        ("/htc/user/x%2Flab%2Ftree/api/contents", False),
        ("/htc/user/x;/api;/contents", False),
        ("/htc/hub/home", False),
        ("/htc", False),
    ],
)
def test_a_path_is_the_apis_in_every_reading_or_not_at_all(raw: str, api: bool) -> None:
    target = parse_target(raw, ["jupyter.example.org"], secure=True)
    assert ROUTER.is_api(target, POOL) is api


ALICE = Identity("https://id.example.org", "42", "alice")
PROOF = Proof("mfa", ("pwd", "otp"), 1000)


def test_a_standing_counts_from_the_second_factor_and_not_from_the_login() -> None:
    standing = standing_of(ALICE, PROOF, now=5000.0, age=3600.0, before=None)
    assert standing == Standing(ALICE, PROOF, 4600.0)


def test_where_the_provider_does_not_say_when_it_was_the_login_counts() -> None:
    assert standing_of(ALICE, Proof("mfa"), now=5000.0, age=3600.0, before=None).until == 8600.0


def test_a_proof_from_the_future_does_not_last_longer() -> None:
    assert standing_of(ALICE, replace(PROOF, auth_time=9000), now=5000.0, age=3600.0, before=None).until == 8600.0


def test_a_login_that_goes_on_from_an_older_proof_takes_nothing_away() -> None:
    newer = standing_of(ALICE, replace(PROOF, auth_time=4000), now=4000.0, age=3600.0, before=None)
    renamed = replace(ALICE, groups=("atlas",))
    after = standing_of(renamed, PROOF, now=5000.0, age=3600.0, before=newer)
    assert after == Standing(renamed, newer.proof, newer.until)
    again = standing_of(ALICE, replace(PROOF, auth_time=5000), now=5000.0, age=3600.0, before=newer)
    assert again.until == 8600.0

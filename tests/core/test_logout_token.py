"""The provider's word that a session is over, and everything that is not it."""

from __future__ import annotations

from typing import Any

import pytest

from hubgate.core.logout_token import EVENT, LogoutToken, check_logout_token
from hubgate.errors import ClientFault

NOW = 1_790_000_000
ISSUER = "https://id.example.org/realms/site"
GOOD: dict[str, Any] = {
    "iss": ISSUER,
    "aud": "hubgate",
    "iat": NOW - 1,
    "exp": NOW + 119,
    "jti": "one",
    "sid": "session",
    "sub": "subject",
    "events": {EVENT: {}},
    "typ": "Logout",
}


def checked(*, header: dict[str, Any] | None = None, **changes: Any) -> LogoutToken:
    claims = {name: value for name, value in (GOOD | changes).items() if value is not ...}
    header = {"alg": "RS256", "typ": "JWT"} if header is None else header
    return check_logout_token(claims, header, issuer=ISSUER, client_id="hubgate", skew=30, now=NOW)


def test_a_good_one() -> None:
    assert checked() == LogoutToken(ISSUER, "subject", "session", "one", NOW + 149)


@pytest.mark.parametrize(
    "changes",
    [
        {"sid": ...},
        {"sub": ...},
        {"aud": ["other", "hubgate"]},
        {"typ": ...},
        {"typ": "logout+jwt"},
        {"events": {EVENT: {}, "another": {}}},
        {"events": {EVENT: {"more": 1}}},
        {"exp": NOW - 29, "iat": NOW - 100},
        {"iat": NOW + 29.5},
    ],
)
def test_others_that_are_good(changes: dict[str, Any]) -> None:
    assert checked(**changes).id == "one"


def test_it_is_remembered_for_no_longer_than_it_could_be_shown_again() -> None:
    assert checked(exp=NOW + 10**9).good_until == NOW - 1 + 600 + 30


@pytest.mark.parametrize("typ", ["logout+jwt", "application/logout+jwt", "LOGOUT+JWT", ...])
def test_types_in_the_header(typ: Any) -> None:
    header = {"alg": "RS256"} if typ is ... else {"alg": "RS256", "typ": typ}
    assert checked(header=header).sid == "session"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": ISSUER + "/"}, "iss"),
        ({"iss": ...}, "iss"),
        ({"aud": "other"}, "aud"),
        ({"aud": []}, "aud"),
        ({"aud": ...}, "aud"),
        ({"aud": {"hubgate": 1}}, "aud"),
        ({"events": ...}, "events"),
        ({"events": {}}, "events"),
        ({"events": [EVENT]}, "events"),
        ({"events": EVENT}, "events"),
        ({"events": {EVENT: None}}, "events"),
        ({"events": {EVENT: True}}, "events"),
        ({"events": {EVENT + "/": {}}}, "events"),
        ({"nonce": "n"}, "nonce"),
        ({"nonce": ""}, "nonce"),
        ({"nonce": None}, "nonce"),
        ({"iat": ...}, "iat"),
        ({"iat": "1"}, "iat"),
        ({"iat": True}, "iat"),
        ({"iat": float("nan")}, "iat"),
        ({"iat": -1}, "iat"),
        ({"exp": ...}, "exp"),
        ({"exp": float("inf")}, "exp"),
        ({"exp": NOW - 30}, "expired"),
        ({"iat": NOW - 631, "exp": NOW + 10**6}, "expired"),
        ({"iat": NOW + 31}, "future"),
        ({"sid": ..., "sub": ...}, "nobody"),
        ({"sid": "", "sub": ""}, "nobody"),
        ({"sid": 1}, "sid"),
        ({"sub": ["subject"]}, "sub"),
        ({"sub": None}, "sub"),
        ({"sid": "s" * 256}, "sid"),
        ({"jti": ...}, "jti"),
        ({"jti": ""}, "jti"),
        ({"jti": 7}, "jti"),
        ({"typ": "ID"}, "typ"),
        ({"typ": "Bearer"}, "typ"),
        ({"typ": "Refresh"}, "typ"),
    ],
)
def test_what_is_none(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ClientFault) as caught:
        checked(**changes)
    assert (caught.value.code, caught.value.status) == ("logout_token_refused", 400)
    assert caught.value.evidence == {"reason": reason}


@pytest.mark.parametrize("typ", ["at+jwt", "", "secevent+jwt", 1])
def test_tokens_of_another_type(typ: object) -> None:
    with pytest.raises(ClientFault) as caught:
        checked(header={"alg": "RS256", "typ": typ})
    assert caught.value.evidence == {"reason": "typ"}

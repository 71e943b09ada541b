"""Both sides are held to tests/vectors/assertion.json; this is the hub's."""

import json
from pathlib import Path

import pytest

from hubgate_hub import assertion

FILE = Path(__file__).parents[2] / "vectors" / "assertion.json"
VECTORS = json.loads(FILE.read_text(encoding="utf-8"))
KEYS = assertion.parse_keys(json.dumps(VECTORS["jwks"]).encode())

# The vectors name some attacks; the verifier sees what they have in common.
SAME = {
    "alg_none": "wrong_alg",
    "alg_hs256_with_public_key": "wrong_alg",
    "audience_list": "wrong_audience",
    "two_parts": "malformed",
}


def judged(case: dict, seen: assertion.Seen) -> assertion.Assertion:
    kid = assertion.key_id(case["token"])
    if kid not in KEYS:
        raise assertion.Refused("unknown_key")
    expect = assertion.Expectation(issuer=VECTORS["issuer"], audience=VECTORS["audience"])
    found = assertion.verify(case["token"], KEYS[kid], expect=expect, use=case["use"], now=VECTORS["now"])
    if case["use"] == "login":
        assertion.check_fresh(found, started=VECTORS["started"])
        seen.use_up(found, now=VECTORS["now"])
    return found


def test_the_file_means_what_the_code_means():
    assert VECTORS["skew"] == assertion.SKEW
    assert VECTORS["largest"] == assertion.SIZE_LIMIT
    expectations = {case["expect"] for case in VECTORS["cases"]}
    assert {"accept", "expired", "wrong_audience", "alg_none", "tampered", "before_start"} <= expectations


@pytest.mark.parametrize("case", [c for c in VECTORS["cases"] if c["expect"] == "accept"], ids=lambda c: c["name"])
def test_accepts_what_the_gateway_signs(case):
    seen = assertion.Seen()
    found = judged(case, seen)
    said = case["claims"]
    assert found == assertion.Assertion(
        use=said["use"],
        username=said["sub"],
        issuer=said["iss"],
        audience=said["aud"],
        issued_at=said["iat"],
        expires_at=said["exp"],
        jti=said["jti"],
        sid=said["sid"],
        acr=said.get("acr"),
        amr=tuple(said["amr"]),
        auth_time=said.get("auth_time"),
        groups=tuple(said["groups"]),
        name=said.get("name"),
        email=said.get("email"),
    )
    if case["use"] == "login":
        with pytest.raises(assertion.Refused) as refused:
            judged(case, seen)
        assert refused.value.reason == "replayed"


@pytest.mark.parametrize("case", [c for c in VECTORS["cases"] if c["expect"] != "accept"], ids=lambda c: c["name"])
def test_refuses_everything_else(case):
    seen = assertion.Seen()
    with pytest.raises(assertion.Refused) as refused:
        judged(case, seen)
    assert refused.value.reason == SAME.get(case["expect"], case["expect"])
    assert len(seen) == 0
    # What goes to the log is one short line, and no token.
    detail = refused.value.detail
    assert detail.isprintable()
    assert len(detail) < 250
    assert not any(part in detail for part in case["token"].split(".") if len(part) > 20)

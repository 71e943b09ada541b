"""The signer writes what docs/identity-assertion.md says, and the vectors say what they claim to say."""

from __future__ import annotations

import hashlib
import json
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubgate.core.assertion import LONGEST, Signer, Subject
from hubgate.core.identity import Proof

VECTORS = Path(__file__).parent.parent / "vectors"
MAKER = runpy.run_path(str(VECTORS / "make_assertion.py"))
GOLDEN: dict[str, Any] = json.loads((VECTORS / "assertion.json").read_text(encoding="utf-8"))
SEED = bytes(range(32))
ALICE = Subject(username="alice", groups=("atlas",), sid="s-1", proof=Proof("mfa", ("pwd", "otp"), 1_700_000_000))


def reason_to_refuse(token: str, use: str) -> str | None:
    """A plain reading of the format, one question after the other; the hub's own verifier is the other distribution's.

    It is here so that a vector can't be refused for another reason than the one it names.
    """
    if len(token) > GOLDEN["largest"]:
        return "too_large"
    parts = token.split(".")
    if len(parts) != 3:
        return "two_parts" if len(parts) == 2 else "malformed"
    try:
        header, claims = (json.loads(MAKER["unb64"](part)) for part in parts[:2])
        signature = MAKER["unb64"](parts[2])
    except ValueError:
        return "malformed"
    if not isinstance(header, dict) or not isinstance(claims, dict) or not parts[1].replace("-", "_").isidentifier():
        return "malformed"
    return _header(header, ".".join(parts[:2]), signature) or _times(claims, use) or _claims(claims, use)


def _header(header: dict[str, Any], signed: str, signature: bytes) -> str | None:
    algorithm = header.get("alg", "")
    if algorithm != "EdDSA":
        named = {"none": "alg_none", "hs256": "alg_hs256_with_public_key"}
        return named.get(str(algorithm).lower(), "wrong_alg")
    if "crit" in header:
        return "critical_header"
    if header.get("typ") != "hubgate+jwt":
        return "wrong_typ"
    key = next((key for key in GOLDEN["jwks"]["keys"] if key["kid"] == header.get("kid")), None)
    if key is None:
        return "unknown_key"
    verified = jwt.get_algorithm_by_name("EdDSA").verify(signed.encode(), jwt.PyJWK(key).key, signature)
    return None if verified else "tampered"


def _times(claims: dict[str, Any], use: str) -> str | None:
    times = [claims.get(name) for name in ("iat", "nbf", "exp")]
    if any(type(time) is not int for time in times):
        return "times_malformed"
    issued, begins, ends = times
    if ends - issued > LONGEST:
        return "too_long_lived"
    if max(issued, begins) > GOLDEN["now"] + GOLDEN["skew"]:
        return "future"
    if ends + GOLDEN["skew"] <= GOLDEN["now"]:
        return "expired"
    return "before_start" if use == "login" and issued < GOLDEN["started"] else None


def _claims(claims: dict[str, Any], use: str) -> str | None:
    groups = claims.get("groups")
    questions = {
        "audience_list": isinstance(claims.get("aud"), list),
        "wrong_audience": claims.get("aud") != GOLDEN["audience"],
        "wrong_issuer": claims.get("iss") != GOLDEN["issuer"],
        "wrong_use": claims.get("use") != use,
        "empty_sub": not (claims.get("sub") and isinstance(claims["sub"], str)),
        "missing_jti": not (claims.get("jti") and isinstance(claims["jti"], str)),
        "groups_malformed": not (isinstance(groups, list) and all(isinstance(group, str) for group in groups)),
    }
    return next((reason for reason, wrong in questions.items() if wrong), None)


def test_the_golden_file_is_what_its_maker_writes() -> None:
    assert (VECTORS / "assertion.json").read_text(encoding="utf-8") == MAKER["text"]()


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_each_vector_is_right_or_wrong_as_it_says(case: dict[str, Any]) -> None:
    assert (reason_to_refuse(case["token"], case["use"]) or "accept") == case["expect"]


def test_vectors_have_names_of_their_own_and_cover_the_families() -> None:
    names = [case["name"] for case in GOLDEN["cases"]]
    assert len(names) == len(set(names))
    assert {case["expect"] for case in GOLDEN["cases"]} >= {
        *("accept", "expired", "future", "wrong_audience", "audience_list", "wrong_issuer", "unknown_key", "alg_none"),
        *("alg_hs256_with_public_key", "wrong_typ", "empty_sub", "missing_jti", "tampered", "two_parts"),
    }


@pytest.mark.parametrize("use", ["login", "page"])
def test_an_assertion_says_who_for_whom_and_for_how_long(use: str) -> None:
    signer = Signer([SEED], "https://jupyter.example.org")
    token = signer.sign(ALICE, audience="htc01", use=use, now=1_800_000_000, jti="j-1", lifetime=30)
    key = jwt.PyJWKSet.from_json(signer.jwks().decode())[signer.kid]
    assert jwt.get_unverified_header(token) == {"alg": "EdDSA", "typ": "hubgate+jwt", "kid": signer.kid}
    options = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "strict_aud": True}
    assert jwt.decode(token, key, algorithms=["EdDSA"], audience="htc01", options=options) == {
        "use": use,
        "iss": "https://jupyter.example.org",
        "sub": "alice",
        "aud": "htc01",
        "iat": 1_800_000_000,
        "nbf": 1_800_000_000,
        "exp": 1_800_000_030,
        "jti": "j-1",
        "sid": "s-1",
        "amr": ["pwd", "otp"],
        "groups": ["atlas"],
        "acr": "mfa",
        "auth_time": 1_700_000_000,
    }


def test_the_newest_key_signs_and_all_are_published_without_their_secrets() -> None:
    signer = Signer([SEED, bytes(32)], "https://jupyter.example.org")
    keys = json.loads(signer.jwks())["keys"]
    assert [sorted(key) for key in keys] == [["alg", "crv", "kid", "kty", "use", "x"]] * 2
    assert signer.kid == keys[-1]["kid"] != keys[0]["kid"]
    assert all(key["kid"] in repr(signer) for key in keys)


def test_a_kid_is_the_thumbprint_of_rfc_7638() -> None:
    signer = Signer([SEED], "https://jupyter.example.org")
    key = json.loads(signer.jwks())["keys"][0]
    canonical = json.dumps({name: key[name] for name in ("crv", "kty", "x")}, separators=(",", ":"))
    assert signer.kid == MAKER["b64"](hashlib.sha256(canonical.encode()).digest())


@pytest.mark.parametrize(
    ("changed", "audience", "jti", "lifetime"),
    [
        ({"username": ""}, "htc01", "j", 60),
        ({}, "", "j", 60),
        ({}, "htc01", "", 60),
        ({}, "htc01", "j", 0),
        ({}, "htc01", "j", 61),
    ],
)
def test_what_no_hub_could_accept_is_not_signed(
    changed: dict[str, str], audience: str, jti: str, lifetime: int
) -> None:
    subject = replace(ALICE, **changed)  # type: ignore[arg-type]  # only texts are changed
    with pytest.raises(ValueError, match="assertion"):
        Signer([SEED], "https://x").sign(subject, audience=audience, use="login", now=1, jti=jti, lifetime=lifetime)


@pytest.mark.parametrize("seeds", [[], [b"short"], [SEED, bytes(33)]])
def test_a_signer_needs_whole_seeds(seeds: list[bytes]) -> None:
    with pytest.raises(ValueError):
        Signer(seeds, "https://x")


@given(
    username=st.text(min_size=1),
    groups=st.lists(st.text()).map(tuple),
    name=st.none() | st.text(),
    now=st.integers(1, 2**40),
)
def test_whatever_is_said_is_one_header_line_and_comes_back_unchanged(
    username: str, groups: tuple[str, ...], name: str | None, now: int
) -> None:
    subject = Subject(username=username, groups=groups, sid="s", proof=Proof(), name=name)
    token = Signer([SEED], "https://x").sign(subject, audience="a", use="page", now=now, jti="j")
    assert set(token) <= set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")
    said = json.loads(MAKER["unb64"](token.split(b".")[1].decode()))
    assert (said["sub"], tuple(said["groups"]), said.get("name"), said["iat"]) == (username, groups, name, now)

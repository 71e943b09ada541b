"""From claims to a name: nobody becomes somebody else, and nothing that a hub could misread gets through."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubgate.core.identity import (
    DEFAULT_PATTERN,
    Admission,
    Identity,
    Proof,
    UsernamePolicy,
    admit,
    identity_from_claims,
)
from hubgate.errors import ClientFault

ISSUER = "https://id.example.org/realms/site"
ANYTHING = UsernamePolicy(pattern=".*", lowercase=False)


def person(policy: UsernamePolicy | None = None, groups_claim: str = "groups", **claims: Any) -> Identity:
    said = {"iss": ISSUER, "sub": "u-1", "preferred_username": "alice", **claims}
    return identity_from_claims(said, usernames=policy or UsernamePolicy(), groups_claim=groups_claim)


def named(value: object, policy: UsernamePolicy | None = None) -> str:
    return person(policy, preferred_username=value).username


def test_an_identity_is_what_the_claims_say() -> None:
    found = person(name=" Alice A ", email="alice@example.org", groups=["atlas", "hpc-users", "atlas"])
    assert found == Identity(ISSUER, "u-1", "alice", "Alice A", "alice@example.org", ("atlas", "hpc-users"))


@pytest.mark.parametrize(
    ("claim", "policy", "username"),
    [
        ("alice", UsernamePolicy(), "alice"),
        ("Alice", UsernamePolicy(), "alice"),
        ("Alice", ANYTHING, "Alice"),
        ("alice@Example.ORG", UsernamePolicy(strip_domains=("example.org",)), "alice"),
        ("alice@example.org", UsernamePolicy(strip_domains=("Example.Org",)), "alice"),
        ("alice@other.org", UsernamePolicy(strip_domains=("example.org",)), "alice@other.org"),
        ("a@b@example.org", UsernamePolicy(strip_domains=("example.org",)), "a@b"),
        ("https://id/Alice", UsernamePolicy(mapping={"https://id/Alice": "Alice"}), "alice"),
        ("ALICE", UsernamePolicy(mapping={"alice": "root"}), "alice"),
        ("zoë", ANYTHING, "zoë"),
        ("ß", UsernamePolicy(pattern=".*"), "ß"),
        ("_svc.x-1", UsernamePolicy(), "_svc.x-1"),
        ("a" * 64, UsernamePolicy(), "a" * 64),
    ],
)
def test_a_claim_becomes_a_username(claim: str, policy: UsernamePolicy, username: str) -> None:
    assert named(claim, policy) == username


@pytest.mark.parametrize(
    "claim",
    [
        *(
            "",
            " ",
            "alice ",
            " alice",
            "al ice",
            "al\tice",
            "alice\n",
            "alice\r\nX: y",
            "\x00",
            "ali\x00ce",
            "alice\x7f",
        ),
        *("a/b", "a\\b", "/", "..", "a..b", ".", "a%2fb", "a?b", "a#b", "a,b", "a;b", 'a"b', "<b>", "$(id)", "`id`"),
        *("-rf", "1st", "@example.org", "a" * 65, "a" * 300, "a:b", "a|b", "a*"),
        *("ａｌｉｃｅ", "ﬁona", "\u212aate", "①", "e\u0301ve", "ali\u200bce", "alice\u202e", "аlice", "alıce"),
    ],
)
def test_a_name_that_would_have_to_be_bent_is_refused(claim: str) -> None:
    with pytest.raises(ClientFault) as caught:
        named(claim)
    assert (caught.value.code, caught.value.status) == ("username_refused", 403)


@pytest.mark.parametrize("claim", ["a/b", "..", "a\nb", "a b", "ａ", "", "x" * 256, ".", "a\u200bb", "a\u00a0b", "a=b"])
def test_no_pattern_of_a_site_lets_the_dangerous_in(claim: str) -> None:
    with pytest.raises(ClientFault, match="username_refused"):
        named(claim, UsernamePolicy(pattern="(?s).*", lowercase=False))


def test_a_mapping_must_lead_to_a_usable_name_too() -> None:
    with pytest.raises(ClientFault, match="username_refused"):
        named("x", UsernamePolicy(mapping={"x": "../root"}))


def test_a_missing_claim_is_told_by_its_name() -> None:
    with pytest.raises(ClientFault) as caught:
        identity_from_claims({"iss": ISSUER, "sub": "1"}, usernames=UsernamePolicy(claim="upn"), groups_claim="groups")
    assert caught.value.code == "username_refused"
    assert "upn" in caught.value.evidence["reason"]


@pytest.mark.parametrize("claim", ["iss", "sub", "preferred_username", "name", "email"])
@pytest.mark.parametrize("value", [1, True, ["alice"], {"a": 1}, 1.5])
def test_a_claim_of_another_type_is_refused(claim: str, value: object) -> None:
    with pytest.raises(ClientFault) as caught:
        person(**{claim: value})
    assert (caught.value.code, caught.value.status, dict(caught.value.evidence)) == (
        "claims_malformed",
        403,
        {"claim": claim},
    )


@pytest.mark.parametrize(
    ("path", "claims", "groups"),
    [
        ("groups", {}, ()),
        ("groups", {"groups": None}, ()),
        ("groups", {"groups": []}, ()),
        ("groups", {"groups": "atlas"}, ("atlas",)),
        (
            "groups",
            {"groups": ["/experiments/atlas", "with blank", "größe"]},
            ("/experiments/atlas", "with blank", "größe"),
        ),
        ("realm_access.roles", {"realm_access": {"roles": ["a"]}}, ("a",)),
        ("realm_access.roles", {"realm_access": "x"}, ()),
        ("https://example.org/groups", {"https://example.org/groups": ["a"]}, ("a",)),
    ],
)
def test_groups_are_found_by_name_or_path(path: str, claims: dict[str, Any], groups: tuple[str, ...]) -> None:
    assert person(groups_claim=path, **claims).groups == groups


@pytest.mark.parametrize("groups", [7, {"a": 1}, [7], [None], [""], ["a\nb"], [["a"]], "", "a\x00"])
def test_groups_of_another_shape_are_refused(groups: object) -> None:
    with pytest.raises(ClientFault, match="claims_malformed"):
        person(groups=groups)


ALICE = person(email="alice@Example.org", groups=["atlas"])
VERIFIED = {"email_verified": True, "identity_provider": "cern"}


@pytest.mark.parametrize(
    ("admission", "claims", "admitted"),
    [
        (Admission(), {}, True),
        (Admission(groups=("cms", "atlas")), {}, True),
        (Admission(groups=("cms",)), {}, False),
        (Admission(email_domains=("example.ORG",)), VERIFIED, True),
        (Admission(email_domains=("example.org",)), {}, False),
        (Admission(email_domains=("example.org",)), {"email_verified": "true"}, False),
        (Admission(email_domains=("example.org",)), {"email_verified": 1}, False),
        (Admission(email_domains=("ample.org", "org")), VERIFIED, False),
        (Admission(idps=("cern", "fnal")), VERIFIED, True),
        (Admission(idps=("fnal",)), VERIFIED, False),
        (Admission(idps=("fnal",)), {}, False),
        (Admission(idps=("cern",), idp_claim="idp"), VERIFIED, False),
        (Admission(groups=("atlas",), email_domains=("example.org",), idps=("cern",)), VERIFIED, True),
        (Admission(groups=("atlas",), email_domains=("example.org",), idps=("fnal",)), VERIFIED, False),
        (Admission(groups=("cms",), email_domains=("example.org",), idps=("cern",)), VERIFIED, False),
    ],
)
def test_each_restriction_must_be_met(admission: Admission, claims: dict[str, object], admitted: bool) -> None:
    if admitted:
        admit(ALICE, claims, admission)
        return
    with pytest.raises(ClientFault) as caught:
        admit(ALICE, claims, admission)
    assert (caught.value.code, caught.value.status) == ("login_not_allowed", 403)


@pytest.mark.parametrize(
    "email",
    ["", "example.org", "@example.org", "eve@evil.org@example.org", "eve@example.org.evil.org", "eve@xexample.org"],
)
def test_an_odd_address_is_in_no_domain(email: str) -> None:
    with pytest.raises(ClientFault, match="login_not_allowed"):
        admit(person(email=email), VERIFIED, Admission(email_domains=("example.org",)))


def test_records_survive_json() -> None:
    proof = Proof("mfa", ("pwd", "otp"), 1_800_000_000)
    assert Identity.from_record(json.loads(json.dumps(ALICE.as_record()))) == ALICE
    assert Proof.from_record(json.loads(json.dumps(proof.as_record()))) == proof
    assert hash(Identity.from_record(ALICE.as_record())) == hash(ALICE)


@given(st.text() | st.from_regex(DEFAULT_PATTERN, fullmatch=True) | st.from_regex("[A-Za-zÀ-ɏ]{1,9}", fullmatch=True))
def test_whatever_gets_through_is_canonical_and_stays_what_it_is(claim: str) -> None:
    try:
        name = named(claim)
    except ClientFault:
        return
    assert re.fullmatch(DEFAULT_PATTERN, name)
    assert named(name) == name == unicodedata.normalize("NFKC", claim).lower()


@given(st.text(min_size=1), st.text(min_size=1))
def test_two_names_become_one_by_case_alone(one: str, other: str) -> None:
    policy = UsernamePolicy(pattern=".*")
    try:
        same = named(one, policy) == named(other, policy)
    except ClientFault:
        return
    assert same == (one.lower() == other.lower())

"""What the golden vectors don't reach: ES256, key sets, the memory of logins, the moment of the hub's start."""

import json
import string

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm

from hubgate_hub import assertion
from hubgate_hub.assertion import Expectation, Refused, Seen
from tests.hub.signing import ISSUER, Gateway

NOW = 1_800_000_000
EXPECT = Expectation(issuer=ISSUER, audience="htc01")


def verified(gateway, token, *, use="login", now=NOW):
    kid = assertion.key_id(token)
    if kid != gateway.kid:
        raise Refused("unknown_key")
    return assertion.verify(token, assertion.parse_keys(gateway.jwks())[kid], expect=EXPECT, use=use, now=now)


def reason_of(call):
    with pytest.raises(Refused) as refused:
        call()
    return refused.value.reason


def test_es256_is_accepted():
    gateway = Gateway(algorithm="ES256")
    assert verified(gateway, gateway.assertion(now=NOW)).username == "alice"


def test_the_key_chooses_the_algorithm():
    one, other = Gateway(), Gateway(algorithm="ES256")
    token = other.assertion(now=NOW)  # names k1, which is an Ed25519 key here
    assert reason_of(lambda: verified(one, token)) == "wrong_alg"


def test_a_broken_es256_signature_is_no_crash():
    gateway = Gateway(algorithm="ES256")
    token = gateway.assertion(now=NOW)
    for broken in (token[:-4], token.rpartition(".")[0] + ".", token + "AAAA"):
        assert reason_of(lambda broken=broken: verified(gateway, broken)) in ("tampered", "malformed")


def test_no_single_character_can_be_changed():
    gateway = Gateway()
    token = gateway.assertion(now=NOW)
    said = verified(gateway, token)
    refused = 0
    for index, character in enumerate(token):
        for other in string.ascii_letters[index % 26 :: 26] + "-_.=\n ":
            if other == character:
                continue
            try:
                # The last character of a part has bits that mean nothing: a second spelling of the same octets.
                assert verified(gateway, token[:index] + other + token[index + 1 :]) == said
            except Refused:
                refused += 1
    assert refused > 7 * len(token)


@pytest.mark.parametrize("claim", ["use", "iss", "sub", "aud", "iat", "nbf", "exp", "jti", "sid", "amr", "groups"])
@pytest.mark.parametrize("value", [None, "", 0, 1.5, True, [], {}, [""], ["\ud800"], "\ud800", -1, 2**53], ids=ascii)
def test_a_claim_of_another_kind_is_refused(claim, value):
    gateway = Gateway()
    if (claim in ("amr", "groups") and value == []) or (claim == "nbf" and value == 0 and value is not False):
        assert verified(gateway, gateway.assertion(now=NOW, **{claim: value}))
    else:
        token = gateway.assertion(now=NOW, **{claim: value})
        assert reason_of(lambda: verified(gateway, token))


@pytest.mark.parametrize("claim", ["acr", "auth_time"])
def test_optional_claims_are_of_their_kind_or_absent(claim):
    gateway = Gateway()
    assert getattr(verified(gateway, gateway.assertion(now=NOW, **{claim: None})), claim) is None
    for value in ("", [], {"a": 1}, 1.5):
        token = gateway.assertion(now=NOW, **{claim: value})
        assert reason_of(lambda token=token: verified(gateway, token)) in ("malformed", "times_malformed")


def test_empty_profile_claims_are_as_good_as_none():
    gateway = Gateway()
    found = verified(gateway, gateway.assertion(now=NOW, name="", email=""))
    assert (found.name, found.email) == (None, None)


def test_a_hub_without_a_name_or_gateway_accepts_nothing():
    gateway = Gateway(issuer="")
    token = gateway.assertion(audience="", now=NOW)
    key = assertion.parse_keys(gateway.jwks())["k1"]
    for expect in (Expectation("", ""), Expectation("", "htc01"), Expectation(ISSUER, "")):
        assert reason_of(lambda expect=expect: assertion.verify(token, key, expect=expect, use="login", now=NOW))


def test_deep_json_is_no_crash():
    gateway = Gateway()
    deep = jwt.utils.base64url_encode(b"[" * 9_000).decode()
    assert reason_of(lambda: assertion.key_id(f"{deep}.e30.AA")) == "malformed"
    signed = jwt.PyJWS().encode(
        b"[" * 9_000, gateway.private, "EdDSA", headers={"typ": "hubgate+jwt", "kid": gateway.kid}
    )
    assert reason_of(lambda: verified(gateway, signed)) == "malformed"


def test_the_start_of_the_hub():
    """Only an `iat` of a later second is surely later."""
    gateway = Gateway()
    found = verified(gateway, gateway.assertion(now=NOW))
    assertion.check_fresh(found, started=NOW - 0.001)
    for started in (NOW, NOW + 0.999, NOW + 60):
        assert reason_of(lambda started=started: assertion.check_fresh(found, started=started)) == "before_start"


class TestKeySets:
    def test_what_is_not_for_us_is_passed_over(self):
        ed, ec = Gateway(kid="ed"), Gateway(kid="ec", algorithm="ES256")
        rsa_key = json.loads(RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 2048).public_key()))
        private = json.loads(OKPAlgorithm.to_jwk(Gateway().private))
        others = [
            {**rsa_key, "kid": "rsa"},
            {**ed.jwk, "kid": "encrypts", "use": "enc"},
            {**ed.jwk, "kid": "other-alg", "alg": "Ed448"},
            {**private, "kid": "private"},
            {**ed.jwk, "kid": ""},
            {**ed.jwk, "kid": 7},
            {**ed.jwk, "kid": "no-x", "x": ""},
            {**ed.jwk, "kid": "x25519", "crv": "X25519"},
            {**ed.jwk, "kid": "lists", "kty": ["OKP"], "crv": ["Ed25519"]},
            {"kty": "oct", "k": "c2VjcmV0", "kid": "hmac"},
            "not a key",
            ec.jwk,
        ]
        keys = assertion.parse_keys(ed.jwks(*others))
        assert {kid: key.algorithm for kid, key in keys.items()} == {"ed": "EdDSA", "ec": "ES256"}

    def test_of_two_keys_with_one_name_the_first_counts(self):
        first, second = Gateway(), Gateway()
        keys = assertion.parse_keys(first.jwks(second.jwk))
        token = second.assertion(now=NOW)
        assert reason_of(lambda: assertion.verify(token, keys["k1"], expect=EXPECT, use="login", now=NOW)) == "tampered"

    @pytest.mark.parametrize(
        "document",
        [b"", b"null", b"[]", b'{"keys": []}', b'{"keys": 7}', b"{}", b'{"keys": [{}]}', b"\xff", b"[" * 100_000],
        ids=lambda document: ascii(document[:20]),
    )
    def test_no_usable_key_is_a_fault(self, document):
        with pytest.raises(ValueError, match="JWK Set"):
            assertion.parse_keys(document)


class TestSeen:
    def found(self, jti, *, now=NOW, lifetime=60):
        gateway = Gateway()
        return verified(gateway, gateway.assertion(now=now, jti=jti, exp=now + lifetime), now=now)

    def test_remembers_for_as_long_as_it_could_be_accepted(self):
        seen = Seen()
        found = self.found("j", lifetime=10)
        seen.use_up(found, now=NOW)
        last = found.expires_at + assertion.SKEW - 0.001
        for now in (NOW, NOW + 7, last):
            assert reason_of(lambda now=now: seen.use_up(found, now=now)) == "replayed"

    def test_forgets_what_is_over(self):
        seen = Seen()
        for number in range(50):
            seen.use_up(self.found(f"early-{number}"), now=NOW)
        late = NOW + assertion.LONGEST + assertion.SKEW
        seen.use_up(self.found("late", now=late), now=late)
        assert len(seen) == 1

    def test_full_means_no_rather_than_forgetting(self):
        seen = Seen(limit=3)
        kept = [self.found(f"j{number}") for number in range(3)]
        for found in kept:
            seen.use_up(found, now=NOW)
        assert reason_of(lambda: seen.use_up(self.found("one-more"), now=NOW + 1)) == "too_many_logins"
        for found in kept:
            assert reason_of(lambda found=found: seen.use_up(found, now=NOW + 1)) == "replayed"
        late = NOW + assertion.LONGEST + assertion.SKEW
        seen.use_up(self.found("one-more", now=late), now=late)

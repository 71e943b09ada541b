"""A login is believed only when every part of it is ours, fresh and as strong as demanded."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from hubgate.core import oidc
from hubgate.core.identity import Proof
from hubgate.core.oidc import Expectations, LoginAttempt
from hubgate.errors import ClientFault, HubgateFault, ProviderFault

ISSUER = "https://id.example.org/realms/site"
NOW = 1_800_000_000
EXPECT = Expectations(issuer=ISSUER, client_id="hubgate", nonce="n-1", skew=30, acr="mfa", amr=("otp", "hwk"))
HEADER = {"alg": "RS256", "typ": "JWT", "kid": "k"}
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "sub": "f:1:alice",
    "aud": "hubgate",
    "azp": "hubgate",
    "exp": NOW + 60,
    "iat": NOW,
    "nonce": "n-1",
    "typ": "ID",
    "acr": "mfa",
    "amr": ["pwd", "otp"],
    "auth_time": NOW - 10,
}
RSA, RSA_OTHER = RSAKey.generate_key(2048, {"kid": "rsa"}), RSAKey.generate_key(2048, {"kid": "other"})


def check(
    expect: Expectations = EXPECT,
    header: dict[str, Any] = HEADER,
    *without: str,
    access_token: str | None = None,
    **said: Any,
) -> Proof:
    claims = {claim: value for claim, value in (CLAIMS | said).items() if claim not in without}
    return oidc.check_id_token(claims, header, expect=expect, access_token=access_token, now=NOW)


def reason(fault: pytest.ExceptionInfo[HubgateFault]) -> str:
    return fault.value.evidence["reason"]


# --- The ID token


def test_a_good_token_proves_the_login() -> None:
    assert check() == Proof("mfa", ("pwd", "otp"), NOW - 10)


@pytest.mark.parametrize(
    "said",
    [
        {"aud": ["hubgate"]},
        {"aud": ["hubgate", "account"]},
        {"exp": NOW - 29},
        {"iat": NOW + 30, "nbf": NOW + 30},
        {"exp": NOW + 0.5, "iat": NOW - 0.5},
        {"auth_time": NOW + 30},
        {"sub": "x" * 255},
        {"extra": {"deep": [1]}},
    ],
)
def test_what_is_allowed(said: dict[str, Any]) -> None:
    assert check(**said).acr == "mfa"


@pytest.mark.parametrize("claim", ["azp", "typ", "auth_time", "at_hash"])
def test_what_may_be_missing(claim: str) -> None:
    assert check(EXPECT, HEADER, claim, access_token="a").acr == "mfa"


@pytest.mark.parametrize("claim", ["iss", "sub", "aud", "exp", "iat", "nonce"])
def test_what_may_not_be_missing(claim: str) -> None:
    with pytest.raises(ProviderFault) as caught:
        check(EXPECT, HEADER, claim)
    assert (caught.value.code, reason(caught)) == ("id_token_refused", claim)


@pytest.mark.parametrize(
    ("why", "said"),
    [
        *(("iss", {"iss": iss}) for iss in ("", ISSUER + "/", ISSUER.upper(), "http" + ISSUER[5:], [ISSUER], None)),
        *(("sub", {"sub": sub}) for sub in ("", " ", None, 7, ["alice"], "x" * 256, "a\nb", "a\x00")),
        *(
            ("aud", {"aud": aud})
            for aud in ("", "hub", "hubgate ", "account", [], ["account"], ["hubgate", 7], None, 7, {})
        ),
        *(("azp", {"azp": azp}) for azp in ("", "account", "hubgate ", 7, ["hubgate"])),
        ("azp", {"aud": ["hubgate", "account"], "azp": None}),
        ("azp", {"aud": ["hubgate", "account"], "azp": "account"}),
        *(("exp", {"exp": exp}) for exp in (None, str(NOW + 60), True, float("inf"), float("nan"), -1, 0, [NOW + 60])),
        *(("iat", {"iat": iat}) for iat in (None, str(NOW), True, float("-inf"), [NOW])),
        *(("nbf", {"nbf": nbf}) for nbf in (None, "", True, [NOW])),
        *(("expired", {"exp": exp}) for exp in (NOW - 30, NOW - 3600, 1)),
        *(("future", {"iat": iat}) for iat in (NOW + 31, NOW + 3600, 10**18)),
        ("future", {"nbf": NOW + 31}),
        *(("nonce", {"nonce": nonce}) for nonce in ("", "n-2", "n-1 ", None, 1, ["n-1"])),
        *(("typ", {"typ": typ}) for typ in ("Bearer", "Refresh", "Logout", "Offline", "", 7)),
        *(("acr", {"acr": acr}) for acr in (2, ["mfa"], {"mfa": 1}, None, True)),
        *(("amr", {"amr": amr}) for amr in ("otp", ["otp", 7], [""], {"otp": 1}, None, [["otp"]])),
        *(("auth_time", {"auth_time": time}) for time in (str(NOW), float(NOW), True, -1, None, [NOW])),
        *(("auth_time_future", {"auth_time": time}) for time in (NOW + 31, 10**18)),
    ],
)
def test_a_token_that_is_not_ours_is_refused(why: str, said: dict[str, Any]) -> None:
    with pytest.raises(ProviderFault) as caught:
        check(**said)
    assert (caught.value.code, reason(caught)) == ("id_token_refused", why)


@pytest.mark.parametrize("typ", ["at+jwt", "logout+jwt", "hubgate+jwt", "", 7])
def test_a_token_of_another_kind_is_refused_by_its_header(typ: object) -> None:
    with pytest.raises(ProviderFault) as caught:
        check(header=HEADER | {"typ": typ})
    assert reason(caught) == "typ"


@pytest.mark.parametrize(
    ("why", "said"),
    [
        *(("acr", {"acr": acr}) for acr in ("pwd", "", "MFA", "mfa ", "mfa mfa", "1", "0")),
        *(("amr", {"amr": amr}) for amr in ([], ["pwd"], ["OTP"], ["otp hwk"])),
    ],
)
def test_a_weaker_login_is_told_apart_from_a_broken_one(why: str, said: dict[str, Any]) -> None:
    with pytest.raises(ClientFault) as caught:
        check(**said)
    assert (caught.value.code, caught.value.status) == ("second_factor_missing", 403)
    assert caught.value.evidence == {"reason": why, "subject": "f:1:alice"}


@pytest.mark.parametrize("claim", ["acr", "amr"])
def test_a_login_of_unknown_strength_is_a_weaker_one(claim: str) -> None:
    with pytest.raises(ClientFault, match="second_factor_missing"):
        check(EXPECT, HEADER, claim)


def test_what_is_not_demanded_is_recorded_all_the_same() -> None:
    lax = Expectations(issuer=ISSUER, client_id="hubgate", nonce="n-1", skew=30)
    assert check(lax, acr="pwd", amr=["pwd"]) == Proof("pwd", ("pwd",), NOW - 10)
    assert check(lax, HEADER, "acr", "amr", "auth_time") == Proof("", (), 0)


def test_a_refreshed_token_needs_no_nonce() -> None:
    refreshed = Expectations(issuer=ISSUER, client_id="hubgate", nonce=None, skew=30)
    assert check(refreshed, HEADER, "nonce").acr == check(refreshed, nonce="old").acr == "mfa"


@pytest.mark.parametrize("said", [{"auth_time": NOW - 331}, {"auth_time": 0}, {"auth_time": 1}])
def test_a_login_older_than_max_age_is_refused(said: dict[str, Any]) -> None:
    fresh = Expectations(issuer=ISSUER, client_id="hubgate", nonce="n-1", skew=30, max_age=300)
    assert check(fresh, auth_time=NOW - 330)
    with pytest.raises(ProviderFault) as caught:
        check(fresh, **said)
    assert reason(caught) == "auth_time_stale"
    with pytest.raises(ProviderFault):
        check(fresh, HEADER, "auth_time")


@pytest.mark.parametrize(
    ("algorithm", "digest"), [("RS256", "sha256"), ("ES384", "sha384"), ("PS512", "sha512"), ("EdDSA", "sha512")]
)
def test_at_hash_is_checked_when_it_is_there(algorithm: str, digest: str) -> None:
    half = hashlib.new(digest, b"access").digest()
    at_hash = base64.urlsafe_b64encode(half[: len(half) // 2]).rstrip(b"=").decode()
    header = HEADER | {"alg": algorithm}
    assert check(header=header, access_token="access", at_hash=at_hash)
    assert check(header=header, access_token=None, at_hash="not asked")
    for wrong in (at_hash[:-1], at_hash + "=", "", None, 7, [at_hash], "é"):
        with pytest.raises(ProviderFault) as caught:
            check(header=header, access_token="access", at_hash=wrong)
        assert reason(caught) == "at_hash"
    with pytest.raises(ProviderFault) as caught:
        check(header=header, access_token="another", at_hash=at_hash)
    assert reason(caught) == "at_hash"


def test_at_hash_of_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(ProviderFault) as caught:
        check(header={"alg": "HS256"}, access_token="a", at_hash="x")
    assert reason(caught) == "algorithm"


@given(
    st.dictionaries(
        st.sampled_from([*CLAIMS, "nbf", "at_hash"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text()),
        min_size=1,
    )
)
def test_nothing_but_our_own_faults_comes_out(said: dict[str, Any]) -> None:
    try:
        proof = oidc.check_id_token(CLAIMS | said, HEADER, expect=EXPECT, access_token="a", now=NOW)
    except HubgateFault as fault:
        assert fault.code in {"id_token_refused", "second_factor_missing"}  # noqa: PT017 - either outcome is fine
    else:
        assert (proof.acr, "otp" in proof.amr or "hwk" in proof.amr) == ("mfa", True)


# --- Keys and signatures


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forge(header: object, payload: bytes, signature: bytes = b"x") -> str:
    return ".".join(b64(part) for part in (json.dumps(header).encode(), payload, signature))


def signed(algorithm: str, key: Any, claims: object = CLAIMS, **header: Any) -> str:
    registry = JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    return jws.serialize_compact({"alg": algorithm, **header}, json.dumps(claims), key, registry=registry)


ALGORITHMS: dict[str, Any] = {
    **{f"{family}{bits}": RSA for family in ("RS", "PS") for bits in (256, 384, 512)},
    "ES256": ECKey.generate_key("P-256", {"kid": "p256"}),
    "ES384": ECKey.generate_key("P-384", {"kid": "p384"}),
    "ES512": ECKey.generate_key("P-521", {"kid": "p521"}),
    "EdDSA": OKPKey.generate_key("Ed25519", {"kid": "ed"}),
    "Ed25519": OKPKey.generate_key("Ed25519", {"kid": "ed2"}),
}
ALL = oidc.signature_keys(
    {"keys": [key.as_dict(private=False) for key in {key.kid: key for key in ALGORITHMS.values()}.values()]}
)


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated:UserWarning")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_asymmetric_algorithm_is_understood(algorithm: str) -> None:
    token = signed(algorithm, ALGORITHMS[algorithm], kid=ALGORITHMS[algorithm].kid)
    key = oidc.choose_key(ALL, oidc.token_header(token))
    assert key is not None
    assert oidc.verified_claims(token, key) == CLAIMS


@pytest.mark.filterwarnings("error")
def test_eddsa_is_used_without_a_warning() -> None:
    token = f"{b64(json.dumps({'alg': 'EdDSA', 'kid': 'ed'}).encode())}.{b64(json.dumps(CLAIMS).encode())}"
    key = ALGORITHMS["EdDSA"]
    signature = key.get_op_key("sign").sign(token.encode())
    assert oidc.verified_claims(f"{token}.{b64(signature)}", key) == CLAIMS


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "", "HS256", "HS512", "ES256K", "RSA-OAEP", "A128GCMKW", "dir", "x"]
)
def test_other_algorithms_are_refused_before_a_key_is_looked_for(algorithm: str) -> None:
    with pytest.raises(ProviderFault) as caught:
        oidc.token_header(forge({"alg": algorithm, "kid": "rsa"}, b"{}"))
    assert reason(caught) == "algorithm"


def test_the_public_key_as_a_secret_is_refused() -> None:
    pem = RSA.as_pem(private=False)
    head = f"{b64(json.dumps({'alg': 'HS256', 'kid': 'rsa'}).encode())}.{b64(json.dumps(CLAIMS).encode())}"
    token = f"{head}.{b64(hmac.digest(pem, head.encode(), 'sha256'))}"
    with pytest.raises(ProviderFault) as caught:
        oidc.verified_claims(token, RSA)
    assert reason(caught) == "algorithm"


@pytest.mark.parametrize(
    "token",
    [
        *("", ".", "..", "...", "a.b", "a.b.c", "a.b.c.d.e", "é.é.é", "\x00", " ", "[]", "{}"),
        forge([], b"{}"),
        forge("RS256", b"{}"),
        forge({}, b"{}"),
        forge({"alg": ["RS256"]}, b"{}"),
        forge({"alg": 7}, b"{}"),
        forge({"alg": "RS256", "kid": 7}, b"{}"),
        forge({"alg": "RS256", "crit": ["x"], "x": 1}, b"{}"),
        forge({"alg": "RS256", "crit": "x"}, b"{}"),
        f"{b64(b'[' * 9000)}.e30.eA",
        forge({"alg": "RS256", "kid": "x" * 2000}, b"{}"),
    ],
)
def test_what_is_no_signed_token_is_refused(token: str) -> None:
    with pytest.raises(ProviderFault) as caught:
        oidc.token_header(token)
    assert (caught.value.code, reason(caught)) == ("id_token_refused", "malformed")


def test_a_huge_token_is_not_even_parsed() -> None:
    with pytest.raises(ProviderFault) as caught:
        oidc.token_header("." * (oidc.LARGEST_TOKEN + 1))
    assert reason(caught) == "too_large"


def test_unknown_header_parameters_are_ignored_unless_critical() -> None:
    assert oidc.verified_claims(signed("RS256", RSA, new=1), RSA) == CLAIMS


@pytest.mark.parametrize(
    ("why", "token"),
    [
        ("signature", signed("RS256", RSA_OTHER)),
        ("signature", signed("RS256", RSA)[:-3]),
        ("signature", signed("RS256", RSA).rpartition(".")[0] + "."),
        ("signature", signed("ES256", ALGORITHMS["ES256"])),
        ("malformed", signed("RS256", RSA, [CLAIMS])),
        ("malformed", signed("RS256", RSA, "text")),
        ("malformed", signed("RS256", RSA, b64=False, crit=["b64"])),
    ],
)
def test_what_this_key_did_not_sign_is_refused(why: str, token: str) -> None:
    with pytest.raises(ProviderFault) as caught:
        oidc.verified_claims(token, RSA)
    assert (caught.value.code, reason(caught)) == ("id_token_refused", why)


@pytest.mark.parametrize("payload", [b"", b"{", b"[" * 6000, b"\xff", b"9" * 5000])
def test_signed_nonsense_is_refused(payload: bytes) -> None:
    token = jws.serialize_compact({"alg": "RS256"}, payload, RSA, algorithms=["RS256"])
    with pytest.raises(ProviderFault) as caught:
        oidc.verified_claims(token, RSA)
    assert reason(caught) == "malformed"


def test_an_elliptic_key_of_another_curve_does_not_fit() -> None:
    with pytest.raises(ProviderFault) as caught:
        oidc.verified_claims(signed("ES256", ALGORITHMS["ES256"]), ALGORITHMS["ES384"])
    assert reason(caught) == "signature"


@pytest.mark.filterwarnings("ignore:Key size should be:UserWarning")
def test_keys_that_are_not_for_us_are_left_out_of_the_set() -> None:
    public = RSA.as_dict(private=False)
    jwks = {
        "keys": [
            *(
                7,
                None,
                [],
                "x",
                {},
                {"kty": "RSA"},
                {"kty": "new"},
                {"kty": ["RSA"]},
                {"kty": "RSA", "n": "!", "e": "AQAB"},
            ),
            public | {"use": "enc", "kid": "for encryption"},
            OctKey.generate_key(256).as_dict(),
            RSAKey.generate_key(1024).as_dict(private=False),
            OKPKey.generate_key("X25519").as_dict(private=False),
            OKPKey.generate_key("Ed448").as_dict(private=False),
            public | {"x5c": ["garbage"], "x5t": 7, "key_ops": ["verify"], "use": "sig", "alg": "RS256", "unknown": 1},
        ]
    }
    assert [key.kid for key in oidc.signature_keys(jwks)] == ["rsa"]


@pytest.mark.parametrize("jwks", [None, [], "x", {}, {"keys": None}, {"keys": {}}, {"keys": []}])
def test_no_set_has_no_keys(jwks: object) -> None:
    assert oidc.signature_keys(jwks) == ()


@pytest.mark.parametrize(
    ("header", "kid"),
    [
        ({"alg": "RS256", "kid": "rsa"}, "rsa"),
        ({"alg": "RS256", "kid": "unknown"}, None),
        ({"alg": "RS256", "kid": ""}, None),
        ({"alg": "ES256", "kid": "rsa"}, None),
        ({"alg": "RS256"}, "rsa"),
        ({"alg": "EdDSA"}, None),  # two fit: which one can't be known
    ],
)
def test_a_key_is_chosen_by_name_or_for_being_the_only_one(header: dict[str, str], kid: str | None) -> None:
    key = oidc.choose_key(ALL, header)
    assert (key.kid if key else None) == kid


def test_a_key_made_for_another_algorithm_is_not_chosen() -> None:
    keys = oidc.signature_keys({"keys": [RSA.as_dict(private=False) | {"alg": "PS256"}]})
    assert oidc.choose_key(keys, {"alg": "RS256", "kid": "rsa"}) is None
    assert oidc.choose_key(keys, {"alg": "PS256", "kid": "rsa"}) is not None


# --- The callback


def test_parameters_are_read_as_they_were_sent() -> None:
    assert oidc.callback_params("state=s&code=a%2Bb+c&session_state=&iss=" + ISSUER) == {
        "state": "s",
        "code": "a+b c",
        "session_state": "",
        "iss": ISSUER,
    }


@pytest.mark.parametrize(
    ("why", "query"),
    [
        ("duplicate", "code=1&code=2"),
        ("duplicate", "code=1&state=s&c%6fde=1"),
        ("duplicate", "state=&state="),
        ("not_parseable", "code=%ff"),
        ("not_parseable", "&".join(f"p{n}=1" for n in range(40))),
        ("too_long", "code=" + "x" * 20_000),
    ],
)
def test_ambiguous_or_outsized_queries_are_refused(why: str, query: str) -> None:
    with pytest.raises(ClientFault) as caught:
        oidc.callback_params(query)
    assert (caught.value.code, caught.value.status, reason(caught)) == ("callback_malformed", 400, why)


def code_from(params: dict[str, str], iss_required: bool = True) -> str:
    return oidc.authorization_code(params, issuer=ISSUER, iss_required=iss_required)


def test_the_code_is_taken_from_this_provider_alone() -> None:
    assert code_from({"code": "c", "iss": ISSUER}) == code_from({"code": "c"}, iss_required=False) == "c"


@pytest.mark.parametrize(
    ("why", "params"),
    [
        ("wrong_issuer", {"code": "c", "iss": "https://evil.example.org"}),
        ("wrong_issuer", {"code": "c", "iss": ""}),
        ("wrong_issuer", {"error": "access_denied", "iss": ISSUER + "/"}),
        ("issuer_missing", {"code": "c"}),
        ("issuer_missing", {"error": "access_denied"}),
        ("code_missing", {"iss": ISSUER}),
        ("code_missing", {"code": "", "iss": ISSUER}),
        ("code_and_error", {"code": "c", "error": "", "iss": ISSUER}),
    ],
)
def test_an_answer_of_nobody_or_somebody_else_is_refused(why: str, params: dict[str, str]) -> None:
    with pytest.raises(ClientFault) as caught:
        code_from(params)
    assert (caught.value.code, reason(caught)) == ("callback_malformed", why)


def test_a_wrong_issuer_is_refused_where_none_is_needed_too() -> None:
    with pytest.raises(ClientFault, match="callback_malformed"):
        code_from({"code": "c", "iss": "https://evil.example.org"}, iss_required=False)


@pytest.mark.parametrize(
    ("error", "code", "status", "slug"),
    [
        ("access_denied", "login_denied", 403, "access_denied"),
        ("temporarily_unavailable", "login_restart", 400, "temporarily_unavailable"),
        ("authentication_expired", "login_restart", 400, "authentication_expired"),
        ("login_required", "login_restart", 400, "login_required"),
        ("interaction_required", "login_restart", 400, "interaction_required"),
        ("unmet_authentication_requirements", "second_factor_missing", 403, "unmet_authentication_requirements"),
        ("invalid_scope", "provider_error", 502, "invalid_scope"),
        ("", "provider_error", 502, "unknown"),
        ("<script>alert(1)</script>", "provider_error", 502, "unknown"),
        ("x\r\ny", "provider_error", 502, "unknown"),
        ("x" * 99, "provider_error", 502, "unknown"),
    ],
)
def test_errors_of_the_provider_are_told_without_being_repeated(error: str, code: str, status: int, slug: str) -> None:
    with pytest.raises(HubgateFault) as caught:
        code_from({"error": error, "error_description": "<b>secret</b>", "iss": ISSUER})
    fault = caught.value
    assert (fault.code, fault.status, dict(fault.evidence)) == (code, status, {"error": slug})
    assert "secret" not in f"{fault!r}{fault}"


def test_error_slugs_of_anything_are_slugs() -> None:
    assert [oidc.error_slug(error) for error in ("invalid_grant", None, 7, ["a"])] == [
        "invalid_grant",
        *["unknown"] * 3,
    ]


# --- Where to go afterwards

HOSTS = ("jupyter.example.org", "htc.example.org:8443")


@pytest.mark.parametrize(
    "value",
    [
        "/",
        "/htc/",
        "/htc/user/alice/lab/tree/a%2Fb%20c.ipynb?reset&x=1+2#cell=3",
        "/htc/user/alice/files/100%25.txt",
        "/htc//double",
        "/htc/a:b@c;d=e,f!$&'()*+",
        "/htc/hub/user-redirect/lab?next=%2F%2Fevil.example.org",
        "/htc/?u=https://evil.example.org//../x%0d%0a",
        "/htc/...three",
        "/htc/.hidden/..two/x..",
        "/#//evil.example.org",
    ],
)
def test_a_path_on_this_site_is_kept_to_the_byte(value: str) -> None:
    assert oidc.safe_next(value, own_hosts=HOSTS) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://jupyter.example.org/htc/?a#b", "/htc/?a#b"),
        ("HTTPS://Jupyter.Example.ORG/htc/", "/htc/"),
        ("http://htc.example.org:8443/x", "/x"),
        ("https://jupyter.example.org", "/"),
        ("https://jupyter.example.org?x", "/"),
        ("/htc/größe x", "/htc/gr%C3%B6%C3%9Fe%20x"),
        ('/htc/"<>`{|}^', "/htc/%22%3C%3E%60%7B%7C%7D%5E"),
    ],
)
def test_what_else_is_brought_into_that_form(value: str, expected: str) -> None:
    assert oidc.safe_next(value, own_hosts=HOSTS) == expected


EVIL = [
    *(None, "", " ", "htc/", "?x", "#x", ".", "..", "evil.example.org", "@evil.example.org", ":80", " /htc/"),
    *(
        "//evil.example.org",
        "///evil.example.org",
        "////evil.example.org/",
        "//evil.example.org/..",
        "//",
        "//evil%2eorg",
    ),
    *(
        "/\\evil.example.org",
        "\\\\evil.example.org",
        "\\/evil.example.org",
        "/\\/evil.example.org",
        "/htc\\..\\x",
        "/\\\\x",
    ),
    *(
        "/\t/evil.example.org",
        "/\n/evil.example.org",
        "/\r//evil.example.org",
        "\t//evil.example.org",
        "/\x0b/evil.org",
    ),
    *(
        "/%09/evil.example.org",
        "/%0a/evil.example.org",
        "/%5cevil.example.org",
        "/%5C%5Cevil.example.org",
        "/%2f/evil.org",
    ),
    *("/%2fevil.example.org", "/%2F%2Fevil.example.org", "/%252fevil.example.org", "/%255cevil.org", "%2f%2fevil.org"),
    *(
        "/.//evil.example.org",
        "/..//evil.example.org",
        "/x/../..//evil.example.org",
        "/%2e%2e//evil.org",
        "/%2e/%2fevil.org",
    ),
    *(
        "/./x",
        "/../x",
        "/htc/..",
        "/htc/.",
        "/htc/..;/x",
        "/htc/..;a=b/x",
        "/htc/%2e%2e/x",
        "/htc/%252e%252e/x",
        "/%2e",
    ),
    *(
        "http:evil.example.org",
        "https:/evil.example.org",
        "https:///evil.example.org",
        "http:///x",
        "https:\\\\evil.org",
    ),
    *(
        "https://evil.example.org/",
        "https://jupyter.example.org@evil.example.org/",
        "https://evil.org#jupyter.example.org",
    ),
    *(
        "https://jupyter.example.org.evil.org/",
        "https://evil.org?https://jupyter.example.org/",
        "https://jupyter.example.org:8/",
    ),
    *(
        "https://jupyter.example.org\\@evil.org/",
        "https://jupyter.example.org//evil.org",
        "https://jupyter.example.org/..//x",
    ),
    *(
        "https://htc.example.org/",
        "https://jupyter。example。org/",
        "https://ｊupyter.example.org/",
        "//jupyter.example.org/x",
    ),
    *(
        "javascript:alert(1)",
        "JaVaScRiPt://jupyter.example.org/%0aalert(1)",
        "data:text/html,x",
        "vbscript:x",
        "blob:x",
    ),
    *(
        "ftp://jupyter.example.org/",
        "file:///etc/passwd",
        "//google%E3%80%82com",
        "ws://jupyter.example.org/",
        "java\tscript:x",
    ),
    *(
        "/htc/%0d%0aSet-Cookie:%20x=y",
        "/htc/\r\nSet-Cookie: x=y",
        "/htc/%00",
        "/\x00",
        "/htc/%250a",
        "/htc/\u0085",
        "/\ud800",
    ),
    "/" + "x" * 5000,
]


@pytest.mark.parametrize("value", EVIL)
def test_everything_else_leads_home(value: str | None) -> None:
    assert oidc.safe_next(value, own_hosts=HOSTS) == "/"


@given(st.text(alphabet="/\\.;:@?#%25cfeF09 \t\nabhtps") | st.text())
def test_no_browser_is_led_away(value: str) -> None:
    target = oidc.safe_next(value, own_hosts=HOSTS)
    assert target.startswith("/")
    assert target.isascii()
    assert target.isprintable()
    assert " " not in target
    assert "\\" not in target
    # What a browser makes of it (RFC 3986, 5.2), and once more of what it has made.
    for _ in range(2):
        resolved = urlsplit(urljoin("https://jupyter.example.org/_hubgate/callback", target))
        assert resolved.netloc == "jupyter.example.org"
        target = resolved._replace(scheme="", netloc="").geturl()
    assert oidc.safe_next(target, own_hosts=HOSTS) in {target, "/"}


# --- Records


def test_an_attempt_survives_the_store_and_keeps_its_secrets() -> None:
    attempt = LoginAttempt("state-1", "nonce-1", "verifier-1", "https://x/cb", "/htc/", "browser-1", NOW, 2)
    assert LoginAttempt.from_record(json.loads(json.dumps(attempt.as_record()))) == attempt
    assert not any(secret in repr(attempt) for secret in ("state-1", "nonce-1", "verifier-1", "browser-1"))

from __future__ import annotations

import hashlib
import hmac
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubgate.core.keyring import Keyring

OLD = b"an old secret of the site, 32 by"
NEW = b"a newer one, of more than thirty-two bytes"

secrets = st.binary(min_size=32, max_size=64)
purposes = st.text(max_size=20)


def hkdf(secret: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869, written out, for at most one block."""
    key = hmac.digest(b"hubgate keyring 1", secret, "sha256")
    return hmac.digest(key, info + b"\x01", "sha256")[:length]


def test_golden_vectors() -> None:
    """A change of any of these logs everybody out, and hubs that cached our public keys refuse our assertions."""
    keyring = Keyring([OLD, NEW])
    assert [(key.id.hex(), key.key.hex()) for key in keyring.sealing_keys("session")] == [
        ("4b25b97e", "7139704799a639570c77dff7f284bfdbcebd0f107193eca84cec681a4e2b9e22"),
        ("db260cc0", "6eaad74cbda35693535084cc92fd311266c7dfcb54d1a647e461af07294573f5"),
    ]
    assert keyring.mac("cookie", b"message").hex() == "efe388bffe301c2b277f20a1242a8b5816ef3ddab835fe4661781825278c7975"
    assert (
        Keyring([OLD]).mac("cookie", b"message").hex()
        == "fdc032a8989f627633ad832a79d5f4419462de6b15d3f86c7fc335dd072aa911"
    )
    assert [seed.hex() for seed in keyring.signing_seeds()] == [
        "6e31b8ec2687114799d914202855eadcf47fe1a596682c2889e2417e8f9c935f",
        "9ce0f2f5ec976be4f555d47f340ce9a9802a038bff2fbf03508876ec9e8e1c70",
    ]


@given(secret=secrets, purpose=purposes)
def test_the_derivation_is_rfc_5869(secret: bytes, purpose: str) -> None:
    keyring = Keyring([secret])
    (sealing,) = keyring.sealing_keys(purpose)
    assert sealing.id == hkdf(secret, b"seal-id:" + purpose.encode(), 4)
    assert sealing.key == hkdf(secret, b"seal:" + purpose.encode(), 32)
    mac_key = hkdf(secret, b"mac:" + purpose.encode(), 32)
    assert keyring.mac(purpose, b"m") == hmac.new(mac_key, b"m", hashlib.sha256).digest()
    assert keyring.signing_seeds() == (hkdf(secret, b"sign:assertion", 32),)


@given(secret=secrets, names=st.lists(purposes, min_size=2, max_size=5, unique=True))
def test_each_purpose_has_keys_of_its_own(secret: bytes, names: list[str]) -> None:
    keyring = Keyring([secret])
    keys = [keyring.sealing_keys(name)[0].key for name in names]
    keys += [hkdf(secret, b"mac:" + name.encode(), 32) for name in names]
    keys += keyring.signing_seeds()
    assert all(one != other for one, other in combinations([*keys, secret], 2))
    tags = [keyring.mac(name, b"message") for name in names]
    for name, own in zip(names, tags, strict=True):
        assert [keyring.mac_matches(name, b"message", tag) for tag in tags] == [tag == own for tag in tags]


@given(listed=st.lists(secrets, min_size=1, max_size=4, unique=True), message=st.binary(max_size=100))
def test_rotation(listed: list[bytes], message: bytes) -> None:
    """What any secret of the list made is accepted; what is made is made by the last one."""
    keyring = Keyring(listed)
    for place, secret in enumerate(listed):
        alone = Keyring([secret])
        assert keyring.sealing_keys("p")[place] == alone.sealing_keys("p")[0]
        assert keyring.signing_seeds()[place] == alone.signing_seeds()[0]
        assert keyring.mac_matches("p", message, alone.mac("p", message))
    assert keyring.mac("p", message) == Keyring(listed[-1:]).mac("p", message)


def test_two_reloads_rotate_without_an_interruption() -> None:
    """Two gateways reload one after the other; at every moment each accepts what the other makes."""
    before, added, moved, after = Keyring([OLD]), Keyring([NEW, OLD]), Keyring([OLD, NEW]), Keyring([NEW])
    for one, other in ((before, added), (added, moved), (moved, after)):
        assert other.mac_matches("p", b"m", one.mac("p", b"m"))
    for one, other in ((added, before), (moved, added), (after, moved)):
        assert other.mac_matches("p", b"m", one.mac("p", b"m"))
    assert not before.mac_matches("p", b"m", after.mac("p", b"m"))


@given(message=st.binary(max_size=50), other=st.binary(max_size=50), bit=st.integers(0, 255))
def test_a_tag_is_for_its_message_alone(message: bytes, other: bytes, bit: int) -> None:
    keyring = Keyring([OLD, NEW])
    tag = keyring.mac("p", message)
    assert keyring.mac_matches("p", other, tag) == (other == message)
    flipped = (int.from_bytes(tag) ^ (1 << bit)).to_bytes(32)
    assert not keyring.mac_matches("p", message, flipped)


def test_a_tag_may_be_cut_but_not_below_sixteen_bytes() -> None:
    keyring = Keyring([OLD, NEW])
    tag = Keyring([OLD]).mac("p", b"m")
    accepted = [length for length in range(len(tag) + 1) if keyring.mac_matches("p", b"m", tag[:length])]
    assert accepted == list(range(16, 33))
    assert not keyring.mac_matches("p", b"m", tag + b"\x00")
    assert not keyring.mac_matches("p", b"m", tag[1:])


@pytest.mark.parametrize(
    ("listed", "complaint"),
    [
        ([], "at least one"),
        ([b""], "secret 1 of 1 has 0 bytes"),
        ([OLD, NEW[:31]], "secret 2 of 2 has 31 bytes, at least 32"),
        ([OLD, NEW, OLD], "listed twice"),
    ],
)
def test_what_is_no_keyring(listed: list[bytes], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        Keyring(listed)
    assert NEW[:31].decode() not in str(caught.value)


def test_nothing_shows_a_secret() -> None:
    keyring = Keyring([OLD, NEW])
    (_, key) = keyring.sealing_keys("p")
    shown = f"{keyring!r} {key!r} {keyring.sealing_keys('p')}"
    for hidden in (OLD, NEW, key.key):
        assert repr(hidden)[2:-1] not in shown
        assert hidden.hex() not in shown
    assert repr(keyring) == "Keyring(2 secrets)"

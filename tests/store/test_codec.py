"""A sealed record opens where it was put, unchanged, by those who have the secret; and tells nobody else anything."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubgate.core.keyring import Keyring
from hubgate.errors import StoreFault
from hubgate.store.codec import JSON, Sealer, Tampered, UnknownKey

OLD = b"an old secret of the site, 32 by"
NEW = b"a newer one, of more than thirty-two bytes"

json_values: st.SearchStrategy[JSON] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
records = st.dictionaries(st.text(), json_values, max_size=5)
any_text = st.text(alphabet=st.characters(codec="utf-8") | st.sampled_from("\ud800\udc80"), max_size=20)

SEALED = Sealer(Keyring([OLD]), "session").seal("key", {"user": "alice", "refresh_token": "a token"})


def sealer(*secrets: bytes, purpose: str = "session") -> Sealer:
    return Sealer(Keyring(secrets or (OLD,)), purpose)


@given(key=any_text, record=records)
def test_what_was_sealed_opens(key: str, record: dict[str, JSON]) -> None:
    assert sealer().open(key, sealer().seal(key, record)) == record


def test_tuples_come_back_as_lists() -> None:
    assert sealer().open("k", sealer().seal("k", {"groups": ("a", "b")})) == {"groups": ["a", "b"]}


@pytest.mark.parametrize("record", [{"x": float("nan")}, {"x": float("inf")}, {"x": b"bytes"}, {"x": {1, 2}}])
def test_what_is_not_json_is_refused(record: dict[str, JSON]) -> None:
    with pytest.raises((ValueError, TypeError)):
        sealer().seal("k", record)


@given(words=st.lists(st.text(alphabet="abcdefghij", min_size=6), min_size=1, max_size=5))
def test_a_sealed_record_shows_nothing_of_itself(words: list[str]) -> None:
    sealed = sealer().seal("the record key", {word: word for word in words})
    for hidden in (*words, "the record key", "session"):
        assert hidden.encode() not in sealed
    assert OLD not in sealed


def test_no_two_are_alike() -> None:
    assert len({sealer().seal("k", {"a": 1}) for _ in range(500)}) == 500
    assert len({sealer().seal("k", {"a": 1})[5:17] for _ in range(500)}) == 500


@given(place=st.integers(0, len(SEALED) - 1), value=st.integers(1, 255))
def test_tampering_at_any_byte_is_noticed(place: int, value: int) -> None:
    """In front stand version and key id: what they don't name, nobody here can open, and that is no missing session."""
    forged = bytearray(SEALED)
    forged[place] ^= value
    with pytest.raises(UnknownKey if place < 5 else Tampered):
        sealer().open("key", bytes(forged))


def test_every_byte_counts() -> None:
    for place in range(len(SEALED)):
        forged = bytearray(SEALED)
        forged[place] ^= 1
        with pytest.raises(StoreFault):
            sealer().open("key", bytes(forged))


@given(length=st.integers(0, len(SEALED) - 1), more=st.binary(max_size=5))
def test_neither_cut_nor_longer(length: int, more: bytes) -> None:
    with pytest.raises(StoreFault):
        sealer().open("key", SEALED[:length])
    if more:
        with pytest.raises(Tampered):
            sealer().open("key", SEALED + more)


@given(garbage=st.binary(max_size=200))
def test_garbage_is_a_store_fault(garbage: bytes) -> None:
    with pytest.raises((Tampered, UnknownKey)):
        sealer().open("key", garbage)


@given(here=any_text, there=any_text)
def test_a_record_opens_only_under_its_own_key(here: str, there: str) -> None:
    sealed = sealer().seal(here, {"user": "alice"})
    if here == there:
        assert sealer().open(there, sealed) == {"user": "alice"}
    else:
        with pytest.raises(Tampered):
            sealer().open(there, sealed)


def test_a_record_opens_only_for_its_own_purpose() -> None:
    sealed = sealer(purpose="login").seal("k", {"user": "alice"})
    with pytest.raises(UnknownKey):
        sealer(purpose="session").open("k", sealed)


def test_purpose_and_key_do_not_run_into_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even with one key for all purposes, "ab" and "c" are not "a" and "bc"."""
    same = Keyring([OLD]).sealing_keys("one")
    monkeypatch.setattr(Keyring, "sealing_keys", lambda *_: same)
    sealed = sealer(purpose="ab").seal("c", {})
    with pytest.raises(Tampered):
        sealer(purpose="a").open("bc", sealed)
    assert sealer(purpose="ab").open("c", sealed) == {}


def test_the_newest_secret_seals_and_any_opens() -> None:
    old, rotated, new = sealer(OLD), sealer(OLD, NEW), sealer(NEW)
    assert rotated.open("k", old.seal("k", {"a": 1})) == {"a": 1}
    assert new.open("k", rotated.seal("k", {"a": 1})) == {"a": 1}
    assert sealer(NEW, OLD).open("k", rotated.seal("k", {"a": 1})) == {"a": 1}


def test_an_unknown_secret_is_never_no_session() -> None:
    with pytest.raises(UnknownKey) as caught:
        sealer(OLD).open("k", sealer(OLD, NEW).seal("k", {"a": 1}))
    assert caught.value.status == 503
    assert caught.value.code == "store_unknown_key"
    assert "secret_keys" in caught.value.message


def test_a_newer_format_is_never_no_session() -> None:
    with pytest.raises(UnknownKey, match="same version"):
        sealer().open("key", b"\x02" + SEALED[1:])


def test_keys_that_share_an_id_are_all_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Keyring([OLD, NEW]).sealing_keys("session")
    alike = tuple(type(key)(b"same", key.key) for key in real)
    monkeypatch.setattr(Keyring, "sealing_keys", lambda *_: alike[:1])
    sealed = sealer().seal("k", {"a": 1})
    monkeypatch.setattr(Keyring, "sealing_keys", lambda *_: alike)
    assert sealer().open("k", sealed) == {"a": 1}
    assert sealer().open("k", sealer().seal("k", {"a": 2})) == {"a": 2}
    with pytest.raises(Tampered):
        sealer().open("other", sealed)


def test_the_format_is_a_promise() -> None:
    """A record that an earlier hubgate wrote; whoever can't open it logs everybody out with an update."""
    sealed = bytes.fromhex(
        "014b25b97e1420c2a106175fc86b7da8b01d1871516f888c70a215b933bdb6a85e392f6addb1f8a9b2f358c6d5"
        "0008863114d9623d1ae1b1cfa7403c5083893eaeeb45cde24b930ed3"
    )
    assert sealer().open("key", sealed) == {"user": "alice", "groups": ["a"], "at": 1.5}


def test_faults_and_reprs_show_neither_key_nor_record() -> None:
    for broken in (b"", SEALED[:-1], b"\x02" + SEALED[1:], SEALED[:1] + b"xxxx" + SEALED[5:]):
        with pytest.raises(StoreFault) as caught:
            sealer().open("the-record-key", broken)
        shown = f"{caught.value!r} {caught.value} {json.dumps(dict(caught.value.evidence))}"
        assert "the-record-key" not in shown
    assert repr(sealer()) == "Sealer('session')"

"""One-time codes: RFC 6238's own figures, good once, and kind words for clocks that are off."""

from __future__ import annotations

import base64
from urllib.parse import parse_qs, unquote, urlsplit

import pyotp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubgate.core import totp
from hubgate.core.totp import STEP, Malformed, Off, Right, Used, Wrong, judge
from hubgate.ops.demo import codes

KEY = totp.new_key(bytes(range(20)))
NOW = 1_700_000_010.0
PRESENT = int(NOW) // STEP

keys = st.binary(min_size=20, max_size=20).map(totp.new_key)
moments = st.integers(min_value=10_000, max_value=4_000_000_000)


def code(step: int, key: str = KEY) -> str:
    """By the demo's own few lines, which know nothing of pyotp."""
    return codes.code(key, step * STEP)


def alone(step: int, *, around: int = PRESENT) -> bool:
    """Whether nothing nearby happens to have the same digits: one key in some thousand has such a pair."""
    nearby = range(around - 20, around + 21)
    return [each for each in nearby if code(each) == code(step)] in ([step], [])


# RFC 6238, appendix B, SHA-1, the last six of eight digits.
VECTORS = [
    (59, "287082"),
    (1111111109, "081804"),
    (1111111111, "050471"),
    (1234567890, "005924"),
    (2000000000, "279037"),
    (20000000000, "353130"),
]


@pytest.mark.parametrize(("at", "expected"), VECTORS)
def test_the_codes_of_the_standard(at: int, expected: str) -> None:
    key = base64.b32encode(b"12345678901234567890").decode()
    assert judge(key, expected, now=at) == Right(at // STEP)


@pytest.mark.parametrize("drift", [-1, 0, 1])
def test_one_step_of_drift_is_taken(drift: int) -> None:
    assert judge(KEY, code(PRESENT + drift), now=NOW) == Right(PRESENT + drift)


@pytest.mark.parametrize(("drift", "seconds"), [(-20, -600), (-4, -120), (-2, -60), (2, 60), (4, 120), (20, 600)])
def test_a_clock_that_is_off_is_told(drift: int, seconds: int) -> None:
    assert alone(PRESENT + drift)
    assert judge(KEY, code(PRESENT + drift), now=NOW) == Off(seconds, PRESENT + drift)


@pytest.mark.parametrize("drift", [-21, 21, 5000])
def test_what_is_further_away_is_wrong(drift: int) -> None:
    assert alone(PRESENT + drift)
    assert judge(KEY, code(PRESENT + drift), now=NOW) == Wrong()


def test_a_code_is_good_once() -> None:
    assert judge(KEY, code(PRESENT), now=NOW, last=PRESENT) == Used()
    assert judge(KEY, code(PRESENT), now=NOW, last=PRESENT - 1) == Right(PRESENT)
    assert judge(KEY, code(PRESENT - 1), now=NOW, last=PRESENT) == Used(), "an older one after a newer one"
    later = NOW + 4 * STEP
    assert judge(KEY, code(PRESENT), now=later, last=PRESENT) == Used(), "not the clock's fault: it was used"


def test_a_future_code_that_was_diagnosed_is_spent() -> None:
    """Else a guess would tell what will be right in five minutes."""
    ahead = judge(KEY, code(PRESENT + 10), now=NOW)
    assert ahead == Off(300, PRESENT + 10)
    spent = totp.still_spent((PRESENT + 10,), now=NOW)
    then = NOW + 10 * STEP
    assert judge(KEY, code(PRESENT + 10), now=then, spent=spent) == Used()
    assert judge(KEY, code(PRESENT + 11), now=then, spent=spent) == Right(PRESENT + 11)


def test_spent_steps_are_forgotten_when_they_are_over() -> None:
    assert totp.still_spent((PRESENT + 3, PRESENT - 2, PRESENT - 1, PRESENT + 3, PRESENT + 21), now=NOW) == (
        PRESENT - 1,
        PRESENT + 3,
    )


@pytest.mark.parametrize(
    "typed", ["", "12345", "1234567", "12345a", "１２３４５６", "-12345", "12.456", "²²²²²²", "१२३४५६", "123456\x00"]
)
def test_only_six_ascii_digits_are_a_code(typed: str) -> None:
    assert judge(KEY, typed, now=NOW) == Malformed()


@pytest.mark.parametrize("between", [" ", "\u00a0", "\u202f", "\t"])
def test_blanks_do_not_count(between: str) -> None:
    digits = code(PRESENT)
    assert judge(KEY, f" {digits[:3]}{between}{digits[3:]}\n", now=NOW) == Right(PRESENT)


@given(keys, moments, st.integers(-1, 1))
def test_whatever_is_right_is_right_once(key: str, now: int, drift: int) -> None:
    present = now // STEP
    verdict = judge(key, code(present + drift, key), now=now)
    assert isinstance(verdict, Right)
    assert (
        judge(key, code(present + drift, key), now=now, last=verdict.step) == Used() or verdict.step != present + drift
    )
    assert pyotp.HOTP(key).verify(code(present + drift, key), verdict.step)


@given(keys, moments, st.from_regex("[0-9]{6}", fullmatch=True), st.integers(-40, 40))
def test_nothing_is_right_but_three_codes_that_come_after_the_last(key: str, now: int, typed: str, ago: int) -> None:
    present = now // STEP
    last = present + ago
    verdict = judge(key, typed, now=now, last=last)
    timely = [step for step in range(present - 1, present + 2) if code(step, key) == typed and step > last]
    assert isinstance(verdict, Right) == bool(timely)
    if isinstance(verdict, Right):
        assert verdict.step in timely


@given(st.text(), moments)
def test_nothing_that_is_typed_breaks_it(typed: str, now: int) -> None:
    assert isinstance(judge(KEY, typed, now=now), Right | Used | Off | Malformed | Wrong)


def test_at_the_beginning_of_time_there_is_nothing_before() -> None:
    assert judge(KEY, code(0), now=3) == Right(0)


def test_a_key_is_made_of_chance() -> None:
    assert base64.b32encode(bytes(range(20))).decode() == KEY
    assert "=" not in KEY
    assert totp.in_fours("ABCDEFGHIJ") == "ABCD EFGH IJ"
    with pytest.raises(ValueError, match="20 bytes"):
        totp.new_key(b"short")


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
)
def test_the_address_in_the_qr_code_says_what_was_meant(account: str, issuer: str) -> None:
    parts = urlsplit(totp.provisioning_uri(KEY, account=account, issuer=issuer))
    assert (parts.scheme, parts.netloc) == ("otpauth", "totp")
    label = parts.path.removeprefix("/")
    assert [unquote(part) for part in label.split(":")] == [issuer, account]
    query = parse_qs(parts.query, keep_blank_values=True)
    assert query == {"secret": [KEY], "issuer": [issuer]}
    assert isinstance(pyotp.parse_uri(parts.geturl()), pyotp.TOTP)


class TestRecoveryCodes:
    @given(st.binary(min_size=8, max_size=8))
    def test_are_easy_to_read(self, chance: bytes) -> None:
        code = totp.recovery_code(chance)
        assert [len(part) for part in code.split("-")] == [4, 4, 4]
        assert not set(code) & set("oilu")
        assert code == code.lower()

    @given(st.binary(min_size=8, max_size=8), st.binary(min_size=8, max_size=8))
    def test_keep_sixty_bits_of_chance(self, one: bytes, other: bytes) -> None:
        same = int.from_bytes(one) % 2**60 == int.from_bytes(other) % 2**60
        assert (totp.recovery_code(one) == totp.recovery_code(other)) is same

    def test_need_enough_chance(self) -> None:
        with pytest.raises(ValueError, match="8 bytes"):
            totp.recovery_code(b"\x00" * 7)

    @pytest.mark.parametrize(
        "typed",
        ["0a1b-c2d3-e4f5", "0A1B-C2D3-E4F5", " 0a1bc2d3e4f5 ", "0a1b c2d3 e4f5", "oaib-c2d3-e4f5", "OALB\tC2D3\n-E4F5"],
    )
    def test_are_taken_as_people_type_them(self, typed: str) -> None:
        assert totp.recovery_hash(typed, "ada") == totp.recovery_hash("0a1b-c2d3-e4f5", "ada") is not None

    @pytest.mark.parametrize("typed", ["", "123456", "0a1b-c2d3-e4f", "0a1b-c2d3-e4f5a", "0u1b-c2d3-e4f5", "é" * 12])
    def test_are_told_from_other_things(self, typed: str) -> None:
        assert totp.recovery_hash(typed, "ada") is None

    def test_belong_to_one_person(self) -> None:
        assert totp.recovery_hash("0a1b-c2d3-e4f5", "ada") != totp.recovery_hash("0a1b-c2d3-e4f5", "bob")

    @given(st.text(), st.text())
    def test_nothing_that_is_typed_breaks_it(self, typed: str, owner: str) -> None:
        hashed = totp.recovery_hash(typed, owner)
        assert hashed is None or len(hashed) == 64

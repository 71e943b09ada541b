"""Letters: handed over to a real mail server, tried again, given up, and never more than what was meant."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hubgate.mail import Letter, MailServer, Outcome, Post
from tests.kit.certificates import Authority
from tests.kit.postbox import Postbox, postbox

LETTER = Letter("ada@example.org", "Zürich: hello", "Hello Ada,\n\n" + "a line that is rather long " * 10 + "\n")
SENDER = "Example Lab <jupyter@lab.example.org>"


@contextlib.asynccontextmanager
async def posting(
    box: Postbox, scheme: str = "smtp", *, pauses: tuple[float, ...] = (0.01, 0.01), farewell: float = 5.0, **more: str
) -> AsyncIterator[tuple[Post, list[Outcome]]]:
    ended: list[Outcome] = []
    server = MailServer(f"{scheme}://localhost:{box.port}", SENDER, **more)
    async with Post(server, on_end=ended.append, pauses=pauses, farewell=farewell).kept() as post:
        yield post, ended


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_a_letter_arrives_as_it_was_written() -> None:
    async with postbox() as box, posting(box) as (post, ended):
        post.send(LETTER)
        ((recipients, message),) = await box.come(1)
    assert recipients == ["ada@example.org"]
    assert message["From"] == SENDER
    assert message["To"] == "ada@example.org"
    assert message["Subject"] == "Zürich: hello"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Message-ID"].endswith("@lab.example.org>")
    assert message["Date"]
    assert message.get_content().replace("\r\n", "\n") == LETTER.text
    assert ended == ["sent"]


@pytest.mark.parametrize(
    "to",
    [
        "ada@example.org\r\nBcc: eve@example.org",
        "ada@example.org>\r\nRCPT TO:<eve@example.org",
        "ada@example.org, eve@example.org",
        "eve@evil.example <ada@example.org>",
        "ada@example.org\x00",
        '"ada eve"@example.org',
        "ada@[192.0.2.7]",
        "ada",
        "@example.org",
        "ada@",
        "ada@exam ple.org",
        "ada\u2028@example.org",
        "",
    ],
)
async def test_what_is_no_mailbox_gets_no_letter_and_reaches_nobody_else(to: str) -> None:
    async with postbox() as box, posting(box) as (post, ended):
        post.send(Letter(to, "x", "x\n"))
        post.send(LETTER)
        await box.come(1)
    assert [recipients for recipients, _ in box.letters] == [["ada@example.org"]]
    assert ended == ["dropped", "sent"]


async def test_a_subject_of_two_lines_is_no_header_of_its_own() -> None:
    async with postbox() as box, posting(box) as (post, ended):
        post.send(Letter("ada@example.org", "x\r\nBcc: eve@example.org", "x\n"))
    assert ended == ["dropped"]
    assert box.letters == []


async def test_text_cannot_end_the_letter() -> None:
    """A dot on a line of its own ends a letter in SMTP (RFC 5321, 4.5.2)."""
    text = "before\n.\nRCPT TO:<eve@example.org>\n..\nafter\n"
    async with postbox() as box, posting(box) as (post, _):
        post.send(Letter("ada@example.org", "x", text))
        ((recipients, message),) = await box.come(1)
    assert recipients == ["ada@example.org"]
    assert message.get_content().replace("\r\n", "\n") == text


async def test_a_server_that_says_later_is_asked_again() -> None:
    async with postbox() as box, posting(box) as (post, ended):
        box.answers += ["451 4.7.1 greylisted, come back", "421 too busy"]
        post.send(LETTER)
        ((_, message),) = await box.come(1)
    assert message["Subject"] == LETTER.subject
    assert ended == ["sent"]


async def test_a_server_that_says_no_is_not(caplog: pytest.LogCaptureFixture) -> None:
    async with postbox() as box, posting(box) as (post, ended):
        box.answers += ["550 no such letter"]
        post.send(LETTER)
    assert ended == ["failed"]
    assert box.letters == []
    (line,) = [record for record in caplog.records if record.message == "mail_not_sent"]
    assert vars(line)["to"] == "ada@example.org"
    assert "no such letter" in vars(line)["why"]
    assert "rather long" not in str(vars(line)), "what it said is nobody else's"


async def test_a_server_that_is_away_is_given_up_in_the_end() -> None:
    async with postbox() as box:
        pass
    async with posting(box) as (post, ended):
        post.send(LETTER)
    assert ended == ["failed"]


async def test_the_end_does_not_wait_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            await asyncio.sleep(60)

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    box = Postbox(server.sockets[0].getsockname()[1])
    async with asyncio.timeout(10), posting(box, farewell=0.1) as (post, ended):
        post.send(LETTER)
    assert ended == ["failed"]
    assert [vars(record)["why"] for record in caplog.records if record.message == "mail_not_sent"] == [
        "hubgate stopped"
    ]
    server.close()


async def test_what_is_on_its_way_is_bounded() -> None:
    async with postbox() as box:
        pass
    async with posting(box, pauses=(60,), farewell=0.1) as (post, ended):
        for _ in range(250):
            post.send(LETTER)
        assert ended == ["dropped"] * 50
    assert ended == ["dropped"] * 50 + ["failed"] * 200


class TestEncryption:
    async def test_starttls_is_used_where_it_is_offered(self, authority: Authority) -> None:
        async with postbox(starttls=authority.serving()) as box, posting(box) as (post, _):
            post.send(LETTER)
            await box.come(1)
        assert box.encrypted == [True]

    async def test_it_is_demanded_where_the_configuration_says_so(self, authority: Authority) -> None:
        """Somebody on the way who takes the offer out of the greeting gets nothing."""
        async with postbox() as box, posting(box, "smtp+starttls", user="u", password="swordfish") as (post, ended):
            post.send(LETTER)
        assert (ended, box.letters, box.logins) == (["failed"], [], [])
        async with (
            postbox(starttls=authority.serving()) as box,
            posting(box, "smtp+starttls", ca=authority.file, user="u", password="swordfish") as (post, ended),
        ):
            post.send(LETTER)
            await box.come(1)
        assert box.encrypted == [True]
        assert box.logins == [(b"u", b"swordfish")]

    @pytest.mark.parametrize("scheme", ["smtps", "smtp+starttls"])
    async def test_a_certificate_of_somebody_else_gets_neither_letter_nor_password(
        self, scheme: str, authority: Authority
    ) -> None:
        context = authority.serving()
        served = {"tls": context} if scheme == "smtps" else {"starttls": context}
        async with postbox(**served) as box, posting(box, scheme, user="u", password="swordfish") as (post, ended):
            post.send(LETTER)
        assert (ended, box.letters, box.logins) == (["failed"], [], [])

    async def test_from_the_first_byte(self, authority: Authority) -> None:
        async with (
            postbox(tls=authority.serving()) as box,
            posting(box, "smtps", ca=authority.file, user="u", password="swordfish") as (post, _),
        ):
            post.send(LETTER)
            await box.come(1)
        assert box.logins == [(b"u", b"swordfish")]

    async def test_a_wrong_password_is_told_and_not_tried_again(
        self, authority: Authority, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with (
            postbox(tls=authority.serving()) as box,
            posting(box, "smtps", ca=authority.file, user="u", password="marlin") as (post, ended),
        ):
            post.send(LETTER)
        assert (ended, len(box.logins)) == (["failed"], 1)
        assert "marlin" not in caplog.text

"""What an operator can say, what is answered, and with which exit status."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import pytest

from hubgate.config import load, parse
from hubgate.core import totp
from hubgate.core.identity import Identity, Proof
from hubgate.core.keyring import Keyring
from hubgate.errors import ClientFault
from hubgate.ops.cli import main
from hubgate.ops.demo.redis import RedisServer
from hubgate.ops.exits import Exit
from hubgate.store import open_store
from hubgate.store.base import Store
from hubgate.web.factors import Factors
from hubgate.web.sessions import user_key
from hubgate.web.standings import Standings
from hubgate.web.tickets import Tickets
from hubgate.web.usernames import Usernames
from tests.kit.background import Background
from tests.kit.postbox import Postbox, postbox
from tests.ops.serving import write_config

T = TypeVar("T")


def test_check_config_says_ok_and_sums_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = '[mfa]\nmode = "off"\n[store]\nurl = "redis://user:swordfish@h/0"'
    path = write_config(tmp_path, more=more)
    path.chmod(0o600)
    assert main(["check-config", "-c", str(path)]) == Exit.OK
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0] == "ok"
    assert "http://127.0.0.1:8080: 1 worker on 127.0.0.1:0" in out
    assert "logins at https://id.example.org/realms/site, second factor: off, store: redis" in out
    assert "pool htc at http://127.0.0.1:8080/htc/ for everyone: htc01" in out
    assert [line.split(":")[0] for line in lines[4:]] == ["caution", "caution"]
    assert "swordfish" not in out


def test_check_config_tells_every_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_config(tmp_path, listen='["nowhere"]', workers=0, more='[store]\nurl = "redis://u:swordfish@h:x"')
    assert main(["check-config", "-c", str(path)]) == Exit.CONFIG
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{path}: 3 faults\n")
    for key in ("gateway.listen[0]", "gateway.workers", "store.url"):
        assert f"\n{key}\n" in err
    assert "swordfish" not in err


def test_check_config_tries_the_sites_own_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_config(tmp_path, more='[portal]\nlanguages = ["fr", "tlh"]')
    assert main(["check-config", "-c", str(path)]) == Exit.CONFIG
    assert "there are no messages in 'tlh'; there are de, en, fr" in capsys.readouterr().err


def test_serve_starts_nothing_with_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "-c", str(write_config(tmp_path, workers=0))]) == Exit.CONFIG
    assert "gateway.workers" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["check-config", "serve"])
def test_a_file_that_is_not_there(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "-c", "/nonexistent/hubgate.toml"]) == Exit.CONFIG
    assert "no such file" in capsys.readouterr().err


def test_a_new_secret_is_good_enough_and_new(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-secret"]) == Exit.OK
    assert main(["new-secret"]) == Exit.OK
    first, second = capsys.readouterr().out.split()
    assert first != second
    assert min(len(first), len(second)) >= 32
    with pytest.raises(Exception, match=r"gateway\.public_url") as caught:
        parse(f'[gateway]\nsecret_keys = ["{first}"]')
    assert "secret_keys" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments", [[], ["serve"], ["check-config"], ["nonsense"], ["serve", "-c", "x", "y"], ["-x"]]
)
def test_a_wrong_command_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == Exit.USAGE
    assert "usage: hubgate" in capsys.readouterr().err


def test_what_follows_demo_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[list[str]] = []

    def demo(argv: list[str]) -> int:
        heard.append(list(argv))
        return 7

    monkeypatch.setattr("hubgate.ops.demo.main", demo)
    for arguments in ([], ["--help"], ["code", "alice"], ["--port", "9000", "code", "--x"]):
        assert main(["demo", *arguments]) == 7
        assert heard.pop() == arguments


def test_the_command_and_the_module_are_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    said = capsys.readouterr().out
    assert said == f"hubgate {version('hubgate')}\n"
    other = subprocess.run([sys.executable, "-m", "hubgate", "--version"], capture_output=True, text=True, check=True)
    assert other.stdout == said


def test_small_commands_load_no_web_server() -> None:
    program = (
        "import sys; from hubgate.ops.cli import main; main(['new-secret']);"
        "sys.exit(any(name in sys.modules for name in ('aiohttp', 'prometheus_client', 'redis')))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0


def test_exit_statuses_are_documented() -> None:
    document = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    for status in Exit:
        assert f"\n| {status.value} | " in document


def test_users_release_frees_a_name_in_the_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], redis_server: RedisServer
) -> None:
    path = write_config(tmp_path, more=f'[store]\nurl = "{redis_server.url}"')
    config = load(path)

    async def claim(subject: str) -> None:
        store = open_store(redis_server.url)
        try:
            await Usernames(store, Keyring(config.keys)).claim(Identity("https://id.example.org", subject, "ada"))
        finally:
            await store.close()

    assert main(["users", "release", "ada", "-c", str(path)]) == Exit.OK
    assert "belongs to nobody" in capsys.readouterr().out
    asyncio.run(claim("first"))
    with pytest.raises(ClientFault):
        asyncio.run(claim("second"))
    assert main(["users", "release", "ada", "-c", str(path)]) == Exit.OK
    assert "ada is free" in capsys.readouterr().out
    asyncio.run(claim("second"))


@pytest.fixture
def box() -> Iterator[Postbox]:
    """A mail server in another thread."""
    with Background() as background:
        serving = postbox()
        yield background.run(serving.__aenter__())
        background.run(serving.__aexit__(None, None, None))


def test_an_administrator_resets_a_second_factor_and_issues_a_ticket(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    redis_server: RedisServer,
    box: Postbox,
) -> None:
    audit = tmp_path / "audit.log"
    more = f'[mfa]\nmode = "gateway"\n[store]\nurl = "{redis_server.url}"\n'
    more += f'[mail]\nsmtp = "smtp://127.0.0.1:{box.port}"\nsender = "jupyter@example.org"'
    path = write_config(tmp_path, audit=str(audit), more=more)
    keyring = Keyring(load(path).keys)
    eve = Identity("https://id.example.org", "subject-of-eve", "eve", email="eve@example.org")

    async def done(act: Callable[[Store], Awaitable[T]]) -> T:
        store = open_store(redis_server.url)
        try:
            return await act(store)
        finally:
            await store.close()

    async def enrolled(store: Store) -> None:
        await Usernames(store, keyring).claim(eve)
        assert await Factors(store, keyring).enrol(eve, totp.new_key(b"k" * 20), step=0, replaces="")
        await Standings(store, keyring, age=3600.0).note(eve, Proof("mfa", ("otp",)))

    assert main(["users", "reset-otp", "eve", "-c", str(path)]) == Exit.OK
    assert "has no second factor" in capsys.readouterr().out
    assert not audit.exists()
    asyncio.run(done(enrolled))
    assert main(["users", "reset-otp", "eve", "-c", str(path)]) == Exit.OK
    out = capsys.readouterr().out
    assert "is gone" in out
    assert "hubgate users enrolment-ticket eve" in out
    assert "A letter to eve@example.org says so." in out
    ((recipients, message),) = box.letters
    assert recipients == ["eve@example.org"]
    assert "An administrator has reset the second factor of your account" in message.get_content()
    assert asyncio.run(done(lambda store: Factors(store, keyring).of(eve))) is None
    # Whoever had the phone may have made API tokens with it.
    assert asyncio.run(done(lambda store: Standings(store, keyring, age=3600.0).of(user_key(eve)))) is None

    assert main(["users", "enrolment-ticket", "eve", "-c", str(path)]) == Exit.OK
    out, err = capsys.readouterr()
    assert asyncio.run(done(lambda store: Tickets(store, keyring, demanded=False).recognised("eve", out)))
    assert "for 7 days" in err
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [(line["event"], line["outcome"], line["user"]) for line in lines] == [
        ("second_factor", "reset", "eve"),
        ("second_factor", "ticket_issued", "eve"),
    ]
    assert all(line["by"] for line in lines)
    assert out.strip() not in audit.read_text()


@pytest.mark.parametrize("command", ["reset-otp", "enrolment-ticket"])
@pytest.mark.parametrize(
    ("more", "why"),
    [("", 'mfa.mode is "keycloak"'), ('[mfa]\nmode = "gateway"\n[store]\nurl = "memory://"', "memory://")],
)
def test_second_factors_that_are_not_ours_or_not_in_reach(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, more: str, why: str
) -> None:
    assert main(["users", command, "eve", "-c", str(write_config(tmp_path, more=more))]) == Exit.START
    assert why in capsys.readouterr().err

"""`hubgate sessions`: who is logged in, as an administrator sees it, and what the command says and writes down."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from hubgate.config import load
from hubgate.core.identity import Identity, Proof
from hubgate.core.keyring import Keyring
from hubgate.core.session import Limits
from hubgate.ops.cli import main
from hubgate.ops.demo.redis import RedisServer
from hubgate.ops.exits import Exit
from hubgate.store import open_store
from hubgate.web.sessions import Found, Sessions, user_key
from hubgate.web.standings import Standings
from hubgate.web.usernames import Usernames
from tests.ops.serving import write_config

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"


@pytest.fixture
def path(tmp_path: Path, fresh_redis: RedisServer) -> Path:
    return write_config(tmp_path, audit=str(tmp_path / "audit.log"), more=f'[store]\nurl = "{fresh_redis.url}"')


def begun(path: Path, *names: str) -> list[Found]:
    """Sessions of these people, in this order."""
    config = load(path)
    keyring = Keyring(config.keys)

    async def begin() -> list[Found]:
        store = open_store(config.store.url.reveal())
        sessions = Sessions(store, keyring, Limits(1800, 43200), host="x")
        found = []
        for name in names:
            who = Identity("https://id.example.org", f"subject-{name}", name)
            await Usernames(store, keyring).claim(who)
            _, each = await sessions.create(
                who,
                Proof("mfa", ("pwd", "otp")),
                provider_sid="",
                id_token="",
                refresh_token="",
                address="192.0.2.7",
                user_agent=FIREFOX,
            )
            await sessions.note([(each.key, each.session.visited("htc01"))])
            await Standings(store, keyring, age=3600.0).note(who, Proof("mfa", ("pwd", "otp")))
            found.append(each)
        await store.close()
        return found

    return asyncio.run(begin())


def rows(capsys: pytest.CaptureFixture[str], path: Path, *more: str) -> list[dict[str, object]]:
    assert main(["sessions", "list", "--json", *more, "-c", str(path)]) == Exit.OK
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_they_are_listed(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = begun(path, "ada", "bob", "ada")
    everybody = rows(capsys, path)
    assert [row["id"] for row in everybody] == [each.session.handle for each in found]
    assert [row["user"] for row in rows(capsys, path, "--user", "ada")] == ["ada", "ada"]
    assert rows(capsys, path, "--user", "eve") == []
    assert everybody[1]["browser"] == "Firefox"
    assert everybody[1]["hubs"] == ["htc01"]
    assert everybody[1]["factor"] == "pwd otp"
    assert main(["sessions", "list", "-c", str(path)]) == Exit.OK
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split()[:2] == ["ID", "USER"]
    assert [line.split()[1] for line in lines] == ["ada", "bob", "ada"]
    assert "Firefox, Linux" in lines[0]


@pytest.mark.parametrize(
    ("choice", "left"),
    [(["--user", "ada"], ["bob"]), (["--id", ""], ["bob", "ada"]), (["--all"], []), (["--user", "eve"], None)],
    ids=["user", "id", "all", "nobody"],
)
def test_they_end_and_it_is_written_down(
    path: Path, capsys: pytest.CaptureFixture[str], choice: list[str], left: list[str] | None
) -> None:
    found = begun(path, "ada", "bob", "ada")
    if choice[0] == "--id":
        choice = ["--id", found[0].session.handle]
    assert main(["sessions", "end", *choice, "-c", str(path)]) == Exit.OK
    told = capsys.readouterr()
    remaining = [row["user"] for row in rows(capsys, path)]
    audit = path.parent / "audit.log"
    lines = [json.loads(line) for line in audit.read_text().splitlines()] if audit.exists() else []
    if left is None:
        assert "no such session" in told.out
        assert len(remaining) == 3
        assert lines == []
        return
    count = 3 - len(left)
    assert remaining == left
    assert f"Ended: {count} session" in told.out
    assert "identity provider did not confirm" in told.err  # there is none here
    programs = [line for line in lines if line["event"] == "api_token"]
    lines = [line for line in lines if line not in programs]
    assert [(line["outcome"], line["user"]) for line in programs] == [("owner_ended", "ada")] * (choice[0] == "--user")
    assert ("programs" in told.out) is bool(programs)
    assert [(line["event"], line["outcome"]) for line in lines] == [("session_end", "admin")] * count
    assert {line["session"] for line in lines} <= {each.session.handle for each in found}
    assert all(line["by"] for line in lines)


def test_one_must_say_whose(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ([], ["--all", "--user", "ada"], ["--id", "x", "--all"]):
        with pytest.raises(SystemExit) as caught:
            main(["sessions", "end", *wrong, "-c", str(path)])
        assert caught.value.code == 2
    capsys.readouterr()


def test_a_gateways_own_memory_is_out_of_reach(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_config(tmp_path, more='[store]\nurl = "memory://"')
    assert main(["sessions", "list", "-c", str(path)]) == Exit.START
    assert "only the running gateway knows its sessions" in capsys.readouterr().err


def test_without_the_store_nothing_is_said_to_have_ended(
    path: Path, fresh_redis: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(path, "ada")
    fresh_redis.stop()
    assert main(["sessions", "end", "--all", "-c", str(path)]) == Exit.START
    told = capsys.readouterr()
    assert "Redis" in told.err
    assert "Ended" not in told.out


@pytest.mark.parametrize(
    "command", [("sessions", "end", "--user", "ada"), ("users", "release", "ada")], ids=["sessions-end", "release"]
)
def test_somebodys_programs_end_with_what_an_administrator_ends(path: Path, command: tuple[str, ...]) -> None:
    """Also when they are logged in nowhere: programs run while nobody is."""
    found, bobs = begun(path, "ada", "bob")
    assert has_standing(path, found, logs_out=True)
    assert main([*command, "-c", str(path)]) == Exit.OK
    assert not has_standing(path, found)
    assert has_standing(path, bobs)


def test_everybodys_programs_end_although_nobody_is_logged_in(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text(path.read_text().replace('path = "/htc/"', 'path = "/htc/"\napi_tokens = true'))
    for _ in range(2):  # the second time, there is an end before
        everybody = begun(path, "ada", "bob")
        assert all(has_standing(path, each, logs_out=True) for each in everybody)
        assert main(["sessions", "end", "--all", "-c", str(path)]) == Exit.OK
        assert "Ended: all programs, until their owners log in again." in capsys.readouterr().out
        assert not any(has_standing(path, each) for each in everybody)
    lines = [json.loads(line) for line in (path.parent / "audit.log").read_text().splitlines()]
    assert [(line["event"], line["outcome"], bool(line["by"])) for line in lines] == [
        ("api_token", "all_ended", True)
    ] * 2


def has_standing(path: Path, found: Found, *, logs_out: bool = False) -> bool:
    """Whether somebody's programs may come in."""
    config = load(path)

    async def asked() -> bool:
        store = open_store(config.store.url.reveal())
        if logs_out:
            await store.delete(f"session:{found.key}")
        known = await Standings(store, Keyring(config.keys), age=3600.0).of(user_key(found.session.identity))
        await store.close()
        return known is not None

    return asyncio.run(asked())

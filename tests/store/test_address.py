from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubgate.errors import OperatorFault
from hubgate.store import open_store
from hubgate.store.address import Address, Login, parse_address
from hubgate.store.memory import MemoryStore


def at(*nodes: tuple[str, int], tls: bool = False, db: int = 0, **more: object) -> Address:
    return Address(nodes=nodes, tls=tls, db=db, **({"login": Login()} | more))  # type: ignore[arg-type]  # a table's shorthand


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://127.0.0.1:6379/0", at(("127.0.0.1", 6379))),
        ("redis://host", at(("host", 6379))),
        ("redis://host/", at(("host", 6379))),
        ("redis://host/12", at(("host", 6379), db=12)),
        ("redis://[2001:db8::1]:7000/1", at(("2001:db8::1", 7000), db=1)),
        ("redis://[::1]", at(("::1", 6379))),
        ("rediss://host:6380", at(("host", 6380), tls=True)),
        ("redis://:s3cret@host", at(("host", 6379), login=Login("", "s3cret"))),
        ("redis://user:p%40s%2Fs%3A%23@host", at(("host", 6379), login=Login("user", "p@s/s:#"))),
        ("redis://user:a:b@host", at(("host", 6379), login=Login("user", "a:b"))),
        ("redis+sentinel://a/main", at(("a", 26379), service="main")),
        (
            "redis+sentinel://u:p@a:1,b,[::1]:3/my%2Fmain/4",
            at(("a", 1), ("b", 26379), ("::1", 3), db=4, login=Login("u", "p"), service="my/main"),
        ),
        ("rediss+sentinel://a/main/", at(("a", 26379), tls=True, service="main")),
        (
            "redis+sentinel://a/main?sentinel_username=w&sentinel_password=x%26y",
            at(("a", 26379), service="main", sentinel_login=Login("w", "x&y")),
        ),
    ],
)
def test_addresses(url: str, address: Address) -> None:
    assert parse_address(url) == address


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "must begin with"),
        ("host:6379", "must begin with"),
        ("http://:hunter2@host", "must begin with"),
        ("memory://x", "must begin with"),
        ("redis:///0", "a host is missing"),
        ("redis://:hunter2@/0", "a host is missing"),
        ("redis://:hunter2@a,b/0", "several hosts"),
        ("redis://:hunter2@host:0", "between 1 and 65535"),
        ("redis://:hunter2@host:65536", "between 1 and 65535"),
        ("redis://:hunter2@host:port", "a port behind it a number"),
        ("redis://:hunter2@host:٦", "a port behind it a number"),
        ("redis://:hunter2@host:-1", "a port behind it a number"),
        ("redis://:hunter2@host:99999999999", "a port behind it a number"),
        ("redis://:hunter2@host/one", "the database must be a number"),
        ("redis://:hunter2@host/1/2", "too much"),
        ("redis://:hunter2@host/1?socket_timeout=60", "nothing may follow"),
        ("redis://:hunter2@host/1?x", "nothing may follow"),
        ("redis://:hunter2@host/1#x", "%23"),
        ("redis://:hunter2@[::1", "IPv6"),
        ("redis://:hunter2@::1", "a host is missing"),
        ("redis://:hunter2@1::2", "IPv6"),
        ("redis://:hunter2@ho st", "a host is a name"),
        ("redis://:hunter2@hóst", "a host is a name"),
        ("redis+sentinel://:hunter2@[::1],x]/main", "IPv6"),
        ("redis+sentinel://:hunter2@[::1]x/main", "IPv6"),
        ("redis+sentinel://:hunter2@host", "name of the service"),
        ("redis+sentinel://:hunter2@host/", "name of the service"),
        ("redis+sentinel://:hunter2@host//1", "name of the service"),
        ("redis+sentinel://:hunter2@a,,b/main", "a host is missing"),
        ("redis+sentinel://:hunter2@host/main/1/2", "too much"),
        ("redis+sentinel://:hunter2@host/main?password=hunter2", "only sentinel_username"),
        ("redis+sentinel://h/main?sentinel_password=hunter2&sentinel_password=hunter2", "only sentinel_username"),
    ],
)
def test_what_is_no_address_is_explained_without_repeating_it(url: str, complaint: str) -> None:
    with pytest.raises(OperatorFault) as caught:
        open_store(url)
    assert caught.value.code == "store_url"
    assert complaint in caught.value.message
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@given(st.text() | st.text().map("redis://{}".format) | st.text().map("redis+sentinel://{}".format))
def test_any_text_is_an_address_or_the_operators_fault(url: str) -> None:
    try:
        address = parse_address(url)
    except OperatorFault as fault:
        assert fault.code == "store_url"  # noqa: PT017 - either outcome is right
    else:
        assert address.nodes
        assert all(host and 0 < port < 65536 for host, port in address.nodes)


@given(
    password=st.text(min_size=12),
    db=st.integers(0, 99),
    host=st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True),
    port=st.integers(1, 65535),
)
def test_every_password_can_be_written(password: str, db: int, host: str, port: int) -> None:
    from urllib.parse import quote

    address = parse_address(f"redis://:{quote(password, safe='')}@{host}:{port}/{db}")
    assert address == at((host, port), db=db, login=Login("", password))
    assert password not in f"{address} {address!r}"


def test_the_memory_store_has_no_address() -> None:
    assert isinstance(open_store("memory://"), MemoryStore)


def test_a_store_shows_where_it_is_and_no_password() -> None:
    assert repr(open_store("redis://user:hunter2@host/3")) == "RedisStore(host:6379, db 3)"
    assert repr(open_store("redis+sentinel://:hunter2@a,b:1/main?sentinel_password=hunter2")) == (
        "RedisStore(main by a:26379,b:1, db 0)"
    )

"""Who answers wrongly, or tells the backend nobody's name, isn't measured."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.bench.targets import Target, Unfit, check

SESSION = {"sid": "good"}
Change = Callable[[str, bool], tuple[int, bytes] | None]
"""From a path and whether the session came along: an answer other than the right one, or None."""


@contextmanager
def proxy(user: str, change: Change = lambda path, known: None, told: str = "") -> Iterator[Target]:
    """A proxy that does what it should, but for `change`, and for what it tells the backend (`told`: header lines)."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = "sid=good" in (self.headers["Cookie"] or "")
            wanted = self.path.rpartition("/")[2]
            status, body = change(wanted, known) or self._right(wanted, known)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _right(self, wanted: str, known: bool) -> tuple[int, bytes]:
            if user and not known:
                return 302, b""
            if wanted == "head":
                return 200, f"GET {self.path} HTTP/1.1\r\nHost: x\r\n{told}\r\n".encode()
            return 200, b"x" * {"200": 200, "10k": 10_240}[wanted]

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield Target("it", "what it is", server.server_port, 0, SESSION, user=user)
        finally:
            server.shutdown()
            thread.join()


def test_one_that_does_what_it_should_may_be_measured() -> None:
    with proxy("alice", told="REMOTE_USER: alice\r\n") as target:
        check(target)
    with proxy("") as target:
        check(target)


@pytest.mark.parametrize(
    "told",
    ["", "REMOTE_USER: bob\r\n", "REMOTE_USER: \r\n", "REMOTE_USER: alice\r\nRemote-User: alice\r\n"],
    ids=["nobody", "somebody else", "empty", "twice"],
)
def test_one_that_tells_the_backend_otherwise_is_refused(told: str) -> None:
    with proxy("alice", told=told) as target, pytest.raises(Unfit, match="tells the backend"):
        check(target)


def test_one_that_should_tell_nobodys_name_and_does_is_refused() -> None:
    with proxy("", told="Remote-User: alice\r\n") as target, pytest.raises(Unfit, match="expected nobody"):
        check(target)


@pytest.mark.parametrize(
    "change",
    [
        lambda path, known: (404, b"x" * 200) if path == "200" else None,
        lambda path, known: (200, b"x" * 199) if path == "200" else None,
        lambda path, known: (200, b"y" * 10_240) if path == "10k" else None,
        lambda path, known: (502, b"") if path == "head" else None,
    ],
    ids=["status", "length", "content", "head"],
)
def test_one_that_answers_wrongly_is_refused(change: Change) -> None:
    with proxy("alice", change, "REMOTE_USER: alice\r\n") as target, pytest.raises(Unfit, match="answers"):
        check(target)


def test_one_that_lets_strangers_in_is_refused() -> None:
    def open_door(path: str, known: bool) -> tuple[int, bytes] | None:
        return None if known else (200, b"x" * 200)

    with proxy("alice", open_door, "REMOTE_USER: alice\r\n") as target, pytest.raises(Unfit, match="strangers"):
        check(target)


def test_one_that_is_not_there_is_refused() -> None:
    with proxy("") as target:
        pass
    with pytest.raises(Unfit, match="does not answer"):
        check(target)

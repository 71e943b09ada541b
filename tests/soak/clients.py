"""Everything that clients do to a gateway, well or badly, and the judgement of every answer that they get.

Connections lie on a shelf and are taken by whoever asks next, in the name of any session, as a proxy in front of the
gateway would do it. What an answer may be is in catalogue.py; that it is this request's own is held here, to the byte.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.soak import catalogue, marks
from tests.soak.catalogue import BROKEN, OF_THE_GATEWAY
from tests.soak.frames import BINARY, CLOSE, PING, PONG, TEXT, frame, read_frame
from tests.soak.hub import Hub
from tests.soak.ledger import Ledger
from tests.soak.marks import Ask, Said
from tests.soak.people import FOREIGN, Fields, Session, never_again, spoken, with_spoofs
from tests.soak.wire import PATIENCE, Answer, Line, Malformed

_SIZES = (0, 1, 2, 200, 200, 200, 1_000, 5_000, 10_240, 10_240, 40_000, 65_535, 65_536, 120_000, 300_000)
_SMALL = (0, 1, 200, 1_000, 5_000)
_SHELF = 20
"""Connections that wait for whoever comes next."""
_WELL_WEIGHTS = {"sized": 40, "chunked": 12}


@dataclass(eq=False)
class Sent:
    """A request with all that its answer is held against. `digest`: of the fields that the hub must have seen;
    `sticky`: the cookie by which the browser said which hub it is bound to; "" for none."""

    ask: Ask
    session: Session
    data: bytes
    digest: str
    sticky: str
    http10: bool = False
    upgrade: bool = False

    def __repr__(self) -> str:
        return f"{self.ask.method} {self.ask.target} of {self.session.user}"


class Crowd:
    """All clients of one soak. `shares`: what they do, and how often."""

    def __init__(
        self,
        *,
        port: int,
        sessions: Sequence[Session],
        hubs: Mapping[str, Hub],
        ledger: Ledger,
        rng: random.Random,
        did: dict[str, str],
        pools: Sequence[str] = ("htc", "hpc"),
    ) -> None:
        self.port = port
        self.netloc = f"127.0.0.1:{port}".encode()
        self.sessions = list(sessions)
        self.hubs = hubs
        self.ledger = ledger
        self.rng = rng
        self.did = did
        self.pools = pools
        self.shelf: list[Line] = []
        self.lines = 0
        self.novel = 0
        """Bytes of header fields that were sent in this combination for the first time."""
        self._blocks: set[int] = set()
        self._bindings = {each.own[name]: each for each in sessions for name in each.own if name != "hubgate"}
        self._numbers = itertools.count(1)
        self._deck: list[tuple[str, str]] = []
        self.shares: dict[Callable[[], Awaitable[None]], int] = {
            self.ask: 60,
            self.pipeline: 10,
            self.upload: 12,
            self.socket: 4,
            self.vanish: 6,
            self.read_slowly: 2,
            self.send_slowly: 2,
            self.own_pages: 3,
            self.stranger: 2,
        }

    async def work(self, until: float) -> None:
        """One client that never rests, until the loop's time says so."""
        loop = asyncio.get_running_loop()
        acts, weights = tuple(self.shares), tuple(self.shares.values())
        while loop.time() < until and not self.ledger.over:
            (act,) = self.rng.choices(acts, weights)
            await self.do(act)
            await asyncio.sleep(self.rng.random() * 0.004)

    async def do(self, act: Callable[[], Awaitable[None]]) -> None:
        """One act; whatever it raises is a failure."""
        name = getattr(act, "__name__", "act")
        try:
            await act()
        except Exception as error:  # noqa: BLE001 - told at the end
            self.ledger.fail(f"{name}: {error!r}")
        self.ledger.done[name] += 1

    def deal(self) -> None:
        """Lay out every behaviour once, to be met before chance decides."""
        self._deck = [("GET", how) for how in catalogue.GET] + [("UP", how) for how in catalogue.UPLOADS]
        self._deck += [("WS", how) for how in catalogue.SOCKETS]
        self.rng.shuffle(self._deck)

    def close(self) -> None:
        """End all connections that wait."""
        for line in self.shelf:
            line.close()
        self.shelf.clear()

    # -- connections

    async def line(self, *, new: bool = False) -> Line:
        """One of the shelf, whoever used it before; or a new one."""
        while self.shelf and not new and (len(self.shelf) >= _SHELF or self.rng.random() < 0.9):
            line = self.shelf.pop(self.rng.randrange(len(self.shelf)))
            if line.quiet:
                return line
            # Nothing was asked: an end is the gateway's right, a word is not.
            if line.reader._buffer:  # type: ignore[attr-defined]
                self.ledger.fail(f"said on an idle connection: {await line.reader.read(300)!r}")
            line.close()
        self.lines += 1
        return await Line.open(self.port)

    async def put_back(self, line: Line, answer: Answer) -> None:
        """For whoever comes next, if the gateway keeps it."""
        if answer.keep and not answer.broken and line.used < 2000:
            self.shelf.append(line)
            return
        if not answer.keep and not answer.broken and not await line.ended():
            self.ledger.fail("said to be closed, and left open")
        line.close()

    # -- requests

    def request(
        self,
        how: str,
        *,
        session: Session | None = None,
        method: str = "GET",
        size: int | None = None,
        up: int = -1,
        pause: int = 0,
        pool: str = "",
        prefix: str = "m",
        fields: Fields | None = None,
        framing: bytes = b"",
        upgrade: Fields | None = None,
        plain: bool = False,
    ) -> Sent:
        """A request, its body left out. `fields`: instead of the session's own or, now and then, ones
        that nobody said before; `framing`: lines about its
        body; `plain`: nothing that must not pass is mixed in."""
        rng = self.rng
        session = session or rng.choice(self.sessions)
        ask = Ask(
            session.user,
            f"{prefix}{next(self._numbers)}",
            how,
            method,
            pool or rng.choice(self.pools),
            "hub" if rng.random() < 0.7 else "user",
            rng.choice(_SIZES) if size is None else size,
            up,
            pause,
        )
        if fields is None:
            # Rarely, since a gateway may remember what it has judged.
            fields = never_again(rng) if rng.random() < 0.08 else rng.choice(session.sets)
        sent = list(fields)
        if how in {"not_modified", "too_much_unmodified"}:
            sent.append((b"If-None-Match", b'"%b"' % ask.mark.encode()))
        if upgrade is not None:
            sent += [pair for pair in upgrade if pair[0] not in {b"Connection", b"Upgrade"}]
        usual = plain or rng.random() < 0.95
        cookie, seen = session.usual_cookies(rng) if usual else session.cookies(rng, b"load=%d" % rng.randrange(9))
        sticky = session.own.get(f"hubgate-at-{ask.pool}", "")
        if not plain and upgrade is None and rng.random() < 0.02:
            sticky = ""
            cookie = b"; ".join(part for part in cookie.split(b"; ") if not part.startswith(b"hubgate-at-"))
        spoken_fields = sent if plain or upgrade is not None or rng.random() < 0.9 else with_spoofs(sent, rng)
        http10 = not plain and upgrade is None and not framing and rng.random() < 0.04
        if http10:
            spoken_fields = [pair for pair in spoken_fields if pair[0] not in {b"Connection", b"X-Listed"}]
            spoken_fields.append((b"Connection", b"keep-alive"))
        lines = [(b"Host", self.netloc), *spoken_fields, (b"Cookie", cookie)]
        if rng.random() < 0.3:
            lines[1:] = [lines[-1], *lines[1:-1]]  # the cookie first
        if upgrade is not None:
            lines += [pair for pair in upgrade if pair[0] in {b"Connection", b"Upgrade"}]
        version = b"HTTP/1.0" if http10 else b"HTTP/1.1"
        block = spoken(lines) + framing
        if hash(block) not in self._blocks:
            self._blocks.add(hash(block))
            self.novel += len(block)
        head = b"%b %b %b\r\n%b\r\n" % (method.encode(), ask.target.encode(), version, block)
        return Sent(ask, session, head, marks.digest(sent, seen), sticky, http10, upgrade is not None)

    def _again(self, line: Line) -> Sent:
        """A plain GET that this connection carries word by word more than once."""
        session = self.rng.choice(self.sessions)
        number = self.rng.randrange(3)
        key = (session, number)
        sent: Sent | None = line.again.get(key)
        if sent is None:
            how = self.rng.choice(
                ("sized",) * 6 + ("chunked", "not_modified", "no_content", "moody", "moody", "closing", "interim")
            )
            fields = self.rng.choice(session.sets)
            size = self.rng.choice(_SIZES[:12])
            sent = line.again[key] = self.request(
                how, session=session, fields=fields, size=max(size, 64) if how == "moody" else size, plain=True
            )
        return sent

    def _well(self) -> str:
        if self.rng.random() < 0.2:
            return self.rng.choice(tuple(catalogue.BAD))
        names = tuple(catalogue.WELL)
        (how,) = self.rng.choices(names, [_WELL_WEIGHTS.get(name, 4) for name in names])
        return how

    def _dealt(self, kind: str) -> str | None:
        for card in self._deck:
            if card[0] == kind:
                self._deck.remove(card)
                return card[1]
        return None

    async def _spoken(self, line: Line, data: bytes, *, pieces: int = 0) -> None:
        """Send, in up to so many segments; 0: mostly in one."""
        if not pieces:
            pieces = self.rng.randint(2, 6) if self.rng.random() < 0.12 else 1
        line.used += 1
        with contextlib.suppress(ConnectionError):  # whoever reads the answer finds out
            if pieces == 1 or len(data) < 2:
                await line.send(data)
                return
            ends = sorted({self.rng.randrange(1, len(data)) for _ in range(pieces - 1)} | {len(data)})
            for begin, end in itertools.pairwise([0, *ends]):
                await line.send(data[begin:end])
                await asyncio.sleep(self.rng.random() * 0.01)

    async def _apart(self, line: Line, requests: Sequence[bytes]) -> None:
        """Send each in a segment of its own, without waiting for answers; now and then cut across the borders."""
        shift = self.rng.choice((0, 0, 10))
        data = b"".join(requests)
        ends = [end - min(shift, len(requests[0]) - 1) for end in itertools.accumulate(map(len, requests))][:-1]
        pause = self.rng.choice((0.0, 0.001, 0.004))
        line.used += len(requests)
        with contextlib.suppress(ConnectionError):
            for begin, end in itertools.pairwise([0, *ends, len(data)]):
                await line.send(data[begin:end])
                await asyncio.sleep(self.rng.random() * pause)

    # -- answers

    def judge(self, sent: Sent, line: Line, answer: Answer) -> None:
        """Hold an answer against its request. Raises AssertionError."""
        ask = sent.ask
        how = self.did.pop(ask.mark, "unseen") if ask.how == "moody" else ask.how
        if sent.http10 and not answer.values(b"Content-Length") and BROKEN in catalogue.GET.get(how, ()):
            # HTTP/1.0 without a length has no other sign of a cut than a reset, which may come or not.
            answer.broken = answer.broken or answer.status not in OF_THE_GATEWAY
        outcome = BROKEN if answer.broken else answer.status
        upload = ask.up > 0 or (ask.up == 0 and ask.method == "POST")
        if how == "unseen" or outcome not in catalogue.allowed(how, ask.method, upload=upload, upgrade=sent.upgrade):
            raise Malformed(f"{sent}: {how} led to {outcome}, {answer.fields} {answer.body[:200]!r}")
        name = how if ask.how != "moody" else f"moody {how}"
        if upload:
            self._forget(ask=ask)
        self.ledger.count(f"{'upload ' if upload else 'socket ' if sent.upgrade else ''}{name}", outcome)
        if not answer.broken:
            self.ledger.answers[answer.status] += 1
        if answer.status in OF_THE_GATEWAY:
            if answer.values(marks.FIELD) or b"X-Soak" in answer.body or answer.values(b"Set-Cookie"):
                raise Malformed(f"{sent}: a refusal with a hub's words in it: {answer}")
        elif answer.status:
            self._judge_hubs(sent, how, line, answer)

    def _judge_hubs(self, sent: Sent, how: str, line: Line, answer: Answer) -> None:
        ask, session = sent.ask, sent.session
        values = answer.values(marks.FIELD)
        if len(values) != 1:
            raise Malformed(f"{sent}: {len(values)} times X-Soak: {answer.fields}")
        said = Said.read(values[0])
        user = ask.user if ask.zone == "hub" else marks.NOBODY
        hub = session.hubs.setdefault(ask.pool, said.hub)
        expected = Said(ask.mark, said.serial, how, user, user, hub, sent.digest)
        if said != expected:
            raise Malformed(f"{sent}: the answer of {said}, expected {expected}")
        if said.serial <= line.serial:
            raise Malformed(f"{sent}: an old answer, {said.serial} after {line.serial}")
        line.serial = said.serial
        if ask.method == "HEAD" or answer.status in {101, 204, 304}:
            lengths = answer.values(b"Content-Length")
            if answer.body or (lengths and lengths != [b"%d" % ask.size]):
                raise Malformed(f"{sent}: no body is {lengths} {answer.body[:100]!r}")
        else:
            content = said.content(ask.user, ask.size)
            whole = answer.body == content or (answer.broken and content.startswith(answer.body))
            if not whole:
                at = next((i for i, (a, b) in enumerate(zip(content, answer.body, strict=False)) if a != b), -1)
                raise Malformed(
                    f"{sent}: a body of {len(answer.body)} instead of {len(content)} bytes, another one from {at} on: "
                    f"{answer.body[max(at, 0) : at + 80]!r}"
                )
        self._judge_cookies(sent, said, answer)

    def _judge_binding(self, sent: Sent, ours: list[bytes]) -> None:
        """The cookie of a browser's hub comes to one who did not say it. After an interruption of what the gateway
        hears from the store it is a new one, and comes to those, too, who said the old one."""
        name = f"hubgate-at-{sent.ask.pool}"
        given, _, value = ours[0].decode().partition(";")[0].partition("=") if len(ours) == 1 else ("", "", "")
        if given != name or value == sent.sticky:
            raise Malformed(f"{sent} with {sent.sticky!r}: cookies of ours: {ours}")
        if self._bindings.setdefault(value, sent.session) is not sent.session:
            raise Malformed(f"{sent}: another's cookie: {ours}")
        if value != sent.session.own[name]:
            self.ledger.count("bound anew", sent.ask.pool)
            sent.session.bound(name, value)

    def _judge_cookies(self, sent: Sent, said: Said, answer: Answer) -> None:
        session = sent.session
        given = answer.values(b"Set-Cookie")
        ours = [cookie for cookie in given if cookie.startswith(b"hubgate")]
        theirs = [cookie for cookie in given if not cookie.startswith(b"hubgate")]
        if ours or not sent.sticky:
            self._judge_binding(sent, ours)
        # A hub's cookie that isn't this person's is taken out of the browser, wherever it may live.
        gone = [cookie for cookie in theirs if cookie.startswith(FOREIGN + b"=;")]
        theirs = [cookie for cookie in theirs if cookie not in gone]
        sent_it = FOREIGN + b"=" in sent.data
        if bool(gone) != sent_it or not all(b"Max-Age=0" in cookie for cookie in gone):
            raise Malformed(f"{sent}: a foreign cookie {'came' if sent_it else 'did not come'}, and {gone} are gone")
        untagged = b"%b-%d" % (session.user.encode(), said.serial)
        due = said.user != marks.NOBODY and said.serial % 7 == 0 and answer.status != 101
        if not due:
            if theirs:
                raise Malformed(f"{sent}: cookies of the hub's: {theirs}")
            return
        (cookie,) = theirs
        value = cookie.partition(b";")[0].removeprefix(b"jupyterhub-soak=")
        if value.partition(b".")[2] != untagged:
            raise Malformed(f"{sent}: somebody else's cookie: {cookie!r}")
        if not session.tagged or self.rng.random() < 0.01:
            session.take(value, untagged)

    # -- what clients do

    async def ask(self) -> None:
        """Some GETs and HEADs on one connection, in turn in the name of several sessions."""
        line = await self.line()
        for _ in range(self.rng.choice((1, 2, 3, 6))):
            how = self._dealt("GET")
            if how is None and self.rng.random() < 0.6:
                sent = self._again(line)
            else:
                how = how or self._well()
                method = "HEAD" if how in catalogue.WELL and self.rng.random() < 0.1 else "GET"
                # What is cut must have something left to be cut, and what is to come at once must be one segment.
                size = self.rng.choice(_SMALL[2:]) if how in catalogue.BAD else None
                sent = self.request(how, method=method, size=size, pause=self.rng.randint(0, 300))
            await self._spoken(line, sent.data)
            answer = await line.answer(sent.ask.method, http10=sent.http10)
            self.judge(sent, line, answer)
            if not answer.keep or answer.broken:
                break
        await self.put_back(line, answer)

    async def pipeline(self) -> None:
        """Many requests without waiting, in one write or in many; answers in their order."""
        line = await self.line()
        asked: list[Sent | str] = []
        data: list[bytes] = []
        for _ in range(self.rng.choice((2, 3, 5, 12, 24))):
            dice = self.rng.random()
            if dice < 0.55:
                sent = self._again(line)
                if sent.ask.how == "moody":
                    continue  # what it did last would have been asked for before the first answer is read
            elif dice < 0.7:
                how = self.rng.choice(("sized", "chunked", "thinking", "twice", "two_lengths", "closing", "no_content"))
                sent = self.request(how, size=self.rng.choice(_SMALL), pause=self.rng.randint(0, 30))
            elif dice < 0.8:
                sent = self.request("sized", method="HEAD", size=self.rng.choice(_SMALL))
            elif dice < 0.95:
                up = self.rng.choice((0, 1, 500, 5_000))
                framing = b"Content-Length: %d\r\n" % up
                sent = self.request("sized", method="POST", up=up, size=self.rng.choice(_SMALL), framing=framing)
                sent.data += marks.uploaded(sent.ask)
            else:
                asked.append("/_hubgate/jwks.json")
                data.append(b"GET /_hubgate/jwks.json HTTP/1.1\r\nHost: %b\r\n\r\n" % self.netloc)
                continue
            if sent.http10:
                continue
            asked.append(sent)
            data.append(sent.data)
        if not asked:
            await self.put_back(line, Answer(keep=True))
            return
        # Apart, each request meets the one before it at another point of its way.
        sending = asyncio.create_task(
            self._apart(line, data) if self.rng.random() < 0.5 else self._spoken(line, b"".join(data))
        )
        try:
            for each in asked:
                if isinstance(each, str):
                    answer = await line.answer()
                    if answer.status != 200 or not answer.body.startswith(b"{") or answer.values(marks.FIELD):
                        raise Malformed(f"{each}: {answer}")
                    continue
                answer = await line.answer(each.ask.method)
                self.judge(each, line, answer)
                if not answer.keep or answer.broken:
                    raise Malformed(f"{each}: the end of a pipeline: {answer}")
        finally:
            await sending
        self.ledger.count("pipelined", "in order")
        await self.put_back(line, answer)

    async def upload(self) -> None:
        """A request with a body of any size, framed in any way."""
        rng = self.rng
        how = self._dealt("UP") or rng.choices(tuple(catalogue.UPLOADS), (30, 6, 6, 3, 3, 3, 2, 2, 2, 3))[0]
        up = rng.choice((1, 10, 500, 5_000, 60_000, 120_000, 300_000) + ((3_000_000,) if rng.random() < 0.1 else ()))
        chunked, expect = rng.random() < 0.4, rng.choice(("", "", "wait", "hasten"))
        framing = b"Transfer-Encoding: chunked\r\n" if chunked else b"Content-Length: %d\r\n" % up
        if expect:
            framing += b"Expect: 100-continue\r\n"
        method = rng.choice(("POST", "PUT", "PATCH", "GET"))
        sent = self.request(
            how, method=method, up=up, size=rng.choice(_SMALL[1:]), pause=rng.randint(0, 300), framing=framing
        )
        body = marks.uploaded(sent.ask)
        if chunked:
            body = self._chunks(body)
        line = await self.line(new=rng.random() < 0.2)
        line.used += 1
        head_alone = expect == "wait" or rng.random() < 0.3
        if head_alone:
            await line.send(sent.data)
            if expect == "wait":
                answer = await line.answer(method)
                if answer.status != 100:
                    raise Malformed(f"{sent}: a 100 was expected: {answer}")
        whole = body if head_alone else sent.data + body
        sending = asyncio.create_task(self._spoken(line, whole, pieces=rng.choice((1, 1, 1, 4, 12))))
        answer = await line.answer(method)
        if expect == "hasten" and answer.status == 100:
            answer = await line.answer(method)
        if not answer.broken and answer.keep:
            # The gateway has taken all of it, or it would not keep the connection.
            async with asyncio.timeout(PATIENCE):
                await sending
        self.judge(sent, line, answer)
        if not sending.done():
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        if how in {"early", "refusing"} and not answer.keep:
            line.reset()
            return
        await self.put_back(line, answer)

    def _chunks(self, body: bytes) -> bytes:
        """A request's body in chunks, with extensions and trailers as they come."""
        parts = []
        at = 0
        while at < len(body):
            size = self.rng.choice((1, 100, 5_000, 70_000, 1_000_000))
            piece = body[at : at + size]
            extension = b';soak="x"' if self.rng.random() < 0.2 else b""
            parts.append(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece))
            at += size
            if len(parts) > 20:
                parts.append(b"%x\r\n%b\r\n" % (len(body) - at, body[at:]) if at < len(body) else b"")
                break
        trailer = b"X-Hubgate-Assertion: forged\r\n" if self.rng.random() < 0.2 else b""
        return b"".join(parts) + b"0\r\n" + trailer + b"\r\n"

    async def socket(self) -> None:
        """A WebSocket: some messages, each with its mark, and one of many ends."""
        rng = self.rng
        how = self._dealt("WS") or rng.choices(tuple(catalogue.SOCKETS), (20, 2, 2, 2, 2))[0]
        key = base64.b64encode(rng.randbytes(16))
        handshake: Fields = [
            (b"Connection", rng.choice((b"Upgrade", b"keep-alive, Upgrade"))),
            (b"Upgrade", b"websocket"),
            (b"Sec-WebSocket-Version", b"13"),
            (b"Sec-WebSocket-Key", key),
            (b"Origin", b"http://" + self.netloc),
        ]
        sent = self.request(how, fields=never_again(rng)[:8], size=rng.choice(_SMALL), upgrade=handshake)
        mine = sent.ask.mark.encode()
        line = await self.line()
        early = frame(TEXT, mine + b" early", rng.randbytes(4)) if how == "echo" and rng.random() < 0.3 else b""
        await self._spoken(line, sent.data + early)
        answer = await line.answer()
        self.judge(sent, line, answer)
        if answer.status != 101:
            await self.put_back(line, answer)
            return
        try:
            async with asyncio.timeout(PATIENCE * 2):
                await self._conversation(line, mine, early=bool(early))
        finally:
            line.reset()

    async def _conversation(self, line: Line, mine: bytes, *, early: bool) -> None:
        rng, reader = self.rng, line.reader

        async def heard(kind: int, payload: bytes) -> None:
            got = await read_frame(reader)
            if got != (kind, payload):
                raise Malformed(f"the socket {mine!r} got {got[0]} {got[1][:80]!r} of {len(got[1])} bytes")

        await heard(TEXT, b"hello " + mine)
        if early:
            await heard(TEXT, mine + b" early")
        for number in range(rng.choice((1, 3, 10, 40))):
            size = rng.choice((0, 20, 20, 100, 100, 1_000, 70_000, 300_000))
            message = b"%b %d %b" % (mine, number, marks.content(f"{mine!r} {number}", size))
            await line.send(frame(BINARY, message, rng.randbytes(4)))
            if rng.random() < 0.1:
                await line.send(frame(PING, mine, rng.randbytes(4)))
                await heard(BINARY, message)
                await heard(PONG, mine)
            else:
                await heard(BINARY, message)
            if rng.random() < 0.3:
                await asyncio.sleep(rng.random() * 0.05)
        end = rng.choice(("close", "reset", "half", "hub_closes", "hub_resets"))
        match end:
            case "close":
                await line.send(frame(CLOSE, b"\x03\xe8" + mine, rng.randbytes(4)))
                await heard(CLOSE, b"\x03\xe8" + mine)
            case "half":
                line.writer.write_eof()
            case "hub_closes":
                await line.send(frame(TEXT, mine + b" close", rng.randbytes(4)))
                await heard(CLOSE, b"\x03\xe8" + mine)
                line.close()
            case "hub_resets":
                await line.send(frame(TEXT, mine + b" reset", rng.randbytes(4)))
            case _:
                line.reset()
        if end not in {"reset", "hub_closes"} and not await line.ended():
            raise Malformed(f"the socket {mine!r} was left open after {end}")
        self.ledger.count("socket ended by", end)

    async def vanish(self) -> None:
        """Leave, somewhere in the middle."""
        rng = self.rng
        line = await self.line()
        where = rng.choice(("head", "waiting", "thinking", "dripping", "body", "upload", "pipeline"))
        how = {"waiting": "silent", "dripping": "dripping", "body": "sized", "upload": "slow_taker"}.get(
            where, "thinking"
        )
        up = rng.choice((5_000, 300_000)) if where == "upload" else -1
        size = 1_000_000 if where == "body" else 1_000
        framing = b"" if up < 0 else rng.choice((b"Content-Length: %d\r\n" % up, b"Transfer-Encoding: chunked\r\n"))
        method = "PUT" if up > 0 else "GET"
        sent = self.request(how, method=method, prefix="gone", size=size, up=up, pause=200, framing=framing)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            match where:
                case "head":
                    await line.send(sent.data[: rng.randrange(1, len(sent.data))])
                case "upload":
                    part = marks.uploaded(sent.ask)[: rng.randrange(0, up)]
                    if framing.startswith(b"Transfer"):
                        part = b"%x\r\n%b" % (up, part)
                    await line.send(sent.data + part)
                    await asyncio.sleep(rng.random() * 0.05)
                case "pipeline":
                    others = [self.request("sized", size=5_000, prefix="gone").data for _ in range(rng.randint(1, 20))]
                    await line.send(sent.data + b"".join(others))
                    await asyncio.sleep(rng.random() * 0.05)
                case "dripping" | "body":
                    await line.send(sent.data)
                    await line.reader.readexactly(rng.choice((1, 200, 2_000 if where == "body" else 300)))
                case _:
                    await line.send(sent.data)
                    await asyncio.sleep(rng.random() * 0.1)
        match rng.choice(("reset", "close", "half")):
            case "reset":
                line.reset()
            case "close":
                line.close()
            case _:
                with contextlib.suppress(ConnectionError):
                    line.writer.write_eof()
                    async with asyncio.timeout(PATIENCE):
                        await line.reader.read()
                line.close()
        self.ledger.count("vanished", where)
        self._forget(ask=sent.ask)

    def _forget(self, *, ask: Ask) -> None:
        """Its body has come, or never will."""
        for hub in self.hubs.values():
            hub.begun.discard(ask.mark)

    async def read_slowly(self) -> None:
        """Take an answer in small sips, on a connection whose kernel takes little ahead."""
        line = await Line.open(self.port, receive_buffer=8192)
        self.lines += 1

        async def sip() -> None:
            await asyncio.sleep(self.rng.random() * 0.02)

        sent = self.request(
            self.rng.choice(("sized", "chunked", "until_close")), size=self.rng.choice((300_000, 700_000))
        )
        await self._spoken(line, sent.data)
        answer = await line.answer(http10=sent.http10, pace=sip)
        self.judge(sent, line, answer)
        self.ledger.count("read slowly", answer.status)
        line.close()

    async def send_slowly(self) -> None:
        """A head in many small segments, then perhaps a body likewise."""
        up = self.rng.choice((-1, -1, 2_000))
        framing = b"Content-Length: %d\r\n" % up if up > 0 else b""
        fields = self.rng.choice(self.sessions[0].sets)
        sent = self.request(
            "sized", method="POST" if up > 0 else "GET", up=up, size=200, framing=framing, fields=fields
        )
        line = await self.line()
        await self._spoken(line, sent.data + marks.uploaded(sent.ask), pieces=40)
        answer = await line.answer(http10=sent.http10)
        self.judge(sent, line, answer)
        self.ledger.count("sent slowly", answer.status)
        await self.put_back(line, answer)

    async def own_pages(self) -> None:
        """The gateway's own pages between forwarded requests: they name who is logged in."""
        session = self.rng.choice(self.sessions)
        cookie, _ = session.cookies(self.rng)
        line = await self.line()
        lines: Fields = [(b"Host", self.netloc), (b"Accept", b"text/html"), (b"Cookie", cookie)]
        await self._spoken(line, b"GET / HTTP/1.1\r\n" + spoken(lines) + b"\r\n")
        answer = await line.answer()
        others = {other.user.encode() for other in self.sessions} - {session.user.encode()}
        body = answer.body.lower()
        if answer.status != 200 or session.user.encode() not in body or any(other in body for other in others):
            raise Malformed(f"the landing page of {session}: {answer}")
        self.ledger.answers[answer.status] += 1
        self.ledger.count("landing page", answer.status)
        await self.put_back(line, answer)

    async def stranger(self) -> None:
        """Without a session, or with one that never was, on a connection that others use, too."""
        rng = self.rng
        line = await self.line()
        sent = self.request("sized", fields=[], plain=True, size=10)
        made_up = b"Cookie: hubgate=%b\r\n" % (b"A" * 43)
        cookie = rng.choice((b"", made_up, b"Cookie: load=1\r\n"))
        for target in rng.sample((sent.ask.target, "/htc/hub/home", "/htc/user/somebody/lab", "/hpc/hub/x"), 2):
            request = b"GET %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (target.encode(), self.netloc, cookie)
            await self._spoken(line, request)
            answer = await line.answer()
            await self.refused(answer)
        await self.put_back(line, answer)

    async def refused(self, answer: Answer) -> None:
        """This must be a 401 of the gateway's. Raises `Malformed`."""
        if (
            answer.status != 401
            or answer.broken
            or answer.values(marks.FIELD)
            or b"session_required" not in answer.body
        ):
            raise Malformed(f"somebody without a session got {answer}")
        self.ledger.answers[401] += 1
        self.ledger.count("stranger", 401)

    # -- what only one client at a time may do

    async def wake_idle(self) -> None:
        """A hub speaks on a connection that waits: the connection is dropped, and the next one to ask gets his own."""
        index = self.rng.randrange(len(catalogue.IDLE))
        line = await self.line()
        first = self.request("idle", pool="odd", size=200, pause=index, plain=True)
        hub = self.hubs["odd01"]
        await self._spoken(line, first.data, pieces=1)
        answer = await line.answer()
        self.judge(first, line, answer)
        async with asyncio.timeout(PATIENCE):
            while first.ask.mark not in hub.idle:
                await asyncio.sleep(0)
            await hub.idle.pop(first.ask.mark).wait()
        for _ in range(2):
            sent = self.request("sized", pool="odd", size=200)
            await self._spoken(line, sent.data)
            answer = await line.answer(http10=sent.http10)
            self.judge(sent, line, answer)
            if not answer.keep:
                break
        self.ledger.count("spoken on an idle connection", catalogue.IDLE[index])
        await self.put_back(line, answer)

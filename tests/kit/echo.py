"""A server in place of a hub, which keeps exactly what it received and tells it.

It answers everything below any path: JSON with what it got, `hub/health` with 200, a WebSocket handshake with an echo,
and what the gateway itself asks about tokens.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from aiohttp import WSMsgType, web


@dataclass(frozen=True)
class Received:
    """One request as it stood on the wire."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def values(self, name: str) -> list[str]:
        """All values of a header, compared as servers do: in any case."""
        return [value for given, value in self.headers if given.lower() == name.lower()]

    def lookalikes(self, name: str) -> list[tuple[str, str]]:
        """Headers that a CGI-like server would take for `name`: dashes, dots, blanks and underscores are one."""
        return [(given, value) for given, value in self.headers if _folded(given) == _folded(name)]


class Echo:
    """An upstream. `received` holds everything but the gateway's own questions, oldest first.

    `tokens`: whose they are, by token, with what differs from a person's own (as `GET hub/api/user` tells it); `asked`:
    the tokens that the gateway asked about. `silent`: it doesn't tell, or `says` this instead of the truth. `revokes`:
    the status with which it answers who would have a token revoked.
    """

    def __init__(self, name: str = "echo") -> None:
        self.name = name
        self.received: list[Received] = []
        self.url = ""
        self.healthy = True
        self.tokens: dict[str, dict[str, object]] = {}
        self.asked: list[str] = []
        self.silent = False
        self.says: tuple[int, bytes] | None = None
        self.revokes = 204

    def gives(self, token: str, name: str, **more: object) -> str:
        """Let somebody have this token."""
        self.tokens[token] = {
            "kind": "user",
            "name": name,
            "token_id": f"a{len(self.tokens)}",
            "session_id": None,
        } | more
        return token

    def app(self) -> web.Application:
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{path:.*}", self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/hub/health"):
            return web.Response(status=200 if self.healthy else 503)
        if request.path.endswith("/hub/api/user") and request.headers.get("User-Agent") == "hubgate":
            return self._whose(request.headers["Authorization"].removeprefix("token "))
        if request.method == "DELETE" and request.headers.get("User-Agent") == "hubgate":
            return self._revoked(request.path)
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers)
        if request.headers.get("Upgrade", "").lower() == "websocket":
            self.received.append(Received(request.method, request.raw_path, headers, b""))
            return await self._echo_messages(request)
        body = await request.read()
        got = Received(request.method, request.raw_path, headers, body)
        self.received.append(got)
        told = {
            "upstream": self.name,
            "method": got.method,
            "target": got.target,
            "headers": got.headers,
            "length": len(body),
        }
        return web.Response(text=json.dumps(told), content_type="application/json")

    def _whose(self, token: str) -> web.Response:
        self.asked.append(token)
        if self.silent:
            return web.Response(status=500)
        if self.says is not None:
            return web.Response(status=self.says[0], body=self.says[1])
        model = self.tokens.get(token)
        return web.json_response(model or {"status": 403, "message": "Forbidden"}, status=200 if model else 403)

    def _revoked(self, path: str) -> web.Response:
        of, _, name = path.partition("/hub/api/users/")[2].partition("/tokens/")
        found = [token for token, model in self.tokens.items() if (model["name"], model["token_id"]) == (of, name)]
        if self.revokes == 204:
            for token in found:
                del self.tokens[token]
        return web.Response(status=self.revokes if found else 404)

    async def _echo_messages(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        return socket


def _folded(name: str) -> str:
    folded = "".join("-" if char in "-_. " else char for char in name.lower())
    return folded.removeprefix("http-")

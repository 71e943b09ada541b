"""What JupyterLab's script does in a browser, done by hand: spawn, contents, kernels, terminals."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from tests.kit.person import FETCH, Page, Person


class Notebooks:
    """One user's notebook server behind the gateway. `base`: the pool's address, e.g. `http://127.0.0.1:1/htc/`."""

    def __init__(self, browser: Person, base: str, username: str) -> None:
        self.browser = browser
        self.base = base
        self.username = username
        self.server = f"{base}user/{quote(username)}/"
        self.origin = str(URL(base).origin())

    def _xsrf(self, url: str) -> str:
        return self.browser.cookies(url).get("_xsrf", "")

    async def spawn(self) -> list[dict[str, Any]]:
        """Ask for the server as the hub's page does, and follow until it runs: the events, as they came."""
        await self.browser.get(f"{self.base}hub/spawn", follow=False)
        page = await self.browser.get(f"{self.base}hub/spawn-pending/{quote(self.username)}", follow=False)
        if page.status not in {200, 302}:
            raise AssertionError(page)
        return [event async for event in self.progress()]

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """Server-sent events of the spawn, each as soon as it is there, until the one that says ready or failed."""
        url = f"{self.base}hub/api/users/{quote(self.username)}/server/progress?_xsrf={self._xsrf(self.base + 'hub/')}"
        headers = {**FETCH, "Accept": "text/event-stream"}
        async with self.browser.session.get(URL(url, encoded=True), headers=headers) as response:
            if response.status != 200:
                raise AssertionError(f"{response.status} {await response.text()}")
            async for line in response.content:
                if line.startswith(b"data:"):
                    event = json.loads(line.removeprefix(b"data:"))
                    yield event
                    if event.get("ready") or event.get("failed"):
                        return

    async def lab(self) -> Page:
        """The page itself; sets the cookies that all else needs."""
        return await self.browser.get(f"{self.server}lab")

    async def call(self, method: str, path: str, body: object = None) -> Page:
        """The server's API as a script calls it; `path` below the server, quoted."""
        data = None if body is None else json.dumps(body)
        headers = {"X-XSRFToken": self._xsrf(self.server), "Origin": self.origin}
        if data is not None:
            headers["Content-Type"] = "application/json"
        return await self.browser.fetch(f"{self.server}{path}", method, data=data, headers=headers)

    def socket(self, path: str, **options: Any) -> Any:
        """A WebSocket below the server: an async context manager of aiohttp's."""
        headers: Mapping[str, str] = {"Origin": self.origin, **options.pop("headers", {})}
        url = URL(f"{self.server}{path}", encoded=True)
        return self.browser.session.ws_connect(url, headers=headers, max_msg_size=0, **options)

    async def start_kernel(self) -> str:
        """A Python kernel; its id."""
        page = await self.call("POST", "api/kernels", {"name": "python3"})
        if page.status != 201:
            raise AssertionError(page)
        return str(json.loads(page.text)["id"])

    async def run(self, socket: aiohttp.ClientWebSocketResponse, code: str) -> str:
        """What `code` prints in the kernel whose channels `socket` is."""
        request = _message("execute_request", {"code": code, "silent": False, "store_history": False})
        await socket.send_str(json.dumps(request))
        printed = ""
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            answer = json.loads(message.data)
            if answer["parent_header"].get("msg_id") != request["header"]["msg_id"]:
                continue
            match answer["msg_type"]:
                case "stream":
                    printed += answer["content"]["text"]
                case "error":
                    raise AssertionError(answer["content"])
                case "status" if answer["content"]["execution_state"] == "idle":
                    return printed
        raise AssertionError(f"the socket ended with {socket.close_code} before the kernel was done")

    async def stop(self) -> None:
        """Stops the server, so that a run with many users doesn't keep them all."""
        url = f"{self.base}hub/api/users/{quote(self.username)}/server"
        headers = {"X-XSRFToken": self._xsrf(self.base + "hub/"), "Origin": self.origin}
        page = await self.browser.fetch(url, "DELETE", headers=headers)
        if page.status not in {202, 204, 404}:
            raise AssertionError(page)


def _message(kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
    header = {
        "msg_id": uuid.uuid4().hex,
        "msg_type": kind,
        "username": "",
        "session": uuid.uuid4().hex,
        "date": "",
        "version": "5.3",
    }
    return {
        "header": header,
        "parent_header": {},
        "metadata": {},
        "content": dict(content),
        "channel": "shell",
        "buffers": [],
    }

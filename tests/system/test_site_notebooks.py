"""A day's work through the gateway, on a real JupyterHub: JupyterLab, kernels, terminals, large and odd files."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import random
from collections.abc import AsyncIterator
from urllib.parse import quote

import aiohttp
import pytest
import pytest_asyncio

from tests.kit.notebooks import Notebooks
from tests.kit.site import RunningSite, Visitor

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1 << 20
LARGE = 50 * MIB


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def work(site: RunningSite) -> AsyncIterator[Notebooks]:
    """Somebody whose server runs and who has JupyterLab open."""
    somebody = Visitor(site, site.browser(), site.keycloak.create_user())
    page = await somebody.arrive("/htc/hub/home")
    assert page.status == 200, page
    notebooks = Notebooks(somebody.browser, somebody.at("/htc/"), somebody.user.username)
    await notebooks.spawn()
    page = await notebooks.lab()
    assert page.status == 200, page
    yield notebooks
    await notebooks.stop()
    await somebody.browser.session.close()


async def test_jupyterlab_is_there_with_its_parts(work: Notebooks) -> None:
    page = await work.lab()
    assert page.url == f"{work.server}lab"
    assert "jupyter-config-data" in page.text
    static = await work.browser.get(f"{work.server}static/favicons/favicon.ico")
    assert static.status == 200
    status = await work.call("GET", "api/status")
    assert status.status == 200
    assert "connections" in json.loads(status.text)


async def test_a_kernel_computes_over_its_socket(work: Notebooks) -> None:
    kernel = await work.start_kernel()
    async with work.socket(f"api/kernels/{kernel}/channels") as channels:
        assert await work.run(channels, "print(6 * 7)") == "42\n"
        assert await work.run(channels, "import os; print(os.environ['JUPYTERHUB_USER'])") == f"{work.username}\n"


async def test_a_terminal_answers_over_its_socket(work: Notebooks) -> None:
    page = await work.call("POST", "api/terminals", {})
    assert page.status == 200, page
    name = json.loads(page.text)["name"]
    said = ""
    async with work.socket(f"terminals/websocket/{name}") as terminal, asyncio.timeout(60):
        await terminal.send_str(json.dumps(["stdin", "echo $((6*7))-through-the-gateway\r"]))
        async for message in terminal:
            if message.type is aiohttp.WSMsgType.TEXT:
                kind, *rest = json.loads(message.data)
                said += str(rest[0]) if kind == "stdout" else ""
                if "42-through-the-gateway" in said:
                    break
    assert "42-through-the-gateway" in said


async def test_fifty_megabytes_go_up_and_come_down_unchanged(work: Notebooks) -> None:
    content = random.Random(3).randbytes(LARGE)
    body = {"type": "file", "format": "base64", "content": base64.b64encode(content).decode()}
    up = await work.call("PUT", "api/contents/large.bin", body)
    assert up.status == 201, up
    kernel = await work.start_kernel()
    async with work.socket(f"api/kernels/{kernel}/channels") as channels:
        there = await work.run(
            channels, "import hashlib; print(hashlib.sha256(open('large.bin', 'rb').read()).hexdigest())"
        )
    assert there.strip() == hashlib.sha256(content).hexdigest()
    down = await work.browser.get(f"{work.server}files/large.bin?download=1")
    assert down.status == 200
    assert hashlib.sha256(down.body).hexdigest() == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    "name", ["a b+c.txt", "50%.txt", "50%2F.txt", "ä ü 日本.txt", "q?x=1&y#z.txt", "semi;colon.txt", "'quote\".txt"]
)
async def test_a_file_keeps_its_name_however_it_is_encoded(work: Notebooks, name: str) -> None:
    path = quote(name, safe="")
    up = await work.call("PUT", f"api/contents/{path}", {"type": "file", "format": "text", "content": name})
    assert up.status == 201, up
    assert json.loads(up.text)["name"] == name
    down = await work.browser.get(f"{work.server}files/{path}")
    assert (down.status, down.text) == (200, name)
    listing = json.loads((await work.call("GET", "api/contents/")).text)
    assert name in [entry["name"] for entry in listing["content"]]


async def test_a_slash_may_be_encoded_in_a_file_path(work: Notebooks) -> None:
    assert (await work.call("PUT", "api/contents/folder", {"type": "directory"})).status == 201
    body = {"type": "file", "format": "text", "content": "inside"}
    assert (await work.call("PUT", "api/contents/folder%2Finside.txt", body)).status == 201
    page = await work.browser.get(f"{work.server}files/folder%2Finside.txt")
    assert (page.status, page.text) == (200, "inside")


async def test_a_refused_handshake_is_told_as_the_server_told_it(work: Notebooks) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with work.socket("api/kernels/00000000-0000-0000-0000-000000000000/channels"):
            raise AssertionError("there is no such kernel")
    assert refused.value.status == 404


async def test_a_foreign_page_opens_no_socket(work: Notebooks) -> None:
    kernel = await work.start_kernel()
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with work.socket(f"api/kernels/{kernel}/channels", headers={"Origin": "https://evil.example"}):
            raise AssertionError("opened for a foreign page")
    assert refused.value.status == 403

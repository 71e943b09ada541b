"""docs/configuration.md, "Programs": what it types, with a token of a hub behind the gateway."""

from __future__ import annotations

import asyncio
import json
import secrets
from pathlib import Path
from typing import Any

from tests.docs.letters import follow, placed, typed
from tests.kit.stand import stand


def takes_tokens(document: dict[str, Any]) -> None:
    for pool in document["pools"]:
        pool["api_tokens"] = True


async def test_a_program_asks_the_hub_in_its_owners_name(tmp_path: Path) -> None:
    async with stand(takes_tokens) as site:
        async with await site.logged_in("alice"):
            pass
        token = site.hubs["htc01"].gives(secrets.token_hex(16), "alice")
        places = {"https://jupyter.example.org": site.url, "users/ada": "users/alice"}
        text = placed(follow("configuration.md", "program"), places)
        told = json.loads(await asyncio.to_thread(typed, text, cwd=tmp_path, env={"TOKEN": token}))
        assert told["upstream"] == "htc01", told
        (received,) = (each for each in site.received() if each.values("Authorization"))
        assert received.values("Authorization") == [f"token {token}"]

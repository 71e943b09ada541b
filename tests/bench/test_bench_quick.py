"""A commit that makes hubgate slower is seen: the gateway against nginx, each with a real process and a real Redis."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import quick
from tests.bench.peers import Absent
from tests.bench.workbench import standing
from tests.kit.missing import missing

pytestmark = [pytest.mark.nginx, pytest.mark.redis]


async def test_requests_and_messages_cost_no_multiple_of_what_they_should(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with standing(tmp_path, rounds=quick.ROUNDS) as bench:
        try:
            judged = await quick.judged(bench)
        except Absent as absent:
            missing("nginx", str(absent))
        for each in judged:
            print(each)
        assert not [str(each) for each in judged if each.slower]
        # And the gate can fail: nobody is this quick.
        monkeypatch.setattr(quick, "LIMITS", {"message": 0.1})
        monkeypatch.setattr(quick, "ROUNDS", 1)
        (impossible,) = await quick.judged(bench)
        assert impossible.slower

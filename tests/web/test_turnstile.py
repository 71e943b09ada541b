"""Newcomers in masses go one by one; one alone does not wait."""

import asyncio

from hubgate.web.turnstile import Turnstile


async def test_a_handful_does_not_wait() -> None:
    turnstile = Turnstile(3600.0, credit=3)
    for _ in range(3):
        await asyncio.wait_for(turnstile.passed(), 60)
    waiting = asyncio.create_task(turnstile.passed())  # but one more would
    await asyncio.sleep(0.01)
    assert not waiting.done()
    waiting.cancel()


async def test_a_crowd_passes_in_its_order_and_others_come_in_between() -> None:
    turnstile = Turnstile(0.01, credit=1)
    passed: list[int] = []
    turns = 0

    async def newcomer(number: int) -> None:
        await turnstile.passed()
        passed.append(number)

    began = asyncio.get_running_loop().time()
    crowd = asyncio.gather(*(newcomer(number) for number in range(10)))
    while not crowd.done():
        await asyncio.sleep(0)
        turns += 1
    assert passed == list(range(10))
    assert asyncio.get_running_loop().time() - began >= 0.09 - 0.001  # a loop's clock may have milliseconds
    assert turns > 10

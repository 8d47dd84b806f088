"""Absolute deadlines: in order, never early, for any number of waiters, by the kernel's timer or without one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from servemark.harness.clock import MS, now_ns
from servemark.harness.load import pacer as pacing
from servemark.harness.load.pacer import Pacer


@pytest.fixture(params=["kernel timer", "spin"])
async def pacer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pacer]:  # type: ignore[misc]
    if request.param == "spin":
        monkeypatch.setattr(pacing.sys, "platform", "darwin")
    elif pacing.sys.platform != "linux":
        pytest.skip("there is no timerfd here")
    made = Pacer()
    monkeypatch.undo()
    yield made
    made.close()


async def test_nobody_wakes_early_and_all_wake_in_order(pacer: Pacer) -> None:
    first_ns = now_ns() + 60 * MS
    deadlines = [first_ns + k * MS // 4 for k in range(200)]
    woke: list[int] = []

    async def wait(deadline_ns: int) -> None:
        await pacer.until(deadline_ns)
        assert now_ns() >= deadline_ns
        woke.append(deadline_ns)

    waiting = [asyncio.create_task(wait(each)) for each in random.Random(1).sample(deadlines, len(deadlines))]
    await asyncio.sleep(0)
    all_wait = now_ns() < first_ns  # else this machine is so slow that some never waited
    await asyncio.gather(*waiting)
    assert sorted(woke) == deadlines
    if all_wait and pacer._timer is not None:
        assert woke == deadlines


async def test_a_deadline_that_has_passed_costs_no_turn_of_the_loop(pacer: Pacer) -> None:
    turns: list[int] = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    await pacer.until(now_ns() - 1)
    await pacer.until(0)
    assert turns == []


async def test_a_nearer_deadline_overtakes_a_farther_one(pacer: Pacer) -> None:
    far = asyncio.create_task(pacer.until(now_ns() + 3600 * 1000 * MS))
    await asyncio.sleep(0)
    await asyncio.wait_for(pacer.until(now_ns() + 5 * MS), 30)
    assert not far.done()
    far.cancel()
    await asyncio.gather(far, return_exceptions=True)


async def test_who_gives_up_holds_up_nobody(pacer: Pacer) -> None:
    first = asyncio.create_task(pacer.until(now_ns() + 5 * MS))
    second = asyncio.create_task(pacer.until(now_ns() + 10 * MS))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait_for(second, 30)
    assert first.cancelled()


async def test_closing_lets_go_of_who_waits() -> None:
    made = Pacer()
    waiting = asyncio.create_task(made.until(now_ns() + 3600 * 1000 * MS))
    await asyncio.sleep(0)
    if pacing.sys.platform != "linux":
        waiting.cancel()
    made.close()
    made.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting

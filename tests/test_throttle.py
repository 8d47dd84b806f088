"""A cap on requests per minute: never exceeded in any minute, spread over it, first come first gone."""

from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from asyncio_throttle import throttler
from hypothesis import given, settings
from hypothesis import strategies as st

from servemark.harness.load import throttle as throttle_module
from servemark.harness.load.throttle import Throttle

SECOND = 1_000_000_000


class VirtualClock:
    """Time that only sleeping moves, and each sleep by as much too long as a busy machine makes it."""

    def __init__(self, overshoot_s: float) -> None:
        self.now_s = 1000.0
        self.overshoot_s = overshoot_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds + self.overshoot_s

    def now_ns(self) -> int:
        return round(self.now_s * SECOND)


def let_go(per_minute: int, count: int, overshoot_s: float = 0.0, every_s: float = 0.0) -> tuple[Throttle, list[float]]:
    """When each of so many requests may leave, in seconds, if one comes each `every_s`."""
    clock = VirtualClock(overshoot_s)
    found = []

    async def run() -> Throttle:
        made = Throttle(per_minute)
        for k in range(count):
            clock.now_s = max(clock.now_s, 1000.0 + k * every_s)
            await made.let_go(clock.now_ns())
            found.append(clock.now_s - 1000.0)
        return made

    with (
        patch.object(throttler, "time", SimpleNamespace(monotonic=lambda: clock.now_s)),
        patch.object(throttler, "asyncio", SimpleNamespace(sleep=clock.sleep)),
        patch.object(throttle_module, "now_ns", clock.now_ns),
    ):
        return asyncio.run(run()), found


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3000), st.floats(0, 0.004))
def test_no_minute_holds_more_than_the_cap(per_minute: int, overshoot_s: float) -> None:
    _, times = let_go(per_minute, per_minute + 20, overshoot_s)
    assert all(later - earlier >= 60 for earlier, later in zip(times, times[per_minute:], strict=False))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3000))
def test_the_allowance_is_spread_and_used(per_minute: int) -> None:
    """No burst at the start: in each second its share, and one tenth of a second's more; and all of it in time."""
    count = min(per_minute, 300)
    _, times = let_go(per_minute, count)
    together = max(1, per_minute // 600)
    most = math.ceil(per_minute / 60) + together
    assert all(later - earlier >= 1 for earlier, later in zip(times, times[most:], strict=False))
    assert times[0] == 0
    assert times[-1] <= (count - 1) * 60 / per_minute * 1.04 + 0.01


def test_who_comes_slower_than_the_cap_is_not_held() -> None:
    made, times = let_go(60, 10, every_s=1.1)
    assert (made.held, made.held_ns) == (0, 0)
    assert times == pytest.approx([k * 1.1 for k in range(10)])


def test_what_was_held_is_counted() -> None:
    """At one a second, three that come together wait 0, 1 and 1 s more; each hundredth of a second is looked."""
    made, times = let_go(60, 3)
    assert times == pytest.approx([0, 1, 2], abs=0.03)
    assert made.held == 2
    assert made.held_ns == pytest.approx(2 * SECOND, abs=0.05 * SECOND)


async def test_first_come_first_gone() -> None:
    made = Throttle(60_000)
    order: list[int] = []

    async def one(k: int) -> None:
        await made.let_go(0)
        order.append(k)

    await asyncio.gather(*(one(k) for k in range(250)))
    assert order == list(range(250))


async def test_who_is_not_held_keeps_its_intended_time() -> None:
    """The client's own delay before the cap is not the cap's."""
    made = Throttle(60)
    assert await made.let_go(12345) == 12345
    assert made.held == 0


async def test_who_gives_up_waiting_leaves_the_turn_to_the_next() -> None:
    made = Throttle(600)
    await made.let_go(0)
    waiting = [asyncio.create_task(made.let_go(0)) for _ in range(2)]
    await asyncio.sleep(0.01)
    waiting[0].cancel()
    assert await asyncio.wait_for(waiting[1], 10) > 0

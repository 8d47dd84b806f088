"""Encoded requests wait in order, and the coordinator hears in time that there is room."""

from __future__ import annotations

import asyncio

import pytest

from servemark.harness.load.jobs import TAKEN_EVERY, JobQueue
from servemark.harness.load.messages import Job


def queue_of(count: int, heard: list[int]) -> JobQueue:
    queue = JobQueue(heard.append)
    for index in range(count):
        queue.put(Job(index, None, b"x"))
    return queue


def taken(queue: JobQueue, count: int) -> list[int]:
    jobs = [queue.take() for _ in range(count)]
    return [job.index for job in jobs if job is not None]


def test_jobs_come_in_order_and_then_there_are_none() -> None:
    queue = queue_of(3, [])
    assert taken(queue, 5) == [0, 1, 2]
    assert len(queue) == 0


def test_a_full_queue_is_told_of_now_and_then() -> None:
    heard: list[int] = []
    queue = queue_of(10 * TAKEN_EVERY, heard)
    taken(queue, 3 * TAKEN_EVERY + 1)
    assert heard == [TAKEN_EVERY, 2 * TAKEN_EVERY, 3 * TAKEN_EVERY]


@pytest.mark.parametrize("ahead", [1, 2, TAKEN_EVERY - 1, TAKEN_EVERY])
def test_a_short_look_ahead_never_waits_for_word_of_room(ahead: int) -> None:
    """A bound in bytes may leave fewer jobs out than the worker takes between two words of it."""
    heard: list[int] = []
    queue = queue_of(ahead, heard)
    taken(queue, ahead)
    assert heard[-1] == ahead


def test_the_last_jobs_need_no_word_of_room() -> None:
    heard: list[int] = []
    queue = queue_of(TAKEN_EVERY - 1, heard)
    queue.end()
    assert len(taken(queue, TAKEN_EVERY)) == TAKEN_EVERY - 1
    assert heard == []


async def test_a_job_is_waited_for_until_there_will_be_none() -> None:
    queue = JobQueue(lambda count: None)
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.put(Job(7, None, b"x"))
    job = await waiting
    assert job is not None
    assert job.index == 7
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.end()
    assert await waiting is None
    assert await queue.get() is None

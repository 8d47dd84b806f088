"""Samples of the server's metrics come at their period, and a server without them never harms the run."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from answering import Asked, answering

from servemark.adapters.vllm import ADAPTER, VllmAdapter
from servemark.harness.clock import MS, now_ns
from servemark.harness.server.control import Control
from servemark.harness.server.scrape import Scraper, read_sample, sample_of
from servemark.harness.types import ServerSample

METRICS = (Path(__file__).parent / "transcripts" / "vllm-metrics.txt").read_bytes()


class WithoutMetrics(VllmAdapter):
    metrics_path = None
    server_metrics = {}  # noqa: RUF012


def good(asked: Asked) -> tuple[int, bytes]:
    return (200, METRICS) if asked.path == "/metrics" else (404, b"")


async def scrape_until(scraper: Scraper, enough: asyncio.Event) -> None:
    running = asyncio.create_task(scraper.run())
    waiting = asyncio.create_task(enough.wait())
    await asyncio.wait({running, waiting}, timeout=20, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def test_one_sample_in_our_words() -> None:
    with answering(good) as url, Control(url) as control:
        sample = read_sample(ADAPTER, control)
    assert sample is not None
    assert sample.values["generation_tokens"] == 12.0
    assert sample.at_ns > 0


@pytest.mark.parametrize("answer", [(404, b""), (200, b"<html>"), (200, b"other_metric 1\n"), (200, b"")])
def test_a_server_without_known_metrics_gives_no_sample(answer: tuple[int, bytes]) -> None:
    with answering(lambda asked: answer) as url, Control(url) as control:
        assert read_sample(ADAPTER, control) is None


def test_a_server_that_is_gone_or_has_no_metrics_gives_no_sample() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with Control(f"http://127.0.0.1:{port}") as control:
        assert read_sample(ADAPTER, control) is None
        assert read_sample(WithoutMetrics(), control) is None


def test_the_reason_why_there_is_no_sample() -> None:
    with pytest.raises(ValueError, match="status 503"):
        sample_of(ADAPTER, 503, b"", 1)
    with pytest.raises(ValueError, match="no known metric"):
        sample_of(ADAPTER, 200, b"a 1\n", 1)


async def test_samples_come_again_and_again_and_failures_between_are_counted() -> None:
    answers = 0

    def flaky(asked: Asked) -> tuple[int, bytes]:
        nonlocal answers
        answers += 1
        return (500, b"") if answers % 2 == 0 else (200, METRICS)

    got: list[ServerSample] = []
    enough = asyncio.Event()

    def keep(sample: ServerSample) -> None:
        got.append(sample)
        if len(got) == 3:
            enough.set()

    with answering(flaky) as url:
        scraper = Scraper(ADAPTER, url, [("Authorization", "Bearer k")], 0.02, keep)
        started_ns = now_ns()
        await scrape_until(scraper, enough)
    assert scraper.samples == len(got) >= 3
    assert scraper.failures >= 2
    assert "status 500" in (scraper.last_failure or "")
    # Every second scrape fails and takes a period all the same: sample k is scrape 2k, and none comes early.
    assert all(sample.at_ns - started_ns >= 2 * k * 20 * MS - 2 * MS for k, sample in enumerate(got))


async def test_a_server_that_is_gone_fails_scrapes_and_nothing_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    scraper = Scraper(ADAPTER, f"http://127.0.0.1:{port}", [], 0.01, lambda sample: None)
    running = asyncio.create_task(scraper.run())
    async with asyncio.timeout(20):
        while scraper.failures < 2:
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert (scraper.samples, running.cancelled()) == (0, True)
    assert scraper.last_failure


async def test_a_sink_that_fails_is_not_hidden() -> None:
    def fail(sample: ServerSample) -> None:
        raise OSError("disk full")

    with answering(good) as url, pytest.raises(OSError, match="disk full"):
        await Scraper(ADAPTER, url, [], 0.02, fail).run()


async def test_without_metrics_there_is_nothing_to_do() -> None:
    await Scraper(WithoutMetrics(), "http://127.0.0.1:9", [], 0.02, lambda sample: None).run()

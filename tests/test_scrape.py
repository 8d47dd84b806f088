"""Samples of the server's metrics come at their period, and a server without them never harms the run."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from answering import Asked, answering

from servemark.adapters.base import prometheus
from servemark.adapters.vllm import ADAPTER
from servemark.harness.clock import MS, now_ns
from servemark.harness.server.control import Control
from servemark.harness.server.scrape import Meter, Scraper, find_meter, metrics_url, read_sample
from servemark.harness.types import ServerSample

METRICS = (Path(__file__).parent / "transcripts" / "vllm-metrics.txt").read_bytes()


def meter(url: str) -> Meter:
    return Meter(url, ADAPTER.metrics[0])


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
        sample = read_sample(meter(url), control)
    assert sample is not None
    assert sample.values["generation_tokens"] == 12.0
    assert sample.at_ns > 0


@pytest.mark.parametrize("answer", [(404, b""), (200, b"<html>"), (200, b"other_metric 1\n"), (200, b"")])
def test_a_server_without_known_metrics_gives_no_sample(answer: tuple[int, bytes]) -> None:
    with answering(lambda asked: answer) as url, Control(url) as control:
        assert read_sample(meter(url), control) is None
        assert find_meter(url, ADAPTER.metrics, control) is None


def test_a_server_that_is_gone_or_has_no_metrics_gives_no_sample() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with Control(f"http://127.0.0.1:{port}") as control:
        assert read_sample(meter(control.url), control) is None
        assert find_meter(control.url, (), control) is None


def test_the_first_source_that_answers_is_taken() -> None:
    sources = (prometheus("/other/metrics", {"running": ("vllm:num_requests_running",)}), *ADAPTER.metrics)
    with answering(good) as url, Control(url) as control:
        found = find_meter(url, sources, control)
    assert found is not None
    assert found.url == f"{url}/metrics"


def test_metrics_may_have_a_port_of_their_own() -> None:
    source = prometheus("/metrics", {}, port=8002)
    assert metrics_url("http://host:8000/prefix", source) == "http://host:8002/metrics"
    assert metrics_url("https://[::1]:8000", source) == "https://[::1]:8002/metrics"


def test_the_reason_why_there_is_no_sample() -> None:
    with pytest.raises(ValueError, match="status 503"):
        meter("http://h").sample(503, b"", 1)
    with pytest.raises(ValueError, match="no known metric"):
        meter("http://h").sample(200, b"a 1\n", 1)


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
        scraper = Scraper(meter(url), [("Authorization", "Bearer k")], 0.02, keep)
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
    scraper = Scraper(meter(f"http://127.0.0.1:{port}"), [], 0.01, lambda sample: None)
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
        await Scraper(meter(url), [], 0.02, fail).run()

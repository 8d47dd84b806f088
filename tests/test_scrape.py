"""Samples of the servers' metrics come at their period, and a server without them never harms the run."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from answering import Answer, Asked, answering

from servemark.adapters.base import prometheus
from servemark.adapters.vllm import ADAPTER
from servemark.harness.clock import MS, now_ns
from servemark.harness.server import scrape
from servemark.harness.server.scrape import Access, Meter, Scraper, Unread, fetch, metrics_url
from servemark.harness.types import MetricsReader, MetricsSource, ServerSample

METRICS = (Path(__file__).parent / "transcripts" / "vllm-metrics.txt").read_bytes()
SOURCE = ADAPTER.metrics[0]


def meter(url: str, source: MetricsSource = SOURCE) -> Meter:
    return Meter(url, source, metrics_url(url, source))


def scraper(*urls: str, keep: Callable[[ServerSample], None] | None = None, period_s: float = 0.02) -> Scraper:
    return Scraper([meter(url) for url in urls], Access(urls), period_s, keep or (lambda sample: None))


def good(asked: Asked) -> tuple[int, bytes]:
    return (200, METRICS) if asked.path == "/metrics" else (404, b"")


def running(count: int) -> Answer:
    return lambda asked: (200, f"vllm:num_requests_running {count}\nvllm:kv_cache_usage_perc 0.{count}\n".encode())


@pytest.fixture
def nobody() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"http://127.0.0.1:{port}"


async def scrape_until(scraper: Scraper, enough: asyncio.Event) -> None:
    running = asyncio.create_task(scraper.run())
    waiting = asyncio.create_task(enough.wait())
    await asyncio.wait({running, waiting}, timeout=20, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def test_one_reading_in_our_words() -> None:
    got: list[ServerSample] = []
    with answering(good) as url:
        scraper(url, keep=got.append).once()
    (sample,) = got
    assert sample.values["generation_tokens"] == 12.0
    assert sample.at_ns > 0
    assert sample.url is None  # one server is all of the deployment


def test_metrics_may_have_a_port_of_their_own() -> None:
    source = prometheus("/metrics", {}, port=8002)
    assert metrics_url("http://host:8000/prefix", source) == "http://host:8002/metrics"
    assert metrics_url("https://[::1]:8000", source) == "https://[::1]:8002/metrics"


def test_the_reason_why_there_is_no_sample() -> None:
    with pytest.raises(ValueError, match="no known metric"):
        meter("http://h").sample(b"a 1\n", 1)


def test_what_no_reader_was_made_for_is_a_failed_reading_and_no_crash() -> None:
    def read(body: bytes) -> Mapping[str, float]:
        found: Mapping[str, float] = json.loads(body)["stats"]
        return found

    source = MetricsSource("/metrics", lambda: read)
    for body in (b"[]", b"{}", b'{"stats": 3}', b'{"stats": {"running": "many"}}', b"<html>"):
        with pytest.raises(ValueError):
            meter("http://h", source).sample(body, 1)
    endless = b'{"stats": {"running": Infinity, "waiting": 2}}'
    assert meter("http://h", source).sample(endless, 1).values == {"waiting": 2}


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
        reading = scraper(url, keep=keep)
        started_ns = now_ns()
        await scrape_until(reading, enough)
    facts = reading.meters[0].facts()
    assert facts["samples"] == len(got) >= 3
    assert facts["failures"] >= 2
    assert facts["last_failure"] == "answers 500"
    assert facts["metrics"] == f"{url}/metrics"
    # Every second reading fails and takes a period all the same: sample k is reading 2k, and none comes early.
    assert all(sample.at_ns - started_ns >= 2 * k * 20 * MS - 2 * MS for k, sample in enumerate(got))


async def test_a_server_that_is_gone_fails_readings_and_nothing_else(nobody: str) -> None:
    reading = scraper(nobody, period_s=0.01)
    running = asyncio.create_task(reading.run())
    async with asyncio.timeout(20):
        while reading.meters[0].failures < 2:
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert (reading.meters[0].samples, running.cancelled()) == (0, True)
    assert reading.meters[0].last_failure == "refuses connections"


async def test_a_sink_that_fails_is_not_hidden() -> None:
    def fail(sample: ServerSample) -> None:
        raise OSError("disk full")

    with answering(good) as url, pytest.raises(OSError, match="disk full"):
        await scraper(url, keep=fail).run()


async def test_an_answer_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """By size, and by time however many bytes come: a wrong address may be any stream."""
    monkeypatch.setattr(scrape, "LARGEST", 1000)
    done = threading.Event()

    def slow(asked: Asked) -> tuple[int, bytes]:
        if asked.path == "/slow":
            done.wait(20)
        return 200, b"x" * 1001

    with answering(slow) as url:
        async with Access((url,)).client([url]) as client:
            with pytest.raises(Unread, match="more than"):
                await fetch(client, f"{url}/long", ())
            with pytest.raises(Unread, match=r"no whole answer within 0\.05 s"):
                await fetch(client, f"{url}/slow", (), 0.05)
        done.set()


# Several replicas


def test_each_replica_and_all_of_them_together() -> None:
    got: list[ServerSample] = []
    with answering(running(3)) as a, answering(running(5)) as b:
        scraper(a, b, keep=got.append).once()
    assert [(sample.url, sample.values) for sample in got] == [
        (a, {"running": 3, "kv_usage": 0.3}),
        (b, {"running": 5, "kv_usage": 0.5}),
        (None, {"running": 8, "kv_usage": 0.5}),
    ]


def test_where_a_replica_does_not_answer_there_is_no_sum_of_the_others(nobody: str) -> None:
    got: list[ServerSample] = []
    with answering(running(3)) as url:
        reading = scraper(url, nobody, keep=got.append)
        reading.once()
    assert [sample.url for sample in got] == [url]
    assert [meter.failures for meter in reading.meters] == [0, 1]


# Keys


def test_a_key_goes_to_the_servers_own_hosts_only_and_not_in_the_clear() -> None:
    key = (("Authorization", "Bearer k"),)
    access = Access(("http://a:8000", "https://b:8000/v1"), key)
    for url, sent in (
        ("http://a:8000/metrics", key),
        ("http://a:8002/metrics", key),
        ("https://a:8002/metrics", key),
        ("https://b/metrics", key),
        ("http://b:8002/metrics", ()),
        ("http://metrics.b:8002/metrics", ()),
        ("https://elsewhere/metrics", ()),
    ):
        assert access.headers_for(url) == sent, url


def test_a_key_is_sent_with_the_reading() -> None:
    seen: list[str | None] = []

    def told(asked: Asked) -> tuple[int, bytes]:
        seen.append(asked.headers.get("Authorization"))
        return 200, METRICS

    with answering(told) as url:
        access = Access((url,), (("Authorization", "Bearer k"),))
        Scraper([meter(url)], access, 1, lambda sample: None).once()
        elsewhere = Access(("http://127.0.0.2:1",), access.headers)
        Scraper([meter(url)], elsewhere, 1, lambda sample: None).once()
    assert seen == ["Bearer k", None]


# Sources that tell everything once


class Drained:
    """A server whose counts are told once: each answer holds what came since the one before."""

    def __init__(self) -> None:
        self.told = 0
        self.asked = threading.Event()
        self.go = threading.Event()

    def answer(self, asked: Asked) -> tuple[int, bytes]:
        self.asked.set()
        self.go.wait(20)
        self.told += 5
        return 200, b'{"steps": 5}'

    @staticmethod
    def reader() -> MetricsReader:
        total = 0

        def read(body: bytes) -> Mapping[str, float]:
            nonlocal total
            total += json.loads(body)["steps"]
            return {"iterations": total}

        return read

    @property
    def source(self) -> MetricsSource:
        return MetricsSource("/metrics", self.reader, draining=True)


async def test_what_is_told_once_is_not_lost_when_a_run_ends_while_it_is_asked_for() -> None:
    server, got = Drained(), list[ServerSample]()
    with answering(server.answer) as url:
        reading = Scraper([meter(url, server.source)], Access((url,)), 60, got.append)
        task = asyncio.create_task(reading.run())
        await asyncio.to_thread(server.asked.wait, 20)
        task.cancel()
        await asyncio.sleep(0)  # the cancelling comes while the answer is awaited
        server.go.set()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        await asyncio.to_thread(reading.once)
    assert [sample.values["iterations"] for sample in got] == [5, 10]
    assert server.told == 10


def test_what_was_told_when_it_was_found_stands_for_the_first_reading() -> None:
    """Asked again, an idle server takes seconds to say that there is nothing more."""
    server, got = Drained(), list[ServerSample]()
    server.go.set()
    with answering(server.answer) as url:
        found = meter(url, server.source)
        first = found.sample(b'{"steps": 1}', 7)
        reading = Scraper([found], Access((url,)), 60, got.append)
        reading.begin([first])
        assert server.told == 0
        reading.once()
    assert [sample.values["iterations"] for sample in got] == [1, 6]


def test_other_sources_are_read_anew_before_the_load() -> None:
    got: list[ServerSample] = []
    with answering(good) as url:
        reading = scraper(url, keep=got.append)
        reading.begin([ServerSample(1, {"running": 99.0})])
    assert [sample.values["running"] for sample in got] != [99.0]

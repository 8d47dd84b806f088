"""Where the servers' metrics are: at the adapter's places, or where the user says, and then they must be there."""

from __future__ import annotations

from pathlib import Path

import pytest
from answering import Asked, answering

from servemark.adapters.base import BaseAdapter, prometheus
from servemark.adapters.vllm import ADAPTER, VllmAdapter
from servemark.harness.errors import BadInput, TargetUnusable
from servemark.harness.server.meters import find_meters
from servemark.harness.server.scrape import Access
from servemark.harness.types import Adapter, MetricsSource

METRICS = (Path(__file__).parent / "transcripts" / "vllm-metrics.txt").read_bytes()


class Generic(VllmAdapter):
    """An endpoint of which nobody knows metrics."""

    name = "generic"
    metrics: tuple[MetricsSource, ...] = ()


class Twice(VllmAdapter):
    metrics = (prometheus("/other/metrics", {"running": ("vllm:num_requests_running",)}), *ADAPTER.metrics)


GENERIC: Adapter = Generic()


def good(asked: Asked) -> tuple[int, bytes]:
    return (200, METRICS) if asked.path == "/metrics" else (404, b"")


def test_the_first_place_that_tells_something_is_taken_with_its_reading() -> None:
    with answering(good) as url:
        found = find_meters(Twice(), Access((url,)))
    assert [meter.url for meter in found.meters] == [f"{url}/metrics"]
    assert found.first[0].values["generation_tokens"] == 12.0
    assert found.absent == ()


@pytest.mark.parametrize("answer", [(404, b""), (200, b"<html>"), (200, b"other_metric 1\n"), (200, b"")])
def test_a_server_that_tells_nothing_is_no_error_where_nobody_said_it_would(answer: tuple[int, bytes]) -> None:
    with answering(lambda asked: answer) as url:
        found = find_meters(ADAPTER, Access((url,)))
    assert (found.meters, found.absent) == ((), (f"{url}/metrics",))
    assert found.scraper(1.0, lambda sample: None) is None


def test_nobody_is_asked_where_nothing_is_known() -> None:
    found = find_meters(GENERIC, Access(("http://127.0.0.1:1",)))
    assert (found.meters, found.absent) == ((), ())


def test_one_replica_of_two_that_tells_nothing() -> None:
    with answering(good) as a, answering(lambda asked: (404, b"")) as b:
        found = find_meters(ADAPTER, Access((a, b)))
    assert [meter.server for meter in found.meters] == [a]
    assert found.absent == (f"{b}/metrics",)


# Named by the user


@pytest.mark.parametrize("path", ["/metrics", "", "/"])
def test_a_named_place_with_or_without_its_path(path: str) -> None:
    with answering(good) as there:
        found = find_meters(ADAPTER, Access(("http://127.0.0.1:1",)), [there + path])
    assert [(meter.server, meter.url) for meter in found.meters] == [("http://127.0.0.1:1", f"{there}/metrics")]


def test_a_named_place_is_read_in_any_dialect_that_is_known() -> None:
    """A generic endpoint may stand before a server whose metrics another adapter knows."""
    with answering(good) as there:
        found = find_meters(GENERIC, Access(("http://127.0.0.1:1",)), [there])
    assert found.first[0].values["generation_tokens"] == 12.0


def test_an_empty_answer_is_no_metrics_of_some_other_server() -> None:
    with answering(lambda asked: (200, b"")) as there, pytest.raises(TargetUnusable, match="no metric that is known"):
        find_meters(GENERIC, Access((there,)), [there])


@pytest.mark.parametrize(
    ("answer", "said"),
    [((404, b""), "answers 404"), ((302, b""), "answers 302"), ((200, b"x 1\n"), "tells no metric that is known")],
)
def test_a_named_place_without_metrics_is_a_sentence(answer: tuple[int, bytes], said: str) -> None:
    with answering(lambda asked: answer) as there, pytest.raises(TargetUnusable) as caught:
        find_meters(ADAPTER, Access((there,)), [f"{there}/m"])
    assert str(caught.value).startswith(f"--metrics-url {there}/m {said}")
    assert caught.value.exit_code == 3


def test_a_named_place_where_nobody_is_names_its_flag() -> None:
    with pytest.raises(TargetUnusable, match=r"--metrics-url http://127\.0\.0\.1:1/m refuses .*--metrics-url right\?"):
        find_meters(ADAPTER, Access(("http://127.0.0.1:1",)), ["http://127.0.0.1:1/m"])


@pytest.mark.parametrize("url", ["h:8002", "ftp://h", "http://user:pw@h/metrics", "http://h/metrics?x=1", "http://"])
def test_what_is_no_address_is_bad_input_that_names_its_flag(url: str) -> None:
    with pytest.raises(BadInput, match=r"^--metrics-url ") as caught:
        find_meters(ADAPTER, Access(("http://h",)), [url])
    assert "pw" not in str(caught.value)


def test_there_is_one_for_each_server_or_one_for_all() -> None:
    servers = ("http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3")
    with answering(good) as there:
        all_in_one = find_meters(ADAPTER, Access(servers), [there])
        each = find_meters(ADAPTER, Access(servers), [there] * 3)
        with pytest.raises(BadInput, match="--metrics-url is given 2 times and --url 3 times"):
            find_meters(ADAPTER, Access(servers), [there] * 2)
    assert [meter.server for meter in all_in_one.meters] == [None]
    assert [meter.server for meter in each.meters] == list(servers)


def test_a_key_does_not_go_to_a_named_place_on_another_host() -> None:
    seen: list[str | None] = []

    def told(asked: Asked) -> tuple[int, bytes]:
        seen.append(asked.headers.get("Authorization"))
        return 200, METRICS

    with answering(told) as there:
        find_meters(ADAPTER, Access(("http://localhost:1",), (("Authorization", "Bearer k"),)), [there])
        find_meters(ADAPTER, Access(("http://127.0.0.1:1",), (("Authorization", "Bearer k"),)), [there])
    assert seen == [None, "Bearer k"]


def test_an_adapter_of_its_own_needs_no_metrics() -> None:
    assert BaseAdapter.metrics == ()

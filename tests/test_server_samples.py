"""Readings of several replicas become one, and counters grow only where they can be trusted to have grown."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.adapters.base import prometheus
from servemark.harness.server.discovery import adapter_names, load_adapter
from servemark.harness.server.metric_names import LEVELS, SERVER_METRICS
from servemark.harness.server.samples import by_replica, combined, growth, mean_of, whole
from servemark.harness.types import ServerSample

TRANSCRIPTS = Path(__file__).parent / "transcripts"


def at(at_ns: int, url: str | None = None, **values: float) -> ServerSample:
    return ServerSample(at_ns, values, url)


def test_replicas_add_up_and_the_fullest_cache_stands_for_all() -> None:
    a = at(10, "http://a", running=3, waiting=0, kv_usage=0.2, generation_tokens=100)
    b = at(12, "http://b", running=5, waiting=2, kv_usage=0.7, generation_tokens=40)
    together = combined([a, b])
    assert together == at(12, running=8, waiting=2, kv_usage=0.7, generation_tokens=140)
    assert whole([a, b, together]) == [together]
    assert by_replica([a, b, together]) == {"http://a": [a], "http://b": [b]}


def test_a_level_that_one_replica_does_not_tell_is_not_told_of_all() -> None:
    """A sum over some of them would look as if requests had gone."""
    assert combined([at(1, "a", running=3, kv_usage=0.5), at(1, "b", waiting=1)]).values == {}


def test_a_counter_that_one_replica_does_not_tell_yet_has_not_begun_there() -> None:
    assert combined([at(1, "a", ttft_count=3), at(1, "b")]).values == {"ttft_count": 3}


@given(st.lists(st.lists(st.integers(0, 1000), min_size=2, max_size=2), min_size=1, max_size=5))
def test_what_all_grew_is_what_each_grew(grown: list[list[int]]) -> None:
    """Sum of the ends less sum of the starts, whichever replica they belong to."""
    readings = [[at(t, str(i), iterations=start + t * more) for i, (start, more) in enumerate(grown)] for t in (0, 1)]
    together = [combined(each) for each in readings]
    assert growth(together, "iterations") == sum(more for _, more in grown)


def test_growth() -> None:
    assert growth([at(0, iterations=5), at(1, iterations=9), at(2, iterations=9)], "iterations") == 4
    assert growth([at(0, iterations=5), at(1), at(2, iterations=9)], "iterations") == 4
    assert growth([at(0, iterations=5)], "iterations") is None
    assert growth([at(0), at(1)], "iterations") is None
    assert growth([], "iterations") is None


def test_a_counter_that_appears_with_its_first_count_began_at_nothing() -> None:
    """A server that has served nothing yet leaves out what it has not counted."""
    assert growth([at(0, running=0), at(1, iterations=7)], "iterations") == 7


def test_a_counter_that_fell_on_the_way_says_nothing_though_it_ends_above_its_start() -> None:
    assert growth([at(0, iterations=100), at(1, iterations=3), at(2, iterations=150)], "iterations") is None


def test_the_mean_of_a_histogram_between_two_readings() -> None:
    """Three values of 0.1, 0.2 and 0.6 s came between the readings."""
    readings = [at(0, ttft_sum=50.0, ttft_count=10), at(1, ttft_sum=50.9, ttft_count=13)]
    found = mean_of(readings, "ttft")
    assert found is not None
    assert found == (pytest.approx(0.3), 3)
    assert mean_of(readings[:1] * 2, "ttft") is None  # nothing came between
    assert mean_of([at(0, ttft_sum=1), at(1, ttft_sum=2)], "ttft") is None


# The vocabulary


@pytest.mark.parametrize("target", adapter_names())
def test_an_adapter_speaks_of_metrics_in_the_one_vocabulary(target: str) -> None:
    for source in load_adapter(target).metrics:
        assert set(source.notes) <= {name.removesuffix("_sum") for name in SERVER_METRICS}
        for note in source.notes.values():
            assert re.fullmatch(r"\S.*[^.]", note), note  # it is read in a cell of a table


def test_an_adapter_cannot_make_up_a_name() -> None:
    with pytest.raises(ValueError, match=r"no server metric 'latency'; there are: running, "):
        prometheus("/metrics", {"latency": ("x",)})


@pytest.mark.parametrize("path", sorted(TRANSCRIPTS.glob("*-metrics*")), ids=lambda path: path.name)
def test_what_a_server_tells_is_read_in_the_one_vocabulary(path: Path) -> None:
    told = []
    for source in (source for name in adapter_names() for source in load_adapter(name).metrics):
        with contextlib.suppress(ValueError):  # of another server
            told.append(set(source.reader()(path.read_bytes())))
    assert any(told)
    assert set().union(*told) <= set(SERVER_METRICS)


def test_histograms_are_pairs_and_levels_are_no_counters() -> None:
    for name in SERVER_METRICS:
        base, _, end = name.rpartition("_")
        if end in ("sum", "count"):
            assert {f"{base}_sum", f"{base}_count"} <= set(SERVER_METRICS)
    assert {"running", "waiting", "kv_usage"} == LEVELS


def test_the_documented_vocabulary_is_the_one() -> None:
    text = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w*) \| (level|counter) \| (sum|max) \| (.+) \|$", text, re.M)
    assert rows == [(name, m.unit, m.kind, m.replicas, m.about) for name, m in SERVER_METRICS.items()]

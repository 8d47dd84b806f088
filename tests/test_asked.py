"""The lines that say what load was made."""

from __future__ import annotations

from typing import Any

import pytest

from servemark.dashboards.asked import load_facts
from servemark.harness.plan.spec import load_workload, packaged


def _facts(**resolved: Any) -> dict[str, str]:
    return dict(load_facts({"workload": {"resolved": resolved}}))


def test_sections_are_said_in_the_short_form_of_the_file() -> None:
    facts = _facts(
        load={"arrivals": "poisson", "rate": 8.0, "max_concurrency": None},
        prompts={
            "source": "synthetic",
            "tokens": "text",
            "input_tokens": {"distribution": "fixed", "tokens": 500},
            "output_tokens": {"distribution": "uniform", "min": 50, "max": 200},
        },
    )
    assert facts["arrivals"] == "poisson(rate=8)"
    assert facts["prompts"] == "synthetic(input_tokens=500, output_tokens=uniform(min=50, max=200))"


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ({"warmup": "10s", "duration": "60s"}, "10s of warm-up, then 60s"),
        ({"warmup": 20, "requests": 1000, "duration": None}, "20 requests of warm-up, then 1,000 requests"),
        ({"warmup": 0, "requests": 1000, "duration": "5m"}, "5m or 1,000 requests"),
        ({"warmup": "10s", "duration": None}, "10s of warm-up"),
    ],
)
def test_the_time_is_said_with_its_warm_up(run: dict[str, Any], said: str) -> None:
    assert _facts(run=run)["time"] == said


def test_tokens_are_those_of_the_measured_answers() -> None:
    metrics = {"prompt_tokens": {"n": 4, "mean": 250.0}, "output_tokens": {"n": 4, "mean": 100.0}}
    assert dict(load_facts({"metrics": metrics}))["tokens"] == "1,000 in (250 a request), 400 out (100 a request)"


@pytest.mark.parametrize("name", packaged())
def test_every_packaged_workload_has_words_for_its_load(name: str) -> None:
    facts = dict(load_facts({"workload": {"resolved": load_workload(name).dump()}}))
    assert facts["arrivals"]
    assert facts["time"]


def test_a_result_of_another_make_breaks_nothing() -> None:
    assert load_facts({"workload": {"resolved": {"load": 3, "prompts": [], "run": None}}, "metrics": 7}) == []

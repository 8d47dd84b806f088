"""What binds a run, by which evidence, and what is suggested: each with its figure, and nothing without one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.harness.efficiency.binding import binding
from servemark.harness.efficiency.facts import Facts
from servemark.harness.efficiency.idea import IDEAS
from servemark.harness.efficiency.pieces import EVIDENCE
from servemark.harness.efficiency.suggestions import Suggestion, suggestions
from servemark.harness.efficiency.thresholds import THRESHOLDS, table

LATE = Facts(checks={"client_lag": "invalid"}, mbu=0.8)
FEW = Facts(clients=4, largest_batch=400, mbu=0.2, mfu=0.05, busy=0.25, waiting=0.0, waiting_share=0.0)
SERVED = Facts(rps=3.0, offered_rps=3.0, mbu=0.2, mfu=0.05, busy=0.25, waiting=0.0, waiting_share=0.0)
COMPUTE = Facts(mfu=0.55, mbu=0.3, narrower="fp8", compute="bf16", waiting=9.0, waiting_share=1.0)
PROMPTS = Facts(
    busy=0.7, prefill_share=0.6, mbu=0.3, mfu=0.35, cached_share=0.0, icl_p50_ms=10, icl_p99_ms=200, prompt=4000
)
FULL = Facts(kv_usage=0.99, waiting=20.0, waiting_share=1.0, kv_bytes=2, mbu=0.5, memory_share=0.6, weight_bits=16.0)
PREEMPTING = Facts(preemptions=5, requests=100, mbu=0.5)
PACKED = Facts(running=98, largest_batch=100, waiting=20.0, waiting_share=1.0, mbu=0.5)
READING = Facts(
    mbu=0.7, mfu=0.1, busy=0.8, prefill_share=0.1, weights_share=0.7, kv_share=0.3, weight_bits=16.0, weights="bf16",
    kv_bytes=2, running=30, largest_batch=400, batch=4.0, clients=30, tpot_ratio=1.4, tpot_binding="bandwidth",
)  # fmt: skip
QUEUE = Facts(waiting=12.0, waiting_share=0.9, kv_usage=0.3, mbu=0.3, mfu=0.1, ttft_ratio=40.0, tpot_ratio=1.9)

RUNS = {
    "client": (LATE, FEW, SERVED),
    "compute": (COMPUTE, PROMPTS),
    "capacity": (FULL, PREEMPTING, PACKED),
    "bandwidth": (READING,),
    "queueing": (QUEUE,),
    "unclear": (Facts(), Facts(mbu=0.3, mfu=0.1)),
}


@pytest.mark.parametrize(("resource", "facts"), [(name, each) for name, runs in RUNS.items() for each in runs])
def test_each_resource_is_found_by_its_evidence(resource: str, facts: Facts) -> None:
    found = binding(facts)
    assert found.resource == resource
    assert bool(found.evidence) == (resource != "unclear")


def test_every_piece_of_evidence_is_held_by_some_run_and_says_its_figure() -> None:
    runs = [each for group in RUNS.values() for each in group]
    for name, piece in EVIDENCE.items():
        held = [found for facts in runs if (found := piece.judge(facts, THRESHOLDS)) is not None]
        assert held, name
        assert all(each.text.endswith(".") and each.figure for each in held)
        assert piece.about.endswith("."), name
        assert piece.judge(Facts(), THRESHOLDS) is None, f"{name} speaks without a figure"


def test_the_client_goes_before_the_server_and_arithmetic_before_memory() -> None:
    both = replace(READING, checks={"client_cpu": "invalid"})
    assert binding(both).resource == "client"
    assert [name for name, _ in binding(both).others] == ["bandwidth"]
    full = replace(FULL, mfu=0.6)
    assert binding(full).resource == "compute"
    assert [name for name, _ in binding(full).others] == ["capacity", "queueing"]


def test_few_clients_bind_nothing_where_tokens_are_near_their_floor() -> None:
    """One request at a time reads the weights at full speed: that it has no company is not what holds it back."""
    near = replace(FEW, clients=1, tpot_ratio=1.3, tpot_binding="bandwidth")
    assert binding(near).resource == "bandwidth"


def test_a_burst_that_waits_for_a_moment_is_no_queue() -> None:
    brief = replace(QUEUE, waiting=2.0, waiting_share=0.1, ttft_ratio=None)
    assert binding(brief).resource == "unclear"
    assert not suggestions(brief, binding(brief))


def test_late_tokens_are_no_queue_where_the_server_says_that_nobody_waited() -> None:
    slow = Facts(ttft_ratio=40.0, tpot_ratio=1.9, waiting=0.0, waiting_share=0.0, mbu=0.2)
    assert binding(slow).resource == "unclear"
    assert binding(replace(slow, waiting=None, waiting_share=None)).resource == "queueing"


def test_binding_in_json_has_the_others_with_their_evidence() -> None:
    found = binding(FULL).to_json()
    assert found["resource"] == "capacity"
    assert found["evidence"][0].keys() == {"figure", "value", "threshold", "text"}
    assert found["others"][0]["resource"] == "queueing"


def test_bytes_and_arithmetic_that_take_about_as_long_bind_together() -> None:
    """45 % and 33 % of the time at the peaks: MBU 44.6 %, MFU 38.6 % is neither's alone."""
    near = Facts(busy=0.78, prefill_share=0.33 / 0.78, mbu=0.446, mfu=0.386)
    found = binding(near)
    assert found.resource == "bandwidth"
    assert found.to_json()["tie"] == {
        "resource": "compute",
        "text": "Bandwidth 45.0 %, arithmetic 33.0 % of the time at the published peaks: neither alone.",
    }
    assert binding(replace(near, prefill_share=0.33 / 0.78 * 0.9)).tie is None
    other = binding(replace(near, prefill_share=0.55))
    assert other.resource == "compute"
    assert other.tie is not None
    assert other.tie.resource == "bandwidth"
    assert binding(replace(near, checks={"client_lag": "invalid"})).tie is None
    assert binding(READING).to_json()["tie"] is None


def made(facts: Facts) -> dict[str, Suggestion]:
    return {each.code: each for each in suggestions(facts, binding(facts))}


CALLS: dict[str, Facts] = {
    "client_first": LATE,
    "more_load": FEW,
    "larger_batch": READING,
    "max_num_seqs": QUEUE,
    "kv_memory": FULL,
    "quantise_weights": READING,
    "quantise_compute": COMPUTE,
    "quantise_kv": READING,
    "prefix_caching": PROMPTS,
    "speculate": READING,
    "speculate_less": replace(READING, accepted=0.2, batch=40.0),
    "tensor_parallel": READING,
    "replicas": COMPUTE,
    "chunked_prefill": PROMPTS,
    "disaggregate": PROMPTS,
    "cooling": replace(READING, throttled_share=0.4),
}


@pytest.mark.parametrize("code", list(CALLS))
def test_each_suggestion_is_called_for_by_its_figure(code: str) -> None:
    found = made(CALLS[code])[code]
    assert found.figure
    assert found.text.endswith(".")
    assert any(year in found.source for year in map(str, range(2000, 2027))), "a source has a year"


def test_every_suggestion_is_tried() -> None:
    made(READING)
    assert set(CALLS) == set(IDEAS)


def test_nothing_is_suggested_without_figures() -> None:
    assert suggestions(Facts(), binding(Facts())) == []


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("quantise_weights", {"weight_bits": 8.5}),
        ("quantise_weights", {"weights_share": 0.1}),
        ("quantise_kv", {"kv_bytes": 1}),
        ("quantise_kv", {"kv_share": 0.05}),
        ("speculate", {"batch": 100.0}),
        ("speculate", {"drafts": True}),
        ("speculate", {"experts": True}),
        ("larger_batch", {"running": 390}),
        ("tensor_parallel", {"tpot_ratio": 3.0}),
    ],
)
def test_a_suggestion_goes_with_its_figure(code: str, changes: dict[str, Any]) -> None:
    assert code in made(READING)
    assert code not in made(replace(READING, **changes))


def test_the_docs_have_every_threshold_piece_of_evidence_and_suggestion() -> None:
    page = (Path(__file__).parent.parent / "docs" / "efficiency.md").read_text(encoding="utf-8")
    made(READING)
    for name in (*EVIDENCE, *IDEAS):
        assert f"| `{name}` |" in page, name
    for name, value in table().items():
        assert f"| `{name}` | {value:,g}" in page, name


def test_while_the_client_is_at_fault_nothing_else_is_suggested() -> None:
    assert list(made(replace(READING, checks={"client_lag": "invalid"}))) == ["client_first"]


def test_turns_of_a_conversation_without_hits_are_named() -> None:
    assert "conversation" in made(replace(PROMPTS, followed_up=0.8))["prefix_caching"].text
    assert "prefix_caching" not in made(replace(PROMPTS, cached_share=0.7))


@given(
    st.builds(
        Facts,
        mbu=st.none() | st.floats(0, 1.05),
        mfu=st.none() | st.floats(0, 1.05),
        busy=st.none() | st.floats(0, 2),
        prefill_share=st.none() | st.floats(0, 1),
        weights_share=st.none() | st.floats(0, 1),
        kv_share=st.none() | st.floats(0, 1),
        running=st.none() | st.floats(0, 1e4),
        largest_batch=st.none() | st.floats(0, 1e4),
        waiting=st.none() | st.floats(0, 1e4),
        waiting_share=st.none() | st.floats(0, 1),
        kv_usage=st.none() | st.floats(0, 1),
        preemptions=st.none() | st.floats(0, 1e4),
        clients=st.none() | st.integers(1, 1000),
        rps=st.none() | st.floats(0, 100),
        offered_rps=st.none() | st.floats(0, 100),
        tpot_ratio=st.none() | st.floats(0.9, 100),
        tpot_binding=st.none() | st.sampled_from(["bandwidth", "compute"]),
        ttft_ratio=st.none() | st.floats(0.9, 1000),
        icl_p50_ms=st.none() | st.floats(0, 100),
        icl_p99_ms=st.none() | st.floats(0, 1000),
        batch=st.none() | st.floats(0, 1000),
    )
)
def test_any_facts_have_a_binding_and_suggestions_with_figures(facts: Facts) -> None:
    found = binding(facts)
    assert (found.resource == "unclear") == (not found.evidence)
    assert all(each.value == each.value and each.figure for each in suggestions(facts, found))

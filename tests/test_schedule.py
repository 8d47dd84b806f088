"""The schedule is a pure function of workload, seeds, data and index, and ends where the workload says."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from servemark.harness.errors import BadInput
from servemark.harness.plan.schedule import Planned, Schedule, plan
from servemark.harness.plan.spec import apply, parse_workload
from servemark.harness.plan.tokens import estimate

SECOND = 1_000_000_000
VOCABULARY = estimate("chat", "no server")

WORKLOAD = """\
version: 1
prompts: {source: synthetic, input_tokens: "uniform(50, 90)", output_tokens: "uniform(1, 30)"}
load: {arrivals: constant, rate: 10}
run: {duration: 5s, warmup: 2s, seeds: {prompts: 1}}
"""
TRACE = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.0000000,40,5
2023-11-16 18:17:04.5000000,80,9
2023-11-16 18:17:07.0000000,20,7
"""


def schedule(text: str = WORKLOAD, folder: Path | None = None, **flags: Any) -> Schedule:
    return plan(apply(parse_workload(text, folder=folder), flags), VOCABULARY)


def phases(planned: list[Planned]) -> list[str | None]:
    return [item.phase for item in planned]


def test_a_timed_run_is_warm_up_and_window() -> None:
    made = schedule()
    planned = list(made)
    # At 10/s: 2 s of warm-up are offsets 0 to 1.9, 5 s of window are 2.0 to 6.9.
    assert [item.offset_ns for item in planned] == [i * SECOND // 10 for i in range(70)]
    assert phases(planned) == ["warmup"] * 20 + ["measured"] * 50
    assert (made.count, made.planned_in_window) == (70, 50)
    assert [item.index for item in planned] == [item.request.index for item in planned] == list(range(70))


def test_a_counted_run_ends_after_its_requests() -> None:
    made = schedule(requests=7)
    assert phases(list(made)) == ["warmup"] * 20 + ["measured"] * 7


def test_the_shorter_of_requests_and_duration_decides() -> None:
    assert len(list(schedule(requests=7, duration="5s"))) == 27
    assert len(list(schedule(requests=700, duration="5s"))) == 70


def test_after_a_counted_warm_up_the_window_opens_with_the_first_request_that_counts() -> None:
    planned = list(schedule(warmup=15))
    # Request 15 is at 1.5 s, so the window ends at 6.5 s.
    assert phases(planned) == ["warmup"] * 15 + ["measured"] * 50


def test_all_at_once_is_intended_at_0() -> None:
    planned = list(schedule(rate="inf", requests=9, warmup=3))
    assert {item.offset_ns for item in planned} == {0}
    assert phases(planned) == ["warmup"] * 3 + ["measured"] * 9


def test_stages_end_the_run_and_hold_its_warm_up() -> None:
    stages = "{arrivals: stages, process: constant, stages: [{rate: 10, duration: 3s}, {rate: 2, duration: 4s}]}"
    text = WORKLOAD.replace("{arrivals: constant, rate: 10}", stages).replace("duration: 5s, ", "")
    made = schedule(text)
    planned = list(made)
    assert phases(planned) == ["warmup"] * 20 + ["measured"] * 18
    assert planned[-1].offset_ns == 6.5 * SECOND
    assert phases(list(schedule(text, warmup=30))) == ["warmup"] * 30 + ["measured"] * 8


def test_a_closed_loop_goes_on_and_leaves_phases_to_the_clock() -> None:
    planned = list(islice(schedule(concurrency=2), 500))
    assert len(planned) == 500
    assert {(item.offset_ns, item.phase) for item in planned} == {(None, None)}


def test_a_closed_loop_that_counts_ends_by_count() -> None:
    made = schedule(concurrency=2, warmup=3, requests=5)
    assert phases(list(made)) == ["warmup"] * 3 + ["measured"] * 5
    assert made.planned_in_window == 5


def test_the_same_seeds_give_the_same_requests_and_hash() -> None:
    one, other = schedule(), schedule()
    assert list(one) == list(other)
    assert one.hash_hex == other.hash_hex


def test_request_i_does_not_depend_on_those_before_it() -> None:
    made = schedule()
    in_order = [item.request for item in made]
    again = schedule().source
    assert [again.request(i) for i in reversed(range(70))] == in_order[::-1]


def test_the_hash_runs_with_the_schedule() -> None:
    made = schedule()
    hashes = [made.hash_hex, *(made.hash_hex for _ in made)]
    assert len(set(hashes)) == 71


@pytest.mark.parametrize("seed", ["arrivals", "prompts", "lengths"])
def test_each_seed_changes_its_own_dimension_alone(seed: str) -> None:
    text = WORKLOAD.replace("constant", "poisson").replace("prompts: 1", "prompts: 1, arrivals: 0, lengths: 0")
    old = "prompts: 1" if seed == "prompts" else f"{seed}: 0"
    base, changed = schedule(text), schedule(text.replace(old, f"{seed}: 9"))
    one, other = list(islice(base, 40)), list(islice(changed, 40))

    def dimensions(planned: list[Planned]) -> dict[str, list[object]]:
        return {
            "arrivals": [item.offset_ns for item in planned],
            "lengths": [(item.request.asked_prompt_tokens, item.request.asked_output_tokens) for item in planned],
            "prompts": [str(item.request.prompt).split()[1] for item in planned],
        }

    differing = {name for name in dimensions(one) if dimensions(one)[name] != dimensions(other)[name]}
    assert differing == {seed}
    assert base.hash_hex != changed.hash_hex


def test_without_a_seed_each_run_draws_its_prompts_anew_and_says_how_to_repeat_them() -> None:
    text = WORKLOAD.replace(", seeds: {prompts: 1}", "")
    one, other = schedule(text), schedule(text)
    first, second = next(iter(one)).request, next(iter(other)).request
    assert first.prompt != second.prompt
    assert first.asked_prompt_tokens == second.asked_prompt_tokens
    again = schedule(text.replace("warmup: 2s", f"warmup: 2s, seeds: {{prompts: {one.seeds.prompts}}}"))
    assert next(iter(again)).request == first


def test_prompts_are_unique_within_a_run() -> None:
    prompts = [item.request.prompt for item in schedule(duration="100s")]
    assert len(set(prompts)) == len(prompts) == 1020


def test_distinct_prompts_repeat_in_turn() -> None:
    text = WORKLOAD.replace("{source: synthetic", "{source: synthetic, distinct: 3")
    requests = [item.request for item in schedule(text)]
    assert len({request.prompt for request in requests}) == 3
    assert requests[0].prompt == requests[3].prompt != requests[1].prompt


def test_lengths_below_the_template_are_raised_to_it_and_counted() -> None:
    made = schedule(WORKLOAD.replace("uniform(50, 90)", "uniform(1, 90)"))
    requests = [item.request for item in made]
    least = VOCABULARY.fixed_tokens
    below = [made.source.lengths(i)[0] < least for i in range(70)]
    assert 0 < sum(below) < 70
    assert made.raised_prompts == sum(below)
    assert all(request.asked_prompt_tokens == least for request, low in zip(requests, below, strict=True) if low)


def test_a_fixed_length_below_the_template_is_refused() -> None:
    with pytest.raises(BadInput, match=r"prompts\.input_tokens: 3 tokens are asked, .* ask for at least 10"):
        schedule(input_tokens=3)


def test_token_id_prompts_hold_exactly_the_asked_ids() -> None:
    text = WORKLOAD.replace("{source: synthetic", "{source: synthetic, tokens: ids").replace("(50, 90)", "(1, 90)")
    made = schedule(text + "request: {endpoint: completions}\n")
    requests = [item.request for item in made]
    assert all(isinstance(request.prompt, tuple) for request in requests)
    assert [len(request.prompt) for request in requests] == [request.asked_prompt_tokens for request in requests]
    assert {token for request in requests for token in request.prompt} <= set(VOCABULARY.ids)
    assert made.raised_prompts == 0


@pytest.mark.parametrize(
    ("load", "offsets"),
    [
        ("arrivals: trace", [0, 1.5, 4]),
        ("arrivals: trace, speed: 2", [0, 0.75, 2]),
        ("arrivals: constant, rate: 1", [0, 1, 2]),
    ],
)
def test_a_trace_ends_with_its_rows(tmp_path: Path, load: str, offsets: list[float]) -> None:
    (tmp_path / "t.csv").write_text(TRACE)
    text = f"version: 1\nprompts: {{source: azure, path: t.csv}}\nload: {{{load}}}\nrun: {{warmup: 0}}\n"
    planned = list(schedule(text, folder=tmp_path))
    assert [item.offset_ns for item in planned] == [seconds * SECOND for seconds in offsets]
    assert [item.request.asked_prompt_tokens for item in planned] == [40, 80, 20]
    assert [item.request.asked_output_tokens for item in planned] == [5, 9, 7]


def test_the_data_is_part_of_the_hash(tmp_path: Path) -> None:
    text = "version: 1\nprompts: {source: azure, path: t.csv}\nload: {arrivals: trace}\nrun: {seeds: {prompts: 1}}\n"
    (tmp_path / "t.csv").write_text(TRACE)
    before = schedule(text, folder=tmp_path)
    (tmp_path / "t.csv").write_text(TRACE + "2023-11-16 18:17:09.0,1,1\n")
    after = schedule(text, folder=tmp_path)
    assert next(iter(before)) == next(iter(after))
    assert before.hash_hex != after.hash_hex


def test_a_closed_loop_ends_with_its_data(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(TRACE)
    text = "version: 1\nprompts: {source: azure, path: t.csv}\nload: {concurrency: 2}\n"
    assert len(list(schedule(text, folder=tmp_path))) == 3


def test_what_is_wrong_with_prompts_names_its_place_in_the_file() -> None:
    """Some of it shows only when the server's vocabulary is known; a value that a flag has put there has no line."""
    text = "version: 1\nprompts:\n  source: synthetic\n  input_tokens: 2\n  output_tokens: 5\nload: {rate: 1}\n"
    loaded = parse_workload(text, "w.yaml")
    with pytest.raises(BadInput, match=r"^w\.yaml:4: prompts\.input_tokens: 2 tokens are asked"):
        plan(loaded, VOCABULARY)
    with pytest.raises(BadInput, match=r"^prompts\.input_tokens: 3 tokens are asked"):
        plan(apply(loaded, {"input_tokens": "3"}), VOCABULARY)
    mix = text.replace("prompts:\n", "classes:\n  a:\n    prompts:\n").replace("\n  source", "\n      source")
    mix = mix.replace("\n  input", "\n      input").replace("\n  output", "\n      output")
    with pytest.raises(BadInput, match=r"^w\.yaml:6: class a: prompts\.input_tokens: 2 tokens"):
        plan(parse_workload(mix, "w.yaml"), VOCABULARY)

"""Bytes and FLOPs of a run's window, against figures worked out by hand; steps, phases, measured shares, gaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.harness.clock import SECOND
from servemark.harness.efficiency.assessed import Assessed
from servemark.harness.efficiency.gap import CAUSES, Gap, explained
from servemark.harness.efficiency.lacks import lacks
from servemark.harness.efficiency.measured import mean_of, serving, watched
from servemark.harness.efficiency.modelled import Modeller, edges_of
from servemark.harness.efficiency.phases import Phases, alone, phases
from servemark.harness.efficiency.reached import limits
from servemark.harness.efficiency.readings import curve, grown, level
from servemark.harness.efficiency.seen import seen
from servemark.harness.efficiency.shares import databricks, shares
from servemark.harness.efficiency.spans import quiet
from servemark.harness.efficiency.speculation import Speculation, speculation
from servemark.harness.efficiency.steps import chain, steps
from servemark.harness.figures.frame import Frame, Window
from servemark.harness.hardware.architecture import Attention
from servemark.harness.hardware.deployed import Deployed
from servemark.harness.hardware.layout import Layout
from servemark.harness.hardware.work import Arithmetic
from servemark.harness.types import GpuSample, ServerSample
from servemark.results.hardware import hardware_part
from tests.frames import answer, at, frame
from tests.made_models import gpu, gqa, model

# 1,000 elements that every token meets, 100 of the head, at 2 bytes; a KV of 8 elements a token at 2 bytes; 32 FLOPs
# for each pair of a query and a key.
SMALL = model({"mlp": 1000, "head": 100, "embedding": 100}, (gqa(4, 2, 2),))
WEIGHTS, KV, PAIR, BODY, HEAD = 2 * 1100, 16, 32, 2 * 1000, 2 * 100

# Three requests, of prompts 10, 20 and 30 (5 cached), which get 3, 2 and 4 tokens at these milliseconds.
ANSWERS = (
    answer(0, 0, (100, 200, 300), prompt_tokens=10),
    answer(1, 50, (150, 250), prompt_tokens=20),  # at 200 and 300
    answer(
        2, 250, (150, 250, 350), tokens=(1, 1, 2), prompt_tokens=30, cached_tokens=5, output_tokens=4
    ),  # 400, 500, 600
)
RUN = frame(*ANSWERS)
WHOLE = Window(at(0), at(1000))


def counters(window: Window, **growth: float) -> list[ServerSample]:
    """Readings at both ends of the window, between which counters grow by this."""
    return [ServerSample(window.start_ns, dict.fromkeys(growth, 7.0)), ServerSample(window.end_ns, _grown(growth))]


def _grown(growth: Mapping[str, float]) -> dict[str, float]:
    return {name: 7.0 + by for name, by in growth.items()}


def assessed(
    records: Frame = RUN,
    samples: Sequence[ServerSample] = (),
    *,
    window: Window = WHOLE,
    one: Any = SMALL,
    layout: Layout | None = None,
    kind: Any = None,
    **more: Any,
) -> Assessed:
    layout = layout or Layout()
    made_on = Deployed(gpu=kind or gpu(), model=one, layout=layout, gpus=layout.gpus)
    return Assessed(records, window, samples, more.pop("gpu_samples", ()), made_on, **more)


def of(run: Assessed, what: str, how: str = "modelled") -> float:
    return next(float(row.bytes_or_flops or 0) for row in shares(run) if (row.what, row.how) == (what, how))


# -- bytes and FLOPs


def test_three_requests_move_the_bytes_that_were_added_up_by_hand() -> None:
    # Each decoded token reads what was cached before it: 10, 11 | 20 | 30, then 31 and 32 of the chunk of two.
    read = KV * (10 + 11 + 20 + 30 + 31 + 32)
    written = KV * (6 + 10 + 20 + 25)  # decoded tokens, and those of prompts that were not cached
    cached = KV * 5
    run = assessed(samples=counters(WHOLE, iterations=6))
    assert of(run, "mbu") == pytest.approx(6 * WEIGHTS + read + written + cached)


def test_three_requests_take_the_flops_that_were_added_up_by_hand() -> None:
    prompts = BODY * (10 + 20 + 25) + 3 * HEAD
    decode = 6 * (BODY + HEAD)
    # A prompt of n tokens has n(n+1)/2 pairs, less those of its cached part; a token meets the cache and itself.
    pairs = 55 + 210 + (465 - 15) + (11 + 12 + 21 + 31 + 32 + 33)
    assert of(assessed(), "mfu") == pytest.approx(prompts + decode + PAIR * pairs)


def test_only_what_came_in_the_window_counts() -> None:
    """From 200 ms up to 400 ms: the first token of request 1, two decoded tokens of 0 and one of 1."""
    window = Window(at(200), at(400))
    run = assessed(window=window, samples=counters(window, iterations=2))
    assert of(run, "mbu") == pytest.approx(2 * WEIGHTS + KV * (10 + 11 + 20) + KV * (3 + 20))


def test_a_window_of_attention_caps_what_is_read_and_computed() -> None:
    one = model({"mlp": 1000, "head": 100}, (gqa(4, 2, 2, window=12),))
    run = assessed(one=one, samples=counters(WHOLE, iterations=6))
    read = KV * (10 + 11 + 12 + 12 + 12 + 12)
    assert of(run, "mbu") == pytest.approx(6 * WEIGHTS + read + KV * (61 + 5))
    pairs = sum(min(place, 12) for prompt in (range(1, 11), range(1, 21), range(6, 31)) for place in prompt)
    pairs += 11 + 5 * 12
    assert of(run, "mfu") == pytest.approx(BODY * 55 + 3 * HEAD + 6 * (BODY + HEAD) + PAIR * pairs)


def test_experts_are_read_as_far_as_the_tokens_of_a_step_choose_them() -> None:
    one = model({"expert": 8000, "head": 100}, (Attention(0, 1, 0),), experts=8, chosen=2)
    many = frame(*(answer(index, 0, (100, 200, 300)) for index in range(4)))
    run = assessed(many, counters(WHOLE, iterations=3), one=one)
    # A step with the four prompts of 100 tokens, which needs all experts, and two with a token for each request.
    step = 2 * 100 + 16_000 * (1 - 0.75**4)
    with_prompts = 2 * 100 + 16_000 * (1 - 0.75**400)
    assert of(run, "mbu") == pytest.approx(2 * step + with_prompts)


def test_tokens_that_speculation_gives_share_a_read_and_cost_what_was_checked() -> None:
    """3 drafts of 4 tokens each, of which 3 are accepted: 2 tokens a step, and 15 positions checked for 6 given."""
    told = counters(WHOLE, iterations=6, spec_drafts=3, spec_draft_tokens=12, spec_accepted_tokens=3)
    spec = speculation(told, WHOLE)
    assert (spec.tokens_per_step, spec.verified, spec.accepted) == (2, 15 / 6, 3 / 12)
    plain, drafted = assessed(samples=told[:0]), assessed(samples=told)
    assert of(drafted, "mfu") == of(plain, "mfu")
    assert of(drafted, "hfu") - of(drafted, "mfu") == pytest.approx(1.5 * (6 * (BODY + HEAD) + PAIR * 140))
    read = KV * (10 + 11 + 20 + 30 + 31 + 32) / 2
    assert of(drafted, "mbu") == pytest.approx(6 * WEIGHTS + read + KV * (15 + 55 + 5))


def test_a_bound_at_the_largest_batch_takes_drafts_for_granted_too() -> None:
    told = counters(WHOLE, iterations=6, spec_drafts=3, spec_draft_tokens=12, spec_accepted_tokens=3)
    bounds = []
    for samples in (counters(WHOLE, iterations=6), told):
        run = assessed(samples=samples)
        arithmetic, load, total = run.deployment.arithmetic, run.load, run.total
        assert arithmetic is not None
        assert load is not None
        assert total is not None
        found = limits(arithmetic, gpu(), load, total, run.speculation, {}, None, 9.0)["throughput"]
        bounds.append((load, found["bound_at_largest_batch"]))
    assert bounds[1][1] == pytest.approx(2 * bounds[0][1])
    # Six decoded tokens are of three requests' steps, which three more requests took with their prompts.
    assert (bounds[1][0].batch, bounds[1][0].sharing) == (pytest.approx(3 / 6), pytest.approx(6 / 6))


def test_the_batch_over_time_is_in_requests_of_a_server() -> None:
    """6 tokens at 2 a step for each request, and two stages with a part of the batch each."""
    told = counters(WHOLE, iterations=12, spec_drafts=3, spec_draft_tokens=12, spec_accepted_tokens=3)
    layout = Layout(pipeline=2)
    made_on = Deployed(gpu=gpu(), model=SMALL, layout=layout, gpus=2)
    part = hardware_part(RUN, WHOLE, told, (), {}, made_on, zero_ns=at(0))
    batches = [each["batch"] for each in part["efficiency"]["over_time"]]
    assert batches == [pytest.approx(6 / 2 / (12 * 0.601) * 2)]


def test_steps_without_a_draft_give_one_token() -> None:
    """Two requests get 40 tokens after their first: 10 drafts of 3 gave 20 of them, and 20 steps had no draft."""
    told = counters(
        WHOLE, generation_tokens=42, ttft_count=2, spec_drafts=10, spec_draft_tokens=30, spec_accepted_tokens=10
    )
    spec = speculation(told, WHOLE)
    assert spec.tokens_per_step == pytest.approx(40 / 30)
    assert spec.verified == pytest.approx((30 + 30) / 40)
    assert spec.accepted == pytest.approx(1 / 3)


def test_drafts_that_are_counted_alone_tell_the_tokens_of_a_step() -> None:
    """As SGLang has it: 42 tokens of two answers, 40 of them from 10 checks of a draft."""
    spec = speculation(counters(WHOLE, generation_tokens=42, ttft_count=2, spec_drafts=10), WHOLE)
    assert (spec.tokens_per_step, spec.drafts, spec.on) == (pytest.approx(4), True, False)
    plain = speculation(counters(WHOLE, generation_tokens=42, ttft_count=2, spec_drafts=0), WHOLE)
    assert plain == Speculation()


def test_tokens_without_counts_are_spread_and_prompts_without_a_length_are_named() -> None:
    spread = answer(0, 0, (100, 200), tokens=(None, None), output_tokens=6, prompt_tokens=None)
    found = seen(frame(spread))
    assert found.decoded.tokens.tolist() == [2, 3]  # of the first three one came with the prompt
    assert found.unknown_prompts == 1
    assert not len(found.prefilled.rows)
    asked = seen(frame(answer(0, 0, (100,), prompt_tokens=None, asked_prompt_tokens=40)))
    assert asked.prefilled.prompts.tolist() == [40]
    assert asked.unknown_prompts == 0


def test_cached_tokens_come_from_the_server_where_the_answers_do_not_tell() -> None:
    told = counters(WHOLE, prompt_tokens=100, prompt_tokens_cached=40)
    run = assessed(frame(answer(0, 0, (100, 200), prompt_tokens=50)), told)
    assert run.seen.prefilled.cached.tolist() == [20]
    full = counters(WHOLE, prompt_tokens=100, prompt_tokens_cached=100)
    run = assessed(frame(answer(0, 0, (100, 200), prompt_tokens=50)), full)
    assert run.seen.prefilled.cached.tolist() == [49], "the last token is always computed"


def test_bins_add_up_to_the_window() -> None:
    long = frame(*(answer(index, 137 * index, [100 + 40 * k for k in range(60)]) for index in range(40)))
    window = Window(at(500), at(7300))
    modeller = Modeller(Arithmetic(SMALL), seen(long), steps(long, (), window, Layout()), Speculation())
    bins, once = modeller.over(edges_of(window)), modeller.over(np.array([window.start_ns, window.end_ns]))
    assert len(bins.decoded) == 6
    assert len(once.decoded) == 1
    for name in ("decoded", "computed", "kv_read", "kv_written", "steps", "weights"):
        assert getattr(bins.total(), name)[0] == pytest.approx(getattr(once, name)[0]), name


@given(st.floats(0.25, 8), st.integers(1, 4))
def test_shares_scale_with_time_peaks_and_replicas(faster: float, replicas: int) -> None:
    """Twice as fast is twice the share; so is half the peak; n replicas share the work of as many GPUs."""

    def run(pace: float, bandwidth: float, count: int) -> dict[str, float]:
        rows = [answer(i, 0, [each / pace for each in (200, 400, 600)], url=f"u{i % count}") for i in range(count * 2)]
        window = Window(at(0), at(0) + round(2 * SECOND / pace))
        told = counters(window, iterations=8 * count)
        kind = gpu(bandwidth, 0.001)
        found = shares(assessed(frame(*rows), told, window=window, kind=kind, layout=Layout(replicas=count)))
        return {row.what: row.value or 0.0 for row in found}

    base = run(1, 1e-3, 1)
    assert base["mbu"] > 0
    assert base["mfu"] > 0
    assert run(faster, 1e-3 * faster, 1)["mbu"] == pytest.approx(base["mbu"], rel=1e-6)
    assert run(faster, 1e-2, 1)["mbu"] == pytest.approx(base["mbu"] * faster / 10, rel=1e-6)
    assert run(1, 1e-3, replicas)["mbu"] == pytest.approx(base["mbu"])
    assert run(1, 1e-3, replicas)["mfu"] == pytest.approx(base["mfu"])


def test_a_share_that_cannot_be_is_no_fact() -> None:
    rows = shares(assessed(samples=counters(WHOLE, iterations=6), kind=gpu(1e-5)))
    mbu = next(row for row in rows if row.what == "mbu")
    assert mbu.value is None
    assert mbu.note == "MBU would be 164 %: the GPU, its number, the model or its format is not as named"


# -- steps


def test_steps_are_the_servers_where_it_counts_them_in_the_window_only() -> None:
    samples = [ServerSample(at(-1000), {"iterations": 0.0}), ServerSample(at(3000), {"iterations": 32.0})]
    found = steps(RUN, samples, WHOLE, Layout())
    assert found is not None
    assert found.source == "counter"
    assert not found.agreed
    assert found.count(WHOLE) == pytest.approx(8)


def test_each_data_rank_counts_its_steps() -> None:
    found = steps(RUN, counters(WHOLE, iterations=12), WHOLE, Layout(data=2))
    assert found is not None
    assert (found.count(WHOLE), found.ranks) == (pytest.approx(6), 2)


def test_chunks_of_answers_that_follow_each_other_count_steps() -> None:
    """Steps every 10 ms from 0 to 1 s; answers begin and end at different ones, and all get a chunk from each."""
    rows = [answer(i, 0, [10.0 * k for k in range(first, last + 1)]) for i, (first, last) in enumerate(_SPANS)]
    taken = set().union(*(range(first, last + 1) for first, last in _SPANS))
    assert len(chain(frame(*rows))[0]) == len(taken)
    found = steps(frame(*rows), (), Window(at(-10), at(1010)), Layout())
    assert found is not None
    assert found.source == "chunks"
    assert found.count(Window(at(-10), at(1010))) == pytest.approx(len(taken), abs=0.1)


_SPANS = ((0, 20), (5, 9), (15, 40), (18, 30), (60, 61), (61, 80), (90, 90))


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 40)), min_size=1, max_size=30))
def test_a_chain_has_each_step_once(spans: list[tuple[int, int]]) -> None:
    rows = [answer(i, 0, [10.0 * k for k in range(first, first + more + 1)]) for i, (first, more) in enumerate(spans)]
    taken = set().union(*(range(first, first + more + 1) for first, more in spans))
    stamps = np.sort(chain(frame(*rows))[0])
    assert {round((stamp - at(0)) / 1e7) for stamp in stamps.tolist()} == taken
    assert len(stamps) == len(taken)


def test_chunks_of_one_step_that_come_one_after_the_other_are_one_step() -> None:
    """Three requests of three tokens each run at a time, and their chunks of a step come 0.4 ms apart."""
    rows = [answer(3 * i + j, 0, [10.0 * (i * 3 + k) + 0.4 * j for k in range(3)]) for i in range(50) for j in range(3)]
    assert len(chain(frame(*rows))[0]) == 150
    found = steps(frame(*rows), (), Window(at(-10), at(1600)), Layout())
    assert found is not None
    assert found.count(Window(at(-10), at(1600))) == pytest.approx(150)


def test_chunks_of_several_tokens_hold_several_steps_where_nothing_is_drafted() -> None:
    """As with --stream-interval 4: 400 steps of 10 ms in 100 chunks."""
    rows = frame(*(answer(i, 0, [10 + 40.0 * k for k in range(100)], tokens=[4] * 100) for i in range(3)))
    window = Window(at(0), at(4000))
    found = steps(rows, counters(window, iterations=400), window, Layout())
    assert found is not None
    assert (found.source, found.agreed) == ("counter", True)
    assert found.count(window) == pytest.approx(400)
    drafted = counters(window, iterations=100, spec_drafts=300, spec_draft_tokens=900, spec_accepted_tokens=900)
    found = steps(rows, drafted, window, Layout())
    assert found is not None
    assert (found.agreed, found.count(window)) == (True, pytest.approx(100))
    untold = steps(rows, (), window, Layout())
    assert untold is not None
    assert untold.count(window) == pytest.approx(100)
    assert "held 4 tokens: without drafts there were as many more steps" in untold.note


def test_a_counter_that_agrees_with_the_chunks_says_how_many_and_they_say_when() -> None:
    rows = frame(answer(0, 0, [10.0 * k for k in range(100)]))  # nothing after 1 s
    window = Window(at(0), at(2000))
    found = steps(rows, counters(window, iterations=102), window, Layout())
    assert found is not None
    assert found.agreed
    assert found.source == "counter"
    assert found.count(Window(at(0), at(1000))) == pytest.approx(102, rel=0.02)


def test_a_counter_that_counts_double_is_found_out() -> None:
    rows = frame(answer(0, 0, [10.0 * k for k in range(100)]))
    window = Window(at(0), at(1000))
    found = steps(rows, counters(window, iterations=300), window, Layout())
    assert found is not None
    assert found.source == "chunks"
    assert "3.0 times" in found.note
    assert found.count(window) == pytest.approx(100, rel=0.02)


def test_without_a_counter_or_pieces_there_are_no_steps_and_no_mbu() -> None:
    whole = frame(answer(0, 0, (500,), tokens=(20,)))
    assert steps(whole, (), WHOLE, Layout()) is None
    assert [row.what for row in shares(assessed(whole))] == ["mfu"]


def test_counters_that_fell_or_cover_little_say_nothing() -> None:
    fell = [ServerSample(at(0), {"x": 5.0}), ServerSample(at(500), {"x": 9.0}), ServerSample(at(1000), {"x": 1.0})]
    assert grown(fell, "x", WHOLE) is None
    assert grown(counters(Window(at(0), at(700)), x=3), "x", WHOLE) is None
    assert grown(counters(Window(at(0), at(900)), x=9), "x", WHOLE) == pytest.approx(10), "it goes on as it went"
    assert curve((), "x", WHOLE) is None


def test_levels_are_weighted_by_time() -> None:
    readings = [(0, 1.0), (100, 1.0), (200, 3.0), (1000, 0.0)]
    found = level([ServerSample(at(when), {"x": value}) for when, value in readings], "x", WHOLE)
    assert found is not None
    assert (found.mean, found.largest, found.above_zero) == (pytest.approx(0.4), 3.0, pytest.approx(0.2))


# -- phases


def apart(run: Assessed) -> Phases:
    modeller, total, load = run.modeller, run.total, run.load
    assert modeller is not None
    assert total is not None
    assert load is not None
    return phases(run.frame, run.window, modeller, total, load, gpu())


def _steady(count: int = 4, every: float = 10.0, steps_each: int = 200) -> Frame:
    """Requests that begin together, after a prompt of 100 ms, and decode for 2 s."""
    return frame(*(answer(i, 0, [100 + every * k for k in range(steps_each)], done_ns=at(2200)) for i in range(count)))


def test_decode_is_told_apart_where_no_prompt_is_in_flight() -> None:
    window = Window(at(0), at(2500))
    run = assessed(_steady(), window=window)
    found = apart(run).decode
    assert isinstance(found, dict)
    assert found["how"] == "between prompts"
    assert found["seconds"] == pytest.approx(1.99)
    assert found["batch"] == pytest.approx(4)
    read = KV * sum(100 + k for k in range(199)) * 4
    assert found["mbu"] == pytest.approx((199 * (WEIGHTS + 4 * KV) + read) / 1.99 / 3350e9)


def test_a_prompt_in_flight_ends_the_time_of_decode_at_the_last_whole_step() -> None:
    late = answer(9, 1004, (196, 206), sent=0)  # sent at 1,004 ms, its first token at 1,200
    rows = frame(*(answer(0, 0, [100 + 10 * k for k in range(200)]),), late)
    spans = quiet(rows, np.ones(2, dtype=np.bool_), Window(at(0), at(2500)))
    assert [(start - at(0), end - at(0)) for start, end in spans] == [(100e6, 1004e6), (1200e6, 2090e6)]
    run = assessed(rows, window=Window(at(0), at(2500)))
    found = apart(run).decode
    assert isinstance(found, dict)
    assert found["seconds"] == pytest.approx(0.9 + 0.89)


def test_a_chunk_of_several_tokens_is_several_steps_of_decode_too() -> None:
    """The same steps, of which the server sends four in a chunk."""
    window = Window(at(0), at(2500))
    every = counters(window, iterations=200)
    sparse = frame(
        *(answer(i, 0, [100 + 40.0 * k for k in range(50)], tokens=[1] + [4] * 49, done_ns=at(2200)) for i in range(4))
    )
    one, four = apart(assessed(_steady(), every, window=window)).decode, apart(assessed(sparse, every, window=window))
    assert isinstance(one, dict)
    assert isinstance(four.decode, dict)
    assert four.decode["batch"] == pytest.approx(4)
    assert four.decode["mbu"] == pytest.approx(one["mbu"], rel=0.01)


def test_answers_of_one_token_have_no_decode() -> None:
    run = assessed(frame(*(answer(i, 100 * i, (90,)) for i in range(9))), counters(WHOLE, iterations=9))
    assert "nothing was decoded" in str(apart(run).decode)


def test_decode_goes_by_the_gaps_where_prompts_are_always_in_flight() -> None:
    busy = [answer(i, 0, [100 + 10 * k for k in range(100)]) for i in range(4)]
    waiting = answer(9, 0, (1090, 1100), sent=0)  # all the while on its way to a first token
    run = assessed(frame(*busy, waiting), window=Window(at(0), at(1090)))
    found = apart(run).decode
    assert isinstance(found, dict)
    assert found["how"] == "icl"
    assert "10 ms" in found["note"]
    load = run.load
    assert load is not None
    assert load.batch is not None
    assert load.context is not None
    moved = WEIGHTS + load.batch * KV * (load.context + 1)
    assert found["mbu"] == pytest.approx(moved / 0.01 / 3350e9)


def test_prefill_is_told_at_a_concurrency_of_one_only() -> None:
    one_by_one = frame(*(answer(i, 1000 * i, (100, 200, 300), done_ns=at(1000 * i + 310)) for i in range(3)))
    run = assessed(one_by_one, window=Window(at(0), at(3000)))
    assert alone(one_by_one)
    found = apart(run).prefill
    assert isinstance(found, dict)
    assert found["seconds"] == pytest.approx(0.3)
    flops = BODY * 100 + HEAD + PAIR * 5050
    assert found["mfu"] == pytest.approx(3 * flops / 0.3 / 989e12)
    both = frame(answer(0, 0, (100, 200)), answer(1, 50, (100, 200)))
    run = assessed(both)
    assert "concurrency of 1" in str(apart(run).prefill)


# -- measured, told


def _gpu_samples(name: str, **fields: Sequence[float]) -> list[GpuSample]:
    """A reading every 250 ms from 0 to 1 s, the first of which speaks for what was before the window."""
    rows = zip(*fields.values(), strict=True)
    return [GpuSample(at(250 * i), name, dict(zip(fields, row, strict=True))) for i, row in enumerate(rows)]


def test_measured_bandwidth_is_the_mean_over_time_and_gpus() -> None:
    one = _gpu_samples("a", dram_active=(1.0, 0.2, 0.4, 0.6, 0.8))
    other = _gpu_samples("b", dram_active=(1.0, 0.6, 0.6, 0.6, 0.6))
    run = assessed(gpu_samples=[*one, *other], layout=Layout(tensor=2))
    row = next(row for row in shares(run) if row.how == "measured")
    assert row.value == pytest.approx((0.5 + 0.6) / 2)
    assert row.bytes_or_flops == pytest.approx(0.55 * 2 * 3350e9)


def test_idle_gpus_beside_those_that_serve_do_not_count() -> None:
    busy, idle = _gpu_samples("a", dram_active=[0.7] * 5), _gpu_samples("b", dram_active=[0.0] * 5)
    chosen = serving(watched([*idle, *busy], WHOLE), 1)
    assert [each.gpu for each in chosen] == ["a"]
    assert mean_of(chosen, "dram_active") == pytest.approx(0.7)
    assert mean_of(chosen, "tensor_active") is None


def test_a_gpu_that_was_lost_is_not_replaced_by_an_idle_one() -> None:
    """Two of three serve; one of them tells nothing after half a second."""
    busy, lost = _gpu_samples("a", dram_active=[0.7] * 5), _gpu_samples("b", dram_active=[0.7] * 5)[:3]
    idle = _gpu_samples("c", dram_active=[0.01] * 5)
    run = assessed(gpu_samples=[*idle, *busy, *lost], layout=Layout(tensor=2))
    assert {each.gpu for each in run.serving} == {"a", "b"}
    assert not [row for row in shares(run) if row.how == "measured"]
    assert "No measured MBU: not all GPUs told it in most of the window" in list(lacks(run, shares(run), None))


def test_energy_comes_from_the_counter_else_from_the_power() -> None:
    counted = watched(_gpu_samples("a", energy=(100, 200, 300, 400, 500), power=[1] * 5), WHOLE)[0]
    assert (counted.joules, counted.energy_source) == (pytest.approx(400), "energy counter")
    integrated = watched(_gpu_samples("a", power=(100, 200, 300, 400, 500)), WHOLE)[0]
    assert (integrated.joules, integrated.energy_source) == (pytest.approx(300), "power, integrated")


def test_the_servers_own_estimate_is_of_one_gpu_and_nothing_where_it_stands_still() -> None:
    told = counters(
        WHOLE, est_flops_per_gpu=2 * 989e11, est_read_bytes_per_gpu=2 * 300e9, est_write_bytes_per_gpu=2 * 35e9
    )
    found = {
        row.what: row.value for row in shares(assessed(samples=told, layout=Layout(data=2))) if row.how == "server"
    }
    assert found == {"mbu": pytest.approx(0.1), "mfu": pytest.approx(0.1)}
    off = counters(WHOLE, est_flops_per_gpu=0, est_read_bytes_per_gpu=0, est_write_bytes_per_gpu=0)
    assert not [row for row in shares(assessed(samples=off)) if row.how == "server"]


def test_databricks_form_takes_a_token_for_a_step() -> None:
    """7 GB of weights at 10 ms a token on 2 TB/s: 700 GB/s, 35 %."""
    one = model({"mlp": 3_500_000_000}, (Attention(0, 1, 0),))
    run = assessed(one=one, kind=gpu(2000), metrics={"tpot": {"p50": 10.0}})
    assert databricks(run) == pytest.approx(0.35)


# -- the gap


def _gap(**more: Any) -> Gap:
    run = assessed(samples=counters(WHOLE, iterations=6))
    assert run.total is not None
    return Gap(arithmetic=Arithmetic(SMALL), total=run.total, steps=run.steps, **{"bytes_per_s": 1e6} | more)


@pytest.mark.parametrize("side", ["more", "less"])
def test_the_gap_is_said_in_figures_with_causes_that_point_its_way(side: str) -> None:
    """Each cause has a figure here; those of the other side would explain the opposite."""
    moved = 6 * WEIGHTS + KV * (134 + 61 + 5)
    facts: dict[str, Any] = {"preemptions": 3, "generated": 90, "unknown_prompts": 2, "memory_clock_share": 0.8}
    facts |= {"cached_told": False, "levels": (0.1, 0.9), "source": "nvml + dcgm"}
    ratio = {"more": 1.5, "less": 0.5}[side]
    said = explained(_gap(measured_mbu=ratio * moved / 1e6, **facts))
    assert said[0] == f"The GPUs moved {ratio:.2f} times the modelled bytes."
    words = {
        "more": ("Activations", "3 preemptions", "memory clock was 80.0 %", "90 tokens", "Of 2 requests", "blocks"),
        "less": ("prompt tokens were cached", "narrower --dtype", "dcgm-exporter tells means", "moved 10.0 %"),
    }
    for each, wanted in words.items():
        for word in wanted:
            assert any(word in sentence for sentence in said) == (each == side), word


def test_a_gap_of_nothing_has_no_causes_and_none_without_its_figure() -> None:
    moved = 6 * WEIGHTS + KV * (134 + 61 + 5)
    assert explained(_gap(measured_mbu=moved / 1e6, preemptions=3)) == ["The GPUs moved 1.00 times the modelled bytes."]
    said = " ".join(explained(_gap(measured_mbu=0.5)))
    assert not any(word in said for word in ("preempt", "clock", "dcgm", "The GPUs differ", "cached"))


def test_without_a_measured_figure_it_is_what_the_model_leaves_out() -> None:
    said = explained(_gap(preemptions=3, cached_told=False, memory_clock_share=0.8))
    assert said[0] == "Not in the model:"
    assert any("3 preemptions" in each for each in said)
    assert not any("cached" in each or "--dtype" in each or "clock" in each for each in said)


def test_every_cause_has_been_seen() -> None:
    """Each function of the registry says something for some run."""
    moe = model({"expert": 8000, "head": 100}, (Attention(8, 1, 4),), experts=8, chosen=2)
    run = assessed(one=moe, samples=counters(WHOLE, iterations=9))  # more than the chunks say
    assert run.total is not None
    spec = Speculation(2.0, 2.5, 0.3)
    gap = Gap(
        arithmetic=Arithmetic(moe), total=run.total, steps=run.steps, speculation=spec, bytes_per_s=1e6,
        driver_bytes_per_s=1.1e6, cached_told=False, levels=(0.1, 0.9), source="dcgm",
        measured_mbu=0.3, memory_clock_share=0.9, preemptions=2, generated=100, unknown_prompts=1,
    )  # fmt: skip
    assert all(each.sentence(gap) for _, each in CAUSES.items())

"""Floors, memory and bounds: the textbook's figures, arithmetic by hand, and what must hold of any."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.harness.hardware.layout import Layout
from servemark.harness.hardware.limits import (
    activation_bytes,
    bound,
    gpus_needed,
    intensity,
    memory,
    roofline,
    throughput_bound,
    tpot_floor,
    ttft_floor,
)
from servemark.harness.hardware.model import Model
from servemark.harness.hardware.work import Arithmetic, Work
from tests.made_models import gpu, llama_8b, round_model, served
from tests.test_work import LAYOUTS, MLA, MODELS, MOE

H100 = gpu()
TWO_TB_S = gpu(bandwidth_gb_s=2000, bf16_tflops=1000)
LLAMA = Arithmetic(llama_8b())
LLAMA_READ = 2 * (8_030_261_248 - 128256 * 4096)


# -- the textbook


def test_70b_in_16_bit_on_2_tb_per_s_cannot_exceed_14_3_tokens_per_s() -> None:
    floor = tpot_floor(Arithmetic(round_model(70e9)), TWO_TB_S, batch=1, context=0)
    assert floor.binding == "bandwidth"
    assert 1 / floor.seconds == pytest.approx(14.3, abs=0.05)
    assert throughput_bound(Arithmetic(round_model(70e9)), TWO_TB_S, 1, 100, 100) == pytest.approx(14.3, abs=0.05)


def test_100_token_prefill_of_8b_on_h100_is_bound_by_reading_the_weights() -> None:
    floor = ttft_floor(Arithmetic(round_model(8e9)), H100, 100)
    assert floor.binding == "bandwidth"
    assert floor.seconds == pytest.approx(4.8e-3, abs=0.03e-3)
    assert floor.compute_s == pytest.approx(1.6e-3, abs=0.03e-3)


def test_llama_3_1_8b_reads_a_little_less_than_its_parameters() -> None:
    """Not its input embedding: 15.0 of 16.1 GB; and a token of it does not pass the head in prefill: 1.4 ms."""
    floor = ttft_floor(LLAMA, H100, 100)
    assert floor.bandwidth_s == pytest.approx((LLAMA_READ + 100 * 131_072) / 3350e9)
    assert floor.seconds == pytest.approx(4.48e-3, abs=0.01e-3)
    assert floor.compute_s == pytest.approx(1.41e-3, abs=0.01e-3)


def test_70b_with_40_gb_of_kv_and_10_gb_of_activations_needs_three_80_gb_gpus() -> None:
    assert gpus_needed(140e9 + 40e9 + 10e9, H100) == gpus_needed(190e9, H100, utilisation=0.9) == 3
    for gpus, fits in ((2, False), (3, True)):
        arithmetic = Arithmetic(round_model(70e9), Layout(tensor=gpus))
        room = memory(arithmetic, H100, 1.0, activations=10e9 / gpus, kv_bytes=40e9 / gpus, overhead=0)
        assert room.fits is fits
        assert room.short_by == pytest.approx(max(0.0, 190e9 / gpus - 80e9))


# -- floors


def test_long_prefill_is_bound_by_compute() -> None:
    floor = ttft_floor(LLAMA, H100, 8192)
    body = 2 * (8_030_261_248 - 2 * 128256 * 4096)
    flops = body * 8192 + 2 * 128256 * 4096 + sum(4 * 32 * 32 * 128 * position for position in range(1, 8193))
    assert floor.binding == "compute"
    assert floor.seconds == pytest.approx(flops / 989e12)


def test_cached_prefix_lowers_the_floor() -> None:
    whole, most_cached = ttft_floor(LLAMA, H100, 8192), ttft_floor(LLAMA, H100, 8192, cached=7168)
    assert most_cached.seconds < whole.seconds / 5


def test_arithmetic_of_several_dtypes_is_done_in_turn() -> None:
    work = Work(0, {"bf16": 989e12, "fp8": 1979e12})
    assert bound(work, gpu(fp8=1979)).seconds == pytest.approx(2.0)


def test_8_bit_weights_are_widened_where_the_gpu_has_no_8_bit_peak() -> None:
    fp8 = Arithmetic(served(llama_8b(), 1, "fp8"))
    ampere, hopper = gpu(2039, 312), gpu(2039, 312, fp8=624)
    assert ttft_floor(fp8, ampere, 8192).compute_s == pytest.approx(ttft_floor(LLAMA, ampere, 8192).compute_s)
    assert ttft_floor(fp8, hopper, 8192).compute_s < 0.6 * ttft_floor(LLAMA, hopper, 8192).compute_s
    assert tpot_floor(fp8, ampere, 1, 0).bandwidth_s == pytest.approx(
        tpot_floor(LLAMA, ampere, 1, 0).seconds / 2, rel=0.01
    )


def test_tensor_parallel_divides_the_floor() -> None:
    whole = tpot_floor(LLAMA, H100, 64, 1000)
    split = tpot_floor(Arithmetic(llama_8b(), Layout(tensor=8)), H100, 64, 1000)
    assert split.seconds == pytest.approx(whole.seconds / 8)


def test_pipeline_shortens_no_token_of_a_single_request() -> None:
    staged = Arithmetic(llama_8b(), Layout(pipeline=4))
    assert tpot_floor(staged, H100, 1, 1000).seconds == pytest.approx(tpot_floor(LLAMA, H100, 1, 1000).seconds)
    assert ttft_floor(staged, H100, 1) == ttft_floor(LLAMA, H100, 1)


def test_parts_of_a_long_prompt_may_be_in_all_stages_of_a_pipeline_but_its_last_token_passes_them_in_turn() -> None:
    staged = Arithmetic(llama_8b(), Layout(pipeline=4))
    assert ttft_floor(staged, H100, 5000).seconds == pytest.approx(ttft_floor(LLAMA, H100, 5000).seconds / 4)
    assert ttft_floor(staged, H100, 100).seconds == pytest.approx(LLAMA_READ / 3350e9, rel=0.01)


def test_each_stage_of_a_pipeline_takes_its_part_of_the_batch() -> None:
    staged = Arithmetic(llama_8b(), Layout(pipeline=4))
    assert tpot_floor(staged, H100, 64, 1000).seconds == pytest.approx(tpot_floor(LLAMA, H100, 16, 1000).seconds)


def test_data_ranks_share_the_requests_and_replicas_are_other_servers() -> None:
    shared = Arithmetic(llama_8b(), Layout(data=4))
    assert tpot_floor(shared, H100, 64, 1000).seconds == pytest.approx(tpot_floor(LLAMA, H100, 16, 1000).seconds)
    many = Arithmetic(llama_8b(), Layout(replicas=4))
    assert tpot_floor(many, H100, 64, 1000) == tpot_floor(LLAMA, H100, 64, 1000)
    assert throughput_bound(many, H100, 64, 500, 100) == pytest.approx(4 * throughput_bound(LLAMA, H100, 64, 500, 100))


def test_spread_experts_are_read_by_all_gpus_together() -> None:
    apart, spread = Layout(data=4), Layout(data=4, expert=True)
    alone = ttft_floor(Arithmetic(MOE, apart), H100, 1000)
    together = ttft_floor(Arithmetic(MOE, spread), H100, 1000)
    rest, experts = 2 * (400_000 + 3200 + 50_000), 2 * 4 * 8 * 1_000_000
    kv = 1000 * 4 * 2 * 4 * 16 * 2
    assert alone.bandwidth_s == pytest.approx((rest + kv + experts) / 3350e9)
    assert together.bandwidth_s == pytest.approx((rest + kv + experts / 4) / 3350e9)


# -- memory


def test_memory_is_what_is_left_of_the_share_that_the_engine_may_take() -> None:
    room = memory(LLAMA, H100, 0.9, activations=2e9, overhead=1e9)
    assert room.kv_room == pytest.approx(72e9 - 2 * 8_030_261_248 - 3e9)
    assert room.largest_batch(8192) == int(room.kv_room // (8192 * 131_072)) == 49
    assert room.fits
    assert room.short_by == 0


def test_assumed_activations_are_sixteen_vectors_a_token() -> None:
    assert activation_bytes(LLAMA) == memory(LLAMA, H100).activations == 16 * 2 * 4096 * 8192
    assert activation_bytes(LLAMA, step_tokens=1) == 16 * 2 * 4096


def test_model_that_does_not_fit_serves_nobody_and_says_what_is_missing() -> None:
    room = memory(Arithmetic(round_model(70e9, kv_bytes_per_token=1000)), H100, activations=0, overhead=0)
    assert not room.fits
    assert room.largest_batch(100) == 0
    assert room.short_by == pytest.approx(140e9 + 1000 - 72e9)


def test_largest_batch_of_a_latent_grows_with_data_ranks_and_not_with_tensor_ranks() -> None:
    def batch(layout: Layout) -> int:
        return memory(Arithmetic(MLA, layout), gpu(memory_gb=141), overhead=0, activations=0).largest_batch(32_768)

    room = 141e9 * 0.9 - 2 * (61 * 187_000_000 + 10**9)
    assert batch(Layout()) == int(room // (32_768 * 70_272))
    assert batch(Layout(data=4)) == 4 * batch(Layout())
    assert batch(Layout(tensor=8)) < 2 * batch(Layout())


# -- throughput


def test_throughput_of_one_request_is_its_decode_steps() -> None:
    once = LLAMA_READ / 3350e9
    assert throughput_bound(LLAMA, H100, 1, 1, 1000) == pytest.approx(1 / once, rel=0.01)


def test_large_batch_of_long_prompts_is_bound_by_their_arithmetic() -> None:
    bound_tps = throughput_bound(LLAMA, H100, 256, 4000, 10)
    prompt = LLAMA.prefill(4000).work.flops["bf16"]
    assert bound_tps == pytest.approx(10 * 989e12 / prompt, rel=0.01)


def test_cached_prompts_raise_the_bound() -> None:
    assert throughput_bound(LLAMA, H100, 64, 4000, 100, cached=3900) > 2 * throughput_bound(LLAMA, H100, 64, 4000, 100)


# -- roofline


def test_ridge_of_h100_is_295_flop_per_byte() -> None:
    roof = roofline(LLAMA, H100)
    assert roof.bytes_per_s == 3350e9
    assert [(ceiling.dtype, round(ceiling.ridge)) for ceiling in roof.ceilings] == [("bf16", 295)]


def test_ceilings_are_of_the_dtypes_that_the_model_computes_in() -> None:
    roof = roofline(Arithmetic(served(llama_8b(), 1, "fp8")), gpu(fp8=1979))
    assert {ceiling.dtype: ceiling.flops_per_s for ceiling in roof.ceilings} == {"fp8": 1979e12, "bf16": 989e12}


def test_decode_alone_has_an_intensity_of_one_and_the_batch_raises_it() -> None:
    assert intensity(LLAMA.decode(1, 0).work) == pytest.approx(1, rel=0.01)
    assert intensity(LLAMA.decode(64, 0).work) == pytest.approx(64, rel=0.05)


# -- properties


@given(MODELS, LAYOUTS, st.lists(st.integers(1, 2000), min_size=2, max_size=5), st.integers(0, 5000))
def test_floor_never_falls_with_the_batch(one: Model, layout: Layout, batches: list[int], context: int) -> None:
    floors = [tpot_floor(Arithmetic(one, layout), H100, batch, context).seconds for batch in sorted(batches)]
    assert all(less <= more * (1 + 1e-12) for less, more in pairwise(floors))


@given(MODELS, LAYOUTS, st.integers(1, 500), st.integers(0, 5000), st.integers(0, 5000))
def test_floors_never_fall_with_the_length(one: Model, layout: Layout, batch: int, length: int, more: int) -> None:
    arithmetic = Arithmetic(one, layout)
    assert (
        tpot_floor(arithmetic, H100, batch, length).seconds
        <= tpot_floor(arithmetic, H100, batch, length + more).seconds
    )
    short, long = ttft_floor(arithmetic, H100, 1 + length), ttft_floor(arithmetic, H100, 1 + length + more)
    assert short.seconds <= long.seconds
    assert ttft_floor(arithmetic, H100, 1 + length + more, cached=more).compute_s <= long.compute_s


@given(MODELS, st.sampled_from([1, 2, 4]), st.integers(1, 500), st.integers(0, 5000))
def test_more_tensor_ranks_never_raise_a_floor(one: Model, ranks: int, batch: int, context: int) -> None:
    few, more = Arithmetic(one, Layout(tensor=ranks)), Arithmetic(one, Layout(tensor=2 * ranks))
    assert tpot_floor(more, H100, batch, context).seconds <= tpot_floor(few, H100, batch, context).seconds
    assert more.resident_bytes == pytest.approx(few.resident_bytes / 2)


@given(MODELS, LAYOUTS, st.integers(1, 300), st.integers(1, 3000), st.integers(1, 300))
def test_throughput_is_never_above_what_the_tpot_floor_allows(
    one: Model, layout: Layout, batch: int, prompt: int, output: int
) -> None:
    arithmetic = Arithmetic(one, layout)
    fastest = layout.replicas * batch / tpot_floor(arithmetic, H100, batch, 0).seconds
    assert throughput_bound(arithmetic, H100, batch, prompt, output) <= fastest * (1 + 1e-9)


@given(MODELS, LAYOUTS, st.integers(1, 20_000))
def test_the_largest_batch_fits_and_one_more_for_each_rank_does_not(one: Model, layout: Layout, context: int) -> None:
    arithmetic = Arithmetic(one, layout)
    room = memory(arithmetic, H100)
    each = room.largest_batch(context) // layout.data
    assert each * arithmetic.kv_resident(context) <= max(0.0, room.kv_room)
    assert (each + 1) * arithmetic.kv_resident(context) > room.kv_room

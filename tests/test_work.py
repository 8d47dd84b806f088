"""Bytes and FLOPs of a step, against arithmetic written out by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.harness.hardware.architecture import Attention
from servemark.harness.hardware.known import known_model, known_models
from servemark.harness.hardware.layout import Layout
from servemark.harness.hardware.model import Model, Part
from servemark.harness.hardware.work import Arithmetic, Work, pairs
from tests.made_models import gqa, llama_8b, model, served

LLAMA_BODY = 32 * (4096 * 128 * 80 + 3 * 4096 * 14336 + 2 * 4096) + 4096
LLAMA_TABLE = 128256 * 4096
LLAMA = Arithmetic(llama_8b())

# Mixtral-like: 4 layers, 8 experts of 1,000,000 elements in each, of which a token takes 2.
MOE = model(
    {"attention": 400_000, "expert": 4 * 8 * 1_000_000, "router": 4 * 800, "head": 50_000},
    (gqa(8, 4, 16),) * 4,
    experts=8,
    chosen=2,
)
# DeepSeek-V3's attention: a latent of 512 and a rotary key of 64, 128 heads of 128 + 64, values of 128.
MLA_LAYER = Attention(512 + 64, 1, 2 * 128 * (2 * 512 + 64), prefill_flops_per_pair=2 * 128 * (128 + 64 + 128))
MLA = model({"attention": 61 * 187_000_000, "mlp": 10**9}, (MLA_LAYER,) * 61)
# Every other layer looks back 128 tokens.
WINDOWED = model({"attention": 10**6, "head": 10**5}, (gqa(8, 2, 64, 128), gqa(8, 2, 64)) * 6)


def on(one: Model, **layout: int | bool) -> Arithmetic:
    return Arithmetic(one, Layout(**layout))  # type: ignore[arg-type]


# -- Work


def test_work_adds_up_by_dtype_and_multiplies() -> None:
    both = Work(10, {"bf16": 1, "fp8": 2}) + 3 * Work(1, {"bf16": 5})
    assert both == Work(13, {"bf16": 16, "fp8": 2})


# -- dense weights


def test_step_reads_all_weights_but_the_input_embedding() -> None:
    assert LLAMA.weights_read(1) == LLAMA.weights_read(8192) == 2 * (LLAMA_BODY + LLAMA_TABLE)
    assert LLAMA.resident_bytes == 2 * (LLAMA_BODY + 2 * LLAMA_TABLE) == 2 * 8_030_261_248


def test_tied_embedding_is_the_head_and_is_read() -> None:
    tied = Arithmetic(model({"embedding": 1000, "mlp": 5000}, (gqa(2, 2, 4),), tied=True))
    assert tied.weights_read(1) == tied.resident_bytes == 12_000
    assert tied.head_flops == {"bf16": 2000}


def test_a_token_multiplies_and_adds_once_for_each_weight() -> None:
    assert LLAMA.token_flops == {"bf16": 2 * LLAMA_BODY}
    assert LLAMA.head_flops == {"bf16": 2 * LLAMA_TABLE}


def test_each_part_computes_in_its_own_dtype() -> None:
    mixed = model({"attention": 100, "mlp": 300, "head": 10}, (gqa(1, 1, 1),))
    parts = (Part("attention", 100, 200, "bf16"), Part("mlp", 300, 300, "fp8"), Part("head", 10, 20, "bf16"))
    arithmetic = Arithmetic(Model("m", mixed.architecture, parts, "fp8", "fp8", 1, ""))
    assert arithmetic.token_flops == {"bf16": 200, "fp8": 600}
    assert arithmetic.head_flops == {"bf16": 20}
    assert arithmetic.decode(2, 10).work.flops == {"bf16": 400 + 40 + 2 * 4 * 11, "fp8": 1200}


# -- KV cache and scores


def test_kv_of_llama_3_1_8b_is_128_kib_a_token() -> None:
    assert LLAMA.kv_written == 131_072
    assert LLAMA.kv_read(1000) == LLAMA.kv_resident(1000) == 131_072_000


def test_eight_bit_kv_is_half() -> None:
    assert Arithmetic(served(llama_8b(), 2, "bf16", kv_element_bytes=1)).kv_read(1000) == 65_536_000


def test_decode_step_reads_weights_once_and_each_context_and_writes_its_tokens() -> None:
    step = LLAMA.decode(64, 1000)
    assert step.work.bytes == 2 * (LLAMA_BODY + LLAMA_TABLE) + 64 * 1001 * 131_072
    scores = 64 * 4 * 32 * 32 * 128 * 1001
    assert step.work.flops["bf16"] == 64 * 2 * (LLAMA_BODY + LLAMA_TABLE) + scores


def test_prefill_reads_the_cached_prefix_and_writes_the_rest() -> None:
    step = LLAMA.prefill(3000, cached=1000)
    assert step.work.bytes == 2 * (LLAMA_BODY + LLAMA_TABLE) + 3000 * 131_072
    scores = sum(4 * 32 * 32 * 128 * position for position in range(1001, 3001))
    assert step.work.flops["bf16"] == 2000 * 2 * LLAMA_BODY + 2 * LLAMA_TABLE + scores


def test_window_caps_what_its_layers_read_and_compute() -> None:
    arithmetic = Arithmetic(WINDOWED)
    layer = 2 * 2 * 64 * 2  # keys and values of 2 heads of 64, 2 bytes each
    assert arithmetic.kv_read(1000) == 6 * layer * 128 + 6 * layer * 1000
    assert arithmetic.kv_read(100) == 12 * layer * 100
    assert arithmetic.kv_written == 12 * layer
    pair = 4 * 8 * 64
    near = sum(min(position, 128) for position in range(51, 351))
    assert arithmetic.pair_flops(50, 300) == 6 * pair * near + 6 * pair * sum(range(51, 351))


@given(st.integers(0, 400), st.integers(0, 400), st.none() | st.integers(1, 300))
def test_pairs_are_those_of_each_query_in_turn(start: int, new: int, window: int | None) -> None:
    one_by_one = (min(position, window or position) for position in range(start + 1, start + new + 1))
    assert pairs(start, new, window) == sum(one_by_one)


@given(st.integers(1, 400), st.integers(0, 200))
def test_reads_over_many_steps_are_those_of_each(context: int, steps: int) -> None:
    arithmetic = Arithmetic(WINDOWED)
    one_by_one = sum(arithmetic.kv_read(context + step) for step in range(steps))
    assert arithmetic.kv_read_over(context, steps) == one_by_one


def test_arrays_are_taken_like_numbers() -> None:
    arithmetic, contexts = Arithmetic(WINDOWED), np.array([1, 100, 128, 129, 5000])
    assert list(arithmetic.kv_read(contexts)) == [arithmetic.kv_read(int(each)) for each in contexts]
    news = contexts + 7
    flops = [arithmetic.pair_flops(int(start), int(new)) for start, new in zip(contexts, news, strict=True)]
    assert list(arithmetic.pair_flops(contexts, news)) == flops
    over = [arithmetic.kv_read_over(int(start), int(new)) for start, new in zip(contexts, news, strict=True)]
    assert list(arithmetic.kv_read_over(contexts, news)) == over


def test_latent_of_mla_is_70_kb_a_token_and_is_read_in_two_forms() -> None:
    arithmetic = Arithmetic(MLA)
    assert arithmetic.kv_written == 70_272  # DeepSeek-V3's published 576 x 61 x 2
    assert arithmetic.pair_flops(999, 1) == 61 * 2 * 128 * 1088 * 1000
    assert arithmetic.prefill(1000).work.flops["bf16"] == (
        1000 * 2 * (61 * 187_000_000 + 10**9) + 61 * 2 * 128 * 320 * (1000 * 1001 // 2)
    )


# -- experts


def test_one_token_reads_the_experts_that_it_chooses_and_many_read_all() -> None:
    arithmetic, rest = Arithmetic(MOE), 2 * (400_000 + 3200 + 50_000)
    assert arithmetic.weights_read(1) == pytest.approx(rest + 2 * 4 * 2 * 1_000_000)
    assert arithmetic.weights_read(2) == pytest.approx(rest + 2 * 4 * 8 * 1_000_000 * (1 - 0.75**2))
    assert arithmetic.weights_read(1000) == pytest.approx(rest + 2 * 4 * 8 * 1_000_000)
    assert arithmetic.resident_bytes == rest + 2 * 4 * 8 * 1_000_000


def test_expected_experts_are_those_of_random_choices() -> None:
    draw, tokens = np.random.default_rng(1), 5
    met = [len({int(e) for _ in range(tokens) for e in draw.permutation(8)[:2]}) for _ in range(20_000)]
    assert Arithmetic(MOE).chosen_share(tokens) * 8 == pytest.approx(np.mean(met), rel=0.01)


def test_token_computes_with_its_chosen_experts_only() -> None:
    assert Arithmetic(MOE).token_flops == {"bf16": 2 * (400_000 + 3200 + 4 * 2 * 1_000_000)}


# -- layouts


def test_tensor_ranks_share_weights_and_kv_heads_but_no_further() -> None:
    for ranks, copies in ((2, 1), (8, 1), (16, 2), (32, 4)):
        split = on(llama_8b(), tensor=ranks)
        assert split.resident_bytes == pytest.approx(LLAMA.resident_bytes / ranks)
        assert split.weights_read(1) == LLAMA.weights_read(1)
        assert split.kv_read(500) == copies * LLAMA.kv_read(500)
        assert split.kv_resident(500) == pytest.approx(copies * LLAMA.kv_resident(500) / ranks)
        assert split.token_flops == LLAMA.token_flops


def test_every_tensor_rank_has_the_whole_latent_of_mla() -> None:
    split = on(MLA, tensor=8)
    assert split.kv_read(100) == 8 * 100 * 70_272
    assert split.kv_resident(100) == 100 * 70_272


def test_pipeline_splits_layers_and_its_ends_hold_the_tables() -> None:
    split = on(llama_8b(), pipeline=4)
    assert split.resident_bytes == 2 * (LLAMA_BODY / 4 + LLAMA_TABLE)
    assert split.kv_resident(500) == LLAMA.kv_resident(500) / 4
    assert split.weights_read(1) == LLAMA.weights_read(1)


def test_layers_that_cannot_be_split_evenly_make_one_stage_fuller() -> None:
    assert on(WINDOWED, pipeline=5).kv_resident(100) == pytest.approx(Arithmetic(WINDOWED).kv_resident(100) * 3 / 12)


def test_each_data_rank_reads_its_own_dense_weights() -> None:
    split = on(llama_8b(), data=4)
    assert split.resident_bytes == LLAMA.resident_bytes
    assert split.weights_read(64) == 4 * LLAMA.weights_read(64)
    assert split.weights_read(3) == 3 * LLAMA.weights_read(3), "a rank without a request reads nothing"
    assert split.decode(64, 100).work.flops == LLAMA.decode(64, 100).work.flops


def test_experts_are_in_each_data_rank_or_spread_over_them() -> None:
    rest, experts = 2 * (400_000 + 3200 + 50_000), 2 * 4 * 8 * 1_000_000
    apart, spread = on(MOE, data=4, tensor=2), on(MOE, data=4, tensor=2, expert=True)
    assert apart.resident_bytes == (rest + experts) / 2
    assert spread.resident_bytes == rest / 2 + experts / 8
    assert apart.weights_read(8) == pytest.approx(4 * (rest + experts * (1 - 0.75**2)))
    assert spread.weights_read(8) == pytest.approx(4 * rest + experts * (1 - 0.75**8))


def test_what_a_gpu_does_is_its_share() -> None:
    split = on(MOE, data=4, tensor=2, expert=True)
    step = split.decode(8, 100)
    each = split.per_gpu(step)
    assert each.bytes * 8 == pytest.approx(step.work.bytes)
    assert each.flops["bf16"] * 8 == pytest.approx(step.work.flops["bf16"])


# -- properties

MODELS = st.sampled_from([llama_8b(), MOE, MLA, WINDOWED])
LAYOUTS = st.builds(
    Layout,
    tensor=st.sampled_from([1, 2, 8]),
    pipeline=st.sampled_from([1, 2, 4]),
    data=st.sampled_from([1, 2, 4]),
    expert=st.booleans(),
)


@given(MODELS, LAYOUTS, st.lists(st.integers(1, 2000), min_size=2, max_size=5), st.integers(0, 5000))
def test_more_requests_are_more_work(one: Model, layout: Layout, batches: list[int], context: int) -> None:
    arithmetic = Arithmetic(one, layout)
    steps = [arithmetic.decode(batch, context).work for batch in sorted(batches)]
    for less, more in pairwise(steps):
        assert less.bytes <= more.bytes
        assert less.flops["bf16"] <= more.flops["bf16"]


@given(MODELS, LAYOUTS, st.integers(1, 500), st.integers(0, 5000), st.integers(0, 5000))
def test_longer_contexts_are_more_work(one: Model, layout: Layout, batch: int, context: int, more: int) -> None:
    arithmetic = Arithmetic(one, layout)
    short, long = arithmetic.decode(batch, context).work, arithmetic.decode(batch, context + more).work
    assert short.bytes <= long.bytes
    assert short.flops["bf16"] <= long.flops["bf16"]


@given(MODELS, LAYOUTS, st.integers(1, 50), st.integers(1, 500), st.integers(1, 50))
def test_a_generation_is_its_steps(one: Model, layout: Layout, batch: int, prompt: int, output: int) -> None:
    arithmetic = Arithmetic(one, layout)
    steps = [arithmetic.decode(batch, context) for context in range(prompt, prompt + output - 1)]
    whole = arithmetic.generation(batch, prompt, output).work
    prefill = Arithmetic(one, layout).prefill(prompt).work
    flops = batch * prefill.flops["bf16"] + sum(step.work.flops["bf16"] for step in steps)
    assert whole.flops["bf16"] == pytest.approx(flops)
    weights = arithmetic.weights_read(batch)
    moved = output * weights + batch * prompt * arithmetic.kv_written
    moved += sum(step.work.bytes - weights for step in steps)
    assert whole.bytes == pytest.approx(moved)


@pytest.mark.parametrize("name", known_models())
def test_one_token_takes_two_flops_for_each_active_parameter_and_reads_them(name: str) -> None:
    one = known_model(name, weights="bf16", kv="bf16")
    arithmetic = Arithmetic(one)
    flops = sum(arithmetic.token_flops.values()) + sum(arithmetic.head_flops.values())
    assert flops == pytest.approx(2 * one.active_params)
    assert arithmetic.weights_read(1) == pytest.approx(2 * one.active_params)
    assert arithmetic.resident_bytes == pytest.approx(2 * one.params) == pytest.approx(one.weight_bytes)
    assert arithmetic.kv_written == one.kv_bytes_per_token
    assert arithmetic.kv_resident(100_000) == pytest.approx(one.kv_bytes(100_000))

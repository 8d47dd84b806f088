"""The simulated engine: its figures and step times against independent arithmetic, its scheduling by invariants."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servemark.adapters.sim.answers import CYCLE, Answers
from servemark.adapters.sim.blocks import BlockPool, extend_hashes
from servemark.adapters.sim.engine import Engine, EngineConfig, EngineRequest
from servemark.adapters.sim.faults import KINDS, FaultPlan
from servemark.adapters.sim.hardware import context_length, hardware_of, kv_blocks
from servemark.adapters.sim.options import SimOptions, command_line
from servemark.adapters.sim.server import SimServer
from servemark.adapters.sim.serving import parser
from servemark.adapters.sim.steptime import Device, Outlay, StepTime, StepWork
from servemark.adapters.sim.tokenizer import Tokenizer
from servemark.harness.errors import BadInput
from servemark.harness.hardware.devices import gpu
from servemark.harness.hardware.known import known_model
from servemark.harness.hardware.layout import Layout
from servemark.harness.hardware.limits import throughput_bound, tpot_floor, ttft_floor
from servemark.harness.hardware.model import Model
from servemark.harness.hardware.work import Arithmetic
from tests.made_models import gpu as made_gpu
from tests.made_models import round_model
from tests.test_work import MLA, MOE, WINDOWED

LLAMA_8B = known_model("llama-3.1-8b")
H100 = gpu("h100-sxm")
ON_H100 = StepTime(Arithmetic(LLAMA_8B), Device.of(H100))
EMBEDDING = 2 * 128256 * 4096


def work(*requests: tuple[int, int, bool], on: StepTime = ON_H100) -> StepWork:
    total = on.work()
    for start, new, samples in requests:
        total.add(start, new, samples)
    return total


def outlay(*requests: tuple[int, int, bool], on: StepTime = ON_H100) -> Outlay:
    return on.outlay(work(*requests, on=on))


def duration_ns(*requests: tuple[int, int, bool], on: StepTime = ON_H100) -> int:
    return on.duration_ns(work(*requests, on=on))


# -- what is simulated


@pytest.mark.parametrize(
    ("name", "params", "kv_bytes", "context"),
    [
        ("llama-3.1-8b", 8_030_261_248, 131_072, 131_072),
        ("llama-3.1-70b", 70_553_706_496, 327_680, 131_072),
        ("qwen3-8b", 8_190_735_360, 147_456, 40_960),
        ("qwen3-32b", 32_762_123_264, 262_144, 40_960),
        ("qwen3-0.6b", 596_049_920, 114_688, 40_960),
    ],
)
def test_models_are_what_their_figures_say(name: str, params: int, kv_bytes: int, context: int) -> None:
    options = SimOptions(model=name, tensor_parallel_size=4)
    model = hardware_of(options).model
    assert (model.params, model.weight_bytes, model.kv_bytes_per_token) == (params, 2 * params, kv_bytes)
    assert context_length(options, 10**6) == context


def test_h100_is_rated_by_its_dense_peak() -> None:
    assert (H100.flops_per_s("bf16"), H100.bytes_per_s, H100.memory_gb) == (989e12, 3350e9, 80)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(BadInput, match=r"--gpu.*'h1000'"):
        hardware_of(SimOptions(gpu="h1000"))
    for flag, wrong in (
        ("model", {"model": "gpt-9"}),
        ("weights", {"dtype": "fp7"}),
        ("KV cache", {"kv_dtype": "fp7"}),
    ):
        with pytest.raises(BadInput, match=flag):
            hardware_of(SimOptions(**wrong))


def test_model_can_be_any_config_json(tmp_path: Path) -> None:
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 1000,
        "max_position_embeddings": 512,
    }
    folder = tmp_path / "my model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    server = SimServer(SimOptions(model=str(folder), num_gpu_blocks_override=100))
    assert server.sim.hardware.facts["hardware_model"] == str(folder)
    assert server.sim.model == "my-model", "a name that a request and a label can hold"
    assert server.sim.context == 512
    assert server.sim.tokenizer.vocab == 1000


def test_formats_halve_the_weights_and_the_kv_cache() -> None:
    plain, small = hardware_of(SimOptions()), hardware_of(SimOptions(dtype="fp8", kv_dtype="fp8"))
    assert small.model.kv_bytes_per_token == plain.model.kv_bytes_per_token / 2
    assert small.arithmetic.weights_read(1) < 0.6 * plain.arithmetic.weights_read(1)
    assert kv_blocks(SimOptions(dtype="fp8", kv_dtype="fp8")) > 2 * kv_blocks(SimOptions())


# -- step time


def test_70b_in_16_bit_on_2_tb_per_s_cannot_exceed_14_3_tokens_per_s() -> None:
    textbook = StepTime(Arithmetic(round_model(70e9)), Device.of(made_gpu(2000, 1000)))
    assert 1e9 / duration_ns((0, 1, True), on=textbook) == pytest.approx(14.28, abs=0.01)


def test_8b_decode_on_h100_takes_at_least_4_48_ms() -> None:
    """All parameters but the input embedding."""
    assert duration_ns((0, 1, True)) == pytest.approx((16.060522496e9 - EMBEDDING) / 3350, rel=1e-4)


def test_decode_reads_the_weights_once_and_each_context() -> None:
    step = outlay(*[(1000, 1, True)] * 64)
    assert step.read == 16_060_522_496 - EMBEDDING + 64 * 1000 * 131_072
    assert step.written == 64 * 131_072


def test_prefill_of_100_tokens_is_bound_by_bandwidth() -> None:
    step = outlay((0, 100, True))
    assert step.compute_ns == pytest.approx(1.4e6, rel=0.05)
    assert step.duration_ns(0) == round(step.bandwidth_ns)


def test_long_prefill_is_bound_by_compute() -> None:
    tokens, layers, heads, head_dim = 8192, 32, 32, 128
    by_layer = 4096 * 128 * 80 + 3 * 4096 * 14336 + 2 * 4096
    flops = 2 * (layers * by_layer + 4096) * tokens + 2 * 128256 * 4096
    flops += sum(4 * layers * heads * head_dim * position for position in range(1, tokens + 1))
    assert outlay((0, tokens, True)).flops == flops
    assert duration_ns((0, tokens, True)) == pytest.approx(flops / 989e3, rel=1e-8)  # whole nanoseconds


def test_chunks_of_a_prefill_do_the_arithmetic_of_the_whole() -> None:
    whole, parts = outlay((0, 3000, True)), outlay((0, 1000, False), (1000, 1500, False), (2500, 500, True))
    assert parts.flops == whole.flops


def test_cached_prefix_saves_compute() -> None:
    assert duration_ns((7168, 1024, True)) < duration_ns((0, 8192, True))


def test_efficiency_and_overhead_lengthen_a_step() -> None:
    device = Device.of(H100, bandwidth_efficiency=0.5, compute_efficiency=0.5, overhead_ns=1000)
    slow = StepTime(Arithmetic(LLAMA_8B), device)
    for request in ((10, 1, True), (0, 8192, True)):
        assert duration_ns(request, on=slow) == pytest.approx(2 * duration_ns(request) + 1000, abs=2)


def test_weights_and_heads_are_split_over_gpus_but_kv_heads_no_further() -> None:
    split = StepTime(Arithmetic(LLAMA_8B, Layout(tensor=16)), Device.of(H100))
    one, sixteen = outlay((999, 1, True)), outlay((999, 1, True), on=split)
    assert sixteen.written == one.written / 8
    assert sixteen.read == pytest.approx((one.read - 999 * 131_072) / 16 + 999 * 131_072 / 8)
    assert sixteen.flops == pytest.approx(one.flops / 16)


@pytest.mark.parametrize("name", ["llama-3.1-8b", "gpt-oss-20b", "deepseek-v2-lite", "gemma-2-9b", "mixtral-8x7b"])
@pytest.mark.parametrize("gpus", [1, 4])
def test_steps_cost_what_the_arithmetic_says(name: str, gpus: int) -> None:
    """The engine adds up by request, with shortcuts; the arithmetic is the one that runs are judged by."""
    arithmetic = Arithmetic(known_model(name), Layout(tensor=gpus))
    step_time = StepTime(arithmetic, Device.of(H100))
    decode, prefill = arithmetic.decode(7, 3000).work, arithmetic.prefill(2500, 500).work
    for theirs, ours in (
        (decode, outlay(*[(3000, 1, True)] * 7, on=step_time)),
        (prefill, outlay((500, 2000, True), on=step_time)),
    ):
        assert (ours.read + ours.written) * gpus == pytest.approx(theirs.bytes)
        assert ours.flops * gpus == pytest.approx(sum(theirs.flops.values()))
        seconds = sum(flops / H100.flops_per_s(dtype) for dtype, flops in theirs.flops.items())
        assert ours.compute_ns * gpus == pytest.approx(1e9 * seconds)


SOME_MODELS = st.sampled_from([LLAMA_8B, MOE, WINDOWED])
parts_of_a_batch = st.lists(
    st.tuples(st.integers(0, 50_000), st.integers(1, 8192), st.booleans()), min_size=1, max_size=20
)


@given(
    st.sampled_from([LLAMA_8B, MOE, WINDOWED]), parts_of_a_batch, st.integers(0, 1000), st.integers(0, 1000), st.data()
)
def test_more_work_never_takes_less_time(
    model: Model, batch: list[tuple[int, int, bool]], longer: int, more: int, data: st.DataObject
) -> None:
    on = StepTime(Arithmetic(model), Device.of(H100))
    base = duration_ns(*batch, on=on)
    index = data.draw(st.integers(0, len(batch) - 1))
    start, new, samples = batch[index]
    grown = [*batch[:index], (start + longer, new + more, samples), *batch[index + 1 :]]
    assert duration_ns(*grown, on=on) >= base
    assert duration_ns(*batch, (start, 1, True), on=on) >= base


# -- blocks


def test_pool_gives_out_the_least_recently_freed_block_and_forgets_its_content() -> None:
    pool = BlockPool(3)
    first, second = pool.take(1), pool.take(1)
    pool.remember(first[0], 111)
    pool.remember(second[0], 222)
    pool.release(second)
    pool.release(first)
    assert pool.take(2) == [2, second[0]]
    assert pool.cached_prefix([222]) == []
    assert pool.cached_prefix([111]) == first


def test_shared_block_is_free_only_when_its_last_user_let_go() -> None:
    pool = BlockPool(2)
    block = pool.take(1)
    pool.take_cached(block)
    pool.release(block)
    assert pool.used == 1
    pool.release(block)
    assert pool.used == 0


def test_block_hash_depends_on_all_before_it() -> None:
    one: list[int] = []
    other: list[int] = []
    extend_hashes(one, [1, 2, 3, 4, 5, 6, 7], 2)
    extend_hashes(other, [9, 2, 3, 4, 5, 6, 7], 2)
    assert len(one) == 3
    assert set(one).isdisjoint(other)
    grown = one[:1]
    extend_hashes(grown, [1, 2, 3, 4, 5, 6, 7], 2)
    assert grown == one


def test_prefix_cache_is_not_emptied_under_running_requests() -> None:
    pool = BlockPool(2)
    blocks = pool.take(1)
    pool.remember(blocks[0], 5)
    assert not pool.forget_all()
    pool.release(blocks)
    assert pool.forget_all()
    assert pool.cached_prefix([5]) == []


# -- engine


def engine_of(**config: int | bool) -> Engine:
    settings_ = {"blocks": 1000, **config}
    return Engine(EngineConfig(**settings_), ON_H100, tuple(range(100, 200)))  # type: ignore[arg-type]


def ask(prompt: Sequence[int] | int, max_tokens: int, **more: int | None) -> EngineRequest:
    ids = tuple(random.Random(prompt).choices(range(10**6), k=prompt)) if isinstance(prompt, int) else prompt
    return EngineRequest(ids, max_tokens, **more)  # type: ignore[arg-type]


def run(engine: Engine, now_ns: int = 0) -> int:
    """Steps until nothing is left; when it ended."""
    while (step := engine.step(now_ns)) is not None:
        now_ns += step.duration_ns
    return now_ns


def test_one_request_gets_its_tokens_one_a_step() -> None:
    engine, request = engine_of(), ask(100, 5)
    engine.submit(request)
    counts = []
    while (step := engine.step(0)) is not None:
        counts.append([one.produced for one in step.emitted])
    assert counts == [[1], [2], [3], [4], [5]]
    assert request.finish_reason == "length"
    assert list(request.tokens[100:]) == [100, 101, 102, 103, 104]


def test_eos_ends_an_answer_early() -> None:
    engine, request = engine_of(), ask(10, 50, ends_at=7)
    engine.submit(request)
    run(engine)
    assert (request.produced, request.finish_reason) == (7, "stop")


def test_long_prompt_is_computed_in_chunks_while_others_decode() -> None:
    engine = engine_of(blocks=4000, max_num_batched_tokens=1024)
    short, long = ask(16, 100), ask(3000, 1)
    engine.submit(short)
    engine.step(0)
    engine.submit(long)
    emitted = [engine.step(0).emitted for _ in range(3)]  # type: ignore[union-attr]
    # 1023 + 1023 tokens beside the decode, and the rest with the first output
    assert emitted == [[short], [short], [short, long]]
    assert short.produced == 4


def test_step_takes_no_more_requests_than_allowed() -> None:
    engine = engine_of(max_num_seqs=2)
    requests = [ask(10 + i, 3) for i in range(5)]
    for request in requests:
        engine.submit(request)
    engine.step(0)
    assert engine.running == requests[:2]
    assert list(engine.waiting) == requests[2:]


def test_request_is_not_seen_before_it_arrived() -> None:
    engine, request = engine_of(), ask(10, 1, arrival_ns=500)
    engine.submit(request)
    assert engine.step(499) is None
    assert engine.step(500) is not None


def test_repeated_prompt_finds_its_full_blocks_but_computes_the_last_token() -> None:
    engine = engine_of()
    for expected in (0, 48):  # of 64 tokens, the last block holds the token that must be computed
        request = ask(64, 1)
        engine.submit(request)
        run(engine)
        assert request.cached_tokens == expected
    assert (engine.stats.prefix_queries, engine.stats.prefix_hits) == (128, 48)
    assert (engine.stats.prompt_tokens, engine.stats.cached_prompt_tokens) == (128, 48)


def test_unique_prompts_and_a_cache_that_is_off_find_nothing() -> None:
    for engine, prompts in ((engine_of(), (64, 65)), (engine_of(prefix_caching=False), (64, 64))):
        for prompt in prompts:
            engine.submit(ask(prompt, 4))
            run(engine)
        assert engine.stats.prefix_hits == 0


def test_next_turn_of_a_conversation_finds_the_answer_too() -> None:
    engine, first = engine_of(), ask(40, 24)
    engine.submit(first)
    run(engine)
    # 40 + 24 tokens; the last one was sampled but never computed, so three full blocks are known
    second = ask([*first.tokens, 7, 8, 9], 1)
    engine.submit(second)
    run(engine)
    assert second.cached_tokens == 48


def test_prefix_hit_shortens_time_to_first_token() -> None:
    engine, cold, warm = engine_of(), ask(8000, 1), ask(8000, 1)
    engine.submit(cold)
    ended_ns = run(engine)
    warm.arrival_ns = ended_ns
    engine.submit(warm)
    assert run(engine, ended_ns) - ended_ns < ended_ns / 5


def test_when_blocks_run_out_the_latest_request_waits_and_still_ends() -> None:
    engine = engine_of(blocks=9)
    first, second = ask(60, 40), ask(61, 40)
    engine.submit(first)
    engine.submit(second)
    run(engine)
    assert (first.preemptions, second.preemptions) == (0, 1)
    assert engine.stats.preemptions == 1
    assert first.last_token_ns < second.last_token_ns
    assert first.produced == second.produced == 40


def test_aborted_request_frees_its_blocks_even_in_the_middle_of_a_step() -> None:
    engine, request, queued = engine_of(max_num_seqs=1), ask(100, 10), ask(101, 10)
    engine.submit(request)
    engine.submit(queued)
    engine.begin(0)
    engine.abort(request)
    engine.abort(queued)
    assert engine.pool.used == 0
    assert engine.finish(10) == []
    assert engine.step(10) is None
    assert engine.stats.finished["abort"] == 2


def test_what_could_never_be_served_is_refused() -> None:
    engine = engine_of(blocks=4)
    for request in (ask(60, 5), ask((), 1), ask(1, 0)):
        with pytest.raises(ValueError, match=r"KV memory|at least one"):
            engine.submit(request)


@st.composite
def traces(draw: st.DrawFn) -> tuple[EngineConfig, list[EngineRequest]]:
    blocks = draw(st.integers(4, 24))
    config = EngineConfig(
        blocks=blocks,
        block_size=draw(st.sampled_from([4, 16])),
        max_num_seqs=draw(st.integers(1, 6)),
        max_num_batched_tokens=draw(st.sampled_from([7, 32, 512])),
        prefix_caching=draw(st.booleans()),
    )
    requests, arrival_ns = [], 0
    for _ in range(draw(st.integers(1, 8))):
        prompt = draw(st.integers(1, config.kv_tokens - 1))
        max_tokens = draw(st.integers(1, min(40, config.kv_tokens - prompt)))
        ends_at = draw(st.none() | st.integers(1, 50))
        arrival_ns += draw(st.sampled_from([0, 1000, 20_000_000]))
        # few different beginnings, so that prefixes are shared
        ids = [draw(st.integers(1, 2)), *range(prompt - 1)]
        requests.append(EngineRequest(ids, max_tokens, arrival_ns, ends_at, draw(st.integers(0, 9))))
    return config, requests


def play(config: EngineConfig, trace: list[EngineRequest]) -> tuple[list[EngineRequest], list[tuple[int, ...]]]:
    """Plays copies of the requests, checks what must hold in every step, and logs (time, who got a token)."""
    engine = Engine(config, ON_H100, tuple(range(50)))
    requests = [EngineRequest(r.prompt, r.max_tokens, r.arrival_ns, r.ends_at, r.answer_start) for r in trace]
    for request in requests:
        engine.submit(request)
    log: list[tuple[int, ...]] = []
    now_ns = 0
    while any(request.finish_reason is None for request in requests):
        duration_ns = engine.begin(now_ns)
        if duration_ns is None:
            assert not engine.running
            now_ns = engine.waiting[0].arrival_ns
            continue
        assert len(engine.running) <= config.max_num_seqs
        assert sum(new for _, new in engine._scheduled) <= config.max_num_batched_tokens
        assert engine.pool.used == len({block for one in engine.running for block in one.blocks})
        for one in engine.running:
            assert len(one.blocks) * config.block_size >= one.computed
        now_ns += duration_ns
        log.append((now_ns, *(requests.index(one) for one in engine.finish(now_ns))))
    assert engine.pool.used == 0
    return requests, log


@settings(max_examples=200, deadline=None)
@given(traces())
def test_every_request_ends_with_exactly_its_tokens(trace: tuple[EngineConfig, list[EngineRequest]]) -> None:
    config, asked = trace
    requests, log = play(config, asked)
    for index, request in enumerate(requests):
        length = min(request.max_tokens, request.ends_at or request.max_tokens)
        assert request.produced == length == sum(index in emitted for _, *emitted in log)
        assert request.finish_reason == ("stop" if request.ends_at == length else "length")
        assert request.tokens[len(request.prompt) :] == [(request.answer_start + i) % 50 for i in range(length)]
    admitted = [request.admitted_ns or 0 for request in requests]
    assert admitted == sorted(admitted)


@settings(max_examples=20, deadline=None)
@given(traces())
def test_same_trace_gives_the_same_run(trace: tuple[EngineConfig, list[EngineRequest]]) -> None:
    assert play(*trace)[1] == play(*trace)[1]


@settings(max_examples=20, deadline=None)
@given(traces(), st.data())
def test_aborts_at_any_moment_leak_no_block(
    trace: tuple[EngineConfig, list[EngineRequest]], data: st.DataObject
) -> None:
    config, asked = trace
    engine = Engine(config, ON_H100)
    for request in asked:
        engine.submit(request)
    now_ns = asked[-1].arrival_ns
    for victim in data.draw(st.permutations(asked)):
        duration_ns = engine.begin(now_ns) or 0
        engine.abort(victim)
        now_ns += duration_ns
        engine.finish(now_ns)
    assert engine.pool.used == 0
    assert not engine.running
    assert not engine.waiting


# -- the engine and the floors

NANOSECOND = 1e-9


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([LLAMA_8B, MOE, MLA, WINDOWED]),
    st.sampled_from([1, 2, 8]),
    st.integers(1, 12),
    st.integers(1, 3000),
    st.integers(1, 30),
)
def test_an_engine_without_losses_never_beats_the_floors(
    model: Model, ranks: int, batch: int, prompt: int, output: int
) -> None:
    arithmetic = Arithmetic(model, Layout(tensor=ranks))
    lossless = StepTime(arithmetic, Device.of(H100))
    config = EngineConfig(blocks=10_000, max_num_batched_tokens=2048, prefix_caching=False)
    engine = Engine(config, lossless)
    requests = [ask(range(i, i + prompt), output) for i in range(batch)]
    for request in requests:
        engine.submit(request)
    now_ns = 0
    while (step := engine.step(now_ns)) is not None:
        now_ns += step.duration_ns
        assert step.duration_ns * NANOSECOND >= tpot_floor(arithmetic, H100, len(step.emitted), 0).seconds - NANOSECOND
    first = ttft_floor(arithmetic, H100, prompt).seconds
    last = tpot_floor(arithmetic, H100, 1, prompt).seconds
    for request in requests:
        assert request.first_token_ns * NANOSECOND >= first - output * NANOSECOND
        decode_s = (request.last_token_ns - request.first_token_ns) * NANOSECOND
        assert decode_s >= (output - 1) * (last - NANOSECOND)
    at_most = throughput_bound(arithmetic, H100, batch, prompt, output)
    assert batch * output / at_most <= (now_ns + 1000) * NANOSECOND


def test_decode_at_full_efficiency_takes_exactly_its_floor() -> None:
    engine, context = engine_of(blocks=4000), 1000
    for i in range(8):
        engine.submit(ask(range(i, i + context), 2))
    engine.step(0)
    step = engine.step(0)
    assert step
    assert step.duration_ns == round(1e9 * tpot_floor(Arithmetic(LLAMA_8B), H100, 8, context).seconds)


def test_counters_tell_the_work_of_each_gpu() -> None:
    engine, request = engine_of(blocks=4000), ask(1000, 3)
    engine.submit(request)
    run(engine)
    whole = Arithmetic(LLAMA_8B).generation(1, 1000, 3).work
    assert engine.stats.flops == pytest.approx(whole.flops["bf16"])
    assert engine.stats.read_bytes + engine.stats.written_bytes == pytest.approx(whole.bytes)
    assert engine.stats.written_bytes == 1002 * 131_072


# -- tokenizer, answers


def test_lengths_add_up_word_by_word() -> None:
    ids = Tokenizer(1000).ids
    assert ids("one two\nthree") == ids("one") + ids(" two") + ids("\nthree")
    assert len(ids("word")) == 1
    assert len(ids(" " + "x" * 17)) == 3
    assert ids("") == []


@given(st.text(), st.text(alphabet=st.characters(exclude_categories=["Z", "C"]), min_size=1))
def test_adding_a_word_adds_its_tokens(text: str, word: str) -> None:
    ids = Tokenizer(1000).ids
    if not text[-1:].isspace() and not any(letter.isspace() for letter in word):
        assert ids(f"{text} {word}") == ids(text) + ids(f" {word}")


def test_chat_template_costs_8_tokens_for_one_message_and_4_for_each_more() -> None:
    tokenizer = Tokenizer(1000)
    one = tokenizer.chat_ids([("user", "one two")])
    assert len(one) == 2 + 8
    two = tokenizer.chat_ids([("user", "one two"), ("assistant", " yes"), ("user", "three")])
    assert len(two) == 2 + 8 + 1 + 4 + 1 + 4
    assert two[: len(one)] == one


def test_answers_are_words_of_one_token_each_and_fixed_by_seed_and_prompt() -> None:
    tokenizer = Tokenizer(128_256)
    answers = Answers(tokenizer, 1, 100)
    assert len(answers.words) == CYCLE
    for word, token in zip(answers.words[:500], answers.ids[:500], strict=True):
        assert tokenizer.ids(word.decode()) == [token]
    assert answers.plan([1, 2, 3], 0) == Answers(tokenizer, 1, 100).plan([1, 2, 3], 0)
    assert answers.plan([1, 2, 3], 0) != Answers(tokenizer, 2, 100).plan([1, 2, 3], 0)


def test_answer_lengths_have_their_mean_and_respect_the_minimum() -> None:
    answers = Answers(Tokenizer(1000), 0, 100)
    lengths = [answers.plan([index], 0)[1] for index in range(4000)]
    assert min(lengths) >= 1
    # geometric: standard error 100 / sqrt(4000) = 1.6
    assert sum(lengths) / len(lengths) == pytest.approx(100, abs=8)
    assert min(answers.plan([index], 50)[1] for index in range(200)) > 50


# -- options, faults, memory


def test_fault_shares_are_met_and_fixed_by_seed() -> None:
    plan = FaultPlan.parse("cut:0.25, http500:0.1", seed=3)
    faults = [plan.draw(ordinal) for ordinal in range(4000)]
    kinds = [fault.kind for fault in faults if fault is not None]
    assert kinds.count("cut") / 4000 == pytest.approx(0.25, abs=0.04)
    assert kinds.count("http500") / 4000 == pytest.approx(0.1, abs=0.03)
    assert faults == [FaultPlan.parse("cut:0.25,http500:0.1", seed=3).draw(ordinal) for ordinal in range(4000)]
    assert FaultPlan.parse("", 0).draw(1) is None


@pytest.mark.parametrize("text", ["melt:0.1", "cut", "cut:2", "cut:x", "cut:0.7,reset:0.7"])
def test_wrong_faults_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--fault"):
        FaultPlan.parse(text, 0)


def test_all_faults_are_described() -> None:
    assert all(FaultPlan.parse(f"{kind}:1", 0).draw(0) is not None for kind in KINDS)


def test_kv_memory_is_what_the_weights_leave() -> None:
    tokens = ((81_559 << 20) * 0.9 - 16_060_522_496) / 131_072
    assert kv_blocks(SimOptions()) == int(tokens // 16)


def test_model_that_does_not_fit_is_refused_until_it_is_split() -> None:
    options = SimOptions(model="llama-3.1-70b")
    with pytest.raises(BadInput, match=r"141\.1 GB.*--tensor-parallel-size"):
        kv_blocks(options)
    assert kv_blocks(replace(options, tensor_parallel_size=4)) > 0


def test_context_is_the_models_or_what_fits() -> None:
    assert context_length(SimOptions(), 400_000) == 131_072
    assert context_length(SimOptions(), 40_000) == 40_000
    with pytest.raises(BadInput, match="--max-model-len 50000"):
        context_length(SimOptions(max_model_len=50_000), 40_000)


@pytest.mark.parametrize(
    "wrong",
    [
        {"compute_efficiency": 1.5},
        {"bandwidth_efficiency": 0.0},
        {"gpu_memory_utilization": 0.0},
        {"tensor_parallel_size": 0},
        {"speed": 0.0},
        {"max_num_seqs": 0},
        {"max_model_len": -1},
        {"port": 70_000},
        {"served_model_name": 'a"b'},
    ],
)
def test_impossible_options_are_refused_by_their_flag(wrong: dict[str, float]) -> None:
    flag = "--" + next(iter(wrong)).replace("_", "-")
    with pytest.raises(BadInput, match=flag):
        SimServer(SimOptions(**wrong))  # type: ignore[arg-type]


def test_command_line_says_what_differs_and_is_read_back() -> None:
    options = SimOptions(port=0, speed=2.5, no_prefix_caching=True, fault="cut:0.1")
    words = command_line(options)
    assert len(words) == 7
    assert SimOptions(**vars(parser().parse_args(words))) == options


def test_documented_models_are_what_the_arithmetic_says() -> None:
    text = (Path(__file__).parent.parent / "docs" / "sim.md").read_text(encoding="utf-8")
    table = text[text.index("| model | parameters |") :].split("\n\n")[0].splitlines()[2:]
    assert len(table) >= 5
    for row in table:
        name = row.split("`")[1]
        model, arithmetic = known_model(name), Arithmetic(known_model(name))
        shape = f"{model.params:,} | {model.weight_bytes / 1e9:.2f} | {model.kv_bytes_per_token:,.0f}"
        least_ms = 1e3 * tpot_floor(arithmetic, H100, 1, 0).seconds
        assert row == f"| `{name}` | {shape} | {model.architecture.max_context:,} | {least_ms:.2f} |"

"""run.json's `hardware` as a whole, and what it makes of simulated engines whose true bytes and FLOPs are known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest

from servemark.harness.figures.frame import Frame, Window
from servemark.harness.figures.slo import parse_slo
from servemark.harness.figures.summary import summarize
from servemark.harness.hardware.deployed import Deployed
from servemark.harness.hardware.devices import gpu
from servemark.harness.hardware.known import known_model
from servemark.harness.hardware.layout import Layout
from servemark.harness.hardware.price import Price
from servemark.harness.hardware.section import HardwareSection
from servemark.harness.types import GpuSample, Record
from servemark.results.hardware import hardware_part
from tests.frames import answer, at, failed, frame
from tests.virtual_run import VirtualRun, virtual_run

MIX = [(37 * i, 50 + 97 * i % 900, 20 + 61 * i % 150) for i in range(120)]
LONG = [(900 * i, 12_000 + 500 * i, 60) for i in range(8)]
AT_ONCE = [(0, 400, 200)] * 24


def made_on(model: str | None = "llama-3.1-8b", tensor: int = 1, **more: Any) -> Deployed:
    one = None if model is None else known_model(model, more.pop("weights", None), more.pop("kv", None))
    layout = Layout(tensor=tensor)
    return Deployed(**{"gpu": gpu("h100-sxm"), "model": one, "layout": layout, "gpus": tensor} | more)


def part_of(run: VirtualRun, deployed: Deployed, **more: Any) -> dict[str, Any]:
    metrics = summarize(run.frame, run.window, whole=run.window)
    window = more.pop("window", run.window)
    return hardware_part(run.frame, window, run.samples, more.pop("gpus", ()), {}, deployed, metrics, **more)


def value(part: Mapping[str, Any], what: str, how: str = "modelled") -> float:
    return next(row["value"] for row in part["efficiency"]["rows"] if (row["what"], row["how"]) == (what, how))


# -- against the truth


@pytest.mark.parametrize(
    ("model", "requests", "options", "bytes_within", "flops_within"),
    [
        ("llama-3.1-8b", MIX, {}, 1e-3, 1e-6),
        ("qwen3-8b", MIX, {"tensor_parallel_size": 2, "kv_dtype": "fp8"}, 1e-3, 1e-6),
        ("llama-3.1-8b", MIX, {"dtype": "int4-awq"}, 1e-3, 1e-6),
        ("gemma-2-9b", LONG[:4], {"max_num_batched_tokens": 8192}, 0.01, 1e-6),  # windows, and prompts in pieces
        ("qwen3-30b-a3b", MIX, {}, 0.02, 1e-6),  # experts: more in some steps than in others
        ("deepseek-v2-lite", AT_ONCE, {}, 0.02, 0.01),  # a latent cache; prompts computed otherwise than tokens
        ("llama-3.1-8b", LONG, {}, 0.02, 1e-6),  # the first pieces of a prompt are steps that nobody counts
    ],
)
def test_what_is_modelled_is_what_the_engine_did(
    model: str, requests: list[tuple[int, int, int]], options: dict[str, Any], bytes_within: float, flops_within: float
) -> None:
    run = virtual_run(requests, model=model, **options)
    deployed = made_on(
        model, options.get("tensor_parallel_size", 1), weights=options.get("dtype"), kv=options.get("kv_dtype")
    )
    part = part_of(run, deployed)
    rows = {(row["what"], row["how"]): row["bytes_or_flops"] for row in part["efficiency"]["rows"]}
    assert rows["mbu", "modelled"] == pytest.approx(rows["mbu", "server"], rel=bytes_within)
    assert rows["mfu", "modelled"] == pytest.approx(rows["mfu", "server"], rel=flops_within)
    assert part["efficiency"]["steps"]["approximate"] is False


def test_steps_are_found_without_the_servers_counter() -> None:
    run = virtual_run(MIX)
    with_counter = part_of(run, made_on())
    run.samples.clear()
    without = part_of(run, made_on())
    assert without["efficiency"]["steps"]["source"] == "chunks"
    assert value(without, "mbu") == pytest.approx(value(with_counter, "mbu"), rel=0.02)


@pytest.mark.parametrize("outputs", [(1,), (1, 2, 3, 4, 5), (2,), (60,)])
def test_the_bound_of_throughput_holds_for_short_answers_too(outputs: tuple[int, ...]) -> None:
    """An engine that reaches 80 % of the bandwidth in every step makes 80 % of what the hardware allows, not more."""
    requests = [(12 * (i // 4), 10, outputs[i % len(outputs)]) for i in range(400)]
    run = virtual_run(requests, step_overhead_us=0.0)
    throughput = part_of(run, made_on())["limits"]["throughput"]
    assert throughput["note"] is None
    idle = value(part_of(run, made_on()), "mbu") / 0.8
    assert throughput["ratio"] == pytest.approx(0.8 * idle, rel=0.02)


def test_least_time_counts_weights_that_are_read_beside_a_prompts_arithmetic_once() -> None:
    """Every step has a prompt and is bound by its arithmetic, of which the engine reaches 60 %."""
    run = virtual_run([(0, 1000, 1)] * 30, step_overhead_us=0.0, max_num_batched_tokens=1000)
    found = next(each for each in part_of(run, made_on())["binding"]["evidence"] if "prompts" in each["figure"])
    assert found["value"] == pytest.approx(1, abs=0.02)
    assert "needs 60.8 % of the time that it took" in found["text"]


def test_decode_reaches_the_share_that_the_engine_was_given() -> None:
    """80 % of the bandwidth and no overhead: decode by itself has an MBU of 80 %, and TPOT is 1/0.8 of its floor."""
    run = virtual_run([(0, 100, 400)] * 8, step_overhead_us=0.0)
    part = part_of(run, made_on())
    assert part["efficiency"]["per_phase"]["decode"]["mbu"] == pytest.approx(0.8, rel=0.01)
    assert part["limits"]["tpot"]["ratio"] == pytest.approx(1.25, rel=0.02)
    assert part["limits"]["tpot"]["binding"] == "bandwidth"
    assert part["binding"]["resource"] == "bandwidth"


@pytest.mark.parametrize("model", ["qwen3-30b-a3b", "deepseek-v2-lite"])
def test_experts_of_steps_that_differ_in_size_are_not_those_of_the_mean_step(model: str) -> None:
    """Steps of 1 to 30 requests, each at 80 % of the bandwidth: the mean batch would read a quarter more."""
    run = virtual_run(MIX, model=model, step_overhead_us=0.0)
    part = part_of(run, made_on(model))
    assert part["efficiency"]["per_phase"]["decode"]["mbu"] == pytest.approx(0.8, rel=0.02)
    assert part["limits"]["throughput"]["ratio"] <= value(part, "mbu") + 1e-9


@pytest.mark.parametrize("tokens", [2, 5])
def test_chunks_of_several_tokens_change_no_figure(tokens: int) -> None:
    run = virtual_run(MIX, step_overhead_us=0.0)
    records = [_in_chunks(run.frame, row, tokens) for row in range(len(run.frame))]
    sparse = VirtualRun(frame(*records), run.samples, run.window)
    fine, coarse = part_of(run, made_on()), part_of(sparse, made_on())
    assert value(coarse, "mbu") == pytest.approx(value(fine, "mbu"), rel=0.01)
    assert value(coarse, "mfu") == pytest.approx(value(fine, "mfu"), rel=0.01)
    assert coarse["efficiency"]["steps"]["approximate"] is False
    assert coarse["efficiency"]["per_phase"]["decode"]["mbu"] == pytest.approx(0.8, rel=0.03)


def _in_chunks(whole: Frame, row: int, tokens: int) -> Record:
    """The first token by itself, then so many in a chunk, at the stamp of the last."""
    stamps = whole.chunk_ns[whole.offsets[row] : whole.offsets[row + 1]].tolist()
    ends = sorted({0, len(stamps) - 1, *range(tokens, len(stamps), tokens)})
    return answer(
        row,
        (whole["intended_ns"][row] - at(0)) / 1e6,
        [(stamps[end] - whole["intended_ns"][row]) / 1e6 for end in ends],
        tokens=[1, *(later - end for end, later in pairwise(ends))],
        prompt_tokens=int(whole["prompt_tokens"][row]),
        sent_ns=int(whole["sent_ns"][row]),
    )


def test_prefill_alone_reaches_the_share_of_the_arithmetic() -> None:
    run = virtual_run([(2000 * i, 4000, 10) for i in range(5)], step_overhead_us=0.0)
    part = part_of(run, made_on())
    assert part["efficiency"]["per_phase"]["prefill"]["mfu"] == pytest.approx(0.6, rel=0.01)
    assert part["limits"]["ttft"]["ratio"] == pytest.approx(1 / 0.6, rel=0.02)
    assert part["limits"]["ttft"]["binding"] == "compute"


def test_preemptions_are_named_where_the_engine_did_more_than_clients_saw() -> None:
    run = virtual_run([(0, 1000, 200)] * 40, num_gpu_blocks_override=1500)
    part = part_of(run, made_on())
    assert value(part, "mfu") < value(part, "mfu", "server")
    assert any("preemptions" in said for said in part["efficiency"]["gap"])
    assert part["binding"]["resource"] == "capacity"


def test_bins_add_up_over_the_run() -> None:
    run = virtual_run(MIX)
    part = part_of(run, made_on())
    bins = part["efficiency"]["over_time"]
    assert all(each["to_s"] - each["from_s"] >= 1 for each in bins)
    assert bins[-1]["to_s"] == pytest.approx(run.window.seconds, abs=0.001)
    total = sum(each["mbu_modelled"] * (each["to_s"] - each["from_s"]) for each in bins)
    assert total / run.window.seconds == pytest.approx(value(part, "mbu"), rel=0.01)


def test_the_wrong_model_is_found_out_and_nothing_is_made_of_it() -> None:
    run = virtual_run(MIX)
    samples = [GpuSample(at(ms), "a", {"dram_active": 0.5}) for ms in range(0, 60_000, 200)]
    part = part_of(run, made_on("llama-3.1-70b", price=Price(2.0, "--gpu-price")), gpus=samples)
    assert value(part, "mbu") is None
    assert part["doubts"][0].endswith(" %: the GPU, its number, the model or its format is not as named")
    assert part["doubts"][0] in part["lacks"]
    modelled = [row for row in part["efficiency"]["rows"] if row["how"] == "modelled"]
    assert modelled
    assert all(row["value"] is None for row in modelled)
    assert value(part, "mbu", "measured") == pytest.approx(0.5)
    assert part["limits"] is None
    unread = part_of(run, made_on("llama-3.1-70b"))
    assert unread["binding"]["resource"] == "unclear"
    assert unread["suggestions"] == []
    efficiency = part["efficiency"]
    assert (efficiency["databricks_mbu"], efficiency["bytes"], efficiency["gap"]) == (None, None, [])
    assert efficiency["per_phase"] == {}
    assert all(each["mbu_modelled"] is each["mfu_modelled"] is None for each in efficiency["over_time"])
    assert any(each["mbu_measured"] for each in efficiency["over_time"])
    assert part["cost"]["usd_per_1m_output"] > 0
    assert part["cost"]["usd_per_1m_output_split"] is None


def test_a_step_that_is_faster_than_reading_the_weights_shows_a_wrong_model_at_any_load() -> None:
    """A lonely request now and then: no share of the window is above 1, and yet it cannot be."""
    run = virtual_run([(4000 * i, 100, 20) for i in range(8)])
    wrong = part_of(run, made_on("llama-3.1-70b"))
    assert any(each.startswith("A step takes ") for each in wrong["doubts"])
    assert [row for row in wrong["efficiency"]["rows"] if row["how"] == "modelled"] == []
    assert wrong["limits"] is None
    assert part_of(run, made_on())["doubts"] == []


@pytest.mark.parametrize("apart", [True, False])
def test_drafts_that_nobody_tells_are_no_wrong_model(apart: bool) -> None:
    """Steps of 6 ms that give three tokens each, as chunks of their own or as one; to read the weights takes 4.5 ms."""
    steps = [100.0 + 6 * step for step in range(60)]
    stamps = [ms + late for ms in steps for late in ((0.0, 0.01, 0.02) if apart else (0.0,))]
    rows = frame(answer(0, 0, stamps, tokens=[1 if apart else 3] * len(stamps), prompt_tokens=100, output_tokens=180))
    window = Window(at(0), at(500))
    part = hardware_part(rows, window, (), (), {}, made_on(), summarize(rows, window, whole=window))
    assert not any(each.startswith("A step takes") for each in part["doubts"])
    if apart:
        assert part["doubts"][0].endswith("is not as named, or chunks are no steps")
    else:
        assert part["limits"]["tpot"]["note"] in part["doubts"]
        assert value(part, "mbu") > 0


def test_what_the_server_estimates_otherwise_is_said() -> None:
    """In half the bytes, which a light load leaves possible."""
    run = virtual_run([(1000 * i, 100, 20) for i in range(8)], dtype="fp8")
    assert any("as modelled and" in each for each in part_of(run, made_on())["doubts"])


@pytest.mark.parametrize(
    ("served", "config", "doubted"),
    [
        ("acme/llama-70b-chat", "c.json", True),
        ("acme/llama-8b-chat", "c.json", False),
        ("acme/llama-70b-chat", None, False),  # the model was found by what the server says
        ("acme/best", "c.json", False),
        ("acme-70b/llama-8B-4bit", "c.json", False),
        ("Qwen3-8B-A3B", "c.json", False),
        ("mixtral-8x7B", "c.json", True),
    ],
)
def test_a_config_of_another_size_than_the_served_name_is_said(served: str, config: str | None, doubted: bool) -> None:
    section = HardwareSection(config=config)
    part = hardware_part(
        frame(answer()), Window(at(0), at(1000)), (), (), {}, made_on(section=section, served=("a", served))
    )
    assert any("8.03 billion parameters" in each and served in each for each in part["doubts"]) == doubted


def test_the_kv_memory_that_the_server_tells_goes_before_an_estimate() -> None:
    run = virtual_run([(0, 1000, 200)] * 40, num_gpu_blocks_override=1500)
    told = part_of(run, made_on(kv_tokens=24_000))["limits"]
    assert (told["batch"]["largest"], told["batch"]["kv_tokens"], told["batch"]["assumed"]) == (20, 24_000, None)
    estimated = part_of(run, made_on())["limits"]
    assert estimated["batch"]["largest"] > 300
    assert estimated["batch"]["assumed"]
    assert told["throughput"]["bound_at_largest_batch"] < estimated["throughput"]["bound_at_largest_batch"]


# -- the parts


def test_cost_and_energy_are_of_all_tokens_and_of_those_at_the_slo() -> None:
    rows = frame(*(answer(i, 100 * i, [100.0 + 10 * k for k in range(11)]) for i in range(100)))
    metrics = {name: {"value": rate} for name, rate in _RATES.items()}
    metrics["goodput_share"] = {"value": 0.5, "of_successful": 6 / 9, "of_tokens": 0.8}
    window = Window(at(0), at(10_000))
    gpus = [GpuSample(at(ms), "a", {"energy": 0.6 * ms, "dram_active": 0.5}) for ms in range(0, 10_001, 200)]
    deployed = made_on(price=Price(3.6, "--gpu-price"), usd_per_kwh=0.2)
    part = hardware_part(rows, window, (), gpus, {"gpus": [{"gpu": "a"}]}, deployed, metrics)
    assert part["cost"]["usd_per_1m_output"] == pytest.approx(0.001 / 100 * 1e6)
    assert part["cost"]["usd_per_1m_output_at_slo"] == pytest.approx(0.001 / 80 * 1e6)
    assert part["cost"]["usd_per_good_request"] == pytest.approx(0.001 / 6)
    assert part["energy"]["joules"] == pytest.approx(6000)
    assert part["energy"]["joules_per_output_token"] == pytest.approx(6)
    assert part["energy"]["joules_per_output_token_at_slo"] == pytest.approx(7.5)
    assert part["energy"]["usd"] == pytest.approx(6000 / 3.6e6 * 0.2)
    assert value(part, "mbu", "measured") == pytest.approx(0.5)
    assert part["telemetry"]["gpus"][0]["mean"]["dram_active"] == pytest.approx(0.5)
    assert part["telemetry"]["gpus"][0]["energy_j"] == pytest.approx(6000)


_RATES = {"output_tps": 100.0, "input_tps": 900.0, "rps": 9.0}


@pytest.mark.parametrize("window", [Window(at(0), at(1300)), Window(at(700), at(900)), Window(at(0), at(0))])
@pytest.mark.parametrize(("limit", "share"), [("ttft=1s", 1.0), ("ttft=150ms", 12 / 52)])
def test_a_run_that_met_the_slo_costs_the_same_at_it_whatever_the_window_cuts(
    window: Window, limit: str, share: float
) -> None:
    """Ten answers of 4 tokens that are late for the tighter limit, then one of 12."""
    rows = frame(
        *(answer(i, 100 * i, [200.0, 210, 220, 230]) for i in range(10)),
        answer(10, 100, [100.0 + 10 * k for k in range(12)]),
    )
    metrics = summarize(rows, window, parse_slo(limit), whole=rows.whole_window())
    gpus = [GpuSample(at(ms), "a", {"energy": 0.6 * ms}) for ms in range(0, 2001, 200)]
    part = hardware_part(rows, window, (), gpus, {}, made_on(price=Price(3.6, "--gpu-price")), metrics)
    cost, energy = part["cost"], part["energy"]
    requests = 1.0 if share == 1 else 1 / 11
    assert cost["usd_per_1m_output_at_slo"] * share == pytest.approx(cost["usd_per_1m_output"], rel=1e-12)
    assert cost["usd_per_good_request"] * requests == pytest.approx(cost["usd_per_request"], rel=1e-12)
    assert energy["joules_per_output_token_at_slo"] * share == pytest.approx(energy["joules_per_output_token"])
    if share == 1:
        assert cost["usd_per_1m_output_at_slo"] == cost["usd_per_1m_output"]


def test_energy_needs_all_gpus() -> None:
    gpus = [GpuSample(at(ms), "a", {"energy": 0.6 * ms}) for ms in range(0, 10_001, 200)]
    part = hardware_part(
        frame(answer(), answer(1, 9000)), Window(at(0), at(10_000)), (), gpus, {}, made_on("llama-3.1-8b", 2)
    )
    assert part["energy"] is None
    assert any("1 of the 2 GPUs" in said for said in part["lacks"])


def test_the_sampled_gpu_stands_in_for_one_that_nobody_named() -> None:
    facts = {"gpus": [{"gpu": "a", "name": "NVIDIA H200", "memory_bytes": 150_754_820_096}], "notes": ["hm"]}
    part = hardware_part(frame(answer()), Window(at(0), at(1000)), (), (), facts, made_on(gpu=None))
    assert part["gpu"]["name"] == "h200"
    assert part["telemetry"]["notes"] == ["hm"]


def test_another_gpu_than_was_named_is_said() -> None:
    facts = {"gpus": [{"gpu": "a", "name": "NVIDIA H200", "memory_bytes": 150_754_820_096}]}
    part = hardware_part(frame(answer()), Window(at(0), at(1000)), (), (), facts, made_on())
    assert any("named is h100-sxm" in said and "read is h200" in said for said in part["lacks"])


NOTHING = Frame.from_records(())


@pytest.mark.parametrize("rows", [NOTHING, frame(failed()), frame(answer(chunks=(), tokens=())), frame(answer())])
@pytest.mark.parametrize("deployed", [Deployed(model_lacks="it is not told"), made_on(), made_on(gpu=None)])
def test_whatever_is_missing_is_said_and_the_rest_is_plain_json(rows: Frame, deployed: Deployed) -> None:
    for window in (rows.steady_window(), Window(at(0), at(1000))):
        part = hardware_part(rows, window, (), (), {}, deployed)
        json.dumps(part, allow_nan=False)
        assert any("No GPU was read" in said for said in part["lacks"])
        assert any("No modelled figures: it is not told" in said for said in part["lacks"]) == (deployed.model is None)
        assert any("No shares of a peak" in said for said in part["lacks"]) == (deployed.gpu is None)
        assert any("No cost" in said for said in part["lacks"])


def test_all_at_once_is_told_of_the_whole_run() -> None:
    run = virtual_run(AT_ONCE)
    part = part_of(run, made_on(), window=run.frame.steady_window())
    assert part["efficiency"]["window_s"] == pytest.approx(run.window.seconds, rel=0.01)
    assert any("whole run" in said for said in part["lacks"])
    assert value(part, "mbu") > 0
    assert part["limits"]["throughput"]["ratio"] > 0


def test_a_run_without_a_gpu_or_with_readings_is_plain_json_too() -> None:
    run = virtual_run(MIX[:20])
    gpus = [GpuSample(at(ms), "a", {"dram_active": 0.5, "throttle": 4.0}) for ms in range(0, 60_000, 200)]
    for deployed in (made_on(), made_on(gpu=None), made_on(None, model_lacks="x")):
        part = part_of(run, deployed, gpus=gpus, clients=4, zero_ns=run.window.start_ns)
        json.dumps(part, allow_nan=False)
        assert part["telemetry"]["gpus"][0]["throttled_share"] == 1

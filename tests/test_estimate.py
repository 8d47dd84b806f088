"""What is said of a deployment before it is bought: against the textbook, arithmetic by hand, and what must hold."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.harness.hardware.architecture import Attention
from servemark.harness.hardware.devices import Gpu, gpu
from servemark.harness.hardware.estimate import Deployment, estimate
from servemark.harness.hardware.estimate_cycle import Traffic
from servemark.harness.hardware.estimate_layouts import Engine, check, tensor_ranks
from servemark.harness.hardware.estimate_point import Objectives, Question
from servemark.harness.hardware.estimate_reached import Reached, nearest, reached
from servemark.harness.hardware.known import known_model
from servemark.harness.hardware.layout import Layout
from servemark.harness.hardware.limits import throughput_bound, tpot_floor, ttft_floor
from servemark.harness.hardware.model import Model
from servemark.harness.hardware.price import Price
from servemark.harness.hardware.work import Arithmetic
from tests import made_models
from tests.made_models import round_model

H100 = gpu("h100-sxm")
ALONE = Layout()
LLAMA = known_model("llama-3.1-8b")
CHAT = Traffic(1024, 256, 1280)
RUN = Reached("runs/one", mbu=0.7, mfu=0.5, batch=16, gpu="h100-sxm", model="llama-3.1-8b", tensor=1)


def asked(
    model: Model = LLAMA,
    kind: Gpu = H100,
    layout: Layout = ALONE,
    *,
    traffic: Traffic = CHAT,
    price: Price | None = None,
    **more: Any,
) -> Deployment:
    return Deployment(Question(model, traffic, (1, 8, 64), **more), kind, layout, price)


def kv_only(params: float, kv_bytes_per_token: int) -> Model:
    return round_model(params, kv_bytes_per_token=kv_bytes_per_token)


def shared_kv(model: Model, heads: int) -> Model:
    """With KV heads that so many ranks can share out; one head would be whole on each."""
    layers = tuple(replace(layer, kv_heads=heads) for layer in model.architecture.attention)
    return replace(model, architecture=replace(model.architecture, attention=layers))


# -- the textbook


def test_70b_in_16_bit_on_2_tb_per_s_gives_one_user_14_tokens_per_s_at_most() -> None:
    slow = made_models.gpu(bandwidth_gb_s=2000, memory_gb=200)
    point = asked(kv_only(70e9, 8), slow, traffic=Traffic(1, 1000, 1001)).bound(1)
    assert point.output_tps is not None
    assert 14.2 < point.output_tps < 14.3
    assert point.output_tps_per_user == pytest.approx(1 / 0.070, rel=1e-3)


def test_70b_with_40_gb_of_kv_and_10_gb_of_activations_needs_three_80_gb_gpus() -> None:
    """One request of 40,000 tokens, each a megabyte; the 10 GB are spread evenly."""
    model, kind, traffic = kv_only(70e9, 1_000_000), made_models.gpu(), Traffic(30_000, 10_000, 40_000)
    for ranks, holds in ((2, False), (3, True)):
        engine = Engine(utilisation=1.0, reserve=10e9 / ranks)
        deployment = asked(shared_kv(model, ranks), kind, Layout(tensor=ranks), traffic=traffic, engine=engine)
        assert deployment.memory.fits is holds
        assert deployment.memory.short_by == pytest.approx(max(0.0, 190e9 / ranks - 80e9))


def test_usd_2_an_hour_at_100_tokens_per_s_is_usd_5_56_per_1m() -> None:
    """7B in 16 bit reads 14 GB a token; 1,400 GB/s make that 100 tokens/s."""
    kind = made_models.gpu(bandwidth_gb_s=1400)
    deployment = asked(kv_only(7e9, 8), kind, traffic=Traffic(1, 1000, 1001), price=Price(2.0, "--gpu-price"))
    assert deployment.bound(1).usd_per_1m_output == pytest.approx(5.56, abs=0.01)


# -- floors by hand


def test_llama_3_1_8b_on_h100_by_hand() -> None:
    """Decoding reads all but the input embedding, and 128 KiB of KV cache for each token before and the new one."""
    read = 2 * (8_030_261_248 - 128_256 * 4096)
    context = 1024 + (256 - 2) / 2
    point = asked().bound(1)
    assert point.step_s == pytest.approx((read + (context + 1) * 131_072) / 3350e9)
    assert point.tpot_s == point.step_s
    body = 2 * (8_030_261_248 - 2 * 128_256 * 4096) * 1024
    scores = 4 * 32 * 32 * 128 * (1024 * 1025 / 2)
    assert point.ttft_s == pytest.approx((body + scores + 2 * 128_256 * 4096) / 989e12)
    assert point.e2e_s == pytest.approx(point.ttft_s + 255 * point.tpot_s)


def test_points_are_the_floors_and_bounds_of_the_same_arithmetic() -> None:
    deployment = asked(layout=Layout(tensor=2, replicas=3))
    arithmetic = Arithmetic(LLAMA, Layout(tensor=2, replicas=3))
    point = deployment.bound(32)
    assert point.step_s == tpot_floor(arithmetic, H100, 32, CHAT.decode_context).seconds
    assert point.ttft_s == ttft_floor(arithmetic, H100, 1024).seconds
    assert point.output_tps == throughput_bound(arithmetic, H100, 32, 1024, 256)
    assert point.output_tps_per_gpu == pytest.approx(point.output_tps / 6)
    assert point.rps == pytest.approx(point.output_tps / 256)


def test_prefill_bound_is_the_arithmetic_of_prompts_on_all_gpus() -> None:
    prompt = ttft_floor(Arithmetic(LLAMA), H100, 1024)
    assert asked().prefill_tps_bound == pytest.approx(1024 / prompt.compute_s)
    for layout in (Layout(tensor=4), Layout(pipeline=4), Layout(data=4), Layout(replicas=4)):
        assert asked(layout=layout).prefill_tps_bound == pytest.approx(4 * asked().prefill_tps_bound)


def test_prices_are_those_of_all_gpus() -> None:
    point = asked(layout=Layout(tensor=4, replicas=2), price=Price(2.5, "--gpu-price")).bound(64)
    assert point.output_tps is not None
    assert point.usd_per_1m_output == pytest.approx(20 / 3600 / point.output_tps * 1e6)
    assert point.usd_per_1m_total == pytest.approx(20 / 3600 / (point.output_tps * 5) * 1e6)
    assert point.usd_per_request == pytest.approx(20 / 3600 / point.output_tps * 256)
    assert asked().bound(64).usd_per_1m_output is None


# -- memory


def test_largest_batch_is_what_independent_arithmetic_says() -> None:
    """90 % of 81,559 MiB less 16.06 GB of weights, 1.07 GB of activations and 1 GB, at 128 KiB a token."""
    room = 0.9 * (81_559 << 20) - 2 * 8_030_261_248 - 16 * 2 * 4096 * 8192 - 1e9
    each = 1280 * 131_072
    assert asked().largest_batch == int(room // each)
    assert asked().row(int(room // each)).fits
    above = asked().row(int(room // each) + 1)
    assert not above.fits
    assert above.bound is None


@pytest.mark.parametrize(("memory_gb", "fits"), [(19.99, False), (20.01, True)])
def test_boundary_of_what_fits(memory_gb: float, fits: bool) -> None:
    """16 GB of weights and 1 GB of KV cache for one request, 1 GB kept, in 90 % of 20 GB."""
    model, traffic = kv_only(8e9, 1_000_000), Traffic(500, 500, 1000)
    kind = made_models.gpu(memory_gb=memory_gb)
    deployment = asked(model, kind, traffic=traffic, engine=Engine(0.9, 1e9))
    assert deployment.memory.fits is fits
    assert deployment.largest_batch == int(fits)
    assert deployment.memory.short_by == pytest.approx(0.0 if fits else 18e9 - 0.9 * 19.99e9)


def test_least_tensor_ranks_share_the_heads_and_hold_the_model() -> None:
    """70B in 16 bit is 141 GB: two GPUs leave room for one chat but not for 8,192 tokens, four for both; three ranks
    cannot share 64 heads."""
    large = known_model("llama-3.1-70b")
    assert 3 not in tensor_ranks(large)
    assert asked(large).least_tensor(1) == 2
    assert asked(large, traffic=Traffic(20_000, 256, 20_256)).least_tensor(1) == 4
    assert asked(large, gpu("h200")).least_tensor(1) == 2
    assert asked(large, traffic=Traffic(1024, 256, 1280)).least_tensor(1100) == 16
    assert asked(large, gpu("t4")).least_tensor(1) == 16
    assert asked(kv_only(4e12, 8)).least_tensor(1) is None


# -- layouts


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (Layout(tensor=3), "--tp 3: llama-3.1-8b has 32 attention heads"),
        (Layout(pipeline=33), "--pp 33: llama-3.1-8b has 32 layers"),
        (Layout(expert=True), "--ep: llama-3.1-8b has no experts"),
    ],
)
def test_layout_that_no_engine_starts(layout: Layout, words: str) -> None:
    with pytest.raises(ValueError, match=r"--[tpe]p") as error:
        check(LLAMA, layout)
    assert str(error.value).startswith(words)


def test_layout_that_costs_something_is_said_to() -> None:
    assert "8 KV heads" in asked(layout=Layout(tensor=16)).to_json()["notes"][0]
    assert "latent" in asked(known_model("deepseek-v2-lite"), layout=Layout(tensor=2)).to_json()["notes"][0]
    assert "not shared out evenly" in asked(layout=Layout(pipeline=3)).to_json()["notes"][0]
    assert asked(layout=Layout(tensor=8)).to_json()["notes"] == []


# -- objectives


def test_batch_at_the_slo_meets_it_and_the_next_does_not() -> None:
    goal = Objectives(ttft_s=0.5, tpot_s=0.012, said="ttft=500ms,tpot=12ms")
    deployment = asked(objectives=goal)
    point = deployment.best(deployment.bound_for_slo)
    assert point is not None
    assert point.batch < deployment.largest_batch
    assert goal.meets(point)
    assert not goal.meets(deployment.bound_for_slo(point.batch + 1))


def test_batch_at_the_slo_is_found_behind_one_that_a_less_efficient_run_speaks_for() -> None:
    """Near 1 the run with an MBU of 30 % is believed, near 64 the one with 80 %."""
    runs = (Reached("runs/1", 0.3, 0.6, 1), Reached("runs/64", 0.8, 0.6, 64))
    deployment = asked(objectives=Objectives(tpot_s=0.012), runs=runs)
    point = deployment.best(deployment.predicted)
    assert point is not None
    assert point.runs[0] == "runs/64"
    every = [deployment.predicted(batch) for batch in range(1, deployment.largest_batch + 1)]
    assert point.batch == max(each.batch for each in every if each and deployment.question.meets(each))


def test_time_that_prompts_take_is_in_ttft_or_in_tpot() -> None:
    """A batch of 300 waits for 299 prompts of 14.7 ms each in the course of a request."""
    deployment = asked()
    point = deployment.bound(300)
    assert point.tpot_s is not None
    assert point.step_s < 0.02 < point.tpot_s
    assert point.e2e_s == pytest.approx(deployment.cycle(300).whole.seconds)
    later = deployment.bound(300, ttft_s=1.0)
    assert later.tpot_s is not None
    assert later.tpot_s < point.tpot_s
    assert later.e2e_s == pytest.approx(point.e2e_s)


def test_objective_that_one_request_misses_is_met_by_no_batch() -> None:
    found = asked(objectives=Objectives(tpot_s=0.001)).to_json()["at_slo"]
    assert (found["bound"], found["predicted"]) == (None, None)
    assert found["why"] == {"bound": ["TPOT is 4.53 ms for a request that is alone"]}
    found = asked(objectives=Objectives(ttft_s=0.01, tpot_s=0.001), runs=(RUN,)).to_json()["at_slo"]
    assert [words.split()[0] for words in found["why"]["bound"]] == ["TTFT", "TPOT"]
    assert found["why"]["predicted"][0] == "TTFT is 29.5 ms for a request that is alone"
    too_large = asked(known_model("llama-3.1-70b"), gpu("l4"), objectives=Objectives(tpot_s=1.0)).to_json()["at_slo"]
    assert too_large["why"]["bound"] == ["one request does not fit into memory"]
    assert asked().to_json()["at_slo"] is None


# -- predictions


def test_prediction_divides_the_floor_by_what_was_reached() -> None:
    point = asked(runs=(RUN,)).predicted(1)
    bound = asked().bound(1)
    assert point is not None
    assert point.tpot_s == pytest.approx(bound.step_s / 0.7)
    assert bound.ttft_s is not None
    assert point.ttft_s == pytest.approx(bound.ttft_s / 0.5)
    assert (point.mbu, point.mfu, point.runs) == (0.7, 0.5, ("runs/one",))


def test_without_an_mfu_only_a_step_without_prompts_is_predicted() -> None:
    only_decode = Reached("runs/one", mbu=0.7, mfu=None)
    point = asked(runs=(only_decode,)).predicted(8)
    assert point is not None
    assert point.step_s == pytest.approx(asked().bound(8).step_s / 0.7)
    assert (point.tpot_s, point.ttft_s, point.output_tps) == (None, None, None)
    assert asked(runs=(Reached("runs/one", mbu=None, mfu=0.5),)).predicted(8) is None


ASSUMED = Reached("--mbu 0.7, --mfu 0.5", 0.7, 0.5, assumed=True)


def test_assumed_efficiency_predicts_as_a_measured_one_and_says_that_it_is_none() -> None:
    measured, assumed = asked(runs=(RUN,)).predicted(16), asked(assumed=ASSUMED).predicted(16)
    assert measured is not None
    assert assumed is not None
    assert (measured.runs, measured.assumed) == (("runs/one",), ())
    assert (assumed.runs, assumed.assumed) == ((), ("mbu", "mfu"))
    assert replace(assumed, runs=measured.runs, assumed=()) == measured


def test_run_goes_before_what_is_assumed() -> None:
    """Of what the run does not tell, the assumption stands."""
    point = asked(runs=(Reached("runs/one", mbu=0.3, mfu=None),), assumed=ASSUMED).predicted(1)
    assert point is not None
    assert (point.mbu, point.mfu, point.runs, point.assumed) == (0.3, 0.5, ("runs/one",), ("mfu",))


# -- how many


def test_rate_needs_so_many_servers_that_they_carry_it() -> None:
    """And no fewer; the replicas that were asked for play no part."""
    goal, price = Objectives(ttft_s=0.5, tpot_s=0.012), Price(2.5, "--gpu-price")
    for rate in (1.0, 20.0, 100.0):
        more = {"objectives": goal, "assumed": ASSUMED, "rate": rate}
        deployment = asked(layout=Layout(tensor=2, replicas=3), price=price, **more)
        point, found = deployment.best(deployment.predicted), deployment.to_json()["for_rate"]
        assert point is not None
        assert point.rps is not None
        assert found["rps_per_server"] == pytest.approx(point.rps / 3)
        assert found["servers"] * found["rps_per_server"] >= rate > (found["servers"] - 1) * found["rps_per_server"]
        assert (found["gpus"], found["usd_per_hour"]) == (2 * found["servers"], 5.0 * found["servers"])
        assert (found["basis"], found["assumed"], found["batch"]) == ("predicted", ("mbu", "mfu"), point.batch)


def test_rate_that_is_reached_exactly_needs_no_further_server() -> None:
    each = asked(rate=1.0).to_json()["for_rate"]["rps_per_server"]
    for servers in (1, 3, 7):
        assert asked(rate=servers * each).to_json()["for_rate"]["servers"] == servers


def test_without_predictions_a_rate_is_answered_from_bounds_and_without_an_slo_at_the_largest_batch() -> None:
    deployment = asked(rate=20.0)
    found = deployment.to_json()["for_rate"]
    assert (found["basis"], found["batch"], found["usd_per_hour"]) == ("bound", deployment.largest_batch, None)
    only_decode = Reached("runs/one", mbu=0.7, mfu=None)
    assert asked(rate=20.0, runs=(only_decode,)).to_json()["for_rate"]["basis"] == "bound"


def test_rate_is_carried_by_no_number_of_servers_that_miss_the_slo() -> None:
    """Predicted to miss it; a bound that meets it does not step in."""
    deployment = asked(objectives=Objectives(tpot_s=0.005), assumed=ASSUMED, rate=1.0)
    assert deployment.best(deployment.bound_for_slo) is not None
    assert deployment.to_json()["for_rate"] is None
    assert asked(known_model("llama-3.1-70b"), gpu("l4"), rate=1.0).to_json()["for_rate"] is None


def test_run_with_the_nearest_batch_is_believed() -> None:
    runs = tuple(Reached(f"runs/{batch}", mbu=0.5 + batch / 1000, mfu=None, batch=batch) for batch in (1, 16, 256))
    found = [nearest(runs, "mbu", batch) for batch in (1, 3, 5, 16, 63, 65, 1000)]
    assert [each and each.batch for each in found] == [1, 1, 16, 16, 16, 256, 256]
    assert nearest(runs, "mfu", 4) is None


def test_predictions_say_why_they_may_be_off() -> None:
    run = Reached("runs/x", 0.7, 0.5, 4, "l4", "qwen3-8b", "fp8", 1, valid=False, simulated=True)
    said = list(run.doubts(LLAMA, ["h100-sxm"], [1, 2]))
    for word in ("simulated", "INVALID", "l4, not on h100-sxm", "qwen3-8b", "fp8, not bf16", "TP 1"):
        assert sum(word in each for each in said) == 1
    assert not list(RUN.doubts(LLAMA, ["h100-sxm"], [1]))


def run_json(**phases: object) -> dict[str, Any]:
    return {
        "verdict": {"valid": True},
        "hardware": {
            "deployment": {"gpu": "h100-sxm", "model": "llama-3.1-8b", "tensor": 2},
            "model": {"weights": "fp8"},
            "efficiency": {"per_phase": phases},
        },
    }


def test_efficiency_is_read_from_a_run() -> None:
    run = run_json(decode={"mbu": 0.6, "mfu": 0.1, "batch": 12.5}, prefill={"mbu": 0.1, "mfu": 0.4})
    assert reached(run, "runs/a") == Reached("runs/a", 0.6, 0.4, 12.5, "h100-sxm", "llama-3.1-8b", "fp8", 2)


def test_what_a_run_doubts_of_itself_is_said_with_its_efficiency() -> None:
    run = run_json(decode={"mbu": 0.6, "batch": 12.5}, prefill={"mfu": 0.4})
    run["hardware"] |= {"doubts": ["MFU is 12 % as modelled and 20 % by the server", 3], "lacks": ["no price"]}
    assert "MFU is 12 % as modelled and 20 % by the server" in reached(run, "x").doubts(LLAMA, ["h100-sxm"], [2])
    run["hardware"]["efficiency"] = {}
    with pytest.raises(ValueError, match="MFU is 12 % as modelled"):
        reached(run, "x")


def test_phase_that_another_resource_bound_tells_nothing_of_this_one() -> None:
    run = run_json(decode={"mbu": 0.6, "mfu": 0.1, "batch": 1}, prefill={"mbu": 0.7, "mfu": 0.2})
    assert reached(run, "runs/a").mfu is None


@pytest.mark.parametrize(
    ("run", "why"),
    [
        ({}, "it tells neither"),
        ({"hardware": {"lacks": ["the kind of GPU is not known"]}}, "the kind of GPU is not known"),
        (run_json(decode="All steps had prompts.", prefill="TTFT holds waiting."), "All steps had prompts."),
        (run_json(decode={"mbu": 1.7}, prefill={"mfu": "much"}), "it tells neither"),
        ({"hardware": [], "verdict": 3}, "it tells neither"),
    ],
)
def test_run_without_efficiency_says_what_it_lacks(run: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        reached(run, "runs/a")


# -- properties

LAYOUTS = st.builds(
    Layout,
    tensor=st.sampled_from([1, 2, 4, 8]),
    pipeline=st.sampled_from([1, 2, 4]),
    data=st.sampled_from([1, 2, 4]),
    replicas=st.sampled_from([1, 3]),
)
TRAFFIC = st.builds(
    lambda prompt, output, more: Traffic(prompt, output, prompt + output + more),
    st.integers(1, 8000),
    st.integers(1, 2000),
    st.integers(0, 4000),
)
SHARES = st.floats(0.05, 1.0)


@given(LAYOUTS, TRAFFIC, st.integers(1, 500), SHARES, SHARES)
def test_no_prediction_beats_its_bound(layout: Layout, traffic: Traffic, batch: int, mbu: float, mfu: float) -> None:
    deployment = asked(layout=layout, traffic=traffic, runs=(Reached("runs/x", mbu, mfu, 1.0),))
    bound, point = deployment.bound(batch), deployment.predicted(batch)
    assert point is not None
    assert point.step_s >= bound.step_s * (1 - 1e-9)
    assert point.ttft_s is not None
    assert bound.ttft_s is not None
    assert point.ttft_s >= bound.ttft_s * (1 - 1e-9)
    assert point.output_tps is not None
    assert bound.output_tps is not None
    assert point.output_tps <= bound.output_tps * (1 + 1e-9)


@given(LAYOUTS, TRAFFIC, st.integers(1, 500), st.integers(1, 500))
def test_latency_never_falls_with_the_batch(layout: Layout, traffic: Traffic, batch: int, more: int) -> None:
    """Which is what the search for the largest batch at an SLO rests on."""
    deployment = asked(layout=layout, traffic=traffic, runs=(RUN,))
    for point_at in (deployment.bound, deployment.predicted):
        few, many = point_at(batch), point_at(batch + more)
        assert few is not None
        assert many is not None
        for name in ("step_s", "tpot_s", "ttft_s"):
            assert getattr(few, name) <= getattr(many, name) * (1 + 1e-9)


@given(LAYOUTS, TRAFFIC)
def test_memory_adds_up(layout: Layout, traffic: Traffic) -> None:
    deployment = asked(layout=layout, traffic=traffic)
    found = deployment.to_json()["memory"]
    left = found["usable_bytes"] - found["weights_bytes"] - found["reserved_bytes"]
    assert found["kv_room_bytes"] == pytest.approx(left)
    per_rank = found["largest_batch"] // layout.data
    assert per_rank * found["kv_bytes_per_request"] <= max(0.0, left)
    assert (per_rank + 1) * found["kv_bytes_per_request"] > left
    assert found["fits"] is (found["largest_batch"] > 0)


def test_answer_is_json_with_a_row_for_each_batch_and_the_largest() -> None:
    question = Question(LLAMA, CHAT, (1, 10_000), objectives=Objectives(tpot_s=0.02), runs=(RUN,))
    kinds = [(H100, Price(2.0, "--gpu-price")), (gpu("l4"), None)]
    found = json.loads(json.dumps(estimate(question, kinds, [Layout(), Layout(tensor=2)])))
    assert [(each["gpu"], each["layout"]["gpus"]) for each in found["deployments"]] == [
        ("h100-sxm", 1), ("h100-sxm", 2), ("l4", 1), ("l4", 2),
    ]  # fmt: skip
    first = found["deployments"][0]
    assert [row["batch"] for row in first["rows"]] == [1, first["memory"]["largest_batch"], 10_000]
    assert [row["fits"] for row in first["rows"]] == [True, True, False]
    assert first["curve"][-1]["batch"] == first["memory"]["largest_batch"]
    assert first["rows"][0]["predicted"]["runs"] == ["runs/one"]
    assert found["like"][0]["doubts"] == [
        "it ran on h100-sxm, not on l4",
        "it ran with TP 1: what more ranks lose by talking to each other is not in it",
    ]


def test_attention_without_known_heads_is_split_by_powers_of_two() -> None:
    assert isinstance(LLAMA.architecture.attention[0], Attention)
    assert tensor_ranks(round_model(1e9)) == (1, 2, 4, 8, 16, 32, 64)
    assert tensor_ranks(LLAMA) == (1, 2, 4, 8, 16, 32)

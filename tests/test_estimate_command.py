"""`bench estimate`: what it takes and refuses, what people see, and whether its predictions come true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from servemark.dashboards.estimate import estimate_text
from servemark.dashboards.estimate_page import render_estimate
from servemark.dashboards.estimate_rows import HEAD, MEMORY_HEAD, SLO_HEAD
from servemark.harness.estimating import whole_numbers
from tests.commands import TOLERANT, bench, run_json
from tests.test_page import HOSTILE, Elements

DEVICES = """
[gpus."two-tb"]
title = "made"
bandwidth_gb_s = 2000
memory_gb = 192
source = "made"
retrieved = "2026-11-21"
[gpus."two-tb".peaks]
bf16 = { dense_tflops = 1000 }
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def estimate(*words: str, model: str = "llama-3.1-8b", gpu: str = "h100-sxm") -> dict[str, Any]:
    said = bench("estimate", "--model", model, "--gpu", gpu, *words, "--json")
    assert said.code == 0, said.err
    found: dict[str, Any] = json.loads(said.out)
    return found


def refused(*words: str) -> str:
    said = bench("estimate", *words)
    assert said.code == 2
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1
    return said.err


# -- figures


def test_70b_on_2_tb_per_s_from_a_file_of_devices() -> None:
    """The textbook's 14 tokens/s: 139 GB are read for each, as the input embedding is not."""
    Path("own.toml").write_text(DEVICES)
    found = estimate("--gpu-file", "own.toml", "--batch", "1", model="llama-3.1-70b", gpu="two-tb")
    bound = found["deployments"][0]["rows"][0]["bound"]
    assert bound["output_tps"] == pytest.approx(2000e9 / (2 * (70_553_706_496 - 128_256 * 8192)), rel=0.01)
    assert bound["output_tps"] < 14.5


def test_deployments_stand_side_by_side() -> None:
    found = estimate("--gpu", "h200", "--tp", "2,1", "--dp", "1,2", "--replicas", "3")
    assert [each["gpu"] for each in found["deployments"]] == ["h100-sxm"] * 4 + ["h200"] * 4
    layouts = [each["layout"] for each in found["deployments"]]
    assert [layout["gpus"] for layout in layouts] == [3, 6, 6, 12] * 2


def test_formats_are_the_ones_that_are_asked_for() -> None:
    found = estimate("--dtype", "fp8", "--kv-dtype", "fp8")
    assert (found["model"]["weights"], found["model"]["kv"]) == ("fp8", "fp8")
    assert found["model"]["kv_bytes_per_token"] == 65_536
    assert found["gpus"][0]["dense_tflops"] == {"fp8": 1979, "bf16": 989}


def test_lengths_and_objectives_of_a_workload() -> None:
    Path("w.yaml").write_text(
        "version: 1\n"
        "prompts: {source: synthetic, input_tokens: 'uniform(100, 300)', output_tokens: 50}\n"
        "load: {rate: 1}\n"
        "slo: {limits: 'ttft=100ms,tpot=20ms,error_rate=1%'}\n"
    )
    asked = estimate("--workload", "w.yaml")["asked"]
    assert (asked["input_tokens"], asked["output_tokens"], asked["context"]) == (200, 50, 250)
    assert (asked["slo"]["ttft_s"], asked["slo"]["tpot_s"]) == (0.1, 0.02)
    over = estimate("--workload", "w.yaml", "--output-tokens", "70", "--slo", "e2e=2s")["asked"]
    assert (over["input_tokens"], over["output_tokens"]) == (200, 70)
    assert (over["slo"]["ttft_s"], over["slo"]["e2e_s"]) == (None, 2.0)


def test_context_alone_is_that_of_one_request() -> None:
    asked = estimate("--context", "8192")["asked"]
    assert (asked["input_tokens"], asked["output_tokens"], asked["context"]) == (7936, 256, 8192)
    asked = estimate("--context", "8192", "--input-tokens", "1000")["asked"]
    assert (asked["input_tokens"], asked["output_tokens"], asked["context"]) == (1000, 256, 8192)


def test_context_is_tokens_or_thousands_of_1024() -> None:
    for text in ("131072", "128k", "128K", "131,072"):
        assert estimate("--context", text)["asked"]["context"] == 131_072
    assert estimate("--context", "1.5k")["asked"]["context"] == 1536


def test_kinds_of_gpu_and_ranks_are_listed_as_in_sweeps() -> None:
    found = estimate("--tp", "1..4x2", gpu="h200, h100-sxm,h200")
    names = [(each["gpu"], each["layout"]["tensor"]) for each in found["deployments"]]
    assert names == [(gpu, ranks) for gpu in ("h200", "h100-sxm") for ranks in (1, 2, 4)]


def test_model_may_be_spelt_as_in_other_commands() -> None:
    said = bench("estimate", "--model-config", "llama-3.1-8b", "--gpu", "l4", "--json")
    assert json.loads(said.out)["model"]["name"] == "llama-3.1-8b"


def test_shares_are_shares_or_percent() -> None:
    for mbu, mfu in (("0.7", "0.5"), ("70%", "50 %"), (".7", ".5")):
        assert estimate("--mbu", mbu, "--mfu", mfu)["asked"]["assumed"] == {"mbu": 0.7, "mfu": 0.5}
    assert estimate("--mbu", "1")["asked"]["assumed"] == {"mbu": 1.0, "mfu": None}


def test_prices_of_a_file() -> None:
    Path("p.yaml").write_text("version: 1\ngpus: {h100-sxm: 2.5}\n")
    found = estimate("--gpu", "l4", "--prices", "p.yaml")
    assert [each["usd_per_hour"] for each in found["deployments"]] == [2.5, None]
    assert found["deployments"][0]["price_source"] == "p.yaml:2"
    assert found["asked"]["unpriced"] == ["l4"]
    assert "has none for l4" in estimate_text(found)


def test_memory_that_no_driver_is_known_to_report_is_said_to_be_the_published() -> None:
    assert "gaudi3: what fits is counted with the published 128 GB" in plain(
        "--model", "llama-3.1-8b", "--gpu", "gaudi3"
    )
    assert "published" not in plain(*NAMED)
    (gpu,) = estimate()["gpus"]
    assert (gpu["memory_gb"], gpu["memory_mib"], gpu["memory_bytes"]) == (80, 81_559, 81_559 * 2**20)


# -- what is refused

NAMED = ("--model", "llama-3.1-8b", "--gpu", "h100-sxm")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--model", "llama-3.1-8b", "--gpu", "h10"), "did you mean h100"),
        (("--model", "lama-3.1-8b", "--gpu", "h100-sxm"), "llama-3.1-8b"),
        ((*NAMED, "--tp", "3"), "vLLM, SGLang and TensorRT-LLM refuse"),
        ((*NAMED, "--tp", "2,x"), "--tp '2,x': give whole numbers"),
        ((*NAMED, "--batch", "0"), "--batch '0'"),
        ((*NAMED, "--dtype", "fp7"), "--dtype: fp7"),
        ((*NAMED, "--kv-dtype", "fp7"), "--kv-dtype: fp7"),
        ((*NAMED, "--context", "131073"), "no more than 131,072 tokens"),
        ((*NAMED, "--context", "1000", "--input-tokens", "900"), "does not fit in it"),
        ((*NAMED, "--slo", "rps=3req/s"), "--slo: rps cannot be estimated"),
        (
            (*NAMED, "--slo", "ttft=1s,latency=5ms"),
            "latency cannot be estimated from the hardware; limits go on ttft, tpot",
        ),
        (
            (*NAMED, "--mbu", "70"),
            "--mbu '70': give the share of the peak that is reached, as 0.7 or 70%; did you mean 70%?",
        ),
        ((*NAMED, "--mbu", "120%"), "--mbu '120%'"),
        ((*NAMED, "--mfu", "0"), "--mfu '0'"),
        ((*NAMED, "--mfu", "nan"), "--mfu 'nan'"),
        ((*NAMED, "--mfu", "-0.5"), "--mfu '-0.5'"),
        ((*NAMED, "--rate", "0"), "--rate 0: give requests per second"),
        ((*NAMED, "--rate", "nan"), "--rate nan"),
        ((*NAMED, "--rate", "inf"), "--rate inf"),
        ((*NAMED, "--context", "128q"), "--context '128q': give a number of tokens, as 131072, or 128k"),
        ((*NAMED, "--context", "0"), "--context '0'"),
        ((*NAMED, "--tp", "1..8x1"), "--tp '1..8x1': '1..8x1' never comes to its end"),
        ((*NAMED, "--tp", "1..2+0.5"), "--tp '1..2+0.5': give whole numbers"),
        ((*NAMED, "--gpu-price", "$2.5"), "'$2.5' is no number of dollars; write it bare, as 2.5"),
        ((*NAMED, "--gpu", "h200,h10"), "there is no GPU 'h10'"),
        (("--model", "RedHatAI/Qwen3-8B-FP8-dynamic", "--gpu", "l4"), "--model qwen3-8b --dtype fp8"),
        (("--model", "x/Meta-Llama-3.1-70B-Instruct-W8A8", "--gpu", "l4"), "--model llama-3.1-70b --dtype FORMAT"),
        ((*NAMED, "--slo", "ttft=5"), "--slo: 'ttft=5' has no unit"),
        ((*NAMED, "--workload", "agent"), "give --input-tokens and --output-tokens"),
        ((*NAMED, "--memory-utilisation", "nan"), "--memory-utilisation"),
        ((*NAMED, "--reserve-gb", "-1"), "--reserve-gb"),
        ((*NAMED, "--tp", "1,2,4,8,16", "--pp", "1,2,4,8,16", "--dp", "1,2,3,4,5"), "too many to compare"),
        ((*NAMED, "--like", "nowhere"), "nowhere"),
        ((*NAMED, "--out", "nowhere/x.html"), "could not be written"),
    ],
)
def test_bad_input_is_one_sentence(words: tuple[str, ...], said: str) -> None:
    assert said in refused(*words)


def test_file_that_is_no_config_is_named() -> None:
    Path("config.json").write_text('{"model_type": "strange"}')
    assert "config.json" in refused("--model", "config.json", "--gpu", "h100-sxm")


def test_run_without_efficiency_is_refused(tmp_path: Path) -> None:
    assert "--like" in refused(*NAMED, "--like", str(saved(tmp_path / "run", {})))


def test_whole_numbers_are_in_order_and_once() -> None:
    assert whole_numbers("--tp", "8, 1,8") == (1, 8)
    assert whole_numbers("--tp", "1..8x2,4,1..3") == (1, 2, 3, 4, 8)


def saved(folder: Path, phases: dict[str, Any], **more: Any) -> Path:
    """A run that says this of its efficiency."""
    from servemark.results import schema

    folder.mkdir()
    hardware = {"deployment": {"gpu": "h100-sxm"}, "efficiency": {"per_phase": phases}}
    run = {"schema_version": schema.SCHEMA_VERSION, "verdict": {"valid": True}, "hardware": hardware, **more}
    (folder / schema.RUN_JSON).write_text(json.dumps(run))
    return folder


# -- what people see


def test_table_fits_a_hundred_columns_and_says_what_is_what(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", {"decode": {"mbu": 0.7, "batch": 4}, "prefill": {"mfu": 0.5}}, simulated=True)
    words = ("--gpu", "h200", "--tp", "1,2", "--pp", "2", "--replicas", "12", "--gpu-price", "2.5")
    said = bench("estimate", *NAMED, *words, "--batch", "8,999999", "--slo", "tpot=50ms", "--like", str(run)).out
    assert max(map(len, said.splitlines())) <= 100
    for text in ("Bounds", "Predictions", "At the SLO tpot=50ms", "MBU 70.0 %", "simulated", "no TP fits"):
        assert text in " ".join(said.split())


def test_without_runs_bounds_are_called_no_predictions() -> None:
    said = bench("estimate", *NAMED).out
    assert "Bounds, not predictions" in said
    assert "Predictions" not in said


def test_run_that_tells_no_prefill_predicts_steps_alone(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", {"decode": {"mbu": 0.7, "batch": 4}, "prefill": "It holds waiting."})
    said = bench("estimate", *NAMED, "--like", str(run), "--slo", "tpot=50ms").out
    assert "there are only steps without prompts" in " ".join(said.split())
    assert "predicted " not in said


def plain(*words: str) -> str:
    said = bench("estimate", *words)
    assert said.code == 0, said.err
    return " ".join(said.out.split())


def test_model_that_does_not_fit_says_by_how_much_and_what_would() -> None:
    """77.0 GB less 141.1, less 3.15; where nothing fits there are no tables of nothing."""
    said = plain("--model", "llama-3.1-70b", "--gpu", "h100-sxm", "--slo", "tpot=50ms", "--rate", "3", "--mbu", "0.7")
    assert "the engine takes 77.0 GB; weights need 141, activations and runtime 3.15" in said
    assert "67.7 GB are missing; TP2 fits." in said
    assert "Nothing fits: none of these deployments holds one such request." in said
    for absent in ("Bounds", "Predictions", "At the SLO", "requests/s"):
        assert absent not in said
    assert (
        bench("estimate", "--model", "llama-3.1-70b", "--gpu", "h100-sxm", "--rate", "3", "--out", "x.html").code == 0
    )
    assert "Nothing fits" in Path("x.html").read_text()


def test_assumed_predictions_are_marked_and_runs_go_before_them(tmp_path: Path) -> None:
    shares = ("--mbu", "0.7", "--mfu", "0.5")
    said = plain(*NAMED, *shares, "--slo", "tpot=20ms")
    assert "Predictions, at an efficiency that is assumed, not measured" in said
    assert "Assumed, not measured: decode MBU 70.0 %, prefill MFU 50.0 %" in said
    assert "Bounds, not predictions" not in said
    assert "assumed" in said.split("At the SLO")[1].split("No queueing")[0]
    run = saved(tmp_path / "run", {"decode": {"mbu": 0.6, "batch": 4}})
    said = plain(*NAMED, *shares, "--like", str(run))
    assert "measured in part, the rest assumed" in said
    assert "Assumed, not measured: prefill MFU 50.0 %, the same for all. --mbu: not used, as runs tell it." in said


def test_rate_says_which_and_how_many(tmp_path: Path) -> None:
    words = ("--model", "llama-3.1-70b", "--gpu", "h100-sxm,h200", "--tp", "2", "--dtype", "fp8", "--gpu-price", "2.5")
    goal = ("--slo", "ttft=500ms,tpot=30ms", "--rate", "20")
    said = plain(*words, *goal, "--mbu", "0.7", "--mfu", "0.5")
    assert "needs 3 x h200 TP2: 6 GPUs, $15.0/h (8.43 req/s each at batch 65, assumed, not measured)" in said
    assert "Cheapest and fewest GPUs: h200 TP2." in said
    said = plain(*words, *goal)
    assert "needs at least 1 x h200 TP2: 2 GPUs, $5.00/h" in said
    assert "Cheapest" not in said
    assert "no number of servers meets the SLO" in plain(*words, "--slo", "ttft=1ms", "--rate", "20")
    bench("estimate", *words, *goal, "--out", str(tmp_path / "page.html"))
    assert "needs at least 1 x h200 TP2" in Elements((tmp_path / "page.html").read_text()).text


def test_bounds_that_compute_makes_equal_rank_nothing() -> None:
    """An H200 computes as an H100 does; an L4 does not."""
    words = ("--model", "llama-3.1-8b", "--slo", "tpot=50ms", "--gpu", "h100-sxm,h200,l4")
    assert "h100-sxm and h200 give the same per GPU, as all are bound by compute: bounds cannot rank" in plain(*words)
    assert "cannot rank" not in plain("--model", "llama-3.1-8b", "--slo", "tpot=50ms", "--gpu", "h100-sxm,l4")


def test_percentile_is_taken_and_queueing_is_said_to_be_in_none() -> None:
    found = estimate("--slo", "ttft:p99=500ms,itl:p99=20ms,tpot=30ms")["asked"]["slo"]
    assert (found["ttft_s"], found["tpot_s"]) == (0.5, 0.02)
    assert "No queueing is in it" in plain(*NAMED, "--slo", "ttft:p99=500ms")


def test_slo_that_nothing_meets_says_why() -> None:
    said = plain(*NAMED, "--slo", "ttft=10ms,tpot=50ms")
    assert "no batch of any deployment meets it" in said
    assert "h100-sxm: none meets it, since TTFT is 14.7 ms for a request that is alone." in said
    assert "No queueing is in it" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--dtype", "fp8"), True),
        (("--dtype", "int4-awq"), True),
        (("--dtype", "fp8", "--kv-dtype", "fp8"), False),
        ((), False),
    ],
)
def test_wide_kv_cache_beside_narrow_weights_is_noted(words: tuple[str, ...], said: bool) -> None:
    assert ("KV cache at bf16; --kv-dtype fp8 doubles the batch." in plain(*NAMED, *words)) is said


@pytest.mark.parametrize("columns", ["40", "80", "100", "150"])
def test_tables_follow_the_terminal_from_80_columns_on(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No name is broken over lines, and no head stands for two columns."""
    monkeypatch.setenv("COLUMNS", columns)
    words = ("--gpu", "rtx-pro-6000", "--tp", "2", "--pp", "2", "--dp", "2", "--replicas", "12", "--gpu-price", "2.5")
    said = bench("estimate", *NAMED, *words, "--slo", "tpot=50ms", "--mbu", "0.7", "--mfu", "0.5").out
    lines = said.splitlines()
    assert max(map(len, lines)) <= max(80, int(columns))
    assert sum("rtx-pro-6000 TP2 PP2 DP2 x12" in line for line in lines) == 4
    assert "bandw." not in said


def test_heads_are_all_different_and_columns_without_a_figure_are_left_out() -> None:
    for head in (HEAD, MEMORY_HEAD, SLO_HEAD[1:]):
        assert len(set(head)) == len(head)
    assert "$" not in bench("estimate", *NAMED, "--slo", "tpot=50ms").out
    assert "$/1M" in " ".join(bench("estimate", *NAMED, "--gpu-price", "2").out.split())


# -- runs that do not know what they ran on


def unknowing(folder: Path) -> None:
    """As a server that tells neither its GPU nor its model leaves it."""
    run = run_json(folder)
    run["target"] |= {"settings": {}, "launch": None, "model": "served"}
    run["hardware"]["deployment"] |= {"gpu": None, "model": None, "asked": {}}
    run["hardware"]["efficiency"] = {}
    (folder / "run.json").write_text(json.dumps(run))


def test_run_that_knew_no_gpu_and_no_model_is_worked_out_anew() -> None:
    bench(*RUN, "--concurrency", "1", "--duration", "2s", "--warmup", "500ms", "--out", "alone")
    (known,) = estimate("--like", "alone")["like"]
    unknowing(Path("alone"))
    said = refused(*NAMED, "--like", "alone")
    assert "the GPU that it ran on is not known" in said
    assert "name it with --like-gpu" in said
    (found,) = estimate("--like", "alone", "--like-gpu", "h100-sxm")["like"]
    assert (found["mbu"], found["mfu"]) == (pytest.approx(known["mbu"]), pytest.approx(known["mfu"]))
    assert found["doubted"][:2] == [
        "its GPU was not known, and is taken to be h100-sxm (--like-gpu)",
        "its model was not known, and is taken to be llama-3.1-8b (--model)",
    ]
    assert found["doubts"][:2] == found["doubted"][:2]
    assert "there is no GPU 'h1'" in refused(*NAMED, "--like", "alone", "--like-gpu", "h1")
    assert "is not as named" in refused(*NAMED, "--like", "alone", "--like-gpu", "t4")  # faster than that GPU


def test_page_holds_the_tables_and_loads_nothing() -> None:
    said = bench("estimate", *NAMED, "--gpu-price", "2", "--slo", "tpot=20ms", "--out", "page.html")
    assert said.out.endswith("page.html\n")
    seen = Elements(Path("page.html").read_text())
    for text in ("Memory", "Bounds", "At the SLO tpot=20ms", "h100-sxm", "Sources"):
        assert text in seen.text
    assert not [tag for tag, attributes in seen.elements if tag in ("script", "link", "img") and "src" in attributes]
    figures = json.loads(seen.scripts[0])
    assert set(figures) == {"bound-0", "bound-1"}
    assert figures["bound-0"]["data"][0]["name"] == "h100-sxm"


def test_page_of_hostile_names_runs_nothing() -> None:
    found = estimate("--slo", "tpot=20ms")
    whole = json.loads(json.dumps(found).replace("h100-sxm", json.dumps(HOSTILE)[1:-1]))
    whole["model"]["name"] = HOSTILE
    tame, hostile = (Elements(render_estimate(each)) for each in (found, whole))
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in tame.elements]


# -- whether it comes true

RUN = (
    *("run", "--target", "sim", "--launch", "llama-3.1-8b", "--gpu", "h100-sxm", "--model-config", "llama-3.1-8b"),
    *("--workload", "batch", "--input-tokens", "1024", "--output-tokens", "uniform(32,96)", "--quiet", *TOLERANT),
)


def test_run_of_one_request_predicts_a_run_of_sixteen() -> None:
    """TPOT and throughput of the simulated server within 15 %, where the bound is half of it."""
    for name, concurrency, duration in (("alone", "1", "3s"), ("sixteen", "16", "5s")):
        bench(*RUN, "--concurrency", concurrency, "--duration", duration, "--warmup", "1s", "--out", name)
    found = estimate("--batch", "16", "--output-tokens", "64", "--like", "alone")
    row = found["deployments"][0]["rows"][0]
    measured = run_json(Path("sixteen"))["metrics"]
    tpot_ms, output_tps = measured["tpot"]["mean"], measured["output_tps"]["value"]
    assert row["predicted"]["tpot_s"] * 1000 == pytest.approx(tpot_ms, rel=0.15)
    assert row["predicted"]["output_tps"] == pytest.approx(output_tps, rel=0.15)
    assert row["bound"]["tpot_s"] * 1000 < 0.75 * tpot_ms
    assert "simulated" in found["like"][0]["doubts"][0]

"""`bench estimate`: what it takes and refuses, what people see, and whether its predictions come true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from servemark.dashboards.estimate import estimate_text
from servemark.dashboards.estimate_page import render_estimate
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


def test_prices_of_a_file() -> None:
    Path("p.yaml").write_text("version: 1\ngpus: {h100-sxm: 2.5}\n")
    found = estimate("--gpu", "l4", "--prices", "p.yaml")
    assert [each["usd_per_hour"] for each in found["deployments"]] == [2.5, None]
    assert found["deployments"][0]["price_source"] == "p.yaml:2"
    assert found["asked"]["unpriced"] == ["l4"]
    assert "has none for l4" in estimate_text(found)


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
        ((*NAMED, "--slo", "rps=3req/s"), "--slo: rps depends on more"),
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


def test_model_that_does_not_fit_says_by_how_much_and_what_would() -> None:
    said = bench("estimate", "--model", "llama-3.1-70b", "--gpu", "h100-sxm").out
    assert "72.7 short; TP4 fits" in said


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

"""The hardware in the commands: flags reach the result, and a saved run's figures can be worked out anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import bench, run_json

BRIEF = ("--target", "sim", "--workload", "chat", "--concurrency", "4", "--requests", "70", "--warmup", "4", "--quiet")
FAST = ("--input-tokens", "64", "--output-tokens", "16")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hardware") / "run"
    # The verdict of so short a run is of no interest here.
    said = bench("run", *BRIEF, *FAST, "--tp", "2", "--gpu-price", "2", "--out", str(folder))
    assert said.code in (0, 4), said.err
    return folder


def shown(folder: Path, *flags: str) -> dict[str, Any]:
    said = bench("show", str(folder), *flags, "--json")
    assert said.code == 0, said.err
    found: dict[str, Any] = json.loads(said.out)
    return found


def test_what_the_server_and_the_flags_say_is_in_the_result(folder: Path) -> None:
    hardware = run_json(folder)["hardware"]
    deployment = hardware["deployment"]
    assert (deployment["gpu"], deployment["gpu_source"]) == ("h100-sxm", "the server")
    assert (deployment["tensor"], deployment["gpus"], deployment["layout_source"]) == (2, 2, "flags")
    assert deployment["asked"] == {"tp": 2, "gpu_price": 2.0}
    assert hardware["model"]["params"] == 8_030_261_248
    assert hardware["cost"]["usd_per_hour"] == 4.0
    assert hardware["telemetry"]["samples"] == 0
    assert "simulated" in hardware["telemetry"]["notes"][0]


def test_a_saved_run_is_priced_anew_and_stays_as_it_is(folder: Path) -> None:
    before = (folder / "run.json").read_bytes()
    once, twice = (shown(folder, *flags) for flags in ((), ("--gpu-price", "4")))
    # What was asked for at first still holds: two GPUs.
    assert twice["hardware"]["cost"]["usd_per_hour"] == 8.0
    for name in ("usd_per_1m_output", "usd_per_1m_output_slo"):
        assert twice["summary"][name] == pytest.approx(2 * once["summary"][name])
    assert twice["summary"]["mbu"] == pytest.approx(once["summary"]["mbu"])
    assert (folder / "run.json").read_bytes() == before


def test_another_gpu_has_other_peaks(folder: Path) -> None:
    h100, h200 = shown(folder), shown(folder, "--gpu", "h200")
    assert h200["summary"]["mbu"] == pytest.approx(h100["summary"]["mbu"] * 3350 / 4800)
    assert h200["summary"]["mfu"] == pytest.approx(h100["summary"]["mfu"])
    assert {name for name in h100 if h100[name] != h200[name]} == {"hardware", "summary"}


def test_a_page_is_made_of_the_figures_worked_out_anew(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "priced.html"
    assert bench("report", str(folder), "--gpu", "h200", "--out", str(page)).code == 0
    assert "NVIDIA H200" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--gpu", "h1000"), "--gpu"),
        (("--gpus", "3", "--tp", "2"), "--gpus 3"),
        (("--model-config", "/nowhere"), "/nowhere"),
        (("--gpu-price", "-1"), "--gpu-price"),
        (("--prices", "/nowhere.yaml"), "/nowhere.yaml"),
        (("--dtype", "fp7"), "fp7"),
        (("--gpu-sample", "1ms"), "--gpu-sample"),
        (("--gpu-metrics", "nowhere"), "--gpu-metrics"),
        (("--gpu-sample", "off", "--gpu-metrics", "http://127.0.0.1:9"), "--gpu-sample off"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_is_written(
    flags: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    found = bench("run", *BRIEF, *FAST, *flags, "--out", str(tmp_path / "run"))
    assert found.code == 2
    assert said in found.err
    assert found.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_exporter_that_is_not_there_stops_the_run_before_it_begins(tmp_path: Path) -> None:
    found = bench("run", *BRIEF, *FAST, "--gpu-metrics", "http://127.0.0.1:9", "--out", str(tmp_path / "run"))
    assert found.code == 3
    assert "http://127.0.0.1:9" in found.err
    assert not (tmp_path / "run").exists()


def test_the_points_of_a_sweep_have_the_hardware_of_its_flags(tmp_path: Path) -> None:
    root = tmp_path / "sweep"
    words = ("--target", "sim", *FAST, "--requests", "64", "--warmup", "0", "--cool-down", "0s", "--quiet")
    said = bench(
        "sweep", *words, "--over", "concurrency=2,8", "--tp", "2", "--gpu-price", "3", "--out", str(root), "--json"
    )
    assert said.code in (0, 4), said.err
    for cell in json.loads(said.out)["cells"]:
        hardware = run_json(root / cell["folder"])["hardware"]
        assert (hardware["deployment"]["gpus"], hardware["cost"]["usd_per_hour"]) == (2, 6.0)
        assert cell["figures"]["usd_per_1m_output"] == pytest.approx(hardware["cost"]["usd_per_1m_output"])

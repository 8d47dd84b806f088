"""What clumsy and hostile users do to the hardware of a run: no traceback, and no run that is lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.harness.efficiency.assessed import Assessed
from servemark.harness.efficiency.lacks import lacks
from servemark.harness.errors import BadInput
from servemark.harness.figures.frame import Frame, Window
from servemark.harness.hardware.deployed import Deployed, deployed, refuse_senseless
from servemark.harness.hardware.devices import gpu as known_gpu
from servemark.harness.hardware.section import HardwareSection
from servemark.harness.hardware.told import Told
from servemark.harness.matrix.plan import parse_plan
from servemark.harness.types import GpuSample, ServerSample
from servemark.results.hardware import hardware_part
from tests.commands import bench, run_json
from tests.frames import answer, at, frame
from tests.made_models import gpu, gqa, model

BRIEF = ("--target", "sim", "--concurrency", "2", "--requests", "6", "--warmup", "0", "--quiet")
FAST = ("--input-tokens", "64", "--output-tokens", "4")
SMALL = model({"mlp": 1000, "head": 100, "embedding": 100}, (gqa(4, 2, 2),))
RUN = frame(*(answer(i, 0, (100, 200, 300), prompt_tokens=10) for i in range(3)))


def assessed(samples: list[ServerSample], gpus: list[GpuSample] | None = None, to_ms: int = 301) -> Assessed:
    made_on = Deployed(gpu=gpu(), model=SMALL)
    return Assessed(RUN, Window(at(0), at(to_ms)), samples, gpus or [], made_on, whole_run=True)


# -- counters around a run


@given(before_ms=st.integers(1, 100_000), after_ms=st.integers(1, 100_000))
def test_a_counter_grows_while_requests_run_and_not_while_the_server_waits_for_the_run(
    before_ms: int, after_ms: int
) -> None:
    samples = [
        ServerSample(at(-2 * before_ms), {"iterations": 5.0}),
        ServerSample(at(-before_ms), {"iterations": 5.0}),
        ServerSample(at(301 + after_ms), {"iterations": 8.0}),
    ]
    run = assessed(samples)
    assert run.grown("iterations") == pytest.approx(3, rel=0.01)
    assert run.steps is not None
    assert run.steps.count(run.window) == pytest.approx(3, rel=0.01)


def test_a_reading_of_the_idle_server_says_nothing_of_how_many_ran() -> None:
    running = [ServerSample(at(-50), {"running": 0.0}), ServerSample(at(350), {"running": 0.0})]
    assert assessed(running).level("running") is None
    inside = [ServerSample(at(150), {"running": 3.0}), ServerSample(at(300), {"running": 3.0})]
    found = assessed([running[0], *inside, running[1]]).level("running")
    assert found is not None
    assert found.mean == 3.0


# -- GPUs that are not the server's


def readings(busy: float) -> list[GpuSample]:
    values = {"utilisation": busy, "dram_active": busy, "power": 80.0}
    return [GpuSample(at(200 * i), "GPU-here", values) for i in range(20)]


def test_gpus_that_did_nothing_while_answers_came_are_not_measured_as_the_servers() -> None:
    run = assessed([], readings(0.0), to_ms=3_600)
    assert run.strangers
    assert run.measured("dram_active") is None
    assert any("--gpu-metrics" in each for each in lacks(run, [], None))
    busy = assessed([], readings(0.4), to_ms=3_600)
    assert not busy.strangers
    assert busy.measured("dram_active") == pytest.approx(0.4)


# -- flags


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--tp", "100000000000"), "--tp: must be at most"),
        (("--gpus", "1" + "0" * 30), "--gpus: must be at most"),
        (("--gpu", ""), "--gpu: needs some text"),
        (("--prices", ""), "--prices: needs some text"),
        (("--model-config", ""), "--model-config: needs some text"),
        (("--gpu-price", "1e300"), "--gpu-price: must be at most"),
        (("--gpu-file", "/nowhere.toml"), "/nowhere.toml"),
        (("--dtype", "fp7"), "--dtype: fp7"),
        (("--kv-dtype", "fp7"), "--kv-dtype: fp7"),
        (("--gpu-index", ","), "--gpu-index: names no GPU"),
        (("--gpu-sample", "OFF"), "or off"),
        (("--gpu-metrics", "http://me:secret@127.0.0.1:9"), "--gpu-metrics holds credentials"),
        (("--gpu", "h1000"), "--gpu: there is no GPU"),
        (("--gpus", "3", "--tp", "2"), "--gpus 3"),
    ],
)
@pytest.mark.parametrize("command", ["run", "sweep", "search"])
def test_a_mistake_is_said_before_the_server_is_reached_and_leaves_no_folder(
    command: str, flags: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    """Nobody listens at that address: reaching for it would be exit code 3."""
    words = ["--target", "vllm", "--url", "http://127.0.0.1:9", "--slo", "ttft=1s", *flags]
    words += ["--over", "rate=1,2"] if command == "sweep" else []
    found = bench(command, *words, "--quiet", "--out", str(tmp_path / "out"))
    assert (found.code, found.err.count("\n")) == (2, 1), found.err
    assert said in found.err
    assert "secret" not in found.err
    assert not (tmp_path / "out").exists()


def test_what_may_make_sense_of_some_server_is_not_refused_before_it_is_known() -> None:
    refuse_senseless(HardwareSection(gpus=8, pp=2), servers=2)
    refuse_senseless(HardwareSection(gpus=6, tp=2), servers=1)
    assert deployed(HardwareSection(gpus=8, pp=2), Told(tensor=2), 2).layout.gpus == 8


def test_weights_that_do_not_fit_are_said() -> None:
    made_on = deployed(HardwareSection(gpu="t4", config="deepseek-v3", tp=2), Told())
    run = Assessed(RUN, Window(at(0), at(301)), [], [], made_on)
    assert any("do not fit into the 16 GB of t4" in each for each in lacks(run, [], None))
    fitting = deployed(HardwareSection(gpu="t4", config="deepseek-v3", tp=256), Told())
    run = Assessed(RUN, Window(at(0), at(301)), [], [], fitting)
    assert not any("do not fit" in each for each in lacks(run, [], None))


def test_a_file_of_prices_without_the_gpu_is_named(tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("version: 1\ngpus: {l4: 0.5}\n")
    made_on = deployed(HardwareSection(gpu="h100-sxm", prices=str(prices)), Told())
    run = Assessed(RUN, Window(at(0), at(301)), [], [], made_on)
    assert [each for each in lacks(run, [], None) if "prices.yaml has no price of h100-sxm" in each]
    said = bench("check", "--target", "sim", "--prices", str(prices))
    assert "note  price" in said.out


@pytest.mark.parametrize("key", ["bandwidth_gb_s", "memory_gb"])
def test_a_device_that_cannot_be_is_refused(tmp_path: Path, key: str) -> None:
    entry = {"title": '"x"', "bandwidth_gb_s": 1000, "memory_gb": 24, "source": '"s"', "retrieved": '"r"'} | {
        key: 1e300
    }
    lines = ["[gpus.own]", *(f"{name} = {value}" for name, value in entry.items())]
    file = tmp_path / "own.toml"
    file.write_text("\n".join([*lines, "[gpus.own.peaks.bf16]", "dense_tflops = 100"]))
    with pytest.raises(BadInput, match=rf"own.toml:\d: gpus.own.{key}: must be at most"):
        known_gpu("own", (file,))


# -- `hardware:` of a plan


PLAN = """\
version: 1
engines:
  - target: vllm
    url: http://127.0.0.1:9
    hardware:
      {}
workloads: [chat]
"""


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("gpu_sample: 1ms", "plan.yaml:6: engines[0].hardware.gpu_sample: is too often"),
        ("gpu_metrics: http://me:secret@h:1", "plan.yaml:6: engines[0].hardware.gpu_metrics: the address holds"),
        ("gpu_price: 1e300", "plan.yaml:6: engines[0].hardware.gpu_price: must be at most"),
        ("gpu_index: ','", "plan.yaml:6: engines[0].hardware.gpu_index: names no GPU"),
        ("gpu: ''", "plan.yaml:6: engines[0].hardware.gpu: needs some text"),
        ("gpu: h1000", "plan.yaml:5: engines[0].hardware: --gpu: there is no GPU 'h1000'"),
        ("prices: nowhere.yaml", "plan.yaml:5: engines[0].hardware:"),
        ("gpu_file: nowhere.toml", "plan.yaml:5: engines[0].hardware:"),
        ("dtype: fp7", "plan.yaml:5: engines[0].hardware: --dtype: fp7"),
    ],
)
def test_a_plan_is_refused_before_its_first_engine_is_started(
    line: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plan.yaml").write_text(PLAN.format(line))
    found = bench("matrix", "plan.yaml", "--out", "out")
    assert found.code == 2
    assert said in found.err
    assert "secret" not in found.err
    assert not Path("out").exists()


def test_indices_of_a_plan_are_written_as_after_the_flag(tmp_path: Path) -> None:
    plan = parse_plan(PLAN.format("gpu_index: 0, GPU-ab"), "plan.yaml", tmp_path)
    assert plan.spec.engines[0].hardware.gpu_index == ("0", "GPU-ab")


# -- runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults") / "run"
    said = bench("run", *BRIEF, *FAST, "--gpus", "2", "--gpu-price", "2", "--out", str(folder))
    assert said.code in (0, 4), said.err
    return folder


def test_no_run_is_lost_for_its_hardwares_arithmetic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> dict[str, Any]:
        raise ZeroDivisionError("float division by zero")

    monkeypatch.setattr("servemark.results.hardware.hardware_part", broken)
    said = bench("run", *BRIEF, *FAST, "--out", str(tmp_path / "run"))
    assert said.code in (0, 4), said.err
    hardware = run_json(tmp_path / "run")["hardware"]
    assert hardware["deployment"]["gpu"] == "h100-sxm"
    assert "float division by zero" in hardware["lacks"][0]
    assert (tmp_path / "run" / "report.html").exists()


def shown(folder: Path, *flags: str) -> dict[str, Any]:
    said = bench("show", str(folder), *flags, "--json")
    assert said.code == 0, said.err
    found: dict[str, Any] = json.loads(said.out)["hardware"]
    return found


def test_what_is_said_anew_goes_over_what_stood_against_it(folder: Path, tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("version: 1\ngpus: {h100-sxm: 7.5}\n")
    assert shown(folder, "--prices", str(prices))["cost"]["usd_per_gpu_hour"] == 7.5
    assert shown(folder, "--tp", "4")["deployment"]["gpus"] == 4


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("metrics", "tpot"), "<script>"),
        (("metrics", "ttft_sent"), [1, 2]),
        (("hardware", "telemetry", "gpus"), {"a": 1}),
        (("hardware", "telemetry"), [None]),
        (("hardware", "deployment"), 10**30),
        (("verdict", "checks"), [None, 3]),
        (("clock", "window_ns"), [0, 10**30]),
        (("target", "settings"), ["x"]),
    ],
)
def test_a_run_with_anything_in_it_is_shown_or_refused(
    folder: Path, tmp_path: Path, path: tuple[str, ...], value: Any
) -> None:
    shutil.copytree(folder, tmp_path / "run")
    run = run_json(folder)
    place = run
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (tmp_path / "run" / "run.json").write_text(json.dumps(run))
    said = bench("show", str(tmp_path / "run"), "--gpu", "h200", "--gpu-price", "3")
    assert said.code in (0, 2)
    assert said.err.count("\n") == (1 if said.code else 0)


def test_points_that_were_priced_before_do_not_stand_beside_another_price(tmp_path: Path) -> None:
    root = tmp_path / "sweep"
    words = ("--target", "sim", *FAST, "--requests", "6", "--warmup", "0", "--cool-down", "0s", "--quiet")
    words = ("sweep", *words, "--over", "concurrency=2", "--out", str(root), "--gpu-price")
    first = bench(*words, "2", "--json")
    assert first.code in (0, 4), first.err
    assert bench(*words, "2", "--json").code == first.code
    again = bench(*words, "20")
    assert (again.code, again.err.count("\n")) == (2, 1)
    assert "--out" in again.err


# -- runs that hardly are one


def part_of(records: Frame, samples: list[ServerSample], window: Window) -> dict[str, Any]:
    return hardware_part(records, window, samples, [], {}, Deployed(gpu=gpu(), model=SMALL))


def test_answers_that_a_proxy_hands_over_in_heaps_have_no_time_of_a_step() -> None:
    """All requests overlap with prompts, so that only gaps could tell a step's time, and most of them are 0."""
    stamps = tuple(45.0 + 300 * (each // 20) for each in range(60))
    heaps = frame(*(answer(i, 40 * i, stamps, prompt_tokens=10) for i in range(45)))
    samples = [ServerSample(at(0), {"iterations": 0.0}), ServerSample(at(1700), {"iterations": 5000.0})]
    found = part_of(heaps, samples, Window(at(0), at(1700)))
    assert "No gaps between the chunks" in found["efficiency"]["per_phase"]["decode"]


def test_preemptions_of_others_in_a_window_without_tokens_are_no_fault() -> None:
    nothing = frame(*(answer(i, 0, (), prompt_tokens=0, output_tokens=0) for i in range(3)))
    samples = [ServerSample(at(0), {"preemptions": 1.0}), ServerSample(at(1000), {"preemptions": 9.0})]
    found = part_of(nothing, samples, Window(at(0), at(1000)))
    assert not any("preemptions" in each for each in found["efficiency"]["gap"])

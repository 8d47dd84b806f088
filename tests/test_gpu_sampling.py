"""The sampler is a process of its own: it starts, tells, ends, and whatever befalls it costs samples, never the run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from servemark.harness.clock import SECOND, now_ns
from servemark.harness.errors import ResultUnusable
from servemark.harness.gpu import local
from servemark.harness.gpu.fields import GPU_FIELDS
from servemark.harness.gpu.library import NO_LIBRARY
from servemark.harness.gpu.local import LocalWatch
from servemark.harness.gpu.watch import LEAST_PERIOD_S, local_watch
from servemark.harness.types import GpuSample
from servemark.results import schema
from servemark.results.recover import load
from servemark.results.store import RunStore
from tests.commands import alive, wait_until
from tests.fake_nvml import DRIVER_NOT_LOADED, Case, FakeGpu, environment

TWO = Case((FakeGpu(uuid="GPU-a"), FakeGpu(uuid="GPU-b", gpm="absent")))
Begin = Callable[..., LocalWatch]


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Begin:
    """A watch over a fake library; its samples go to the list that is given."""

    def made(case: Case, samples: list[GpuSample], period_s: float = 0.1, chosen: tuple[str, ...] = ()) -> LocalWatch:
        for name, value in environment(tmp_path / "fake", case).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(local, "library_there", lambda: True)
        return LocalWatch(period_s, chosen, samples.append)

    return made


async def for_seconds(watch: LocalWatch, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(watch.run(), seconds)


def process_of(watch: LocalWatch) -> subprocess.Popen[bytes]:
    assert watch._process is not None
    return watch._process


async def test_samples_come_from_begin_to_end_in_order_and_on_our_clock(watch: Begin) -> None:
    samples: list[GpuSample] = []
    watched = watch(TWO, samples)
    before_ns = now_ns()
    watched.begin()
    assert {sample.gpu for sample in samples} == {"GPU-a", "GPU-b"}  # there is a reading before the load
    await for_seconds(watched, 1.0)
    in_the_run = len(samples)
    watched.end()
    assert in_the_run >= 14  # 20 are due; the machine may be busy
    assert len(samples) > in_the_run
    assert [sample.at_ns for sample in samples] == sorted(sample.at_ns for sample in samples)
    assert before_ns < samples[0].at_ns < samples[-1].at_ns < now_ns()
    assert {name for sample in samples for name in sample.values} == set(GPU_FIELDS)
    told = watched.facts()
    assert told["samples"] == len(samples)
    assert [gpu["gpm"] for gpu in told["gpus"]] == [True, False]
    assert told["notes"] == []
    assert 0 < told["cpu_s"] < 2
    assert process_of(watched).returncode == 0


async def test_the_sampler_is_less_urgent_than_the_load(watch: Begin) -> None:
    watched = watch(TWO, [])
    watched.begin()
    try:
        assert os.getpriority(os.PRIO_PROCESS, process_of(watched).pid) > os.getpriority(os.PRIO_PROCESS, 0)
    finally:
        watched.end()


async def test_a_sampler_that_dies_is_noted_and_the_run_goes_on(watch: Begin) -> None:
    samples: list[GpuSample] = []
    watched = watch(Case(TWO.gpus, die_after=8), samples)
    watched.begin()
    await for_seconds(watched, 1.0)
    watched.end()
    assert samples
    (note,) = watched.facts()["notes"]
    assert note.startswith("the GPU sampler failed ")
    assert note.endswith(" s after its start (exit code 7)")


async def test_a_sampler_that_is_killed_is_noted(watch: Begin) -> None:
    watched = watch(TWO, [])
    watched.begin()
    process_of(watched).kill()
    await for_seconds(watched, 0.3)
    watched.end()
    assert "(by signal 9)" in watched.facts()["notes"][0]


async def test_a_sampler_that_hangs_is_killed_and_holds_nobody_up(
    watch: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_SILENT_S", 0.2)
    samples: list[GpuSample] = []
    watched = watch(Case(TWO.gpus, hang_after=6), samples, 0.1)
    watched.begin()
    await for_seconds(watched, 1.5)
    before = time.monotonic()
    watched.end()
    assert time.monotonic() - before < local.END_WITHIN_S + 1
    (note,) = watched.facts()["notes"]
    assert "did not end within 2 s and was killed: it had told nothing for" in note
    assert process_of(watched).returncode == -signal.SIGKILL
    assert samples


def test_a_driver_that_is_slow_to_come_up_is_not_waited_for(watch: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "FIRST_WITHIN_S", 0.5)
    watched = watch(Case(TWO.gpus, hang_after=0), [])
    before = time.monotonic()
    watched.begin()
    assert time.monotonic() - before < 1.5
    watched.end()
    assert "no GPU had been read 0.5 s after the sampler's start: the load began" in watched.facts()["notes"]


async def test_all_gpus_lost_end_the_sampler_without_a_failure(watch: Begin) -> None:
    samples: list[GpuSample] = []
    watched = watch(Case((FakeGpu(lost_after=4),)), samples)
    watched.begin()
    await for_seconds(watched, 1.0)
    watched.end()
    told = watched.facts()
    assert [note.split(" was lost ")[0] for note in told["notes"]] == ["GPU 0"]
    assert told["gpus"][0]["lost"]["at_ns"] > samples[-1].at_ns
    assert process_of(watched).returncode == 0


def test_no_driver_is_a_sentence_and_begin_does_not_wait(watch: Begin) -> None:
    watched = watch(Case(init=DRIVER_NOT_LOADED), [])
    before = time.monotonic()
    watched.begin()
    assert time.monotonic() - before < local.FIRST_WITHIN_S / 2  # it ends by itself
    watched.end()
    told = watched.facts()
    assert told["notes"] == ["the NVIDIA driver is not loaded, so no GPU was read"]
    assert (told["samples"], told["gpus"]) == (0, [])


async def test_without_the_library_no_process_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "library_there", lambda: False)
    watched = LocalWatch(0.2, (), lambda sample: None)
    watched.begin()
    assert watched._process is None
    await for_seconds(watched, 0.01)
    watched.end()
    assert watched.facts()["notes"] == [NO_LIBRARY]


def test_end_without_begin_and_twice_is_nothing(watch: Begin) -> None:
    LocalWatch(0.2, (), lambda sample: None).end()
    watched = watch(TWO, [])
    watched.begin()
    watched.end()
    told = watched.facts()
    watched.end()
    assert watched.facts() == told


async def test_what_taking_a_sample_raises_ends_the_run_as_a_full_disk_does(watch: Begin) -> None:
    samples: list[GpuSample] = []
    watched = watch(TWO, samples)
    watched.begin()

    def full(sample: GpuSample) -> None:
        raise ResultUnusable("the disk is full")

    watched._on_sample = full
    try:
        with pytest.raises(ResultUnusable, match="the disk is full"):
            await asyncio.wait_for(watched.run(), 5)
    finally:
        watched._on_sample = samples.append
        watched.end()


def test_too_short_a_period_is_refused() -> None:
    with pytest.raises(ValueError, match=r"every 0\.1 s at most often, not every 0\.05 s"):
        local_watch(LEAST_PERIOD_S / 2, (), lambda sample: None)


@pytest.mark.parametrize(
    "line", [b"NVML: warning", b"[]", b'{"samples": 3}', b'{"samples": [[1]]}', b"\xff", b"7", b""]
)
def test_a_line_that_is_none_of_ours_is_left_out(line: bytes) -> None:
    samples: list[GpuSample] = []
    watched = LocalWatch(0.2, (), samples.append)
    watched._take(line)
    assert samples == []
    assert watched.facts()["samples"] == 0


def test_the_sampler_ends_when_its_run_is_killed(tmp_path: Path) -> None:
    """Nobody closes anything then: the kernel does."""
    code = (
        "import time, sys\n"
        "from servemark.harness.gpu import local\n"
        "local.library_there = lambda: True\n"
        "watch = local.LocalWatch(0.1, (), lambda sample: None)\n"
        "watch.begin()\n"
        "print(watch._process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    for case in (TWO, Case(TWO.gpus, hang_after=4)):  # also one that hangs in the driver
        parent = subprocess.Popen(
            [sys.executable, "-P", "-c", code], env=environment(tmp_path / "fake", case), stdout=subprocess.PIPE
        )
        assert parent.stdout is not None
        sampler = int(parent.stdout.readline())
        time.sleep(0.5)
        assert alive(sampler)
        parent.kill()
        parent.wait()
        parent.stdout.close()
        wait_until(lambda pid=sampler: not alive(pid), "the sampler had ended")


def test_it_leaves_ctrl_c_to_the_run(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "servemark.harness.gpu.sampling", '{"period_s": 0.1, "chosen": ["1"]}']
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment(tmp_path, TWO), **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert "facts" in json.loads(process.stdout.readline())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process.send_signal(number)
        told = json.loads(process.stdout.readline())
        process.stdin.close()
        rest = [json.loads(line) for line in process.stdout.read().splitlines()]
    assert [gpu for _, gpu, _ in told["samples"]] == ["GPU-b"]
    assert rest[-1]["facts"]["samples"] >= 2
    assert process.returncode == 0


# What a run keeps of it

READINGS = [
    GpuSample(1_000, "GPU-a", {"power": 600.5, "energy": 1e6, "throttle": 4.0}),
    GpuSample(1_010, "GPU-b", {"power": 590.0}),
    GpuSample(2_000, "GPU-a", {"power": 610.0, "dram_active": 0.5}),
]


def stored(folder: Path) -> RunStore:
    folder.mkdir()
    run = RunStore(folder, {"id": "r1"})
    for sample in READINGS:
        run.gpu_sample(sample)
    return run


@pytest.mark.parametrize("closed", [True, False])
def test_readings_come_back_from_parquet_and_from_the_journal(tmp_path: Path, closed: bool) -> None:
    run = stored(tmp_path / "r")
    assert run.gpu_samples() == READINGS
    if closed:
        run.close({"verdict": {}})
    else:
        run.abandon()  # as a kill leaves it
    saved = load(tmp_path / "r")
    assert saved.finished == closed
    assert saved.gpu_samples() == READINGS
    assert (tmp_path / "r" / schema.GPU).exists() == closed
    assert (tmp_path / "r" / schema.GPU_JOURNAL).exists() != closed


def test_columns_are_float_and_in_the_order_of_the_fields(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    stored(tmp_path / "r").close({"verdict": {}})
    table = pq.read_table(tmp_path / "r" / schema.GPU)
    assert table.column_names == ["at_ns", "gpu", "power", "energy", "throttle", "dram_active"]
    assert [str(kind) for kind in table.schema.types] == ["int64", "string", *["double"] * 4]
    assert table.column("dram_active").to_pylist() == [None, None, 0.5]
    assert table.schema.metadata[b"servemark.run_id"] == b"r1"


def test_a_run_without_gpus_has_no_such_file(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    RunStore(tmp_path / "r", {"id": "r1"}).close({"verdict": {}})
    assert not (tmp_path / "r" / schema.GPU).exists()
    assert load(tmp_path / "r").gpu_samples() == []


def test_a_file_of_somebody_elses_is_a_sentence(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    stored(tmp_path / "r").close({"verdict": {}})
    for columns in ({"at_ns": [1]}, {"at_ns": ["x"], "gpu": ["a"]}, {"at_ns": [1], "gpu": ["a"], "power": ["much"]}):
        pq.write_table(pa.table(columns), tmp_path / "r" / schema.GPU)
        with pytest.raises(ResultUnusable, match=r"gpu\.parquet: holds a row that is no reading"):
            load(tmp_path / "r").gpu_samples()


def test_what_is_redacted_is_redacted_here_too(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    run = RunStore(tmp_path / "r", {"id": "r1"}, redact=["sk-secret-123"])
    run.gpu_sample(GpuSample(1, "sk-secret-123", {"power": 1.0}))
    assert run.gpu_samples()[0].gpu == "[redacted]"
    run.abandon()


def test_stamps_are_of_this_boot(tmp_path: Path) -> None:
    """A sample's clock is the one that stamps requests, or nothing could be laid beside them."""
    from servemark.harness.gpu.nvml import Reader
    from tests.fake_nvml import installed

    with installed(TWO):
        (sample, _) = Reader(0.2).read()
    assert abs(sample.at_ns - time.monotonic_ns()) < SECOND

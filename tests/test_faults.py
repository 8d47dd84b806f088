"""Whatever happens to a run, its finished records are kept, it ends in bounded time, and nobody sees a traceback."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from servemark.adapters.sim import SimAdapter
from servemark.adapters.sim.faults import KINDS
from servemark.adapters.sim.launch import LocalServer, launch
from servemark.adapters.sim.options import SimOptions
from servemark.harness.errors import BadInput
from servemark.harness.load import fleet
from servemark.harness.measure import Run
from servemark.harness.types import HttpRequest, Options, Request
from servemark.results.recover import load
from tests.commands import (
    PATIENCE_S,
    TOLERANT,
    Process,
    Said,
    alive,
    bench,
    check,
    journal,
    run_json,
    started,
    told,
    wait_until,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

LONG = ("--duration", "300s", "--warmup", "0s", "--quiet")  # far longer than any test waits
SHORT_REQUESTS = ("--concurrency", "4", "--input-tokens", "64", "--output-tokens", "16")
ENDLESS_REQUESTS = ("--concurrency", "4", "--input-tokens", "64", "--output-tokens", "3000")


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with launch(SimOptions()) as one:
        yield one


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


def against(server: LocalServer, folder: Path, *words: str) -> tuple[str, ...]:
    return ("run", "--target", "sim", "--url", server.url, "--out", str(folder), *words)


def sentence(said: Said) -> str:
    """What a user is told: one line of ours."""
    assert "Traceback" not in said.err
    lines = [line for line in said.err.splitlines() if line.startswith("bench: ")]
    assert len(lines) == 1, said.err
    return lines[0]


def errors(run: dict[str, Any]) -> dict[str, int]:
    """Kinds of error of the measured requests."""
    return dict(run["metrics"]["error_rate"]["kinds"])


def has_records(folder: Path, count: int = 4) -> bool:
    return len(journal(folder)) >= count


def running(server: LocalServer) -> float:
    return told(server.url, "running")


# --- stopped by hand


def test_one_interrupt_lets_requests_finish_and_writes_everything(server: LocalServer, folder: Path) -> None:
    with started(*against(server, folder, *LONG, *SHORT_REQUESTS)) as process:
        wait_until(lambda: has_records(folder), "requests have ended")
        process.signal(signal.SIGINT)
        said = process.end()
    assert said.code == 4
    assert "Traceback" not in said.err
    run = run_json(folder)
    assert check(run, "interrupted") == "invalid"
    assert check(run, "drain") == "pass"
    assert run["worker"]["stop_reason"] == "interrupted"
    assert run["summary"]["requests"] >= 4
    assert not errors(run)
    assert (folder / "report.html").exists()
    assert not (folder / "records.jsonl").exists()


def test_a_second_interrupt_waits_for_nobody(server: LocalServer, folder: Path) -> None:
    with started(*against(server, folder, *LONG, *ENDLESS_REQUESTS)) as process:
        wait_until(lambda: running(server) >= 4, "requests are in flight")
        process.signal(signal.SIGINT)
        time.sleep(0.3)
        process.signal(signal.SIGINT)
        second_ns = time.monotonic_ns()
        said = process.end()
    assert said.code == 4
    records = list(load(folder).records())
    assert [record.error for record in records] == ["abandoned"] * 4
    assert all(record.done_ns is not None and record.done_ns - second_ns < 4e9 for record in records)
    assert check(run_json(folder), "interrupted") == "invalid"


def test_other_stops_are_interrupts_even_when_they_reach_every_process(server: LocalServer, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        runs = [
            (number, folder, stack.enter_context(started(*against(server, folder, *LONG, *SHORT_REQUESTS))))
            for number in (signal.SIGTERM, signal.SIGHUP)
            for folder in [tmp_path / number.name]
        ]
        for number, folder, process in runs:
            wait_until(lambda folder=folder: has_records(folder), "requests have ended")  # type: ignore[misc]
            process.signal_group(number)
        for _, folder, process in runs:
            assert process.end().code == 4
            assert check(run_json(folder), "interrupted") == "invalid"
            assert check(run_json(folder), "generator_lost") == "pass"


def test_an_interrupt_before_the_load_leaves_nothing_behind(folder: Path) -> None:
    waiting = ("run", "--target", "vllm", "--url", "http://127.0.0.1:9", "--wait", "300s", "--out", str(folder))
    with started(*waiting) as process:
        wait_until(lambda: handles_signals(process), "the command has begun")
        process.signal(signal.SIGTERM)
        said = process.end()
    assert said.code == 2
    assert sentence(said) == "bench: interrupted; nothing was measured"
    assert not folder.exists()


def handles_signals(process: Process) -> bool:
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("step", ["_judged", "_written"])
def test_an_interrupt_while_the_result_is_written_says_what_is_left(
    server: LocalServer, folder: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(Run, step, interrupted)
    said = bench(*against(server, folder, *SHORT_REQUESTS, "--requests", "8", "--warmup", "0", "--quiet"))
    assert said.code == 2
    assert f"the 8 requests that had ended are there, read them with `bench show {folder}`" in sentence(said)
    assert len(list(load(folder).records())) == 8


def test_an_interrupt_just_before_the_load_says_that_there_is_nothing(
    server: LocalServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "_driven", interrupted)
    said = bench(*against(server, folder, *SHORT_REQUESTS))
    assert said.code == 2
    assert sentence(said) == "bench: interrupted; nothing was measured"


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


# --- killed


def test_kill_9_loses_at_most_the_last_second_and_leaves_no_process(folder: Path) -> None:
    with started("run", "--target", "sim", "--out", str(folder), *LONG, *SHORT_REQUESTS) as process:
        wait_until(lambda: spans_ns(folder) > 2.5e9, "requests have ended for some seconds")
        children = process.children()
        process.signal(signal.SIGKILL)
        killed_ns = time.monotonic_ns()
        process.end()
    assert set(children) == {"worker", "sim"}
    for name, pid in children.items():
        wait_until(lambda pid=pid: not alive(pid), f"the {name} has ended")  # type: ignore[misc]
    said = bench("show", str(folder))
    assert said.code == 0
    assert "INVALID" in said.out
    assert "killed before its end" in said.out
    newest_ns = max(record.done_ns or 0 for record in load(folder).records())
    assert killed_ns - newest_ns < 2e9  # a second, and as much again for a busy machine
    assert bench("report", str(folder)).code == 0


def spans_ns(folder: Path) -> int:
    done = [record["done_ns"] for record in journal(folder)]
    return max(done) - min(done) if done else 0


def test_a_run_whose_generator_is_killed_is_invalid_and_keeps_its_records(server: LocalServer, folder: Path) -> None:
    with started(*against(server, folder, *LONG, *SHORT_REQUESTS)) as process:
        wait_until(lambda: has_records(folder), "requests have ended")
        os.kill(process.children()["worker"], signal.SIGKILL)
        said = process.end()
    assert said.code == 4
    assert "Traceback" not in said.err
    run = run_json(folder)
    assert check(run, "generator_lost") == "invalid"
    assert run["summary"]["requests"] >= 4
    assert len(list(load(folder).records())) == run["summary"]["requests"]


def test_a_server_that_dies_ends_the_run_soon(tmp_path: Path) -> None:
    loads = {"closed": SHORT_REQUESTS, "open": ("--rate", "20", "--input-tokens", "64", "--output-tokens", "16")}
    with contextlib.ExitStack() as stack:
        doomed = stack.enter_context(launch(SimOptions()))
        runs = {
            tmp_path / name: stack.enter_context(started(*against(doomed, tmp_path / name, *LONG, *words)))
            for name, words in loads.items()
        }
        wait_until(lambda: all(has_records(folder) for folder in runs), "requests have ended")
        doomed.process.kill()
        said = {folder: process.end() for folder, process in runs.items()}
    for folder in runs:
        assert said[folder].code == 4
        assert "Traceback" not in said[folder].err
        run = run_json(folder)
        assert check(run, "server_lost") == "invalid"
        assert run["worker"]["stop_reason"] == "server_lost"
        assert errors(run)["connect"] >= 20
        assert run["summary"]["requests_ok"] >= 4


# --- the disk and the readers

SMALL_FILES = (
    sys.executable,
    "-P",
    "-c",
    "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (32768, 32768));"
    "from servemark.harness.cli import main; main()",
)


def test_a_disk_that_takes_no_more_ends_the_run_with_a_sentence(server: LocalServer, folder: Path) -> None:
    with started(*against(server, folder, *LONG, *SHORT_REQUESTS), program=SMALL_FILES) as process:
        said = process.end()
    assert said.code == 2
    assert f"{folder}: the run could not be written" in sentence(said)
    assert not (folder / "run.json").exists()
    kept = list(load(folder).records())
    assert len(kept) >= 4
    assert bench("show", str(folder)).code == 0


def test_readers_that_have_gone_change_neither_the_run_nor_its_code(server: LocalServer, folder: Path) -> None:
    few = ("--requests", "8", "--warmup", "0", "--slo", "ttft=1us", "--gate", *TOLERANT)
    with started(*against(server, folder, *SHORT_REQUESTS, *few)) as process:
        process.close("stdout")
        process.close("stderr")
        assert process.end().code == 1
    assert run_json(folder)["slo"]["met"] is False


@pytest.mark.parametrize("words", [("list",), ("schema",)])
def test_a_list_that_nobody_reads_to_its_end_is_no_error(words: tuple[str, ...]) -> None:
    with started(*words) as process:
        process.close("stdout")
        assert process.end() == Said(0, "", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_a_sentence() -> None:
    with open("/dev/full", "w") as full, started("list", stdout=full.fileno()) as process:
        said = process.end()
    assert said.code == 2
    assert "standard output cannot be written" in sentence(said)


# --- failing requests


def test_every_fault_of_a_server_is_a_record_with_its_kind(folder: Path) -> None:
    kinds = [kind for kind in KINDS if kind != "stall"]
    with launch(SimOptions(fault=",".join(f"{kind}:0.1" for kind in kinds), speed=20)) as faulty:
        said = bench(*against(faulty, folder, *SHORT_REQUESTS, "--requests", "150", "--warmup", "0", "--quiet"))
    assert said.code == 4
    assert said.err == ""
    run = run_json(folder)
    assert check(run, "error_share") == "invalid"
    found = errors(run)
    assert set(found) == {"http_status", "reset", "incomplete", "server_error", "empty", "protocol"}
    assert sum(found.values()) + run["summary"]["requests_ok"] == 150


def test_a_silent_stream_meets_the_gap_timeout(tmp_path: Path, folder: Path) -> None:
    workload = tmp_path / "w.yaml"
    workload.write_text(
        "version: 1\n"
        "prompts: {source: synthetic, input_tokens: 64, output_tokens: 16}\n"
        "load: {concurrency: 2}\n"
        "run: {requests: 4, warmup: 0}\n"
        "request: {timeouts: {gap: 300ms}}\n"
    )
    with launch(SimOptions(fault="stall:1", stall_s=60)) as silent:
        said = bench(*against(silent, folder, "--workload", str(workload), "--quiet"))
    assert said.code == 4
    assert errors(run_json(folder)) == {"timeout_gap": 4}


def test_a_server_that_refuses_all_is_data(folder: Path) -> None:
    with launch(SimOptions(fault="http503:1")) as refusing:
        said = bench(*against(refusing, folder, *SHORT_REQUESTS, "--requests", "40", "--warmup", "0", "--quiet"))
    assert said.code == 4
    run = run_json(folder)
    assert errors(run) == {"http_status": 40}
    assert check(run, "no_success") == "invalid"


# --- a request that cannot be written


class Failing(SimAdapter):
    def __init__(self, error: Exception, at: int) -> None:
        self.error, self.at = error, at

    def encode(self, request: Request, options: Options) -> HttpRequest:
        if request.index >= self.at:
            raise self.error
        return super().encode(request, options)


@pytest.mark.parametrize("error", [BadInput("request.extra_body: no such field"), ValueError("no such field")])
def test_a_request_that_cannot_be_encoded_ends_the_run_with_a_sentence(
    server: LocalServer, folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr("servemark.harness.prepare.load_adapter", lambda name: Failing(error, 24))
    monkeypatch.setattr(fleet, "JOBS_AHEAD", 4)
    said = bench(*against(server, folder, *LONG, *SHORT_REQUESTS))
    assert said.code == 2
    assert "no such field" in sentence(said)
    assert not (folder / "run.json").exists()
    assert 4 <= len(list(load(folder).records())) <= 24


assert PATIENCE_S < 300  # else a test that waits for the end of a long run would pass

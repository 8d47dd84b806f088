"""A whole load as one batch: the engine's stamps become records, and what it never answered has failed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from answering import Asked, answering
from commands import Said, bench, run_json

from servemark.adapters import vllm_offline
from servemark.adapters.vllm_offline import ADAPTER, interpreter
from servemark.harness.clock import MS, now_ns
from servemark.harness.errors import TargetUnusable
from servemark.harness.types import Options, Request
from servemark.results.recover import load

STEP_NS = 2 * MS
FLAGS = ("--workload", "batch", "--rate", "inf", "--requests", "20", "--output-tokens", "5", "--input-tokens", "30")
Lines = list[Mapping[str, Any]]


def answer(asked: Asked, change: Callable[[Lines], Lines]) -> tuple[int, bytes]:
    """As the engine would: request i waits for i steps, then has a token a step."""
    requests = [json.loads(line) for line in asked.body.splitlines()]
    started_ns = now_ns()
    lines: Lines = [{"started_ns": started_ns}]
    for place, request in enumerate(requests):
        first_ns = started_ns + (1 + place) * STEP_NS
        lines.append(
            {
                "index": request["index"],
                "queued_ns": started_ns,
                "first_ns": first_ns,
                "last_ns": first_ns + (request["max_tokens"] - 1) * STEP_NS,
                "prompt_tokens": 30,
                "output_tokens": request["max_tokens"],
                "cached_tokens": 0,
                "finish_reason": "length",
            }
        )
    lines = change([*lines, {"ended_ns": started_ns + 30 * STEP_NS}])
    return 200, b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def engine(change: Callable[[Lines], Lines] = lambda lines: lines) -> Callable[[Asked], tuple[int, bytes]]:
    def answers(asked: Asked) -> tuple[int, bytes]:
        if asked.path == "/health":
            return 200, b""
        if asked.path == "/version":
            return 200, b'{"version":"0.32.0"}'
        if asked.path == "/v1/models":
            return 200, b'{"data":[{"id":"tiny","owned_by":"vllm-offline","max_model_len":4096}]}'
        return answer(asked, change) if asked.path == "/batch" else (404, b"{}")

    return answers


def run(url: str, *flags: str) -> Said:
    return bench("run", "--target", "vllm-offline", "--url", url, "--out", "r", "--quiet", *FLAGS, *flags)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "line",
    [{}, {"index": "0"}, {"index": 0, "first_ns": 2**70}, {"nothing": 1}, [], {"started_ns": None}, {"index": 0}],
)
def test_lines_that_are_no_answers_end_the_batch_and_not_the_command(line: Any) -> None:
    with answering(engine(lambda lines: [lines[0], line])) as url:
        said = run(url)
    assert said.code == 4, said.err
    assert "Traceback" not in said.err
    assert run_json(Path("r"))["summary"]["requests_ok"] == 0
    assert len(load(Path("r")).frame()) == 20


def test_the_engines_stamps_are_the_records() -> None:
    with answering(engine()) as url:
        said = run(url)
    found = run_json(Path("r"))
    assert found["summary"]["requests_ok"] == 20, said.err
    frame = load(Path("r")).frame()
    # Requests end in order of their first token, 2 ms apart, and have five tokens, 2 ms apart.
    assert frame.ms_between("intended_ns", "first_token_ns").tolist() == [2.0 * k for k in range(1, 21)]
    assert found["metrics"]["tpot"]["p50"] == 2.0
    assert found["metrics"]["output_tokens"]["p50"] == 5
    assert set(frame["stamp"].tolist()) == {"engine"}
    # 100 tokens; the last one is there after 20 + 4 steps.
    whole_s = found["metrics"]["output_tps_run"]["seconds"]
    assert whole_s == pytest.approx(24 * STEP_NS / 1e9, abs=1e-6)
    assert found["metrics"]["output_tps_run"]["value"] == pytest.approx(100 / whole_s)


def test_an_engine_that_dies_leaves_what_had_ended() -> None:
    with answering(engine(lambda lines: lines[:8])) as url:
        said = run(url)
    found = run_json(Path("r"))
    assert said.code == 4
    assert (found["summary"]["requests_ok"], found["summary"]["requests_failed"]) == (7, 13)


def test_one_refused_request_is_one_failure() -> None:
    def refuse(lines: Lines) -> Lines:
        return [{"index": line["index"], "error": "no room"} if line.get("index") == 3 else line for line in lines]

    with answering(engine(refuse)) as url:
        run(url)
    found = run_json(Path("r"))
    assert found["summary"]["failed_server_error"] == 1
    assert "no room" in load(Path("r")).frame()["error_detail"].tolist()


@pytest.mark.parametrize("flags", [("--rate", "4"), ("--concurrency", "8", "--rate", "3")])
def test_a_batch_has_no_pace(flags: tuple[str, ...]) -> None:
    said = bench("run", "--target", "vllm-offline", "--workload", "batch", "--requests", "20", *flags)
    assert said.code == 2
    assert "give --rate inf and --requests N" in said.err


def test_a_request_says_what_vllms_sampling_params_are_called() -> None:
    body = json.loads(ADAPTER.encode(Request(3, (5, 6), 2, 7), Options(endpoint="generate", top_p=0.5)).body)
    assert body == {
        "index": 3, "prompt_token_ids": [5, 6], "temperature": 0.0, "top_p": 0.5,
        "max_tokens": 7, "min_tokens": 7, "ignore_eos": True,
    }  # fmt: skip
    free = json.loads(ADAPTER.encode(Request(0, "x", 2, None), Options(endpoint="generate", temperature=None)).body)
    assert free == {"index": 0, "prompt": "x"}


def test_the_interpreter_is_the_one_of_the_vllm_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_offline, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TargetUnusable, match=r"servemark\[vllm\]"):
        interpreter()
    script = tmp_path / "vllm"
    script.write_text("#!/opt/vllm/bin/python3\nimport sys\n")
    script.chmod(0o755)
    assert interpreter() == "/opt/vllm/bin/python3"
    script.write_text("#!/usr/bin/env python3\nimport sys\n")
    assert interpreter() == "python3"
    monkeypatch.setattr(vllm_offline, "find_spec", lambda name: object())
    assert interpreter() == sys.executable

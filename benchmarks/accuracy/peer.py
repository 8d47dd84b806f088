"""The same cases by `vllm bench serve`, as a baseline: `python benchmarks/accuracy/peer.py VLLM TOKENIZER`.

VLLM is the executable of an installed vLLM, TOKENIZER a folder with any tokenizer of its format.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from run import CASES, CLIENT_CORE, SERVER_CORE, Case, build, percentile, truth_of

LOADS = (
    ("--num-prompts", "512", "--max-concurrency", "512"),
    ("--num-prompts", "2048", "--max-concurrency", "2048"),
    ("--num-prompts", "1500", "--request-rate", "50"),
)


def measure(case: Case, load: tuple[str, ...], vllm: str, tokenizer: str, binary: Path, folder: Path) -> str:
    log = folder / "server.csv"
    words = [binary, "0", f"{case.ttft_ms * 1000:.0f}", f"{case.itl_ms * 1000:.0f}", str(case.tokens), log]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        os.sched_setaffinity(server.pid, {SERVER_CORE})
        assert server.stdout is not None
        url = server.stdout.readline().split()[1]
        command = [vllm, "bench", "serve", "--backend", "openai-chat", "--endpoint", "/v1/chat/completions"]
        command += ["--base-url", url, "--model", "known", "--tokenizer", tokenizer, *load, "--seed", "0"]
        command += ["--dataset-name", "random", "--random-input-len", "16", "--random-output-len", str(case.tokens)]
        command += ["--save-result", "--save-detailed", "--result-dir", str(folder), "--result-filename", "peer.json"]
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
            preexec_fn=lambda: os.sched_setaffinity(0, {CLIENT_CORE}),
        )
        server.send_signal(signal.SIGTERM)
    found = json.loads((folder / "peer.json").read_text())
    truth = truth_of(log)
    true_ttft = np.array([stamps[1] - stamps[0] for stamps in truth.values()]) / 1e6
    true_itl = np.concatenate([np.diff(stamps[1:]) for stamps in truth.values()]) / 1e6
    ttft, itl = np.array(found["ttfts"]) * 1e3, np.concatenate(found["itls"]) * 1e3
    cells = [f"TTFT p{p} {percentile(ttft, p):.1f} (true {percentile(true_ttft, p):.1f})" for p in (50, 90, 99)]
    return (
        f"{case.name}: {', '.join(cells)}; ITL p99 {percentile(itl, 99):.1f} (true {percentile(true_itl, 99):.1f}) ms"
    )


def main() -> None:
    vllm, tokenizer = sys.argv[1:]
    with tempfile.TemporaryDirectory() as temporary:
        binary = build(Path(temporary))
        for case, load in zip(CASES, LOADS, strict=True):
            print(measure(case, load, vllm, tokenizer, binary, Path(temporary)))


if __name__ == "__main__":
    main()

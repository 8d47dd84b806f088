"""What does sampling GPUs cost the measurement? Pairs of runs, with the sampler and without; prints a Markdown table.

The server is accuracy/known_delay.c, which writes a token every 20 ms and logs when: what the client adds is told from
what the machine did to the server. The GPUs are the fake ones of tests/fake_nvml.py: eight, every 200 ms. All of
`bench run` takes part as a user has it: the sampler's process, its pipe into the coordinator, the journal. Needs Linux,
two cores and a C compiler.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from accuracy.run import CLIENT_CORE, SERVER_CORE, build, compare  # noqa: E402

from tests.fake_nvml import Case, FakeGpu, environment  # noqa: E402

GPUS, STREAMS, TOKENS, TTFT_MS, ITL_MS = 8, 64, 400, 50, 20
LABELS = {
    "itl_p50": "ITL p50, ms",
    "itl_p99": "ITL p99, ms",
    "itl_error": "ITL p99, how far from the server's own, ms",
    "ttft_error": "TTFT p90, how far from the server's own, ms",
    "worker_s": "CPU of the worker, s",
    "coordinator_s": "CPU of the coordinator while the load runs, s",
    "sampler_s": "CPU of the sampler, s",
    "samples": "readings",
}


def measure(binary: Path, folder: Path, env: dict[str, str], sampled: bool) -> dict[str, float]:
    """One run."""
    out = folder / "run"
    words = [binary, "0", str(TTFT_MS * 1000), str(ITL_MS * 1000), str(TOKENS), folder / "server.csv"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        os.sched_setaffinity(server.pid, {SERVER_CORE})
        assert server.stdout is not None
        url = server.stdout.readline().split()[1]
        command = [Path(sys.executable).with_name("bench"), "run", "--target", "vllm", "--url", url]
        command += ["--workload", HERE / "accuracy" / "load.yaml", "--output-tokens", str(TOKENS), "--warmup", "0"]
        command += ["--concurrency", str(STREAMS), "--requests", str(STREAMS), "--quiet", "--out", out]
        command += [] if sampled else ["--gpu-sample", "off"]  # every 200 ms is the default
        # The sampler shares the client's core: the hardest place for it.
        done = subprocess.run(
            command, env=env, preexec_fn=lambda: os.sched_setaffinity(0, {CLIENT_CORE}), stdout=subprocess.PIPE
        )
        server.send_signal(signal.SIGTERM)
    if done.returncode not in (0, 4):
        raise SystemExit(f"bench run ended with {done.returncode}")
    return figures(out, folder / "server.csv")


def figures(out: Path, log: Path) -> dict[str, float]:
    stamps = pq.read_table(out / "requests.parquet", columns=["chunk_ns"]).column("chunk_ns").to_pylist()
    gaps = np.concatenate([np.diff(each) for each in stamps]) / 1e6
    run = json.loads((out / "run.json").read_text())
    errors = compare(out, log)
    telemetry = run.get("hardware", {}).get("telemetry", {})
    return {
        "itl_p50": float(np.percentile(gaps, 50)),
        "itl_p99": float(np.percentile(gaps, 99)),
        "itl_error": errors["itl_p99"],
        "ttft_error": errors["ttft_p90"],
        "worker_s": run["worker"]["cpu_ns"] / 1e9,
        "coordinator_s": run["worker"]["coordinator_cpu_ns"] / 1e9,
        "sampler_s": telemetry.get("cpu_s") or 0.0,
        "samples": float(pq.read_metadata(out / "gpu.parquet").num_rows) if (out / "gpu.parquet").exists() else 0.0,
    }


def table(pairs: list[tuple[dict[str, float], dict[str, float]]]) -> str:
    """Medians over the pairs; the ratio is the median of the pairs' own ratios."""
    lines = ["| figure | without | with | with / without |", "|---|---|---|---|"]
    for name, label in LABELS.items():
        without, sampled = ([pair[side][name] for pair in pairs] for side in (0, 1))
        ratios = [b / a for a, b in zip(without, sampled, strict=True) if a]
        spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})" if ratios else ""
        lines.append(f"| {label} | {statistics.median(without):.4g} | {statistics.median(sampled):.4g} | {spread} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10)
    asked = parser.parse_args()
    pairs = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        binary = build(root)
        env = environment(root / "fake", Case(tuple(FakeGpu(uuid=f"GPU-{i:04d}") for i in range(GPUS))))
        for number in range(asked.pairs):
            found = {}
            for sampled in (number % 2 == 0, number % 2 == 1):  # what drifts hits both sides alike
                folder = root / f"{number}-{sampled}"
                folder.mkdir()
                found[sampled] = measure(binary, folder, env, sampled)
            if not found[True]["samples"] or found[False]["samples"]:
                raise SystemExit("the GPUs were not sampled as asked: the pair says nothing")
            pairs.append((found[False], found[True]))
            print(
                f"pair {number + 1}: ITL p99 {found[False]['itl_p99']:.3f} and {found[True]['itl_p99']:.3f} ms",
                file=sys.stderr,
            )
    print(table(pairs))


if __name__ == "__main__":
    main()

"""How far from the truth does `bench run` measure? Prints a Markdown table; `make benchmark` runs it.

The truth is known_delay.c, built here, which logs each arrival and each write. It runs on one core, the client (the
command as a user types it, with everything it starts) on another, so the machine needs two cores and a C compiler.
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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

HERE = Path(__file__).parent
CLIENT_CORE, SERVER_CORE = 0, 1


@dataclass(frozen=True)
class Case:
    """A load and what the server does with each request; `goals` are upper bounds by figure."""

    name: str
    flags: tuple[str, ...]
    tokens: int
    goals: dict[str, float]
    ttft_ms: float = 50
    itl_ms: float = 20


CASES = (
    Case(
        "512 streams at once",
        ("--concurrency", "512", "--requests", "512"),
        200,
        {"ttft_p50": 0.2, "ttft_p90": 1.0, "itl_p99": 0.5, "cpu_us": 20, "lost": 0},
    ),
    Case(
        "2,048 streams at once",
        ("--concurrency", "2048", "--requests", "2048"),
        200,
        {"ttft_p50": 0.5, "lost": 0},
    ),
    Case(
        "open loop, 50 requests/s",
        ("--rate", "50", "--requests", "1500"),
        20,
        {"ttft_p99": 0.5, "lag_p99": 0.5, "lost": 0},
    ),
)

LABELS = {
    "ttft_p50": "TTFT error p50, ms",
    "ttft_p90": "TTFT error p90, ms",
    "ttft_p99": "TTFT error p99, ms",
    "itl_p50": "ITL error p50, ms",
    "itl_p99": "ITL error p99, ms",
    "lag_p99": "sent - intended p99, ms",
    "cpu_us": "client CPU per token, us",
    "true_tps": "tokens/s",
    "lost": "tokens lost",
}


def build(folder: Path) -> Path:
    binary = folder / "known_delay"
    subprocess.run(["cc", "-O2", "-o", binary, HERE / "known_delay.c"], check=True)
    return binary


def measure(case: Case, binary: Path, folder: Path) -> dict[str, float]:
    """One run of one case: the absolute differences between what was reported and what was true."""
    log, out = folder / "server.csv", folder / "run"
    words = [binary, "0", f"{case.ttft_ms * 1000:.0f}", f"{case.itl_ms * 1000:.0f}", str(case.tokens), log]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        os.sched_setaffinity(server.pid, {SERVER_CORE})
        assert server.stdout is not None
        url = server.stdout.readline().split()[1]
        bench = Path(sys.executable).with_name("bench")
        command = [bench, "run", "--target", "vllm", "--url", url, "--workload", HERE / "load.yaml"]
        command += ["--output-tokens", str(case.tokens), *case.flags, "--warmup", "0", "--quiet", "--out", out]
        # Exit code 4 is a verdict on the run (the last streams of a burst end together, say), not a failed benchmark.
        done = subprocess.run(
            command, preexec_fn=lambda: os.sched_setaffinity(0, {CLIENT_CORE}), stdout=subprocess.PIPE
        )
        server.send_signal(signal.SIGTERM)
    if done.returncode not in (0, 4):
        raise SystemExit(f"{case.name}: bench run ended with {done.returncode}")
    return compare(out, log)


def truth_of(log: Path) -> dict[int, np.ndarray]:
    """Arrival and writes of each request, ns, by the number at the end of its X-Request-Id."""
    lines = (line.split(",") for line in log.read_text().splitlines())
    return {int(name.rsplit("-", 1)[1]): np.array(stamps, dtype=np.int64) for name, *stamps in lines}


def compare(out: Path, log: Path) -> dict[str, float]:
    rows = pq.read_table(out / "requests.parquet").to_pylist()
    truth = truth_of(log)
    written = sum(len(stamps) - 1 for stamps in truth.values())
    seen = sum(sum(row["chunk_tokens"]) for row in rows)
    # The client's own TTFT (from sending) against the server's (from the arrival of the request): pair by pair.
    pairs = [(row, truth[row["request_id"]]) for row in rows if row["error"] is None]
    ttft = [(row["first_token_ns"] - row["sent_ns"]) - (true[1] - true[0]) for row, true in pairs]
    lag = [row["sent_ns"] - row["intended_ns"] for row, _ in pairs]
    itl = np.concatenate([gaps(row) for row, _ in pairs])
    true_itl = np.concatenate([np.diff(true[1:]) for _, true in pairs])
    worker = json.loads((out / "run.json").read_text())["worker"]
    starts, ends = min(true[1] for _, true in pairs), max(true[-1] for _, true in pairs)
    return {
        **{f"ttft_p{p}": percentile(np.abs(ttft), p) / 1e6 for p in (50, 90, 99)},
        # Gaps have no partner when a read held several tokens: their distributions are compared.
        **{f"itl_p{p}": abs(percentile(itl, p) - percentile(true_itl, p)) / 1e6 for p in (50, 99)},
        "lag_p99": percentile(np.array(lag), 99) / 1e6,
        "cpu_us": (worker["cpu_ns"] + worker["coordinator_cpu_ns"]) / 1e3 / seen,
        "true_tps": written / ((ends - starts) / 1e9),
        "lost": written - seen,
    }


def gaps(row: dict[str, list[int]]) -> np.ndarray:
    """A gap before a chunk of k tokens is k gaps of a k-th, as the metric ITL has it."""
    tokens = np.array(row["chunk_tokens"][1:])
    return np.repeat(np.diff(row["chunk_ns"]) / tokens, tokens)


def percentile(values: np.ndarray, percent: float) -> float:
    return float(np.percentile(values, percent, method="inverted_cdf"))


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """The median of each figure over the repeats, with the worst in brackets; goals beside it."""
    lines = ["| figure | " + " | ".join(results) + " |", "|---|" + "---|" * len(results)]
    for key, label in LABELS.items():
        cells = []
        for case in CASES:
            if case.name not in results:
                continue
            found = [each[key] for each in results[case.name]]
            goal = case.goals.get(key)
            bound = "" if goal is None else f", goal {goal:g}"
            cells.append(f"{statistics.median(found):,.3g} ({max(found):,.3g}{bound})")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--case", type=int, choices=range(1, len(CASES) + 1), help="only this one")
    arguments = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("this benchmark needs two cores: one for the server, one for the client")
    chosen = CASES if arguments.case is None else CASES[arguments.case - 1 : arguments.case]
    results: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        binary = build(Path(temporary))
        for case in chosen:
            for repeat in range(arguments.repeats):
                folder = Path(temporary) / f"{CASES.index(case)}-{repeat}"
                folder.mkdir()
                results.setdefault(case.name, []).append(measure(case, binary, folder))
                print(f"{case.name}: run {repeat + 1} of {arguments.repeats}", file=sys.stderr)
    print(table(results))
    missed = [
        f"{case.name}: {LABELS[key]}"
        for case in chosen
        for key, goal in case.goals.items()
        if statistics.median(each[key] for each in results[case.name]) > goal
    ]
    print("\nmissed: " + "; ".join(missed) if missed else "\nevery goal is met (by the median of the repeats)")


if __name__ == "__main__":
    main()

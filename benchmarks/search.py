"""Does `bench search` find the load that the simulated engine really carries? About six minutes on two quiet cores.

The truth is worked out without a server, a socket or a clock: the engine alone in virtual time, its own stamps of first
tokens, arrivals and lengths from numpy's generator, and a bisection over the rate on the same draws. Then the command
is run against the live simulator, and both are printed.

    python benchmarks/search.py [even | random] [flags for bench search, as --allow client_lag on a busy machine]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from servemark.adapters.sim.engine import EngineRequest
from servemark.adapters.sim.options import SimOptions
from servemark.adapters.sim.simulation import build_engine

OUTPUT = (4, 12)
ATTAINMENT = 0.9
WARMUP_S, DURATION_S = 5.0, 20.0
SEEDS = 200
LOW, HIGH = 4.0, 32.0
BENCH = (sys.executable, "-P", "-c", "from servemark.harness.cli import main; main()")


@dataclass(frozen=True)
class Case:
    """Evenly spaced arrivals break a server at a sharp load, random ones at a blurred one."""

    arrivals: str
    prompt: tuple[int, int]
    ttft_ms: float
    speed: float

    @property
    def options(self) -> SimOptions:
        return SimOptions(gpu="l4", speed=self.speed)

    def workload(self) -> str:
        (shortest, longest), (fewest, most) = self.prompt, OUTPUT
        return (
            "version: 1\nprompts:\n  source: synthetic\n"
            f"  input_tokens: uniform({shortest}, {longest})\n  output_tokens: uniform({fewest}, {most})\n"
            f"load: {{arrivals: {self.arrivals}, rate: 1}}\n"
            f"slo: {{limits: ttft={self.ttft_ms:g}ms, attainment: {ATTAINMENT}}}\n"
        )


CASES = {
    "even": Case("constant", (100, 900), 400.0, 1.5),
    "random": Case("poisson", (500, 500), 250.0, 2.0),
}


@dataclass(frozen=True)
class Draws:
    """Gaps with mean 1, and lengths: the same for every rate."""

    gaps: np.ndarray
    prompts: np.ndarray
    outputs: np.ndarray

    @classmethod
    def of(cls, case: Case, seed: int) -> Draws:
        rng, count = np.random.default_rng(seed), round(HIGH * (WARMUP_S + DURATION_S) * 1.5)
        gaps = np.ones(count) if case.arrivals == "constant" else rng.exponential(1.0, count)
        prompts, outputs = (rng.integers(low, high + 1, count) for low, high in (case.prompt, OUTPUT))
        return cls(gaps, prompts, outputs)


def ttfts_ms(case: Case, rate: float, draws: Draws) -> list[float]:
    """Of the requests that arrive after the warm-up and within the duration, by the engine's own stamps."""
    arrivals_s = np.cumsum(draws.gaps) / rate
    count = int(np.searchsorted(arrivals_s, WARMUP_S + DURATION_S))
    requests = [
        EngineRequest([i] * int(draws.prompts[i]), int(draws.outputs[i]), int(arrivals_s[i] * 1e9))
        for i in range(count)
    ]
    engine, now_ns, next_one = build_engine(case.options, (0,)), 0, 0
    while True:
        while next_one < count and requests[next_one].arrival_ns <= now_ns:
            engine.submit(requests[next_one])
            next_one += 1
        duration_ns = engine.begin(now_ns)
        if duration_ns is not None:
            now_ns += round(duration_ns / case.speed)
            engine.finish(now_ns)
        elif next_one < count:
            now_ns = requests[next_one].arrival_ns
        else:
            break
    return [(r.first_token_ns - r.arrival_ns) / 1e6 for r in requests if r.arrival_ns >= WARMUP_S * 1e9]


def attainment(case: Case, rate: float, draws: list[Draws]) -> tuple[float, float]:
    """The share within the limit over all seeds, and its standard error between them."""
    runs = (ttfts_ms(case, rate, each) for each in draws)
    counts = np.array([(sum(ttft <= case.ttft_ms for ttft in run), len(run)) for run in runs])
    share = counts[:, 0].sum() / counts[:, 1].sum()
    off = counts[:, 0] - share * counts[:, 1]
    return float(share), float(np.sqrt((off**2).sum()) / counts[:, 1].sum())


def critical_rate(case: Case) -> float:
    draws, low, high = [Draws.of(case, seed) for seed in range(SEEDS)], LOW, HIGH
    while high / low > 1.005:
        middle = (low * high) ** 0.5
        share, error = attainment(case, middle, draws)
        print(f"  {middle:6.3f} req/s  {share:7.2%}  +- {1.96 * error:.2%}", flush=True)
        low, high = (middle, high) if share >= ATTAINMENT else (low, middle)
    return (low * high) ** 0.5


def search(case: Case, folder: Path, flags: list[str]) -> dict[str, object]:
    (folder / "w.yaml").write_text(case.workload())
    command = [
        *BENCH, "search", "--target", "sim", "--launch", f"llama-3.1-8b --gpu l4 --speed {case.speed:g}",
        "--workload", str(folder / "w.yaml"), "--from", "8", "--to", f"{HIGH:g}", "--cool-down", "1s",
        "--duration", f"{DURATION_S:g}s", "--warmup", f"{WARMUP_S:g}s",
        "--out", str(folder / "search"), "--json", *flags,
    ]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"the search ended with {done.returncode}")
    found: dict[str, object] = json.loads(done.stdout)
    return found


def main() -> None:
    name, flags = (sys.argv[1], sys.argv[2:]) if sys.argv[1:2] and sys.argv[1] in CASES else ("even", sys.argv[1:])
    case = CASES[name]
    print(f"{name} arrivals: the engine alone, in virtual time")
    truth = critical_rate(case)
    with tempfile.TemporaryDirectory() as folder:
        found = search(case, Path(folder), flags)
    answer, runs = found["answer"], found["runs"]
    assert isinstance(answer, dict)
    assert isinstance(runs, list)
    print(f"critical rate, worked out   {truth:.2f} req/s")
    print(f"found by bench search       {answer['load']} req/s, bracket to {answer['failing']} ({answer['kind']})")
    print(f"interval                    {answer['proved']} to {answer['refuted']}; {len(runs)} runs")
    if answer["load"] and answer["failing"]:
        middle = (float(answer["load"]) * float(answer["failing"])) ** 0.5
        print(f"ratio (middle of bracket)   {middle / truth:.3f}")


if __name__ == "__main__":
    main()

"""What a run cost: dollars and joules, over all tokens and over those of requests that met the SLO."""

from __future__ import annotations

from typing import Any

from servemark.harness.efficiency.assessed import Assessed
from servemark.harness.hardware.cost import Split, by_compute, costs, energy


def cost_of(run: Assessed) -> dict[str, Any] | None:
    """None without a price."""
    price = run.deployment.price
    if price is None:
        return None
    return costs(
        price,
        run.deployment.gpus,
        output_tps=run.rate("output_tps"),
        input_tps=run.rate("input_tps"),
        rps=run.rate("rps"),
        goodput_tps=_good(run, "output_tps", "of_tokens"),
        good_rps=_good(run, "rps", "of_successful"),
        split=_split(run),
    ).to_json()


def energy_of(run: Assessed) -> dict[str, Any] | None:
    """Of the deployment's GPUs, if each of them was read."""
    joules = [each.joules for each in run.serving if each.joules is not None]
    if not joules or len(joules) < run.deployment.gpus:
        return None
    seconds, source = run.window.seconds, "; ".join(sorted({each.energy_source or "" for each in run.serving}))
    output, prompts = (run.rate(name) for name in ("output_tps", "input_tps"))
    every = None if output is None or prompts is None else (output + prompts) * seconds
    spent = energy(
        sum(joules), seconds, None if output is None else output * seconds, every, source, run.deployment.usd_per_kwh
    )
    good = _good(run, "output_tps", "of_tokens")
    at_slo = sum(joules) / (good * seconds) if good else None
    return spent.to_json() | {"joules_per_output_token_at_slo": at_slo}


def _good(run: Assessed, rate: str, key: str) -> float | None:
    """The share of a rate that met the SLO. Goodput itself goes by when requests were due, which is another window."""
    every, share = run.rate(rate), run.value("goodput_share", key)
    return None if every is None or share is None else every * share


def _split(run: Assessed) -> Split | None:
    """By what a prompt token and an output token of this run take in FLOPs."""
    total = run.total
    if total is None:
        return None
    prefill, decode = (
        sum(float(each[0]) for each in part.values()) for part in (total.prefill_flops, total.decode_flops)
    )
    prompts, decoded = float(total.prompts[0]), float(total.decoded[0])
    if prefill <= 0 or decode <= 0:
        return None
    return by_compute(prefill / prompts, decode / decoded)

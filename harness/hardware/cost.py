"""Dollars and joules per token: pure arithmetic on rates, and None where a rate is not known or 0."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from servemark.harness.hardware.price import Price

HOUR_S = 3600
MILLION = 1e6
J_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class Split:
    """Shares the cost out to input and output tokens: one output token weighs as much as `output_weight` input ones.

    `basis` says why, for it is a convention and no measurement.
    """

    output_weight: float
    basis: str


def by_compute(input_flops_per_token: float, output_flops_per_token: float) -> Split:
    """By the arithmetic that each takes. It flatters output tokens, which wait for memory and not for arithmetic."""
    weight = output_flops_per_token / input_flops_per_token
    return Split(weight, f"by FLOPs: an output token takes those of {weight:.3g} input tokens")


@dataclass(frozen=True, slots=True)
class Costs:
    """`usd_per_1m_output` lays all cost on the output tokens, `usd_per_1m_total` on input and output alike.

    The two `_split` share it out as `split` says. `at_slo` and `good` lay all cost on requests that met the SLO.
    """

    gpus: int
    usd_per_gpu_hour: float
    price_source: str
    usd_per_hour: float
    usd_per_1m_output: float | None
    usd_per_1m_total: float | None
    usd_per_request: float | None
    usd_per_1m_output_at_slo: float | None
    usd_per_good_request: float | None
    good_requests_per_usd: float | None
    split: str | None
    usd_per_1m_input_split: float | None
    usd_per_1m_output_split: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def costs(
    price: Price,
    gpus: int,
    *,
    output_tps: float | None,
    input_tps: float | None = None,
    rps: float | None = None,
    goodput_tps: float | None = None,
    good_rps: float | None = None,
    split: Split | None = None,
) -> Costs:
    """Of a deployment that makes these rates per second. `goodput_tps` are output tokens of requests that met it."""
    per_hour = price.usd_per_gpu_hour * gpus
    per_s = per_hour / HOUR_S
    total_tps = None if output_tps is None or input_tps is None else output_tps + input_tps
    of_input = _over(per_s * MILLION, _weighed(input_tps, output_tps, split))
    return Costs(
        gpus=gpus,
        usd_per_gpu_hour=price.usd_per_gpu_hour,
        price_source=price.source,
        usd_per_hour=per_hour,
        usd_per_1m_output=_over(per_s * MILLION, output_tps),
        usd_per_1m_total=_over(per_s * MILLION, total_tps),
        usd_per_request=_over(per_s, rps),
        usd_per_1m_output_at_slo=_over(per_s * MILLION, goodput_tps),
        usd_per_good_request=_over(per_s, good_rps),
        good_requests_per_usd=_over(good_rps, per_s),
        split=None if split is None else split.basis,
        usd_per_1m_input_split=of_input,
        usd_per_1m_output_split=None if of_input is None or split is None else of_input * split.output_weight,
    )


def _weighed(input_tps: float | None, output_tps: float | None, split: Split | None) -> float | None:
    """Tokens per second, each output token counted as the input tokens that it weighs."""
    if input_tps is None or output_tps is None or split is None:
        return None
    return input_tps + split.output_weight * output_tps


@dataclass(frozen=True, slots=True)
class Energy:
    """Of all GPUs over a window. `source` is "energy counter" or "power, integrated"; `usd` at the price of a kWh."""

    watts: float | None
    joules: float
    kwh: float
    joules_per_output_token: float | None
    joules_per_token: float | None
    output_tokens_per_s_per_watt: float | None
    tokens_per_s_per_watt: float | None
    source: str
    usd: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def energy(
    joules: float,
    seconds: float,
    output_tokens: float | None,
    all_tokens: float | None,
    source: str = "",
    usd_per_kwh: float | None = None,
    pue: float = 1.0,
) -> Energy:
    """Tokens per second and watt are tokens per joule. The price has the PUE in it, the joules are the GPUs' own."""
    kwh = joules / J_PER_KWH
    return Energy(
        watts=_over(joules, seconds),
        joules=joules,
        kwh=kwh,
        joules_per_output_token=_over(joules, output_tokens),
        joules_per_token=_over(joules, all_tokens),
        output_tokens_per_s_per_watt=_over(output_tokens, joules),
        tokens_per_s_per_watt=_over(all_tokens, joules),
        source=source,
        usd=None if usd_per_kwh is None else kwh * pue * usd_per_kwh,
    )


def _over(value: float | None, divisor: float | None) -> float | None:
    return value / divisor if value is not None and divisor else None

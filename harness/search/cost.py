"""What a load costs: per GPU, and per dollar."""

from __future__ import annotations


def economics(
    goodput: float | None, output_tps: float | None, gpus: int | None, price: float | None
) -> dict[str, float | None]:
    """`price` is dollars an hour for one GPU. Names carry their units; empty where no number of GPUs is given."""
    if gpus is None:
        return {}
    found = {"goodput_per_gpu": _over(goodput, gpus), "output_tps_per_gpu": _over(output_tps, gpus)}
    if price is None:
        return found
    dollars_s = gpus * price / 3600
    return found | {
        "usd_per_hour": gpus * price,
        "goodput_requests_per_usd": _over(goodput, dollars_s),
        "usd_per_million_output_tokens": _over(dollars_s * 1e6, output_tps),
    }


def _over(value: float | None, divisor: float | None) -> float | None:
    return value / divisor if value is not None and divisor else None

"""What a load costs: per GPU, and per dollar."""

from __future__ import annotations

from servemark.harness.hardware.cost import costs
from servemark.harness.hardware.price import Price


def economics(
    goodput: float | None, output_tps: float | None, gpus: int | None, price: float | None
) -> dict[str, float | None]:
    """`price` is dollars an hour for one GPU. Names carry their units; empty where no number of GPUs is given."""
    if gpus is None:
        return {}
    found = {
        "goodput_per_gpu": None if goodput is None else goodput / gpus,
        "output_tps_per_gpu": None if output_tps is None else output_tps / gpus,
    }
    if price is None:
        return found
    cost = costs(Price(price, "--gpu-price"), gpus, output_tps=output_tps, good_rps=goodput)
    return found | {
        "usd_per_hour": cost.usd_per_hour,
        "goodput_requests_per_usd": cost.good_requests_per_usd,
        "usd_per_million_output_tokens": cost.usd_per_1m_output,
    }

"""What a GPU costs for an hour, as it is rented or as an own one works out."""

from __future__ import annotations

from dataclasses import dataclass

HOURS_PER_YEAR = 8_760
DEAREST = 1e6


@dataclass(frozen=True, slots=True)
class Price:
    """All-in dollars for one GPU and hour; `source` is a flag, a place in a file, or how it was worked out."""

    usd_per_gpu_hour: float
    source: str


@dataclass(frozen=True, slots=True)
class OnPremise:
    """What an own GPU costs. `utilisation` is the share of all hours in which it works, which bear the rest.

    `other_usd_per_gpu_year` is the space, the network, people, interest, spares.
    """

    gpu_usd: float
    usd_per_kwh: float
    server_usd_per_gpu: float = 0.0
    years: float = 4.0
    utilisation: float = 1.0
    pue: float = 1.0
    other_usd_per_gpu_year: float = 0.0

    def price(self, power_w: float) -> Price:
        """`power_w` is what is drawn for each GPU while it works."""
        hours = HOURS_PER_YEAR * self.utilisation
        owned = (self.gpu_usd + self.server_usd_per_gpu) / self.years / hours
        other = self.other_usd_per_gpu_year / hours
        energy = power_w / 1000 * self.pue * self.usd_per_kwh
        source = f"on premise: ${owned:.3g} bought, ${energy:.3g} energy, ${other:.3g} other"
        return Price(owned + energy + other, source)

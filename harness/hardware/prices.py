"""What a GPU costs for an hour: as said, by a file of prices, or worked out for one's own machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from servemark.harness.errors import BadInput

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


def price_for(
    gpu_name: str | None, usd: float | None, file: Path | None, gpu_files: Sequence[Path] | None = None
) -> Price | None:
    """What --gpu-price says, else the file's entry of the GPU, else None. Raises BadInput, also for an entry of a GPU
    that neither the table knows nor `gpu_files`, where these are given.
    """
    if usd is not None:
        if not 0 < usd <= DEAREST:
            raise BadInput(
                f"--gpu-price: {usd:g} dollars an hour is no price; give a number above 0, to {DEAREST:,.0f}"
            )
        return Price(usd, "--gpu-price" if file is None else f"--gpu-price, which goes before {file}")
    if file is None:
        return None
    from servemark.harness.hardware.price_file import read_prices

    return read_prices(file, gpu_files).price(gpu_name)


def kwh_price(file: Path | None, gpu_files: Sequence[Path] | None = None) -> float | None:
    """Dollars for a kWh, as the file of prices has it. Raises BadInput as `price_for` does."""
    if file is None:
        return None
    from servemark.harness.hardware.price_file import read_prices

    return read_prices(file, gpu_files).usd_per_kwh

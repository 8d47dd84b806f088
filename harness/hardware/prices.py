"""The price of a GPU: as said by a flag, or by a file of prices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from servemark.harness.errors import BadInput
from servemark.harness.hardware.price import DEAREST, Price
from servemark.harness.hardware.price_file import read_prices


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
    return read_prices(file, gpu_files).price(gpu_name)


def kwh_price(file: Path | None, gpu_files: Sequence[Path] | None = None) -> float | None:
    """Dollars for a kWh, as the file of prices has it. Raises BadInput as `price_for` does."""
    if file is None:
        return None
    return read_prices(file, gpu_files).usd_per_kwh

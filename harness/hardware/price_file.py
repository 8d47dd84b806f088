"""The file of prices: dollars an hour per kind of GPU, or what an own machine costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from servemark.harness.errors import BadInput
from servemark.harness.hardware.devices import Gpu, gpus, plain
from servemark.harness.hardware.price import OnPremise, Price
from servemark.harness.hardware.toml_file import checked, file_text, read_toml
from servemark.harness.plan.sentences import Complaint, Where, raise_if
from servemark.harness.plan.strict import Strict
from servemark.harness.plan.yaml_lines import Document
from servemark.harness.plan.yaml_lines import read as read_yaml

Positive = Annotated[float, Field(gt=0, le=1e9)]
NotNegative = Annotated[float, Field(ge=0, le=1e9)]


class OnPremiseEntry(Strict):
    """An own GPU, from its purchase and its power."""

    gpu_usd: NotNegative = Field(description="price of one GPU")
    server_usd_per_gpu: NotNegative = Field(default=0.0, description="the rest of the server, its share for one GPU")
    years: Annotated[float, Field(ge=1e-3, le=1e3)] = Field(default=4.0, description="over which it is written off")
    utilisation: Annotated[float, Field(ge=1e-6, le=1)] = Field(
        default=1.0, description="share of all hours in which it works; those hours bear the cost of all"
    )
    power_w: Positive | None = Field(
        default=None, description="drawn for each GPU while it works, the server's share too; without it the GPU's own"
    )
    pue: Annotated[float, Field(ge=1)] = Field(default=1.0, description="power of the site over that of its machines")
    usd_per_kwh: NotNegative | None = Field(default=None, description="price of electricity; without it the file's")
    other_usd_per_gpu_year: NotNegative = Field(default=0.0, description="space, network, people, interest, spares")


class PriceEntry(Strict):
    """Either of the two."""

    usd_per_hour: Positive | None = Field(default=None, description="dollars an hour for one GPU, all-in")
    on_premise: OnPremiseEntry | None = Field(default=None, description="what an own one costs")

    @model_validator(mode="before")
    @classmethod
    def _spelt_out(cls, value: object) -> object:
        """`2.5` stands for `usd_per_hour: 2.5`."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"usd_per_hour": float(value)}
        if not isinstance(value, dict):
            raise ValueError(f"needs dollars an hour, or on_premise below it, not {value!r:.60}")
        return value


class PriceFile(Strict):
    """Prices by the names of GPUs."""

    version: Annotated[int, Field(ge=1, le=1)] = Field(default=1, description="format of this file")
    gpus: dict[str, PriceEntry] = Field(description="prices by names of GPUs")
    usd_per_kwh: NotNegative | None = Field(default=None, description="price of electricity, for the cost of energy")


@dataclass(frozen=True, slots=True)
class Prices:
    """Of a file that was read; `usd_per_kwh` is the file's own, for energy that is measured."""

    by_gpu: dict[str, Price]
    usd_per_kwh: float | None

    def price(self, gpu_name: str | None) -> Price | None:
        return None if gpu_name is None else self.by_gpu.get(plain(gpu_name))


def read_prices(path: Path, gpu_files: Sequence[Path] | None = None) -> Prices:
    """YAML, or TOML where the name ends so. Raises BadInput, a line for each mistake.

    With `gpu_files`, which may be none, an entry of a GPU that neither they nor the table know is one.
    """
    text, label = file_text(path, "file of prices"), str(path)
    document = (read_toml if path.suffix == ".toml" else read_yaml)(text, label)
    file = checked(document, PriceFile)
    known = {plain(gpu.name): gpu for gpu in gpus(gpu_files or ())}
    if gpu_files is not None:
        raise_if(_unknown(file, known), Where(document, {}))
    found = {plain(name): _price(name, entry, file, document, known) for name, entry in file.gpus.items()}
    return Prices(found, file.usd_per_kwh)


def _unknown(file: PriceFile, known: Mapping[str, Gpu]) -> Iterator[Complaint]:
    """An entry that no GPU would ever be priced by."""
    for name in file.gpus:
        wanted = plain(name)
        if wanted in known:
            continue
        near = [each for each in known if wanted and each.startswith(wanted)] or get_close_matches(wanted, known, 3)
        guess = f"did you mean {', '.join(near)}?" if near else "`bench list gpus` shows all, --gpu-file adds more"
        yield ("gpus", name), f"there is no such GPU; {guess}"


def _price(name: str, entry: PriceEntry, file: PriceFile, document: Document, known: Mapping[str, Gpu]) -> Price:
    place = f"{document.label}:{document.line(('gpus', name))}"
    own = entry.on_premise
    if (entry.usd_per_hour is None) == (own is None):
        raise BadInput(f"{place}: gpus.{name}: give it either usd_per_hour or on_premise")
    if own is None:
        return Price(entry.usd_per_hour or 0.0, place)
    usd_per_kwh = file.usd_per_kwh if own.usd_per_kwh is None else own.usd_per_kwh
    power_w = own.power_w or (known[plain(name)].power_w if plain(name) in known else None)
    if usd_per_kwh is None:
        raise BadInput(f"{place}: gpus.{name}.on_premise: electricity has no price; add usd_per_kwh")
    if power_w is None:
        raise BadInput(f"{place}: gpus.{name}.on_premise: what it draws is not known; add power_w")
    given = own.model_dump(exclude={"power_w", "usd_per_kwh"})
    price = OnPremise(usd_per_kwh=usd_per_kwh, **given).price(power_w)
    return Price(price.usd_per_gpu_hour, f"{place}, {price.source}")

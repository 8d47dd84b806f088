"""What a run was made on, put together from what the user says, the server tells and the GPUs name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from servemark.harness.errors import BadInput
from servemark.harness.hardware.config import check_formats, load_model
from servemark.harness.hardware.devices import Gpu, gpu, gpus, recognise
from servemark.harness.hardware.known import find_model
from servemark.harness.hardware.layout import Layout
from servemark.harness.hardware.model import Model
from servemark.harness.hardware.price import Price
from servemark.harness.hardware.prices import kwh_price, price_for
from servemark.harness.hardware.section import HardwareSection
from servemark.harness.hardware.told import Told
from servemark.harness.hardware.work import Arithmetic

UNQUANTISED = ("bf16", "fp16", "fp32")
_NO_MODEL = "give its config.json with --model-config"
_NO_PRICE = "give --gpu-price, in dollars for a GPU and hour, or a file with --prices"
_NO_GPU = "name the GPU with --gpu (`bench list gpus`)"


@dataclass(frozen=True)
class Deployed:
    """`lacks` says in a sentence each why something is not known; `*_source` says who told it."""

    gpu: Gpu | None = None
    gpu_source: str = ""
    model: Model | None = None
    model_lacks: str | None = None
    layout: Layout = field(default_factory=Layout)
    layout_source: str = ""
    gpus: int = 1
    price: Price | None = None
    usd_per_kwh: float | None = None
    section: HardwareSection = field(default_factory=HardwareSection)
    served: tuple[str, ...] = ()
    """Names of the model as the server, its command and the requests have them."""
    kv_tokens: int | None = None
    """Tokens that the KV memory of one data rank holds, as the server tells."""

    @cached_property
    def arithmetic(self) -> Arithmetic | None:
        return None if self.model is None else Arithmetic(self.model, self.layout)

    @property
    def gpu_lacks(self) -> str | None:
        return None if self.gpu is not None else f"the kind of GPU is not known; {_NO_GPU}"

    @property
    def price_lacks(self) -> str | None:
        if self.price is not None:
            return None
        if self.section.prices is None or self.gpu is None:
            return f"no price is known; {_NO_PRICE}"
        return f"{self.section.prices} has no price of {self.gpu.name}; add one, or give --gpu-price"

    def facts(self) -> dict[str, Any]:
        layout = self.layout
        return {
            "gpu": None if self.gpu is None else self.gpu.name,
            "gpu_source": self.gpu_source or None,
            "gpus": self.gpus,
            "tensor": layout.tensor,
            "pipeline": layout.pipeline,
            "data": layout.data,
            "expert": layout.expert,
            "replicas": layout.replicas,
            "layout_source": self.layout_source,
            "model": None if self.model is None else self.model.name,
            "model_source": None if self.model is None else self.model.source,
            "gpu_lacks": self.gpu_lacks,
            "model_lacks": self.model_lacks,
            "asked": self.section.model_dump(mode="json", exclude_defaults=True),
        }

    def seen(self, gpus: Iterable[Mapping[str, Any]]) -> Deployed:
        """With the kind of GPU that was sampled, where none was named. `gpus` are facts as a GpuWatch has them."""
        if self.gpu is not None:
            return self
        files = _gpu_files(self.section)
        try:
            kinds = [recognise(str(each.get("name") or ""), each.get("memory_bytes"), files) for each in gpus]
            first = kinds[0] if kinds else None
            if first is None or any(kind is None or kind.name != first.name for kind in kinds):
                return self
            price = self.price or price_of(self.section, first)
        except BadInput:  # a file that was there when the run began has changed; the run goes before it
            return self
        return replace(self, gpu=first, gpu_source="the sampled GPUs", price=price)


def deployed(section: HardwareSection, told: Told, servers: int = 1) -> Deployed:
    """`servers` are the addresses that get load. BadInput where what the user says makes no sense."""
    _refuse_unreadable(section)
    name = section.gpu or told.gpu
    kind = None if name is None else _kind(section, name)
    layout, source = _layout(section, told, servers)
    model, lacks = _model(section, told)
    return Deployed(
        gpu=kind,
        gpu_source="" if kind is None else "--gpu" if section.gpu else "the server",
        model=model,
        model_lacks=lacks,
        layout=layout,
        layout_source=source,
        gpus=layout.gpus,
        price=price_of(section, kind),
        usd_per_kwh=kwh_price(None if section.prices is None else Path(section.prices), _gpu_files(section)),
        section=section,
        served=told.models,
        kv_tokens=told.kv_tokens,
    )


def refuse_senseless(section: HardwareSection, servers: int) -> None:
    """BadInput for what makes sense of no server at all, so that it is said before one is started."""
    deployed(section, Told(), servers)


def _refuse_unreadable(section: HardwareSection) -> None:
    """What is the user's mistake even where a server's word, or nobody, asks for it later."""
    gpus(_gpu_files(section))
    for flag, weights, kv in (("--dtype", section.dtype, None), ("--kv-dtype", None, section.kv_dtype)):
        try:
            check_formats(weights, kv)
        except BadInput as error:
            raise BadInput(f"{flag}: {error}") from None


def _kind(section: HardwareSection, name: str) -> Gpu | None:
    try:
        return gpu(name, _gpu_files(section))
    except BadInput:
        if section.gpu:
            raise
        return None  # a server may call it what it likes


def _gpu_files(section: HardwareSection) -> tuple[Path, ...]:
    return tuple(map(Path, section.gpu_file))


def price_of(section: HardwareSection, kind: Gpu | None) -> Price | None:
    prices = None if section.prices is None else Path(section.prices)
    return price_for(None if kind is None else kind.name, section.gpu_price, prices, _gpu_files(section))


def _layout(section: HardwareSection, told: Told, servers: int) -> tuple[Layout, str]:
    """What is said goes before what is told; GPUs that this leaves over are replicas behind the address."""
    ranks = {
        "tensor": section.tp or told.tensor,
        "pipeline": section.pp or told.pipeline,
        "data": section.dp or told.data,
    }
    expert = section.ep if section.ep is not None else bool(told.expert)
    known = {name: value for name, value in ranks.items() if value is not None}
    if section.gpus is not None and not known and section.gpus % servers == 0:
        return Layout(section.gpus // servers, expert=expert, replicas=servers), "--gpus, as tensor parallel ranks"
    layout = Layout(**known, expert=expert, replicas=servers)
    said = any((section.tp, section.pp, section.dp))
    source = "flags" if said else "the server" if known else "assumed: one GPU for each server"
    if section.gpus is None or section.gpus == layout.gpus:
        return layout, source
    if section.gpus % layout.gpus_per_server or section.gpus < layout.gpus:
        raise BadInput(
            f"--gpus {section.gpus}: a server has {layout.gpus_per_server} GPUs (tensor {layout.tensor} x pipeline "
            f"{layout.pipeline} x data {layout.data}) and there are {servers} addresses; give a multiple of that"
        )
    return replace(layout, replicas=section.gpus // layout.gpus_per_server), f"{source}, and --gpus"


def _model(section: HardwareSection, told: Told) -> tuple[Model | None, str | None]:
    """What the user names must be there; what the server names may be anything."""
    if section.config is not None:
        return _as_told(lambda weights, kv: find_model(str(section.config), weights, kv), section, told), None
    why = "the server does not tell its model"
    for name in told.models:
        if not _local_or_named(name):
            continue
        try:
            return _as_told(_finder(name), section, told), None
        except BadInput as error:
            why = str(error) if "model_type" in str(error) else f"no config.json of {name} is on this machine"
    return None, f"{why}; {_NO_MODEL}"


def _finder(name: str) -> Callable[[str | None, str | None], Model]:
    path = Path(name)
    if path.is_absolute():
        return lambda weights, kv: load_model(path, weights, kv)
    return lambda weights, kv: find_model(name, weights, kv)


def _local_or_named(name: str) -> bool:
    """A path that a server tells is one of its machine, so it is whole; a relative one would be found by chance."""
    return Path(name).is_absolute() or not Path(name).exists()


def _as_told(find: Callable[[str | None, str | None], Model], section: HardwareSection, told: Told) -> Model:
    """Formats that the user names go over the config's; what a server tells, over none that the config has."""
    model = find(section.dtype, section.kv_dtype)
    weights = told.weights if section.dtype is None and model.weights in UNQUANTISED else section.dtype
    kv = section.kv_dtype or told.kv
    if (weights, kv) == (section.dtype, section.kv_dtype):
        return model
    try:
        return find(weights, kv)
    except BadInput:  # a format of the server's that has no name here
        return model

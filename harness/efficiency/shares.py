"""MBU and MFU of the window, each by everybody who can tell it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from servemark.harness.efficiency.assessed import Assessed
from servemark.harness.efficiency.thresholds import THRESHOLDS
from servemark.harness.efficiency.timeline import possible
from servemark.harness.figures.percent import share as percent
from servemark.harness.hardware.utilisation import databricks_mbu, mbu, mfu

HOWS = {"measured": "as measured", "server": "by the server"}
What = Literal["mbu", "mfu", "hfu"]
How = Literal["modelled", "measured", "server"]

_PER_STEP = "weights once a step, the KV cache that each token reads, what is written; of the published peak"
_EMITTED = "tokens computed and given, of the dense peak of the dtype they are computed in"
_VERIFIED = "drafted tokens that were checked in vain count too"
_DRAM = "DRAM traffic as the GPU counts it, the mean over time and GPUs"
_TENSOR = "share of time in which the tensor cores worked, at the clocks they had; it is no count of FLOPs"
_ESTIMATE = "the server's own estimate; vLLM counts activations too"


@dataclass(frozen=True, slots=True)
class Share:
    """`value` is None where what came out cannot be: then `note` says so, and what is wrong."""

    what: What
    how: How
    value: float | None
    bytes_or_flops: float | None
    note: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def shares(run: Assessed) -> list[Share]:
    """Those that can be known; the GPU must be, for all that is a share of its peak."""
    found = [*_modelled(run), *_measured(run), *_server(run)]
    return [_believable(each, run) for each in found]


def _modelled(run: Assessed) -> Iterator[Share]:
    gpu, total, gpus, seconds = run.deployment.gpu, run.total, run.deployment.gpus, run.window.seconds
    if gpu is None or total is None:
        return
    moved = float(total.bytes[0])
    if moved >= 0:  # nan without steps
        yield Share("mbu", "modelled", mbu(moved, seconds, gpus, gpu.bytes_per_s), moved, _PER_STEP)
    flops = {dtype: float(each[0]) for dtype, each in total.flops.items()}
    yield Share("mfu", "modelled", mfu(flops, seconds, gpus, gpu.flops_per_s), sum(flops.values()), _EMITTED)
    if run.speculation.on:
        flops = {dtype: float(each[0]) for dtype, each in total.verified_flops.items()}
        yield Share("hfu", "modelled", mfu(flops, seconds, gpus, gpu.flops_per_s), sum(flops.values()), _VERIFIED)


def _measured(run: Assessed) -> Iterator[Share]:
    gpu, sampled, gpus = run.deployment.gpu, len(run.serving), run.deployment.gpus
    some = f"; of {sampled} of {gpus} GPUs" if sampled < gpus else ""
    dram, tensor = run.measured("dram_active"), run.measured("tensor_active")
    if dram is not None:
        moved = None if gpu is None else dram * gpu.bytes_per_s * run.window.seconds * gpus
        yield Share("mbu", "measured", dram, moved, _DRAM + some)
    if tensor is not None:
        yield Share("mfu", "measured", tensor, None, _TENSOR + some)


def _server(run: Assessed) -> Iterator[Share]:
    gpu, gpus, seconds = run.deployment.gpu, run.deployment.gpus, run.window.seconds
    if gpu is None or seconds <= 0:
        return
    if run.told.bytes is not None:
        yield Share("mbu", "server", mbu(run.told.bytes, seconds, 1, gpu.bytes_per_s), run.told.bytes * gpus, _ESTIMATE)
    dtype = main_dtype(run)
    if run.told.flops is not None and dtype is not None:
        value = mfu({dtype: run.told.flops}, seconds, 1, gpu.flops_per_s)
        yield Share("mfu", "server", value, run.told.flops * gpus, f"{_ESTIMATE}, all of it taken as {dtype}")


def main_dtype(run: Assessed) -> str | None:
    """The one that most of a token's FLOPs are done in."""
    flops: Mapping[str, float] = {} if run.deployment.arithmetic is None else run.deployment.arithmetic.token_flops
    return max(flops, key=lambda dtype: flops[dtype], default=None)


def _believable(share: Share, run: Assessed) -> Share:
    if possible(share.value) is not None:
        return share
    return Share(share.what, share.how, None, share.bytes_or_flops, impossible(share) + _or_else(share, run))


def _or_else(share: Share, run: Assessed) -> str:
    """What else may be behind a modelled share that cannot be, where it rests on more than names."""
    if share.how != "modelled":
        return ""
    if share.what == "mbu":
        return ", or chunks are no steps" if run.steps is not None and run.steps.source == "chunks" else ""
    return "" if run.cached_told else ", or prompts were cached and nobody told"


def impossible(share: Share) -> str:
    """What is wrong, where a share cannot be one."""
    how = "" if share.how == "modelled" else f" ({HOWS[share.how]})"
    would = f"{share.what.upper()}{how} would be {percent(share.value)}"
    if share.value is not None and share.value <= THRESHOLDS.possible:
        return f"{would}: a counter fell in the window"
    return f"{would}: the GPU, its number, the model or its format is not as named"


def databricks(run: Assessed) -> float | None:
    """By the median TPOT, and the KV cache of a server's mean batch; parameters are all of them, of experts too."""
    gpu, arithmetic, load, tpot_ms = run.deployment.gpu, run.deployment.arithmetic, run.load, run.value("tpot", "p50")
    if gpu is None or arithmetic is None or load is None or load.batch is None or load.context is None or not tpot_ms:
        return None
    kv = load.batch * float(arithmetic.model.kv_bytes(round(load.context)))
    peak = gpu.bytes_per_s * arithmetic.layout.gpus_per_server
    return databricks_mbu(arithmetic.model.weight_bytes, kv, tpot_ms / 1000, peak)


def best(rows: list[Share], what: What) -> tuple[float | None, str]:
    """The measured share of bytes where there is one, else the modelled; of FLOPs the modelled, else the measured."""
    order: tuple[How, ...] = ("measured", "modelled", "server") if what == "mbu" else ("modelled", "server", "measured")
    for how in order:
        for row in rows:
            if (row.what, row.how) == (what, how) and row.value is not None:
                return row.value, how
    return None, order[0]

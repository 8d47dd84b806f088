"""What was measured beside what the hardware allows: floors of TPOT and TTFT, batch, throughput, the roofline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from servemark.harness.efficiency.load import Load
from servemark.harness.efficiency.modelled import Modelled
from servemark.harness.efficiency.speculation import Speculation
from servemark.harness.efficiency.thresholds import THRESHOLDS
from servemark.harness.efficiency.timeline import possible
from servemark.harness.hardware.devices import Gpu
from servemark.harness.hardware.limits import Bound, memory, roofline, throughput_bound, tpot_floor, ttft_floor
from servemark.harness.hardware.utilisation import mbu, mfu
from servemark.harness.hardware.work import Arithmetic

_BELOW = (
    "Measured below the floor, which no hardware allows: the GPU, the model or its format is not the one that was "
    "named, or a token here took less than a step (speculative decoding that the server does not tell)."
)

_ASSUMED = "90 % of the memory, less weights, activations of a step of 8192 tokens, and 1 GB"

_ABOVE = "More output than the hardware allows at this batch: the GPU, the model or its format is not as it was named."


def limits(
    arithmetic: Arithmetic,
    gpu: Gpu,
    load: Load,
    total: Modelled,
    spec: Speculation,
    metrics: Mapping[str, Mapping[str, Any]],
    running: float | None,
    output_tps: float | None,
    kv_tokens: int | None = None,
) -> dict[str, Any]:
    """`running` is what the server says of its batch, None: what the records show. Parts without a figure are null.

    `kv_tokens` is what the KV memory of a data rank holds, where the server tells.
    """
    tpot, ttft = (_seconds(metrics, name) for name in ("tpot", "ttft_sent"))
    return {
        "tpot": _tpot(arithmetic, gpu, load, spec, tpot),
        "ttft": _ttft(arithmetic, gpu, load, ttft),
        "batch": _batch(arithmetic, gpu, load, running, kv_tokens),
        "throughput": _throughput(arithmetic, gpu, load, total, spec, output_tps, kv_tokens),
        "roofline": _roofline(arithmetic, gpu, total),
    }


def _tpot(
    arithmetic: Arithmetic, gpu: Gpu, load: Load, spec: Speculation, measured_s: float | None
) -> dict[str, Any] | None:
    if load.batch is None or load.context is None or measured_s is None:
        return None
    floor = tpot_floor(arithmetic, gpu, load.batch, load.context)
    found = _beside(measured_s, floor, 1 / spec.tokens_per_step)
    return found | {"batch": load.batch, "context": load.context, "percentile": "p50"}


def _ttft(arithmetic: Arithmetic, gpu: Gpu, load: Load, measured_s: float | None) -> dict[str, Any] | None:
    if load.middle is None or measured_s is None:
        return None
    prompt, cached = load.middle
    floor = ttft_floor(arithmetic, gpu, prompt, cached)
    return _beside(measured_s, floor) | {"prompt": prompt, "cached": cached, "percentile": "p50"}


def _beside(measured_s: float, floor: Bound, share: float = 1.0) -> dict[str, Any]:
    floor_s = floor.seconds * share
    ratio = measured_s / floor_s
    below = ratio < 1 / THRESHOLDS.possible
    return {
        "measured_s": measured_s,
        "floor_s": floor_s,
        "ratio": None if below else ratio,
        "binding": floor.binding,
        "bandwidth_s": floor.bandwidth_s * share,
        "compute_s": floor.compute_s * share,
        "note": _BELOW if below else None,
    }


def _batch(
    arithmetic: Arithmetic, gpu: Gpu, load: Load, running: float | None, kv_tokens: int | None
) -> dict[str, Any]:
    """Requests of the deployment; memory is asked for a whole request, prompt and answer."""
    context = (load.prompt or 0.0) + (load.output or 0.0)
    room = memory(arithmetic, gpu)
    largest = _largest(arithmetic, gpu, context, kv_tokens) * arithmetic.layout.replicas if context else None
    return {
        "running_mean": load.running if running is None else running,
        "largest": largest,
        "context": context or None,
        "weights_bytes": room.weights,
        "kv_room_bytes": max(0.0, room.kv_room),
        "kv_tokens": kv_tokens,
        "assumed": _ASSUMED if kv_tokens is None else None,
    }


def _largest(arithmetic: Arithmetic, gpu: Gpu, context: float, kv_tokens: int | None) -> int:
    """Requests of one server: by the KV memory that it says it has, else by what the GPU's memory leaves."""
    if kv_tokens is None:
        return memory(arithmetic, gpu).largest_batch(context)
    return int(kv_tokens // context) * arithmetic.layout.data


def _throughput(
    arithmetic: Arithmetic,
    gpu: Gpu,
    load: Load,
    total: Modelled,
    spec: Speculation,
    measured: float | None,
    kv_tokens: int | None,
) -> dict[str, Any] | None:
    """Output tokens/s of the deployment, at the batch that ran and at the largest that memory holds."""
    batch = load.batch if load.sharing is None else load.sharing
    if not measured or batch is None or not load.prompt or not load.output:
        return None
    shape = (load.prompt, load.output, load.cached or 0.0)
    bound = throughput_bound(arithmetic, gpu, batch, *shape) * spec.tokens_per_step
    if bound <= 0:
        return None
    if arithmetic.expert_bytes and (share := _reached(arithmetic, gpu, total)):
        # Small steps read so few experts that uneven ones are done sooner than as many of the mean batch.
        bound = max(bound, measured / share)
    largest = _largest(arithmetic, gpu, load.prompt + load.output, kv_tokens)
    highest = throughput_bound(arithmetic, gpu, largest, *shape) * spec.tokens_per_step if largest >= 1 else None
    ratio = possible(measured / bound)
    return {
        "measured": measured,
        "bound": bound,
        "ratio": ratio,
        "bound_at_largest_batch": highest,
        "note": None if ratio is not None else _ABOVE,
    }


def _reached(arithmetic: Arithmetic, gpu: Gpu, total: Modelled) -> float | None:
    """MBU or MFU of the window as it was modelled, whichever is more."""
    seconds, gpus = float(total.seconds[0]), arithmetic.layout.gpus
    flops = {dtype: float(each[0]) for dtype, each in total.flops.items()}
    moved = mbu(float(total.bytes[0]), seconds, gpus, gpu.bytes_per_s)
    return possible(max(moved, mfu(flops, seconds, gpus, gpu.flops_per_s))) if moved >= 0 else None


def _roofline(arithmetic: Arithmetic, gpu: Gpu, total: Modelled) -> dict[str, Any]:
    """Of one GPU. A point is what it did each second, and how many FLOPs for a byte."""
    roof, seconds = roofline(arithmetic, gpu), float(total.seconds[0]) * arithmetic.layout.gpus
    flops, moved = sum(float(each[0]) for each in total.flops.values()), float(total.bytes[0])
    points = []
    if seconds > 0 and moved > 0 and possible(moved / seconds / roof.bytes_per_s) is not None:
        made = {"intensity": flops / moved, "flops_per_s": flops / seconds, "bytes_per_s": moved / seconds}
        points.append({"name": "run", **made})
    return {
        "ceilings": [
            {"dtype": each.dtype, "flops_per_s": each.flops_per_s, "ridge": each.ridge} for each in roof.ceilings
        ],
        "bytes_per_s": roof.bytes_per_s,
        "achievable": gpu.achievable,
        "points": points,
    }


def _seconds(metrics: Mapping[str, Mapping[str, Any]], name: str) -> float | None:
    found = metrics.get(name, {}).get("p50")
    return found / 1000 if isinstance(found, int | float) and found > 0 else None

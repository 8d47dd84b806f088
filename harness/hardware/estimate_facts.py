"""What was asked, and the facts that the answers rest on, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from servemark.harness.hardware.devices import Gpu
from servemark.harness.hardware.estimate_point import Question
from servemark.harness.hardware.estimate_reached import Reached
from servemark.harness.hardware.layout import Layout
from servemark.harness.hardware.limits import Memory
from servemark.harness.hardware.model import Model
from servemark.harness.hardware.work import SCORES


def asked_json(question: Question) -> dict[str, Any]:
    engine, objectives = question.engine, question.objectives
    return {
        **asdict(question.traffic),
        "batches": list(question.batches),
        "memory_utilisation": engine.utilisation,
        "reserve_bytes": engine.reserve,
        "slo": None if objectives is None else asdict(objectives),
        "rate": question.rate,
        "assumed": None if question.assumed is None else {"mbu": question.assumed.mbu, "mfu": question.assumed.mfu},
    }


def gpu_json(model: Model, gpu: Gpu) -> dict[str, Any]:
    """With the peaks of the dtypes that the model multiplies in."""
    dtypes = dict.fromkeys((*(part.compute for part in model.parts), SCORES))
    return {
        "name": gpu.name,
        "title": gpu.title,
        "memory_gb": gpu.memory_gb,
        "memory_mib": gpu.memory_mib,
        "memory_bytes": gpu.memory_bytes,
        "bandwidth_gb_s": gpu.bandwidth_gb_s,
        "dense_tflops": {dtype: gpu.flops_per_s(dtype) / 1e12 for dtype in dtypes},
        "widened": {dtype: gpu.peak(dtype).dtype for dtype in dtypes if gpu.peak(dtype).dtype != dtype},
        "source": gpu.source,
        "retrieved": gpu.retrieved,
        "note": gpu.note,
    }


def memory_json(room: Memory, context: int) -> dict[str, Any]:
    return {
        "capacity_bytes": room.capacity,
        "usable_bytes": room.usable,
        "weights_bytes": room.weights,
        "reserved_bytes": room.activations + room.overhead,
        "kv_room_bytes": room.kv_room,
        "kv_bytes_per_request": float(room.arithmetic.kv_resident(context)),
        "fits": room.fits,
        "short_by_bytes": room.short_by,
    }


def run_json(run: Reached, model: Model, gpus: Sequence[str], layouts: Sequence[Layout]) -> dict[str, Any]:
    return asdict(run) | {"doubts": list(run.doubts(model, gpus, [layout.tensor for layout in layouts]))}

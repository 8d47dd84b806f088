"""What run.json says of the hardware, made up but of one piece: Llama-3.1-8B in bf16 on two H100 SXM."""

from __future__ import annotations

import math
from typing import Any

from servemark.harness.clock import SECOND
from servemark.harness.types import GpuSample

GPUS = ("GPU-0a1b2c3d-0000", "GPU-4e5f6a7b-0001")


def hardware(**changes: Any) -> dict[str, Any]:
    """As `results.hardware` makes it; `changes` replace whole keys."""
    return {
        "deployment": DEPLOYMENT,
        "model": MODEL,
        "lacks": [],
        "gpu": GPU,
        "telemetry": telemetry(),
        "efficiency": EFFICIENCY,
        "limits": LIMITS,
        "binding": BINDING,
        "suggestions": SUGGESTIONS,
        "cost": COST,
        "energy": ENERGY,
        **changes,
    }


def nothing_known() -> dict[str, Any]:
    """Neither a model, nor a GPU, nor a price."""
    lacks = ["the server does not tell its model; give its config.json with --model-config"]
    lacks.append("the kind of GPU is not known; name the GPU with --gpu (`bench list gpus`)")
    alone = {"gpu": None, "gpus": 1, "tensor": 1, "layout_source": "assumed: one GPU for each server", "model": None}
    alone |= {"model_lacks": lacks[0], "gpu_lacks": lacks[1]}
    empty = {"source": "none", "notes": ["no GPU can be read here"], "missing": {}, "gpus": [], "samples": 0}
    return hardware(
        deployment=alone, model=None, gpu=None, telemetry=empty, efficiency={}, limits={},
        binding={}, suggestions=[], cost=None, energy=None, lacks=lacks,
    )  # fmt: skip


def without_telemetry() -> dict[str, Any]:
    """A model and a GPU that somebody named, and nobody who reads the GPU."""
    rows = [row for row in EFFICIENCY["rows"] if row["how"] != "measured"]
    over_time = [{**each, "mbu_measured": None, "tensor_active": None} for each in EFFICIENCY["over_time"]]
    efficiency = {**EFFICIENCY, "rows": rows, "over_time": over_time, "gap": []}
    empty = {"source": "none", "notes": ["no GPU of this machine can be read"], "missing": {}, "gpus": [], "samples": 0}
    return hardware(telemetry=empty, efficiency=efficiency, energy=None)


def telemetry_only() -> dict[str, Any]:
    """GPUs that were read, of a kind and with a model that nobody knows."""
    rows = [row for row in EFFICIENCY["rows"] if row["how"] == "measured"]
    over_time = [{**each, "mbu_modelled": None, "mfu_modelled": None} for each in EFFICIENCY["over_time"]]
    efficiency = {"window_s": 45.0, "rows": rows, "over_time": over_time, "gap": []}
    deployment = {**DEPLOYMENT, "gpu": None, "model": None}
    return hardware(deployment=deployment, model=None, gpu=None, efficiency=efficiency, limits={}, cost=None)


def telemetry(**changes: Any) -> dict[str, Any]:
    return {
        "source": "nvml",
        "period_s": 0.2,
        "samples": 500,
        "clocks": [],
        "notes": [],
        "missing": {"nvlink_rx": "not supported by this driver", "nvlink_tx": "not supported by this driver"},
        "gpus": [_told(place) for place in range(2)],
        **changes,
    }


def _told(place: int) -> dict[str, Any]:
    means = {"utilisation": 0.97, "dram_active": 0.52 + place / 50, "tensor_active": 0.08, "power": 510.0}
    means |= {"sm_clock": 1755.0, "memory_used": 71e9, "temperature": 58.0}
    return {
        "gpu": GPUS[place], "index": place, "name": "NVIDIA H100 80GB HBM3", "mean": means,
        "max": {name: mean * 1.1 for name, mean in means.items()},
        "energy_j": 22_950.0, "energy_source": "energy counter", "throttled_share": 0.04 * place, "counted": True,
    }  # fmt: skip


def gpu_samples(start_ns: int, seconds: int = 50) -> list[GpuSample]:
    """Both GPUs twice a second; the second one is held down by its power limit from 20 s to 22 s."""
    return [
        GpuSample(start_ns + half * SECOND // 2, gpu, _values(half / 2, place))
        for half in range(2 * seconds)
        for place, gpu in enumerate(GPUS)
    ]


def _values(at_s: float, place: int) -> dict[str, float]:
    wave = math.sin(at_s / 6)
    held = place == 1 and 20 <= at_s < 22
    return {
        "utilisation": 0.97,
        "memory_busy": 0.6,
        "memory_used": 71e9 + 1e9 * wave,
        "power": 510 + 60 * wave,
        "energy": 1e6 + 510 * at_s,
        "sm_clock": 1410.0 if held else 1980.0,
        "memory_clock": 2619.0,
        "temperature": 58 + 3 * wave,
        "throttle": 4.0 if held else 0.0,
        "pcie_rx": 2e8,
        "pcie_tx": 1e8,
        "dram_active": 0.52 + 0.1 * wave,
        "sm_active": 0.88,
        "tensor_active": 0.08 + 0.02 * wave,
    }


DEPLOYMENT = {
    "gpu": "h100-sxm", "gpu_source": "the sampled GPUs", "gpus": 2, "tensor": 2, "pipeline": 1, "data": 1,
    "expert": False, "replicas": 1, "layout_source": "flags", "model": "meta-llama/Llama-3.1-8B-Instruct",
    "model_source": "models.toml",
}  # fmt: skip
MODEL = {
    "name": "meta-llama/Llama-3.1-8B-Instruct", "params": 8_030_261_248, "active_params": 7_504_924_672,
    "weight_bytes": 16_060_522_496, "kv_bytes_per_token": 131_072, "weights": "bf16", "kv": "bf16",
    "flops_per_token": {"bf16": 13_958_643_712.0}, "head_flops": {"bf16": 1_050_673_152.0}, "source": "models.toml",
}  # fmt: skip
GPU = {
    "name": "h100-sxm", "title": "NVIDIA H100 SXM 80 GB", "bandwidth_gb_s": 3350, "memory_gb": 80,
    "peaks": {"bf16": 989}, "achievable": 0.8, "source": "https://example.com/h100.pdf",
}  # fmt: skip
EFFICIENCY: dict[str, Any] = {
    "window_s": 45.0,
    "steps": {"count": 4_100, "source": "counter", "approximate": True, "note": "may leave out steps without a token"},
    "tokens_per_step": 9.4,
    "rows": [
        {"what": "mbu", "how": "modelled", "value": 0.46, "bytes_or_flops": 1.387e14, "note": "weights once a step"},
        {"what": "mbu", "how": "measured", "value": 0.53, "bytes_or_flops": 1.598e14, "note": "DRAM active, GPM"},
        {"what": "mbu", "how": "server", "value": 0.44, "bytes_or_flops": 1.327e14, "note": "vllm:estimated bytes"},
        {"what": "mfu", "how": "modelled", "value": 0.061, "bytes_or_flops": 5.43e15, "note": "dense bf16 peak"},
        {"what": "mfu", "how": "measured", "value": 0.08, "bytes_or_flops": None, "note": "tensor cores' active time"},
        {"what": "mfu", "how": "server", "value": 0.06, "bytes_or_flops": 5.34e15, "note": "vllm:estimated FLOPs"},
    ],
    "databricks_mbu": 0.41,
    "per_phase": {
        "decode": {"mbu": 0.49, "mfu": 0.02, "how": "between prompts", "seconds": 20.0, "batch": 9.0, "note": "alone"},
        "prefill": "TTFT holds queueing above concurrency 1, so prefill's MFU is not told",
    },
    "gap": ["Measured is 1.15 times the modelled traffic: activations and padding are not modelled."],
    "over_time": [
        {
            "from_s": 5.0 + 5 * i, "to_s": 10.0 + 5 * i, "mbu_modelled": 0.44 + i / 200, "mfu_modelled": 0.06,
            "mbu_measured": 0.5 + i / 200, "tensor_active": 0.08, "batch": 9.0 + i / 10,
        }
        for i in range(9)
    ],
}  # fmt: skip
LIMITS: dict[str, Any] = {
    "tpot": {"measured_s": 0.0057, "floor_s": 0.003, "ratio": 1.9, "binding": "bandwidth", "note": None},
    "ttft": {"measured_s": 0.024, "floor_s": 0.0042, "ratio": 5.7, "binding": "compute"},
    "batch": {"running_mean": 9.4, "largest": 820, "context": 572.0, "assumed": "90 % of the memory"},
    "throughput": {"measured": 1650.0, "bound": 3130.0, "ratio": 0.527, "bound_at_largest_batch": 41_000.0},
    "roofline": {
        "bytes_per_s": 3.35e12,
        "ceilings": [{"dtype": "bf16", "flops_per_s": 9.89e14, "ridge": 295.2}],
        "achievable": 0.8,
        "points": [{"name": "run", "intensity": 39.1, "flops_per_s": 6.03e13, "bytes_per_s": 1.54e12}],
    },
}
BINDING: dict[str, Any] = {
    "resource": "bandwidth",
    "evidence": [
        {"figure": "MBU", "value": 0.53, "threshold": 0.5, "text": "MBU is 53% (measured) over the whole window."},
        {"figure": "TPOT / floor", "value": 1.9, "threshold": 1.5, "text": "TPOT is 1.9 times its floor."},
    ],
    "others": [
        {
            "resource": "queueing",
            "evidence": [
                {"figure": "requests waiting", "value": 1.3, "threshold": 1.0, "text": "1.3 requests waited."}
            ],
        }
    ],
}
SUGGESTIONS: list[dict[str, Any]] = [
    {
        "code": "quantise", "text": "Quantise the weights: half the bytes, up to half the TPOT.",
        "figure": "weights / bytes", "value": 0.81, "source": "Lin et al., AWQ, MLSys 2024",
    },
]  # fmt: skip
COST: dict[str, Any] = {
    "gpus": 2, "usd_per_gpu_hour": 2.5, "price_source": "--gpu-price", "usd_per_hour": 5.0, "usd_per_1m_output": 0.842,
    "usd_per_1m_total": 0.091, "usd_per_request": 0.000174, "usd_per_1m_output_at_slo": 1.21,
    "usd_per_good_request": 0.00025, "good_requests_per_usd": 4000.0,
    "split": "by FLOPs: an output token takes those of 1.02 input tokens",
    "usd_per_1m_input_split": 0.0905, "usd_per_1m_output_split": 0.0923,
}  # fmt: skip
ENERGY: dict[str, Any] = {
    "watts": 1020.0, "joules": 45_900.0, "kwh": 0.01275, "joules_per_output_token": 0.618, "joules_per_token": 0.0671,
    "output_tokens_per_s_per_watt": 1.618, "tokens_per_s_per_watt": 14.9, "source": "energy counter", "usd": None,
}  # fmt: skip

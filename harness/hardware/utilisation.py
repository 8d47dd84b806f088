"""Shares of what a GPU can do: memory bandwidth (MBU) and dense arithmetic (MFU)."""

from __future__ import annotations

from collections.abc import Callable, Mapping


def mbu(bytes_moved: float, seconds: float, gpus: int, bytes_per_s: float) -> float:
    """Bytes that all GPUs moved, of what their memories could have moved in this time."""
    return bytes_moved / (seconds * gpus * bytes_per_s)


def mfu(flops: Mapping[str, float], seconds: float, gpus: int, peak_of: Callable[[str], float]) -> float:
    """FLOPs of all GPUs by dtype, each against that dtype's dense peak: the share of the time they need at least."""
    return sum(done / peak_of(dtype) for dtype, done in flops.items()) / (seconds * gpus)


def databricks_mbu(param_bytes: float, kv_bytes: float, tpot_s: float, bytes_per_s: float) -> float:
    """((parameters + KV cache) / TPOT) / peak, as Databricks defines it; `bytes_per_s` of all GPUs together.

    It takes each token of a request to be one step that reads all parameters, and the whole KV cache, once.
    """
    return (param_bytes + kv_bytes) / tpot_s / bytes_per_s

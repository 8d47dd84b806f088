"""From a run to the figures that say what binds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from servemark.harness.efficiency.assessed import Assessed
from servemark.harness.efficiency.evidence import CLIENT_CHECKS
from servemark.harness.efficiency.facts import Facts
from servemark.harness.efficiency.shares import Share, best, main_dtype

NARROWER = ("fp8", "int8", "fp4")


def facts_of(run: Assessed, rows: list[Share], limits: Mapping[str, Any] | None) -> Facts:
    reached = limits or {}
    if misnamed(rows, reached):  # what rests on the names says nothing
        rows, reached = [row for row in rows if row.how == "measured"], {}
        run = run.without_model()
    mbu, how = best(rows, "mbu")
    mfu, _ = best(rows, "mfu")
    tpot, ttft, batch = (reached.get(name) or {} for name in ("tpot", "ttft", "batch"))
    waiting, kv_usage, running = (run.level(name) for name in ("waiting", "kv_usage", "running"))
    load = run.load
    return Facts(
        mbu=mbu,
        mbu_how=how,
        mfu=mfu,
        **_shares_of_work(run),
        throttled_share=max(
            (each.throttled_share for each in run.serving if each.throttled_share is not None), default=None
        ),
        batch=None if load is None else load.batch,
        running=batch.get("running_mean") if running is None else running.mean,
        largest_batch=batch.get("largest"),
        waiting=None if waiting is None else waiting.mean,
        waiting_share=None if waiting is None else waiting.above_zero,
        kv_usage=None if kv_usage is None else kv_usage.largest,
        preemptions=run.grown("preemptions"),
        requests=0 if load is None else load.requests,
        clients=run.clients,
        rps=run.rate("rps"),
        offered_rps=run.rate("offered_rps"),
        overloaded=run.check("overloaded") in ("warning", "invalid"),
        prompt=None if load is None else load.prompt,
        cached_share=_cached_share(run),
        followed_up=float(np.mean(run.frame["turn"] > 0)) if len(run.frame) else 0.0,
        tpot_ratio=tpot.get("ratio"),
        tpot_binding=tpot.get("binding"),
        ttft_ratio=ttft.get("ratio"),
        icl_p50_ms=run.value("icl", "p50"),
        icl_p99_ms=run.value("icl", "p99"),
        **_deployment(run),
        drafts=run.speculation.drafts,
        accepted=run.speculation.accepted,
        checks={code: severity for code in CLIENT_CHECKS if (severity := run.check(code)) is not None},
    )


def misnamed(rows: list[Share], reached: Mapping[str, Any]) -> bool:
    """Some figure came out as it cannot be: the GPU or the model is not what was named."""
    notes = (each.get("note") for each in reached.values() if isinstance(each, Mapping))
    return any(row.value is None for row in rows) or any(notes)


def _cached_share(run: Assessed) -> float | None:
    """By the requests' own usage, else by the server's counters; None where nobody tells."""
    prefilled = run.seen.prefilled
    told = prefilled.where(run.window.holds(prefilled.stamps))
    known = (run.frame["cached_tokens"][told.rows] >= 0).any()
    prompts = float(told.prompts.sum())
    if not prompts or (not known and run.cached_share is None):
        return None
    return float(told.cached.sum()) / prompts


def _shares_of_work(run: Assessed) -> dict[str, Any]:
    """Parts of the bytes; and of the least time, in which prompts compute and all else moves bytes.

    Weights that are read while a prompt is computed take no time of their own.
    """
    total, gpu, gpus = run.total, run.deployment.gpu, run.deployment.gpus
    if total is None:
        return {}
    moved = float(total.bytes[0])
    if not moved > 0:
        return {}
    found = {"weights_share": float(total.weights[0]) / moved, "kv_share": float(total.kv_read[0]) / moved}
    if gpu is None:
        return found
    computing = sum(float(each[0]) / gpu.flops_per_s(dtype) for dtype, each in total.prefill_flops.items()) / gpus
    moving = moved / gpu.bytes_per_s / gpus
    beside = moving * found["weights_share"] * float(total.prefill_steps[0] / total.steps[0])
    least = computing + moving - min(computing, beside)
    return found | {"busy": least / run.window.seconds, "prefill_share": computing / least}


def _deployment(run: Assessed) -> dict[str, Any]:
    arithmetic, gpu = run.deployment.arithmetic, run.deployment.gpu
    if arithmetic is None:
        return {}
    model, dtype = arithmetic.model, main_dtype(run)
    found = {
        "weights": model.weights,
        "weight_bits": 8 * model.weight_bytes / model.params,
        "kv_bytes": model.kv_element_bytes,
        "compute": dtype,
        "gpus_per_server": arithmetic.layout.gpus_per_server,
        "experts": arithmetic.expert_bytes > 0,
    }
    if gpu is None or dtype is None:
        return found
    faster = [each for each in NARROWER if each in gpu.peaks and gpu.flops_per_s(each) > 1.5 * gpu.flops_per_s(dtype)]
    return found | {
        "narrower": faster[0] if faster and dtype == "bf16" else None,
        "memory_share": arithmetic.resident_bytes / gpu.memory_bytes,
    }

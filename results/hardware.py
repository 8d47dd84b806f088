"""run.json's `hardware`: what a run made of its GPUs, put together from its records, its readings and arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from servemark.harness.clock import SECOND
from servemark.harness.efficiency.assessed import Assessed
from servemark.harness.efficiency.binding import binding
from servemark.harness.efficiency.doubts import believed, doubts
from servemark.harness.efficiency.gap import Gap, explained
from servemark.harness.efficiency.gather import facts_of
from servemark.harness.efficiency.lacks import lacks
from servemark.harness.efficiency.phases import phases
from servemark.harness.efficiency.reached import limits
from servemark.harness.efficiency.shares import Share, databricks, shares
from servemark.harness.efficiency.spent import cost_of, energy_of
from servemark.harness.efficiency.suggestions import suggestions
from servemark.harness.efficiency.timeline import over_time, possible
from servemark.harness.figures.frame import Frame, Window
from servemark.harness.hardware.deployed import Deployed
from servemark.harness.types import GpuSample, ServerSample
from servemark.results.telemetry import telemetry


def hardware_part(
    frame: Frame,
    window: Window,
    samples: Sequence[ServerSample],
    gpu_samples: Sequence[GpuSample],
    watch_facts: Mapping[str, Any],
    deployment: Deployed,
    metrics: Mapping[str, Mapping[str, Any]] | None = None,
    checks: Sequence[Mapping[str, Any]] = (),
    clients: int | None = None,
    zero_ns: int | None = None,
) -> dict[str, Any]:
    """`metrics` and `checks` (of the verdict) are run.json's, `clients` the concurrency of a closed loop.

    `zero_ns` is the start of the schedule, from which times count.
    """
    at_once = window.seconds <= 0
    run = Assessed(
        frame=frame,
        window=frame.whole_window() if at_once else window,
        samples=samples,
        gpu_samples=gpu_samples,
        deployment=deployment.seen(watch_facts.get("gpus") or ()),
        facts=watch_facts,
        metrics=metrics or {},
        checks=checks,
        clients=clients,
        whole_run=at_once,
    )
    rows, reached = shares(run), _limits(run)
    doubted = doubts(run, rows, reached)
    facts = facts_of(run, rows, reached)
    bound = binding(facts)
    trusted = believed(run, rows)
    if trusted is not run:
        rows, reached = [row for row in rows if row.how != "modelled" or row.value is None], None
    return {
        "deployment": run.deployment.facts(),
        "model": _model(run.deployment),
        "gpu": _gpu(run.deployment),
        "telemetry": telemetry(run),
        "efficiency": _efficiency(run, trusted, rows, zero_ns),
        "limits": reached,
        "binding": bound.to_json(),
        "suggestions": [each.to_json() for each in suggestions(facts, bound)],
        "cost": cost_of(trusted),
        "energy": energy_of(run),
        "doubts": doubted,
        "lacks": list(dict.fromkeys((*lacks(trusted, (), None), *doubted))),
    }


def _model(deployment: Deployed) -> dict[str, Any] | None:
    arithmetic, model = deployment.arithmetic, deployment.model
    if arithmetic is None or model is None:
        return None
    return {
        **model.facts(),
        "flops_per_token": dict(arithmetic.token_flops),
        "head_flops": dict(arithmetic.head_flops),
        "resident_bytes_per_gpu": arithmetic.resident_bytes,
    }


def _gpu(deployment: Deployed) -> dict[str, Any] | None:
    gpu = deployment.gpu
    if gpu is None:
        return None
    return {
        "name": gpu.name,
        "title": gpu.title,
        "bandwidth_gb_s": gpu.bandwidth_gb_s,
        "memory_gb": gpu.memory_gb,
        "memory_bytes": gpu.memory_bytes,
        "power_w": gpu.power_w,
        "achievable": gpu.achievable,
        "peaks": {name: peak.dense_tflops for name, peak in gpu.peaks.items()},
        "source": gpu.source,
    }


def _limits(run: Assessed) -> dict[str, Any] | None:
    arithmetic, gpu = run.deployment.arithmetic, run.deployment.gpu
    if arithmetic is None or gpu is None or run.load is None or run.total is None:
        return None
    running = run.level("running")
    mean, told = None if running is None else running.mean, run.deployment.kv_tokens
    return limits(
        arithmetic, gpu, run.load, run.total, run.speculation, run.metrics, mean, run.rate("output_tps"), told
    )


def _efficiency(run: Assessed, trusted: Assessed, rows: Sequence[Share], zero_ns: int | None) -> dict[str, Any]:
    """What was counted is of the run; what is modelled, of what can be `trusted` of it."""
    counted, total = run.steps, run.total
    steps = None if counted is None else counted.count(run.window)
    tokens = None if total is None else float(total.decoded[0] + total.computed[0])
    return {
        "window_s": run.window.seconds,
        "steps": None
        if counted is None
        else {"count": steps, "source": counted.source, "approximate": not counted.agreed, "note": counted.note},
        "tokens_per_step": tokens / steps if tokens is not None and steps else None,
        "decode_batch": None if run.load is None else run.load.batch,
        "bytes": _bytes(trusted),
        "rows": [row.to_json() for row in rows],
        "databricks_mbu": possible(databricks(trusted)),
        "per_phase": _phases(trusted),
        "gap": _gap(trusted),
        "speculation": _speculation(run),
        "over_time": _over_time(run, trusted.deployment.model is not None, zero_ns),
    }


def _bytes(run: Assessed) -> dict[str, float] | None:
    """What the modelled bytes are made of; none where no steps are known."""
    total = run.total
    if total is None or not float(total.bytes[0]) >= 0:
        return None
    names = ("weights", "kv_read", "kv_written", "prompt_kv_read")
    return {name: float(getattr(total, name)[0]) for name in names}


def _phases(run: Assessed) -> dict[str, Any]:
    gpu = run.deployment.gpu
    if gpu is None or run.modeller is None or run.total is None or run.load is None:
        return {}
    return phases(run.frame, run.window, run.modeller, run.total, run.load, gpu).to_json()


def _speculation(run: Assessed) -> dict[str, float | None] | None:
    spec = run.speculation
    if not spec.on:
        return None
    return {
        "tokens_per_step": spec.tokens_per_step,
        "verified_per_token": spec.verified,
        "accepted_share": spec.accepted,
    }


def _gap(run: Assessed) -> list[str]:
    arithmetic, gpu, total = run.deployment.arithmetic, run.deployment.gpu, run.total
    if arithmetic is None or gpu is None or total is None:
        return []
    return explained(
        Gap(
            arithmetic=arithmetic,
            total=total,
            steps=run.steps,
            speculation=run.speculation,
            bytes_per_s=gpu.bytes_per_s,
            driver_bytes_per_s=_highest(run, "peak_bytes_per_s"),
            measured_mbu=run.measured("dram_active"),
            memory_clock_share=_clock(run, "memory_clock"),
            preemptions=run.grown("preemptions"),
            generated=run.grown("generation_tokens"),
            unknown_prompts=run.seen.unknown_prompts,
            cached_told=run.cached_told,
            levels=tuple(mean for each in run.serving if (mean := each.mean("dram_active")) is not None),
            source=str(run.facts.get("source") or ""),
        )
    )


def _clock(run: Assessed, name: str) -> float | None:
    """Of the highest clock that the GPU can have, as the watch knows it."""
    mean, highest = run.measured(name), _highest(run, f"max_{name}_mhz")
    return mean / highest if mean is not None and highest is not None else None


def _highest(run: Assessed, fact: str) -> float | None:
    """Of the GPUs that were read."""
    told = [each.get(fact) for each in run.facts.get("gpus") or () if isinstance(each, Mapping)]
    return max((float(each) for each in told if isinstance(each, int | float) and each > 0), default=None)


def _over_time(run: Assessed, trusted: bool, zero_ns: int | None) -> list[dict[str, Any]]:
    """The whole run, in seconds since its start."""
    whole = run.frame.whole_window()
    modelled = run.over(whole)
    if modelled is None:
        return []
    names = [each.gpu for each in run.serving]
    start_s = 0.0 if zero_ns is None else (whole.start_ns - zero_ns) / SECOND
    each = run.deployment.layout.pipeline / run.speculation.tokens_per_step
    gpu = run.deployment.gpu if trusted else None
    return over_time(modelled, gpu, run.deployment.gpus, run.gpu_samples, names, start_s, each)

"""The flat figures of a run's `summary`, and what its server's metrics say over the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from servemark.harness.server.metric_names import LEVELS
from servemark.harness.server.samples import by_replica, growth, whole
from servemark.results.schema import items, number, part

if TYPE_CHECKING:
    from servemark.harness.figures.frame import Frame
    from servemark.harness.types import ServerSample

LATENCIES = ("ttft", "ttfa", "itl", "icl", "tpot", "e2e")
PERCENTILES = ("p50", "p90", "p95", "p99", "p99_9")
RATES = (
    "output_tps",
    "input_tps",
    "rps",
    "output_tps_run",
    "input_tps_run",
    "rps_run",
    "offered_rps",
    "goodput",
    "goodput_run",
    "goodput_tps",
    "goodput_share",
    "error_rate",
    "give_up_rate",
    "coalesced_share",
)
HARDWARE_FIGURES = (
    "mbu",
    "mfu",
    "mbu_measured",
    "output_tps_per_gpu",
    "usd_per_1m_output",
    "usd_per_1m_output_slo",
    "joules_per_output_token",
)
"""Of what a run made of its hardware, see `hardware_summary`."""


def summary(frame: Frame, metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """`requests*` counts, `<latency>_<percentile>_ms` of the steady window, and the rates, by name."""
    found: dict[str, float | None] = dict(request_counts(frame))
    for name in LATENCIES:
        entry = part(metrics, name)
        found |= {f"{name}_{p}_ms": number(entry[p]) for p in PERCENTILES if p in entry}
    found |= {name: number(part(metrics, name).get("value")) for name in RATES if name in metrics}
    return found


def hardware_summary(hardware: Mapping[str, Any], output_tps: float | None = None) -> dict[str, float | None]:
    """What a run made of its hardware, from run.json's `hardware`: shares of 1, dollars, joules; what is known alone.

    `mbu` and `mfu` are the modelled ones of the steady window. Tokens per GPU need GPUs that somebody named.
    """
    rows = {(str(row.get("what")), str(row.get("how"))): row for row in items(hardware, "efficiency", "rows")}
    shares = {key: number(row.get("value")) for key, row in rows.items()}
    cost, energy = part(hardware, "cost"), part(hardware, "energy")
    gpus = known_gpus(hardware)
    found = {
        "mbu": shares.get(("mbu", "modelled")),
        "mfu": shares.get(("mfu", "modelled")),
        "mbu_measured": shares.get(("mbu", "measured")),
        "output_tps_per_gpu": None if output_tps is None or gpus is None else output_tps / gpus,
        "usd_per_1m_output": number(cost.get("usd_per_1m_output")),
        "usd_per_1m_output_slo": number(cost.get("usd_per_1m_output_at_slo")),
        "joules_per_output_token": number(energy.get("joules_per_output_token")),
    }
    return {name: value for name, value in found.items() if value is not None}


def known_gpus(hardware: Mapping[str, Any]) -> float | None:
    """How many there are, where their kind or their number is known and not merely assumed."""
    deployment = part(hardware, "deployment")
    gpus = number(deployment.get("gpus"))
    assumed = str(deployment.get("layout_source") or "").startswith("assumed")
    return None if not gpus or gpus < 1 or (assumed and not part(hardware, "gpu")) else gpus


def request_counts(frame: Frame) -> dict[str, float | None]:
    """All phases together, and the measured ones; failures by kind are `failed_<kind>`.

    `counted_by_<source>` are the measured successes by who counted their tokens.
    """
    ok, measured = frame.ok, frame.measured
    kinds = Counter(frame["error"][frame.failed].tolist())
    sources = Counter(frame["token_source"][measured & ok].tolist())
    return {
        "requests": len(frame),
        "requests_ok": int(ok.sum()),
        "requests_failed": int(frame.failed.sum()),
        **({"requests_gave_up": int(frame.gave_up.sum())} if frame.gave_up.any() else {}),
        "requests_measured": int(measured.sum()),
        "requests_measured_ok": int((measured & ok).sum()),
        **{f"failed_{kind}": count for kind, count in kinds.most_common()},
        **{f"counted_by_{source}": count for source, count in sources.most_common()},
    }


def server_part(samples: Sequence[ServerSample]) -> dict[str, Any]:
    """The readings of the whole deployment, and of each replica by its address where there are several."""
    replicas = [{"url": url, **_readings(own)} for url, own in by_replica(samples).items()]
    return {**_readings(whole(samples)), "replicas": replicas}


def _readings(samples: Sequence[ServerSample]) -> dict[str, Any]:
    """`start` and `end` readings, `delta` of the counters (None after a reset), `max` of the levels."""
    if not samples:
        return {"start": {}, "end": {}, "delta": {}, "max": {}}
    start, end = dict(samples[0].values), dict(samples[-1].values)
    return {
        "start": start,
        "end": end,
        "delta": {name: growth(samples, name) for name in end if name not in LEVELS} if len(samples) > 1 else {},
        "max": {name: _most(sample.values.get(name) for sample in samples) for name in sorted(LEVELS & end.keys())},
    }


def latencies_of_both(frame: Frame, samples: Sequence[ServerSample]) -> dict[str, Any]:
    """The same latencies by the client's stamps and by the server's count, and the stages that the server tells."""
    from servemark.harness.figures.both_sides import both_sides, stages

    all_in_one = whole(samples)
    sides = both_sides(frame, all_in_one)
    return {
        "both_sides": {
            name: {
                "client_ms": each.client.ms,
                "client_n": each.client.n,
                "client_metric": each.basis,
                "server_ms": each.server.ms,
                "server_n": each.server.n,
                "outside_ms": each.outside_ms,
            }
            for name, each in sides.items()
        },
        "stages": {name: {"ms": side.ms, "n": side.n} for name, side in stages(all_in_one).items()},
    }


def gave_up(frame: Frame, samples: Sequence[ServerSample]) -> dict[str, Any]:
    """Clients that gave up, and what the server did about it; nothing where nobody did."""
    from servemark.harness.figures.hang_ups import hang_ups

    found = hang_ups(frame, whole(samples))
    return {} if found is None else {"gave_up": found.to_json()}


def prefix_hit_rate(server: Mapping[str, Any]) -> float | None:
    """Share of the looked-up prompt tokens that the server's prefix cache had."""
    delta = part(server, "delta")
    hits, queries = number(delta.get("prefix_hits")), number(delta.get("prefix_queries"))
    return hits / queries if hits is not None and queries else None


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)

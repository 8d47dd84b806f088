"""Which, and how many: what a rate of requests needs, why no batch meets an SLO, what bounds cannot tell apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from servemark.dashboards.estimate_words import gigabytes, least, name_of
from servemark.dashboards.hardware import sentence, texts
from servemark.dashboards.words import figure
from servemark.results.schema import items, number, part, text

NO_QUEUEING = "No queueing is in it: requests that arrive by chance wait, and a p99 is worse than what is said here."
FULL = "Servers are counted as always full: bursts, queueing and spares need more."
_ALIKE = 1.005
"""Throughputs per GPU whose ratio is below are the same."""


def fits_nowhere(found: Mapping[str, Any]) -> bool:
    return not any(part(each, "memory").get("fits") is True for each in items(found, "deployments"))


def short(found: Mapping[str, Any]) -> Iterator[str]:
    """Of each deployment that does not hold one request: what is missing, and what would do."""
    for each in items(found, "deployments"):
        memory = part(each, "memory")
        if memory.get("fits") is True:
            continue
        names = ("usable", "weights", "reserved", "kv_bytes_per_request", "short_by")
        sizes = (memory.get(name if "_per_" in name else f"{name}_bytes") for name in names)
        usable, weights, reserved, cache, missing = map(gigabytes, sizes)
        yield (
            f"{name_of(each)} does not fit: of each GPU the engine takes {usable} GB; weights need {weights}, "
            f"activations and runtime {reserved}, the KV cache of one request {cache}. {missing} GB are missing; "
            f"{least(memory.get('least_tensor'))}."
        )


def misses(found: Mapping[str, Any]) -> Iterator[str]:
    """Why no batch of a deployment meets the SLO."""
    for each in items(found, "deployments"):
        why = part(each, "at_slo", "why")
        for kind in ("bound", "predicted"):
            if reasons := texts(why.get(kind)):
                of = " as predicted" if kind == "predicted" else ""
                yield f"{name_of(each)}: none meets it{of}, since {' and '.join(reasons)}."


def needs(found: Mapping[str, Any]) -> Iterator[str]:
    """`needs 3 x h100-sxm TP2: 6 GPUs, $15.0/h`, of each deployment."""
    for each in items(found, "deployments"):
        fleet, name = part(each, "for_rate"), name_of(each, replicas=False)
        if not fleet:
            met = "meets the SLO" if each.get("at_slo") else "does, as one request does not fit into memory"
            yield f"{name}: no number of servers {met}"
            continue
        assumed = ", assumed, not measured" if fleet.get("assumed") else ""
        basis = "at least " if fleet.get("basis") == "bound" else ""
        servers, gpus = (number(fleet.get(key)) or 0 for key in ("servers", "gpus"))
        usd = number(fleet.get("usd_per_hour"))
        cost = "" if usd is None else f", ${figure(usd)}/h"
        yield (
            f"needs {basis}{servers:,.0f} x {name}: {gpus:,.0f} GPU{'s' if gpus != 1 else ''}{cost} "
            f"({figure(number(fleet.get('rps_per_server')))} req/s each at batch "
            f"{number(fleet.get('batch')) or 0:,.0f}{assumed})"
        )


def choice(found: Mapping[str, Any]) -> Iterator[str]:
    """The deployments of the least cost, or of the fewest GPUs; nothing from bounds, which do not rank."""
    fleets = [(each, part(each, "for_rate")) for each in items(found, "deployments")]
    known = [(each, fleet) for each, fleet in fleets if fleet.get("basis") == "predicted"]
    chosen: dict[str, list[str]] = {}
    for key, word in (("usd_per_hour", "cheapest"), ("gpus", "fewest GPUs")):
        values = [value for _, fleet in known if (value := number(fleet.get(key))) is not None]
        if len(known) > 1 and len(values) == len(known):
            best = [name_of(each, replicas=False) for each, fleet in known if number(fleet.get(key)) == min(values)]
            chosen.setdefault(_joined(best), []).append(word)
    yield from (f"{sentence(' and '.join(words))[:-1]}: {names}." for names, words in chosen.items())


def ties(found: Mapping[str, Any]) -> Iterator[str]:
    """Deployments whose GPUs give the same because compute binds them, at the SLO, or at the largest batch.

    Of predictions, where there are any.
    """
    deployments = items(found, "deployments")
    predicted = any(_best(each, "predicted").get("output_tps") for each in deployments)
    points = [(each, _best(each, "predicted" if predicted else "bound")) for each in deployments]
    rates = [
        (name_of(each), number(point.get("output_tps_per_gpu")) or 0)
        for each, point in points
        if point.get("binding") == "compute"
    ]
    what = "one MFU for all of them" if predicted else "bounds"
    for names in _groups(rates):
        yield (
            f"{_joined(names)} give the same per GPU, as all are bound by compute: {what} cannot rank them; "
            "runs on each (--like) can."
        )


def _best(deployment: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    if deployment.get("at_slo"):
        return part(deployment, "at_slo", kind)
    rows = [part(row, kind) for row in items(deployment, "rows")]
    return max(rows, key=lambda point: number(point.get("batch")) or 0, default={})


def _groups(rates: list[tuple[str, float]]) -> Iterator[list[str]]:
    """Names with about the same rate, two at least."""
    group: list[tuple[str, float]] = []
    for name, rate in sorted(rates, key=lambda each: -each[1]):
        if group and rate * _ALIKE < group[0][1]:
            yield from _several(group)
            group = []
        group.append((name, rate))
    yield from _several(group)


def _several(group: list[tuple[str, float]]) -> Iterator[list[str]]:
    if len(group) > 1:
        yield [text(name, 200) for name, _ in group]


def rate_title(found: Mapping[str, Any]) -> str:
    """Empty where no rate was asked for."""
    asked = part(found, "asked")
    rate = number(asked.get("rate"))
    if rate is None:
        return ""
    where = "at the SLO" if asked.get("slo") else "at the largest batch that fits"
    return f"For {rate:,g} requests/s {where}"


def _joined(names: list[str]) -> str:
    """`A, B and C`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))

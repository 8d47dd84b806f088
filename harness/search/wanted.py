"""From the command's flags to what a search is to do: its loads, its claim, and how long each point takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servemark.harness.clock import SECOND
from servemark.harness.errors import BadInput
from servemark.harness.figures.slo import Slo
from servemark.harness.hardware.devices import gpu
from servemark.harness.hardware.prices import price_for
from servemark.harness.plan.arrivals import ClosedLoop
from servemark.harness.plan.spec import Workload
from servemark.harness.search.claims import certified_by, claim_of, requests_for
from servemark.harness.search.loads import LEAST_PRECISION, Axis, By
from servemark.harness.search.points import Claim
from servemark.harness.units import format_duration, parse_duration, parse_rate

LEAST_S = 30
"""So long the arrivals of a point go on at least: a queue that grows takes its time to be seen."""
LEAST_ROUNDS = 10
"""So many requests does each user of a closed loop make at least."""


@dataclass(frozen=True, slots=True)
class Length:
    """How long a run at a load is: `requests`, but no longer than `most_ns`; or `duration`, as the user asks."""

    requests: int
    most_ns: int
    duration: str | None = None
    capped_requests: int | None = None

    def flags(self, axis: Axis, load: float) -> dict[str, Any]:
        """As flags over the workload."""
        if self.duration is not None:
            return {"duration": self.duration, "requests": self.capped_requests}
        least = math.ceil(load * (LEAST_S if axis.by == "rate" else LEAST_ROUNDS))
        return {"requests": max(self.requests, least), "duration": format_duration(self.most_ns)}

    def arrivals(self, rate: float) -> float:
        """So many requests come at this rate in the time that a point may take."""
        return rate * (self.most_ns if self.duration is None else parse_duration(self.duration)) / SECOND


@dataclass(frozen=True, slots=True)
class Wanted:
    """`at_least` is a load that the answer must reach; `price` is dollars an hour for one GPU."""

    axis: Axis
    claim: Claim
    length: Length
    cool_down_ns: int = 0
    at_least: float | None = None
    gpus: int | None = None
    price: float | None = None

    def flags(self, given: Mapping[str, Any], load: float) -> dict[str, Any]:
        """Those of a run at this load, over the ones that were given. A run has no gate: the search has --at-least."""
        at = load if self.axis.by == "rate" else int(load)
        return {**given, "gate": None, self.axis.by: at, **self.length.flags(self.axis, load)}

    def facts(self) -> dict[str, Any]:
        axis, claim, length = self.axis, self.claim, self.length
        return {
            "by": axis.by,
            "from": axis.start,
            "to": axis.end,
            "precision": axis.precision,
            "attainment": claim.attainment,
            "classes": dict(claim.classes),
            "confidence": claim.confidence,
            "confirm": claim.runs,
            "requests": length.requests if length.duration is None else length.capped_requests,
            "point_time": format_duration(length.most_ns) if length.duration is None else length.duration,
            "cool_down": format_duration(self.cool_down_ns),
            "at_least": self.at_least,
            "gpus": self.gpus,
            "gpu_price": self.price,
        }


def wanted(given: Mapping[str, Any], spec: Workload, slo: Slo | None) -> Wanted:
    """`given` are the command's flags. Raises BadInput."""
    if slo is None:
        raise BadInput("a search needs objectives; give them with --slo, as --slo ttft=500ms,tpot=50ms")
    if given.get("gate") and given.get("at_least") is None:
        raise BadInput("--gate of a search needs a load to hold; give it with --at-least")
    axis, shares = _axis(given, spec), _shares(spec)
    claim = claim_of(slo, given["confirm"])
    at_least = None if given.get("at_least") is None else _load("--at-least", given["at_least"], axis.by)
    found = Wanted(
        axis,
        claim,
        _length(given, requests_for(claim, slo, shares)),
        _ns("--cool-down", given["cool_down"]),
        at_least,
        given.get("gpus"),
        _price(given),
    )
    _refuse_uncertified(found, certified_by(slo, shares))
    return found


def _axis(given: Mapping[str, Any], spec: Workload) -> Axis:
    by: By = given.get("by") or ("concurrency" if isinstance(spec.load, ClosedLoop) else "rate")
    if given.get(by) is not None:
        raise BadInput(f"--{by} is what is searched; give its range with --from and --to")
    if by == "concurrency" and given.get("rate") is not None:
        raise BadInput("--rate has no place in a search by concurrency; leave it out, or give --by rate")
    start, end = (_load(f"--{name}", given[name], by) for name in ("from", "to"))
    return Axis(by, start, end, _precision(given["precision"]))


def _load(flag: str, text: str, by: By) -> float:
    try:
        load = parse_rate(text)
    except ValueError as error:
        raise BadInput(f"{flag}: {error}") from None
    if math.isinf(load):
        raise BadInput(f"{flag}: all requests at once are no rate that could be doubled; give a number")
    if by == "concurrency" and load != int(load):
        raise BadInput(f"{flag}: {text} requests in flight cannot be; give a whole number")
    return load


def _precision(text: str) -> float:
    try:
        found = float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        found = 0.0
    if not LEAST_PRECISION <= found <= 1:
        raise BadInput(f"--precision: {text!r} is no share from {LEAST_PRECISION:.1%} to 100%; write 5% or 0.05")
    return found


def _shares(spec: Workload) -> dict[str, float]:
    """What part of all requests each class of a mix is."""
    weights = {name: each.weight for name, each in (spec.classes or {}).items()}
    return {name: weight / sum(weights.values()) for name, weight in weights.items()}


def _length(given: Mapping[str, Any], least: int) -> Length:
    asked = _count("--requests", given.get("requests"))
    most_ns = _ns("--point-time", given["point_time"])
    if not most_ns:
        raise BadInput("--point-time: no time is too short; write 2m")
    return Length(max(least, asked or 0), most_ns, given.get("duration"), asked)


def _refuse_uncertified(found: Wanted, certified: int) -> None:
    """A percentile of too few requests makes a run INVALID, so the search would end at its first point."""
    low = found.axis.low
    enough = certified + 3 * math.sqrt(certified)  # by chance fewer may come than are expected
    if found.axis.by == "rate" and certified and found.length.arrivals(low) < enough:
        flag = "--point-time" if found.length.duration is None else "--duration"
        raise BadInput(
            f"{flag}: at {low:g} req/s about {found.length.arrivals(low):.0f} requests come in that time, and a "
            f"percentile of the SLO takes {certified}; give {flag} {math.ceil(enough / low)}s, or a higher lowest load"
        )


def _count(flag: str, text: Any) -> int | None:
    if text is None:
        return None
    if not str(text).isdecimal() or not int(text):
        raise BadInput(f"{flag}: needs a whole number of requests, not {text!r}")
    return int(text)


def _ns(flag: str, text: str) -> int:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise BadInput(f"{flag}: {error}") from None


def _price(given: Mapping[str, Any]) -> float | None:
    """Of --gpu-price, or of the file of prices."""
    usd, prices = given.get("gpu_price"), given.get("prices")
    if usd is None and prices is None:
        return None
    flag = "--prices" if usd is None else "--gpu-price"
    if given.get("gpus") is None:
        raise BadInput(f"{flag} is for one GPU; say how many there are with --gpus")
    if usd is None and given.get("gpu") is None:
        raise BadInput("--prices: the file has prices by kinds of GPU; name yours with --gpu")
    files = tuple(map(Path, given.get("gpu_file") or ()))
    kind = None if usd is not None else gpu(given["gpu"], files)
    found = price_for(None if kind is None else kind.name, usd, prices and Path(prices), files)
    if found is None:
        raise BadInput(f"--prices: {prices} has no price of {given['gpu']}; add it, or give --gpu-price")
    return found.usd_per_gpu_hour

"""What is known of one load: all of its runs together, and whether that meets the SLO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from servemark.harness.search.proportion import CONFIDENCE, inflation, interval, spelled_out

State = Literal["meets", "misses", "uncertain"]
"""Proved to meet the SLO, proved to miss it, or neither."""


@dataclass(frozen=True, slots=True)
class Series:
    """The requests of one run, good and bad in turn (see `proportion.stretches`), and how much they lie together (see
    `strain.clumping`)."""

    stretches: tuple[int, ...] = ()
    clumping: float = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run: its requests, and of a mix those of each class.

    `held`: every limit on the run was met and the queue did not only grow. `void`: the client was not up to it, so
    the run says nothing.
    """

    load: float
    series: Series = Series()
    held: bool = True
    void: bool = False
    classes: Mapping[str, Series] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Claim:
    """What is to be met: a share of all requests (None: no such share is asked for), in `runs` runs.

    `classes` holds the shares that are asked of the classes of a mix.
    """

    attainment: float | None
    runs: int = 3
    confidence: float = CONFIDENCE
    classes: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Share:
    """`good` of `requests`, which are worth `effective` independent ones, and the interval of the share."""

    good: int
    requests: int
    effective: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Point:
    """A load's runs, pooled. `passes` goes by the shares themselves, `state` by their intervals.

    `held` and `alone` count the runs that held their limits, and those that would pass by themselves.
    """

    load: float
    runs: int
    share: Share
    held: int
    alone: int
    passes: bool
    state: State
    classes: Mapping[str, Share] = field(default_factory=dict)

    @property
    def flawless(self) -> bool:
        """More runs like these could not be any better."""
        return all(each.good == each.requests for each in (self.share, *self.classes.values()))


def pooled(load: float, outcomes: Sequence[Outcome], claim: Claim) -> Point:
    """Of the runs at one load that count."""
    share = _share([each.series for each in outcomes], claim.confidence)
    of_class = {name: [each.classes.get(name, Series()) for each in outcomes] for name in claim.classes}
    classes = {name: _share(series, claim.confidence) for name, series in of_class.items()}
    held = sum(each.held for each in outcomes)
    passes = _enough(share, classes, claim) and 2 * held > len(outcomes)
    state = _state(_judged(share, classes, claim), held, len(outcomes), claim)
    alone = sum(_alone(each, claim) for each in outcomes)
    return Point(load, len(outcomes), share, held, alone, passes, state, classes)


def _share(series: Sequence[Series], confidence: float) -> Share:
    runs = [spelled_out(each.stretches) for each in series]
    good, requests = sum(map(sum, runs)), sum(map(len, runs))
    clumping = sum(each.clumping * len(run) for each, run in zip(series, runs, strict=True)) / max(1, requests)
    effective = requests / max(inflation(runs), clumping)
    return Share(
        good, requests, effective, *interval(good * effective / requests if requests else 0, effective, confidence)
    )


def _judged(share: Share, classes: Mapping[str, Share], claim: Claim) -> list[tuple[Share, float]]:
    """Each share with the one that is asked for."""
    found = [(classes[name], attainment) for name, attainment in claim.classes.items()]
    return found if claim.attainment is None else [(share, claim.attainment), *found]


def _enough(share: Share, classes: Mapping[str, Share], claim: Claim) -> bool:
    judged = _judged(share, classes, claim)
    return share.requests > 0 and all(each.good >= attainment * each.requests for each, attainment in judged)


def _alone(outcome: Outcome, claim: Claim) -> bool:
    share, classes = _counted(outcome.series), {name: _counted(each) for name, each in outcome.classes.items()}
    return outcome.held and _enough(share, {name: classes.get(name, _NONE) for name in claim.classes}, claim)


def _counted(series: Series) -> Share:
    good, requests = sum(series.stretches[::2]), sum(series.stretches)
    return Share(good, requests, requests, 0.0, 1.0)


_NONE = _counted(Series())


def _state(judged: Sequence[tuple[Share, float]], held: int, runs: int, claim: Claim) -> State:
    """A limit on the run has one answer a run, so that takes all of them, and as many as were asked for."""
    if any(share.high < attainment for share, attainment in judged) or (held == 0 and runs >= claim.runs):
        return "misses"
    proved = all(share.low >= attainment for share, attainment in judged) and held == runs
    return "meets" if proved and (judged or runs >= claim.runs) else "uncertain"

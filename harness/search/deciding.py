"""What a search measures next, or its answer: a pure function of the runs so far, whatever their order was.

Up by doubling from the first load until one misses (or down by halving until one meets), then the geometric middle of
the bracket until it is narrow, then its two ends in turn until each has its runs. An end that changes sides moves the
bracket, and the search goes on from there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from servemark.harness.search.loads import Axis
from servemark.harness.search.points import Claim, Outcome, Point, pooled

TRIES = 2
"""So often may the client fail at a load before the search takes it for more than the client can do."""

Why = Literal["bracket", "bisect", "confirm", "prove", "again"]
Kind = Literal["found", "below", "above", "client", "void"]


@dataclass(frozen=True, slots=True)
class Measure:
    """Make a run at this load. `why` is a word for people."""

    load: float
    why: Why


@dataclass(frozen=True, slots=True)
class Answer:
    """`load` is the highest whose pooled runs meet the SLO, `failing` the lowest above it whose do not.

    `proved` is the highest load up to `load` that is proved to meet it, `refuted` the lowest above it that is proved to
    miss it. `odd` are loads below `load` that miss it all the same, `split` loads whose runs disagree.

    Kinds: `found`; `below`: even the lowest load misses it (`failing`); `above`: the highest still meets it;
    `client`: above `load` the client, and not the server, is the limit; `void`: the client can measure nothing.
    """

    kind: Kind
    load: float | None = None
    failing: float | None = None
    proved: float | None = None
    refuted: float | None = None
    odd: tuple[float, ...] = ()
    split: tuple[float, ...] = ()


def points_of(outcomes: Iterable[Outcome], claim: Claim) -> dict[float, Point]:
    """Each load that has a run which counts, in order."""
    runs = defaultdict(list)
    for outcome in outcomes:
        if not outcome.void:
            runs[outcome.load].append(outcome)
    return {load: pooled(load, runs[load], claim) for load in sorted(runs)}


def decide(axis: Axis, claim: Claim, outcomes: Sequence[Outcome]) -> Measure | Answer:
    voids: dict[float, int] = defaultdict(int)
    for outcome in outcomes:
        voids[outcome.load] += outcome.void
    known = Known(axis, claim, points_of(outcomes, claim), voids)
    return known.again() or known.bracketed() or known.confirmed() or known.narrowed() or known.answer()


@dataclass(frozen=True, slots=True)
class Known:
    """The runs so far. Each step gives the run that it still wants, or None."""

    axis: Axis
    claim: Claim
    points: dict[float, Point]
    voids: dict[float, int]

    @property
    def stuck(self) -> list[float]:
        """Loads at which the client failed as often as it may, and never did better."""
        return [load for load, count in self.voids.items() if count >= TRIES and load not in self.points]

    @property
    def failing(self) -> list[float]:
        """For the bracket a load that cannot be measured is like one that misses."""
        return sorted([*(load for load, point in self.points.items() if not point.passes), *self.stuck])

    @property
    def best(self) -> float | None:
        """The highest load that passes."""
        return max((load for load, point in self.points.items() if point.passes), default=None)

    @property
    def worse(self) -> float | None:
        """The lowest load above the best that fails; where none passes, the lowest of all."""
        best = self.best
        return min((load for load in self.failing if best is None or load > best), default=None)

    def again(self) -> Measure | None:
        retried = (load for load, count in self.voids.items() if 0 < count < TRIES and load not in self.points)
        return next((Measure(load, "again") for load in retried), None)

    def bracketed(self) -> Measure | None:
        best, worse = self.best, self.worse
        if best is None and worse is None:
            return Measure(self.axis.start, "bracket")
        if best is not None and worse is not None:
            middle = self.axis.between(best, worse)
            return None if middle is None else Measure(middle, "bisect")
        further = self.axis.above(best) if best is not None else self.axis.below(worse or 0)
        return None if further is None else Measure(further, "bracket")

    def confirmed(self) -> Measure | None:
        """The ends of the bracket in turn, then what fails below it."""
        ends = [load for load in (self.best, self.worse) if load is not None and self._wanting(load)]
        if ends:
            return Measure(min(ends, key=lambda load: self.points[load].runs), "confirm")
        return next((Measure(load, "confirm") for load in self.odd if self._wanting(load)), None)

    def narrowed(self) -> Measure | None:
        """Where an end is not proved, the next load outside the bracket may be, and then the interval ends there."""
        best, worse = self.best, self.worse
        passing = [x for x, point in self.points.items() if best is not None and point.passes and x <= best]
        failing = [x for x, point in self.points.items() if worse is not None and not point.passes and x >= worse]
        for outwards in (passing[::-1], failing):
            load = self._unproved(outwards)
            if load is not None:
                return Measure(load, "prove")
        return None

    def _unproved(self, outwards: Iterable[float]) -> float | None:
        """The first load that more runs may prove, unless one before it is proved, or could not be any better."""
        for load in outwards:
            point = self.points[load]
            if point.state != "uncertain":
                return None
            if self._wanting(load):
                return load
            if point.flawless:
                return None
        return None

    def _wanting(self, load: float) -> bool:
        return load in self.points and self.points[load].runs < self.claim.runs and self.voids.get(load, 0) < TRIES

    @property
    def odd(self) -> list[float]:
        best = self.best
        return [load for load, point in self.points.items() if best is not None and load < best and not point.passes]

    def answer(self) -> Answer:
        best, worse = self.best, self.worse
        return Answer(
            kind=self._kind(),
            load=best,
            failing=worse,
            proved=max((x for x, p in self.points.items() if p.state == "meets" and x <= (best or 0)), default=None),
            refuted=min((x for x, p in self.points.items() if p.state == "misses" and x > (best or 0)), default=None),
            odd=tuple(self.odd),
            split=tuple(load for load, point in self.points.items() if 0 < point.alone < point.runs),
        )

    def _kind(self) -> Kind:
        if self.worse is None:
            return "above"
        if self.worse in self.points:
            return "below" if self.best is None else "found"
        return "void" if self.best is None else "client"

"""The clock of another machine against ours: offsets from round trips, with bounds that hold.

A trip has four stamps, as NTP's: we send, they are asked, they answer, we get it. How long they took over the answer
drops out; what is left is the time on the way. The true offset lies within half of that of the midpoint, whichever way
was the slower one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from servemark.harness.clock import MS, SECOND

DRIFT_PPM = 200
"""How fast two clocks are taken to part at most: crystals differ by some 50 ppm, and NTP slews them further."""


def _drifted(time_ns: int) -> int:
    """How far two clocks part in so long, at most."""
    return time_ns * DRIFT_PPM // 1_000_000


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """`sent_ns` and `got_ns` are on our clock, `asked_ns` and `answered_ns` on theirs."""

    sent_ns: int
    asked_ns: int
    answered_ns: int
    got_ns: int

    @property
    def delay_ns(self) -> int:
        """On the way, both ways together."""
        return (self.got_ns - self.sent_ns) - (self.answered_ns - self.asked_ns)

    @property
    def sane(self) -> bool:
        """Their clock ran forwards, and they took no longer than we waited; ticks of 1 ns aside."""
        return 0 <= self.answered_ns - self.asked_ns <= self.got_ns - self.sent_ns + MS

    def offset(self) -> Offset:
        """Theirs less ours."""
        doubled = (self.asked_ns - self.sent_ns) + (self.answered_ns - self.got_ns)
        uncertainty_ns = max(self.delay_ns, 0) // 2 + _drifted(self.got_ns - self.sent_ns) + 1
        return Offset(doubled // 2, uncertainty_ns, (self.sent_ns + self.got_ns) // 2)


@dataclass(frozen=True, slots=True)
class Offset:
    """Their clock less ours, at most `uncertainty_ns` wrong at our time `at_ns`."""

    offset_ns: int
    uncertainty_ns: int
    at_ns: int

    def uncertainty_at(self, at_ns: int) -> int:
        """It grows with the distance, since clocks drift."""
        return self.uncertainty_ns + _drifted(abs(at_ns - self.at_ns))

    def agrees(self, other: Offset) -> bool:
        """Whether one clock can be both."""
        room = self.uncertainty_at(other.at_ns) + other.uncertainty_ns
        return abs(self.offset_ns - other.offset_ns) <= room


def best(trips: Iterable[RoundTrip]) -> Offset | None:
    """Of the trip that was the least time on the way; None where there is none that makes sense."""
    known = [trip for trip in trips if trip.sane]
    return min(known, key=lambda trip: trip.delay_ns).offset() if known else None


class RemoteClock:
    """Their stamps on our clock, learnt from every trip: a better one replaces what has aged."""

    def __init__(self) -> None:
        self.first: Offset | None = None
        self.now: Offset | None = None
        self.trips = 0
        self.jumps = 0
        self._worst_ns = 0

    def learn(self, *trips: RoundTrip) -> None:
        """The best of these trips. One that contradicts what was known is a clock that was set anew."""
        self.trips += len(trips)
        found = best(trips)
        if found is None:
            return
        if self.now is not None and not self.now.agrees(found):
            self.jumps += 1
            self.first = self.now = found
        elif self.now is None or found.uncertainty_ns <= self.now.uncertainty_at(found.at_ns):
            self.now = found
        self.first = self.first or found

    def ours(self, theirs_ns: int) -> int | None:
        """That moment on our clock; None while nothing is known of theirs."""
        if self.now is None:
            return None
        at_ns = theirs_ns - self.now.offset_ns
        self._worst_ns = max(self._worst_ns, self.now.uncertainty_at(at_ns))
        return at_ns

    def facts(self) -> dict[str, Any]:
        """Offset in s, for clocks of machines that started at other times; all else in ms."""
        if self.first is None or self.now is None:
            return {"offset_s": None, "trips": self.trips}
        return {
            "offset_s": self.now.offset_ns / SECOND,
            "uncertainty_ms": max(self.now.uncertainty_ns, self._worst_ns) / MS,
            "trips": self.trips,
            "jumps": self.jumps,
            **_drift(self.first, self.now),
        }


def _drift(first: Offset, last: Offset) -> dict[str, Any]:
    """How the clocks parted between two offsets, and how sure that is; None where they are one."""
    apart_ns = last.at_ns - first.at_ns
    if apart_ns <= 0:
        return {"drift_ppm": None, "drift_uncertainty_ppm": None}
    return {
        "drift_ppm": (last.offset_ns - first.offset_ns) / apart_ns * 1e6,
        "drift_uncertainty_ppm": (last.uncertainty_ns + first.uncertainty_ns) / apart_ns * 1e6,
    }

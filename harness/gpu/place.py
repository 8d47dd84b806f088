"""One exporter's address beside a run: what its answers become, and what is to be said of it in the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from servemark.harness.clock import SECOND
from servemark.harness.gpu.answers import Answer, Exporter, Reading
from servemark.harness.gpu.clocks import RemoteClock, RoundTrip
from servemark.harness.types import GpuSample

_NO_CLOCK = "it does not say when it read a GPU: a reading is stamped at the middle of the request that first had it"
_SELDOM = 2.0
"""An exporter whose values are new this many times more seldom than it is asked is spoken of."""


class Place:
    """Keeps the exporter's clock and what it told last: what is told again is no new sample."""

    def __init__(self, url: str, exporter: Exporter, chosen: Sequence[str] = ()) -> None:
        self.url = url
        self.exporter = exporter
        self.clock = RemoteClock()
        self.told: Mapping[str, Any] = {}
        self._chosen = tuple(each.strip().lower() for each in chosen)
        self._last: dict[str, Reading] = {}
        self._readings = 0
        self._failures = 0
        self._last_failure: str | None = None
        self._asked_ns = 0
        self._news: list[int] = []
        self._cpu_s: tuple[float, float] | None = None

    def failed(self, why: str) -> None:
        self._failures += 1
        self._last_failure = why.partition(";")[0]

    def learn(self, answer: Answer, sent_ns: int, got_ns: int) -> None:
        """What an answer says of the exporter and its clock."""
        if answer.asked_ns is not None and answer.answered_ns is not None:
            trip = RoundTrip(sent_ns, answer.asked_ns, answer.answered_ns, got_ns)
            if not trip.sane:
                raise ValueError("its clock ran further than ours while it was asked")
            self.clock.learn(trip)
        self.told = answer.facts
        if (cpu_s := answer.facts.get("cpu_s")) is not None:
            self._cpu_s = (cpu_s if self._cpu_s is None else self._cpu_s[0], cpu_s)

    def samples(self, answer: Answer, sent_ns: int, got_ns: int, again: bool = False) -> list[GpuSample]:
        """What is new in it, on our clock; with `again` also what is not. Raises ValueError for an absurd clock."""
        self.learn(answer, sent_ns, got_ns)
        self._readings += 1
        wanted = self.gpus()
        middle_ns = self._asked_ns = (sent_ns + got_ns) // 2
        new = [each for each in answer.readings if self._last.get(each.gpu) != each]
        if new:
            self._news.append(middle_ns)
        found = []
        for reading in answer.readings if again and answer.asked_ns is None else new:
            self._last[reading.gpu] = reading
            at_ns = middle_ns if reading.at_ns is None else self.clock.ours(reading.at_ns)
            if reading.gpu in wanted and reading.values and at_ns is not None:
                found.append(GpuSample(at_ns, reading.gpu, reading.values))
        return found

    def gpus(self) -> set[str]:
        """Those that were chosen by index or UUID, or all; of a GPU under MIG its instances come with it."""
        there = self.told.get("gpus", ())
        if not self._chosen:
            return {each["gpu"] for each in there}
        whole = {each["gpu"] for each in there if self._is_chosen(each)}
        return whole | {each["gpu"] for each in there if each.get("part_of") in whole}

    def _is_chosen(self, described: Mapping[str, Any]) -> bool:
        index, uuid = str(described.get("index")), str(described["gpu"]).lower()
        return any(name == index or (len(name) > 4 and uuid.startswith(name)) for name in self._chosen)

    @property
    def always_the_same(self) -> bool:
        return len(self._news) < 2

    @property
    def news_every_s(self) -> float | None:
        """How often its values were new, or how long at least they were not; None before it was asked twice."""
        if not self._news or self._asked_ns == self._news[0]:
            return None
        last_ns = self._asked_ns if self.always_the_same else self._news[-1]
        return (last_ns - self._news[0]) / max(len(self._news) - 1, 1) / SECOND

    def facts(self) -> dict[str, Any]:
        """As a GpuWatch's, of this address alone."""
        wanted = self.gpus()
        gpus = [self._on_our_clock(each) for each in self.told.get("gpus", ()) if each["gpu"] in wanted]
        return {"gpus": gpus, "missing": dict(self.told.get("missing", {}))}

    def _on_our_clock(self, described: Mapping[str, Any]) -> dict[str, Any]:
        """When a GPU was lost is told on the exporter's clock."""
        found = {**described, "exporter": self.url}
        lost = described.get("lost")
        if isinstance(lost, dict) and isinstance(lost.get("at_ns"), int):
            found["lost"] = {**lost, "at_ns": self.clock.ours(lost["at_ns"])}
        return found

    def about(self) -> dict[str, Any]:
        """For the result: what was asked, how often, and how often in vain."""
        found = {
            "url": self.url,
            "exporter": self.exporter.name,
            "readings": self._readings,
            "failures": self._failures,
            "last_failure": self._last_failure,
            "news_every_s": self.news_every_s,
        }
        if (period_s := self.told.get("exporter_period_s")) is not None:
            found["exporter_period_s"] = period_s
        if self._cpu_s is not None:
            found["exporter_cpu_s"] = self._cpu_s[1] - self._cpu_s[0]
        return found

    def clock_facts(self) -> dict[str, Any]:
        if self.clock.trips:
            return {"url": self.url, **self.clock.facts()}
        return {"url": self.url, "offset_s": None, "why": _NO_CLOCK}

    def notes(self, period_s: float) -> list[str]:
        """Sentences: what the exporter says itself, and what went wrong with it."""
        found = [f"{self.url}: {note}" for note in self.told.get("notes", ())]
        if not self.gpus():
            there = ", ".join(f"{each.get('index')} ({each['gpu']})" for each in self.told.get("gpus", ()))
            asked_for = f" of the GPUs asked for ({', '.join(self._chosen)})" if self._chosen else ""
            found.append(f"{self.url} tells of none{asked_for}: it has {there or 'no GPU'}")
        if self._failures:
            asked = self._readings + self._failures
            found.append(f"{self.url} failed {self._failures} of {asked} readings; the last one: {self._last_failure}")
        if self.clock.jumps:
            found.append(f"the clock of {self.url} jumped {self.clock.jumps} times: was its machine started again?")
        if self.exporter.slowest_s and self._readings > 2:
            found += self._seldom(max(period_s, self.exporter.slowest_s))
        return found

    def _seldom(self, asked_every_s: float) -> list[str]:
        every_s = self.news_every_s or 0.0
        if self.always_the_same:
            return [f"{self.url} told the same values all the time; {_COLLECTS}"]
        if every_s > _SELDOM * asked_every_s:
            return [f"{self.url} had new values every {every_s:.1f} s only; {_COLLECTS}"]
        return []


_COLLECTS = "a dcgm-exporter collects every 30 s unless it is started with -c (1000 is every second)"

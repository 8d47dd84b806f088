"""Two accounts of the same GPUs made one: what the first does not tell of a GPU comes from the second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from servemark.harness.gpu.watch import GpuWatch
from servemark.harness.types import GpuSample

OnSample = Callable[[GpuSample], None]

_SETTLED = 3
"""Readings of a GPU after which a source has told every field that it will: rates and GPM need one before them."""
_MOST_HELD = 1000


class Merger:
    """Hands on the samples of several sources, the better ones first, no field of a GPU from two of them.

    A source's samples of a GPU that a better one knows are held until it is clear what that one tells.
    """

    def __init__(self, on_sample: OnSample, sources: Sequence[str]) -> None:
        self.samples = 0
        self._on_sample = on_sample
        self._names = tuple(sources)
        self._expected: list[set[str]] = [set() for _ in sources]
        self._told: list[dict[str, set[str]]] = [{} for _ in sources]
        self._count: list[dict[str, int]] = [{} for _ in sources]
        self._held: list[list[GpuSample]] = [[] for _ in sources]

    def expect(self, source: int, gpus: set[str]) -> None:
        """The GPUs that it knows, said before its samples come."""
        self._expected[source] |= gpus

    def take(self, source: int, sample: GpuSample) -> None:
        self._count[source][sample.gpu] = self._count[source].get(sample.gpu, 0) + 1
        self._told[source].setdefault(sample.gpu, set()).update(sample.values)
        if self._settled(source, sample.gpu):
            self._hand(source, sample)
        else:
            self._held[source].append(sample)
        self.release(_MOST_HELD)

    def release(self, most: int = 0) -> None:
        """Hands on what nothing stands against any more, and everything where more than `most` are held."""
        for source, held in enumerate(self._held):
            if not held:
                continue
            full = len(held) > most
            self._held[source] = [s for s in held if not full and not self._settled(source, s.gpu)]
            for sample in held:
                if full or self._settled(source, sample.gpu):
                    self._hand(source, sample)

    def _settled(self, source: int, gpu: str) -> bool:
        return all(
            gpu not in self._expected[better] or self._count[better].get(gpu, 0) >= _SETTLED for better in range(source)
        )

    def _hand(self, source: int, sample: GpuSample) -> None:
        taken = {field for better in self._told[:source] for field in better.get(sample.gpu, ())}
        values = {name: value for name, value in sample.values.items() if name not in taken}
        if values:
            self.samples += 1
            self._on_sample(GpuSample(sample.at_ns, sample.gpu, values))

    def sources(self, gpu: str) -> dict[str, list[str]]:
        """Source -> the fields of this GPU that came from it."""
        taken: set[str] = set()
        found: dict[str, list[str]] = {}
        for name, told in zip(self._names, self._told, strict=True):
            own = told.get(gpu, set()) - taken
            taken |= own
            if own:
                found[name] = sorted({*found.get(name, ()), *own})
        return found

    def facts(self, told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The GPUs of all sources, each once, and what none of them tells; `told` are their own facts, in order."""
        gpus: dict[str, dict[str, Any]] = {}
        for each in told:
            for described in each.get("gpus", ()):
                known = gpus.setdefault(described["gpu"], {})
                for key, value in described.items():
                    if known.get(key) is None:
                        known[key] = value
        for gpu, described in gpus.items():
            described["sources"] = self.sources(gpu)
        return {"samples": self.samples, "gpus": list(gpus.values()), "missing": _missing(told, self._all_told())}

    def _all_told(self) -> dict[str, set[str]]:
        """GPU -> fields, from whom ever."""
        found: dict[str, set[str]] = {}
        for told in self._told:
            for gpu, fields in told.items():
                found.setdefault(gpu, set()).update(fields)
        return found


def _missing(told: Sequence[Mapping[str, Any]], all_told: Mapping[str, set[str]]) -> dict[str, str]:
    """What a source lacks and no GPU has from another one. With one source that is its own word."""
    have = set.intersection(*all_told.values()) if all_told else set()
    sources = [each for each in told if each.get("gpus")]
    found: dict[str, list[str]] = {}
    for each in sources:
        for field, why in each.get("missing", {}).items():
            if field not in have and why not in found.setdefault(field, []):
                found[field].append(why)
    return {field: "; ".join(whys) for field, whys in found.items()}


async def all_of(*several: Coroutine[Any, Any, None]) -> None:
    """All at once. The first that fails ends the others, and its error is raised as it is."""
    running = [asyncio.create_task(each) for each in several]
    try:
        await asyncio.gather(*running)
    finally:
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def merged_watch(
    first: Callable[[OnSample], GpuWatch], second: Callable[[OnSample], GpuWatch], on_sample: OnSample
) -> GpuWatch:
    """Both, made here so that their samples come by: `first` is believed where both tell the same of a GPU."""
    merger = Merger(on_sample, ("first", "second"))
    watches = [make(_taker(merger, place)) for place, make in enumerate((first, second))]
    return MergedWatch(merger, watches)


def _taker(merger: Merger, source: int) -> OnSample:
    return lambda sample: merger.take(source, sample)


class MergedWatch:
    """A GpuWatch of two; see merged_watch."""

    def __init__(self, merger: Merger, watches: Sequence[GpuWatch]) -> None:
        self._merger = merger
        self._watches = tuple(watches)

    def begin(self) -> None:
        for place, watch in enumerate(self._watches):
            watch.begin()
            self._merger.expect(place, {each["gpu"] for each in watch.facts()["gpus"]})

    async def run(self) -> None:
        await all_of(*(watch.run() for watch in self._watches))

    def end(self) -> None:
        for watch in self._watches:
            watch.end()
        self._merger.release()

    def facts(self) -> dict[str, Any]:
        told = [watch.facts() for watch in self._watches]
        useful = [each for each in told if each["gpus"]] or told
        others: dict[str, Any] = {}
        for each in useful:
            others = {**each, **others}
        own = self._merger.facts(told)
        names = [str(each["source"]) for each in useful if each["source"]]
        for described in own["gpus"]:
            described["sources"] = {
                str(told[("first", "second").index(name)]["source"]): fields
                for name, fields in described["sources"].items()
            }
        notes = [note for each in useful for note in each["notes"]]
        return {**others, **own, "source": " + ".join(dict.fromkeys(names)) or None, "notes": notes}

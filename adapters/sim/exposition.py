"""Figures as Prometheus text."""

from __future__ import annotations

from collections.abc import Mapping

from servemark.adapters.sim.stats import Histogram

Value = float | Mapping[str, float]
"""One value, or one for each text of labels, such as `reason="capacity"`."""


class Page:
    """Collects metrics; `labels` go to each of them, as `name="value"` with commas between."""

    def __init__(self, labels: str = "") -> None:
        self._labels = labels
        self._lines: list[str] = []

    def gauge(self, name: str, about: str, value: Value) -> None:
        self._family(name, about, "gauge", value)

    def counter(self, name: str, about: str, value: Value) -> None:
        self._family(name, about, "counter", value)

    def histogram(self, name: str, about: str, histogram: Histogram, labels: str = "") -> None:
        self._head(name, about, "histogram")
        total = 0
        for bound, count in zip((*map(float, histogram.bounds), "+Inf"), histogram.counts, strict=True):
            total += count
            self._sample(f"{name}_bucket", _joined(labels, f'le="{bound}"'), total)
        self._sample(f"{name}_count", labels, total)
        self._sample(f"{name}_sum", labels, histogram.sum)

    def text(self) -> bytes:
        return "\n".join([*self._lines, ""]).encode()

    def _family(self, name: str, about: str, kind: str, value: Value) -> None:
        self._head(name, about, kind)
        for labels, one in value.items() if isinstance(value, Mapping) else [("", value)]:
            self._sample(name, labels, one)

    def _head(self, name: str, about: str, kind: str) -> None:
        self._lines += [f"# HELP {name} {about}.", f"# TYPE {name} {kind}"]

    def _sample(self, name: str, labels: str, value: float) -> None:
        every = _joined(self._labels, labels)
        self._lines.append(f"{name}{{{every}}} {float(value)}" if every else f"{name} {float(value)}")


def _joined(*labels: str) -> str:
    return ",".join(filter(None, labels))

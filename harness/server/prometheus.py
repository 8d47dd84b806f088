"""The Prometheus text format -> values by name, summed over labels. Pure; no I/O.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (timestamps and exemplars are read past).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
# Possessive: what cannot be read is given up at once, and not tried in every way there is to share out its blanks.
_LABELS = r'(?:\s*+[a-zA-Z_][a-zA-Z0-9_.]*+\s*+=\s*+"(?:[^"\\]|\\.)*+"\s*+,?)*+\s*+'
_LINE = re.compile(rf"({_NAME})(?:\{{({_LABELS})\}})?\s+(\S+)(?:\s+[-+0-9.eE]+)?(?:\s+#.*)?\s*", re.ASCII)
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_.]*)\s*=\s*"((?:[^"\\]|\\.)*)"')
_TERM = rf"(?:(max|sum)\()?({_NAME})(?:\{{({_LABELS})\}})?(\))?"
_SELECTOR = re.compile(rf"{_TERM}(?: / (?:{_TERM}|(\d+(?:\.\d+)?(?:e\d+)?)))?", re.ASCII)
_ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Series:
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """One reading. A histogram is its series `<name>_sum`, `<name>_count` and `<name>_bucket`, as exposed."""

    series: Mapping[str, tuple[Series, ...]]

    def value(self, selector: str) -> float | None:
        """Sum over labels of `name` or `name{label="value"}`; `max(...)` takes the largest instead.

        `a / b` divides one by another, or by a number. A counter may be named with or without its `_total`. None where
        no series matches or the divisor is 0; NaN values are left out.
        """
        match = _SELECTOR.fullmatch(selector)
        if match is None or any(bool(match[opened]) != bool(match[opened + 3]) for opened in (1, 5)):
            raise ValueError(f'{selector!r} selects no metric: write name, name{{label="value"}}, max(name) or a / b')
        value = self._reduced(*match.group(1, 2, 3))
        if match[9] is None and match[6] is None:
            return value
        divisor = float(match[9]) if match[9] else self._reduced(*match.group(5, 6, 7))
        return value / divisor if value is not None and divisor else None

    def _reduced(self, reduction: str | None, name: str, labels: str | None) -> float | None:
        wanted = _labels(labels or "").items()
        values = [s.value for s in self._of(name) if wanted <= s.labels.items() and not math.isnan(s.value)]
        if not values:
            return None
        return max(values) if reduction == "max" else math.fsum(values)

    def labels(self, name: str) -> list[Mapping[str, str]]:
        """The labels of each series of a metric: how `_info` metrics carry settings."""
        return [series.labels for series in self._of(name)]

    def select(self, names: Mapping[str, Iterable[str]]) -> dict[str, float]:
        """Our name -> value, by the first selector that has one; names without a value are left out."""
        found: dict[str, float] = {}
        for ours, selectors in names.items():
            value = next((v for selector in selectors if (v := self.value(selector)) is not None), None)
            if value is not None:
                found[ours] = value
        return found

    def _of(self, name: str) -> tuple[Series, ...]:
        return self.series.get(name) or self.series.get(f"{name}_total") or ()


def parse_metrics(body: bytes | str) -> Metrics:
    """ValueError, naming the line, for anything that is not the text format, and for a body without one sample."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    series: dict[str, list[Series]] = {}
    for name, one in _read(text):
        series.setdefault(name, []).append(one)
    if not series:
        raise ValueError("these are no Prometheus metrics: there is not one sample")
    return Metrics({name: tuple(several) for name, several in series.items()})


def _read(text: str) -> Iterator[tuple[str, Series]]:
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"line {number} is no Prometheus sample: {line[:80]!r}")
        try:
            value = float(match[3])
        except ValueError:
            raise ValueError(f"line {number} has no number for a value: {line[:80]!r}") from None
        yield match[1], Series(_labels(match[2] or ""), value)


def _labels(text: str) -> dict[str, str]:
    return {name: _unescape(value) for name, value in _LABEL.findall(text)}


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda m: "\n" if m[1] == "n" else m[1], text) if "\\" in text else text

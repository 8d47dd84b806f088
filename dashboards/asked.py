"""What load was made, in a few lines: arrivals, prompts, time and tokens, in the workload file's own words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from servemark.results.schema import number, part, text

_KINDS = ("arrivals", "source", "distribution")
"""Keys that name what a section is; its other keys follow in brackets, as in the short forms of the file."""
_CHARS = 400
_NOTES = 12
_NOTHING = (None, False, "", "0s", "text")
"""Values that say nothing; `text` is what prompts are made of unless ids are asked for."""


def load_facts(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Label and value of each line; only what the result says."""
    asked = part(run, "workload", "resolved")
    found = [
        ("arrivals", _short(part(asked, "load"))),
        ("prompts", _short(part(asked, "prompts"))),
        *_classes(part(asked, "classes")),
        ("time", _time(part(asked, "run"))),
        ("give up", _short(part(asked, "request", "give_up"))),
        ("data", _data(part(run, "schedule"))),
        ("tokens", _tokens(part(run, "metrics"))),
    ]
    return [(label, value) for label, value in found if value]


def _classes(classes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What each class of a mix sends, and how often."""
    for name in list(classes)[:32]:
        weight = number(part(classes, name).get("weight"))
        share = f", weight {weight:.6g}" if weight is not None else ""
        yield f"class {text(name, 40)}", _short(part(classes, name, "prompts")) + share


def _short(value: Any) -> str:
    """`poisson(rate=8)`; `lognormal(median=1020, p95=2300)`; values that are nothing are left out."""
    if not isinstance(value, Mapping):
        plain = number(value)
        return f"{plain:.12g}" if plain is not None and not isinstance(value, bool) else text(value, 120)
    kind = next((key for key in _KINDS if key in value), None)
    inside = ", ".join(_named(value, kind))[:_CHARS]
    if kind is None:
        return inside
    name = text(value[kind], 40)
    if value.keys() == {"distribution", "tokens"}:
        return text(value["tokens"], 20)
    return f"{name}({inside})" if inside else name


def _named(section: Mapping[str, Any], kind: str | None) -> Iterator[str]:
    for key, value in section.items():
        said = ", ".join(map(_item, value)) if isinstance(value, list | tuple) else _short(value)
        if isinstance(value, Mapping) and said and not any(each in value for each in _KINDS):
            said = f"({said})"
        if key != kind and value not in _NOTHING and said:
            yield f"{text(key, 40)}={said}"


def _data(schedule: Mapping[str, Any]) -> str:
    """How what was sent differs from the data."""
    notes = schedule.get("notes")
    return "; ".join(text(note, 300) for note in notes[:_NOTES]) if isinstance(notes, list) else ""


def _item(value: Any) -> str:
    return f"({_short(value)})" if isinstance(value, Mapping) else _short(value)


def _time(section: Mapping[str, Any]) -> str:
    """`10s of warm-up, then 60s`."""
    warmup, duration, requests = (section.get(key) for key in ("warmup", "duration", "requests"))
    first = "" if not warmup or warmup == "0s" else text(warmup, 20) + (" requests" if number(warmup) else "")
    ends = [text(duration, 20)] if duration else []
    ends += [f"{number(requests) or 0:,.0f} requests"] if requests else []
    then = " or ".join(ends)
    return f"{first} of warm-up, then {then}" if first and then else f"{first} of warm-up" if first else then


def _tokens(metrics: Mapping[str, Any]) -> str:
    """What the measured answers took in and gave out, and of how many requests."""
    sums = []
    for name, word in (("prompt_tokens", "in"), ("output_tokens", "out")):
        n, mean = (number(part(metrics, name).get(key)) for key in ("n", "mean"))
        if n and mean:
            sums.append(f"{n * mean:,.0f} {word} ({mean:,.0f} a request)")
    return ", ".join(sums)

"""Places in the data of a workload by their dotted paths, as errors print them: `load.rate`, `slo.limits[1]`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from copy import deepcopy
from itertools import pairwise
from typing import Any

from servemark.harness.errors import BadInput
from servemark.harness.plan.yaml_lines import Path, dotted, read_value

FLAG = "--set"
_KEY = r'(?:"(?P<quoted>[^"]+)"|(?P<bare>[^\s."\[\]=]+))'
_PART = re.compile(rf"(?:^|\.){_KEY}|\[(?P<item>\d{{1,6}})\]")


def parse_path(text: str) -> Path:
    """A key with a dot in it stands in double quotes. Raises ValueError."""
    path: list[str | int] = []
    end = 0
    while end < len(text) or not path:
        found = _PART.match(text, end)
        if found is None or (not path and text[0] in ".["):
            raise ValueError(f"{text!r} is no path of a field; write it as load.rate or slo.limits[1]")
        path.append(int(found["item"]) if found["item"] is not None else found["quoted"] or found["bare"])
        end = found.end()
    return tuple(path)


def read_settings(texts: Iterable[str]) -> dict[str, Any] | None:
    """Path -> value of `PATH=VALUE`s, each value as YAML; None of none. Raises BadInput."""
    found: dict[str, Any] = {}
    for text in texts:
        path, equals, value = _halves(text)
        if not equals:
            raise BadInput(f"{FLAG} {text}: needs a path and a value, as {FLAG} load.max_concurrency=64")
        if path in found:
            raise BadInput(f"{FLAG} {path}: is given twice; keep one of them")
        try:
            parse_path(path)
            found[path] = read_value(value)
        except ValueError as error:
            raise BadInput(f"{FLAG} {path}: {error}") from None
    return found or None


def _halves(text: str) -> tuple[str, str, str]:
    """At the first = that stands in no quotes."""
    end = next((place for place, letter in enumerate(text) if letter == "=" and text[:place].count('"') % 2 == 0), None)
    return (text.strip(), "", "") if end is None else (text[:end].strip(), "=", text[end + 1 :])


def put_at(data: dict[str, Any], path: Path, value: Any) -> list[Path]:
    """Sets the place, with the mappings above it that are not there yet. -> what was set. Raises ValueError."""
    here: Any = data
    made = []
    for depth, (part, below) in enumerate(pairwise(path), start=1):
        if _is_empty(here, part, path[: depth - 1]) and isinstance(below, str):
            here[part] = {}
            made.append(path[:depth])
        here = here[part] if isinstance(part, int) else here.get(part)
        _refuse_leaf(here, below, path[:depth])
    _is_empty(here, path[-1], path[:-1])
    here[path[-1]] = deepcopy(value)
    return [path, *made]


def _is_empty(here: Any, part: str | int, path: Path) -> bool:
    if isinstance(part, int):
        if part >= len(here):
            raise ValueError(f"{dotted(path)} has {len(here)} items, and the first is [0]; set it as a whole")
        return here[part] is None
    return here.get(part) is None


def _refuse_leaf(here: Any, below: str | int, path: Path) -> None:
    if isinstance(below, str) and not isinstance(here, dict):
        raise ValueError(f"{dotted(path)} is {here!r} and holds no keys; set it as a whole")
    if isinstance(below, int) and not isinstance(here, list):
        raise ValueError(f"{dotted(path)} is no list; set it as a whole")


def touches(path: Path, value: Any, place: Path) -> bool:
    """Whether a value set at a path sets something at, in, or around the place."""
    if path[: len(place)] == place:
        return True
    below: Iterator[str | int] = iter(place[len(path) :])
    if place[: len(path)] != path:
        return False
    for part in below:
        if not isinstance(value, dict) or part not in value:
            return False
        value = value[part]
    return True

"""Distributions in short: `normal(480, 240)` or `lognormal(4s, p95=20s)`, whose arguments fill keys in their order."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

_CALL = re.compile(r"^\s*(\w+)\s*\(([^()]*)\)\s*$")


def called(text: str) -> tuple[str, list[str]] | None:
    """Name and arguments; None where the text is no call."""
    match = _CALL.match(text)
    return None if match is None else (match[1], [part for part in map(str.strip, match[2].split(",")) if part])


def filled(
    parts: Sequence[str],
    order: Sequence[str],
    value_of: Callable[[str, str], Any],
    too_many: Callable[[], str],
) -> dict[str, Any]:
    """Key -> `value_of(key, text)`, of `key=text` and of texts by position; ValueError where of these are too many."""
    values = {}
    for position, part in enumerate(parts):
        key, equals, text = part.rpartition("=")
        if not equals and position >= len(order):
            raise ValueError(too_many())
        name = key.strip() if equals else order[position]
        values[name] = value_of(name, text.strip())
    return values

"""Names of the parts of a matrix, for people and for folders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_LONGEST = 160


def slug(name: str) -> str:
    """Safe as the name of a folder."""
    return re.sub(r"[^A-Za-z0-9._=+]+", "-", name).strip("-._")[:_LONGEST] or "unnamed"


def flattened(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that are set by their paths stand beside the flags."""
    fields = flags.get("set")
    if not isinstance(fields, Mapping):
        return dict(flags)
    return {name: value for name, value in flags.items() if name != "set"} | dict(fields)


def label(settings: Mapping[str, Any], otherwise: str = "") -> str:
    """`rate=2 concurrency=32`; true stands for itself."""
    settings = flattened(settings)
    said = (name if value is True else f"{name}={value}" for name, value in settings.items() if value is not False)
    return " ".join(said) or otherwise

"""Lengths in short: `500`, `uniform(100, 200)`, `lognormal(1020, p95=2300)`; and as users of other tools write them:
`D(100)`, `N(480,240)`, `U(100,200)`, or input and output at once, as `D(100,1000)` and `N(480,240)/(300,150)`.
"""

from __future__ import annotations

import re
from typing import Any

from servemark.harness.plan.calls import called, filled
from servemark.harness.plan.lengths.base import LENGTHS

LETTERS = {"D": "fixed", "N": "normal", "U": "uniform"}
"""The names in one letter: deterministic, normal, uniform."""
PATTERN = r"^\s*(\d+|\w+\s*\(.*\))\s*$"
BOTH_PATTERN = r"^\s*(D\s*\(.*,.*\)|(\d+|\w+\s*\(.*\))\s*/\s*(\d+|\w*\s*\(.*\)))\s*$"

_BARE = re.compile(r"^\s*\(([^()]*)\)\s*$")


def spell_out(value: Any) -> Any:
    """One length as the mapping that it stands for; mappings as they are. Raises ValueError."""
    if isinstance(value, bool | float | None):
        raise ValueError(f"{value!r} is no length; write a whole number such as 500, or uniform(100, 200)")
    if isinstance(value, int):
        return {"distribution": "fixed", "tokens": value}
    return _from_text(value) if isinstance(value, str) else value


def spell_out_both(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Input and output. Raises ValueError."""
    first, slash, second = text.partition("/")
    call = called(first)
    if not slash:
        name, parts = _call(text)
        if name != "fixed" or len(parts) != 2:
            raise ValueError(
                f"{text!r} names one length; write input and output, as D(100,1000) or N(480,240)/(300,150)"
            )
        return _from_text(f"fixed({parts[0]})"), _from_text(f"fixed({parts[1]})")
    if call and _BARE.match(second):
        second = call[0] + second.strip()
    return _from_text(first), _from_text(second)


def _call(text: str) -> tuple[str, list[str]]:
    """Name and arguments. Raises ValueError."""
    call = called(text)
    if call is None:
        cut = text.count("(") != text.count(")")
        do = "put it in quotes, as a comma ends a value inside { }" if cut else "write 500, or uniform(100, 200)"
        raise ValueError(f"{text!r} is no length; {do}")
    name = LETTERS.get(call[0], call[0].lower())
    if name not in LENGTHS:
        raise ValueError(f"there is no length distribution {name!r}; there are: {', '.join(LENGTHS)}")
    return name, call[1]


def _from_text(text: str) -> dict[str, Any]:
    if re.fullmatch(r"\s*\d+\s*", text):
        return {"distribution": "fixed", "tokens": int(text)}
    name, parts = _call(text)
    order = [key for key, field in LENGTHS[name].model_fields.items() if field.is_required()]

    def number(_key: str, said: str) -> float | int:
        try:
            return _number(said)
        except ValueError:
            raise ValueError(f"{said!r} in {text!r} is no number") from None

    return {"distribution": name, **filled(parts, order, number, lambda: _too_many(name, parts, order))}


def _too_many(name: str, parts: list[str], order: list[str]) -> str:
    if name == "fixed" and len(parts) == 2:
        return f"D({','.join(parts)}) is input and output, and here is one of them; write one number, as D({parts[0]})"
    if not order:
        return f"{name} has no short form; write `distribution: {name}` and its keys"
    return f"{name} takes {', '.join(order)} by position; name the others, as in min=1"


def _number(text: str) -> float | int:
    return int(text) if re.fullmatch(r"\d+", text) else float(text)

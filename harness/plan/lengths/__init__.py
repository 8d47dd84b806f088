"""Length distributions in tokens. A draw is the inverse distribution at a uniform number, so it has no state.

A new one is a decorated class with a `distribution` literal and `draw(u)`, in a module of this folder: it is found by
its name.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from servemark.harness.plan.lengths.base import LENGTHS, Lengths, together, with_data
from servemark.harness.plan.lengths.field import LengthsField

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

from servemark.harness.plan.lengths.pairs import Both, Pairs, PairsField, both_of_text, drawn_apart  # noqa: E402

__all__ = [
    "LENGTHS",
    "Both",
    "Lengths",
    "LengthsField",
    "Pairs",
    "PairsField",
    "both_of_text",
    "drawn_apart",
    "together",
    "with_data",
]

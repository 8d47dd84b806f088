"""A field of the workload file that holds a distribution of lengths, spelled out or in short."""

from __future__ import annotations

from typing import Annotated

from servemark.harness.plan.lengths.base import LENGTHS, Lengths
from servemark.harness.plan.lengths.shorthand import PATTERN, spell_out
from servemark.harness.plan.strict import Registered

SHORT: tuple[dict[str, object], ...] = ({"type": "integer", "minimum": 1}, {"type": "string", "pattern": PATTERN})
"""The JSON Schemas of what may stand in place of a mapping."""

LengthsField = Annotated[Lengths, Registered(LENGTHS, "distribution", spell_out, SHORT)]
"""A field that holds any registered distribution, or a shorthand for one: `500`, `uniform(100, 200)`, `N(480,240)`."""

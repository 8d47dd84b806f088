"""Words of `bench estimate`'s flags: whole numbers in lists and ranges, sizes of a context, shares."""

from __future__ import annotations

import re

from servemark.harness.errors import BadInput

MOST_CONTEXT = 10**9
_MULTIPLES = {"": 1, "k": 1 << 10, "m": 1 << 20}
_SIZE = re.compile(r"(\d{1,10}(?:\.\d{1,6})?)\s*([km]?)", re.ASCII)
_SHARE = re.compile(r"(\d{0,4}(?:\.\d{1,12})?)\s*(%?)", re.ASCII)
LEAST_SHARE = 0.01


def context_tokens(text: str) -> int:
    """`131072`, or `128k` with k for 1,024 as models' contexts are called. Raises BadInput."""
    found = _SIZE.fullmatch(text.strip().lower().replace(",", ""))
    tokens = float(found[1]) * _MULTIPLES[found[2]] if found else 0.0
    if not 1 <= tokens <= MOST_CONTEXT or tokens != int(tokens):
        raise BadInput(f"--context {text!r}: give a number of tokens, as 131072, or 128k for that (k is 1,024)")
    return int(tokens)


def share(flag: str, text: str) -> float:
    """`0.7` or `70%`. Raises BadInput."""
    found = _SHARE.fullmatch(text.strip())
    value = float(found[1]) / (100 if found[2] else 1) if found and found[1] else 0.0
    if not LEAST_SHARE <= value <= 1:
        percent = f"; did you mean {text.strip()}%?" if found and not found[2] and 1 < value <= 100 else ""
        raise BadInput(f"{flag} {text!r}: give the share of the peak that is reached, as 0.7 or 70%{percent}")
    return value

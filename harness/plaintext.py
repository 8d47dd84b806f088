"""Text that others wrote, made safe for a terminal: what steers one is spelled out, as JSON spells it."""

from __future__ import annotations

import re

# C0 and C1 but for tab and line feed, DEL, line separators, and what turns the direction of writing.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_LONGEST = 300


def harmless(text: str) -> str:
    """Lines stay lines; a string of JSON stays the same string."""
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str, limit: int = _LONGEST) -> str:
    """A name or an answer inside a sentence: what looks like a sentence of ours begins no line of its own."""
    short = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return harmless(" ".join(short.split()))

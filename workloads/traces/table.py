"""The rows of a trace as compact columns, and an account of those that could not be used."""

from __future__ import annotations

from array import array
from pathlib import Path

from servemark.harness.plan.bad_rows import BadRows

MOST_TOKENS = 10**9
LATEST_NS = 1 << 62


class Table:
    """What is known of each usable row, in the file's order, in 16 bytes each. A source with more adds columns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.what = f"rows of {path.name}"
        self.at_ns = array("q")
        self.input_tokens, self.output_tokens = array("I"), array("I")
        self.bad = BadRows()
        self.left_out = 0
        """Rows that the source was asked to leave out."""
        self.notes: list[str] = []
        self.origin_ns: int | None = None
        """When the trace begins and ends, where that is not with its first and last row."""
        self.end_ns: int | None = None

    def __len__(self) -> int:
        return len(self.at_ns)

    @property
    def there(self) -> int:
        """Rows in the file, usable or not."""
        return len(self) + self.bad.count + self.left_out

    def add(self, at_ns: int, input_tokens: int, output_tokens: int) -> None:
        """A row. Raises ValueError for what no trace can hold, and then adds nothing."""
        if not 0 <= at_ns < LATEST_NS:
            raise ValueError(f"a time of {at_ns} ns is out of bounds")
        if not (0 <= input_tokens <= MOST_TOKENS and 0 <= output_tokens <= MOST_TOKENS):
            raise ValueError(f"lengths of {input_tokens} and {output_tokens} tokens are out of bounds")
        self.at_ns.append(at_ns)
        self.input_tokens.append(input_tokens)
        self.output_tokens.append(output_tokens)


def tokens(text: str) -> int:
    """A number of tokens as a CSV file holds it; `472.0` is one too. Raises ValueError."""
    if text.isdecimal():
        return int(text)
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number of tokens") from None
    return whole(number)


def whole(value: object) -> int:
    """A number of tokens as a JSON file holds it. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        return tokens(value)
    raise ValueError(f"{value!r} is no number of tokens")

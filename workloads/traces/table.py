"""The rows of a trace as compact columns, and an account of those that could not be used."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path

from servemark.harness.errors import BadInput

MOST_TOKENS = 10**9
LATEST_NS = 1 << 62
_NAMED = 3
_CHARS = 120


class BadRows:
    """Rows that cannot be read: how many, and where the first of them stand and why."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[str] = []

    def add(self, place: object, why: object) -> None:
        self.count += 1
        if len(self.first) < _NAMED:
            self.first.append(f"line {place}: {said(why)}")

    def check(self, path: Path, good: int) -> None:
        """A file of which more than half is unreadable is another one than was meant. Raises BadInput."""
        if self.count > good:
            raise BadInput(
                f"{path}: {self.count:,} of {self.count + good:,} rows cannot be read, the first in {self.first[0]}; "
                "repair the file, or set prompts.source to the source that it is for"
            )

    def note(self) -> Iterator[str]:
        if self.count:
            are = "is" if self.count == 1 else "are"
            more = " and more" if self.count > _NAMED else ""
            yield f"{counted(self.count, 'row')} {are} left out as unreadable: {'; '.join(self.first)}{more}"


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


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def said(why: object) -> str:
    """What a row's error says, made short and harmless: it may quote the file."""
    text = "it has too few cells" if isinstance(why, IndexError) else str(why)
    text = "".join(char if char.isprintable() else "?" for char in text)
    return text if len(text) <= _CHARS else text[: _CHARS - 1] + "…"


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

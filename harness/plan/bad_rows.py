"""An account of the rows of a data file that cannot be read: they are counted and named, not silently dropped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from servemark.harness.errors import BadInput

_NAMED = 3
"""Bad rows that a note names; the others are counted."""
_CHARS = 120


class BadRows:
    """How many rows cannot be read, and where the first of them stand and why."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[str] = []

    def add(self, place: str, why: object, rows: int = 1) -> None:
        """`place` and `why` make a sentence: "line 3" and "is no JSON", or "line 3:" and what is wrong."""
        self.count += rows
        if len(self.first) < _NAMED:
            self.first.append(f"{place} {said(why)}")

    def check(self, path: Path, good: int) -> None:
        """A file of which more than half is unreadable is another one than was meant. Raises BadInput."""
        if self.count > good:
            raise BadInput(
                f"{path}: {self.count:,} of {counted(self.count + good, 'row')} cannot be read, the first in "
                f"{self.first[0]}; repair the file, or set prompts.source to the source that it is for"
            )

    def note(self, rows: int, of: str = "") -> Iterator[str]:
        """A sentence for the result, of a file with so many rows in all; `of` names it."""
        if self.count:
            others = self.count - len(self.first)
            more = f"; and {others:,} more" if others else ""
            yield f"{self.count:,} of {counted(rows, 'row')}{of} left out as unreadable: {'; '.join(self.first)}{more}"


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def said(why: object) -> str:
    """What a row's error says, made short and harmless: it may quote the file."""
    text = "it has too few cells" if isinstance(why, IndexError) else str(why)
    text = "".join(char if char.isprintable() else "?" for char in text)
    return text if len(text) <= _CHARS else text[: _CHARS - 1] + "…"

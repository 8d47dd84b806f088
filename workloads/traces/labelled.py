"""Traces whose rows say more than times and lengths: a class, a session, the prompt itself."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from servemark.harness.errors import BadInput
from servemark.harness.plan.data_files import digest_of
from servemark.harness.plan.sources import Given, PromptMaker
from servemark.harness.types import Request
from servemark.workloads.datasets.beginnings import SAMPLE, Beginnings
from servemark.workloads.datasets.counting import TextCounter
from servemark.workloads.traces.prepared import MADE_UP, PreparedTrace
from servemark.workloads.traces.selection import Chosen
from servemark.workloads.traces.table import Table
from servemark.workloads.traces.texts import Texts

MOST_CLASSES = 64
"""A column with more different values is no class: each has its own rows in the results."""
_CHARS = 80


class Labels:
    """A column of names, each kept once."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {"": 0}
        """To numbers; 0 is no name."""
        self.rows = array("I")

    def add(self, value: object) -> None:
        name = "" if value is None else str(value).strip()[:_CHARS]
        self.rows.append(self.names.setdefault(name, len(self.names)))


class LabelledTable(Table):
    """`classes`, `sessions` and `texts` have rows where the trace's columns for them are named."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.classes, self.sessions = Labels(), Labels()

    @cached_property
    def texts(self) -> Texts:
        return Texts()


class LabelledTrace(PreparedTrace):
    """Requests with the class and the session of their rows."""

    def __init__(
        self, maker: PromptMaker, chosen: Chosen, table: LabelledTable, differences: tuple[str, ...] = (MADE_UP,)
    ) -> None:
        super().__init__(maker, chosen, digest_of(table.path), differences)
        if len(table.classes.names) > MOST_CLASSES:
            raise BadInput(
                f"{table.path}: the column of prompts.class_by has {len(table.classes.names):,} different values; "
                f"take one with {MOST_CLASSES} at most, since each has its own rows in the results"
            )
        self._classes = list(table.classes.names)
        self._class_of, self._session_of = table.classes.rows, table.sessions.rows

    def request(self, index: int) -> Request:
        return self.labelled(super().request(index))

    def labelled(self, request: Request) -> Request:
        lap, place = self.chosen.place(request.index)
        row = int(self.chosen.rows[place])
        class_ = self._classes[self._class_of[row]] if self._class_of else ""
        session = self._session_of[row] if self._session_of else 0
        session_id = (f"{session}.{lap}" if lap else str(session)) if session else None
        return replace(request, class_=class_ or request.class_, session_id=session_id)


class RecordedPrompts(LabelledTrace):
    """Requests with the trace's own prompts, in every pass the same."""

    def __init__(self, maker: PromptMaker, chosen: Chosen, table: LabelledTable, given: Given) -> None:
        super().__init__(maker, chosen, table, ())
        self.most_tokens = None  # recorded prompts have lengths of their own
        self._texts = table.texts
        self._counter = TextCounter(given.vocabulary)
        places = range(0, len(chosen.rows), -(-len(chosen.rows) // SAMPLE))
        self._beginnings = Beginnings([self._text(place) for place in places], self._counter.of)

    def _text(self, place: int) -> str:
        return self._texts[int(self.chosen.rows[place])]

    def lengths(self, index: int) -> tuple[int | None, int | None]:
        place = self.chosen.place(index)[1]
        return self._counter.asked(self._text(place)), self.asked(place)[1]

    def request(self, index: int) -> Request:
        place = self.chosen.place(index)[1]
        text = self._text(place)
        request = self.maker.of_text(index, text, self._counter.asked(text), self.asked(place)[1])
        return self.labelled(replace(request, prefixes=self._beginnings.of(text, self._counter.lead)))

    def repeated(self) -> Iterator[Request]:
        """Each prompt that comes more than once, once."""
        seen: dict[int, bool] = {}
        for index in range(len(self.chosen.rows)):
            text = hash(self._text(index))
            again = text in seen or self.chosen.passes > 1
            if again and not seen.get(text, False):
                yield self.request(index)
            seen[text] = again

"""What data sets of prompts have in common: which rows are sent, in which order, how long an answer is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from servemark.harness.errors import BadInput
from servemark.harness.plan.draws import uniform
from servemark.harness.plan.lengths import LengthsField
from servemark.harness.plan.sources import SOURCES, Given, Prepared, PromptSource
from servemark.harness.plan.strict import Count
from servemark.harness.plan.times import Fixed, TimesField
from servemark.harness.types import Request
from servemark.workloads.datasets.counting import TextCounter
from servemark.workloads.datasets.dialogues import Dialogue
from servemark.workloads.datasets.prepared import Dialogues
from servemark.workloads.datasets.rows import Rows, open_json
from servemark.workloads.datasets.survey import MOST_CLASSES, Survey, surveyed

AT_ONCE = Fixed.model_validate({"time": "0s"})


class DataSet(PromptSource):
    """A file of prompts, each with the answer that was recorded to it, if one was."""

    where: ClassVar[str] = ""
    """Where the data set is published."""

    tokens: Literal["text"] = Field(default="text", description="these prompts are texts")
    path: str = Field(description="the data file; a relative path starts at the workload file's folder")
    output_tokens: LengthsField | None = Field(
        default=None, description="length of the answer that is asked for; without it that of the recorded one"
    )
    min_input_tokens: Count | None = Field(default=None, description="rows whose first prompt is shorter are left out")
    max_input_tokens: Count | None = Field(default=None, description="rows whose longest prompt is longer are left out")
    max_output_tokens: Count | None = Field(default=None, description="rows with a longer recorded answer are left out")
    shuffle: bool = Field(default=False, description="take the rows in another order than the file's (seed `order`)")
    loop: bool = Field(default=False, description="begin again after the last row, so that prompts come again")

    @model_validator(mode="after")
    def _one_length(self) -> DataSet:
        if self.output_tokens is not None and self.max_output_tokens is not None:
            raise ValueError("max_output_tokens is about the recorded answers, which output_tokens replaces; keep one")
        return self

    @property
    def finite(self) -> bool:  # type: ignore[override]
        return not self.loop

    @property
    def unique(self) -> bool:
        return not self.loop

    def prepare(self, given: Given) -> Prepared:
        rows, counter = self.rows(given), TextCounter(given.vocabulary)
        survey = surveyed(self, rows, counter)
        if not survey.kept:
            raise BadInput(nothing_left(self, rows, survey))
        if len(survey.classes) > MOST_CLASSES:
            raise BadInput(
                f"{rows.path}: class_by gives more than {MOST_CLASSES} classes; name a field of fewer values"
            )
        return Dialogues(self, given, rows, counter, survey)

    def repeats(self, prepared: Prepared) -> Iterator[Request]:
        assert isinstance(prepared, Dialogues)
        return (prepared.request(index) for index in range(len(prepared.rows) if self.loop else 0))

    def rows(self, given: Given) -> Rows:
        return open_json(self.file(given), self.missing)

    def file(self, given: Given) -> Path:
        # Joining an absolute path gives that path.
        return given.folder / Path(self.path).expanduser()

    @property
    def missing(self) -> str:
        """What to do where there is no file."""
        published = f"; it is published at {self.where}" if self.where else ""
        return f"set prompts.path in the workload file, or --data{published}"

    def dialogue(self, rows: Rows, row: int) -> Dialogue:
        """What is sent of a row. Raises ValueError, whose text says what is wrong with the row."""
        return self.read(rows.object(row))

    @classmethod
    def fits(cls, row: dict[str, Any]) -> bool:
        """Whether a row looks like one of this data set."""
        return False

    def read(self, row: dict[str, Any]) -> Dialogue:
        """A row of the file. Raises ValueError, whose text goes on from "line 3 "."""
        raise NotImplementedError

    def think_ns(self, seed: int, index: int, turn: int) -> int:
        """The pause before a later turn."""
        return 0


class Conversations(DataSet):
    """A data set whose rows may be conversations of several turns."""

    turns: Literal["first", "all", "last"] = Field(
        default="all",
        description="of a conversation send the first message only; all, as a session that holds the server's own "
        "answers; or the last one, after the recorded ones before it",
    )
    max_turns: Count | None = Field(default=None, description="at most so many turns of a conversation")
    think_time: TimesField = Field(default=AT_ONCE, description="pause of the user before each later turn")

    def dialogue(self, rows: Rows, row: int) -> Dialogue:
        found = super().dialogue(rows, row)
        if self.turns == "all" and self.max_turns is None:
            return found
        kept = found.exchanges[: 1 if self.turns == "first" else self.max_turns]
        return found._replace(exchanges=kept, sent=len(kept) - 1 if self.turns == "last" else 0)

    def think_ns(self, seed: int, index: int, turn: int) -> int:
        return self.think_time.draw_ns(uniform(seed, b"think %d" % turn, index))


def nothing_left(params: DataSet, rows: Rows, survey: Survey) -> str:
    """Why no row of the file can be sent, and what to do."""
    if not len(rows):
        return f"{rows.path}: the file holds no rows; see that it is the whole file"
    if survey.bad.count < len(rows):
        return f"{rows.path}: no row is left ({'; '.join(survey.notes())}); widen the limits in prompts"
    said = f"{rows.path}: no row is one of the source {params.source} ({survey.bad.first[0]})"
    others = [name for name in fitting(rows) if name != params.source]
    if others:
        return f"{said}; the file looks like one for prompts.source: {' or '.join(others)}"
    return f"{said}; see that prompts.source and the file belong together"


def fitting(rows: Rows) -> list[str]:
    """The sources whose data sets have rows like the file's first."""
    try:
        row = rows.object(0)
    except ValueError:
        return ["text"] if rows.is_text(0) else []
    return [name for name, source in SOURCES.items() if issubclass(source, DataSet) and source.fits(row)]

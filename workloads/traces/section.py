"""The section `prompts` of a source that replays a trace, and how such a source makes itself ready."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from servemark.harness.errors import BadInput
from servemark.harness.plan.data_files import csv_rows, digest_of, header_of
from servemark.harness.plan.sources import SOURCES, Given, Prepared, PromptMaker, PromptSource, Seeds
from servemark.harness.plan.strict import Count
from servemark.workloads.traces.files import opened, places
from servemark.workloads.traces.prepared import PreparedTrace
from servemark.workloads.traces.selection import Chosen, Slice, choose
from servemark.workloads.traces.table import Table

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class TraceSource(PromptSource):
    """Lengths and times that were recorded. A source says how its file is read into a table; the rest is here."""

    finite = True
    timed = True
    nothing: ClassVar[str] = "no rows; see that it is the whole file"
    """The end of a sentence about a trace that is empty."""
    marks: ClassVar[tuple[str, ...]] = ()
    """Words in the first line of its files, by which they are known where another source was named."""

    path: str = Field(description="the trace's file; a relative path starts at the workload file's folder")
    slice: Slice = Field(default=Slice(), description="the part that is replayed, in the trace's own time")
    loop: Count = Field(default=1, description="replay the slice so many times, one after the other")
    min_input_tokens: Count | None = Field(default=None, description="the shortest input that is sent")
    max_input_tokens: Count | None = Field(default=None, description="the longest input that the server can carry")
    min_output_tokens: Count | None = Field(default=None, description="the shortest output that is asked for")
    max_output_tokens: Count | None = Field(default=None, description="the longest output that is wanted")
    over_limit: Literal["clip", "drop"] = Field(
        default="clip",
        description="what happens to rows outside a limit: their length becomes it, or they go",
    )
    shuffle: bool = Field(
        default=False, description="deal the lengths out in another order (seed `order`); the times stay"
    )

    @model_validator(mode="after")
    def _limits_in_order(self) -> TraceSource:
        for name in ("input_tokens", "output_tokens"):
            least, most = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if least is not None and most is not None and least > most:
                raise ValueError(f"min_{name} is {least} and max_{name} {most}: no row is between them")
        return self

    def prepare(self, given: Given) -> Prepared:
        # Joining an absolute path gives that path.
        path = given.folder / Path(self.path).expanduser()
        table = self.read(path, given)
        table.bad.check(path, len(table) + table.left_out)
        if not table.there:
            raise BadInput(f"{path}: the trace holds {self.nothing}")
        maker = PromptMaker(given, self.tokens)
        maker.check_least("prompts.max_input_tokens", self.max_input_tokens)
        return self.made(given, maker, table, choose(table, self, given.seeds))

    def read(self, path: Path, given: Given) -> Table:
        """All rows of the file. Raises BadInput where it is none of this source's."""
        raise NotImplementedError

    def made(self, given: Given, maker: PromptMaker, table: Table, chosen: Chosen) -> Prepared:
        return PreparedTrace(maker, chosen, digest_of(table.path))

    def spread_ns(self, at_ns: npt.NDArray[np.int64], seeds: Seeds) -> npt.NDArray[np.int64]:
        """The times of all rows, in order, before anything is cut from them."""
        return at_ns

    def guess(self, first_line: str) -> str:
        """The end of a sentence about a file that is another source's."""
        fits = [
            name
            for name, source in SOURCES.items()
            if issubclass(source, TraceSource) and source.marks and all(mark in first_line for mark in source.marks)
        ]
        return f"; set prompts.source to {' or '.join(fits)} for this file" if fits else ""


class CsvTrace(TraceSource):
    """A CSV file with a header."""

    def read(self, path: Path, given: Given) -> Table:
        table = self.table(path)
        with opened(path) as file, closing(csv_rows(file, table.bad)) as rows:
            add = self.adder(places(path, header_of(path, rows), self.columns(), self.guess), table)
            for line, cells in rows:
                try:
                    add(cells)
                except (ValueError, IndexError) as error:
                    table.bad.add(f"line {line}:", error)
        return table

    def table(self, path: Path) -> Table:
        return Table(path)

    def columns(self) -> tuple[str, ...]:
        """The names of those that are read."""
        raise NotImplementedError

    def adder(self, at: list[int], table: Table) -> Callable[[list[str]], object]:
        """What adds a row's cells to the table, `at` these places. It raises ValueError, and then adds nothing."""
        raise NotImplementedError

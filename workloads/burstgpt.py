"""Replay of BurstGPT: requests to GPT models at a university over months; times, models and lengths, no prompts.

The files (HPMLL/BurstGPT, CC-BY 4.0; Wang et al., arXiv 2401.17644) have the columns Timestamp (seconds), Model,
Request tokens, Response tokens, Total tokens and Log Type; later ones also Session ID and Elapsed time. A response of 0
tokens is a request that failed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from servemark.harness.errors import BadInput
from servemark.harness.plan.bad_rows import counted, said
from servemark.harness.plan.sources import SOURCES, Given
from servemark.harness.plan.strict import one_or_many
from servemark.workloads.traces.section import CsvTrace
from servemark.workloads.traces.stamps import numbers_ns
from servemark.workloads.traces.table import Table, tokens

Names = Annotated[
    tuple[str, ...],
    BeforeValidator(one_or_many, json_schema_input_type=str | tuple[str, ...]),
    Field(strict=False),
]


class _Table(Table):
    """`failed` and `others` count what was left out; `others` by what the row says in their place."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.failed = 0
        self.others: Counter[str] = Counter()


@SOURCES.register("burstgpt")
class BurstGpt(CsvTrace):
    """Lengths and times of a BurstGPT file."""

    marks = ("Timestamp", "Model", "Request tokens", "Response tokens", "Log Type")

    source: Literal["burstgpt"] = "burstgpt"
    models: Names | None = Field(default=None, description="only requests to these models; null takes all")
    log_types: Names | None = Field(default=None, description="only these log types; null takes all")
    failed: Literal["drop", "keep"] = Field(
        default="drop", description="requests that failed, which have no response: leave them out, or ask for 1 token"
    )

    def columns(self) -> tuple[str, ...]:
        return self.marks

    def read(self, path: Path, given: Given) -> Table:
        table = super().read(path, given)
        assert isinstance(table, _Table)
        if table.others and not len(table) and not table.failed:
            there = ", ".join(repr(said(name)) for name, _ in table.others.most_common(8))
            raise BadInput(
                f"{path}: no row is of the prompts.models and prompts.log_types that are asked for, but of {there}"
            )
        if table.others:
            table.notes.append(f"{counted(table.others.total(), 'row')} left out: of other models or log types")
        if table.failed:
            table.notes.append(f"{counted(table.failed, 'row')} left out: requests that failed")
        table.left_out = table.others.total() + table.failed
        return table

    def table(self, path: Path) -> Table:
        return _Table(path)

    def adder(self, at: list[int], table: Table) -> Callable[[list[str]], object]:
        assert isinstance(table, _Table)
        (time, model, request, response, log_type), at_ns, add = at, numbers_ns("s"), table.add
        models, log_types, drop = self.models, self.log_types, self.failed == "drop"

        def add_row(cells: list[str]) -> None:
            if models is not None and cells[model] not in models:
                table.others[cells[model]] += 1
            elif log_types is not None and cells[log_type] not in log_types:
                table.others[cells[log_type]] += 1
            elif (answered := tokens(cells[response])) == 0 and drop:
                table.failed += 1
            else:
                add(at_ns(cells[time]), tokens(cells[request]), answered)

        return add_row

"""Replay of the Azure LLM inference traces: recorded times and lengths, synthetic prompts.

The files (Azure Public Dataset, CC-BY; of 2023 Patel et al., Splitwise, ISCA 2024; of 2024 Stojkovic et al., DynamoLLM,
HPCA 2025) have the columns TIMESTAMP, ContextTokens and GeneratedTokens, and no prompts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from servemark.harness.plan.sources import SOURCES
from servemark.workloads.traces.section import CsvTrace
from servemark.workloads.traces.stamps import Stamps
from servemark.workloads.traces.table import Table, tokens


@SOURCES.register("azure")
class Azure(CsvTrace):
    """Lengths and times of an Azure trace file."""

    marks = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")

    source: Literal["azure"] = "azure"

    def columns(self) -> tuple[str, ...]:
        return self.marks

    def adder(self, at: list[int], table: Table) -> Callable[[list[str]], object]:
        (time, context, generated), stamp, add = at, Stamps(), table.add
        return lambda cells: add(stamp(cells[time]), tokens(cells[context]), tokens(cells[generated]))

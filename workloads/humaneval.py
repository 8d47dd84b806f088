"""HumanEval: the beginnings of Python functions, to be completed (Chen et al., 2021)."""

from __future__ import annotations

from typing import Any, Literal

from servemark.harness.plan.sources import SOURCES
from servemark.workloads.datasets.base import DataSet
from servemark.workloads.datasets.dialogues import Dialogue, of_turns, text_of


@SOURCES.register("humaneval")
class HumanEval(DataSet):
    """164 functions; the recorded answer is the canonical solution."""

    where = "https://github.com/openai/human-eval (data/HumanEval.jsonl.gz)"

    source: Literal["humaneval"] = "humaneval"

    @classmethod
    def fits(cls, row: dict[str, Any]) -> bool:
        return "canonical_solution" in row

    def read(self, row: dict[str, Any]) -> Dialogue:
        return of_turns([text_of(row, "prompt")], [text_of(row, "canonical_solution")])

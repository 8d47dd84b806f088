"""GSM8K: grade school word problems, each with its solution step by step (Cobbe et al., 2021)."""

from __future__ import annotations

from typing import Any, Literal

from servemark.harness.plan.sources import SOURCES
from servemark.workloads.datasets.base import DataSet
from servemark.workloads.datasets.dialogues import Dialogue, of_turns, text_of


@SOURCES.register("gsm8k")
class Gsm8k(DataSet):
    """1,319 problems in the test set, 7,473 in the other."""

    where = "https://github.com/openai/grade-school-math (grade_school_math/data/test.jsonl)"

    source: Literal["gsm8k"] = "gsm8k"

    @classmethod
    def fits(cls, row: dict[str, Any]) -> bool:
        return "question" in row and "answer" in row

    def read(self, row: dict[str, Any]) -> Dialogue:
        return of_turns([text_of(row, "question")], [text_of(row, "answer")])

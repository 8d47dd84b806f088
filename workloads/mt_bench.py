"""MT-bench: conversations of two turns in eight categories (Zheng et al., NeurIPS 2023)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from servemark.harness.plan.sources import SOURCES
from servemark.workloads.datasets.base import Conversations
from servemark.workloads.datasets.dialogues import Dialogue, of_turns, text_of, texts_of


class Questions(Conversations):
    """Rows with `turns` and a `category`. Their references are no answers of a model, so no lengths are known."""

    class_by: Literal["category"] | None = Field(default=None, description="make each category a class of requests")

    @classmethod
    def fits(cls, row: dict[str, Any]) -> bool:
        return "question_id" in row and "turns" in row

    def read(self, row: dict[str, Any]) -> Dialogue:
        found = of_turns(texts_of(row, "turns"))
        return found if self.class_by is None else found._replace(class_=text_of(row, self.class_by))


@SOURCES.register("mt_bench")
class MtBench(Questions):
    """80 conversations."""

    where = "https://github.com/lm-sys/FastChat (fastchat/llm_judge/data/mt_bench/question.jsonl)"

    source: Literal["mt_bench"] = "mt_bench"

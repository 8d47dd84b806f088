"""Conversations in the ShareGPT format: a list of messages, each `from` somebody and with a `value`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from servemark.harness.plan.sources import SOURCES
from servemark.workloads.datasets.base import Conversations
from servemark.workloads.datasets.dialogues import Dialogue, of_messages


@SOURCES.register("sharegpt")
class ShareGpt(Conversations):
    """Conversations of people with chat assistants."""

    where = "https://huggingface.co/datasets/anon8231489123/ShareGPT_Vicuna_unfiltered"

    source: Literal["sharegpt"] = "sharegpt"
    turns: Literal["first", "all", "last"] = Field(
        default="first",
        description="of a conversation send the first message only, as vLLM's benchmark does; all, as a session that "
        "holds the server's own answers; or the last one, after the recorded ones before it",
    )

    @classmethod
    def fits(cls, row: dict[str, Any]) -> bool:
        return "conversations" in row

    def read(self, row: dict[str, Any]) -> Dialogue:
        if "conversations" not in row:
            raise ValueError("has no field `conversations`")
        return of_messages(row["conversations"], "from", "value")

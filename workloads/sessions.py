"""Conversations of several turns, and agents that call tools: made-up messages, and the server's real answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from servemark.harness.plan.lengths import LengthsField
from servemark.harness.plan.shared import SharedPrefix
from servemark.harness.plan.sources import SOURCES, Given, Prepared, PromptSource
from servemark.harness.plan.strict import Count, Strict
from servemark.harness.plan.times import Fixed, TimesField
from servemark.harness.types import Request
from servemark.workloads.talks import Talks


class Tools(Strict):
    """What happens between a message of the user and the answer to it, where the model calls tools."""

    share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="share of the user's messages after which tools are called at all"
    )
    calls: LengthsField = Field(description="how many calls follow on each other then: a distribution")
    call_tokens: LengthsField = Field(description="length of an answer that calls a tool")
    result_tokens: LengthsField = Field(description="length of the message that tells the tool's result, by itself")
    time: TimesField = Field(description="how long a tool runs, from the call to its result: a time or a distribution")
    role: Literal["user", "tool"] = Field(
        default="user", description="whose message the result is: the user's, or a tool's where the model knows that"
    )


@SOURCES.register("sessions")
class Sessions(PromptSource):
    """Sessions: a user speaks, the server answers, the user thinks and speaks again, until the session ends."""

    source: Literal["sessions"] = "sessions"
    tokens: Literal["text"] = Field(default="text", description="later turns hold the server's answers, which are text")
    turns: LengthsField = Field(description="messages of the user in a session: a number or a distribution")
    input_tokens: LengthsField = Field(
        description="length of a session's first prompt as the server counts it, its system message included"
    )
    next_input_tokens: LengthsField = Field(description="length of each later message of the user, by itself")
    output_tokens: LengthsField = Field(description="length of the answer that is asked for at each turn")
    think_time: TimesField = Field(
        default=Fixed(time="0s"),  # type: ignore[arg-type]
        description="pause of the user between an answer and the next message: a time or a distribution",
    )
    system_prompt: SharedPrefix | None = Field(
        default=None, description="the system message, as a part of input_tokens; null: none"
    )
    tools: Tools | None = Field(default=None, description="calls of tools on the way to an answer; null: none")
    max_context: Count | None = Field(
        default=None,
        description="a session ends before a turn that would take more tokens, its answer included; null: no limit",
    )

    @property
    def unique(self) -> bool:
        """Turns find what earlier ones of their own session left; only system messages come in several."""
        return self.system_prompt is None

    @property
    def has_system(self) -> bool:
        return self.system_prompt is not None

    def prepare(self, given: Given) -> Prepared:
        return Talks(self, given)

    def repeats(self, prepared: Prepared) -> Iterator[Request]:
        assert isinstance(prepared, Talks)
        return prepared.beginnings()

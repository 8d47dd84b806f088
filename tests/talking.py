"""A source of conversations, as small as one can be: what the machinery of sessions is tried with."""

from __future__ import annotations

from collections.abc import Callable

from servemark.harness.plan.sources import Given, Prepared, PromptMaker
from servemark.harness.types import Answer, Message, Request, Turn

MS = 1_000_000


def history_of(before: Request, answer: str) -> tuple[Message, ...]:
    """The conversation until and with this answer."""
    assert isinstance(before.prompt, str)
    return (*before.history, Message(before.role, before.prompt), Message("assistant", answer))


class Talk(Prepared):
    """Item i has `turns(i)` turns; each asks for `output_tokens`, and the user thinks `think_ns` before a later one."""

    def __init__(
        self,
        given: Given,
        turns: Callable[[int], int] = lambda item: 3,
        think_ns: int = 50 * MS,
        output_tokens: int = 5,
        input_tokens: int = 40,
        size: int | None = None,
        last: int | None = None,
    ) -> None:
        self._maker = PromptMaker(given, "text")
        self._turns = turns
        self._think_ns = think_ns
        self._output_tokens = output_tokens
        self._input_tokens = input_tokens
        self._last = last
        self.size = size

    def lengths(self, index: int) -> tuple[int, int]:
        return self._input_tokens, self._output_tokens

    def request(self, index: int) -> Request:
        return self._maker.request(index, index, *self.lengths(index))

    def turns(self, index: int) -> int:
        return self._turns(index)

    def next_turn(self, index: int, before: Request, answer: Answer) -> Turn | None:
        """None after turn `last`, however many were announced."""
        if before.turn == self._last:
            return None
        prompt = self._maker.message(1000 * index + before.turn, self._input_tokens, b"talk")
        history = history_of(before, answer.text)
        return Turn(Request(0, prompt, None, self._output_tokens, history=history), self._think_ns)

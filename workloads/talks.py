"""Sessions as they go: which message comes when, and what the next prompt holds.

All but the server's answers is a pure function of the seeds, the session and the turn. A turn is a request; those to
which the result of a tool leads are turns as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from servemark.harness.errors import BadInput
from servemark.harness.plan.draws import uniform
from servemark.harness.plan.lengths import Lengths
from servemark.harness.plan.shared import SAMPLE, Beginning, Pool, tail_tokens
from servemark.harness.plan.sources import Given, Prepared, PromptMaker
from servemark.harness.plan.vocabulary import FIRST_WORD, Segment
from servemark.harness.types import Answer, Message, Request, Turn

if TYPE_CHECKING:
    from servemark.workloads.sessions import Sessions

MOST_TURNS = 10_000
"""Of a session, whatever a distribution draws."""
_REMEMBERED = 4096


class Step(NamedTuple):
    """A turn: `result` where its message tells what a tool found, `call` where its answer calls one."""

    result: bool = False
    call: bool = False


class Talks(Prepared):
    """The sessions of one run."""

    def __init__(self, params: Sessions, given: Given) -> None:
        """Raises BadInput."""
        self._params = params
        self._seeds = given.seeds
        self._maker = PromptMaker(given, "text")
        self._maker.check_least("prompts.input_tokens", params.input_tokens.most)
        self._steps = lru_cache(_REMEMBERED)(lambda index: tuple(islice(self._laid_out(index), MOST_TURNS)))
        vocabulary = given.vocabulary
        self._fixed, self._tail = vocabulary.fixed_tokens, tail_tokens(vocabulary)
        # Where nobody has asked the server, a system message is taken to cost what a user's does.
        system = self._fixed if vocabulary.system_tokens is None else vocabulary.system_tokens
        self._lead = max(0, self._fixed - self._tail + system)
        """Tokens before a user's own words, of a prompt whose system message holds no word of its own."""
        _check_first(params)
        self.most_tokens = params.max_context or self._longest()
        self._pool: Pool | None = None
        if params.system_prompt is not None:
            self._pool = Pool(params.system_prompt, given, self._tail, params.input_tokens, "prompts.system_prompt")
            self.notes = self._pool.notes(self.lengths(index)[0] for index in range(SAMPLE))

    def lengths(self, index: int) -> tuple[int, int]:
        return self._draw(self._params.input_tokens, b"input", index), self._output(index, 0)

    def turns(self, index: int) -> int:
        return len(self._steps(index))

    def request(self, index: int) -> Request:
        input_tokens, output_tokens = self.lengths(index)
        begun = self._pool.of(index, input_tokens) if self._pool is not None else None
        if begun is None:
            return self._maker.request(index, index, input_tokens, output_tokens)
        return self._after(begun, index, Segment(index, input_tokens - begun.tokens), output_tokens)

    def next_turn(self, index: int, before: Request, answer: Answer) -> Turn | None:
        turn, steps = before.turn + 1, self._steps(index)
        if turn >= len(steps) or not self._has_room(index, turn, answer):
            return None
        tools = self._params.tools
        result = tools is not None and steps[turn].result
        request = replace(
            before,
            prompt=self._message(index, turn),
            asked_prompt_tokens=None,
            asked_output_tokens=self._output(index, turn),
            turn=turn,
            history=(*before.history, Message(before.role, str(before.prompt)), Message("assistant", answer.text)),
            role=tools.role if tools is not None and result else "user",
        )
        pause = tools.time if tools is not None and result else self._params.think_time
        return Turn(request, pause.draw_ns(uniform(self._seeds.arrivals, b"pause %d" % turn, index)))

    def beginnings(self) -> Iterator[Request]:
        """Each system message once, before a few words of the user."""
        for begun, own in self._pool.warming() if self._pool is not None else ():
            yield self._after(begun, begun.member, own, 1)

    def _after(self, begun: Beginning, index: int, own: Segment, output_tokens: int) -> Request:
        """A system message, and behind it the user's own words: `begun` is all that stands before these."""
        words = max(0, begun.tokens - self._lead)
        behind = max(0, own.tokens - max(0, self._lead - begun.tokens) - self._tail)
        system = self._text(begun.segment._replace(tokens=words))
        request = self._maker.of_segments(index, (own._replace(tokens=self._fixed + behind),), output_tokens)
        start = self._lead + words
        return replace(
            request,
            asked_prompt_tokens=start + behind + self._tail,
            prefixes=begun._replace(tokens=start).prefixes,
            history=(Message("system", system),),
        )

    def _text(self, words: Segment) -> str:
        """A text of so many tokens beside its first and last word."""
        made = self._maker.of_segments(0, (words._replace(tokens=self._fixed + words.tokens),), None)
        return str(made.prompt)

    def _laid_out(self, index: int) -> Iterator[Step]:
        """The turns of a session, without its end at `max_context`."""
        tools = self._params.tools
        for user in range(min(MOST_TURNS, self._draw(self._params.turns, b"turns", index))):
            calls = 0
            if tools is not None and uniform(self._seeds.lengths, b"tools %d" % user, index) < tools.share:
                calls = self._draw(tools.calls, b"calls %d" % user, index)
            for call in range(min(MOST_TURNS, calls) + 1):
                yield Step(result=call > 0, call=call < calls)

    def _output(self, index: int, turn: int) -> int:
        tools, steps = self._params.tools, self._steps(index)
        lengths = tools.call_tokens if tools is not None and steps[turn].call else self._params.output_tokens
        return self._draw(lengths, b"output %d" % turn, index)

    def _message_tokens(self, index: int, turn: int) -> int:
        tools, steps = self._params.tools, self._steps(index)
        lengths = tools.result_tokens if tools is not None and steps[turn].result else self._params.next_input_tokens
        return self._draw(lengths, b"message %d" % turn, index)

    def _message(self, index: int, turn: int) -> str:
        text = self._maker.message(index, self._message_tokens(index, turn), b"message %d" % turn)
        return text or FIRST_WORD  # where the shortest piece is longer than what is asked

    def _draw(self, lengths: Lengths, stream: bytes, index: int) -> int:
        return lengths.draw(uniform(self._seeds.lengths, stream, index))

    def _has_room(self, index: int, turn: int, answer: Answer) -> bool:
        """Whether the turn stays below `max_context`, by the server's counts of the turn before where it tells them."""
        most = self._params.max_context
        if most is None:
            return True
        told = (answer.prompt_tokens, answer.output_tokens)
        before = self._expected(index, turn) if None in told else sum(filter(None, told))
        return before + self._adds(index, turn) + self._output(index, turn) <= most

    def _adds(self, index: int, turn: int) -> int:
        """What a later message adds to a prompt; a template puts no more around it than around the first one."""
        return self._message_tokens(index, turn) + self._fixed

    def _expected(self, index: int, turn: int) -> int:
        """Tokens of all turns before, as asked."""
        first = self.lengths(index)[0] + self._output(index, 0)
        return first + sum(self._adds(index, each) + self._output(index, each) for each in range(1, turn))

    def _longest(self) -> int | None:
        """What the longest session takes at its end, where every distribution has an end."""
        params, tools = self._params, self._params.tools
        most = _most(params.turns, params.input_tokens, params.next_input_tokens, params.output_tokens)
        calls = [0, 0, 0] if tools is None else _most(tools.calls, tools.call_tokens, tools.result_tokens)
        if most is None or calls is None:
            return None
        (turns, first, later, answer), (number, call, result) = most, calls
        tool_loop = number * (call + result + self._fixed)
        return first + (turns - 1) * (later + self._fixed) + turns * (answer + tool_loop)


def _check_first(params: Sessions) -> None:
    """Refuses a session that may not even begin within `max_context`. Raises BadInput."""
    tools, most = params.tools, params.max_context
    longest = _most(params.input_tokens, params.output_tokens, *([tools.call_tokens] if tools is not None else []))
    if most is None or (longest is not None and longest[0] + max(longest[1:]) <= most):
        return
    takes = "any number of" if longest is None else longest[0] + max(longest[1:])
    raise BadInput(
        f"prompts.max_context: {most} tokens are allowed, but the first prompt of a session and its answer may take "
        f"{takes}; give input_tokens and the lengths of answers a max that fits, or raise it"
    )


def _most(*lengths: Lengths) -> list[int] | None:
    """Of each; None where one has no end."""
    most = [each.most for each in lengths]
    known = [each for each in most if each is not None]
    return known if len(known) == len(most) else None

"""Sessions in progress: what follows when a turn is answered.

The later turns of a conversation hold the server's real answers, so they are made one at a time, when the turn before
has ended; think time hides the making. Only live sessions are remembered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from servemark.harness.plan.cache_rate import Sharing, content_of
from servemark.harness.plan.schedule import Planned
from servemark.harness.plan.sources import Prepared
from servemark.harness.types import Answer, Message, Record, Request


@dataclass(frozen=True, slots=True)
class Following:
    """A later turn, and when it is intended on the monotonic clock."""

    planned: Planned
    due_ns: int


class Sessions:
    """Those of which another turn may follow, by their newest turn."""

    def __init__(self, source: Prepared, sharing: Sharing) -> None:
        self._source = source
        self._sharing = sharing
        self._newest: dict[str, Planned] = {}

    def __len__(self) -> int:
        return len(self._newest)

    def began(self, planned: Planned) -> None:
        """An item's first request was made; one that is alone is no session."""
        if planned.turns > 1 and planned.request.session_id is not None:
            self._newest[planned.request.session_id] = planned

    def awaits(self, record: Record) -> bool:
        """Whether a turn may follow this one."""
        newest = self._newest.get(record.session_id or "")
        return newest is not None and newest.request.turn == record.turn

    def after(self, record: Record, answer: str | None) -> Following | None:
        """What follows a turn that is awaited; None ends the session. `answer` is its text, where it has succeeded."""
        before = self._newest.pop(record.session_id or "")
        if record.error is not None or record.done_ns is None or answer is None:
            return None
        told = Answer(answer, record.prompt_tokens, record.output_tokens)
        turn = self._source.next_turn(before.item, before.request, told)
        if turn is None:
            return None
        planned = _planned(before, turn.request)
        self._note(planned.request, before.request, record, answer)
        if planned.request.turn + 1 < planned.turns:
            self.began(planned)
        return Following(planned, record.done_ns + turn.think_ns)

    def _note(self, request: Request, before: Request, record: Record, answer: str) -> None:
        content = content_of(request.prompt, request.history)
        if _goes_on(request, before, answer):
            self._sharing.note_turn(request.index, before.index, _left(record), content, request.prefixes)
        else:
            self._sharing.note(content, request.prefixes, request.index)


def _planned(before: Planned, request: Request) -> Planned:
    """Indexes follow on each other, and a session is of one class."""
    last = before.request
    index = last.index + 1
    request = replace(request, index=index, session_id=last.session_id, turn=last.turn + 1, class_=last.class_)
    return Planned(index, None, request, None, before.item, before.turns)


def _goes_on(request: Request, before: Request, answer: str) -> bool:
    """The conversation until now stands at the request's beginning, word for word."""
    if not isinstance(before.prompt, str):
        return False
    said = (*before.history, Message(before.role, before.prompt), Message("assistant", answer))
    return request.history[: len(said)] == said


def _left(record: Record) -> int:
    """How many tokens of a turn are in the cache and come again: its prompt, and its answer but for the last token.

    The last one was never computed with. Reasoning does not come again, and what follows it stands elsewhere then.
    """
    prompt = record.prompt_tokens or record.asked_prompt_tokens or 0
    reasoned = record.reasoning_tokens or record.first_answer_ns != record.first_token_ns
    return prompt if reasoned else prompt + max(0, (record.output_tokens or 0) - 1)

"""One request that is being answered: engine tokens in, bytes of the response out, faults where they are due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from servemark.adapters.sim.answers import CYCLE, Answers
from servemark.adapters.sim.asked import Asked, error_body
from servemark.adapters.sim.connection import LAST_CHUNK, Exchange
from servemark.adapters.sim.dialect import DONE, Stream, error_event, event, whole_answer
from servemark.adapters.sim.engine import EngineRequest
from servemark.adapters.sim.faults import Fault

_ENGINE_DEAD: Final = "EngineCore encountered an issue (simulated fault)."


class Generation:
    """`give_up` tells the engine that nobody wants the rest."""

    __slots__ = ("_answers", "_asked", "_exchange", "_fault", "_give_up", "_held", "_name", "_stall_s", "_stream")

    def __init__(
        self,
        asked: Asked,
        exchange: Exchange,
        answers: Answers,
        name: tuple[str, str, int, str],
        fault: Fault | None,
        stall_s: float,
        give_up: Callable[[], None],
    ) -> None:
        """`name` is the response's id, model, creation time in seconds, and system fingerprint."""
        self._asked = asked
        self._exchange = exchange
        self._answers = answers
        self._name = name
        self._fault = fault
        self._stall_s = stall_s
        self._give_up = give_up
        self._stream = Stream(asked, *name) if asked.stream else None
        self._held: list[bytes] | None = None
        if self._stream is not None:
            exchange.start_stream()

    def on_token(self, request: EngineRequest, cached_tokens: int | None) -> None:
        """Its next token is there. A stream gets everything of this step in one write."""
        if self._fault is not None and self._fail(self._fault, request, cached_tokens):
            return
        if self._stream is None:
            if request.finish_reason is not None and self._held is None:
                self._answer_whole(request, cached_tokens)
            return
        at = (request.answer_start + request.produced - 1) % CYCLE
        produced, reason = request.produced, request.finish_reason
        opening = self._stream.opening() if produced == 1 else b""
        if reason is None:
            self._write(opening + self._stream.token(self._answers.words[at], produced, self._answers.ids[at]))
            return
        word = b"" if reason == "stop" else self._answers.words[at]
        last = self._stream.last(word, produced, self._answers.ids[at], reason, cached_tokens)
        self._write(opening + last + LAST_CHUNK)
        if self._held is None:
            self._exchange.end()

    def _answer_whole(self, request: EngineRequest, cached_tokens: int | None) -> None:
        reason = request.finish_reason or ""
        spoken = request.produced - (reason == "stop")
        places = [(request.answer_start + index) % CYCLE for index in range(request.produced)]
        text = b"".join(self._answers.words[at] for at in places[:spoken]).decode()
        ids = [self._answers.ids[at] for at in places]
        self._exchange.respond(200, whole_answer(self._asked, *self._name, text, ids, reason, cached_tokens))

    # -- faults

    def _fail(self, fault: Fault, request: EngineRequest, cached_tokens: int | None) -> bool:
        """True when the fault has taken the response over."""
        if request.produced <= fault.after_tokens and request.finish_reason is None:
            return False
        self._fault = None
        if fault.kind == "stall":
            self._held = []
            loop = asyncio.get_running_loop()
            loop.call_later(self._stall_s, self._catch_up, request, cached_tokens)
            return False
        if fault.kind == "garbage" and self._stream is not None:
            self._write(event(b'{"id": "not closed'))
            return False
        self._give_up()
        if fault.kind == "cut":
            self._exchange.cut()
        elif self._stream is None:
            self._exchange.respond(500, error_body(_ENGINE_DEAD, "InternalServerError", None, 500))
        else:
            ending = {"error_event": error_event(_ENGINE_DEAD) + DONE, "empty": DONE}.get(fault.kind, b"")
            self._exchange.write(ending + LAST_CHUNK)
            self._exchange.end()
        return True

    def _catch_up(self, request: EngineRequest, cached_tokens: int | None) -> None:
        """After a stall. A client that left meanwhile gets nothing: writing to a lost connection is void."""
        held, self._held = self._held, None
        if request.finish_reason == "abort":
            return
        if self._stream is not None:
            self._exchange.write(b"".join(held or ()))
        if request.finish_reason is not None:
            if self._stream is None:
                self._answer_whole(request, cached_tokens)
            else:
                self._exchange.end()

    def _write(self, data: bytes) -> None:
        if self._held is None:
            self._exchange.write(data)
        else:
            self._held.append(data)

"""One request that is being answered: engine tokens in, bytes of the response out, faults where they are due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from servemark.adapters.sim.answers import CYCLE, Answers
from servemark.adapters.sim.connection import LAST_CHUNK, Exchange, chunk
from servemark.adapters.sim.engine import EngineRequest
from servemark.adapters.sim.faults import Fault
from servemark.adapters.sim.writer import Writer, event
from servemark.harness.clock import SECOND, now_ns

_COMMENT = chunk(b":\n\n")


class Generation:
    """`give_up` tells the engine that nobody wants the rest; `failure` makes an error response's body for a status."""

    __slots__ = (
        *("_answers", "_exchange", "_failure", "_fault", "_give_up"),
        *("_held", "_idle", "_stall_s", "_unsent", "_writer"),
    )

    def __init__(
        self,
        writer: Writer,
        exchange: Exchange,
        answers: Answers,
        fault: Fault | None,
        stall_s: float,
        give_up: Callable[[], None],
        failure: Callable[[int], bytes],
    ) -> None:
        self._writer = writer
        self._exchange = exchange
        self._answers = answers
        self._fault = fault
        self._stall_s = stall_s
        self._give_up = give_up
        self._failure = failure
        self._held: list[bytes] | None = None
        self._unsent = writer.head if writer.stream else b""
        self._idle: asyncio.TimerHandle | None = None
        if writer.stream and writer.head_at_once:
            exchange.write(self._unsent)
            self._unsent = b""

    def on_token(self, request: EngineRequest) -> None:
        """Its next token is there. A stream gets everything of this step in one write."""
        if self._fault is not None and self._fail(self._fault, request):
            return
        writer = self._writer
        if not writer.stream:
            if request.finish_reason is not None and self._held is None:
                self._answer_whole(request)
            return
        produced, reason = request.produced, request.finish_reason
        at = (request.answer_start + produced - 1) % CYCLE
        opening = b""
        if produced == 1:
            opening, self._unsent = self._unsent + writer.opening(request), b""
        if reason is None:
            self._write(opening + writer.token(self._answers.words[at], produced, self._answers.ids[at]))
            return
        word = b"" if reason == "stop" else self._answers.words[at]
        self._write(opening + writer.last(word, self._answers.ids[at], request) + LAST_CHUNK)
        if self._held is None:
            self._end()

    def watch_silence(self, request: EngineRequest) -> None:
        """Sends comment lines where nothing else is sent for a while, if the server does so."""
        if self._writer.stream and self._writer.comment_after_s is not None:
            self._comment(request, request.arrival_ns, self._writer.comment_after_s)

    def _comment(self, request: EngineRequest, spoke_ns: int, after_s: float) -> None:
        if request.finish_reason == "abort":
            return
        if self._held is None:
            spoke_ns = max(spoke_ns, request.last_token_ns)
        if (now := now_ns()) - spoke_ns >= after_s * SECOND:
            self._exchange.write(_COMMENT)
            spoke_ns = now
        wait_s = after_s - (now - spoke_ns) / SECOND
        self._idle = asyncio.get_running_loop().call_later(wait_s, self._comment, request, spoke_ns, after_s)

    def _answer_whole(self, request: EngineRequest) -> None:
        text = b"".join(self._answers.words_of(request.answer_start, request.spoken)).decode()
        ids = self._answers.ids_of(request.answer_start, request.produced)
        body, headers = self._writer.whole(request, text, ids)
        self._exchange.respond(200, body, headers=headers)

    def _write(self, data: bytes) -> None:
        if self._held is None:
            self._exchange.write(data)
        else:
            self._held.append(data)

    def _end(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._exchange.end()

    # -- faults

    def _fail(self, fault: Fault, request: EngineRequest) -> bool:
        """True when the fault has taken the response over."""
        if request.produced <= fault.after_tokens and request.finish_reason is None:
            return False
        self._fault = None
        if fault.kind == "stall":
            self._held = []
            asyncio.get_running_loop().call_later(self._stall_s, self._catch_up, request)
            return False
        if fault.kind == "garbage" and self._writer.stream:
            self._write(self._unsent + event(b'{"id": "not closed'))
            self._unsent = b""
            return False
        self._give_up()
        self._break_off(fault.kind)
        return True

    def _break_off(self, kind: str) -> None:
        if kind == "cut":
            self._exchange.cut()
        elif not self._writer.stream:
            self._exchange.respond(500, self._failure(500))
        elif kind == "error_event" and (told := self._writer.failed()) is not None:
            self._stop(told)
        elif kind == "error_event":
            self._exchange.cut()
        else:
            self._stop(self._writer.end if kind == "empty" else b"")

    def _stop(self, ending: bytes) -> None:
        self._exchange.write(self._unsent + ending + LAST_CHUNK)
        self._end()

    def _catch_up(self, request: EngineRequest) -> None:
        """After a stall. A client that left meanwhile gets nothing: writing to a lost connection is void."""
        held, self._held = self._held, None
        if request.finish_reason == "abort":
            return
        if self._writer.stream:
            self._exchange.write(b"".join(held or ()))
        if request.finish_reason is not None:
            if self._writer.stream:
                self._end()
            else:
                self._answer_whole(request)

"""Triton's generate_stream as it comes: one event is one response of the model, in pieces of text or whole texts.

From Triton's src/http_server.cc and TensorRT-LLM's triton_backend/inflight_batcher_llm/src/model_instance_state.cc.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import msgspec

from servemark.adapters.base import error_text, excerpt
from servemark.harness.types import Delta, ErrorKind, Outcome, Usage


class _Event(msgspec.Struct, gc=False):
    text_output: str | list[str] | None = None
    num_input_tokens: int | None = None
    num_output_tokens: int | None = None
    finish_reason: str | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Event).decode
_NOTHING = Delta()
_NEW_TEXT = Delta(carries=True, answer=True)


class ResponseDecoder:
    """Reads generate_stream: one event is one response of the model; the end of a whole HTTP message is its end.

    Tokens are what `num_output_tokens` says of each response. Where no response says it, their number is an estimate:
    one for each response that brings text.
    """

    __slots__ = ("_counted", "_error", "_finish", "_prompt", "_said", "_text", "_uncounted", "answer")

    def __init__(self) -> None:
        self.answer: list[str] | None = None
        self._said = _Said()
        self._text = _Growth()
        self._counted = 0
        self._uncounted = 0
        self._prompt: int | None = None
        self._finish: str | None = None
        self._error: str | None = None

    def feed(self, event: bytes) -> Delta:
        told = _decode(event)
        if told.error is not None:
            text = error_text(told.error)
            self._error = self._error or text
            return Delta(error=text)
        if told.text_output is None:
            raise ValueError(f"no event of generate_stream: {excerpt(event)}")
        # Not asked for, a number may stand there as 0, and a reason as "None" until there is one.
        self._prompt = told.num_input_tokens or self._prompt
        self._finish = told.finish_reason if told.finish_reason not in (None, "", "None") else self._finish
        text = told.text_output if isinstance(told.text_output, str) else "".join(told.text_output)
        if self.answer is not None:
            self._said.add(self.answer, text)
        return self._brought(self._text.brings(text), told.num_output_tokens)

    def finish(self, clean: bool) -> Outcome:
        if self.answer is not None:
            self._said.end(self.answer)
        return Outcome(self._usage(), self._finish, None, *self._ending(clean))

    def _brought(self, new: bool, tokens: int | None) -> Delta:
        if tokens:
            self._counted += tokens
            return Delta(carries=True, answer=True, tokens=tokens)
        if not new:
            return _NOTHING
        self._uncounted += 1
        return _NEW_TEXT

    def _usage(self) -> Usage:
        if self._counted and not self._uncounted:
            return Usage(self._prompt, self._counted, source="usage")
        estimate = self._counted + self._uncounted
        return Usage(self._prompt, estimate or None, source="estimate" if estimate else "none")

    def _ending(self, clean: bool) -> tuple[ErrorKind | None, str | None]:
        if self._error is not None:
            return "server_error", self._error[:500]
        return (None, None) if clean else ("incomplete", "the connection broke before the response was whole")


class _Growth:
    """Whether a text brings anything new, in a stream of pieces or in one of the whole text until now.

    Nothing says which of the two it is. A text that is empty brings nothing, and one that differs from the last brings
    something, in both. One that equals the last is a piece that happens to come twice (" very", " very"), or a whole
    text to which nothing was added: it is taken for the latter only where every text so far began with the one before
    it, and at least twice was longer. Pieces do that by rare chance (" a", " an", " and").
    """

    __slots__ = ("_grown", "_last", "_whole")

    def __init__(self) -> None:
        self._last = ""
        self._whole = True
        self._grown = 0

    def brings(self, text: str) -> bool:
        last, self._last = self._last, text
        if text == last:
            return bool(text) and not (self._whole and self._grown >= 2)
        if last:
            self._whole = self._whole and text.startswith(last)
            self._grown += 1
        return bool(text)


class _Said:
    """Puts an answer's text together, from pieces or from whole texts until then: nothing says which of the two.

    While each text begins with the one before it, only what is new in it is kept: it is the whole in pieces. The first
    that does not so begin tells that all of them were pieces; so does an end at which none has grown.
    """

    __slots__ = ("_last", "_whole")

    def __init__(self) -> None:
        self._last = ""
        self._whole = True

    def add(self, answer: list[str], text: str) -> None:
        if not text:
            return
        if self._whole and not text.startswith(self._last):
            self._were_pieces(answer)
        answer.append(text[len(self._last) :] if self._whole else text)
        self._last = text

    def end(self, answer: list[str]) -> None:
        if self._whole and not any(answer[1:]):
            self._were_pieces(answer)

    def _were_pieces(self, answer: list[str]) -> None:
        self._whole = False
        answer[:] = accumulate(answer)

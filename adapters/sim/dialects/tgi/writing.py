"""The bytes of TGI's answers."""

from __future__ import annotations

import time
from typing import Any, Final, Literal

import msgspec

from servemark.adapters.sim.connection import Headers, chunk, stream_head
from servemark.adapters.sim.dialect import VERSION
from servemark.adapters.sim.dialects.tgi.events import Form, error_event, event, headers
from servemark.adapters.sim.dialects.tgi.metrics import Figures
from servemark.adapters.sim.engine import EngineRequest
from servemark.adapters.sim.simulation import Simulation
from servemark.adapters.sim.tokenizer import EOS, EOS_TEXT
from servemark.adapters.sim.writer import DONE, EVENT_STREAM, Writer

COMMENT_AFTER_S: Final = 15.0
_LOGPROB: Final = -0.5
_json = msgspec.json.encode


class _TgiWriter(Writer):
    form: Form

    def __init__(self, sim: Simulation, figures: Figures, stream: bool, characters: int, prompt: list[int]) -> None:
        super().__init__(stream)
        self.comment_after_s = COMMENT_AFTER_S
        self._sim, self._figures = sim, figures
        self._characters = characters
        self._prompt_tokens = len(prompt)
        self.head = stream_head(EVENT_STREAM, *headers(characters))

    def failed(self) -> bytes:
        self._figures.failures["generation"] += 1
        return error_event(self.form, "Request failed during generation: Server error: simulated fault", "generation")

    def _timings(self, request: EngineRequest) -> Headers:
        """Of an answer that is not streamed. Whole milliseconds but for the first."""
        total_ns = request.last_token_ns - request.arrival_ns
        admitted_ns = request.admitted_ns or request.arrival_ns
        queue_ns, work_ns = admitted_ns - request.arrival_ns, request.last_token_ns - admitted_ns
        milliseconds = {"total": total_ns, "validation": 0, "queue": queue_ns, "inference": work_ns}
        return (
            ("x-compute-type", "cpu"),
            ("x-compute-time", f"{total_ns / 1e9}"),
            ("x-compute-characters", str(self._characters)),
            *((f"x-{name}-time", str(time_ns // 1_000_000)) for name, time_ns in milliseconds.items()),
            ("x-time-per-token", str(work_ns // request.produced // 1_000_000)),
            ("x-prompt-tokens", str(self._prompt_tokens)),
            ("x-generated-tokens", str(request.produced)),
        )


def _finish(request: EngineRequest) -> str:
    return "eos_token" if request.finish_reason == "stop" else "length"


class TokenWriter(_TgiWriter):
    """/generate and /generate_stream: an event is a token, the last one has the whole text, and no [DONE] follows."""

    form = "generate"

    def __init__(
        self, sim: Simulation, figures: Figures, stream: bool, inputs: str, prompt: list[int], details: bool
    ) -> None:
        super().__init__(sim, figures, stream, len(inputs), prompt)
        self._details = details

    def token(self, word: bytes, produced: int, token_id: int) -> bytes:
        return chunk(
            b'data:{"index":%d,"token":{"id":%d,"text":"%b","logprob":-0.5,"special":false},'
            b'"generated_text":null,"details":null}\n\n' % (produced, token_id, word)
        )

    def last(self, word: bytes, token_id: int, request: EngineRequest) -> bytes:
        self._figures.succeeded(request)
        text = b"".join(self._sim.answers.words_of(request.answer_start, request.spoken)).decode()
        token = _token(word.decode(), token_id, request.finish_reason == "stop")
        told = {"index": request.produced, "token": token, "generated_text": text}
        return event(_json({**told, "details": self._told(request) if self._details else None}))

    def whole(self, request: EngineRequest, text: str, token_ids: list[int]) -> tuple[bytes, Headers]:
        self._figures.succeeded(request)
        details = None
        if self._details:
            words = self._sim.answers.words_of(request.answer_start, request.produced)
            stopped = request.finish_reason == "stop"
            tokens = [
                _token(word.decode(), id_, stopped and number == request.produced)
                for number, (word, id_) in enumerate(zip(words, token_ids, strict=True), 1)
            ]
            details = {name: value for name, value in self._told(request).items() if name != "input_length"}
            details |= {"prefill": [], "tokens": tokens}
        return _json({"generated_text": text, "details": details}), self._timings(request)

    def _told(self, request: EngineRequest) -> dict[str, Any]:
        told: dict[str, Any] = {"finish_reason": _finish(request), "generated_tokens": request.produced}
        return told | {"seed": None, "input_length": self._prompt_tokens}


def _token(text: str, id_: int, ends: bool) -> dict[str, Any]:
    """`ends`: it is the EOS token, whose text is told, but is no part of the answer's."""
    shown = {"id": EOS, "text": EOS_TEXT} if ends else {"id": id_, "text": text}
    return {**shown, "logprob": _LOGPROB, "special": ends}


class ChunkWriter(_TgiWriter):
    """The OpenAI routes: no role chunk, no id; plain completions say "" until they finish, and always tell usage."""

    end = DONE

    def __init__(
        self,
        sim: Simulation,
        figures: Figures,
        form: Literal["chat", "completions"],
        stream: bool,
        characters: int,
        prompt: list[int],
        usage: bool,
    ) -> None:
        super().__init__(sim, figures, stream, characters, prompt)
        self.form = form
        self._usage = usage
        self._named: dict[str, Any] = {
            "object": "chat.completion.chunk" if form == "chat" else "text_completion",
            "id": "",
            "created": int(time.time()),
            "model": self._sim.model,
            "system_fingerprint": f"{VERSION}-native",
        }
        head = b"data:" + _json(self._named)[:-1] + b',"choices":[{"index":0,'
        if form == "chat":
            self._before = head + b'"delta":{"role":"assistant","content":"'
            self._after = b'"},"logprobs":null,"finish_reason":null}],"usage":null}\n\n'
        else:
            self._before = head + b'"text":"'
            self._after = b'","logprobs":null,"finish_reason":""}]}\n\n'

    def token(self, word: bytes, produced: int, token_id: int) -> bytes:
        return chunk(self._before + word + self._after)

    def last(self, word: bytes, token_id: int, request: EngineRequest) -> bytes:
        self._figures.succeeded(request)
        text, usage = word.decode(), self._counts(request)
        if self.form == "completions":
            shown = EOS_TEXT if request.finish_reason == "stop" else text
            choice = {"index": 0, "text": shown, "logprobs": None, "finish_reason": _finish(request)}
            return event(_json({**self._named, "choices": [choice], "usage": usage})) + DONE
        choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "logprobs": None}
        choice["finish_reason"] = request.finish_reason
        final = event(_json({**self._named, "choices": [choice], "usage": None}))
        if self._usage:
            final += event(_json({**self._named, "choices": [], "usage": usage}))
        return final + DONE

    def whole(self, request: EngineRequest, text: str, token_ids: list[int]) -> tuple[bytes, Headers]:
        self._figures.succeeded(request)
        choice: dict[str, Any] = {"index": 0}
        choice |= {"message": {"role": "assistant", "content": text}} if self.form == "chat" else {"text": text}
        choice |= {"logprobs": None, "finish_reason": request.finish_reason}
        named = self._named | ({"object": "chat.completion"} if self.form == "chat" else {})
        answer = {**named, "choices": [choice], "usage": self._counts(request)}
        return _json(answer), self._timings(request)

    def _counts(self, request: EngineRequest) -> dict[str, int]:
        counts = {"prompt_tokens": self._prompt_tokens, "completion_tokens": request.produced}
        return counts | {"total_tokens": self._prompt_tokens + request.produced}

"""The bytes of Triton's answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from servemark.adapters.sim.connection import Headers, chunk, stream_head
from servemark.adapters.sim.dialects.trtllm_triton.metrics import Figures
from servemark.adapters.sim.dialects.trtllm_triton.models import BLS, EVENT_STREAM, OUTPUTS, error_body
from servemark.adapters.sim.engine import EngineRequest
from servemark.adapters.sim.simulation import Simulation
from servemark.adapters.sim.writer import Writer, event

_json = msgspec.json.encode


class ResponseWriter(Writer):
    """One event is one response of the model: a token where it streams, else the whole answer."""

    head = stream_head(EVENT_STREAM)
    head_at_once = False

    def __init__(
        self,
        sim: Simulation,
        figures: Figures,
        model: str,
        streams: bool,
        stream_route: bool,
        text: str,
        prompt_tokens: int,
        inputs: Mapping[str, Any],
    ) -> None:
        super().__init__(stream_route)
        self._figures, self._answers = figures, sim.answers
        self._model = model
        self._streams = streams
        self._echo = "" if streams or inputs.get("exclude_input_in_output", False) else text
        self._accumulates = model == BLS and sim.options.accumulate_tokens
        self._count_output = bool(inputs.get("return_num_output_tokens", False))
        self._text = b""
        counted = prompt_tokens if inputs.get("return_num_input_tokens", False) else 0
        self._head, self._tail = _event_parts(model, counted)
        self._before, self._after = b"data: " + self._event_head(1, b"0.0"), self._tail + b"\n\n"

    def opening(self, request: EngineRequest) -> bytes:
        self._figures.started(request)
        return b""

    def token(self, word: bytes, produced: int, token_id: int) -> bytes:
        if not self._streams:
            return b""
        if self._accumulates:
            self._text += word
            return chunk(self._before + self._text + self._after)
        return chunk(self._before + word + self._after)

    def last(self, word: bytes, token_id: int, request: EngineRequest) -> bytes:
        self._figures.ended(request)
        if self._streams:
            return self.token(word, request.produced, token_id)
        text = b"".join(self._answers.words_of(request.answer_start, request.spoken)).decode()
        return event(self._response(text, request))

    def failed(self) -> bytes:
        self._figures.failures["OTHER"] += 1
        return event(error_body(f"in ensemble '{self._model}', Executor failed: simulated fault"))

    def whole(self, request: EngineRequest, text: str, token_ids: list[int]) -> tuple[bytes, Headers]:
        self._figures.started(request)
        self._figures.ended(request)
        return self._response(text, request), ()

    def _response(self, text: str, request: EngineRequest) -> bytes:
        zeros = b"[" + b",".join([b"0.0"] * request.produced) + b"]"
        return self._event_head(request.produced, zeros) + _json(self._echo + text)[1:-1] + self._tail

    def _event_head(self, tokens: int, log_probs: bytes) -> bytes:
        return self._head % (tokens if self._count_output else 0, log_probs)


def _event_parts(model: str, prompt_tokens: int) -> tuple[bytes, bytes]:
    """What is before and after the text. Outputs that nobody asked for stand there as zeros; all are sorted by name."""
    zeros = {name: 0.0 if type_ == "FP32" else 0 for name, type_ in OUTPUTS.items() if type_ != "STRING"}
    sequence = {"sequence_end": False, "sequence_id": 0, "sequence_start": False}
    named = {"model_name": model, "model_version": "1", "num_input_tokens": prompt_tokens}
    told = {**zeros, **sequence, **named, "num_output_tokens": "%d", "output_log_probs": "%b", "text_output": "%"}
    line = _json(dict(sorted(told.items()))).replace(b'"%d"', b"%d").replace(b'"%b"', b"%b")
    head, tail = line.split(b'"text_output":"%')
    return head + b'"text_output":"', tail

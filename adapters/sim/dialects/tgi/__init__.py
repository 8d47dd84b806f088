"""Hugging Face's Text Generation Inference: its own routes and its OpenAI routes.

After router/src/{server,lib,chat,validation}.rs and router/src/infer/mod.rs of version 3.3. An answer cannot be kept
from ending: no field says so, and fields that are not known are dropped. What goes wrong with a stream is told inside
it, under status 200.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from servemark.adapters.sim.asking import Asked, Fields
from servemark.adapters.sim.connection import Exchange
from servemark.adapters.sim.dialect import (
    PROMETHEUS,
    VERSION,
    Dialect,
    Direct,
    Generated,
    respond_empty,
    respond_json,
)
from servemark.adapters.sim.dialects.tgi.asking import Take, fields_of, inputs_of
from servemark.adapters.sim.dialects.tgi.events import error
from servemark.adapters.sim.dialects.tgi.metrics import Figures
from servemark.adapters.sim.dialects.tgi.writing import ChunkWriter, TokenWriter
from servemark.adapters.sim.simulation import Simulation
from servemark.adapters.sim.writer import Writer

_OPENAI_COMPLETIONS_MAX_TOKENS: Final = 100


class TgiDialect(Dialect):
    not_found = b""
    not_allowed = b""

    def __init__(self, sim: Simulation) -> None:
        super().__init__(sim)
        self.figures = Figures(sim)
        self.routes = {
            "/": Generated(lambda body, _: self._read_native(body, None)),
            "/generate": Generated(lambda body, _: self._read_native(body, False)),
            "/generate_stream": Generated(lambda body, _: self._read_native(body, True)),
            "/v1/chat/completions": Generated(lambda body, _: self._read_openai(body, "chat")),
            "/v1/completions": Generated(lambda body, _: self._read_openai(body, "completions")),
            "/health": Direct(respond_empty),
            "/ping": Direct(respond_empty),
            "/info": Direct(self._info),
            "/v1/models": Direct(self._models),
            "/tokenize": Direct(self._tokenize, ("POST",)),
            "/chat_tokenize": Direct(self._chat_tokenize, ("POST",)),
            "/metrics": Direct(lambda exchange: exchange.respond(200, self.figures.text(), PROMETHEUS)),
        }

    def failure(self, status: int) -> bytes:
        if status == 503:
            return error("unhealthy", "healthcheck")
        return error("Incomplete generation", "incomplete_generation")

    # -- asking

    def _read_native(self, body: bytes, stream: bool | None) -> Asked:
        """`stream` is None on the route that lets the body say it."""
        fields = fields_of(body)
        stream = fields.flag("stream") if stream is None else stream
        parameters = fields.part("parameters")
        inputs = inputs_of(fields)
        prompt = self.sim.tokenizer.ids(inputs)
        take = Take(self.sim, self.figures, "generate", stream, parameters)
        if stream and parameters.values.get("best_of") not in (None, 1):
            raise take.invalid("`best_of` != 1 is not supported when streaming tokens")
        if stream and parameters.flag("decoder_input_details"):
            raise take.invalid("`decoder_input_details` == true is not supported when streaming tokens")
        take.check_load()
        take.check_sampling(greedy_at_zero=False)
        wanted = parameters.integer("max_new_tokens", self.sim.context - len(prompt))
        max_tokens = take.length(prompt, wanted)
        details = parameters.flag("details")
        return self._asked(
            prompt, max_tokens, parameters, TokenWriter(self.sim, self.figures, stream, inputs, prompt, details)
        )

    def _read_openai(self, body: bytes, form: Literal["chat", "completions"]) -> Asked:
        fields = fields_of(body)
        stream = fields.flag("stream")
        take = Take(self.sim, self.figures, form, stream, fields)
        if form == "chat":
            prompt, default = fields.chat(self.sim.tokenizer), None
            characters = len(self.sim.tokenizer.chat_text(fields.messages()))
        else:
            inputs = inputs_of(fields, "prompt")
            prompt, default, characters = self.sim.tokenizer.ids(inputs), _OPENAI_COMPLETIONS_MAX_TOKENS, len(inputs)
        take.check_load()
        take.check_sampling(greedy_at_zero=True)
        wanted = fields.integer("max_tokens", default or self.sim.context - len(prompt))
        if form == "chat":
            wanted = fields.integer("max_completion_tokens", wanted)
        max_tokens = take.length(prompt, wanted)
        usage = form == "completions" or fields.part("stream_options").flag("include_usage")
        return self._asked(
            prompt, max_tokens, fields, ChunkWriter(self.sim, self.figures, form, stream, characters, prompt, usage)
        )

    def _asked(self, prompt: list[int], max_tokens: int, fields: Fields, writer: Writer) -> Asked:
        self.figures.input_length.observe(len(prompt))
        self.figures.max_new_tokens.observe(max_tokens)
        return Asked(prompt=prompt, max_tokens=max_tokens, writer=writer, seed=fields.integer("seed", 0))

    # -- the other routes

    def _info(self, exchange: Exchange) -> None:
        info: dict[str, Any] = {"model_id": self.sim.model, "model_sha": None}
        info |= {"model_pipeline_tag": "text-generation"}
        info |= {"max_concurrent_requests": self.sim.options.max_concurrent_requests}
        info |= {"max_best_of": 2, "max_stop_sequences": 4, "max_input_tokens": self.sim.context - 1}
        info |= {"max_total_tokens": self.sim.context, "validation_workers": 2, "max_client_batch_size": 4}
        info |= {"router": "text-generation-router", "version": VERSION, "sha": None, "docker_label": None}
        respond_json(exchange, info)

    def _models(self, exchange: Exchange) -> None:
        card = {"id": self.sim.model, "object": "model", "created": 0, "owned_by": self.sim.model}
        respond_json(exchange, {"object": "list", "data": [card]})

    def _tokenize(self, exchange: Exchange) -> None:
        respond_json(exchange, self._tokens(inputs_of(fields_of(exchange.body))))

    def _chat_tokenize(self, exchange: Exchange) -> None:
        text = self.sim.tokenizer.chat_text(fields_of(exchange.body).messages())
        respond_json(exchange, {"tokenize_response": self._tokens(text), "templated_text": text})

    def _tokens(self, text: str) -> list[dict[str, Any]]:
        told, at = [], 0
        for id_, part in self.sim.tokenizer.tokens(text):
            told.append({"id": id_, "text": part, "start": at, "stop": at + len(part)})
            at += len(part)
        return told


DIALECT = TgiDialect

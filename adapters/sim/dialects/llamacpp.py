"""llama.cpp's server (llama-server): its own route /completion and its OpenAI routes.

After tools/server/{server-task,server-context,server-common}.cpp, field for field as build b1-0c1e570 sends them. Its
slots are the sequences of one step (--max-num-seqs): a request over them waits. A context that is full ends an answer.
"""

from __future__ import annotations

import time
from typing import Any, Final, Literal

import msgspec

from servemark.adapters.sim.asking import Asked, Fields, Refusal, json_object
from servemark.adapters.sim.connection import Exchange, Headers, chunk
from servemark.adapters.sim.dialect import (
    PROMETHEUS,
    VERSION,
    Dialect,
    Direct,
    Generated,
    respond_json,
)
from servemark.adapters.sim.engine import EngineRequest
from servemark.adapters.sim.exposition import Page
from servemark.adapters.sim.simulation import Simulation
from servemark.adapters.sim.tokenizer import EOS
from servemark.adapters.sim.writer import DONE, Writer, event

_BUILD: Final = f"b0-{VERSION}"
_json = msgspec.json.encode


def _error(code: int, message: str, type_: str, **more: int) -> bytes:
    return _json({"error": {"code": code, "message": message, "type": type_, **more}})


def _wrong(name: str, problem: str) -> Refusal:
    message = f"Field '{name}': {problem}" if name else problem
    return Refusal(400, _error(400, message, "invalid_request_error"))


class LlamaCppDialect(Dialect):
    not_found = _error(404, "File Not Found", "not_found_error")
    not_allowed = not_found

    def __init__(self, sim: Simulation) -> None:
        super().__init__(sim)
        health, models = Direct(lambda exchange: respond_json(exchange, {"status": "ok"})), Direct(self._models)
        native = Generated(self._read_native)
        chat = Generated(lambda body, ordinal: self._read_openai(body, "chat", ordinal))
        self.routes = {
            "/completion": native,
            "/completions": native,
            "/chat/completions": chat,
            "/v1/chat/completions": chat,
            "/v1/completions": Generated(lambda body, ordinal: self._read_openai(body, "completions", ordinal)),
            "/health": health,
            "/v1/health": health,
            "/models": models,
            "/v1/models": models,
            "/props": Direct(self._props),
            "/tokenize": Direct(self._tokenize, ("POST",)),
            "/apply-template": Direct(self._apply_template, ("POST",)),
            "/metrics": Direct(lambda exchange: exchange.respond(200, _page(self.sim), PROMETHEUS)),
        }

    def failure(self, status: int) -> bytes:
        type_ = "unavailable_error" if status == 503 else "server_error"
        return _error(status, "simulated fault", type_)

    # -- asking

    def _read_native(self, body: bytes, ordinal: int) -> Asked:
        fields = _fields(body)
        prompt = fields.prompt("prompt", self.sim.tokenizer)
        length = self._length(fields, len(prompt), "n_predict", "max_tokens")
        stream, timings = fields.flag("stream"), fields.flag("timings_per_token")
        writer = ContentWriter(stream, self.sim.model, prompt, length, fields.flag("ignore_eos"), timings)
        return self._asked(fields, prompt, length, writer, ordinal)

    def _read_openai(self, body: bytes, endpoint: Literal["chat", "completions"], ordinal: int) -> Asked:
        fields = _fields(body)
        chat = endpoint == "chat"
        if chat and not isinstance(fields.values.get("messages"), list):
            raise _wrong("", "Expected 'messages' to be an array")
        prompt = fields.chat(self.sim.tokenizer) if chat else fields.prompt("prompt", self.sim.tokenizer)
        length = self._length(fields, len(prompt), "max_tokens", "max_completion_tokens", "n_predict")
        writer = ChunkWriter(
            chat=chat,
            stream=fields.flag("stream"),
            model=self.sim.model,
            id_=self.id_of("chatcmpl-", ordinal),
            prompt_tokens=len(prompt),
            usage=fields.part("stream_options").flag("include_usage"),
            timings=fields.flag("timings_per_token"),
        )
        return self._asked(fields, prompt, length, writer, ordinal)

    def _asked(self, fields: Fields, prompt: list[int], length: int, writer: Writer, ordinal: int) -> Asked:
        """A request that wants no cache finds nothing in it: nobody else has its salt."""
        return Asked(
            prompt=prompt,
            max_tokens=length,
            writer=writer,
            ignore_eos=fields.flag("ignore_eos"),
            seed=fields.integer("seed", 0),
            cache_salt="" if fields.flag("cache_prompt", True) else self.id_of("alone-", ordinal),
        )

    def _length(self, fields: Fields, prompt: int, *names: str) -> int:
        """The first of these fields that is there; below 0, and where none is, up to the end of the context."""
        context = self.sim.context
        if prompt >= context:
            message = f"request ({prompt} tokens) exceeds the available context size ({context} tokens), "
            told = _error(
                400, f"{message}try increasing it", "exceed_context_size_error", n_prompt_tokens=prompt, n_ctx=context
            )
            raise Refusal(400, told)
        name = next((name for name in names if fields.values.get(name) is not None), names[0])
        wanted = fields.integer(name, -1)
        if wanted == 0:
            raise _wrong(name, "the simulated server gives at least one token")
        return context - prompt if wanted < 0 else min(wanted, context - prompt)

    # -- the other routes

    def _models(self, exchange: Exchange) -> None:
        meta = {"n_ctx_train": self.sim.context, "n_vocab": self.sim.tokenizer.vocab}
        card = {"id": self.sim.model, "object": "model", "created": self.sim.created, "owned_by": "llamacpp"}
        respond_json(exchange, {"object": "list", "data": [card | {"meta": meta}]})

    def _props(self, exchange: Exchange) -> None:
        props: dict[str, Any] = {
            "default_generation_settings": {"n_ctx": self.sim.context},
            "total_slots": self.sim.options.max_num_seqs,
            "model_alias": self.sim.model,
            "model_path": self.sim.hardware.hf_id,
            "build_info": _BUILD,
        }
        respond_json(exchange, props)

    def _tokenize(self, exchange: Exchange) -> None:
        content = _fields(exchange.body).values.get("content")
        ids = [id_ for id_, _ in self.sim.tokenizer.tokens(content)] if isinstance(content, str) else []
        respond_json(exchange, {"tokens": ids})

    def _apply_template(self, exchange: Exchange) -> None:
        text = self.sim.tokenizer.chat_text(_fields(exchange.body).messages())
        respond_json(exchange, {"prompt": text})


def _fields(body: bytes) -> Fields:
    try:
        return Fields(json_object(body), _wrong)
    except ValueError as error:
        raise _wrong("", f"[json.exception.parse_error.101] parse error: {error}") from None


class _Timed(Writer):
    """The head comes with the first token; a failure is told by an event, and no [DONE] follows it."""

    head_at_once = False
    _request: EngineRequest

    def opening(self, request: EngineRequest) -> bytes:
        self._request = request
        self._timings_head = (
            b'"timings":{"cache_n":%d,"prompt_n":%d,"prompt_ms":%.3f,"prompt_per_token_ms":%.3f,'
            b'"prompt_per_second":%.3f,"predicted_n":' % _of_prompt(request)
        )
        return b""

    def failed(self) -> bytes:
        return event(_error(500, "simulated fault", "server_error"))

    def _timings(self, produced: int) -> bytes:
        milliseconds = max(0.001, (self._request.last_token_ns - self._request.first_token_ns) / 1e6)
        times = (milliseconds, milliseconds / produced, 1000 * produced / milliseconds)
        per = b'%d,"predicted_ms":%.3f,"predicted_per_token_ms":%.3f,"predicted_per_second":%.3f}'
        return self._timings_head + per % (produced, *times)


def _of_prompt(request: EngineRequest) -> tuple[int, int, float, float, float]:
    """Cached and computed tokens, and the time of the latter: in all, of one, and how many in a second."""
    computed = len(request.prompt) - request.cached_tokens
    milliseconds = (request.first_token_ns - (request.admitted_ns or request.arrival_ns)) / 1e6
    return request.cached_tokens, computed, milliseconds, milliseconds / computed, 1000 * computed / milliseconds


class ContentWriter(_Timed):
    """/completion: an event for each token, and one without a token that has `"stop":true`, the counts and times."""

    def __init__(
        self, stream: bool, model: str, prompt: list[int], length: int, ignore_eos: bool, timings: bool
    ) -> None:
        super().__init__(stream)
        self._model, self._per_token = model, timings
        self._prompt_tokens = len(prompt)
        self._settings = {"max_tokens": length, "n_predict": length, "ignore_eos": ignore_eos, "stream": stream}
        self._counts = b'],"stop":false,"id_slot":-1,"tokens_predicted":%d,"tokens_evaluated":' + b"%d" % len(prompt)

    def token(self, word: bytes, produced: int, token_id: int) -> bytes:
        timings = b"," + self._timings(produced) if self._per_token else b""
        return chunk(
            b'data: {"index":0,"content":"%b","tokens":[%d%b%b}\n\n'
            % (word, token_id, self._counts % produced, timings)
        )

    def last(self, word: bytes, token_id: int, request: EngineRequest) -> bytes:
        end = EOS if request.finish_reason == "stop" else token_id
        return self.token(word, request.produced, end) + chunk(b"data: " + self._final(request, "", []) + b"\n\n")

    def whole(self, request: EngineRequest, text: str, token_ids: list[int]) -> tuple[bytes, Headers]:
        self.opening(request)
        return self._final(request, text, []), ()

    def _final(self, request: EngineRequest, text: str, ids: list[int]) -> bytes:
        told: dict[str, Any] = {"index": 0, "content": text, "tokens": ids, "id_slot": 0, "stop": True}
        told |= {"model": self._model, "tokens_predicted": request.produced, "tokens_evaluated": self._prompt_tokens}
        told |= {"generation_settings": self._settings, "prompt": "", "has_new_line": False, "truncated": False}
        told |= {"stop_type": "eos" if request.finish_reason == "stop" else "limit", "stopping_word": ""}
        told["tokens_cached"] = self._prompt_tokens + request.produced - 1
        return _json(told)[:-1] + b"," + self._timings(request.produced) + b"}"


class ChunkWriter(_Timed):
    """The OpenAI routes. The reason to finish comes in a chunk without a token; in a chat, EOS has no chunk at all."""

    end = DONE

    def __init__(
        self, chat: bool, stream: bool, model: str, id_: str, prompt_tokens: int, usage: bool, timings: bool
    ) -> None:
        super().__init__(stream)
        self._chat, self._usage, self._per_token = chat, usage, timings
        self._prompt_tokens = prompt_tokens
        created = int(time.time())
        if chat:
            names = {"created": created, "id": id_, "model": model, "system_fingerprint": _BUILD}
            self._before = b'{"choices":[{"finish_reason":null,"index":0,"delta":{"content":"'
            self._middle = b'"}}],'
        else:
            names = {"created": created, "model": model, "system_fingerprint": _BUILD}
            self._before, self._middle = (
                b'{"choices":[{"text":"',
                b'","index":0,"logprobs":null,"finish_reason":null}],',
            )
        self._id = b"" if chat else b',"id":' + _json(id_)
        kind = "chat.completion.chunk" if chat else "text_completion"
        self._named = _json({**names, "object": kind})[1:-1]
        self._before = b"data: " + self._before
        self._after = self._middle + self._named + self._id

    def opening(self, request: EngineRequest) -> bytes:
        super().opening(request)
        if not self._chat:
            return b""
        role = b'{"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],'
        return event(role + self._named + b"}")

    def token(self, word: bytes, produced: int, token_id: int) -> bytes:
        timings = b"," + self._timings(produced) if self._per_token else b""
        return chunk(self._before + word + self._after + timings + b"}\n\n")

    def last(self, word: bytes, token_id: int, request: EngineRequest) -> bytes:
        produced, reason = request.produced, _json(request.finish_reason)
        told = self.token(word, produced, token_id) if word or not self._chat else b""
        timings = b"," + self._timings(produced)
        usage = b',"usage":' + _json(self._counts(request)) if self._usage else b""
        if not self._chat:
            choice = b'{"choices":[{"text":"","index":0,"logprobs":null,"finish_reason":' + reason + b"}],"
            return told + event(choice + self._named + usage + self._id + timings + b"}") + DONE
        choice = b'{"choices":[{"finish_reason":' + reason + b',"index":0,"delta":{}}],'
        told += event(choice + self._named + (b"" if usage else timings) + b"}")
        if usage:
            told += event(b'{"choices":[],' + self._named + usage + timings + b"}")
        return told + DONE

    def whole(self, request: EngineRequest, text: str, token_ids: list[int]) -> tuple[bytes, Headers]:
        super().opening(request)
        choice: dict[str, Any] = {"finish_reason": request.finish_reason, "index": 0}
        choice |= {"message": {"role": "assistant", "content": text}} if self._chat else {"text": text}
        named = self._named.replace(b"chat.completion.chunk", b"chat.completion")
        top = b'{"choices":[%b],%b,"usage":%b%b,' % (_json(choice), named, _json(self._counts(request)), self._id)
        return top + self._timings(request.produced) + b"}", ()

    def _counts(self, request: EngineRequest) -> dict[str, Any]:
        counts: dict[str, Any] = {"completion_tokens": request.produced, "prompt_tokens": self._prompt_tokens}
        counts["total_tokens"] = self._prompt_tokens + request.produced
        return counts | {"prompt_tokens_details": {"cached_tokens": request.cached_tokens}}


def _page(sim: Simulation) -> bytes:
    """Tokens of a prompt that were found in the cache are not among those processed."""
    engine, stats, page = sim.engine, sim.engine.stats, Page()
    for name, about, value in (
        ("prompt_tokens", "Prompt tokens computed", stats.prompt_tokens - stats.cached_prompt_tokens),
        ("prompt_tokens_cached", "Prompt tokens found", stats.cached_prompt_tokens),
        ("prompt_seconds", "Time of prompts", stats.prefill_s.sum),
        ("tokens_predicted", "Tokens generated", stats.request_generation_tokens.sum),
        ("tokens_predicted_seconds", "Time of generating", stats.decode_s.sum),
        ("n_decode", "Steps of the engine", stats.steps),
        ("spec_decode_num_draft_tokens", "Draft tokens", 0),
        ("spec_decode_num_accepted_tokens", "Draft tokens accepted", 0),
        ("spec_decode_num_drafts", "Drafts", 0),
    ):
        page.counter(f"llamacpp:{name}_total", about, value)
    page.gauge("llamacpp:requests_processing", "Requests in slots", len(engine.running))
    page.gauge("llamacpp:requests_deferred", "Requests that wait for one", len(engine.waiting))
    return page.text()


DIALECT = LlamaCppDialect

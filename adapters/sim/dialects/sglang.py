"""SGLang's server: its own route /generate and its OpenAI routes.

After python/sglang/srt/entrypoints/{http_server,openai/serving_chat,openai/serving_completions,openai/sse_utils}.py,
python/sglang/srt/managers/tokenizer_manager.py and python/sglang/srt/observability/metrics_collector.py. Its own route
tells the whole text and all ids until now in each event, and what is wrong with a stream inside it, under status 200.
"""

from __future__ import annotations

import time
from typing import Any, Final, Literal

import msgspec

from servemark.adapters.sim.asking import Asked, Fields, Refusal, json_object
from servemark.adapters.sim.connection import Exchange, Headers, chunk, stream_head
from servemark.adapters.sim.dialect import (
    PROMETHEUS,
    VERSION,
    Dialect,
    Direct,
    Generated,
    respond_empty,
    respond_json,
)
from servemark.adapters.sim.engine import EngineRequest
from servemark.adapters.sim.exposition import Page
from servemark.adapters.sim.simulation import Simulation
from servemark.adapters.sim.tokenizer import EOS
from servemark.adapters.sim.writer import DONE, EVENT_STREAM, Writer, event

_DEFAULT_NEW_TOKENS: Final = 128
_COMPLETIONS_MAX_TOKENS: Final = 16
_PLAIN: Final = "text/plain; charset=utf-8"
_CRASH: Final = "simulated fault"
_json = msgspec.json.encode


def _flat(message: str, type_: str = "BadRequestError", code: int = 400) -> bytes:
    return _json({"object": "error", "message": message, "type": type_, "param": None, "code": code})


def _wrong(name: str, problem: str) -> Refusal:
    """Of the body's types, on every route."""
    return Refusal(400, _flat(f"{name}: {problem}" if name else problem, "Bad Request"))


class SglangDialect(Dialect):
    def __init__(self, sim: Simulation) -> None:
        super().__init__(sim)
        info, state = Direct(self._model_info), Direct(self._server_info)
        tokenize = Direct(self._tokenize, ("POST",))
        self.routes = {
            "/generate": Generated(self._read_native, ("POST", "PUT")),
            "/v1/chat/completions": Generated(lambda body, ordinal: self._read_openai(body, "chat", ordinal)),
            "/v1/completions": Generated(lambda body, ordinal: self._read_openai(body, "completions", ordinal)),
            "/health": Direct(respond_empty),
            "/health_generate": Direct(respond_empty),
            "/get_model_info": info,
            "/model_info": info,
            "/get_server_info": state,
            "/server_info": state,
            "/v1/models": Direct(self._models),
            "/tokenize": tokenize,
            "/v1/tokenize": tokenize,
            "/flush_cache": Direct(self._flush_cache, ("GET", "POST")),
            "/metrics": Direct(lambda exchange: exchange.respond(200, _page(self.sim), PROMETHEUS)),
        }

    def failure(self, status: int) -> bytes:
        return _flat("simulated fault", "InternalServerError", status)

    # -- asking

    def _read_native(self, body: bytes, ordinal: int) -> Asked:
        fields = _fields(body)
        stream, sampling = fields.flag("stream"), fields.part("sampling_params")
        name = "input_ids" if fields.values.get("input_ids") is not None else "text"
        prompt = fields.prompt(name, self.sim.tokenizer)
        max_tokens = sampling.integer("max_new_tokens", _DEFAULT_NEW_TOKENS)
        if problem := self._too_long(len(prompt), max_tokens):
            told = _json({"error": {"message": problem}})
            if stream:
                raise Refusal(200, event(told) + DONE, EVENT_STREAM, stream=True)
            raise Refusal(400, told)
        return Asked(
            prompt=prompt,
            max_tokens=max_tokens,
            writer=TextWriter(stream, self.id_of("", ordinal), len(prompt)),
            min_tokens=sampling.integer("min_new_tokens", 0),
            ignore_eos=sampling.flag("ignore_eos"),
            seed=sampling.integer("sampling_seed", 0),
            cache_salt=fields.text("extra_key"),
        )

    def _read_openai(self, body: bytes, endpoint: Literal["chat", "completions"], ordinal: int) -> Asked:
        fields = _fields(body)
        chat, options = endpoint == "chat", fields.part("stream_options")
        prompt = fields.chat(self.sim.tokenizer) if chat else fields.prompt("prompt", self.sim.tokenizer)
        room = max(1, self.sim.context - len(prompt))
        max_tokens = fields.integer("max_tokens", room if chat else min(_COMPLETIONS_MAX_TOKENS, room))
        if chat:
            max_tokens = fields.integer("max_completion_tokens", max_tokens)
        if problem := self._too_long(len(prompt), max_tokens):
            raise Refusal(400, _flat(problem))
        usage = options.flag("include_usage")
        writer = ChunkWriter(
            chat=chat,
            stream=fields.flag("stream"),
            model=str(fields.values.get("model", "default")),
            id_=self.id_of("", ordinal),
            prompt_tokens=len(prompt),
            usage=usage,
            continuous_usage=usage and options.flag("continuous_usage_stats"),
            cache_report=self.sim.options.enable_prompt_tokens_details,
        )
        return Asked(
            prompt=prompt,
            max_tokens=max_tokens,
            writer=writer,
            min_tokens=fields.integer("min_tokens", 0),
            ignore_eos=fields.flag("ignore_eos"),
            seed=fields.integer("seed", 0),
            cache_salt=fields.text("cache_salt"),
        )

    def _too_long(self, prompt: int, wanted: int) -> str | None:
        context = self.sim.context
        if wanted < 1:
            return f"max_new_tokens must be at least 1, got {wanted}."
        if prompt >= context:
            return f"The input ({prompt} tokens) is longer than the model's context length ({context} tokens)."
        if prompt + wanted <= context:
            return None
        return (
            f"Requested token count exceeds the model's maximum context length of {context} tokens. You requested a "
            f"total of {prompt + wanted} tokens: {prompt} tokens from the input messages and {wanted} tokens for the "
            "completion. Please reduce the number of tokens in the input messages or the completion to fit within "
            "the limit."
        )

    # -- the other routes

    def _model_info(self, exchange: Exchange) -> None:
        path = self.sim.hardware.hf_id
        info: dict[str, Any] = {"model_path": path, "tokenizer_path": path, "is_generation": True}
        respond_json(exchange, info | {"preferred_sampling_params": None, "weight_version": "default"})

    def _server_info(self, exchange: Exchange) -> None:
        options, config = self.sim.options, self.sim.engine.config
        weights = self.sim.hardware.model.weights
        info: dict[str, Any] = {
            "model_path": self.sim.hardware.hf_id,
            "served_model_name": self.sim.model,
            "host": options.host,
            "port": options.port,
            "context_length": self.sim.context,
            "mem_fraction_static": options.gpu_memory_utilization,
            "max_running_requests": config.max_num_seqs,
            "max_total_num_tokens": config.kv_tokens,
            "chunked_prefill_size": config.max_num_batched_tokens,
            "page_size": config.block_size,
            "tp_size": options.tensor_parallel_size,
            "dp_size": 1,
            "dtype": "bfloat16",
            "quantization": None if weights in ("bf16", "fp16", "fp32") else weights,
            "kv_cache_dtype": options.kv_dtype or "auto",
            "disable_radix_cache": not config.prefix_caching,
            "enable_cache_report": options.enable_prompt_tokens_details,
            "enable_metrics": True,
            "incremental_streaming_output": False,
            "stream_interval": 1,
            "internal_states": [],
            "version": VERSION,
        }
        respond_json(exchange, info)

    def _models(self, exchange: Exchange) -> None:
        card: dict[str, Any] = {"id": self.sim.model, "object": "model", "created": self.sim.created}
        card |= {"owned_by": "sglang", "root": self.sim.model, "parent": None, "max_model_len": self.sim.context}
        respond_json(exchange, {"object": "list", "data": [card]})

    def _tokenize(self, exchange: Exchange) -> None:
        ids = _fields(exchange.body).prompt("prompt", self.sim.tokenizer)
        respond_json(exchange, {"tokens": ids, "count": len(ids), "max_model_len": self.sim.context})

    def _flush_cache(self, exchange: Exchange) -> None:
        """Nothing is done, and that is said by the status, where requests run."""
        engine = self.sim.engine
        idle = not engine.running and not engine.waiting
        if idle:
            engine.pool.forget_all()
        text = (
            b"Cache flushed.\nPlease check backend logs for more details. "
            b"(When there are running or waiting requests, the operation will not be performed.)\n"
        )
        exchange.respond(200 if idle else 400, text, _PLAIN)


def _fields(body: bytes) -> Fields:
    try:
        return Fields(json_object(body), _wrong)
    except ValueError as error:
        raise _wrong("body", str(error)) from None


def _finish(request: EngineRequest) -> dict[str, Any]:
    if request.finish_reason == "stop":
        return {"type": "stop", "matched": EOS}
    return {"type": "length", "length": request.produced}


class TextWriter(Writer):
    """/generate: each event has the text, the ids and the counts of all until now."""

    head = stream_head("text/event-stream; charset=utf-8")
    end = DONE

    def __init__(self, stream: bool, id_: str, prompt_tokens: int) -> None:
        super().__init__(stream)
        self._id = id_
        self._prompt_tokens = prompt_tokens
        self._text, self._ids = b"", b""
        self._meta, self._after = b"", b""

    def opening(self, request: EngineRequest) -> bytes:
        meta = {"id": self._id, "finish_reason": None, "prompt_tokens": self._prompt_tokens}
        told = _json(meta | {"weight_version": "default", "num_retractions": 0, "completion_tokens": 0})
        self._meta = b'],"meta_info":' + told[:-2]
        self._after = b',"cached_tokens":%d}}\n\n' % request.cached_tokens
        return b""

    def token(self, word: bytes, produced: int, token_id: int) -> bytes:
        self._text += word
        self._ids += b"%d" % token_id if produced == 1 else b",%d" % token_id
        return chunk(
            b'data: {"text":"%b","output_ids":[%b%b%d%b' % (self._text, self._ids, self._meta, produced, self._after)
        )

    def last(self, word: bytes, token_id: int, request: EngineRequest) -> bytes:
        end = EOS if request.finish_reason == "stop" else token_id
        self._ids += b"%d" % end if request.produced == 1 else b",%d" % end
        self._text += word
        return event(_json(self._told(request, self._text.decode(), msgspec.json.decode(b"[%b]" % self._ids)))) + DONE

    def failed(self) -> bytes:
        return event(_json({"error": {"message": _CRASH}})) + DONE

    def whole(self, request: EngineRequest, text: str, token_ids: list[int]) -> tuple[bytes, Headers]:
        ids = [*token_ids[: request.spoken], *([EOS] if request.finish_reason == "stop" else [])]
        return _json(self._told(request, text, ids)), ()

    def _told(self, request: EngineRequest, text: str, ids: list[int]) -> dict[str, Any]:
        meta: dict[str, Any] = {"id": self._id, "finish_reason": _finish(request)}
        meta |= {"prompt_tokens": self._prompt_tokens, "weight_version": "default"}
        meta |= {"num_retractions": request.preemptions, "completion_tokens": request.produced}
        meta |= {"cached_tokens": request.cached_tokens}
        meta["e2e_latency"] = (request.last_token_ns - request.arrival_ns) / 1e9
        return {"text": text, "output_ids": ids, "meta_info": meta}


class ChunkWriter(Writer):
    """The OpenAI routes. Chat: a role chunk with the first output, a token without text has no chunk, and the reason to
    finish comes in a chunk of its own. Plain: each token has a chunk, the last one with the reason."""

    head = stream_head("text/event-stream; charset=utf-8")
    head_at_once = False
    end = DONE

    def __init__(
        self,
        chat: bool,
        stream: bool,
        model: str,
        id_: str,
        prompt_tokens: int,
        usage: bool,
        continuous_usage: bool,
        cache_report: bool,
    ) -> None:
        super().__init__(stream)
        self._chat, self._usage, self._continuous, self._cache_report = chat, usage, continuous_usage, cache_report
        self._prompt_tokens = prompt_tokens
        kind = "chat.completion.chunk" if chat else "text_completion"
        self._named: dict[str, Any] = {"id": id_, "object": kind, "created": int(time.time()), "model": model}
        head = b"data: " + _json(self._named)[:-1] + b',"choices":[{"index":0,'
        nulls = b'"logprobs":null,"finish_reason":null,"matched_stop":null}]'
        if chat:
            self._role = head + b'"delta":{"reasoning_content":null,"role":"assistant","content":""},' + nulls
            self._before = head + b'"delta":{"reasoning_content":null,"content":"'
            self._close = b'"},' + nulls
        else:
            self._before, self._close = head + b'"text":"', b'",' + nulls

    def opening(self, request: EngineRequest) -> bytes:
        return chunk(self._role + b"}\n\n") if self._chat else b""

    def token(self, word: bytes, produced: int, token_id: int) -> bytes:
        return chunk(self._before + word + self._close + self._counts(produced) + b"}\n\n")

    def last(self, word: bytes, token_id: int, request: EngineRequest) -> bytes:
        finish = _finish(request)
        choice: dict[str, Any] = {"index": 0}
        nothing: dict[str, Any] = dict.fromkeys(("role", "content", "reasoning_content", "tool_calls"))
        choice |= {"delta": nothing} if self._chat else {"text": word.decode()}
        choice |= {"logprobs": None, "finish_reason": finish["type"], "matched_stop": finish.get("matched")}
        told = self.token(word, request.produced, token_id) if self._chat and word else b""
        usage = self._told(request) if self._continuous and not self._chat else None
        told += event(_json({**self._named, "choices": [choice], "usage": usage}))
        if self._usage:
            usage = self._told(request)
            if not self._chat:  # leaves nulls out
                usage = {name: value for name, value in usage.items() if value is not None}
            told += event(_json({**self._named, "choices": [], "usage": usage}))
        return told + DONE

    def failed(self) -> bytes:
        error = {"object": "error", "message": _CRASH, "type": "INTERNAL_SERVER_ERROR", "param": None, "code": 500}
        return event(_json({"error": error})) + DONE

    def whole(self, request: EngineRequest, text: str, token_ids: list[int]) -> tuple[bytes, Headers]:
        finish = _finish(request)
        choice: dict[str, Any] = {"index": 0}
        message = {"role": "assistant", "content": text, "reasoning_content": None, "tool_calls": None}
        choice |= {"message": message} if self._chat else {"text": text}
        choice |= {"logprobs": None, "finish_reason": finish["type"], "matched_stop": finish.get("matched")}
        named = self._named | ({"object": "chat.completion"} if self._chat else {})
        return _json({**named, "choices": [choice], "usage": self._told(request), "metadata": None}), ()

    def _counts(self, produced: int) -> bytes:
        if not self._continuous:
            return b"" if self._chat else b',"usage":null'
        return (
            b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d,"prompt_tokens_details":null,'
            b'"reasoning_tokens":0}' % (self._prompt_tokens, self._prompt_tokens + produced, produced)
        )

    def _told(self, request: EngineRequest) -> dict[str, Any]:
        details = {"cached_tokens": request.cached_tokens} if self._cache_report and request.cached_tokens else None
        usage: dict[str, Any] = {"prompt_tokens": self._prompt_tokens}
        usage |= {"total_tokens": self._prompt_tokens + request.produced, "completion_tokens": request.produced}
        return usage | {"prompt_tokens_details": details, "reasoning_tokens": 0}


def _page(sim: Simulation) -> bytes:
    engine, stats = sim.engine, sim.engine.stats
    page = Page(f'engine_type="unified",model_name="{sim.model}",tp_rank="0"')
    used = engine.pool.used * engine.config.block_size
    page.gauge("sglang:num_running_reqs", "Requests in the batch", len(engine.running))
    page.gauge("sglang:num_queue_reqs", "Requests in the queue", len(engine.waiting))
    page.gauge("sglang:num_used_tokens", "Tokens of KV memory in use", used)
    page.gauge("sglang:token_usage", "Share of KV memory in use, 1 is all", engine.pool.used / engine.pool.total)
    hits = stats.prefix_hits / stats.prefix_queries if stats.prefix_queries else 0.0
    page.gauge("sglang:cache_hit_rate", "Share of prompt tokens found", hits)
    page.counter("sglang:prompt_tokens_total", "Prompt tokens", stats.request_prompt_tokens.sum)
    page.counter("sglang:generation_tokens_total", "Tokens generated", stats.request_generation_tokens.sum)
    if stats.cached_prompt_tokens:  # there from the first hit on
        page.counter(
            "sglang:cached_tokens_total", "Prompt tokens found", {'cache_source="device"': stats.cached_prompt_tokens}
        )
    ended = stats.finished["stop"] + stats.finished["length"]
    page.counter("sglang:num_requests_total", "Requests that ended", ended)
    page.counter("sglang:num_aborted_requests_total", "Requests that were given up", stats.finished["abort"])
    page.counter("sglang:num_retracted_requests_total", "Preemptions", stats.preemptions)
    page.counter("sglang:cuda_graph_passes_total", "Steps of the engine", {'mode="decode_none"': stats.steps})
    for name, about, histogram in (
        ("time_to_first_token", "From arrival to the first token", stats.ttft_s),
        ("inter_token_latency", "Between tokens of a request", stats.itl_s),
        ("e2e_request_latency", "From arrival to the last token", stats.e2e_s),
        ("queue_time", "From arrival to admission", stats.queue_s),
    ):
        page.histogram(f"sglang:{name}_seconds", about, histogram)
    return page.text()


DIALECT = SglangDialect

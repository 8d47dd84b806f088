"""TensorRT-LLM's OpenAI server (trtllm-serve).

After tensorrt_llm/serve/{openai_server,openai_protocol,postprocess_handlers}.py and tensorrt_llm/metrics/collector.py.
It refuses fields that it does not know, shortens what does not fit the context, and cuts the connection where the
engine fails in the middle of a stream.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

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
from servemark.adapters.sim.writer import DONE, Writer, event
from servemark.harness.types import Endpoint

_COMMON: Final = """
    model frequency_penalty logit_bias logprobs n presence_penalty response_format seed stop stream stream_options
    temperature top_p user lora_request prompt_ignore_length thinking_token_budget best_of use_beam_search top_k
    top_p_min min_p repetition_penalty length_penalty early_stopping stop_token_ids include_stop_str_in_output
    ignore_eos min_tokens skip_special_tokens spaces_between_special_tokens truncate_prompt_tokens echo
    add_special_tokens disaggregated_params conversation_params priority max_tokens
"""
_OF_CHAT: Final = """
    messages prompt_token_ids prompt_token_ids_b64 top_logprobs max_completion_tokens tools tool_choice
    parallel_tool_calls reasoning_effort thinking add_generation_prompt documents chat_template chat_template_kwargs
    injected_chat_template_kwargs media_io_kwargs cache_salt agent_hierarchy mm_processor_kwargs
"""
_OF_COMPLETIONS: Final = "prompt suffix return_context_logits detokenize"
_KNOWN: Final[Mapping[Endpoint, frozenset[str]]] = {
    "chat": frozenset(f"{_COMMON} {_OF_CHAT}".split()),
    "completions": frozenset(f"{_COMMON} {_OF_COMPLETIONS}".split()),
}
_KEPT_STEPS: Final = 1000
_WAIT_S: Final = 2.0
_json = msgspec.json.encode


def _invalid(place: str, problem: str, type_: str = "value_error", *given: object) -> Refusal:
    """What the body's model does not take."""
    where = ", ".join(f"'{name}'" for name in ("body", *filter(None, place.split("."))))
    told = "".join(f", 'input': {value!r}" for value in given)
    text = f"1 validation error:\n  {{'type': '{type_}', 'loc': ({where}), 'msg': '{problem}'{told}}}"
    return Refusal(400, _json({"error": text}))


def _error(message: str, type_: str, code: int) -> bytes:
    return _json({"object": "error", "message": message, "type": type_, "param": None, "code": code})


class TrtllmDialect(Dialect):
    def __init__(self, sim: Simulation) -> None:
        super().__init__(sim)
        self._steps: deque[dict[str, Any]] = deque(maxlen=_KEPT_STEPS)
        self._ended = 0
        self.after_step = self._note_step
        self.routes = {
            "/health": Direct(respond_empty),
            "/version": Direct(lambda exchange: respond_json(exchange, {"version": VERSION})),
            "/v1/models": Direct(self._models),
            "/metrics": Direct(self._iterations),
            "/prometheus/metrics": Direct(
                lambda exchange: exchange.respond(200, _page(self.sim), PROMETHEUS),
            ),
            "/_internal/tokenize": Direct(self._tokenize, ("POST",)),
            "/v1/completions": Generated(lambda body, ordinal: self._read("completions", body, ordinal)),
            "/v1/chat/completions": Generated(lambda body, ordinal: self._read("chat", body, ordinal)),
        }

    def failure(self, status: int) -> bytes:
        return _error("simulated fault", "InternalServerError", status)

    # -- asking

    def _read(self, endpoint: Endpoint, body: bytes, ordinal: int) -> Asked:
        fields = _fields(body, _KNOWN[endpoint])
        stream, options = fields.flag("stream"), fields.part("stream_options")
        if options.values and not stream:
            raise _invalid("", "Value error, Stream options can only be defined when stream is true.")
        _check_known(options, frozenset({"include_usage", "continuous_usage_stats"}), "stream_options.")
        if not isinstance(fields.values.get("model"), str):
            raise _invalid("model", "Field required", "missing")
        prompt = self._prompt(endpoint, fields)
        usage = bool(options.values) and options.flag("include_usage", True)
        writer = ChunkWriter(
            endpoint,
            stream,
            str(fields.values["model"]),
            self.id_of("chatcmpl-" if endpoint == "chat" else "cmpl-", ordinal),
            len(prompt),
            usage,
            usage and options.flag("continuous_usage_stats"),
            fields.flag("detokenize", True),
        )
        return Asked(
            prompt=prompt,
            max_tokens=self._length(fields, len(prompt)),
            writer=writer,
            min_tokens=fields.integer("min_tokens", 0),
            ignore_eos=fields.flag("ignore_eos"),
            seed=fields.integer("seed", 0),
            cache_salt=fields.text("cache_salt"),
        )

    def _prompt(self, endpoint: Endpoint, fields: Fields) -> list[int]:
        if endpoint == "completions":
            return fields.prompt("prompt", self.sim.tokenizer)
        if fields.values.get("prompt_token_ids") is not None:
            return fields.prompt("prompt_token_ids", self.sim.tokenizer)
        return fields.chat(self.sim.tokenizer)

    def _length(self, fields: Fields, prompt: int) -> int:
        """What exceeds the context is cut off; what was not said is all that is left of it."""
        room = self.sim.context - prompt
        if room < 1:
            message = (
                f"`default_max_tokens` ({room}) should be greater than 0, `default_max_tokens` ({room}) = "
                f"max_seq_len ({self.sim.context}) - `splited_prompt_len` ({prompt}) - `query_token_len` (0)"
            )
            raise Refusal(400, _error(message, "BadRequestError", 400))
        wanted = fields.integer("max_tokens", fields.integer("max_completion_tokens", room))
        if wanted < 1:
            message = f"max_tokens must be greater than 0, but got {wanted}"
            raise Refusal(400, _error(message, "BadRequestError", 400))
        return min(wanted, room)

    # -- the other routes

    def _models(self, exchange: Exchange) -> None:
        card = {"id": self.sim.model, "object": "model", "created": self.sim.created, "owned_by": "tensorrt_llm"}
        respond_json(exchange, {"object": "list", "data": [card]})

    def _tokenize(self, exchange: Exchange) -> None:
        fields = _fields(exchange.body, frozenset({"model", "prompt"}))
        ids = fields.prompt("prompt", self.sim.tokenizer)
        respond_json(exchange, {"count": len(ids), "tokens": ids})

    def _iterations(self, exchange: Exchange) -> None:
        """The steps since the last answer, each told once; where there are none it waits for some."""
        if self._steps:
            self._tell_steps(exchange)
            return
        waiting = asyncio.get_running_loop().call_later(_WAIT_S, self._tell_steps, exchange)
        exchange.on_lost = waiting.cancel

    def _tell_steps(self, exchange: Exchange) -> None:
        told = list(self._steps)
        self._steps.clear()
        respond_json(exchange, told)

    def _note_step(self, emitted: list[EngineRequest]) -> None:
        engine, pool = self.sim.engine, self.sim.engine.pool
        work, stats, size = engine.work, engine.stats, engine.config.block_size
        generating = sum(request.produced > 1 for request in emitted)
        latency_ns = engine.step_time.duration_ns(work) / self.sim.options.speed
        ended = stats.finished["stop"] + stats.finished["length"]
        reused, looked_up = stats.prefix_hits // size, stats.prefix_queries // size
        self._steps.append(
            {
                "cpuMemUsage": 0,
                "gpuMemUsage": 0,
                "inflightBatchingStats": {
                    "avgNumDecodedTokensPerIter": 1.0 if generating else 0.0,
                    "microBatchId": 0,
                    "numContextRequests": work.requests - generating,
                    "numCtxTokens": work.tokens - generating,
                    "numGenRequests": generating,
                    "numPausedRequests": 0,
                    "numScheduledRequests": work.requests,
                },
                "iter": stats.steps,
                "iterLatencyMS": latency_ns / 1e6,
                "kvCacheStats": {
                    "allocNewBlocks": looked_up - reused,
                    "allocTotalBlocks": looked_up,
                    "cacheHitRate": reused / looked_up if looked_up else 0.0,
                    "freeNumBlocks": pool.free,
                    "maxNumBlocks": pool.total,
                    "missedBlocks": looked_up - reused,
                    "reusedBlocks": reused,
                    "tokensPerBlock": size,
                    "usedNumBlocks": pool.used,
                },
                "maxNumActiveRequests": engine.config.max_num_seqs,
                "numActiveRequests": len(engine.running),
                "numCompletedRequests": ended - self._ended,
                "numQueuedRequests": len(engine.waiting),
                "pinnedMemUsage": 0,
                "staticBatchingStats": None,
                "timestamp": datetime.now().strftime("%m-%d-%Y %H:%M:%S.%f"),
            }
        )
        self._ended = ended


def _fields(body: bytes, known: frozenset[str]) -> Fields:
    try:
        fields = Fields(json_object(body), _invalid)
    except ValueError as error:
        raise _invalid("", f"JSON decode error: {error}", "json_invalid") from None
    _check_known(fields, known, "")
    return fields


def _check_known(fields: Fields, known: frozenset[str], place: str) -> None:
    for name, value in fields.values.items():
        if name not in known:
            raise _invalid(place + name, "Extra inputs are not permitted", "extra_forbidden", value)


class ChunkWriter(Writer):
    """Chat: nulls are left out, and the first chunk, with the role, has a blank behind it. Plain: nulls stay."""

    head = stream_head("text/event-stream; charset=utf-8")
    end = DONE

    def __init__(
        self,
        endpoint: Endpoint,
        stream: bool,
        model: str,
        id_: str,
        prompt_tokens: int,
        usage: bool,
        continuous_usage: bool,
        detokenize: bool,
    ) -> None:
        super().__init__(stream)
        self._chat = endpoint == "chat"
        self._prompt_tokens = prompt_tokens
        self._usage, self._continuous, self._detokenize = usage, continuous_usage, detokenize
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        self._named: dict[str, Any] = {"id": id_, "object": kind, "created": int(time.time()), "model": model}
        self._head = b"data: " + _json(self._named)[:-1] + b',"choices":['
        self._open = b'{"index":0,"delta":{"content":"' if self._chat else b'{"index":0,"text":"'
        self._close = b'","reasoning_content":""}}]' if self._chat else self._plain_close(b"null")
        self._before = self._head + self._open
        self._usage_head = b',"usage":{"prompt_tokens":%d,"total_tokens":' % prompt_tokens
        self._usage_tail = b""

    def opening(self, request: EngineRequest) -> bytes:
        self._usage_tail = b',"prompt_tokens_details":{"cached_tokens":%d}}' % request.cached_tokens
        if not self._chat:
            return b""
        role = self._head + b'{"index":0,"delta":{"role":"assistant"}}]' + self._counts(0) + b"} \n\n"
        return chunk(role)

    def token(self, word: bytes, produced: int, token_id: int) -> bytes:
        if not self._detokenize:
            return chunk(self._before + self._plain_close(b"null", token_id) + self._counts(produced) + b"}\n\n")
        if self._continuous:
            return chunk(self._before + word + self._close + self._counts(produced) + b"}\n\n")
        return chunk(self._before + word + self._close + (b"}\n\n" if self._chat else b',"usage":null}\n\n'))

    def last(self, word: bytes, token_id: int, request: EngineRequest) -> bytes:
        reason = _json(request.finish_reason)
        if self._chat:
            close = b'","reasoning_content":""},"finish_reason":' + reason + b"}]"
        else:
            close = self._plain_close(reason, None if self._detokenize else token_id)
        shown = word if self._detokenize else b""
        told = chunk(self._before + shown + close + self._counts(request.produced) + b"}\n\n")
        if self._usage:
            usage = {"choices": [], "usage": _usage(self._prompt_tokens, request)}
            told += event(_json(self._named | usage))
        return told + DONE

    def failed(self) -> None:
        """The exception ends the response where it is."""

    def whole(self, request: EngineRequest, text: str, token_ids: list[int]) -> tuple[bytes, Headers]:
        choice: dict[str, Any] = {"index": 0}
        if self._chat:
            message = {"role": "assistant", "content": text, "reasoning_content": "", "reasoning": None}
            choice["message"] = {**message, "tool_calls": []}
        else:
            choice |= {"text": text if self._detokenize else "", "token_ids": None if self._detokenize else token_ids}
        choice |= {"logprobs": None, "finish_reason": request.finish_reason, "stop_reason": None}
        choice |= {"disaggregated_params": None, "avg_decoded_tokens_per_iter": 1.0}
        named = self._named | ({"object": "chat.completion"} if self._chat else {})
        answer = {**named, "choices": [choice], "usage": _usage(self._prompt_tokens, request)}
        return _json(answer | {"prompt_token_ids": None}), ()

    def _plain_close(self, reason: bytes, token_id: int | None = None) -> bytes:
        ids = b"null" if token_id is None else b"[%d]" % token_id
        return (
            b'","token_ids":%b,"logprobs":null,"finish_reason":%b,"stop_reason":null,'
            b'"avg_decoded_tokens_per_iter":null}]' % (ids, reason)
        )

    def _counts(self, produced: int) -> bytes:
        if not self._continuous:
            return b"" if self._chat else b',"usage":null'
        total = self._prompt_tokens + produced
        return b'%b%d,"completion_tokens":%d%b' % (self._usage_head, total, produced, self._usage_tail)


def _usage(prompt_tokens: int, request: EngineRequest) -> dict[str, Any]:
    usage: dict[str, Any] = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens + request.produced}
    usage |= {"completion_tokens": request.produced}
    return usage | {"prompt_tokens_details": {"cached_tokens": request.cached_tokens}}


def _page(sim: Simulation) -> bytes:
    """/prometheus/metrics, as with `return_perf_metrics`."""
    engine, stats = sim.engine, sim.engine.stats
    page = Page('engine_type="undefined",model_name="undefined"')
    page.gauge("trtllm_num_requests_running", "Active requests", len(engine.running))
    page.gauge("trtllm_num_requests_waiting", "Queued requests", len(engine.waiting))
    page.gauge("trtllm_kv_cache_utilization", "Share of KV blocks in use", engine.pool.used / engine.pool.total)
    hits = stats.prefix_hits / stats.prefix_queries if stats.prefix_queries else 0.0
    page.gauge("trtllm_kv_cache_hit_rate", "Share of KV blocks found", hits)
    ends = {f'finished_reason="{reason}"': stats.finished[reason] for reason in ("stop", "length")}
    page.counter("trtllm_request_success_total", "Requests that ended, by reason", ends)
    page.counter("trtllm_prompt_tokens_total", "Prompt tokens", stats.request_prompt_tokens.sum)
    page.counter("trtllm_generation_tokens_total", "Tokens generated", stats.request_generation_tokens.sum)
    page.counter("trtllm_prompt_cached_tokens_total", "Prompt tokens found", stats.cached_prompt_tokens)
    for name, about, histogram in (
        ("time_to_first_token", "From arrival to the first token", stats.ttft_s),
        ("time_per_output_token", "Mean between tokens, per request", stats.tpot_s),
        ("e2e_request_latency", "From arrival to the last token", stats.e2e_s),
        ("request_queue_time", "From arrival to admission", stats.queue_s),
        ("request_prefill_time", "From admission to the first token", stats.prefill_s),
        ("request_decode_time", "From the first token to the last", stats.decode_s),
        ("request_inference_time", "From admission to the last token", stats.inference_s),
    ):
        page.histogram(f"trtllm_{name}_seconds", about, histogram)
    return page.text()


DIALECT = TrtllmDialect

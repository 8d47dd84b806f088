"""Hugging Face's Text Generation Inference: its own route, where one event is one token, and its OpenAI routes.

From the server's source, router/src/{server,lib,chat,validation}.rs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from servemark.adapters.base import BaseAdapter, excerpt, json_answer, post_json, text_of
from servemark.adapters.openai_chunks import Chunk, ChunkDecoder, common_body, post
from servemark.harness.errors import BadInput
from servemark.harness.server.prometheus import Metrics, parse_metrics
from servemark.harness.types import (
    Decoder,
    Delta,
    Endpoint,
    ErrorKind,
    HttpRequest,
    Launcher,
    MetricsReader,
    MetricsSource,
    Options,
    Outcome,
    Probe,
    Promises,
    Request,
    Signature,
    Tokenization,
    Usage,
)

# What /info says that explains a result; which of them are there depends on the version.
_SETTINGS = (
    "docker_label",
    "max_batch_size",
    "max_batch_total_tokens",
    "max_concurrent_requests",
    "max_input_length",
    "max_input_tokens",
    "max_total_tokens",
    "max_waiting_tokens",
    "model_dtype",
    "model_sha",
    "waiting_served_ratio",
)

OF_THE_ENGINE: Mapping[str, tuple[str, ...]] = {
    "running": ("tgi_batch_current_size",),
    "waiting": ("tgi_queue_size",),
    "iterations": ("tgi_batch_inference_count",),
}
OF_THE_ROUTER: Mapping[str, tuple[str, ...]] = {
    "prompt_tokens": ("tgi_request_input_length_sum",),
    "generation_tokens": ("tgi_request_generated_tokens_sum",),
    "requests_finished": ("tgi_request_success",),
    "requests_failed": ('tgi_request_failure{err="generation"}',),
    "requests_aborted": ('tgi_request_failure{err="dropped"}',),
    "requests_rejected": ('tgi_request_failure{err="overloaded"}',),
    "e2e_sum": ("tgi_request_duration_sum",),
    "e2e_count": ("tgi_request_duration_count",),
    "queue_time_sum": ("tgi_request_queue_duration_sum",),
    "queue_time_count": ("tgi_request_queue_duration_count",),
    "tpot_sum": ("tgi_request_mean_time_per_token_duration_sum",),
    "tpot_count": ("tgi_request_mean_time_per_token_duration_count",),
}
_NOTES = {
    "tpot": "time in the engine over tokens, so the prompt's computation is in it",
    "e2e": "from reading the request to its last token",
    "generation_tokens": "counted when a request ends",
}


def _reader() -> MetricsReader:
    return _read_metrics


def _read_metrics(body: bytes) -> Mapping[str, float]:
    """The router writes a metric only once it has happened: one of its that is absent is 0."""
    metrics = parse_metrics(body) if body.strip() else Metrics({})
    if metrics.series and not any(name.startswith("tgi_") for name in metrics.series):
        raise ValueError("no metric of TGI's in /metrics")
    return {**dict.fromkeys(OF_THE_ROUTER, 0.0), **metrics.select({**OF_THE_ROUTER, **OF_THE_ENGINE})}


def _ask_text_ids(model: str, text: str) -> HttpRequest:
    return post_json("/tokenize", {"inputs": text})


def _ask_chat_ids(model: str, content: str) -> HttpRequest:
    return post_json("/chat_tokenize", {"model": "tgi", "messages": [{"role": "user", "content": content}]})


def _read_ids(status: int, body: bytes) -> tuple[int, ...]:
    """/tokenize answers with the tokens themselves, /chat_tokenize with an object that holds them."""
    if status != 200:
        raise ValueError(f"the server answers {status} to /tokenize or /chat_tokenize: {excerpt(body)}")
    try:
        answer = msgspec.json.decode(body)
        tokens = answer["tokenize_response"] if isinstance(answer, dict) else answer
        return msgspec.convert([token["id"] for token in tokens], tuple[int, ...])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError(f"the answer to /tokenize holds no token ids: {excerpt(body)}") from None


def _read_health(status: int, body: bytes) -> Mapping[str, Any]:
    if status == 404:
        raise ValueError("it answers 404 to /health, which TGI has; is the address right, and is it TGI?")
    return {"ready": status == 200}


def _read_info(status: int, body: bytes) -> Mapping[str, Any]:
    info = json_answer("/info", status, body)
    if "model_id" not in info:
        raise ValueError("its answer to /info names no model; is this TGI?")
    return {
        "engine": "tgi",
        "version": info.get("version"),
        "models": (str(info["model_id"]),),
        "context_tokens": info.get("max_total_tokens"),
        "settings": {name: info[name] for name in _SETTINGS if info.get(name) is not None},
    }


def _read_nothing(status: int, body: bytes) -> Mapping[str, Any]:
    return {}


def _is_tgi(status: int, body: bytes) -> bool:
    """Hugging Face's server of embeddings has an /info too, without a limit of output."""
    try:
        return {"model_id", "max_total_tokens", "max_best_of"} <= json_answer("/info", status, body).keys()
    except ValueError:
        return False


def _command(words: Sequence[str], host: str, port: int) -> Sequence[str]:
    return ("text-generation-launcher", "--model-id", *words, "--hostname", host, "--port", str(port))


class TgiAdapter(BaseAdapter):
    name = "tgi"
    about = "Hugging Face's Text Generation Inference"
    default_url = "http://localhost:3000"
    endpoints: tuple[Endpoint, ...] = ("generate", "chat", "completions")
    # The router has no field that keeps an answer from ending, and drops fields it does not know without a word.
    promised = Promises(
        fixed_length=False,
        exact_counts=True,
        cached_tokens=False,
        per_chunk_counts=True,
        token_id_prompts=False,
    )
    tokenization = Tokenization(_ask_text_ids, _ask_chat_ids, _read_ids)
    metrics = (MetricsSource("/metrics", _reader, notes=_NOTES),)
    launcher = Launcher(_command, version=("text-generation-launcher", "--version"))
    signature = Signature(HttpRequest("GET", "/info"), _is_tgi)

    def probes(self) -> Sequence[Probe]:
        return (
            Probe("readiness", HttpRequest("GET", "/health"), _read_health, required=True),
            Probe("info", HttpRequest("GET", "/info"), _read_info, required=True),
            # The routes above are open; this one asks for the key where there is one.
            Probe("key", _ask_text_ids("", "a"), _read_nothing, required=True),
        )

    def encode(self, request: Request, options: Options) -> HttpRequest:
        prompt = text_of(request)
        if not isinstance(prompt, str):
            raise BadInput("tgi takes no token ids; take a prompt source that gives text")
        if options.endpoint == "generate":
            return _generate(prompt, request.asked_output_tokens, options)
        # Any other name would be taken for that of a LoRA.
        body = common_body(request, replace(options, top_p=_top_p(options))) | {"model": "tgi"}
        if request.asked_output_tokens is not None:
            body["max_tokens"] = request.asked_output_tokens
        return post(body, options)

    def decoder(self, endpoint: Endpoint) -> Decoder:
        return TokenDecoder() if endpoint == "generate" else TokenChunkDecoder()


def _generate(prompt: str, tokens: int | None, options: Options) -> HttpRequest:
    """`parameters` of the user's own go over ours, one by one."""
    ours = {"details": True, **_sampling(options)}
    if tokens is not None:
        ours["max_new_tokens"] = tokens
    extra = options.extra_body
    parameters = extra.get("parameters", {})
    merged = ours | parameters if isinstance(parameters, dict) else parameters
    return post_json("/generate_stream", {"inputs": prompt, **extra, "parameters": merged})


def _sampling(options: Options) -> dict[str, Any]:
    """Greedy is nothing at all: a temperature of 0 is refused here."""
    wanted = {"temperature": options.temperature or None, "top_p": _top_p(options)}
    fields = {name: value for name, value in wanted.items() if value is not None}
    return {"do_sample": True, **fields} if fields else {}


def _top_p(options: Options) -> float | None:
    """None where it says nothing: 1 is refused, and beside a temperature of 0 it would make the engine sample."""
    return None if options.temperature == 0 or options.top_p is None or options.top_p >= 1 else options.top_p


class _Token(msgspec.Struct, gc=False):
    """Its text may be empty: it is a token all the same."""


class _Details(msgspec.Struct, gc=False):
    finish_reason: str | None = None
    generated_tokens: int | None = None
    input_length: int | None = None


class _Event(msgspec.Struct, gc=False):
    token: _Token | None = None
    generated_text: str | None = None
    details: _Details | None = None
    error: Any = None
    error_type: Any = None


_decode = msgspec.json.Decoder(_Event).decode
_ONE = Delta(carries=True, answer=True, tokens=1)


class TokenDecoder:
    """Reads /generate_stream: each event is one token, the last one has the whole text, and no [DONE] follows.

    Errors come under status 200, as events.
    """

    __slots__ = ("_details", "_ended", "_error", "_tokens", "answer")

    def __init__(self) -> None:
        self.answer: list[str] | None = None
        self._tokens = 0
        self._details = _Details()
        self._ended = False
        self._error: str | None = None

    def feed(self, event: bytes) -> Delta:
        told = _decode(event)
        if told.error is not None:
            return self._failed(told)
        if told.token is None:
            raise ValueError(f"no event of /generate_stream: {excerpt(event)}")
        self._tokens += 1
        if told.generated_text is not None:
            self._ended = True
            if self.answer is not None:
                self.answer.append(told.generated_text)
            self._details = told.details or self._details
        return _ONE

    def finish(self, clean: bool) -> Outcome:
        details = self._details
        error, detail = self._ending()
        counted = details.generated_tokens
        usage = Usage(
            prompt_tokens=details.input_length,
            output_tokens=self._tokens or None if counted is None else counted,
            source="usage" if counted is not None else "events" if self._tokens else "none",
        )
        return Outcome(usage, details.finish_reason, None, error, detail)

    def _failed(self, told: _Event) -> Delta:
        text = f"{told.error_type}: {told.error}" if told.error_type else str(told.error)
        self._error = self._error or text
        return Delta(error=text)

    def _ending(self) -> tuple[ErrorKind | None, str | None]:
        if self._error is not None:
            return "server_error", self._error[:500]
        if self._ended:
            return None, None
        return "incomplete", "the stream ended before the event that has generated_text"


class TokenChunkDecoder(ChunkDecoder):
    """Reads the OpenAI routes: each chunk with a choice is one token there too, whether it has text or not."""

    __slots__ = ("_tokens_told",)

    def __init__(self) -> None:
        super().__init__()
        self._tokens_told = 0

    def _told(self, chunk: Chunk) -> int | None:
        self._tokens_told += 1
        return self._tokens_told

    def _ending(self, clean: bool) -> tuple[ErrorKind | None, str | None]:
        """Some versions of the chat route drop an error without a word, and send [DONE] after it."""
        error, detail = super()._ending(clean)
        if error is None and self._finish is None:
            return "server_error", "the stream ended with [DONE] and no finish_reason; the server's log has the error"
        return error, detail


ADAPTER = TgiAdapter()

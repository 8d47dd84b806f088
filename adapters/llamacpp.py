"""llama.cpp's server: its own route /completion, and its OpenAI routes.

From the server's source, tools/server/{server-task,server-context,server-common}.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any, Self

import msgspec

from servemark.adapters.base import (
    BaseAdapter,
    error_text,
    excerpt,
    health_of,
    json_answer,
    model_list,
    owned_by,
    post_json,
    text_of,
    token_ids,
)
from servemark.adapters.openai_chunks import Chunk, ChunkDecoder, common_body, post
from servemark.harness.server.prometheus import parse_metrics
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
    ServerFacts,
    Signature,
    Tokenization,
    Usage,
)

METRICS: Mapping[str, tuple[str, ...]] = {
    "running": ("llamacpp:requests_processing",),
    "waiting": ("llamacpp:requests_deferred",),
    "kv_usage": ("llamacpp:kv_cache_usage_ratio",),  # older servers'
    "prompt_tokens": ("llamacpp:prompt_tokens",),
    "prompt_tokens_cached": ("llamacpp:prompt_tokens_cached",),
    "generation_tokens": ("llamacpp:tokens_predicted",),
    "iterations": ("llamacpp:n_decode",),
    "spec_drafts": ("llamacpp:spec_decode_num_drafts",),
    "spec_draft_tokens": ("llamacpp:spec_decode_num_draft_tokens",),
    "spec_accepted_tokens": ("llamacpp:spec_decode_num_accepted_tokens",),
}
_NOTES = {"generation_tokens": "counted when a request ends"}


_CONTENT = "the-content-of-the-message"


def _reader() -> MetricsReader:
    return _read_metrics


def _read_metrics(body: bytes) -> Mapping[str, float]:
    """The server's prompt tokens are those it computed; ours are all, and not known where it tells no cached ones."""
    values = parse_metrics(body).select(METRICS)
    if not values:
        raise ValueError("no metric of llama.cpp's in /metrics")
    computed, cached = values.pop("prompt_tokens", None), values.get("prompt_tokens_cached")
    if computed is not None and cached is not None:
        values["prompt_tokens"] = computed + cached
    return values


def _ask_text_ids(model: str, text: str) -> HttpRequest:
    """Special tokens as /completion adds them, so that the count is the one a request will have."""
    return post_json("/tokenize", {"content": text, "add_special": True})


def _ask_chat_ids(before: str, after: str, model: str, content: str) -> HttpRequest:
    return _ask_text_ids(model, before + content + after)


def _read_models(status: int, body: bytes) -> Mapping[str, Any]:
    cards = model_list(json_answer("/v1/models", status, body))
    metas = [meta for card in cards if isinstance(meta := card.get("meta"), dict)]
    return {
        "engine": "llama.cpp",
        "models": tuple(str(card["id"]) for card in cards),
        "settings": {
            name: metas[0][name] for name in ("ftype", "n_ctx_train", "n_params", "size") if metas and name in metas[0]
        },
    }


def _read_props(status: int, body: bytes) -> Mapping[str, Any]:
    """The context is one slot's: the server divides what it was started with among its slots."""
    if status == 404:
        raise ValueError("it answers 404 to /props, which llama-server has; is it another server?")
    props = json_answer("/props", status, body)
    defaults = props.get("default_generation_settings")
    slots = props.get("total_slots")
    return {
        "version": props.get("build_info"),
        "context_tokens": (defaults.get("n_ctx") or None) if isinstance(defaults, dict) else None,
        "settings": {} if slots is None else {"total_slots": slots},
    }


def _read_frame(status: int, body: bytes) -> Mapping[str, Any]:
    """What the chat template puts before and after a message, where it holds the message as it is."""
    if status != 200:
        return {}
    frame = str(json_answer("/apply-template", status, body).get("prompt")).split(_CONTENT)
    return {"settings": {"chat_frame": frame}} if len(frame) == 2 else {}


def _command(words: Sequence[str], host: str, port: int) -> Sequence[str]:
    """A model is a file, or flags of the server's own that name one (-hf ...)."""
    model = () if words and words[0].startswith("-") else ("-m",)
    return ("llama-server", *model, *words, "--host", host, "--port", str(port), "--metrics")


class LlamaCppAdapter(BaseAdapter):
    name = "llamacpp"
    about = "llama.cpp's server (llama-server)"
    default_url = "http://localhost:8080"
    endpoints: tuple[Endpoint, ...] = ("generate", "chat", "completions")
    promised = Promises(
        fixed_length=True,
        exact_counts=True,
        cached_tokens=True,
        per_chunk_counts=True,
        token_id_prompts=True,
    )
    tokenization = Tokenization(_ask_text_ids, None, token_ids("/tokenize"))
    metrics = (MetricsSource("/metrics", _reader, notes=_NOTES),)
    launcher = Launcher(_command, version=("llama-server", "--version"))
    signature = Signature(HttpRequest("GET", "/v1/models"), owned_by("llamacpp"))

    def probes(self) -> Sequence[Probe]:
        return (
            Probe("readiness", HttpRequest("GET", "/health"), health_of("llama-server"), required=True),
            Probe("models", HttpRequest("GET", "/v1/models"), _read_models, required=True),
            Probe("properties", HttpRequest("GET", "/props"), _read_props, required=True),
        )

    def model_probes(self, model: str) -> Sequence[Probe]:
        chat = {"model": model, "messages": [{"role": "user", "content": _CONTENT}]}
        return (Probe("template", post_json("/apply-template", chat), _read_frame),)

    def settled(self, facts: ServerFacts, model: str) -> Self:
        """The route that tokenizes knows no template, so that it has to be told what the template adds."""
        frame = facts.settings.get("chat_frame")
        if frame is None:
            return self
        settled = copy(self)
        settled.tokenization = replace(self.tokenization, of_chat=partial(_ask_chat_ids, *frame))
        return settled

    def encode(self, request: Request, options: Options) -> HttpRequest:
        length = request.asked_output_tokens
        if options.endpoint == "generate":
            body = _sampling(options) | {"prompt": text_of(request), "stream": True}
            name = "n_predict"
        else:
            # The timings hold how many tokens the answer has by now.
            body = common_body(request, options) | {"timings_per_token": True}
            name = "max_tokens"
        if length is not None:
            body[name] = length
            if options.force_output_length:
                body["ignore_eos"] = True
        if options.endpoint == "generate":
            return post_json("/completion", {**body, **options.extra_body})
        return post(body, options)

    def decoder(self, endpoint: Endpoint) -> Decoder:
        return CompletionDecoder() if endpoint == "generate" else TimedChunkDecoder()


def _sampling(options: Options) -> dict[str, Any]:
    wanted = {"temperature": options.temperature, "top_p": options.top_p}
    return {name: value for name, value in wanted.items() if value is not None}


class _Timings(msgspec.Struct, gc=False):
    cache_n: int | None = None
    prompt_n: int | None = None


class _Event(msgspec.Struct, gc=False):
    content: str | None = None
    tokens: list[int] | None = None
    stop: bool | None = None
    stop_type: str | None = None
    tokens_predicted: int | None = None
    tokens_evaluated: int | None = None
    timings: _Timings | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Event).decode
_NOTHING = Delta()
_OF_UNKNOWN_SIZE = Delta(carries=True, answer=True)


class CompletionDecoder:
    """Reads /completion: events until one with `"stop":true`, which tells the counts; no [DONE] follows.

    Each event tells how many tokens the answer has by now; an older server's tells its tokens' ids only.
    """

    __slots__ = ("_counted", "_error", "_gap", "_last", "answer")

    def __init__(self) -> None:
        self.answer: list[str] | None = None
        self._counted = 0
        self._gap = False
        """Tokens came whose number is unknown."""
        self._last: _Event | None = None
        self._error: str | None = None

    def feed(self, event: bytes) -> Delta:
        told = _decode(event)
        if told.error is not None:
            text = error_text(told.error)
            self._error = self._error or text
            return Delta(error=text)
        if told.stop is None:
            raise ValueError(f"no event of /completion: {excerpt(event)}")
        if told.stop:
            self._last = told
        if self.answer is not None and told.content:
            self.answer.append(told.content)
        new = self._new(told)
        if new:
            return Delta(carries=True, answer=True, tokens=new)
        return _OF_UNKNOWN_SIZE if told.content else _NOTHING

    def finish(self, clean: bool) -> Outcome:
        error, detail = self._ending()
        stop_type = self._last.stop_type if self._last is not None else None
        return Outcome(self._usage(), stop_type, None, error, detail)

    def _new(self, told: _Event) -> int | None:
        """How many tokens are new in an event, None where that is unknown or there are none."""
        if told.tokens_predicted is None:
            new = len(told.tokens or ())
            self._gap = self._gap or (bool(told.content) and not new)
        elif self._gap:  # what came before stands in this number too
            new = 0
        else:
            new = told.tokens_predicted - self._counted
        self._counted += max(0, new)
        return new if new > 0 else None

    def _usage(self) -> Usage:
        last = self._last
        if last is None or last.tokens_predicted is None:
            known = self._counted and not self._gap
            return Usage(output_tokens=self._counted, source="events") if known else Usage()
        timings = last.timings or _Timings()
        cached = timings.cache_n
        if cached is None and timings.prompt_n is not None and last.tokens_evaluated is not None:
            cached = last.tokens_evaluated - timings.prompt_n  # those computed are the others
        return Usage(last.tokens_evaluated, last.tokens_predicted, cached_tokens=cached, source="usage")

    def _ending(self) -> tuple[ErrorKind | None, str | None]:
        if self._error is not None:
            return "server_error", self._error[:500]
        if self._last is not None:
            return None, None
        return "incomplete", 'the stream ended before the event with "stop":true'


class TimedChunkDecoder(ChunkDecoder):
    """Reads the OpenAI routes, whose chunks tell the answer's tokens among their timings."""

    __slots__ = ()

    def _told(self, chunk: Chunk) -> int | None:
        told = super()._told(chunk)
        return chunk.timings.predicted_n if told is None and chunk.timings is not None else told

    def _without_choices(self, chunk: Chunk, event: bytes) -> Delta:
        """The last chunk counts a token that had none of its own, the one that ended the answer."""
        delta = super()._without_choices(chunk, event)
        new = (self._told(chunk) or 0) - sum(self._counted.values())
        if self._gap or new <= 0:
            return delta
        self._counted[0] = self._counted.get(0, 0) + new
        return Delta(carries=True, answer=True, tokens=new)


ADAPTER = LlamaCppAdapter()

"""The bytes of vLLM's answers, field for field as version 0.32 sends them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from servemark.adapters.sim.connection import Headers, stream_head
from servemark.adapters.sim.dialect import VERSION
from servemark.adapters.sim.engine import EngineRequest
from servemark.adapters.sim.writer import DONE, Writer, event
from servemark.harness.types import Endpoint

_json = msgspec.json.encode
_FINGERPRINT: Final = f"vllm-{VERSION}"


@dataclass(frozen=True, slots=True)
class Form:
    """What of a request decides the form of the answer."""

    endpoint: Endpoint
    stream: bool
    prompt: list[int]
    include_usage: bool
    continuous_usage: bool
    return_token_ids: bool


class ChunkWriter(Writer):
    """`details`: the usage tells cached prompt tokens."""

    head = stream_head("text/event-stream; charset=utf-8")
    end = DONE

    def __init__(self, form: Form, id_: str, model: str, details: bool) -> None:
        super().__init__(form.stream)
        self._form = form
        self._details_on = details
        self._prompt_tokens = len(form.prompt)
        self._id, self._model, self._created = id_, model, int(time.time())
        kind = "chat.completion.chunk" if form.endpoint == "chat" else "text_completion"
        named = _json({"id": id_, "object": kind, "created": self._created, "model": model})
        self._head = named[:-1] + b',"choices":['
        self._fingerprint = b',"system_fingerprint":' + _json(_FINGERPRINT)
        if form.endpoint == "chat":
            self._open, self._close = b'{"index":0,"delta":{"content":"', b'"},"logprobs":null,"finish_reason":null'
            self._ids = b',"token_ids":'
            self._details = b',"completion_tokens_details":null'
        else:
            self._open = b'{"index":0,"text":"'
            self._close = b'","logprobs":null,"finish_reason":null,"stop_reason":null,"prompt_token_ids":null'
            self._ids, self._details = b',"token_ids":', b""
        self._before = b"data: " + self._head + self._open
        self._after = self._close + b',"token_ids":null}]}\n\n\r\n'
        self._plain_length = len(self._before) + len(self._after) - 2
        self._usage_head = b',"token_ids":null}],"usage":{"prompt_tokens":%d,"total_tokens":' % self._prompt_tokens

    def opening(self, request: EngineRequest) -> bytes:
        """The role chunk, sent together with the first token; plain completions have none."""
        if self._form.endpoint != "chat":
            return b""
        choice = b'{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}'
        return event(
            self._head
            + choice
            + b"]"
            + self._counts(0)
            + b',"prompt_token_ids":%b,"prompt_text":null}' % self._prompt()
        )

    def token(self, word: bytes, produced: int, token_id: int) -> bytes:
        """A chunk with one token; `produced` counts it."""
        if self._form.return_token_ids:
            return self._any(word, produced, token_id)
        if not self._form.continuous_usage:
            return b"%x\r\n%b%b%b" % (self._plain_length + len(word), self._before, word, self._after)
        after = b'%b%b%d,"completion_tokens":%d%b}}\n\n\r\n' % (
            self._close,
            self._usage_head,
            self._prompt_tokens + produced,
            produced,
            self._details,
        )
        return b"%x\r\n%b%b%b" % (len(self._before) + len(word) + len(after) - 2, self._before, word, after)

    def last(self, word: bytes, token_id: int, request: EngineRequest) -> bytes:
        """The chunk with the finish reason, then usage where asked for, then [DONE]."""
        produced = request.produced
        finish = self._any(word, produced, token_id, request.finish_reason)
        if not self._form.include_usage:
            return finish + DONE
        usage = self._head + b'],"usage":' + _json(self._usage(request))
        return finish + event(usage + self._fingerprint + b"}") + DONE

    def failed(self) -> bytes:
        message = "EngineCore encountered an issue (simulated fault)."
        error = {"message": message, "type": "InternalServerError", "param": None, "code": 500}
        return event(_json({"error": error})) + DONE

    def whole(self, request: EngineRequest, text: str, token_ids: list[int]) -> tuple[bytes, Headers]:
        chat = self._form.endpoint == "chat"
        usage = self._usage(request)
        usage.setdefault("prompt_tokens_details", None)
        ids, prompt_ids = (token_ids, self._form.prompt) if self._form.return_token_ids else (None, None)
        choice: dict[str, Any] = {"index": 0}
        after: dict[str, Any] = {}
        if chat:
            nothing = dict.fromkeys(("refusal", "annotations", "audio", "function_call", "reasoning"))
            choice["message"] = {"role": "assistant", "content": text, **nothing}
            after = {"prompt_logprobs": None, "prompt_token_ids": prompt_ids, "prompt_text": None}
        else:
            choice["text"] = text
        choice |= {"logprobs": None, "finish_reason": request.finish_reason, "stop_reason": None, "token_ids": ids}
        if not chat:
            choice |= {"prompt_logprobs": None, "prompt_token_ids": prompt_ids}
        choice["routed_experts"] = None
        answer = {
            "id": self._id,
            "object": "chat.completion" if chat else "text_completion",
            "created": self._created,
            "model": self._model,
            "choices": [choice],
            "service_tier": None,
            "system_fingerprint": _FINGERPRINT,
            "usage": usage | {"completion_tokens_details": None},
            **after,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }
        return _json(answer), ()

    def _usage(self, request: EngineRequest) -> dict[str, Any]:
        """vLLM leaves a count of 0 cached tokens out."""
        usage: dict[str, Any] = {
            "prompt_tokens": self._prompt_tokens,
            "total_tokens": self._prompt_tokens + request.produced,
            "completion_tokens": request.produced,
        }
        cached = request.cached_tokens if self._details_on else 0
        return usage | {"prompt_tokens_details": {"cached_tokens": cached}} if cached else usage

    def _any(self, word: bytes, produced: int, token_id: int, reason: str | None = None) -> bytes:
        """Any chunk that holds a token, put together without haste."""
        close = self._close
        if reason is not None:
            close = close.replace(b'"finish_reason":null', b'"finish_reason":' + _json(reason))
            if self._form.endpoint == "chat":
                close += b',"stop_reason":null'
        ids = b"null"
        if self._form.return_token_ids:
            ids = b"[%d]" % token_id
            if produced == 1:
                close = close.replace(b'"prompt_token_ids":null', b'"prompt_token_ids":' + self._prompt())
        payload = self._head + self._open + word + close + self._ids + ids + b"}]" + self._counts(produced)
        if reason is not None and not self._form.include_usage:
            payload += self._fingerprint
        return event(payload + b"}")

    def _counts(self, produced: int) -> bytes:
        if not self._form.continuous_usage:
            return b""
        total = self._prompt_tokens + produced
        return b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d%b}' % (
            self._prompt_tokens,
            total,
            produced,
            self._details,
        )

    def _prompt(self) -> bytes:
        return _json(self._form.prompt) if self._form.return_token_ids else b"null"

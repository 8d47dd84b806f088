"""The bytes of vLLM's answers, field for field as version 0.32 sends them."""

from __future__ import annotations

from typing import Any

import msgspec

from servemark.adapters.sim.asked import Asked
from servemark.adapters.sim.connection import chunk

_json = msgspec.json.encode
DONE = chunk(b"data: [DONE]\n\n")


def event(payload: bytes) -> bytes:
    """One server-sent event as one HTTP chunk."""
    return chunk(b"data: " + payload + b"\n\n")


def error_event(message: str) -> bytes:
    error = {"message": message, "type": "InternalServerError", "param": None, "code": 500}
    return event(_json({"error": error}))


class Stream:
    """Writes the events of one streamed answer. Words are JSON-safe bytes."""

    def __init__(self, asked: Asked, id_: str, model: str, created: int, fingerprint: str) -> None:
        self._asked = asked
        self._prompt_tokens = len(asked.prompt)
        kind = "chat.completion.chunk" if asked.endpoint == "chat" else "text_completion"
        named = _json({"id": id_, "object": kind, "created": created, "model": model})
        self._head = named[:-1] + b',"choices":['
        self._fingerprint = b',"system_fingerprint":' + _json(fingerprint)
        if asked.endpoint == "chat":
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

    def opening(self) -> bytes:
        """The role chunk, sent together with the first token; plain completions have none."""
        if self._asked.endpoint != "chat":
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
        if self._asked.return_token_ids:
            return self._any(word, produced, token_id)
        if not self._asked.continuous_usage:
            return b"%x\r\n%b%b%b" % (self._plain_length + len(word), self._before, word, self._after)
        after = b'%b%b%d,"completion_tokens":%d%b}}\n\n\r\n' % (
            self._close,
            self._usage_head,
            self._prompt_tokens + produced,
            produced,
            self._details,
        )
        return b"%x\r\n%b%b%b" % (len(self._before) + len(word) + len(after) - 2, self._before, word, after)

    def last(self, word: bytes, produced: int, token_id: int, reason: str, cached_tokens: int | None) -> bytes:
        """The chunk with the finish reason, then usage where asked for, then [DONE]."""
        finish = self._any(word, produced, token_id, reason)
        if not self._asked.include_usage:
            return finish + DONE
        usage = self._head + b'],"usage":' + _json(usage_fields(self._prompt_tokens, produced, cached_tokens))
        return finish + event(usage + self._fingerprint + b"}") + DONE

    def _any(self, word: bytes, produced: int, token_id: int, reason: str | None = None) -> bytes:
        """Any chunk that holds a token, put together without haste."""
        close = self._close
        if reason is not None:
            close = close.replace(b'"finish_reason":null', b'"finish_reason":' + _json(reason))
            if self._asked.endpoint == "chat":
                close += b',"stop_reason":null'
        ids = b"null"
        if self._asked.return_token_ids:
            ids = b"[%d]" % token_id
            if produced == 1:
                close = close.replace(b'"prompt_token_ids":null', b'"prompt_token_ids":' + self._prompt())
        payload = self._head + self._open + word + close + self._ids + ids + b"}]" + self._counts(produced)
        if reason is not None and not self._asked.include_usage:
            payload += self._fingerprint
        return event(payload + b"}")

    def _counts(self, produced: int) -> bytes:
        if not self._asked.continuous_usage:
            return b""
        total = self._prompt_tokens + produced
        return b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d%b}' % (
            self._prompt_tokens,
            total,
            produced,
            self._details,
        )

    def _prompt(self) -> bytes:
        return _json(self._asked.prompt) if self._asked.return_token_ids else b"null"


def usage_fields(prompt: int, produced: int, cached: int | None) -> dict[str, Any]:
    """`cached` is None unless the server reports details; vLLM leaves a count of 0 out."""
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "total_tokens": prompt + produced,
        "completion_tokens": produced,
    }
    return usage | {"prompt_tokens_details": {"cached_tokens": cached}} if cached else usage


def whole_answer(
    asked: Asked,
    id_: str,
    model: str,
    created: int,
    fingerprint: str,
    text: str,
    token_ids: list[int],
    reason: str,
    cached: int | None,
) -> bytes:
    """The body of an answer that is not streamed."""
    usage = usage_fields(len(asked.prompt), len(token_ids), cached)
    usage.setdefault("prompt_tokens_details", None)
    ids = token_ids if asked.return_token_ids else None
    prompt_ids = asked.prompt if asked.return_token_ids else None
    choice: dict[str, Any] = {"index": 0}
    after: dict[str, Any] = {}
    if asked.endpoint == "chat":
        nothing = dict.fromkeys(("refusal", "annotations", "audio", "function_call", "reasoning"))
        choice["message"] = {"role": "assistant", "content": text, **nothing}
        after = {"prompt_logprobs": None, "prompt_token_ids": prompt_ids, "prompt_text": None}
    else:
        choice["text"] = text
    choice |= {"logprobs": None, "finish_reason": reason, "stop_reason": None, "token_ids": ids}
    if asked.endpoint != "chat":
        choice |= {"prompt_logprobs": None, "prompt_token_ids": prompt_ids}
    choice["routed_experts"] = None
    return _json(
        {
            "id": id_,
            "object": "chat.completion" if asked.endpoint == "chat" else "text_completion",
            "created": created,
            "model": model,
            "choices": [choice],
            "service_tier": None,
            "system_fingerprint": fingerprint,
            "usage": usage | {"completion_tokens_details": None},
            **after,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }
    )

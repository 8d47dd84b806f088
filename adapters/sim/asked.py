"""Reads the body of a generation request as vLLM does: what is asked, or the refusal it would send."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from servemark.adapters.sim.tokenizer import Tokenizer
from servemark.harness.types import Endpoint

_COMPLETIONS_MAX_TOKENS = 16
_decode = msgspec.json.Decoder().decode


class Refusal(Exception):
    """An error response, in vLLM's shape."""

    def __init__(
        self, message: str, param: str | None = None, status: int = 400, type_: str = "BadRequestError"
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = error_body(message, type_, param, status)


def error_body(message: str, type_: str, param: str | None, code: int) -> bytes:
    error = {"message": message, "type": type_, "param": param, "code": code}
    return msgspec.json.encode({"error": error})


@dataclass(frozen=True, slots=True)
class Limits:
    model: str
    max_model_len: int
    vocab: int


@dataclass(frozen=True, slots=True)
class Asked:
    endpoint: Endpoint
    prompt: list[int]
    max_tokens: int
    min_tokens: int
    ignore_eos: bool
    stream: bool
    include_usage: bool
    continuous_usage: bool
    return_token_ids: bool
    seed: int


def read_json(body: bytes) -> Mapping[str, Any]:
    try:
        fields = _decode(body)
    except ValueError as error:
        raise Refusal(f"1 validation error:\n  the body is no JSON: {error}", "body", type_="Bad Request") from None
    if not isinstance(fields, dict):
        raise Refusal("1 validation error:\n  the body is no JSON object", "body", type_="Bad Request")
    return fields


def read_asked(endpoint: Endpoint, body: bytes, limits: Limits, tokenizer: Tokenizer) -> Asked:
    fields = read_json(body)
    check_model(fields, limits)
    stream = bool(fields.get("stream"))
    options = fields.get("stream_options") or {}
    if options and not stream:
        raise Refusal(
            "Stream options can only be defined when `stream=True`. (parameter=stream_options)", "stream_options"
        )
    if _integer(fields, "n", 1) != 1:
        raise Refusal("the simulated server gives one choice per request; n must be 1 (parameter=n)", "n")
    prompt = prompt_ids(fields, tokenizer, limits) if endpoint == "completions" else chat_ids(fields, tokenizer)
    max_tokens = _max_tokens(endpoint, fields, len(prompt), limits)
    min_tokens = _integer(fields, "min_tokens", 0)
    if min_tokens > max_tokens:
        raise Refusal(f"min_tokens must be less than or equal to max_tokens={max_tokens}, got {min_tokens}.")
    include_usage = bool(options.get("include_usage"))
    return Asked(
        endpoint=endpoint,
        prompt=prompt,
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        ignore_eos=bool(fields.get("ignore_eos")),
        stream=stream,
        include_usage=include_usage,
        continuous_usage=include_usage and bool(options.get("continuous_usage_stats")),
        return_token_ids=bool(fields.get("return_token_ids")),
        seed=_integer(fields, "seed", 0),
    )


def check_model(fields: Mapping[str, Any], limits: Limits) -> None:
    model = fields.get("model")
    if model is not None and model != limits.model:
        message = f"The model `{model}` does not exist. Valid aliases: {limits.model}."
        raise Refusal(message, "model", 404, "NotFoundError")


def prompt_ids(fields: Mapping[str, Any], tokenizer: Tokenizer, limits: Limits) -> list[int]:
    """Of `prompt`: text, token ids, or a list that holds one of these."""
    prompt = fields.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if not prompt:
        raise Refusal("Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)", "prompt")
    if isinstance(prompt, str):
        return tokenizer.ids(prompt)
    if isinstance(prompt, list) and all(type(token) is int for token in prompt):
        if min(prompt) < 0 or max(prompt) >= limits.vocab:
            raise Refusal(f"Token id {max(prompt)} is out of vocabulary")
        return prompt
    raise Refusal("the simulated server takes one prompt: text or token ids (parameter=prompt)", "prompt")


def chat_ids(fields: Mapping[str, Any], tokenizer: Tokenizer) -> list[int]:
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        problem = "'loc': 'body.messages', 'msg': 'Field required, a list of messages'"
        raise Refusal(f"1 validation error:\n  {{{problem}}}", "body.messages", type_="Bad Request")
    return tokenizer.chat_ids((str(one.get("role")), _content(one.get("content"))) for one in messages)


def _content(content: object) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _max_tokens(endpoint: Endpoint, fields: Mapping[str, Any], prompt: int, limits: Limits) -> int:
    room = limits.max_model_len - prompt
    if room < 1:
        raise Refusal(
            f"This model's maximum context length is {limits.max_model_len} tokens. However, your prompt contains "
            f"{prompt} input tokens and needs room for at least one more. (parameter=input_tokens, value={prompt})",
            "input_tokens",
        )
    default = room if endpoint == "chat" else min(_COMPLETIONS_MAX_TOKENS, room)
    wanted = _integer(fields, "max_tokens", default)
    if endpoint == "chat":
        wanted = _integer(fields, "max_completion_tokens", wanted)
    if wanted < 1:
        raise Refusal(
            f"max_tokens must be at least 1, got {wanted}. (parameter=max_tokens, value={wanted})", "max_tokens"
        )
    if wanted > room:
        raise Refusal(
            f"This model's maximum context length is {limits.max_model_len} tokens. However, you requested {wanted} "
            f"output tokens and your prompt contains {prompt} input tokens. (parameter=max_tokens, value={wanted})",
            "max_tokens",
        )
    return wanted


def _integer(fields: Mapping[str, Any], name: str, default: int) -> int:
    value = fields.get(name)
    if value is None:
        return default
    if type(value) is not int:
        problem = f"'loc': 'body.{name}', 'msg': 'Input should be a valid integer', 'input': {value!r}"
        raise Refusal(f"1 validation error:\n  {{{problem}}}", f"body.{name}", type_="Bad Request")
    return value

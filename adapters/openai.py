"""Any endpoint that speaks OpenAI's API, hosted ones too: the fields of the standard and no others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from servemark.adapters.base import BaseAdapter, json_answer, model_list, post_json
from servemark.adapters.openai_chunks import PATHS, ChunkDecoder, common_body
from servemark.harness.errors import BadInput
from servemark.harness.types import Decoder, Endpoint, HttpRequest, Options, Probe, Promises, Request

_LIST = HttpRequest("GET", "/models")

# What cards of models call the context length: vLLM and SGLang, OpenRouter, Groq.
_CONTEXT = ("max_model_len", "context_length", "context_window")

# A longer list is a catalogue: deployments, fine-tuned models and variants are served without standing in it.
_CATALOGUE = 20


def _cards(status: int, body: bytes) -> list[dict[str, Any]]:
    """Some gateways have no list."""
    return [] if status in (404, 405, 501) else model_list(json_answer("/models", status, body))


def _read_models(status: int, body: bytes) -> Mapping[str, Any]:
    cards = _cards(status, body)
    owners = {str(card.get("owned_by")) for card in cards}
    names = tuple(str(card["id"]) for card in cards)
    return {
        "ready": True,
        "engine": owners.pop() if len(owners) == 1 and not owners & {*names, "None"} else None,
        "models": names if len(names) <= _CATALOGUE else None,
    }


def _read_context(model: str, status: int, body: bytes) -> Mapping[str, Any]:
    cards = _cards(status, body) if status == 200 else []
    card = next((card for card in cards if card["id"] == model), {})
    return {"context_tokens": next((card[name] for name in _CONTEXT if isinstance(card.get(name), int)), None)}


class OpenAIAdapter(BaseAdapter):
    name = "openai"
    about = "any endpoint that speaks OpenAI's API, hosted ones too"
    default_url = "http://localhost:8000/v1"
    endpoints: tuple[Endpoint, ...] = ("chat", "completions")
    promised = Promises(
        fixed_length=False,
        exact_counts=True,
        cached_tokens=True,
        per_chunk_counts=False,
        token_id_prompts=False,
    )

    def base_url(self, url: str) -> str:
        """A path is kept as it is, as OpenAI's own clients do; without one it is /v1."""
        return url if urlsplit(url).path.strip("/") else f"{url.rstrip('/')}/v1"

    def probes(self) -> Sequence[Probe]:
        return (Probe("models", _LIST, _read_models, required=True),)

    def model_probes(self, model: str) -> Sequence[Probe]:
        return (Probe("context", _LIST, partial(_read_context, model)),)

    def encode(self, request: Request, options: Options) -> HttpRequest:
        if not isinstance(request.prompt, str):
            raise BadInput("not every OpenAI endpoint takes token ids; take a prompt source that gives text")
        body = common_body(request, options)
        if request.asked_output_tokens is not None:
            body[_length_field(options)] = request.asked_output_tokens
        merged = {**body, **options.extra_body}
        # Endpoints differ in which fields of the standard they take: null takes one out.
        kept = {name: value for name, value in merged.items() if value is not None}
        return post_json(PATHS[options.endpoint].removeprefix("/v1"), kept)

    def decoder(self, endpoint: Endpoint) -> Decoder:
        return ChunkDecoder()


def _length_field(options: Options) -> str:
    """OpenAI's reasoning models refuse `max_tokens`, some other hosts its successor."""
    successor = "max_completion_tokens"
    taken = options.endpoint == "chat" and options.extra_body.get(successor, 0) is not None
    return successor if taken else "max_tokens"


ADAPTER = OpenAIAdapter()

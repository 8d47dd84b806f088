"""What adapters have in common: defaults for what not every server needs, JSON both ways, Prometheus metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec

from servemark.harness.errors import BadInput
from servemark.harness.server.metric_names import SERVER_METRICS
from servemark.harness.server.prometheus import parse_metrics
from servemark.harness.types import (
    Endpoint,
    Framing,
    HttpRequest,
    Launcher,
    Message,
    MetricsReader,
    MetricsSource,
    Probe,
    Promises,
    Request,
    ServerFacts,
    Signature,
    Tokenization,
)

JSON_HEADERS = (("Content-Type", "application/json"),)

_encode = msgspec.json.Encoder(order="sorted").encode


class BaseAdapter:
    """An adapter gives `name`, `about`, `default_url`, `endpoints`, `promised`, `probes`, `encode` and `decoder`.

    Whatever else it has goes over the defaults here.
    """

    name: str
    about: str
    default_url: str
    endpoints: tuple[Endpoint, ...]
    framing: Framing = "sse"
    simulated: bool = False
    tokenization: Tokenization | None = None
    metrics: tuple[MetricsSource, ...] = ()
    launcher: Launcher | None = None
    cache_reset: HttpRequest | None = None
    signature: Signature | None = None
    batch_path: str | None = None
    promised: Promises
    """What the server promises on its endpoints."""

    def base_url(self, url: str) -> str:
        """Without a trailing /v1: the adapter's paths have it."""
        path = urlsplit(url).path.rstrip("/")
        return url.rstrip("/").removesuffix("/v1") if path.endswith("/v1") else url

    def model_probes(self, model: str) -> Sequence[Probe]:
        return ()

    def settled(self, facts: ServerFacts, model: str) -> Self:
        return self

    def promises(self, endpoint: Endpoint) -> Promises:
        """A chat takes messages of text, whatever else the server takes."""
        return replace(self.promised, token_id_prompts=False) if endpoint == "chat" else self.promised


def prometheus(
    path: str,
    names: Mapping[str, tuple[str, ...]],
    port: int | None = None,
    notes: Mapping[str, str] | None = None,
) -> MetricsSource:
    """Metrics in the Prometheus format: our name -> selectors, of which the first that is present counts.

    Our names are those of `servemark.harness.server.metric_names`; ValueError for another.
    """
    if strange := names.keys() - SERVER_METRICS.keys():
        raise ValueError(f"there is no server metric {min(strange)!r}; there are: {', '.join(SERVER_METRICS)}")

    def read(body: bytes) -> Mapping[str, float]:
        values = parse_metrics(body).select(names)
        if not values:
            raise ValueError(f"no known metric in {path}")
        return values

    def reader() -> MetricsReader:
        return read

    return MetricsSource(path, reader, port, notes=notes or {})


def text_of(request: Request) -> str | tuple[int, ...]:
    """The prompt for a route that takes no messages: a conversation becomes one text. BadInput for ids after messages.

    An answer follows on its prompt without a gap, as it was generated: so each turn begins with the whole of the one
    before it, its answer included, and a prefix cache finds them.
    """
    if not request.history:
        return request.prompt
    if not isinstance(request.prompt, str):
        raise BadInput("token ids cannot follow on messages of text; set prompts.tokens to text")
    first, *later = (*request.history, Message(request.role, request.prompt))
    return first.content + "".join(
        each.content if each.role == "assistant" else f"\n\n{each.content}" for each in later
    )


def post_json(path: str, body: Mapping[str, Any]) -> HttpRequest:
    return HttpRequest("POST", path, JSON_HEADERS, _encode(body))


def json_answer(path: str, status: int, body: bytes) -> dict[str, Any]:
    """The JSON object of an answer with status 200; ValueError with a sentence for anything else."""
    if status != 200:
        raise ValueError(f"the server answers {status} to {path}: {excerpt(body)}")
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (ValueError, RecursionError):
        raise ValueError(f"the answer to {path} is no JSON object: {excerpt(body)}") from None


def model_list(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The model cards of /v1/models, each with an id; ValueError where there is no such list."""
    cards = answer.get("data")
    if not isinstance(cards, list) or not all(isinstance(card, dict) and "id" in card for card in cards):
        raise ValueError("its answer to /v1/models is no list of models; is this an OpenAI-speaking server?")
    return cards


def health_of(server: str) -> Callable[[int, bytes], Mapping[str, Any]]:
    """For a `Probe` of /health: a server that is not ready yet answers another status than 200."""

    def read(status: int, body: bytes) -> Mapping[str, Any]:
        if status == 404:
            raise ValueError(f"it answers 404 to /health, which {server} has; is the address right?")
        return {"ready": status == 200}

    return read


def token_ids(path: str) -> Callable[[int, bytes], tuple[int, ...]]:
    """For a `Tokenization`: the list `tokens` of the answer."""

    def read(status: int, body: bytes) -> tuple[int, ...]:
        ids = json_answer(path, status, body).get("tokens")
        if not isinstance(ids, list) or not all(isinstance(i, int) for i in ids):
            raise ValueError(f"the answer to {path} holds no list of token ids")
        return tuple(ids)

    return read


def owned_by(*owners: str) -> Callable[[int, bytes], bool]:
    """For a `Signature` over /v1/models: true where every model card has one of these owners."""

    def matches(status: int, body: bytes) -> bool:
        try:
            cards = model_list(json_answer("/v1/models", status, body))
        except ValueError:
            return False
        return bool(cards) and all(card.get("owned_by") in owners for card in cards)

    return matches


def error_text(error: object) -> str:
    """An error object's message with its code and type in front, or the text that stands in its place."""
    if not isinstance(error, dict):
        return str(error)
    parts = [str(error[key]) for key in ("code", "type") if error.get(key) is not None]
    message = str(error.get("message") or "no message")
    return f"{' '.join(parts)}: {message}" if parts else message


def excerpt(body: bytes) -> str:
    return repr(body[:200].decode("utf-8", "replace"))

"""Ollama's own API: one JSON object a line, counts at the end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from servemark.adapters.base import BaseAdapter, json_answer, post_json, text_of
from servemark.harness import types as t
from servemark.harness.errors import BadInput


def _read_models(status: int, body: bytes) -> Mapping[str, Any]:
    return {"models": tuple(card["name"] for card in json_answer("/api/tags", status, body)["models"])}


def _read_version(status: int, body: bytes) -> Mapping[str, Any]:
    return {"engine": "ollama", "version": json_answer("/api/version", status, body).get("version"), "ready": True}


class OllamaAdapter(BaseAdapter):
    name = "ollama"
    about = "Ollama (/api/generate)"
    default_url = "http://localhost:11434"
    framing = "ndjson"
    endpoints = ("generate",)
    promised = t.Promises(
        fixed_length=False, exact_counts=True, cached_tokens=False, per_chunk_counts=False, token_id_prompts=False
    )
    signature = t.Signature(t.HttpRequest("GET", "/"), lambda status, body: body == b"Ollama is running")

    def probes(self) -> Sequence[t.Probe]:
        return (
            t.Probe("version", t.HttpRequest("GET", "/api/version"), _read_version, required=True),
            t.Probe("models", t.HttpRequest("GET", "/api/tags"), _read_models, required=True),
        )

    def encode(self, request: t.Request, options: t.Options) -> t.HttpRequest:
        prompt = text_of(request)
        if not isinstance(prompt, str):
            raise BadInput("ollama takes no token ids; set prompts.tokens to text")
        sampling = {"temperature": options.temperature, "top_p": options.top_p}
        wanted = {"num_predict": request.asked_output_tokens, **sampling}
        body = {
            "model": options.model,
            "prompt": prompt,
            "raw": True,  # no template: the prompt has the length that was asked for
            "options": {name: value for name, value in wanted.items() if value is not None},
        }
        return post_json("/api/generate", {**body, **options.extra_body})

    def decoder(self, endpoint: t.Endpoint) -> _Lines:
        return _Lines()


class _Lines:
    """Reads one answer. A line may hold several tokens, so each is a chunk of unknown size."""

    def __init__(self) -> None:
        self.answer: list[str] | None = None  # a list, where the text is wanted
        self._last: Mapping[str, Any] = {}
        self._error: str | None = None

    def feed(self, event: bytes) -> t.Delta:
        line = json.loads(event)
        if not isinstance(line, dict) or not line.keys() & {"response", "error"}:
            raise ValueError(f"no line of Ollama's: {event[:80]!r}")
        if "error" in line:
            self._error = str(line["error"])
            return t.Delta(error=self._error)
        if line.get("done"):
            self._last = line
        if self.answer is not None:
            self.answer.append(line["response"])
        text = bool(line["response"] or line.get("thinking"))
        return t.Delta(carries=text, answer=bool(line["response"]))

    def finish(self, clean: bool) -> t.Outcome:
        last = self._last
        if self._error is not None:
            return t.Outcome(error="server_error", error_detail=self._error)
        if not last:
            return t.Outcome(error="incomplete", error_detail="the stream ended without a line that is done")
        # Counts of 0 are left out of the line.
        usage = t.Usage(last.get("prompt_eval_count", 0), last.get("eval_count", 0), source="usage")
        return t.Outcome(usage, finish_reason=last.get("done_reason"))


ADAPTER = OllamaAdapter()

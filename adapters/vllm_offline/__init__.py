"""vLLM without its API server: a whole batch at once, as offline jobs run it, for the throughput of the engine alone.

`engine.py` runs under the interpreter that has vLLM: the one of servemark[vllm], else that of the `vllm` on the PATH.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from servemark.adapters.base import owned_by, post_json, text_of
from servemark.adapters.vllm import VllmAdapter
from servemark.harness.errors import TargetUnusable
from servemark.harness.types import (
    Delta,
    Endpoint,
    HttpRequest,
    Launcher,
    Options,
    Outcome,
    Promises,
    Request,
    Signature,
    Usage,
)

OWNER = "vllm-offline"
ENGINE = Path(__file__).with_name("engine.py")


def _command(words: Sequence[str], host: str, port: int) -> Sequence[str]:
    return (interpreter(), "-P", str(ENGINE), *words, "--host", host, "--port", str(port))


def interpreter() -> str:
    """The Python that has vLLM. TargetUnusable where there is none."""
    if find_spec("vllm") is not None:
        return sys.executable
    script = shutil.which("vllm")
    first = Path(script).read_bytes().split(b"\n", 1)[0].decode("utf-8", "replace") if script else ""
    words = first.removeprefix("#!").split() if first.startswith("#!/") else []
    if not words:
        raise TargetUnusable("vLLM is not installed here; `pip install 'servemark[vllm]'`, or put `vllm` on the PATH")
    return words[-1] if Path(words[0]).name == "env" else words[0]


class VllmOfflineAdapter(VllmAdapter):
    name = "vllm-offline"
    about = "vLLM in a process of its own, a whole batch at once without its API server; with --launch"
    default_url = "http://127.0.0.1:8398"
    framing = "ndjson"
    endpoints = ("generate",)
    promised = Promises(
        fixed_length=True, exact_counts=True, cached_tokens=True, per_chunk_counts=False, token_id_prompts=True
    )
    launcher = Launcher(_command)
    cache_reset = HttpRequest("POST", "/reset_prefix_cache")
    signature = Signature(HttpRequest("GET", "/v1/models"), owned_by(OWNER))
    batch_path = "/batch"

    def encode(self, request: Request, options: Options) -> HttpRequest:
        prompt = text_of(request)
        named: dict[str, Any] = {"prompt": prompt} if isinstance(prompt, str) else {"prompt_token_ids": list(prompt)}
        body = {"index": request.index, **named, **sampling(request, options)}
        return post_json("/batch", {**body, **options.extra_body})

    def decoder(self, endpoint: Endpoint) -> AnswerDecoder:
        return AnswerDecoder()


def sampling(request: Request, options: Options) -> dict[str, Any]:
    """The fields of vLLM's SamplingParams."""
    wanted = {"temperature": options.temperature, "top_p": options.top_p}
    fields: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
    length = request.asked_output_tokens
    if length is not None:
        fields["max_tokens"] = length
        if options.force_output_length:
            fields |= {"ignore_eos": True, "min_tokens": length}
    return fields


class _Line(msgspec.Struct, gc=False):
    index: int | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    finish_reason: str | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Line).decode


class AnswerDecoder:
    """Reads the one line that a request of the batch gets."""

    def __init__(self) -> None:
        self.answer: list[str] | None = None
        self._line: _Line | None = None
        self._error: str | None = None

    def feed(self, event: bytes) -> Delta:
        line = _decode(event)
        if line.error is not None:
            self._error = str(line.error)
            return Delta(error=self._error)
        if line.output_tokens is None:
            raise ValueError(f"no line of a batch's answer: {event[:80]!r}")
        self._line = line
        return Delta(bool(line.output_tokens), bool(line.output_tokens), line.output_tokens or None)

    def finish(self, clean: bool) -> Outcome:
        if self._error is not None:
            return Outcome(error="server_error", error_detail=self._error[:500])
        line = self._line
        if line is None:
            return Outcome(error="incomplete", error_detail="the batch ended without an answer to this request")
        usage = Usage(line.prompt_tokens, line.output_tokens, None, line.cached_tokens, "usage")
        return Outcome(usage, line.finish_reason)


ADAPTER = VllmOfflineAdapter()

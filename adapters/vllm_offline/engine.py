"""vLLM's engine behind a few routes: readiness, the model, its tokenizer, its metrics, and one batch at a time.

Run by the interpreter that has vLLM; it imports nothing of servemark. The arguments are those of `vllm serve` that
concern the engine, the model first. `POST /batch` takes one request a line and answers one line a request as each ends,
with the engine's own stamps (CLOCK_MONOTONIC, nanoseconds):

    {"index", "prompt" | "prompt_token_ids", and fields of SamplingParams}
    {"started_ns"}                                      when the first request was handed over
    {"index", "queued_ns", "first_ns", "last_ns", "prompt_tokens", "output_tokens", "cached_tokens", "finish_reason"}
    {"index", "error"}                                  one that the engine refused
    {"ended_ns"}
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import prometheus_client
from vllm import EngineArgs, LLMEngine, SamplingParams
from vllm import __version__ as version
from vllm.sampling_params import RequestOutputKind
from vllm.utils.argparse_utils import FlexibleArgumentParser

OWNER = "vllm-offline"


class Batches:
    """The engine; one batch runs at a time."""

    def __init__(self, arguments: EngineArgs) -> None:
        arguments.disable_log_stats = False  # they are where a request's stamps come from
        self.engine = LLMEngine.from_engine_args(arguments)
        config = self.engine.model_config
        served = config.served_model_name
        self.model = served if isinstance(served, str) else config.model
        self.context_tokens = config.max_model_len
        self._one_at_a_time = threading.Lock()

    def run(self, requests: list[dict[str, Any]]) -> Generator[dict[str, Any], None, None]:
        """The answer's lines. Closing it before its end aborts what is left."""
        with self._one_at_a_time:
            left: set[str] = set()
            try:
                yield {"started_ns": time.monotonic_ns()}
                yield from self._hand_over(requests, left)
                while left:
                    for output in self.engine.step():
                        if output.finished and output.request_id in left:
                            left.remove(output.request_id)
                            yield answer(output)
                yield {"ended_ns": time.monotonic_ns()}
            finally:
                if left:
                    self.engine.abort_request(list(left))

    def _hand_over(self, requests: list[dict[str, Any]], left: set[str]) -> Iterator[dict[str, Any]]:
        for fields in requests:
            index = fields.pop("index")
            prompt = {name: fields.pop(name) for name in ("prompt", "prompt_token_ids") if name in fields}
            try:
                params = SamplingParams(**fields, output_kind=RequestOutputKind.FINAL_ONLY, detokenize=False)
                self.engine.add_request(str(index), prompt, params)
            except Exception as error:  # noqa: BLE001 (vLLM's refusals have no base of their own)
                yield {"index": index, "error": str(error)}
            else:
                left.add(str(index))

    def tokens(self, fields: dict[str, Any]) -> list[int]:
        tokenizer = self.engine.get_tokenizer()
        ids: list[int] = tokenizer.encode(fields["prompt"], add_special_tokens=fields.get("add_special_tokens", True))
        return ids


def answer(output: Any) -> dict[str, Any]:
    completion, stats = output.outputs[0], output.metrics
    return {
        "index": int(output.request_id),
        "queued_ns": round(stats.queued_ts * 1e9),
        "first_ns": round(stats.first_token_ts * 1e9),
        "last_ns": round(stats.last_token_ts * 1e9),
        "prompt_tokens": len(output.prompt_token_ids),
        "output_tokens": len(completion.token_ids),
        "cached_tokens": output.num_cached_tokens,
        "finish_reason": completion.finish_reason,
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    batches: Batches

    def do_GET(self) -> None:
        batches = self.batches
        if self.path == "/health":
            self._say(200, b"")
        elif self.path == "/version":
            self._say_json({"version": version})
        elif self.path == "/v1/models":
            card = {"id": batches.model, "owned_by": OWNER, "max_model_len": batches.context_tokens}
            self._say_json({"object": "list", "data": [card]})
        elif self.path == "/metrics":
            self._say(200, prometheus_client.generate_latest(), "text/plain")
        else:
            self._say(404, b"{}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/tokenize":
            ids = self.batches.tokens(json.loads(body))
            self._say_json({"count": len(ids), "tokens": ids})
        elif self.path == "/reset_prefix_cache":
            done = self.batches.engine.reset_prefix_cache()
            self._say(200 if done else 409, b"")
        elif self.path == "/batch":
            self._stream(self.batches.run([json.loads(line) for line in body.splitlines() if line]))
        else:
            self._say(404, b"{}")

    def _stream(self, lines: Generator[dict[str, Any], None, None]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        with contextlib.closing(lines):  # a client that leaves ends the batch
            for line in lines:
                self.wfile.write(json.dumps(line).encode() + b"\n")

    def _say_json(self, value: object) -> None:
        self._say(200, json.dumps(value).encode(), "application/json")

    def _say(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # else the engine's own processes would be left behind
    parser = EngineArgs.add_cli_args(FlexibleArgumentParser(description="vLLM's engine, for batches."))
    parser.add_argument("model_tag", nargs="?", help="the model, as in `vllm serve MODEL`")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8398)
    arguments = parser.parse_args()
    if arguments.model_tag:
        arguments.model = arguments.model_tag
    Handler.batches = Batches(EngineArgs.from_cli_args(arguments))
    with ThreadingHTTPServer((arguments.host, arguments.port), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()

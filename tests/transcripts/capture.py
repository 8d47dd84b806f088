"""Writes the captured transcripts anew: python tests/transcripts/capture.py http://127.0.0.1:8000

Needs a vLLM that serves a model with 0 as its first and 1 as its end token (a tiny random Llama). What a stream
should hold is taken from the same request answered without streaming, never from our decoder.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from capturing import ask, write

CHAT = {"messages": [{"role": "user", "content": "Hello there"}]}
IDS = {"prompt": [5, 6, 7, 8]}
USAGE = {"stream_options": {"include_usage": True}}
EACH = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
GREEDY = {"temperature": 0, "seed": 7}

# name -> endpoint, body, case of the contract, tokens of each chunk ("?" unknown; None: one each), first event with one
STREAMS: dict[str, tuple[str, dict[str, Any], str, list[Any] | None, int]] = {
    "chat": ("chat", CHAT | EACH | {"max_completion_tokens": 12}, "success", None, 1),
    "chat-final-usage": ("chat", CHAT | USAGE | {"max_completion_tokens": 6}, "usage-at-end", ["?"] * 6, 1),
    "chat-no-usage": ("chat", CHAT | {"max_completion_tokens": 6}, "usage-absent", ["?"] * 6, 1),
    "chat-end-token": (
        "chat",
        CHAT | EACH | {"max_completion_tokens": 9, "min_tokens": 3, "logit_bias": {"1": 100}},
        "success",
        None,
        1,
    ),
    "chat-blank-tokens": (
        "chat",
        CHAT | EACH | {"max_completion_tokens": 5, "logit_bias": {"0": 100}},
        "success",
        None,
        1,
    ),
    "chat-merged": (
        "chat",
        CHAT | EACH | {"max_completion_tokens": 10, "stream_interval": 4},
        "multi-token",
        [1, 4, 4, 1],
        1,
    ),
    "chat-token-ids": ("chat", CHAT | {"max_completion_tokens": 5, "return_token_ids": True}, "success", None, 1),
    "chat-two-choices": (
        "chat",
        CHAT | EACH | {"max_completion_tokens": 3, "n": 2, "temperature": 1},
        "success",
        None,
        2,
    ),
    "completions": (
        "completions",
        IDS | EACH | {"max_tokens": 8, "min_tokens": 8, "ignore_eos": True},
        "success",
        None,
        0,
    ),
    "completions-final-usage": ("completions", IDS | USAGE | {"max_tokens": 6}, "usage-at-end", ["?"] * 6, 0),
    "completions-blank-tokens": (
        "completions",
        IDS | EACH | {"max_tokens": 4, "logit_bias": {"0": 100}},
        "success",
        None,
        0,
    ),
}
ERRORS = {
    "error-too-long": (CHAT | EACH | {"max_completion_tokens": 99_999}, "max_model_len"),
    "error-no-such-model": (CHAT | EACH | {"model": "nothing-of-that-name"}, "nothing-of-that-name"),
}


def capture(url: str) -> None:
    version = json.loads(ask(url, "GET", "/version")[1])["version"]
    model = json.loads(ask(url, "GET", "/v1/models")[1])["data"][0]["id"]
    head = {"adapters": ["vllm", "sim"], "about": f"Captured from vLLM {version}"}
    paths = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
    for name, (endpoint, body, case, tokens, first) in STREAMS.items():
        body = {"model": model} | GREEDY | body
        status, stream = ask(url, "POST", paths[endpoint], body | {"stream": True})
        plain = {key: value for key, value in body.items() if key not in ("stream_options", "stream_interval")}
        twin = json.loads(ask(url, "POST", paths[endpoint], plain)[1])
        usage = twin["usage"]
        expect: dict[str, Any] = {
            "chunk_tokens": tokens or [1] * usage["completion_tokens"],
            "first_token_event": first,
            "first_answer_event": first,
            "finish_reason": twin["choices"][0]["finish_reason"],
        }
        if "stream_options" in body:
            counts = {"prompt_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]}
            expect |= counts | {"source": "usage"}
        elif "return_token_ids" in body:
            expect |= {"output_tokens": usage["completion_tokens"], "source": "events"}
        write("vllm", name, stream, head | {"case": case, "endpoint": endpoint, "status": status}, expect)
    for name, (body, detail) in ERRORS.items():
        status, answer = ask(url, "POST", paths["chat"], {"model": model} | GREEDY | body | {"stream": True})
        about = head | {"case": "error-before-stream", "endpoint": "chat", "status": status}
        write("vllm", name, answer, about, {"error": "server_error", "error_detail": detail})


if __name__ == "__main__":
    capture(sys.argv[1])

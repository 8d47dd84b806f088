"""Writes llama.cpp's captured transcripts anew: python tests/transcripts/capture_llamacpp.py http://127.0.0.1:8080

Needs a llama-server of one slot of 1024 tokens (`-c 1024 -np 1 --metrics --alias tiny`) with a tiny random Llama, whose
greedy answers are the same each time. What a stream should hold is taken from the same request answered without
streaming, never from our decoders.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from capturing import HERE, ask, write

PATHS = {"generate": "/completion", "chat": "/v1/chat/completions", "completions": "/v1/completions"}
CHAT = {"messages": [{"role": "user", "content": "Hello there"}]}
TEXT = {"prompt": "Hello there my friend"}
IDS = {"prompt": [5, 6, 7, 8]}
USAGE = {"stream_options": {"include_usage": True}}
EACH = USAGE | {"timings_per_token": True}
FORCED = {"temperature": 0, "ignore_eos": True}

# name -> endpoint, body, case of the contract, tokens of each event (None: one each), first event with one, adapters
STREAMS: dict[str, tuple[str, dict[str, Any], str, list[Any] | None, int, list[str]]] = {
    "generate": ("generate", TEXT | FORCED | {"n_predict": 8}, "success", None, 0, ["llamacpp"]),
    "generate-ids": ("generate", IDS | FORCED | {"n_predict": 3}, "success", None, 0, ["llamacpp"]),
    # Half a character is held back, and what is still held at the end is in no text at all.
    "generate-held-back": (
        "generate",
        TEXT | {"temperature": 0, "n_predict": 6, "grammar": 'root ::= "aé😀b"'},
        "multi-token",
        [1, 2, 3],
        0,
        ["llamacpp"],
    ),
    "generate-end-token": (
        "generate",
        TEXT | {"temperature": 0, "n_predict": 9, "logit_bias": [[1, 100]]},
        "success",
        None,
        0,
        ["llamacpp"],
    ),
    "chat": ("chat", CHAT | FORCED | EACH | {"max_tokens": 6}, "role-only", None, 1, ["llamacpp"]),
    # The token that ends the answer has no chunk of its own: the last one counts it.
    "chat-end-token": (
        "chat",
        CHAT | EACH | {"temperature": 0, "max_tokens": 9, "grammar": 'root ::= "a" "b"'},
        "success",
        None,
        1,
        ["llamacpp"],
    ),
    "chat-final-usage": (
        "chat",
        CHAT | FORCED | USAGE | {"max_tokens": 5},
        "usage-at-end",
        ["?"] * 5,
        1,
        ["llamacpp", "openai"],
    ),
    "chat-no-usage": ("chat", CHAT | FORCED | {"max_tokens": 5}, "usage-absent", ["?"] * 5, 1, ["llamacpp"]),
    "completions": ("completions", TEXT | FORCED | EACH | {"max_tokens": 6}, "success", None, 0, ["llamacpp"]),
    "completions-final-usage": (
        "completions",
        TEXT | FORCED | USAGE | {"max_tokens": 5},
        "usage-at-end",
        ["?"] * 5,
        0,
        ["llamacpp", "openai"],
    ),
}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "generate-too-long": ("generate", {"prompt": [5] * 3000, "n_predict": 3}, "400 exceed_context_size_error"),
    "generate-wrong-field": ("generate", TEXT | {"n_predict": "three"}, "400 invalid_request_error"),
    "chat-wrong-field": ("chat", {"messages": "x"}, "400 invalid_request_error"),
}


def counted(endpoint: str, twin: dict[str, Any]) -> dict[str, Any]:
    """The counts and the end of an answer that was not streamed."""
    if endpoint == "generate":
        counts = (twin["tokens_evaluated"], twin["tokens_predicted"], twin["timings"]["cache_n"], twin["stop_type"])
    else:
        usage = twin["usage"]
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        reason = twin["choices"][0]["finish_reason"]
        counts = (usage["prompt_tokens"], usage["completion_tokens"], cached, reason)
    return dict(zip(("prompt_tokens", "output_tokens", "cached_tokens", "finish_reason"), counts, strict=True))


def capture(url: str) -> None:
    build = json.loads(ask(url, "GET", "/props")[1])["build_info"]
    about = f"Captured from llama.cpp's server (build {build})"
    for name, (endpoint, body, case, tokens, first, adapters) in STREAMS.items():
        # Twice: from then on the whole prompt is in the cache, for the stream too.
        plain = {key: value for key, value in body.items() if key != "stream_options"}
        twin = [ask(url, "POST", PATHS[endpoint], plain)[1] for _ in range(2)][1]
        status, stream = ask(url, "POST", PATHS[endpoint], body | {"stream": True})
        counts = counted(endpoint, json.loads(twin))
        expect: dict[str, Any] = {
            "chunk_tokens": tokens or [1] * counts["output_tokens"],
            "first_token_event": first,
            "first_answer_event": first,
        }
        if case == "usage-absent":  # the last chunk's timings still hold how many there were
            expect |= {key: counts[key] for key in ("output_tokens", "finish_reason")} | {"source": "events"}
        else:
            expect |= counts | {"source": "usage"}
        head = {"adapters": adapters, "about": about, "case": case, "endpoint": endpoint, "status": status}
        write("llamacpp", name, stream, head, expect)
    for name, (endpoint, body, detail) in REFUSED.items():
        status, answer = ask(url, "POST", PATHS[endpoint], body | {"stream": True})
        head = {"adapters": ["llamacpp"], "about": about, "case": "error-before-stream"}
        expect = {"error": "server_error", "error_detail": detail}
        write("llamacpp", f"error-{name}", answer, head | {"endpoint": endpoint, "status": status}, expect)
    (HERE / "llamacpp-metrics.txt").write_bytes(ask(url, "GET", "/metrics")[1])


if __name__ == "__main__":
    capture(sys.argv[1])

"""Writes Triton's captured transcripts anew, with the two deployments of tests/real/triton_repository.py:

    python tests/transcripts/capture_triton.py http://127.0.0.1:INFLIGHT http://127.0.0.1:INFLIGHTS_METRICS/metrics \
        http://127.0.0.1:LLMAPI

Triton is real and the models stand in for TensorRT-LLM's. What a stream should hold is known from how they make it:
every fourth response holds two tokens (`sizes`), and the prompt of all of them has four.
"""

from __future__ import annotations

import json
import sys
from typing import Any
from urllib.parse import urlsplit

from capturing import HERE, ask, write

HEAD = {"adapters": ["trtllm-triton"], "endpoint": "generate"}
PROMPT = {"text_input": "Hello there"}
PROMPT_TOKENS = 4
FORCED = PROMPT | {"stream": True, "end_id": -1, "top_k": 1, "exclude_input_in_output": True}
COUNTED = FORCED | {"return_num_input_tokens": True, "return_num_output_tokens": True}
LLMAPI = PROMPT | {"streaming": True, "sampling_param_top_k": 1, "return_finish_reason": True}


def sizes(tokens: int) -> list[int]:
    """Tokens of each response."""
    found: list[int] = []
    while sum(found) < tokens:
        found.append(min(2 if len(found) % 4 == 3 else 1, tokens - sum(found)))
    return found


# name -> deployment, model, body, case of the contract, tokens that come, whether they are counted
STREAMS: dict[str, tuple[str, str, dict[str, Any], str, int, bool]] = {
    "ensemble": ("inflight", "ensemble", COUNTED | {"max_tokens": 3}, "success", 3, True),
    "ensemble-bursts": ("inflight", "ensemble", COUNTED | {"max_tokens": 12}, "multi-token", 12, True),
    "ensemble-uncounted": ("inflight", "ensemble", FORCED | {"max_tokens": 6}, "usage-absent", 6, False),
    "whole-text": ("inflight", "tensorrt_llm_bls", COUNTED | {"max_tokens": 7}, "multi-token", 7, True),
    "whole-text-uncounted": ("inflight", "tensorrt_llm_bls", FORCED | {"max_tokens": 7}, "usage-absent", 7, False),
    # The end is the model's there: it comes at half of the length.
    "llmapi": ("llmapi", "tensorrt_llm", LLMAPI | {"sampling_param_max_tokens": 12}, "usage-absent", 6, False),
    "empty": ("inflight", "ensemble", COUNTED | {"max_tokens": 0}, "empty", 0, False),
    "no-length": ("inflight", "ensemble", PROMPT | {"stream": True}, "empty", 0, False),
}
FAILING = COUNTED | {"max_tokens": 8, "bad_words": ["stop after 3"]}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "first-response": ("ensemble", COUNTED | {"max_tokens": 8, "bad_words": ["stop after 0"]}, "the engine failed"),
    "too-long": ("ensemble", COUNTED | {"max_tokens": 5000}, "max_seq_len 4096"),
    "wrong-type": ("ensemble", COUNTED | {"max_tokens": "8"}, "non-signed-integer"),
    "no-such-model": ("nothing-of-that-name", COUNTED | {"max_tokens": 8}, "nothing-of-that-name"),
}


def came(tokens: int, counted: bool) -> dict[str, Any]:
    """What a stream of so many tokens holds."""
    chunks = sizes(tokens)
    if not chunks:
        return {}
    first = {"first_token_event": 0, "first_answer_event": 0}
    if counted:
        return first | {"chunk_tokens": chunks} | counts(PROMPT_TOKENS, tokens, "usage")
    return first | {"chunk_tokens": ["?"] * len(chunks)} | counts(None, len(chunks), "estimate")


def counts(prompt: int | None, output: int, source: str) -> dict[str, Any]:
    return ({} if prompt is None else {"prompt_tokens": prompt}) | {"output_tokens": output, "source": source}


def capture(inflight: str, metrics: str, llmapi: str) -> None:
    urls = {"inflight": inflight, "llmapi": llmapi}
    version = json.loads(ask(inflight, "GET", "/v2")[1])["version"]
    about = f"Captured from Triton {version} with a stand-in for TensorRT-LLM's models"
    head = HEAD | {"about": about}
    for name, (deployment, model, body, case, tokens, counted) in STREAMS.items():
        status, stream = ask(urls[deployment], "POST", f"/v2/models/{model}/generate_stream", body)
        expect = came(tokens, counted) | ({"finish_reason": "length"} if deployment == "llmapi" else {})
        ends = {"ends_with": "connection"}
        write("triton", name, stream, head | {"case": case, "status": status} | ends, expect)
    status, stream = ask(inflight, "POST", "/v2/models/ensemble/generate_stream", FAILING)
    expect = came(3, True) | {"error": "server_error", "error_detail": "the engine failed"}
    write("triton", "error-in-stream", stream, head | {"case": "error-in-stream", "status": status}, expect)
    for name, (model, body, detail) in REFUSED.items():
        status, answer = ask(inflight, "POST", f"/v2/models/{model}/generate_stream", body)
        expect = {"error": "server_error", "error_detail": detail}
        write("triton", f"error-{name}", answer, head | {"case": "error-before-stream", "status": status}, expect)
    for name, (url, model) in {"ensemble": (inflight, "ensemble"), "llmapi": (llmapi, "tensorrt_llm")}.items():
        config = json.loads(ask(url, "GET", f"/v2/models/{model}/config")[1])
        config.pop("parameters", None)  # the stand-in's own
        (HERE / f"triton-{name}-config.json").write_text(json.dumps(config) + "\n")
    (HERE / "triton-metrics.txt").write_bytes(ask(metrics, "GET", urlsplit(metrics).path)[1])


if __name__ == "__main__":
    capture(*sys.argv[1:])

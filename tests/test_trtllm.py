"""trtllm-serve's dialect: what is sent, what its probes and its two kinds of metrics say. Streams: test_adapters.py."""

from __future__ import annotations

import json
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from probing import probed

from servemark.adapters.trtllm import ADAPTER
from servemark.adapters.trtllm_iterations import ITERATIONS
from servemark.harness.server.metric_names import SERVER_METRICS
from servemark.harness.types import Endpoint, Options, Request

# The fields of CompletionRequest and ChatCompletionRequest that matter here; a field in neither is refused.
KNOWN = {"model", "stream", "stream_options", "max_tokens", "temperature", "top_p", "ignore_eos", "min_tokens"}


def body(prompt: str | tuple[int, ...] = "Hi", tokens: int | None = 5, **options: Any) -> dict[str, Any]:
    request = Request(index=0, prompt=prompt, asked_prompt_tokens=1, asked_output_tokens=tokens)
    decoded: dict[str, Any] = json.loads(ADAPTER.encode(request, Options(model="m", **options)).body)
    return decoded


probe = partial(probed, ADAPTER)


def test_a_chat_request_of_a_forced_length() -> None:
    """One name for the length: the server refuses the other beside it."""
    assert body() == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "max_tokens": 5,
        "ignore_eos": True,
        "temperature": 0.0,
    }


def test_a_completion_of_token_ids_that_may_end_early() -> None:
    assert body((5, 6), endpoint="completions", force_output_length=False, temperature=None, top_p=0.9) == {
        "model": "m",
        "prompt": [5, 6],
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "max_tokens": 5,
        "top_p": 0.9,
    }


@pytest.mark.parametrize(("endpoint", "prompt"), [("chat", "messages"), ("completions", "prompt")])
def test_no_field_is_sent_that_the_server_does_not_know(endpoint: Endpoint, prompt: str) -> None:
    assert body(endpoint=endpoint, top_p=0.9).keys() <= KNOWN | {prompt}


def test_the_lengths_other_name_takes_the_place_of_ours() -> None:
    sent = body(extra_body={"max_completion_tokens": 9})
    assert (sent["max_completion_tokens"], "max_tokens" in sent) == (9, False)


def test_without_an_asked_length_nothing_is_forced() -> None:
    assert not {"ignore_eos", "max_tokens", "max_completion_tokens"} & body(tokens=None).keys()


def test_probes() -> None:
    assert probe("readiness", 200, b"") == {"ready": True}
    assert probe("readiness", 503, b"LLM is unavailable.") == {"ready": False}
    with pytest.raises(ValueError, match="/health"):
        probe("readiness", 404, b"")
    cards = {"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "tensorrt_llm"}]}
    assert probe("models", 200, cards) == {"engine": "tensorrt_llm", "models": ("m",)}
    with pytest.raises(ValueError, match="/v1/models"):
        probe("models", 200, b"<html>")
    assert probe("version", 200, {"version": "1.2.0"}) == {"version": "1.2.0"}
    assert probe("version", 404, b"") == {}


@pytest.mark.parametrize(("owner", "ours"), [("tensorrt_llm", True), ("vllm", False)])
def test_it_is_known_by_the_owner_of_its_models(owner: str, ours: bool) -> None:
    answer = json.dumps({"data": [{"id": "m", "owned_by": owner}]}).encode()
    assert ADAPTER.signature is not None
    assert ADAPTER.signature.matches(200, answer) is ours


def test_tokenizing() -> None:
    tokenization = ADAPTER.tokenization
    assert tokenization is not None
    assert tokenization.of_chat is None
    asked = tokenization.of_text("m", "Hi")
    assert (asked.path, json.loads(asked.body)) == ("/_internal/tokenize", {"prompt": "Hi"})
    assert tokenization.parse(200, b'{"count":2,"tokens":[42,7]}') == (42, 7)
    for status, answer in ((404, b'{"detail":"Not Found"}'), (200, b'{"count":2}'), (200, b"[]")):
        with pytest.raises(ValueError, match="/_internal/tokenize"):
            tokenization.parse(status, answer)


def test_starting_it() -> None:
    assert ADAPTER.launcher is not None
    command = ADAPTER.launcher.command(("meta-llama/Llama-3.1-8B", "--tp_size", "2"), "127.0.0.1", 8123)
    words = "trtllm-serve meta-llama/Llama-3.1-8B --tp_size 2 --host 127.0.0.1 --port 8123"
    assert command == tuple(words.split())


# --- metrics for Prometheus

PAGE = """\
# TYPE trtllm_request_success_total counter
trtllm_request_success_total{engine_type="undefined",finished_reason="length",model_name="undefined"} 6.0
trtllm_request_success_total{engine_type="undefined",finished_reason="stop",model_name="undefined"} 2.0
trtllm_e2e_request_latency_seconds_sum{model_name="undefined"} 12.5
trtllm_e2e_request_latency_seconds_count{model_name="undefined"} 8.0
trtllm_time_to_first_token_seconds_sum{model_name="undefined"} 0.5
trtllm_time_to_first_token_seconds_count{model_name="undefined"} 8.0
trtllm_prompt_tokens_total{model_name="undefined"} 1000.0
trtllm_prompt_cached_tokens_total{model_name="undefined"} 64.0
trtllm_generation_tokens_total{model_name="undefined"} 800.0
trtllm_kv_cache_utilization{model_name="undefined",pid="71"} 0.25
trtllm_num_requests_running{model_name="undefined",pid="12"} 0.0
trtllm_num_requests_running{model_name="undefined",pid="71"} 3.0
trtllm_spec_decode_drafted_tokens_total{token_position="0"} 40.0
trtllm_spec_decode_drafted_tokens_total{token_position="1"} 40.0
trtllm_spec_decode_accepted_tokens_total{token_position="0"} 30.0
"""


def test_its_page_for_prometheus() -> None:
    source = ADAPTER.metrics[0]
    assert (source.path, source.draining) == ("/prometheus/metrics", False)
    values = source.reader()(PAGE.encode())
    assert values == {
        "running": 3.0,
        "kv_usage": 0.25,
        "prompt_tokens": 1000.0,
        "prompt_tokens_cached": 64.0,
        "prefix_queries": 1000.0,
        "prefix_hits": 64.0,
        "generation_tokens": 800.0,
        "requests_finished": 8.0,
        "ttft_sum": 0.5,
        "ttft_count": 8.0,
        "e2e_sum": 12.5,
        "e2e_count": 8.0,
        "spec_draft_tokens": 80.0,
        "spec_accepted_tokens": 30.0,
    }


def test_a_server_that_has_answered_nothing_has_an_empty_page() -> None:
    read = ADAPTER.metrics[0].reader()
    assert read(b"") == {}
    for strange in (b"vllm:num_requests_running 3\n", b"[]", b"<html>"):
        with pytest.raises(ValueError, match=r"TensorRT-LLM|Prometheus"):
            read(strange)


# --- metrics that are told once


def step(active: int = 0, queued: int = 0, done: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "timestamp": "11-21-2026 08:00:00.000000",
        "iter": 7,
        "iterLatencyMS": 16.5,
        "newActiveRequestsQueueLatencyMS": 0.00075,
        "numActiveRequests": active,
        "numQueuedRequests": queued,
        "numCompletedRequests": done,
        "inflightBatchingStats": {"numContextRequests": 1, "numGenRequests": 3, "numCtxTokens": 100, "microBatchId": 0},
        "specDecodingStats": None,
        **more,
    }


def blocks(used: int, reused: int, missed: int) -> dict[str, int]:
    return {
        "maxNumBlocks": 80,
        "usedNumBlocks": used,
        "tokensPerBlock": 32,
        "reusedBlocks": reused,
        "missedBlocks": missed,
    }


def told(*steps: dict[str, Any]) -> bytes:
    return json.dumps(steps).encode()


def test_steps_are_added_up_over_all_answers_and_levels_are_the_last_ones() -> None:
    assert (ITERATIONS.path, ITERATIONS.draining) == ("/metrics", True)
    read = ITERATIONS.reader()
    assert read(told()) == {}
    first = read(told(step(4, 2, kvCacheStats=blocks(20, 1, 9)), step(3, 1, 1, kvCacheStats=blocks(16, 2, 10))))
    assert first == {
        "running": 3,
        "waiting": 1,
        "kv_usage": 0.2,
        "iterations": 2,
        "iteration_tokens": 206.0,  # two steps of 100 tokens of prompts and 3 requests that generate
        "requests_finished": 1.0,
        "prefix_hits": 64,
        "prefix_queries": 384,
    }
    assert read(told()) == first, "no step has been made since"
    drafts = {"numDraftTokens": 6, "numAcceptedTokens": 4, "numRequestsWithDraftTokens": 3}
    second = read(told(step(0, 0, 3, specDecodingStats=drafts, kvCacheStats=blocks(0, 2, 12))))
    assert second == {
        "running": 0,
        "waiting": 0,
        "kv_usage": 0.0,
        "iterations": 3,
        "iteration_tokens": 315.0,
        "requests_finished": 4.0,
        "prefix_hits": 64,
        "prefix_queries": 448,
        "spec_drafts": 3.0,
        "spec_draft_tokens": 6.0,
        "spec_accepted_tokens": 4.0,
    }


def test_an_engine_split_by_requests_tells_each_ranks_steps() -> None:
    """Levels are the sum of the ranks' last ones; they step together, so their steps are not."""
    values = ITERATIONS.reader()(
        told(
            step(3, attentionDpRank=0, kvCacheStats=blocks(8, 0, 0)),
            step(2, attentionDpRank=1, kvCacheStats=blocks(40, 0, 0)),
            step(1, attentionDpRank=0, kvCacheStats=blocks(4, 0, 0)),
            step(5, rank=2),
        )
    )
    assert (values["running"], values["iterations"], values["kv_usage"]) == (8, 2, 0.5)


def test_readers_do_not_share_what_they_have_seen() -> None:
    assert ITERATIONS.reader()(told(step(done=2)))["requests_finished"] == 2.0
    assert ITERATIONS.reader()(told(step(done=2)))["requests_finished"] == 2.0


@pytest.mark.parametrize(
    "answer", [b"", b"{}", b"[3]", b'[{"iter": 1}]', b'["a"]', b"vllm:x 1\n", b'{"detail":"Not Found"}']
)
def test_what_is_no_list_of_steps_is_a_value_error(answer: bytes) -> None:
    with pytest.raises(ValueError, match="steps"):
        ITERATIONS.reader()(answer)


counts = st.integers(0, 50)
steps = st.lists(
    st.builds(lambda active, queued, done: step(active, queued, done), counts, counts, counts), min_size=1, max_size=12
)


@given(steps, st.sets(st.integers(0, 12)))
def test_however_the_steps_are_shared_out_among_answers_the_end_is_the_same(
    made: list[dict[str, Any]], cuts: set[int]
) -> None:
    whole, parts = ITERATIONS.reader(), ITERATIONS.reader()
    edges = [0, *sorted(cuts), len(made)]
    values = [parts(told(*made[a:b])) for a, b in pairwise(edges)][-1]
    assert values == whole(told(*made))
    assert values["requests_finished"] == sum(each["numCompletedRequests"] for each in made)
    assert values.keys() <= SERVER_METRICS.keys()

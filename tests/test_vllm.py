"""vLLM's dialect: what is sent, what its probes and metrics say. Streams are in test_adapters.py."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from probing import probed

from servemark.adapters.vllm import ADAPTER, METRICS, VllmAdapter
from servemark.harness.server.prometheus import parse_metrics
from servemark.harness.types import Adapter, Endpoint, Options, Request

TRANSCRIPTS = Path(__file__).parent / "transcripts"


def body(prompt: str | tuple[int, ...] = "Hi", tokens: int | None = 5, **options: Any) -> dict[str, Any]:
    request = Request(index=0, prompt=prompt, asked_prompt_tokens=1, asked_output_tokens=tokens)
    decoded: dict[str, Any] = json.loads(ADAPTER.encode(request, Options(model="m", **options)).body)
    return decoded


probe = partial(probed, ADAPTER)


def test_a_chat_request_of_a_forced_length() -> None:
    assert body() == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "max_completion_tokens": 5,
        "min_tokens": 5,
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


def test_without_an_asked_length_nothing_is_forced() -> None:
    """ignore_eos alone would let an answer run to the model's context."""
    assert not {"ignore_eos", "min_tokens", "max_tokens", "max_completion_tokens"} & body(tokens=None).keys()


@pytest.mark.parametrize(("endpoint", "path"), [("chat", "/v1/chat/completions"), ("completions", "/v1/completions")])
def test_paths_and_content_type(endpoint: Endpoint, path: str) -> None:
    request = Request(index=0, prompt="Hi", asked_prompt_tokens=None, asked_output_tokens=None)
    http = ADAPTER.encode(request, Options(endpoint=endpoint))
    assert (http.path, http.headers) == (path, (("Content-Type", "application/json"),))


def test_the_order_of_extra_fields_does_not_change_the_bytes() -> None:
    request = Request(index=0, prompt="Hi", asked_prompt_tokens=None, asked_output_tokens=1)
    one = ADAPTER.encode(request, Options(extra_body={"top_k": 1, "cache_salt": "x"}))
    other = ADAPTER.encode(request, Options(extra_body={"cache_salt": "x", "top_k": 1}))
    assert one.body == other.body


def test_extra_fields_override_ours() -> None:
    assert body(extra_body={"max_completion_tokens": 9, "stream_options": {}})["max_completion_tokens"] == 9


def test_readiness() -> None:
    assert probe("readiness", 200, b"") == {"ready": True}
    assert probe("readiness", 503, b"") == {"ready": False}
    with pytest.raises(ValueError, match="/health"):
        probe("readiness", 404, b"")


def test_models_and_context_length() -> None:
    cards = [
        {"id": "base", "owned_by": "vllm", "root": "/models/base", "max_model_len": 4096},
        {"id": "lora", "owned_by": "vllm", "root": "/loras/one", "parent": "base", "max_model_len": None},
    ]
    assert probe("models", 200, {"object": "list", "data": cards}) == {
        "engine": "vllm",
        "models": ("base", "lora"),
        "context_tokens": 4096,
        "settings": {"root": "/models/base"},
    }


def test_a_gateway_without_model_list_rules_nothing_out() -> None:
    assert probe("models", 404, b"not found") == {}
    assert probe("version", 404, b"") == {}
    assert probe("settings", 200, b"<html>") == {}
    assert probe("settings", 500, b"") == {}


@pytest.mark.parametrize("answer", [b"<html>", {"data": "no"}, {"data": [{"name": "m"}]}, []])
def test_an_answer_that_is_no_model_list_rules_the_server_out(answer: object) -> None:
    with pytest.raises(ValueError, match="/v1/models"):
        probe("models", 200, answer)


def test_version_and_settings() -> None:
    assert probe("version", 200, {"version": "0.32.0"}) == {"version": "0.32.0"}
    page = (TRANSCRIPTS / "vllm-metrics.txt").read_bytes()
    settings = probe("settings", 200, page)["settings"]
    assert settings["num_gpu_blocks"] == "8192"
    assert settings["enable_prefix_caching"] == "True"


def test_tokenizing_counts_what_a_request_will_have() -> None:
    tokenization = ADAPTER.tokenization
    assert tokenization is not None
    of_text, of_chat = tokenization.of_text("m", "Hi"), tokenization.of_chat("m", "Hi")
    assert of_text.path == of_chat.path == "/tokenize"
    assert json.loads(of_text.body) == {"model": "m", "prompt": "Hi", "add_special_tokens": True}
    asked = json.loads(of_chat.body)
    assert asked["messages"] == [{"role": "user", "content": "Hi"}]
    assert asked["add_generation_prompt"] is True
    assert asked["add_special_tokens"] is False
    assert tokenization.parse(200, b'{"count":2,"max_model_len":9,"tokens":[42,7]}') == (42, 7)


@pytest.mark.parametrize(("status", "answer"), [(404, b"no"), (200, b"[]"), (200, b"{}"), (200, b'{"tokens":["a"]}')])
def test_a_tokenizer_that_gives_no_ids_says_so(status: int, answer: bytes) -> None:
    assert ADAPTER.tokenization is not None
    with pytest.raises(ValueError, match="/tokenize"):
        ADAPTER.tokenization.parse(status, answer)


def test_metrics_of_a_real_server_have_our_names() -> None:
    """Captured from vLLM 0.32.0 after two requests: 15 prompt tokens, 12 generated, in 12 iterations."""
    values = parse_metrics((TRANSCRIPTS / "vllm-metrics.txt").read_bytes()).select(METRICS)
    expected = {
        "running": 0.0,
        "waiting": 0.0,
        "kv_usage": 0.0,
        "preemptions": 0.0,
        "prefix_queries": 15.0,
        "prefix_hits": 0.0,
        "prompt_tokens": 15.0,
        "prompt_tokens_cached": 0.0,
        "generation_tokens": 12.0,
        "requests_finished": 2.0,
        "queue_time_count": 2.0,
        "ttft_count": 2.0,
        "iterations": 12.0,
        "iteration_tokens": 27.0,
    }
    assert {name: values[name] for name in expected} == expected


def test_old_names_of_metrics_are_known() -> None:
    page = (
        'vllm:gpu_cache_usage_perc{engine="0"} 0.5\nvllm:gpu_prefix_cache_hits_total 3\n'
        'vllm:prompt_tokens_by_source_total{source="local_cache_hit"} 4\n'
        'vllm:prompt_tokens_by_source_total{source="local_compute"} 9\n'
        "vllm:time_per_output_token_seconds_sum 1.5\n"
    )
    values = parse_metrics(page).select(METRICS)
    assert values == {"kv_usage": 0.5, "prefix_hits": 3.0, "prompt_tokens_cached": 4.0, "itl_sum": 1.5}


def test_a_server_of_the_same_dialect_is_a_small_subclass() -> None:
    class Twin(VllmAdapter):
        name = "twin"
        simulated = True

    twin: Adapter = Twin()
    request = Request(index=0, prompt="Hi", asked_prompt_tokens=None, asked_output_tokens=1)
    assert twin.encode(request, Options()) == ADAPTER.encode(request, Options())
    assert (twin.simulated, ADAPTER.simulated) == (True, False)

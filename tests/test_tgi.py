"""TGI's dialect: what is sent, what its probes and metrics say. Streams are in test_adapters.py."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from probing import probed

from servemark.adapters.tgi import ADAPTER
from servemark.harness.errors import BadInput
from servemark.harness.server.metric_names import SERVER_METRICS
from servemark.harness.types import Endpoint, HttpRequest, Options, Request

TRANSCRIPTS = Path(__file__).parent / "transcripts"
INFO = {
    "model_id": "some/model",
    "model_sha": None,
    "max_concurrent_requests": 128,
    "max_best_of": 2,
    "max_input_tokens": 4095,
    "max_total_tokens": 4096,
    "router": "text-generation-router",
    "version": "3.3.6-dev0",
    "docker_label": None,
}


def sent(tokens: int | None = 5, prompt: str | tuple[int, ...] = "Hi", **options: Any) -> HttpRequest:
    request = Request(index=0, prompt=prompt, asked_prompt_tokens=1, asked_output_tokens=tokens)
    return ADAPTER.encode(request, Options(model="some/model", **options))


def body(endpoint: Endpoint = "generate", tokens: int | None = 5, **options: Any) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(sent(tokens, endpoint=endpoint, **options).body)
    return decoded


probe = partial(probed, ADAPTER)


def metrics(page: bytes) -> dict[str, float]:
    return dict(ADAPTER.metrics[0].reader()(page))


def test_greedy_is_no_sampling_field_at_all() -> None:
    assert body() == {"inputs": "Hi", "parameters": {"details": True, "max_new_tokens": 5}}


def test_sampling_has_to_be_switched_on() -> None:
    assert body(temperature=1.0, top_p=0.9)["parameters"] == {
        "details": True,
        "do_sample": True,
        "max_new_tokens": 5,
        "temperature": 1.0,
        "top_p": 0.9,
    }


@given(
    temperature=st.none() | st.floats(0, 5),
    top_p=st.none() | st.floats(0, 1, exclude_min=True),
    endpoint=st.sampled_from(ADAPTER.endpoints),
)
def test_nothing_is_sent_that_the_router_refuses(
    temperature: float | None, top_p: float | None, endpoint: Endpoint
) -> None:
    """It refuses a top_p of 1, its own route a temperature of 0; a top_p beside greedy makes the engine sample."""
    found = body(endpoint, temperature=temperature, top_p=top_p)
    fields = found.get("parameters", found)
    assert fields.get("top_p", 0.5) < 1
    assert temperature != 0 or "top_p" not in fields
    if endpoint == "generate":
        assert fields.get("temperature", 1) > 0
        assert fields.get("do_sample", False) == bool({"temperature", "top_p"} & fields.keys())
    else:
        assert fields.get("temperature") == temperature


def test_the_users_parameters_go_over_ours_one_by_one() -> None:
    found = body(extra_body={"parameters": {"max_new_tokens": 9, "top_k": 3}, "adapter": "x"})
    assert found == {"inputs": "Hi", "adapter": "x", "parameters": {"details": True, "max_new_tokens": 9, "top_k": 3}}


def test_a_chat_names_no_model_since_that_would_be_a_lora() -> None:
    assert body("chat") == {
        "model": "tgi",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 5,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.0,
    }
    assert body("chat", extra_body={"model": "my-lora"})["model"] == "my-lora"


def test_without_an_asked_length_none_is_sent() -> None:
    assert body(tokens=None)["parameters"] == {"details": True}
    assert "max_tokens" not in body("completions", tokens=None)


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [("generate", "/generate_stream"), ("chat", "/v1/chat/completions"), ("completions", "/v1/completions")],
)
def test_paths(endpoint: Endpoint, path: str) -> None:
    assert sent(endpoint=endpoint).path == path
    with pytest.raises(BadInput, match="token ids"):
        sent(prompt=(5, 6), endpoint=endpoint)


def test_no_route_keeps_an_answer_from_ending() -> None:
    assert not any(ADAPTER.promises(endpoint).fixed_length for endpoint in ADAPTER.endpoints)
    assert "ignore_eos" not in json.dumps([body(endpoint) for endpoint in ADAPTER.endpoints])


def test_readiness() -> None:
    assert probe("readiness", 200, "") == {"ready": True}
    assert probe("readiness", 503, {"error": "unhealthy", "error_type": "healthcheck"}) == {"ready": False}
    with pytest.raises(ValueError, match="/health"):
        probe("readiness", 404, "")


def test_info_tells_model_context_and_limits() -> None:
    assert probe("info", 200, INFO) == {
        "engine": "tgi",
        "version": "3.3.6-dev0",
        "models": ("some/model",),
        "context_tokens": 4096,
        "settings": {"max_concurrent_requests": 128, "max_input_tokens": 4095, "max_total_tokens": 4096},
    }


@pytest.mark.parametrize(("status", "answer"), [(404, INFO), (200, []), (200, {"version": "1"})])
def test_an_answer_without_a_model_rules_the_server_out(status: int, answer: object) -> None:
    with pytest.raises(ValueError, match="/info"):
        probe("info", status, answer)


def test_the_key_is_asked_for_where_it_is_needed() -> None:
    """/health and /info are open: a wrong key would be found by the first request of the load only."""
    key = next(probe for probe in ADAPTER.probes() if probe.name == "key")
    assert (key.request.method, key.request.path, key.required) == ("POST", "/tokenize", True)
    assert probe("key", 200, [{"id": 5}]) == {}


def test_it_is_told_from_other_servers_with_an_info() -> None:
    matches = ADAPTER.signature.matches
    assert matches(200, json.dumps(INFO).encode())
    embeddings = {"model_id": "m", "max_concurrent_requests": 512, "max_input_length": 512, "version": "1.7"}
    assert not matches(200, json.dumps(embeddings).encode())
    assert not matches(404, b"")
    assert not matches(200, b"<html>")


def test_tokenizing_text_and_chats() -> None:
    tokenization = ADAPTER.tokenization
    assert tokenization.of_chat is not None
    text, chat = tokenization.of_text("m", "Hi"), tokenization.of_chat("m", "Hi")
    assert (text.path, json.loads(text.body)) == ("/tokenize", {"inputs": "Hi"})
    assert chat.path == "/chat_tokenize"
    assert json.loads(chat.body) == {"model": "tgi", "messages": [{"role": "user", "content": "Hi"}]}
    tokens = [{"id": 42, "text": "H", "start": 0, "stop": 1}, {"id": 7, "text": "i", "start": 1, "stop": 2}]
    assert tokenization.parse(200, json.dumps(tokens).encode()) == (42, 7)
    answer = {"tokenize_response": tokens, "templated_text": "<s>Hi"}
    assert tokenization.parse(200, json.dumps(answer).encode()) == (42, 7)


@pytest.mark.parametrize(
    ("status", "answer"),
    [(404, b"no"), (200, b"<html>"), (200, b"{}"), (200, b'[{"text":"a"}]'), (200, b'[{"id":"a"}]'), (200, b"3")],
)
def test_a_tokenizer_that_gives_no_ids_says_so(status: int, answer: bytes) -> None:
    with pytest.raises(ValueError, match="/tokenize"):
        ADAPTER.tokenization.parse(status, answer)


def test_metrics() -> None:
    """Engine steps are prefills and decodes together; a refusal at the door is no failure of the engine."""
    found = metrics((TRANSCRIPTS / "tgi-metrics.txt").read_bytes())
    assert found == {
        "running": 3,
        "waiting": 2,
        "iterations": 100,
        "prompt_tokens": 4096,
        "generation_tokens": 100,
        "requests_finished": 5,
        "requests_failed": 0,
        "requests_aborted": 1,
        "requests_rejected": 3,
        "e2e_sum": 4.5,
        "e2e_count": 5,
        "queue_time_sum": 0.25,
        "queue_time_count": 5,
        "tpot_sum": 0.2,
        "tpot_count": 5,
    }
    assert found.keys() <= SERVER_METRICS.keys()


def test_before_the_first_request_the_router_has_counted_nothing() -> None:
    """It writes no metric that has not happened, and on a fresh server not a line."""
    for page in (b"", b"\n", b"# TYPE tgi_batch_max_total_tokens gauge\ntgi_batch_max_total_tokens 65536\n"):
        found = metrics(page)
        assert set(found.values()) == {0.0}
        assert "generation_tokens" in found
        assert "running" not in found  # an engine that tells no batch size has some


@pytest.mark.parametrize("page", [b"<html>", b"vllm:num_requests_running 1\n"])
def test_metrics_of_another_server_are_none(page: bytes) -> None:
    with pytest.raises(ValueError, match=r"metric|Prometheus"):
        metrics(page)


def test_the_command_that_starts_it() -> None:
    assert ADAPTER.launcher.command(["some/model", "--num-shard", "2"], "127.0.0.1", 4000) == (
        *("text-generation-launcher", "--model-id", "some/model", "--num-shard", "2"),
        *("--hostname", "127.0.0.1", "--port", "4000"),
    )

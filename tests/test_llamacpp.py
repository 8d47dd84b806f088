"""llama.cpp's dialect: what is sent, what its probes and metrics say. Streams are in test_adapters.py."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from probing import probed

from servemark.adapters.llamacpp import ADAPTER, CompletionDecoder, TimedChunkDecoder
from servemark.harness.server.metric_names import SERVER_METRICS
from servemark.harness.types import Endpoint, HttpRequest, Options, Request, ServerFacts

TRANSCRIPTS = Path(__file__).parent / "transcripts"
CARD = {"id": "tiny", "owned_by": "llamacpp", "meta": {"n_ctx": 1024, "n_ctx_train": 8192, "ftype": "BF16"}}
PROPS = {"default_generation_settings": {"n_ctx": 1024}, "total_slots": 4, "build_info": "b1-0c1e570"}


def sent(tokens: int | None = 5, prompt: str | tuple[int, ...] = "Hi", **options: Any) -> HttpRequest:
    request = Request(index=0, prompt=prompt, asked_prompt_tokens=1, asked_output_tokens=tokens)
    return ADAPTER.encode(request, Options(model="tiny", **options))


def body(endpoint: Endpoint = "generate", **more: Any) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(sent(endpoint=endpoint, **more).body)
    return decoded


probe = partial(probed, ADAPTER)


def metrics(page: bytes) -> dict[str, float]:
    return dict(ADAPTER.metrics[0].reader()(page))


def test_a_completion_of_a_forced_length() -> None:
    assert body() == {"prompt": "Hi", "n_predict": 5, "ignore_eos": True, "stream": True, "temperature": 0.0}


def test_a_completion_of_token_ids_that_may_end_early() -> None:
    found = body(prompt=(5, 6), force_output_length=False, temperature=None, top_p=0.9)
    assert found == {"prompt": [5, 6], "n_predict": 5, "stream": True, "top_p": 0.9}


def test_without_an_asked_length_nothing_is_forced() -> None:
    """ignore_eos alone would let an answer run to the end of the context."""
    for endpoint in ADAPTER.endpoints:
        assert not {"n_predict", "max_tokens", "ignore_eos"} & body(endpoint, tokens=None).keys()


def test_the_prompt_cache_is_left_to_the_server_and_the_user() -> None:
    assert "cache_prompt" not in body()
    assert body(extra_body={"cache_prompt": False})["cache_prompt"] is False


def test_a_chat_asks_for_the_timings_that_count_its_tokens() -> None:
    assert body("chat") == {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 5,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.0,
        "timings_per_token": True,
    }


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [("generate", "/completion"), ("chat", "/v1/chat/completions"), ("completions", "/v1/completions")],
)
def test_paths(endpoint: Endpoint, path: str) -> None:
    assert sent(endpoint=endpoint).path == path


def test_it_is_not_ready_while_it_loads() -> None:
    loading = {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}
    assert probe("readiness", 503, loading) == {"ready": False}
    assert probe("readiness", 200, {"status": "ok"}) == {"ready": True}
    with pytest.raises(ValueError, match="/health"):
        probe("readiness", 404, "")


def test_models_and_what_they_are() -> None:
    assert probe("models", 200, {"object": "list", "data": [CARD]}) == {
        "engine": "llama.cpp",
        "models": ("tiny",),
        "settings": {"ftype": "BF16", "n_ctx_train": 8192},
    }
    several = probe("models", 200, {"data": [{"id": "a", "owned_by": "llamacpp"}, {"id": "b", "owned_by": "llamacpp"}]})
    assert (several["models"], several["settings"]) == (("a", "b"), {})


@pytest.mark.parametrize(("status", "answer"), [(404, ""), (200, []), (200, {"data": "no"})])
def test_an_answer_that_is_no_model_list_rules_the_server_out(status: int, answer: object) -> None:
    with pytest.raises(ValueError, match="/v1/models"):
        probe("models", status, answer)


def test_the_context_is_that_of_one_slot() -> None:
    assert probe("properties", 200, PROPS) == {
        "version": "b1-0c1e570",
        "context_tokens": 1024,
        "settings": {"total_slots": 4},
    }


def test_a_server_of_many_models_tells_no_context() -> None:
    props = {"role": "router", "default_generation_settings": {"params": None, "n_ctx": 0}, "build_info": "b1"}
    assert probe("properties", 200, props) == {"version": "b1", "context_tokens": None, "settings": {}}


def test_a_server_without_properties_is_another_one() -> None:
    """`transformers serve`, for one, has the other two routes as well."""
    with pytest.raises(ValueError, match="/props"):
        probe("properties", 404, "")


def test_the_key_is_asked_for_where_it_is_needed() -> None:
    """/health is open to anybody: a wrong key would be found by the first request of the load only."""
    assert [probe.request.path for probe in ADAPTER.probes() if probe.required] == ["/health", "/v1/models", "/props"]


def test_signature() -> None:
    assert ADAPTER.signature.matches(200, json.dumps({"data": [CARD]}).encode())
    assert not ADAPTER.signature.matches(200, b'{"data":[{"id":"m","owned_by":"vllm"}]}')


def test_tokenizing_counts_what_a_request_will_have() -> None:
    http = ADAPTER.tokenization.of_text("tiny", "Hi")
    assert (http.path, json.loads(http.body)) == ("/tokenize", {"content": "Hi", "add_special": True})
    assert ADAPTER.tokenization.parse(200, b'{"tokens":[42,7]}') == (42, 7)


@pytest.mark.parametrize(("status", "answer"), [(404, b"no"), (200, b"[]"), (200, b"{}"), (200, b'{"tokens":["a"]}')])
def test_a_tokenizer_that_gives_no_ids_says_so(status: int, answer: bytes) -> None:
    with pytest.raises(ValueError, match="/tokenize"):
        ADAPTER.tokenization.parse(status, answer)


def test_a_chat_is_tokenized_in_the_frame_of_its_template() -> None:
    asked = json.loads(ADAPTER.model_probes("tiny")[0].request.body)
    content = asked["messages"][0]["content"]
    facts = ServerFacts(**probe("template", 200, {"prompt": f"[user]\n{content}\n[assistant]\n"}))
    settled = ADAPTER.settled(facts, "tiny").tokenization
    assert settled.of_chat is not None
    http = settled.of_chat("tiny", "Hi there")
    assert json.loads(http.body) == {"content": "[user]\nHi there\n[assistant]\n", "add_special": True}
    assert ADAPTER.tokenization.of_chat is None


@pytest.mark.parametrize(("status", "answer"), [(404, {}), (500, {}), (200, {"prompt": "it is not in here"})])
def test_a_template_that_cannot_be_had_is_learnt_by_one_request(status: int, answer: object) -> None:
    facts = ServerFacts(**probe("template", status, answer))
    assert ADAPTER.settled(facts, "tiny") is ADAPTER


def test_metrics() -> None:
    found = metrics((TRANSCRIPTS / "llamacpp-metrics.txt").read_bytes())
    assert found.keys() <= SERVER_METRICS.keys()
    assert {"running", "waiting", "generation_tokens", "iterations", "spec_drafts"} <= found.keys()


def test_prompt_tokens_are_all_of_them() -> None:
    """The server counts computed and cached ones apart; one that tells no cached ones does not tell all."""
    page = b"llamacpp:prompt_tokens_total 30\nllamacpp:prompt_tokens_cached_total 70\n"
    assert metrics(page) == {"prompt_tokens": 100, "prompt_tokens_cached": 70}
    assert metrics(b"llamacpp:prompt_tokens_total 30\nllamacpp:requests_processing 1\n") == {"running": 1}


@pytest.mark.parametrize("page", [b"<html>", b"", b"vllm:num_requests_running 1\n"])
def test_metrics_of_another_server_are_none(page: bytes) -> None:
    with pytest.raises(ValueError, match=r"metric|Prometheus"):
        metrics(page)


@pytest.mark.parametrize(
    ("words", "model"),
    [(["tiny.gguf", "-np", "4"], ["-m", "tiny.gguf", "-np", "4"]), (["-hf", "a/b"], ["-hf", "a/b"])],
)
def test_the_command_that_starts_it(words: list[str], model: list[str]) -> None:
    command = ADAPTER.launcher.command(words, "127.0.0.1", 4000)
    assert list(command) == ["llama-server", *model, "--host", "127.0.0.1", "--port", "4000", "--metrics"]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=20))
def test_the_tokens_of_all_events_are_those_of_the_answer(sizes: list[int]) -> None:
    """However many tokens an event brings, on either route."""
    own, chunks = CompletionDecoder(), TimedChunkDecoder()
    total = 0
    for size in sizes:
        total += size
        event = {"content": "x", "tokens": [5], "stop": False, "tokens_predicted": total, "tokens_evaluated": 3}
        assert own.feed(json.dumps(event).encode()).tokens == size
        chunk = {"choices": [{"index": 0, "delta": {"content": "x"}}], "timings": {"predicted_n": total}}
        assert chunks.feed(json.dumps(chunk).encode()).tokens == size
    last = {"content": "", "stop": True, "stop_type": "limit", "tokens_predicted": total, "tokens_evaluated": 3}
    assert own.feed(json.dumps(last).encode()).tokens is None
    assert own.finish(True).usage.output_tokens == total
    # One more ended the answer, and had no chunk.
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": total + 1}}
    assert chunks.feed(json.dumps(usage).encode()).tokens == 1

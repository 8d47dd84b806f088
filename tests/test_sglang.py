"""SGLang's dialects: what is sent, what its probes and metrics say. Streams are in test_adapters.py."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from probing import probed

from servemark.adapters import sglang
from servemark.adapters.sglang import ADAPTER
from servemark.harness.errors import BadInput
from servemark.harness.types import Endpoint, HttpRequest, Options, Request, ServerFacts


def sent(prompt: str | tuple[int, ...] = "Hi", tokens: int | None = 5, **options: Any) -> HttpRequest:
    options.setdefault("endpoint", "generate")
    request = Request(index=0, prompt=prompt, asked_prompt_tokens=1, asked_output_tokens=tokens)
    return ADAPTER.encode(request, Options(model="m", **options))


def body(*args: Any, **options: Any) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(sent(*args, **options).body)
    return decoded


probe = partial(probed, ADAPTER)


def test_its_own_route_comes_first() -> None:
    assert ADAPTER.endpoints[0] == "generate"
    assert sent().path == "/generate"
    assert body() == {
        "text": "Hi",
        "stream": True,
        "sampling_params": {"max_new_tokens": 5, "temperature": 0.0, "ignore_eos": True},
    }


def test_token_ids_that_may_end_early() -> None:
    assert body((5, 6), force_output_length=False, temperature=None, top_p=0.9) == {
        "input_ids": [5, 6],
        "stream": True,
        "sampling_params": {"max_new_tokens": 5, "top_p": 0.9},
    }


def test_sampling_params_of_the_users_own_go_over_ours_one_by_one() -> None:
    extra = {"sampling_params": {"top_k": 20, "temperature": 0.7}, "return_logprob": True}
    assert body(extra_body=extra) == {
        "text": "Hi",
        "stream": True,
        "return_logprob": True,
        "sampling_params": {"max_new_tokens": 5, "temperature": 0.7, "top_k": 20, "ignore_eos": True},
    }


@pytest.mark.parametrize(
    ("endpoint", "path", "length"),
    [
        ("chat", "/v1/chat/completions", "max_completion_tokens"),
        ("completions", "/v1/completions", "max_tokens"),
    ],
)
def test_the_openai_routes(endpoint: Endpoint, path: str, length: str) -> None:
    assert sent(endpoint=endpoint).path == path
    asked = body(endpoint=endpoint)
    assert (asked["model"], asked[length], asked["ignore_eos"]) == ("m", 5, True)
    assert asked["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


def test_no_least_length_is_sent() -> None:
    """The engine would take the end token out of each step's logits for nothing."""
    for endpoint in ADAPTER.endpoints:
        said = json.dumps(body(endpoint=endpoint))
        assert "min_tokens" not in said
        assert "min_new_tokens" not in said


def test_a_chat_takes_text_only() -> None:
    with pytest.raises(BadInput, match="completions"):
        sent((5, 6), endpoint="chat")


def test_without_an_asked_length_nothing_is_forced() -> None:
    assert body(tokens=None)["sampling_params"] == {"temperature": 0.0}
    assert not {"ignore_eos", "max_tokens"} & body(tokens=None, endpoint="completions").keys()


def test_probes() -> None:
    assert probe("readiness", 200, b"") == {"ready": True}
    assert probe("readiness", 503, b"") == {"ready": False}
    with pytest.raises(ValueError, match="/health"):
        probe("readiness", 404, b"")
    cards = [{"id": "m", "object": "model", "owned_by": "sglang", "root": "m", "max_model_len": 4096}]
    assert probe("models", 200, {"object": "list", "data": cards}) == {
        "engine": "sglang",
        "models": ("m",),
        "context_tokens": 4096,
    }
    with pytest.raises(ValueError, match="/v1/models"):
        probe("models", 200, b"<html>")


@pytest.mark.parametrize("name", ["settings", "settings, by their older name"])
def test_of_what_the_server_says_of_itself_no_secret_is_taken_over(name: str) -> None:
    info = {
        "model_path": "/models/m",
        "api_key": "sk-secret",
        "admin_api_key": "sk-secret",
        "tp_size": 2,
        "attention_backend": "fa3",
        "disable_radix_cache": False,
        "quantization": None,
        "max_total_num_tokens": 190_000,
        "enable_cache_report": True,
        "internal_states": [{"last_gen_throughput": 1.0}],
        "version": "0.5.6",
    }
    found = probe(name, 200, info)
    assert found["version"] == "0.5.6"
    assert found["settings"] == {
        "model_path": "/models/m",
        "tp_size": 2,
        "attention_backend": "fa3",
        "disable_radix_cache": False,
        "max_total_num_tokens": 190_000,
        "enable_cache_report": True,
    }
    assert "sk-secret" not in str(found)
    assert probe(name, 404, b"") == probe(name, 200, b"<html>") == {}


def test_cached_tokens_of_the_openai_routes_are_promised_where_the_server_reports_them() -> None:
    quiet = ADAPTER.settled(ServerFacts(settings={"enable_cache_report": False}), "m")
    loud = ADAPTER.settled(ServerFacts(settings={"enable_cache_report": True}), "m")
    promised = {
        each: (quiet.promises(each).cached_tokens, loud.promises(each).cached_tokens) for each in ADAPTER.endpoints
    }
    assert promised == {"generate": (True, True), "chat": (False, True), "completions": (False, True)}
    assert ADAPTER.promises("chat").cached_tokens is False, "settling makes another adapter"


@pytest.mark.parametrize(("owner", "ours"), [("sglang", True), ("vllm", False)])
def test_it_is_known_by_the_owner_of_its_models(owner: str, ours: bool) -> None:
    answer = json.dumps({"data": [{"id": "m", "owned_by": owner}]}).encode()
    assert ADAPTER.signature is not None
    assert ADAPTER.signature.matches(200, answer) is ours


def test_tokenizing() -> None:
    tokenization = ADAPTER.tokenization
    assert tokenization is not None
    assert tokenization.of_chat is None
    asked = tokenization.of_text("m", "Hi")
    assert (asked.path, json.loads(asked.body)) == (
        "/tokenize",
        {"model": "m", "prompt": "Hi", "add_special_tokens": True},
    )
    assert tokenization.parse(200, b'{"tokens":[42,7],"count":2,"max_model_len":4096}') == (42, 7)
    for status, answer in ((404, b"no"), (200, b"{}"), (200, b'{"tokens":[[1]]}')):
        with pytest.raises(ValueError, match="/tokenize"):
            tokenization.parse(status, answer)


def test_the_cache_is_emptied_by_its_own_route() -> None:
    assert ADAPTER.cache_reset == HttpRequest("POST", "/flush_cache")


@pytest.mark.parametrize(
    ("installed", "words", "command"),
    [
        ("/usr/bin/sglang", ("m", "--tp", "2"), "sglang serve --model-path m --tp 2"),
        (None, ("m",), "python3 -m sglang.launch_server --model-path m"),
        (None, ("--model-path", "m"), "python3 -m sglang.launch_server --model-path m"),
    ],
)
def test_starting_it(installed: str | None, words: tuple[str, ...], command: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(sglang.shutil, "which", lambda name: installed)
    assert ADAPTER.launcher is not None
    found = ADAPTER.launcher.command(words, "127.0.0.1", 8123)
    assert " ".join(found) == f"{command} --host 127.0.0.1 --port 8123 --enable-metrics"


PAGE = """\
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0",dp_rank="0"} 3.0
sglang:num_running_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0",dp_rank="1"} 2.0
sglang:num_queue_reqs{dp_rank="0"} 1.0
sglang:token_usage{dp_rank="0"} 0.25
sglang:token_usage{dp_rank="1"} 0.5
sglang:num_retracted_requests_total{dp_rank="0"} 4.0
sglang:prompt_tokens_total{is_streaming="true",model_name="m"} 1000.0
sglang:prompt_tokens_total{is_streaming="false",model_name="m"} 24.0
sglang:generation_tokens_total{is_streaming="true",model_name="m"} 800.0
sglang:num_requests_total{is_streaming="true",model_name="m"} 8.0
sglang:time_to_first_token_seconds_sum{is_streaming="true"} 0.5
sglang:time_to_first_token_seconds_count{is_streaming="true"} 8.0
sglang:queue_time_seconds_sum 0.125
sglang:queue_time_seconds_count 8.0
sglang:cuda_graph_passes_total{mode="decode_cuda_graph"} 700.0
sglang:cuda_graph_passes_total{mode="prefill_none"} 9.0
"""


def test_metrics() -> None:
    read = ADAPTER.metrics[0].reader()
    values = read(PAGE.encode())
    assert values == {
        "running": 5.0,
        "waiting": 1.0,
        "kv_usage": 0.5,
        "preemptions": 4.0,
        "prompt_tokens": 1024.0,
        "prefix_queries": 1024.0,
        "generation_tokens": 800.0,
        "requests_finished": 8.0,
        "ttft_sum": 0.5,
        "ttft_count": 8.0,
        "queue_time_sum": 0.125,
        "queue_time_count": 8.0,
        "iterations": 709.0,
        "prompt_tokens_cached": 0.0,  # not there before the first hit
        "prefix_hits": 0.0,
    }
    hits = (
        'sglang:cached_tokens_total{cache_source="device"} 60.0\nsglang:cached_tokens_total{cache_source="host"} 4.0\n'
    )
    assert read((PAGE + hits).encode())["prefix_hits"] == 64.0


def test_a_page_of_another_server_is_a_value_error() -> None:
    for strange in (b"vllm:num_requests_running 3\n", b"", b"<html>"):
        with pytest.raises(ValueError, match=r"SGLang|Prometheus"):
            ADAPTER.metrics[0].reader()(strange)

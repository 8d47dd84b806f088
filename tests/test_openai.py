"""OpenAI's API wherever it is: what is sent, and what its list of models says. Streams are in test_adapters.py."""

from __future__ import annotations

import json
from typing import Any

import pytest

from servemark.adapters.openai import ADAPTER
from servemark.harness.errors import BadInput, TargetUnusable
from servemark.harness.server.control import choose_model
from servemark.harness.types import Endpoint, HttpRequest, Options, Request, ServerFacts


def sent(tokens: int | None = 5, prompt: str | tuple[int, ...] = "Hi", **options: Any) -> HttpRequest:
    request = Request(index=0, prompt=prompt, asked_prompt_tokens=1, asked_output_tokens=tokens)
    return ADAPTER.encode(request, Options(model="m", **options))


def body(endpoint: Endpoint = "chat", **more: Any) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(sent(endpoint=endpoint, **more).body)
    return decoded


def models(status: int, answer: object) -> dict[str, Any]:
    return dict(ADAPTER.probes()[0].parse(status, json.dumps(answer).encode()))


def context(card: dict[str, Any], status: int = 200) -> object:
    parse = ADAPTER.model_probes("m")[0].parse
    return parse(status, json.dumps({"data": [{"id": "other", "context_length": 1}, card]}).encode()).get(
        "context_tokens"
    )


def test_a_chat_has_fields_of_the_standard_only() -> None:
    assert body() == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_completion_tokens": 5,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.0,
    }


def test_a_completion_has_fields_of_the_standard_only() -> None:
    assert body("completions", temperature=None, top_p=0.9) == {
        "model": "m",
        "prompt": "Hi",
        "max_tokens": 5,
        "stream": True,
        "stream_options": {"include_usage": True},
        "top_p": 0.9,
    }


def test_null_takes_a_field_out_that_an_endpoint_does_not_know() -> None:
    assert "stream_options" not in body(extra_body={"stream_options": None})
    assert "temperature" not in body(extra_body={"temperature": None})


def test_an_endpoint_that_knows_max_tokens_only_is_given_that() -> None:
    found = body(extra_body={"max_completion_tokens": None})
    assert found["max_tokens"] == 5
    assert "max_completion_tokens" not in found


def test_a_length_of_the_users_own_stands_alone() -> None:
    found = body(extra_body={"max_completion_tokens": 9})
    assert (found["max_completion_tokens"], "max_tokens" in found) == (9, False)


def test_token_ids_are_no_part_of_what_every_endpoint_takes() -> None:
    for endpoint in ADAPTER.endpoints:
        with pytest.raises(BadInput, match="token ids"):
            sent(prompt=(5, 6), endpoint=endpoint)


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1"),
        ("https://openrouter.ai/api/v1", "https://openrouter.ai/api/v1"),
        (
            "https://generativelanguage.googleapis.com/v1beta/openai/",
            "https://generativelanguage.googleapis.com/v1beta/openai/",
        ),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1"),
    ],
)
def test_a_url_with_a_path_is_the_whole_base(url: str, base: str) -> None:
    assert ADAPTER.base_url(url) == base
    assert ADAPTER.base_url(ADAPTER.base_url(url)) == ADAPTER.base_url(url)


@pytest.mark.parametrize(("endpoint", "path"), [("chat", "/chat/completions"), ("completions", "/completions")])
def test_paths_stand_below_the_base(endpoint: Endpoint, path: str) -> None:
    assert sent(endpoint=endpoint).path == path
    assert ADAPTER.probes()[0].request.path == "/models"


def test_the_model_of_a_server_of_one() -> None:
    card = {"id": "m", "object": "model", "created": 1, "owned_by": "vllm"}
    assert models(200, {"object": "list", "data": [card]}) == {"ready": True, "engine": "vllm", "models": ("m",)}


def test_an_owner_that_is_no_engine_is_none() -> None:
    assert models(200, {"data": [{"id": "m", "owned_by": "m"}]})["engine"] is None
    assert models(200, {"data": [{"id": "m"}]})["engine"] is None
    assert models(200, {"data": [{"id": "a", "owned_by": "x"}, {"id": "b", "owned_by": "y"}]})["engine"] is None


def test_a_gateway_without_a_list_serves_what_is_asked_for() -> None:
    facts = ServerFacts(models=models(404, "not found")["models"])
    assert choose_model(facts, "anything") == "anything"
    with pytest.raises(TargetUnusable, match="--model"):
        choose_model(facts, None)


def test_a_catalogue_does_not_rule_out_what_is_not_in_it() -> None:
    """A host of hundreds of models serves deployments and variants besides; and they are not read out."""
    catalogue = {"data": [{"id": f"model-{i}", "owned_by": "host"} for i in range(300)]}
    assert models(200, catalogue)["models"] is None
    with pytest.raises(TargetUnusable, match="--model") as told:
        choose_model(ServerFacts(), None)
    assert len(str(told.value)) < 200


def test_a_short_list_rules_out_a_wrong_model() -> None:
    facts = ServerFacts(models=models(200, {"data": [{"id": "a"}, {"id": "b"}]})["models"])
    with pytest.raises(TargetUnusable, match="there are: a, b"):
        choose_model(facts, "c")


@pytest.mark.parametrize(("status", "answer"), [(200, []), (200, {"data": "no"}), (200, {}), (500, {"error": "x"})])
def test_an_answer_that_is_no_model_list_rules_the_server_out(status: int, answer: object) -> None:
    with pytest.raises(ValueError, match="/models"):
        models(status, answer)


@pytest.mark.parametrize(
    ("card", "tokens"),
    [
        ({"id": "m", "max_model_len": 4096}, 4096),
        ({"id": "m", "context_length": 131072}, 131072),
        ({"id": "m", "context_window": 8192}, 8192),
        ({"id": "m", "max_model_len": None}, None),
        ({"id": "another"}, None),
    ],
)
def test_the_context_of_the_chosen_model(card: dict[str, Any], tokens: int | None) -> None:
    assert context(card) == tokens


@pytest.mark.parametrize("status", [401, 404, 503])
def test_a_context_that_is_not_told_rules_nothing_out(status: int) -> None:
    assert context({"id": "m", "max_model_len": 4096}, status) is None


def test_what_cannot_be_known_of_every_endpoint_is_not_claimed() -> None:
    assert (ADAPTER.signature, ADAPTER.tokenization, ADAPTER.launcher, ADAPTER.metrics) == (None, None, None, ())
    promises = ADAPTER.promises("chat")
    assert (promises.fixed_length, promises.per_chunk_counts, promises.exact_counts) == (False, False, True)

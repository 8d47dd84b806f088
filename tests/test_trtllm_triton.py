"""Triton's generate_stream: what is sent to which model, what is found out of it, whose tokens are estimates.

Streams are in test_adapters.py; what tests/transcripts has of Triton itself was captured from a real one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.adapters.trtllm_responses import ResponseDecoder
from servemark.adapters.trtllm_triton import ADAPTER, TrtllmTritonAdapter
from servemark.harness.errors import BadInput
from servemark.harness.server.control import choose_model
from servemark.harness.types import HttpRequest, Options, Request, ServerFacts

TRANSCRIPTS = Path(__file__).parent / "transcripts"


def told(name: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads((TRANSCRIPTS / f"triton-{name}-config.json").read_bytes())
    return answer


def settled(config: dict[str, Any]) -> TrtllmTritonAdapter:
    model = config["name"]
    facts = ServerFacts(**ask(model, "inputs", 200, config))
    return ADAPTER.settled(facts, model)


def ask(model: str, name: str, status: int, answer: object) -> dict[str, Any]:
    probes = (*ADAPTER.probes(), *ADAPTER.model_probes(model))
    found = next(probe for probe in probes if probe.name == name)
    content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return dict(found.parse(status, content))


def sent(adapter: TrtllmTritonAdapter, tokens: int | None = 5, **options: Any) -> HttpRequest:
    request = Request(index=0, prompt="Hi", asked_prompt_tokens=1, asked_output_tokens=tokens)
    return adapter.encode(request, Options(model="ensemble", endpoint="generate", **options))


def body(adapter: TrtllmTritonAdapter, *args: Any, **options: Any) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(sent(adapter, *args, **options).body)
    return decoded


def with_inputs(*names: str, **more: Any) -> dict[str, Any]:
    inputs = [{"name": name} for name in ("text_input", *names)]
    policy = {"decoupled": True}
    outputs = [{"name": "text_output"}]
    return {"name": "m", "input": inputs, "output": outputs, "model_transaction_policy": policy, **more}


# --- what is sent


def test_an_answer_of_a_forced_length_from_the_ensemble() -> None:
    """The end id of no token, as the engine's own runtime ignores the end; counts, which are there when asked for."""
    ensemble = settled(told("ensemble"))
    assert sent(ensemble).path == "/v2/models/ensemble/generate_stream"
    assert body(ensemble) == {
        "text_input": "Hi",
        "max_tokens": 5,
        "stream": True,
        "end_id": -1,
        "top_k": 1,
        "exclude_input_in_output": True,
        "return_num_input_tokens": True,
        "return_num_output_tokens": True,
    }
    assert body(ADAPTER) == body(ensemble), "the usual inputs are those of the usual template"


def test_the_llm_apis_model_has_other_names_and_no_way_to_force_a_length() -> None:
    llmapi = settled(told("llmapi"))
    assert body(llmapi, top_p=0.9, temperature=0.7) == {
        "text_input": "Hi",
        "streaming": True,
        "sampling_param_max_tokens": 5,
        "sampling_param_temperature": 0.7,
        "sampling_param_top_p": 0.9,
        "sampling_param_exclude_input_from_output": True,
        "return_finish_reason": True,
    }
    promises = llmapi.promises("generate")
    assert (promises.fixed_length, promises.exact_counts, promises.per_chunk_counts) == (False, False, False)


def test_an_older_template() -> None:
    """No counts, and the least length under its first name where there is no end id."""
    old = settled(with_inputs("max_tokens", "stream", "min_length", "temperature"))
    assert body(old) == {"text_input": "Hi", "max_tokens": 5, "stream": True, "min_length": 5}
    promises = old.promises("generate")
    assert (promises.fixed_length, promises.exact_counts) == (True, False)


def test_an_answer_that_may_end_early() -> None:
    assert not {"end_id", "min_tokens"} & body(ADAPTER, force_output_length=False).keys()


@pytest.mark.parametrize(
    ("options", "sampling"),
    [
        ({"temperature": 0.0}, {"top_k": 1}),
        ({"temperature": 0}, {"top_k": 1}),
        ({"temperature": 1}, {"temperature": 1.0, "top_p": 1.0}),  # without top_p it would be greedy all the same
        ({"temperature": 0.7, "top_p": 1}, {"temperature": 0.7, "top_p": 1.0}),
        ({"temperature": None, "top_p": 0.9}, {"top_p": 0.9}),
        ({"temperature": None}, {}),
        ({"temperature": 0.0, "extra_body": {"temperature": 0.5, "top_k": 4}}, {"temperature": 0.5, "top_k": 4}),
    ],
)
def test_sampling(options: dict[str, Any], sampling: dict[str, Any]) -> None:
    """A whole number stands as 1.0: Triton takes the type of a JSON number for the tensor's."""
    asked = body(ADAPTER, **options)
    assert {name: asked[name] for name in ("top_k", "top_p", "temperature") if name in asked} == sampling
    assert b'"top_p":1,' not in sent(ADAPTER, **options).body


def test_what_this_route_cannot_say() -> None:
    request = Request(index=0, prompt=(5, 6), asked_prompt_tokens=2, asked_output_tokens=2)
    with pytest.raises(BadInput, match="token ids"):
        ADAPTER.encode(request, Options(model="m", endpoint="generate"))
    with pytest.raises(BadInput, match="length of each answer"):
        sent(ADAPTER, None)
    assert body(ADAPTER, None, extra_body={"max_tokens": 7})["max_tokens"] == 7


def test_a_models_name_is_one_part_of_the_path() -> None:
    request = Request(index=0, prompt="Hi", asked_prompt_tokens=None, asked_output_tokens=1)
    assert ADAPTER.encode(request, Options(model="a/b?c")).path == "/v2/models/a%2Fb%3Fc/generate_stream"


# --- what is found out


def test_readiness_and_server() -> None:
    assert ask("m", "readiness", 200, b"") == {"ready": True}
    assert ask("m", "readiness", 400, b"") == {"ready": False}
    with pytest.raises(ValueError, match="/v2/health/ready"):
        ask("m", "readiness", 404, b'{"error":"Not Found"}')
    assert ask("m", "server", 200, {"name": "triton", "version": "2.51.0"}) == {"engine": "triton", "version": "2.51.0"}
    for answer in ({"name": "kserve"}, b"<html>"):
        with pytest.raises(ValueError, match="/v2"):
            ask("m", "server", 200, answer)


@pytest.mark.parametrize(
    ("status", "answer", "ours"),
    [(200, b'{"name":"triton"}', True), (404, b'{"name":"triton"}', False), (200, b"[]", False), (200, b"{}", False)],
)
def test_it_is_known_by_its_name(status: int, answer: bytes, ours: bool) -> None:
    assert ADAPTER.signature is not None
    assert ADAPTER.signature.matches(status, answer) is ours


@pytest.mark.parametrize(
    ("served", "chosen"),
    [
        (["postprocessing", "preprocessing", "tensorrt_llm", "tensorrt_llm_bls", "ensemble"], "ensemble"),
        (["tensorrt_llm", "tensorrt_llm_bls"], "tensorrt_llm_bls"),
        (["tensorrt_llm"], "tensorrt_llm"),
        (["other", "tensorrt_llm"], "tensorrt_llm"),
        (["preprocessing", "other"], "other"),
    ],
)
def test_the_model_that_takes_text_is_chosen(served: list[str], chosen: str) -> None:
    index = [{"name": name, "version": "1", "state": "READY"} for name in served]
    index.append({"name": "broken", "version": "1", "state": "UNAVAILABLE", "reason": "failed to load"})
    found = {name: value for name, value in ask("", "models", 200, index).items() if value is not None}
    assert "broken" not in found["models"]
    assert choose_model(ServerFacts(**found), None) == chosen


@pytest.mark.parametrize(("status", "answer"), [(403, b"no"), (200, b"{}"), (200, b"[3]"), (404, b"")])
def test_a_server_that_keeps_its_models_to_itself(status: int, answer: bytes) -> None:
    assert ask("", "models", status, answer) == {"models": (), "default_model": None}


def test_a_model_that_is_not_there() -> None:
    assert ask("m", "model", 200, b"") == {}
    with pytest.raises(ValueError, match="the model m is not ready"):
        ask("m", "model", 400, b'{"error":"Model version not ready"}')


def test_what_a_config_tells() -> None:
    settings = ask("ensemble", "inputs", 200, told("ensemble"))["settings"]
    assert (settings["served_by"], settings["max_batch_size"]) == ("ensemble", 16)
    assert {"text_input", "max_tokens", "end_id", "return_num_output_tokens"} <= set(settings["inputs"])
    assert ask("tensorrt_llm", "inputs", 200, told("llmapi"))["settings"]["served_by"] == "python"


@pytest.mark.parametrize(("value", "settings"), [("true", {"accumulate_tokens": "true"}), ("${accumulate_tokens}", {})])
def test_a_parameter_that_was_never_set_is_not_told(value: str, settings: dict[str, str]) -> None:
    config = with_inputs("max_tokens", parameters={"accumulate_tokens": {"string_value": value}})
    assert ask("m", "inputs", 200, config)["settings"] == {"inputs": ["max_tokens", "text_input"], **settings}


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"input": [{"name": "input_ids"}], "output": [{"name": "output_ids"}]}, "text_input, no text_output"),
        (with_inputs("stream"), "no max_tokens"),
        (with_inputs("max_tokens", model_transaction_policy={"decoupled": False}), "not decoupled"),
        (with_inputs("max_tokens", model_transaction_policy=None), "not decoupled"),
        ({"input": 3}, "no max_tokens"),
    ],
)
def test_a_model_that_does_not_stream_text_for_text_is_ruled_out(config: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        ask("m", "inputs", 200, config)


def test_an_ensemble_whose_engine_does_not_stream_is_ruled_out() -> None:
    assert ask("ensemble", "engine", 404, b"") == {}
    assert ask("ensemble", "engine", 200, {"model_transaction_policy": {"decoupled": True}}) == {}
    with pytest.raises(ValueError, match="tensorrt_llm is not decoupled"):
        ask("ensemble", "engine", 200, {"model_transaction_policy": {"decoupled": False}})
    assert "engine" not in {probe.name for probe in ADAPTER.model_probes("tensorrt_llm_bls")}


# --- whose tokens are estimates


def carried(*texts: str) -> int:
    decoder = ResponseDecoder()
    return sum(decoder.feed(json.dumps({"text_output": text}).encode()).carries for text in texts)


def test_a_repeated_piece_is_a_piece_and_a_repeated_whole_text_is_none() -> None:
    assert carried("a", "a", "a") == 3
    assert carried(" very", " very", " good") == 3
    assert carried("", "One", "", " two") == 2
    assert carried("One", "One two", "One two", "One two three") == 4, "one step is too little to tell"
    assert carried("One", "One two", "One two three", "One two three", "One two three four") == 4


words = st.text("ab ", min_size=1, max_size=3)


@given(words, st.lists(words, max_size=20))
def test_once_a_piece_does_not_begin_with_the_one_before_every_piece_counts(first: str, pieces: list[str]) -> None:
    assert carried(first, "x", *pieces) == 2 + len(pieces)


@given(words, st.integers(1, 30))
def test_one_token_again_and_again_is_as_many(piece: str, times: int) -> None:
    assert carried(*[piece] * times) == times


@given(st.lists(st.text("ab ", max_size=3), min_size=1, max_size=20))
def test_whole_texts_are_counted_as_often_as_they_grow(pieces: list[str]) -> None:
    """Up to the second time that they do, a text that stays the same is taken for a piece."""
    texts = ["".join(pieces[: at + 1]) for at in range(len(pieces))]
    seen: set[str] = set()
    expected = 0
    for text in texts:
        new = text != "" and text not in seen
        expected += new or (text != "" and len(seen) < 3)
        seen |= {text} - {""}
    assert carried(*texts) == expected


def test_counts_go_before_texts_and_one_that_is_missing_makes_an_estimate_of_all() -> None:
    counted, mixed = ResponseDecoder(), ResponseDecoder()
    for text, tokens in (("a", 1), ("", 1), ("b", 3), ("", 0)):
        event = json.dumps({"text_output": text, "num_output_tokens": tokens, "num_input_tokens": 9}).encode()
        assert counted.feed(event).tokens == (tokens or None)
        mixed.feed(event)
    mixed.feed(b'{"text_output":"c","num_output_tokens":0}')
    usage, estimate = counted.finish(True).usage, mixed.finish(True).usage
    assert (usage.source, usage.output_tokens, usage.prompt_tokens) == ("usage", 5, 9)
    assert (estimate.source, estimate.output_tokens, estimate.prompt_tokens) == ("estimate", 6, 9)


def test_several_sequences_in_one_response() -> None:
    assert ResponseDecoder().feed(b'{"text_output":["a","b"]}').carries


# --- metrics


def test_metrics_of_a_real_triton() -> None:
    """Without an engine behind it, Triton tells what it counts itself: of the model that requests go to."""
    page = (TRANSCRIPTS / "triton-metrics.txt").read_bytes()
    ensemble = settled(told("ensemble")).metrics[0]
    assert (ensemble.path, ensemble.port) == ("/metrics", 8002)
    values = ensemble.reader()(page)
    lines = dict(line.rsplit(" ", 1) for line in page.decode().splitlines() if line and line[0] != "#")
    success = float(lines['nv_inference_request_success{model="ensemble",version="1"}'])
    assert values["requests_finished"] == values["e2e_count"] == success
    assert values["e2e_sum"] == float(lines['nv_inference_request_duration_us{model="ensemble",version="1"}']) / 1e6
    assert 0 < values["e2e_sum"] / success < 1
    other = ADAPTER.settled(ServerFacts(settings={"served_by": "python"}), "tensorrt_llm_bls").metrics[0].reader()(page)
    assert other["requests_finished"] == float(
        lines['nv_inference_request_success{model="tensorrt_llm_bls",version="1"}']
    )
    assert "e2e_sum" not in other, "Triton times only the call of such a model, not its stream"


ENGINE = """\
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="active",version="1"} 9
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"} 6
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 3
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="tensorrt_llm",version="1"} 80
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used",model="tensorrt_llm",version="1"} 20
nv_trt_llm_general_metrics{general_type="iteration_counter",model="tensorrt_llm",version="1"} 1234
nv_llm_input_token_len_sum{model="tensorrt_llm",response_metric_type="total_input_tokens",version="1"} 1000
nv_llm_output_token_len_sum{model="tensorrt_llm",response_metric_type="total_output_tokens",version="1"} 800
nv_llm_output_token_len_count{model="tensorrt_llm",response_metric_type="total_output_tokens",version="1"} 8
nv_inference_request_success{model="ensemble",version="1"} 7
nv_inference_request_success{model="postprocessing",version="1"} 800
nv_inference_request_failure{model="ensemble",reason="REJECTED",version="1"} 2
nv_inference_request_failure{model="ensemble",reason="OTHER",version="1"} 1
nv_inference_first_response_histogram_ms_sum{model="ensemble",version="1"} 250
nv_inference_first_response_histogram_ms_count{model="ensemble",version="1"} 8
"""


def test_metrics_of_the_engine() -> None:
    assert ADAPTER.metrics[0].reader()(ENGINE.encode()) == {
        "running": 6.0,
        "waiting": 3.0,
        "kv_usage": 0.25,
        "prompt_tokens": 1000.0,
        "generation_tokens": 800.0,
        "requests_finished": 8.0,
        "requests_failed": 3.0,
        "requests_rejected": 2.0,
        "ttft_sum": 0.25,
        "ttft_count": 8.0,
        "e2e_count": 7.0,
        "iterations": 1234.0,
    }
    told_itself = (
        ENGINE + 'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="tensorrt_llm"} 0.26\n'
    )
    assert ADAPTER.metrics[0].reader()(told_itself.encode())["kv_usage"] == 0.26


def test_starting_it() -> None:
    assert ADAPTER.launcher is not None
    found = ADAPTER.launcher.command(("/repository", "--log-verbose=1"), "127.0.0.1", 8123)
    words = "tritonserver --model-repository /repository --log-verbose=1 --http-address 127.0.0.1 --http-port 8123"
    assert found == (*words.split(), "--allow-grpc", "false")

"""The simulated server in other servers' words: fields and their order, refusals, limits and failures of each."""

from __future__ import annotations

import asyncio
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from servemark.adapters.sim.dialects import names
from servemark.adapters.sim.dialects.tgi import writing
from servemark.adapters.sim.options import SimOptions
from servemark.adapters.sim.server import SimServer
from servemark.adapters.trtllm_iterations import ITERATIONS
from servemark.harness.errors import BadInput
from servemark.harness.server.discovery import load_adapter
from servemark.harness.types import Endpoint
from tests.simulated import MODEL, Simulated, payloads, read, simulated

TRANSCRIPTS = Path(__file__).parent / "transcripts"
CHAT = [{"role": "user", "content": "say something to me"}]
INPUTS = "Once upon a time there was"


def shape(value: object) -> object:
    """The fields of a JSON value, in order, with the types of what they hold; numbers are all alike."""
    if isinstance(value, dict):
        return [(name, shape(held)) for name, held in value.items()]
    if isinstance(value, list):
        return [shape(held) for held in value[:1]]
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def shapes(events: list[str]) -> list[object]:
    return [event if event == "[DONE]" else shape(json.loads(event)) for event in events]


def transcript(name: str) -> list[object]:
    return shapes(payloads((TRANSCRIPTS / f"{name}.sse").read_text(encoding="utf-8")))


def without(told: list[object], *fields: str) -> list[object]:
    """Less these fields of each event: what they hold is a server's own business."""
    return [[pair for pair in event if pair[0] not in fields] if isinstance(event, list) else event for event in told]


# -- what every dialect has


@pytest.mark.parametrize("dialect", names())
async def test_every_dialect_says_that_it_is_simulated(dialect: str) -> None:
    """In the version: whatever target measures it, the run is marked."""
    adapter = load_adapter(dialect)
    facts: dict[str, Any] = {}
    async with simulated(dialect=dialect) as one:
        model = "ensemble" if dialect == "trtllm-triton" else MODEL
        for probe in (*adapter.probes(), *adapter.model_probes(model)):
            asked = probe.request
            response = await one.client.request(asked.method, asked.path, content=asked.body)
            facts |= probe.parse(response.status_code, response.content)
    assert facts["ready"] is True
    assert "servemark-sim" in facts["version"]
    assert model in facts["models"]


@pytest.mark.parametrize("dialect", names())
async def test_no_two_dialects_are_taken_for_one_another(dialect: str) -> None:
    matching = []
    async with simulated(dialect=dialect) as one:
        for name in (*names(), "sim"):
            signature = load_adapter(name).signature
            assert signature is not None
            asked = signature.request
            response = await one.client.request(asked.method, asked.path, content=asked.body)
            if signature.matches(response.status_code, response.content):
                matching.append(name)
    # That of vLLM names itself: a real vLLM's run is not to be marked as simulated, nor the reverse.
    assert matching == (["sim"] if dialect == "vllm" else [dialect])


@pytest.mark.parametrize("dialect", [name for name in names() if load_adapter(name).tokenization])
async def test_the_servers_own_count_of_a_text_is_the_engines(dialect: str) -> None:
    adapter = load_adapter(dialect)
    assert adapter.tokenization is not None
    endpoint: Endpoint = "generate" if "generate" in adapter.endpoints else "completions"
    async with simulated(dialect=dialect) as one:
        asked = adapter.tokenization.of_text(MODEL, INPUTS)
        response = await one.client.post(asked.path, content=asked.body)
        ids = adapter.tokenization.parse(response.status_code, response.content)
        await read(one, dialect, endpoint, INPUTS, 1)
    assert list(ids) == list(one.engine[0].prompt)


@pytest.mark.parametrize("dialect", names())
async def test_the_servers_metrics_move_with_requests(dialect: str) -> None:
    adapter = load_adapter(dialect)
    async with simulated(dialect=dialect) as one:
        for _ in range(3):
            await read(one, dialect, adapter.endpoints[0], INPUTS, 7, forced=dialect != "tgi")
        produced = sum(engine.produced for engine in one.engine)
        response = await one.client.get(adapter.metrics[0].path)
    told = adapter.metrics[0].reader()(response.content)
    assert told["generation_tokens"] == produced
    assert told["requests_finished"] == 3 if dialect != "llamacpp" else "requests_finished" not in told
    assert told["prompt_tokens"] == sum(len(engine.prompt) for engine in one.engine)
    assert told["running"] == told["waiting"] == 0


@pytest.mark.parametrize("dialect", names())
async def test_whole_answers_say_what_streams_say(dialect: str) -> None:
    """The last text or texts of the stream, put together, are the text of the answer that is not streamed."""
    native: dict[str, tuple[str, dict[str, Any]]] = {
        "vllm": ("/v1/completions", {"prompt": INPUTS, "max_tokens": 9, "ignore_eos": True}),
        "tgi": ("/", {"inputs": INPUTS, "parameters": {"max_new_tokens": 9, "details": True}}),
        "trtllm": ("/v1/completions", {"model": "m", "prompt": INPUTS, "max_tokens": 9, "ignore_eos": True}),
        "sglang": ("/generate", {"text": INPUTS, "sampling_params": {"max_new_tokens": 9, "ignore_eos": True}}),
        "llamacpp": ("/completion", {"prompt": INPUTS, "n_predict": 9, "ignore_eos": True}),
        "trtllm-triton": (
            "/v2/models/ensemble/generate_stream",
            {"text_input": INPUTS, "max_tokens": 9, "end_id": -1, "exclude_input_in_output": True},
        ),
    }
    path, fields = native[dialect]
    async with simulated(dialect=dialect, eos_mean_tokens=1e6) as one:
        streamed = [json.loads(event) for event in await one.chunks(path, stream=True, **fields) if event != "[DONE]"]
        if dialect == "trtllm-triton":
            path = "/v2/models/ensemble/generate"
        response = await one.client.post(path, json={"stream": False, **fields})
    assert response.status_code == 200
    text = text_of(response.json())
    assert len(text.split()) == 9
    pieces = [text_of(event) for event in streamed]
    assert text in (pieces[-1], "".join(pieces))
    if dialect == "tgi":
        assert response.headers["x-generated-tokens"] == "9"
        assert response.headers["x-prompt-tokens"] == str(len(one.engine[0].prompt))


def text_of(event: dict[str, Any]) -> str:
    """Of one event or answer of any dialect's text route."""
    event = event.get("choices", [event])[0] if event.get("choices", [event]) else {}
    for name in ("generated_text", "text_output", "text", "content"):
        if event.get(name) is not None:
            return str(event[name])
    token = event.get("token") or {}
    return str(token.get("text", ""))


@pytest.mark.parametrize("dialect", names())
async def test_unknown_routes_methods_and_bodies_are_refused(dialect: str) -> None:
    async with simulated(dialect=dialect) as one:
        assert (await one.client.get("/nothing")).status_code == 404
        path = "/v2/models/ensemble/generate_stream" if dialect == "trtllm-triton" else "/v1/completions"
        assert (await one.client.get(path)).status_code == 405
        for body in (b"", b"{bad", b"[1]", b"{}"):
            response = await one.client.post(path, content=body)
            assert response.status_code in (400, 422, 500)
        assert not one.engine


# -- what goes wrong: the same failures, told as each server tells them

NATIVE: dict[str, Endpoint] = {name: load_adapter(name).endpoints[0] for name in names()}


@pytest.mark.parametrize("dialect", names())
@pytest.mark.parametrize("kind", ["http500", "http503"])
async def test_a_failed_status_has_a_body_in_the_servers_shape(dialect: str, kind: str) -> None:
    async with simulated(dialect=dialect, fault=f"{kind}:1") as one:
        reading = await read(one, dialect, NATIVE[dialect], INPUTS, 20)
        response = await one.client.post("/generate", json={})
    assert reading.status == int(kind.removeprefix("http"))
    if response.status_code != 404:
        assert response.json()


@pytest.mark.parametrize("dialect", names())
async def test_an_engine_that_fails_in_the_middle_is_told_or_cuts_the_connection(dialect: str) -> None:
    async with simulated(dialect=dialect, fault="error_event:1") as one:
        for endpoint in load_adapter(dialect).endpoints:
            reading = await read(one, dialect, endpoint, INPUTS, 60)
            assert reading.tokens
            assert one.engine[-1].finish_reason == "abort"
            if dialect == "trtllm":
                assert not reading.clean
                assert reading.outcome.error == "incomplete"
            else:
                assert reading.clean
                assert reading.outcome.error == "server_error"
                assert "simulated fault" in str(reading.outcome.error_detail)


@pytest.mark.parametrize("dialect", names())
async def test_a_stream_that_ends_early_is_known_where_the_server_has_an_end_marker(dialect: str) -> None:
    async with simulated(dialect=dialect, fault="no_end:1") as one:
        reading = await read(one, dialect, NATIVE[dialect], INPUTS, 60)
    assert reading.clean
    # Triton's streams end with the connection, whether whole or not: only the count tells.
    assert reading.outcome.error == (None if dialect == "trtllm-triton" else "incomplete")
    assert len(reading.tokens) < 60


@pytest.mark.parametrize("dialect", names())
async def test_a_cut_connection_is_a_cut_connection(dialect: str) -> None:
    async with simulated(dialect=dialect, fault="cut:1") as one:
        reading = await read(one, dialect, NATIVE[dialect], INPUTS, 60)
    assert not reading.clean
    assert reading.outcome.error == "incomplete"


@pytest.mark.parametrize("dialect", names())
async def test_an_empty_stream_holds_no_token(dialect: str) -> None:
    async with simulated(dialect=dialect, fault="empty:1") as one:
        reading = await read(one, dialect, NATIVE[dialect], INPUTS, 60)
    assert (reading.status, reading.clean, reading.tokens) == (200, True, [])


@pytest.mark.parametrize("dialect", names())
async def test_an_event_that_is_no_json_is_refused_by_every_decoder(dialect: str) -> None:
    async with simulated(dialect=dialect, fault="garbage:1") as one:
        with pytest.raises(ValueError):
            await read(one, dialect, NATIVE[dialect], INPUTS, 60)


@pytest.mark.parametrize("dialect", names())
async def test_a_stalled_stream_is_complete_in_the_end(dialect: str) -> None:
    async with simulated(dialect=dialect, fault="stall:1", stall_s=0.2) as one:
        reading = await read(one, dialect, NATIVE[dialect], INPUTS, 20)
    assert reading.outcome.error is None
    assert len(reading.tokens) == one.engine[0].produced


@pytest.mark.parametrize("dialect", names())
async def test_a_client_that_leaves_frees_the_engine(dialect: str) -> None:
    adapter = load_adapter(dialect)
    async with simulated(dialect=dialect, speed=0.1) as one:
        reading = asyncio.create_task(read(one, dialect, adapter.endpoints[0], INPUTS, 3000))
        while not one.engine or not one.engine[0].produced:
            await asyncio.sleep(0.01)
        reading.cancel()
        while one.engine[0].finish_reason is None:
            await asyncio.sleep(0.01)
    assert one.engine[0].finish_reason == "abort"


@pytest.mark.parametrize(
    ("dialect", "path", "salt"),
    [
        ("vllm", "/v1/completions", "cache_salt"),
        ("trtllm", "/v1/chat/completions", "cache_salt"),
        ("sglang", "/generate", "extra_key"),
        ("sglang", "/v1/completions", "cache_salt"),
    ],
)
async def test_a_salt_keeps_requests_apart_in_the_prefix_cache(dialect: str, path: str, salt: str) -> None:
    prompt = INPUTS * 10
    body: dict[str, Any] = {"model": MODEL, "prompt": prompt, "max_tokens": 1}
    if path == "/generate":
        body = {"text": prompt, "sampling_params": {"max_new_tokens": 1}}
    if path == "/v1/chat/completions":
        body = {"model": MODEL, "messages": [{"role": "user", "content": prompt}], "max_tokens": 1}
    async with simulated(dialect=dialect) as one:
        for value in ("a", "b", "a", None):
            assert (await one.client.post(path, json={**body, salt: value})).status_code == 200
    assert [engine.cached_tokens > 0 for engine in one.engine] == [False, False, True, False]


# -- options


def test_an_option_of_another_dialect_is_refused() -> None:
    for options in (
        SimOptions(dialect="nothing"),
        SimOptions(max_concurrent_requests=5),
        SimOptions(dialect="tgi", accumulate_tokens=True),
        SimOptions(dialect="trtllm-triton", served_model_name="mine"),
    ):
        with pytest.raises(BadInput, match=r"--(dialect|max-concurrent|accumulate|served)"):
            SimServer(options)


# -- TGI


async def test_tgi_streams_have_its_fields() -> None:
    async with simulated(dialect="tgi", eos_mean_tokens=1e6) as one:
        parameters = {"max_new_tokens": 3, "details": True}
        native = await one.chunks("/generate_stream", inputs=INPUTS, parameters=parameters)
        usage = {"include_usage": True}
        chat = await one.chunks(
            "/v1/chat/completions", model="tgi", messages=CHAT, max_tokens=3, stream=True, stream_options=usage
        )
    assert shapes(native) == transcript("tgi-hand-generate")
    assert shapes(chat) == transcript("tgi-hand-chat")


async def test_tgi_writes_no_blank_after_data() -> None:
    """But for [DONE], which is written by another way."""
    async with simulated(dialect="tgi") as one:
        body = {"model": "tgi", "messages": CHAT, "max_tokens": 3, "stream": True}
        text = (await one.client.post("/v1/chat/completions", json=body)).text
    starts = [line[:6] for line in text.splitlines() if line]
    assert set(starts) == {"data:{", "data: "}
    assert text.endswith("data: [DONE]\n\n")


async def test_tgi_cannot_be_kept_from_ending() -> None:
    async with simulated(dialect="tgi", eos_mean_tokens=3) as one:
        parameters = {"max_new_tokens": 500, "details": True, "ignore_eos": True, "min_new_tokens": 500}
        told = [
            json.loads(event) for event in await one.chunks("/generate_stream", inputs=INPUTS, parameters=parameters)
        ]
        completions = await one.chunks("/v1/completions", prompt=INPUTS, max_tokens=500, stream=True, min_tokens=500)
    assert len(told) < 500
    assert told[-1]["details"]["finish_reason"] == "eos_token"
    assert told[-1]["token"] == {"id": 1, "text": "</s>", "logprob": -0.5, "special": True}
    assert "</s>" not in told[-1]["generated_text"]
    assert [event["index"] for event in told] == list(range(1, len(told) + 1))
    *_, last, done = completions
    assert done == "[DONE]"
    assert json.loads(last)["choices"][0]["finish_reason"] == "eos_token"
    assert json.loads(last)["usage"]["completion_tokens"] == len(told)
    assert {json.loads(event)["choices"][0]["finish_reason"] for event in completions[:-2]} <= {""}


async def test_tgi_tells_details_only_when_asked() -> None:
    async with simulated(dialect="tgi", eos_mean_tokens=1e6) as one:
        told = await one.chunks("/generate_stream", inputs=INPUTS, parameters={"max_new_tokens": 2})
    assert json.loads(told[-1])["details"] is None
    assert json.loads(told[-1])["generated_text"]


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"temperature": 0}, "`temperature` must be strictly positive"),
        ({"top_p": 1.0}, "`top_p` must be"),
        ({"top_k": 0}, "`top_k` must be"),
        ({"max_new_tokens": 0}, "`max_new_tokens` must be strictly positive"),
        ({"max_new_tokens": 10**6}, "`inputs` tokens + `max_new_tokens` must be"),
        ({"best_of": 2}, "`best_of` != 1 is not supported when streaming"),
        ({"decoder_input_details": True}, "`decoder_input_details` == true is not supported when streaming"),
    ],
)
async def test_tgi_tells_what_is_invalid_inside_a_stream_of_status_200(
    parameters: dict[str, Any], problem: str
) -> None:
    async with simulated(dialect="tgi", max_model_len=4096) as one:
        (event,) = await one.chunks("/generate_stream", inputs=INPUTS, parameters=parameters)
        whole = await one.client.post("/generate", json={"inputs": INPUTS, "parameters": parameters})
    told = json.loads(event)
    assert told["error_type"] == "validation"
    assert told["error"].startswith(f"Input validation error: {problem}")
    if "when streaming" not in problem:
        assert (whole.status_code, whole.json()) == (422, told)


async def test_tgis_chat_takes_a_temperature_of_zero_and_tells_errors_as_422_with_done() -> None:
    fields = {"model": "tgi", "messages": CHAT, "stream": True, "max_tokens": 2}
    async with simulated(dialect="tgi") as one:
        assert "error" not in (await one.chunks("/v1/chat/completions", temperature=0, **fields))[0]
        refused, done = await one.chunks("/v1/chat/completions", top_p=1.0, **fields)
    assert done == "[DONE]"
    assert json.loads(refused)["error"]["http_status_code"] == 422


async def test_tgi_fails_at_once_over_its_limit_and_never_queues() -> None:
    async with simulated(dialect="tgi", max_concurrent_requests=2, speed=0.1, eos_mean_tokens=1e6) as one:
        long = {"inputs": INPUTS, "parameters": {"max_new_tokens": 2000}}
        held = [asyncio.create_task(one.client.post("/generate_stream", json=long)) for _ in range(2)]
        while len(one.engine) < 2:
            await asyncio.sleep(0.01)
        (event,) = await one.chunks("/generate_stream", **long)
        whole = await one.client.post("/generate", json=long)
        chat = await one.chunks("/v1/chat/completions", model="tgi", messages=CHAT, stream=True)
        page = (await one.client.get("/metrics")).text
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
    assert json.loads(event) == {"error": "Model is overloaded", "error_type": "overloaded"}
    assert (whole.status_code, whole.json()) == (429, json.loads(event))
    assert json.loads(chat[0]) == {"error": {"message": "Model is overloaded", "http_status_code": 422}}
    assert 'tgi_request_failure{err="overloaded"} 3.0' in page
    assert len(one.engine) == 2


async def test_tgi_sends_comment_lines_while_nothing_else_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "COMMENT_AFTER_S", 0.05)
    async with simulated(dialect="tgi", speed=0.005, eos_mean_tokens=1e6) as one:  # steps of 200 ms
        body = {"inputs": INPUTS, "parameters": {"max_new_tokens": 3, "details": True}}
        text = (await one.client.post("/generate_stream", json=body)).text
        # The connection is kept: a comment that came after the end would stand in the next answer.
        await asyncio.sleep(0.1)
        assert (await one.client.get("/health")).status_code == 200
    assert len(re.findall(r"^:\n\n", text, re.MULTILINE)) >= 3
    assert len(payloads(text)) == 3


async def test_tgi_refuses_bodies_by_type_as_plain_text() -> None:
    async with simulated(dialect="tgi") as one:
        missing = await one.client.post("/generate_stream", json={"parameters": {}})
        broken = await one.client.post("/generate_stream", content=b"{")
    assert (missing.status_code, broken.status_code) == (422, 400)
    assert missing.headers["content-type"].startswith("text/plain")
    assert "missing field `inputs`" in missing.text


# -- trtllm-serve


async def test_trtllm_refuses_a_field_that_it_does_not_know() -> None:
    async with simulated(dialect="trtllm") as one:
        body = {"model": "m", "messages": CHAT, "stream": True}
        refused = await one.client.post("/v1/chat/completions", json={**body, "min_p": 0.0, "nonsense": 1})
        other = await one.client.post("/v1/chat/completions", json={**body, "prompt": "x"})
        inner = await one.client.post("/v1/chat/completions", json={**body, "stream_options": {"x": 1}})
    assert [refused.status_code, other.status_code, inner.status_code] == [400] * 3
    assert list(refused.json()) == ["error"]
    assert "'nonsense'" in refused.json()["error"]
    assert "extra_forbidden" in refused.json()["error"]


async def test_trtllms_role_chunk_has_a_blank_behind_it() -> None:
    body = {"model": "m", "messages": CHAT, "stream": True, "max_tokens": 2, "ignore_eos": True}
    async with simulated(dialect="trtllm") as one:
        text = (await one.client.post("/v1/chat/completions", json=body)).text
    role, token, *_ = text.split("\n\n")
    assert role.endswith('"delta":{"role":"assistant"}}]} ')
    assert token.endswith("}")


async def test_trtllm_streams_have_its_fields_in_its_order() -> None:
    fields = {"model": "m", "stream": True, "ignore_eos": True}
    every = {"include_usage": True, "continuous_usage_stats": True}
    async with simulated(dialect="trtllm") as one:
        asked = {"messages": CHAT, "max_tokens": 2, **fields}
        chat = await one.chunks("/v1/chat/completions", stream_options=every, **asked)
        final = await one.chunks("/v1/chat/completions", stream_options={"include_usage": True}, **asked)
        asked = {"prompt": INPUTS, "max_tokens": 3, **fields}
        plain = await one.chunks("/v1/completions", stream_options=every, **asked)
        ids = await one.chunks("/v1/completions", detokenize=False, **asked)
    assert shapes(chat) == transcript("trtllm-hand-chat")
    assert shapes(final) == transcript("trtllm-hand-chat-final-usage")
    assert shapes(plain) == transcript("trtllm-hand-completions")
    assert shapes(ids) == transcript("trtllm-hand-completions-ids")


async def test_trtllm_tells_usage_once_stream_options_are_there() -> None:
    body = {"model": "m", "prompt": INPUTS, "stream": True, "max_tokens": 2, "ignore_eos": True}
    async with simulated(dialect="trtllm") as one:
        *_, usage, done = await one.chunks("/v1/completions", stream_options={"continuous_usage_stats": True}, **body)
        *_, last, _ = await one.chunks("/v1/completions", **body)
    assert done == "[DONE]"
    told = json.loads(usage)
    assert told["choices"] == []
    assert told["usage"]["completion_tokens"] == 2
    assert told["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
    assert json.loads(last)["usage"] is None


async def test_trtllm_shortens_what_does_not_fit_and_refuses_a_prompt_that_fills_the_context() -> None:
    async with simulated(dialect="trtllm", max_model_len=64) as one:
        body = {"model": "m", "prompt": [20] * 60, "ignore_eos": True}
        cut = await one.client.post("/v1/completions", json={**body, "max_tokens": 50})
        full = await one.client.post("/v1/completions", json={**body, "prompt": [20] * 64})
    assert cut.json()["usage"]["completion_tokens"] == 4
    assert full.status_code == 400
    assert list(full.json()) == ["object", "message", "type", "param", "code"]


async def test_trtllm_tells_each_step_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servemark.adapters.sim.dialects.trtllm._WAIT_S", 0.05)
    async with simulated(dialect="trtllm") as one:
        assert (await one.client.get("/metrics")).json() == []
        await read(one, "trtllm", "chat", INPUTS, 6)
        answer = await one.client.get("/metrics")
        steps = answer.json()
        assert (await one.client.get("/metrics")).json() == []
    assert len(steps) == 6
    assert [step["iter"] for step in steps] == [1, 2, 3, 4, 5, 6]
    assert [step["inflightBatchingStats"]["numContextRequests"] for step in steps] == [1, 0, 0, 0, 0, 0]
    assert steps[0]["inflightBatchingStats"]["numCtxTokens"] == len(one.engine[0].prompt)
    assert sum(step["numCompletedRequests"] for step in steps) == 1
    told = ITERATIONS.reader()(answer.content)
    assert (told["iterations"], told["requests_finished"], told["running"]) == (6, 1, 0)
    assert told["iteration_tokens"] == len(one.engine[0].prompt) + 5


# -- Triton

TRITON = "/v2/models/ensemble/generate_stream"


@pytest.mark.parametrize(
    ("body", "status", "answer"),
    [
        (b"{bad", 500, '{"error":"failed to parse the request JSON buffer: Invalid value. at 0"}'),
        (b"", 500, '{"error":"failed to parse the request JSON buffer: The document is empty. at 0"}'),
        (
            b'{"text_input":"a","max_tokens":"3"}',
            500,
            '{"error":"Unable to parse \'data\': attempt to access JSON non-signed-integer as signed-integer"}',
        ),
        (
            b'{"text_input":3,"max_tokens":3}',
            500,
            '{"error":"Unable to parse JSON bytes array: attempt to access JSON non-string as string"}',
        ),
        (
            b'{"text_input":"a","max_tokens":[3,4]}',
            400,
            '{"error":"[request id: <id_unknown>] input \'max_tokens\' batch size does not match other inputs for '
            "'ensemble'\"}",
        ),
        (
            b'{"text_input":"a","max_tokens":3,"nonsense":{}}',
            400,
            "{\"error\":\"parameter 'nonsense' has invalid type. It should be either 'int', 'bool', or 'string'.\"}",
        ),
        (
            b'{"text_input":"a"}',
            400,
            '{"error":"[request id: <id_unknown>] expected number of inputs between 2 and 25 but got 1 inputs for '
            "model 'ensemble'. Got input(s) ['text_input'], but missing required input(s) ['max_tokens']. Please "
            'provide all required input(s)."}',
        ),
    ],
)
async def test_triton_refuses_as_a_real_one_does(body: bytes, status: int, answer: str) -> None:
    """The answers are those of Triton 2.51, to a model with these inputs."""
    async with simulated(dialect="trtllm-triton") as one:
        response = await one.client.post(TRITON, content=body)
    assert (response.status_code, response.text) == (status, answer)


async def test_triton_knows_its_models_only() -> None:
    async with simulated(dialect="trtllm-triton") as one:
        for path, message in (
            ("/v2/models/nope/generate_stream", "Request for unknown model: 'nope' is not found"),
            (
                "/v2/models/ensemble/versions/7/generate_stream",
                "Request for unknown model: 'ensemble' version 7 is not found",
            ),
        ):
            response = await one.client.post(path, json={})
            assert (response.status_code, response.json()) == (404, {"error": message})
        ready = await one.client.get("/v2/models/nope/ready")
        assert (ready.status_code, ready.json()) == (400, {"error": "Model version not ready"})
        assert (await one.client.get("/v2/models/ensemble/ready")).content == b""
        index = await one.client.post("/v2/repository/index", json={"ready": True})
        assert {"ensemble", "tensorrt_llm_bls"} <= {model["name"] for model in index.json()}
        part = await one.client.get("/v2/models/tensorrt_llm/config")
        assert "text_input" not in [each["name"] for each in part.json()["input"]]
        wrong = await one.client.post("/v2/models/tensorrt_llm/generate_stream", json={"text_input": "a"})
        assert wrong.status_code == 400


async def test_triton_counts_tokens_only_when_asked_and_has_no_end_marker() -> None:
    asked = {"text_input": INPUTS, "max_tokens": [3], "stream": True, "end_id": -1}
    counts = {"return_num_input_tokens": True, "return_num_output_tokens": True}
    async with simulated(dialect="trtllm-triton", eos_mean_tokens=2) as one:
        plain = [json.loads(event) for event in await one.chunks(TRITON, **asked)]
        counted = [
            json.loads(event) for event in await one.chunks(TRITON, text_input=INPUTS, parameters=asked | counts)
        ]
    assert len(plain) == len(counted) == 3  # EOS is ignored
    assert [event["num_output_tokens"] for event in plain] == [0] * 3
    assert [event["num_output_tokens"] for event in counted] == [1] * 3
    assert [event["num_input_tokens"] for event in counted] == [len(one.engine[0].prompt)] * 3
    assert len("".join(event["text_output"] for event in plain).split()) == 3


async def test_triton_streams_have_its_fields_in_its_order() -> None:
    """As captured from Triton, which tells zeros of what nobody asked for."""
    asked = {"text_input": INPUTS, "max_tokens": 1, "stream": True, "end_id": -1}
    async with simulated(dialect="trtllm-triton") as one:
        told = await one.chunks(TRITON, **asked)
        config = (await one.client.get("/v2/models/ensemble/config")).json()
    captured = json.loads((TRANSCRIPTS / "triton-ensemble-config.json").read_text())
    assert shapes(told) == transcript("triton-ensemble")[:1]
    for kind in ("input", "output"):
        ours, theirs = ([(each["name"], each["data_type"]) for each in of[kind]] for of in (config, captured))
        assert ours == theirs


async def test_triton_gives_whole_texts_or_pieces() -> None:
    asked = {"text_input": INPUTS, "max_tokens": 3, "stream": True, "end_id": -1}
    path = "/v2/models/tensorrt_llm_bls/generate_stream"
    async with simulated(dialect="trtllm-triton", accumulate_tokens=True) as one:
        pieces = [json.loads(event)["text_output"] for event in await one.chunks(TRITON, **asked)]
        whole = [json.loads(event)["text_output"] for event in await one.chunks(path, **asked)]
        config = (await one.client.get("/v2/models/tensorrt_llm_bls/config")).json()
    assert whole == [pieces[0], pieces[0] + pieces[1], "".join(pieces)]
    assert config["parameters"]["accumulate_tokens"] == {"string_value": "true"}


async def test_triton_without_streaming_gives_one_response_with_the_prompt_in_it() -> None:
    asked = {"text_input": INPUTS, "max_tokens": 3, "end_id": -1}
    async with simulated(dialect="trtllm-triton") as one:
        (event,) = await one.chunks(TRITON, **asked, return_num_output_tokens=True)
        whole = await one.client.post("/v2/models/ensemble/generate", json=asked)
        streaming = await one.client.post("/v2/models/ensemble/generate", json={**asked, "stream": True})
    assert json.loads(event)["text_output"].startswith(INPUTS)
    assert json.loads(event)["num_output_tokens"] == 3
    assert whole.json()["text_output"] == json.loads(event)["text_output"]
    assert streaming.status_code == 200
    assert streaming.json()["error"].startswith("generate expects model to produce exactly 1 response")


async def test_triton_fails_a_first_response_by_status_and_event() -> None:
    async with simulated(dialect="trtllm-triton", max_model_len=32) as one:
        response = await one.client.post(TRITON, json={"text_input": "word " * 40, "max_tokens": 3, "stream": True})
    assert response.status_code == 500
    assert response.headers["content-type"].startswith("text/event-stream")
    (event,) = payloads(response.text)
    assert "exceeds maximum input length" in json.loads(event)["error"]


# -- SGLang


async def test_sglang_tells_the_whole_text_and_all_ids_each_time() -> None:
    sampling = {"max_new_tokens": 4, "ignore_eos": True}
    async with simulated(dialect="sglang") as one:
        *events, done = await one.chunks("/generate", text=INPUTS, sampling_params=sampling, stream=True)
    told = [json.loads(event) for event in events]
    assert done == "[DONE]"
    assert [list(event) for event in told] == [["text", "output_ids", "meta_info"]] * 4
    for before, after in pairwise(told):
        assert after["text"].startswith(before["text"])
        assert after["output_ids"][:-1] == before["output_ids"]
    assert [event["meta_info"]["completion_tokens"] for event in told] == [1, 2, 3, 4]
    assert told[-1]["meta_info"]["finish_reason"] == {"type": "length", "length": 4}
    assert told[0]["meta_info"]["finish_reason"] is None
    assert told[0]["meta_info"]["cached_tokens"] == 0


async def test_sglang_tells_a_prompt_that_is_too_long_inside_the_stream() -> None:
    async with simulated(dialect="sglang", max_model_len=32) as one:
        body = {"text": "word " * 40, "stream": True}
        event, done = await one.chunks("/generate", **body)
        whole = await one.client.post("/generate", json={**body, "stream": False})
        chat = await one.client.post(
            "/v1/chat/completions", json={"messages": CHAT, "max_tokens": 100, "stream": True, "model": "m"}
        )
    assert done == "[DONE]"
    assert "longer than the model's context length" in json.loads(event)["error"]["message"]
    assert (whole.status_code, whole.json()) == (400, json.loads(event))
    assert chat.status_code == 400
    assert chat.json()["object"] == "error"


async def test_sglangs_plain_completions_have_its_fields_in_its_order() -> None:
    usage = {"include_usage": True, "continuous_usage_stats": True}
    async with simulated(dialect="sglang") as one:
        told = await one.chunks(
            "/v1/completions", prompt=INPUTS, max_tokens=3, ignore_eos=True, stream=True, stream_options=usage
        )
    assert shapes(told) == transcript("sglang-hand-completions")


async def test_sglangs_chat_finishes_in_a_chunk_without_text() -> None:
    body = {"model": "m", "messages": CHAT, "max_tokens": 2, "stream": True, "ignore_eos": True}
    async with simulated(dialect="sglang") as one:
        told = await one.chunks("/v1/chat/completions", stream_options={"include_usage": True}, **body)
    *events, done = told
    role, first, second, finish, usage = map(json.loads, events)
    assert done == "[DONE]"
    assert role["choices"][0]["delta"] == {"reasoning_content": None, "role": "assistant", "content": ""}
    assert first["choices"][0]["delta"]["content"]
    assert second["choices"][0]["finish_reason"] is None
    assert finish["choices"][0]["delta"]["content"] is None
    assert finish["choices"][0]["finish_reason"] == "length"
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 2)


async def test_sglang_does_not_flush_its_cache_while_it_is_busy() -> None:
    long = {"text": INPUTS * 10, "sampling_params": {"max_new_tokens": 3000, "ignore_eos": True}, "stream": True}
    short = {"text": INPUTS * 10, "sampling_params": {"max_new_tokens": 1}}
    async with simulated(dialect="sglang", speed=0.5) as one:
        held = asyncio.create_task(one.client.post("/generate", json=long))
        while not one.engine or not one.engine[0].produced:
            await asyncio.sleep(0.01)
        assert (await one.client.post("/flush_cache")).status_code == 400
        found = (await one.client.post("/generate", json=short)).json()["meta_info"]["cached_tokens"]
        held.cancel()
        await asyncio.gather(held, return_exceptions=True)
        while one.engine[0].finish_reason is None:
            await asyncio.sleep(0.01)
        assert (await one.client.post("/flush_cache")).status_code == 200
        again = (await one.client.post("/generate", json=short)).json()["meta_info"]["cached_tokens"]
    assert found > 0
    assert again == 0


# -- llama.cpp


async def llamacpp(one: Simulated, path: str, **fields: Any) -> list[object]:
    # What a setting of a sampler is called is the server's business.
    return without(shapes(await one.chunks(path, stream=True, **fields)), "generation_settings")


async def test_llamacpp_streams_have_its_fields_in_its_order() -> None:
    """As captured from llama.cpp's server."""
    usage = {"include_usage": True}
    async with simulated(dialect="llamacpp") as one:
        native = await llamacpp(one, "/completion", prompt=INPUTS, n_predict=8, ignore_eos=True)
        fields = {"timings_per_token": True, "stream_options": usage, "max_tokens": 6, "ignore_eos": True}
        chat = await llamacpp(one, "/v1/chat/completions", messages=CHAT, **fields)
        plain = await llamacpp(one, "/v1/completions", prompt=INPUTS, **fields)
        fields = {"max_tokens": 5, "ignore_eos": True}
        bare = await llamacpp(one, "/v1/chat/completions", messages=CHAT, **fields)
        final = await llamacpp(one, "/v1/chat/completions", messages=CHAT, stream_options=usage, **fields)
    assert native == without(transcript("llamacpp-generate"), "generation_settings")
    assert chat == transcript("llamacpp-chat")
    assert plain == transcript("llamacpp-completions")
    assert bare == transcript("llamacpp-chat-no-usage")
    assert final == transcript("llamacpp-chat-final-usage")


async def test_llamacpp_tells_cached_tokens_and_times_at_the_end() -> None:
    async with simulated(dialect="llamacpp") as one:
        body = {"prompt": INPUTS * 10, "n_predict": 5, "ignore_eos": True, "stream": True}
        await one.chunks("/completion", **body)
        last = json.loads((await one.chunks("/completion", **body))[-1])
    engine = one.engine[1]
    assert last["stop"] is True
    assert last["stop_type"] == "limit"
    assert last["tokens_predicted"] == last["timings"]["predicted_n"] == 5
    assert last["tokens_evaluated"] == len(engine.prompt)
    assert last["timings"]["cache_n"] == engine.cached_tokens > 0
    assert last["timings"]["prompt_n"] == len(engine.prompt) - engine.cached_tokens
    decode_ms = (engine.last_token_ns - engine.first_token_ns) / 1e6
    assert last["timings"]["predicted_ms"] == pytest.approx(decode_ms, abs=0.001)


async def test_llamacpp_computes_a_prompt_whole_where_no_cache_is_wanted() -> None:
    async with simulated(dialect="llamacpp") as one:
        for wanted in (True, False, False, True):
            body = {"prompt": INPUTS * 10, "n_predict": 1, "cache_prompt": wanted}
            await one.client.post("/completion", json=body)
    assert [engine.cached_tokens > 0 for engine in one.engine] == [False, False, False, True]


async def test_llamacpp_lets_requests_wait_for_a_slot_and_ends_answers_with_the_context() -> None:
    async with simulated(dialect="llamacpp", max_num_seqs=1, max_model_len=64, speed=0.5) as one:
        assert (await one.client.get("/props")).json()["total_slots"] == 1
        body = {"prompt": [20] * 50, "n_predict": -1, "ignore_eos": True}
        first, second = await asyncio.gather(*(one.client.post("/completion", json=body) for _ in range(2)))
        refused = await one.client.post("/completion", json={"prompt": [20] * 64})
    assert first.json()["tokens_predicted"] == second.json()["tokens_predicted"] == 14
    assert one.engine[1].admitted_ns is not None
    assert one.engine[1].admitted_ns >= one.engine[0].last_token_ns
    assert refused.status_code == 400
    assert shape(refused.json()) == shape(
        json.loads((TRANSCRIPTS / "llamacpp-error-generate-too-long.sse").read_text())
    )


async def test_llamacpps_template_counts_as_its_chats_do() -> None:
    async with simulated(dialect="llamacpp") as one:
        text = (await one.client.post("/apply-template", json={"messages": CHAT})).json()["prompt"]
        tokens = (await one.client.post("/tokenize", json={"content": text, "add_special": True})).json()["tokens"]
        await one.client.post("/v1/chat/completions", json={"messages": CHAT, "max_tokens": 1})
    assert CHAT[0]["content"] in text
    assert tokens == list(one.engine[0].prompt)

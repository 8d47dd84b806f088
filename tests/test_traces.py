"""Traces with their own times: what is read, what is chosen, and what the notes say of it."""

from __future__ import annotations

import gzip
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from traces import (
    AZURE,
    BURSTGPT,
    SECOND,
    azure_file,
    mooncake_file,
    offsets_of,
    prepared,
    rows_of,
    source_of,
)

from servemark.harness.errors import BadInput
from servemark.harness.plan.arrivals import Trace
from servemark.harness.plan.replay import time_notes
from servemark.harness.plan.schedule import plan
from servemark.harness.plan.sources import SOURCES, Prepared
from servemark.harness.plan.spec import parse_workload
from servemark.harness.plan.tokens import estimate
from servemark.workloads.traces.section import TraceSource

ROOT = Path(__file__).parent.parent
DOC = ROOT / "docs" / "traces.md"
DATA = Path(os.environ.get("SERVEMARK_DATA", "/nowhere"))
GENERIC = {"time": "when", "input_tokens": "in tokens", "output_tokens": "out tokens"}


@pytest.fixture
def burstgpt(tmp_path: Path) -> Path:
    path = tmp_path / "burst.csv"
    path.write_text(
        BURSTGPT
        + "5,ChatGPT,472,18,490,Conversation log\n"
        + "45,ChatGPT,1087,230,1317,API log\n"
        + "118,GPT-4,417,276,693,Conversation log\n"
        + "120.5,ChatGPT,300,0,300,API log\n"
    )
    return path


@pytest.fixture
def gateway(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.csv"
    path.write_text(
        "id,when,in tokens,out tokens,kind,owner\n"
        "a,1700000000.25,100,10,chat,u1\n"
        "b,1700000001,200,20,api,\n"
        'c,1700000003.5,300,30.0,"chat",u1\n'
        "d,1700000004,400,40,,u2\n"
    )
    return path


# What is read


def test_times_of_the_azure_trace_of_2024_have_an_offset_and_not_always_a_fraction(tmp_path: Path) -> None:
    path = tmp_path / "week.csv"
    path.write_text(
        AZURE.replace("\r", "")
        + "2024-05-10 00:00:00.009930+00:00,2162,5\n"
        + "2024-05-10 00:00:01+00:00,2399,6\n"
        + "2024-05-10 02:00:02.5+02:00,76,15\n"
    )
    assert rows_of(prepared("azure", path)) == [(0, 2162, 5), (0.99007, 2399, 6), (2.49007, 76, 15)]


@pytest.mark.parametrize("name", ["same.csv", "packed.csv.gz"])
def test_a_gzipped_file_is_known_by_its_content(tmp_path: Path, name: str) -> None:
    plain = azure_file(tmp_path, [0, 1, 2])
    packed = tmp_path / name
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert rows_of(prepared("azure", packed)) == rows_of(prepared("azure", plain))
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(BadInput, match="the gzipped file is broken"):
        prepared("azure", packed)


def test_failed_requests_of_burstgpt_are_left_out_and_counted(burstgpt: Path) -> None:
    source = prepared("burstgpt", burstgpt)
    assert rows_of(source) == [(0, 472, 18), (40, 1087, 230), (113, 417, 276)]
    assert source.notes[:2] == ("3 of 4 rows of burst.csv are sent", "1 row left out: requests that failed")


def test_failed_requests_of_burstgpt_can_be_kept(burstgpt: Path) -> None:
    source = prepared("burstgpt", burstgpt, failed="keep")
    assert rows_of(source)[-1] == (115.5, 300, 1)
    assert "1 of 4 rows raised to 1: output of 0 tokens" in source.notes


def test_burstgpt_can_be_filtered_by_model_and_log_type(burstgpt: Path) -> None:
    chat = prepared("burstgpt", burstgpt, models="ChatGPT")
    assert [row[1] for row in rows_of(chat)] == [472, 1087]
    assert "1 row left out: of other models or log types" in chat.notes
    both = prepared("burstgpt", burstgpt, models=["ChatGPT", "GPT-4"], log_types="Conversation log")
    assert [row[1] for row in rows_of(both)] == [472, 417]
    with pytest.raises(BadInput, match=r"no row is of the prompts.models and .* but of 'ChatGPT', 'GPT-4'"):
        prepared("burstgpt", burstgpt, models="GPT-5")


def test_columns_are_found_by_name_wherever_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "burst3.csv"
    path.write_text(
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "19440110.0,1722ac82,43,GPT-4,906,446,1352,Conversation log\n"
        "19440161.0,,2,ChatGPT,36,29,65,API log\n"
    )
    assert rows_of(prepared("burstgpt", path)) == [(0, 906, 446), (51, 36, 29)]


def test_columns_of_any_csv_file_can_be_named(gateway: Path) -> None:
    source = prepared("trace", gateway, columns=GENERIC)
    assert rows_of(source) == [(0, 100, 10), (0.75, 200, 20), (3.25, 300, 30), (3.75, 400, 40)]
    assert {source.request(i).class_ for i in range(4)} == {"default"}


def test_classes_and_sessions_come_from_columns(gateway: Path) -> None:
    source = prepared("trace", gateway, columns={**GENERIC, "session": "owner"}, class_by="kind", loop=2)
    requests = [source.request(i) for i in range(8)]
    assert [each.class_ for each in requests[:4]] == ["chat", "api", "chat", "default"]
    sessions = [each.session_id for each in requests]
    assert sessions[0] == sessions[2] not in (None, sessions[3])
    assert sessions[1] is None
    assert not {*sessions[:4]} & {*sessions[4:]} - {None}, "a second pass has sessions of its own"


def test_a_column_of_names_is_no_class(tmp_path: Path) -> None:
    path = tmp_path / "many.csv"
    path.write_text("when,in tokens,out tokens,id\n" + "".join(f"{i},5,5,request {i}\n" for i in range(100)))
    with pytest.raises(BadInput, match="class_by has 101 different values; take one with 64 at most"):
        prepared("trace", path, columns=GENERIC, class_by="id")


@pytest.mark.parametrize(
    ("unit", "values", "seconds"),
    [
        ("s", ["1.5", "2"], 0.5),
        ("ms", ["1500", "2000.0"], 0.5),
        ("us", ["1.5e6", "2000000"], 0.5),
        ("ns", ["1700000000000000001", "1700000000000000003"], 2e-9),
        ("iso", ["2024-05-10T00:00:00Z", "2024-05-10 00:01:00.5"], 60.5),
    ],
)
def test_times_have_a_unit_in_csv_and_in_json(tmp_path: Path, unit: str, values: list[str], seconds: float) -> None:
    table, lines = tmp_path / "t.csv", tmp_path / "t.jsonl"
    table.write_text("when,in tokens,out tokens\n" + "".join(f"{value},1,1\n" for value in values))
    quoted = [f'"{value}"' if unit == "iso" else value for value in values]
    lines.write_text("".join(f'{{"when": {v}, "in tokens": 1, "out tokens": "1"}}\n' for v in quoted))
    for path in (table, lines):
        assert offsets_of(prepared("trace", path, columns=GENERIC, time_unit=unit)) == [0, round(seconds * SECOND)]


def test_recorded_prompts_are_sent_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(
        '{"t": 0, "text": "Hello there.", "n": 4}\n'
        '{"t": 1, "text": "Größe?\\nYes.", "n": 5}\n'
        '{"t": 2, "text": " ", "n": 5}\n'
        '{"t": 3, "text": "Hello there.", "n": 6}\n'
        '{"t": 4, "text": "Once.", "n": 7}\n'
    )
    columns = {"time": "t", "prompt": "text", "output_tokens": "n"}
    source = prepared("trace", path, columns=columns)
    assert [source.request(i).prompt for i in range(4)] == ["Hello there.", "Größe?\nYes.", "Hello there.", "Once."]
    assert [source.request(i).asked_output_tokens for i in range(4)] == [4, 5, 6, 7]
    assert "1 of 5 rows left out as unreadable: line 3: ' ' is no prompt" in source.notes
    params = source_of("trace", path, columns=columns)
    assert not params.unique
    assert [each.prompt for each in params.repeats(source)] == ["Hello there."]
    again = source_of("trace", path, columns=columns, loop=2)
    looped = prepared("trace", path, columns=columns, loop=2)
    assert [each.prompt for each in again.repeats(looped)] == ["Hello there.", "Größe?\nYes.", "Once."]


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"columns": {**GENERIC, "prompt": "text"}}, "name one of input_tokens and prompt"),
        ({"columns": {"time": "t", "output_tokens": "n"}}, "name one of input_tokens and prompt"),
        (
            {"columns": {"time": "t", "prompt": "p", "output_tokens": "n"}, "max_input_tokens": 9},
            "set `over_limit: drop`",
        ),
        ({"columns": {"time": "t", "prompt": "p", "output_tokens": "n"}, "tokens": "ids"}, "names texts"),
        ({"columns": GENERIC, "min_output_tokens": 9, "max_output_tokens": 8}, "no row is between them"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(params: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        source_of("trace", Path("x.csv"), **params)


def test_prompts_are_left_out_by_their_length(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text(f'when,text,out tokens\n1,short,2\n2,"{"long " * 400}",3\n')
    columns = {"time": "when", "prompt": "text", "output_tokens": "out tokens"}
    source = prepared("trace", path, columns=columns, max_input_tokens=100, over_limit="drop")
    assert [source.request(i).prompt for i in range(source.size or 0)] == ["short"]


# What cannot be read


def test_unreadable_rows_are_counted_and_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    good = "".join(f"2023-11-16 18:17:{i:02d},10,5\n" for i in range(8))
    bad = ",10,5\n2023-11-16 18:17:03,nan,5\n2023-13-16 18:17:03,1,5\n2023-11-16 18:17:09,-4,5\n2023-11-16 18:17,1\n"
    path.write_text(AZURE + good + bad)
    source = prepared("azure", path)
    assert source.size == 8
    assert source.notes[0] == "8 of 13 rows of t.csv are sent"
    assert source.notes[1] == (
        "5 of 13 rows left out as unreadable: line 10: '' is no timestamp such as 2023-11-16 18:17:03.9799600; "
        "line 11: nan is no number of tokens; line 12: '2023-13-16 18:17:03' is no timestamp such as 2023-11-16 "
        "18:17:03.9799600; and 2 more"
    )


@pytest.mark.parametrize("closed", [False, True])
def test_lines_that_an_open_quote_swallows_are_counted_as_rows(tmp_path: Path, closed: bool) -> None:
    rows = [f"2023-11-16 18:{i // 60:02d}:{i % 60:02d},10,5" for i in range(50)]
    rows[20] = '"' + rows[20]
    rows[29] += '"' if closed else ""
    (tmp_path / "t.csv").write_text(AZURE + "\n".join(rows) + "\n")
    left = 40 if closed else 20
    if not closed:  # 30 of 50 are more than half
        with pytest.raises(BadInput, match="30 of 50 rows cannot be read, the first in line 22: a quote is open"):
            prepared("azure", tmp_path / "t.csv")
        return
    source = prepared("azure", tmp_path / "t.csv")
    assert (source.size, source.notes[0]) == (left, "40 of 50 rows of t.csv are sent")
    assert source.notes[1] == (
        "10 of 50 rows left out as unreadable: line 22: a quote is open up to line 31; and 9 more"
    )


def test_a_recorded_prompt_may_have_several_lines(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text('when,text,out tokens\n1,"one\ntwo",2\n2,"three\n\nfour",nan\n3,five,4\n')
    columns = {"time": "when", "prompt": "text", "output_tokens": "out tokens"}
    source = prepared("trace", tmp_path / "p.csv", columns=columns)
    assert [source.request(i).prompt for i in range(source.size or 0)] == ["one\ntwo", "five"]
    assert "1 of 3 rows left out as unreadable: line 4: nan is no number of tokens" in source.notes


def test_what_a_bad_row_quotes_is_short_and_harmless(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(
        AZURE.encode() + b"2023-11-16 18:17:01,1,2\n2023-11-16 18:17:02,2,2\n2023-11-16 18:17:03,\x1b[2J\xff"
        + b"x" * 999 + b",3\n"
    )  # fmt: skip
    note = prepared("azure", path).notes[1]
    assert "line 4" in note
    assert note.isprintable()
    assert len(note) < 250


def test_a_file_that_is_mostly_unreadable_is_refused_with_its_first_line(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(AZURE + "\n2023-11-16 18:17:03,10,5\nx,1,2\ny,1,2\n")
    with pytest.raises(BadInput, match=r"t\.csv: 2 of 3 rows cannot be read, the first in line 4: 'x' is no timestamp"):
        prepared("azure", path)


def test_a_file_of_another_source_is_refused_with_the_source_that_fits(tmp_path: Path, burstgpt: Path) -> None:
    azure = azure_file(tmp_path, [0, 1])
    mooncake = mooncake_file(tmp_path, [(0, 10, 5, [0])])
    for name, path, fits in (
        ("azure", mooncake, "mooncake"),
        ("azure", burstgpt, "burstgpt"),
        ("burstgpt", azure, "azure"),
        ("mooncake", azure, "azure"),
        ("servegen", azure, "azure"),
    ):
        with pytest.raises(BadInput, match=rf"{path.name}.*; set prompts\.source to {fits} for this file"):
            prepared(name, path)
    with pytest.raises(BadInput, match=r"this is a folder; name a file, or set prompts\.source to servegen"):
        prepared("azure", tmp_path)
    with pytest.raises(BadInput, match=r"the columns when, in tokens, out tokens are needed; found TIMESTAMP"):
        prepared("trace", azure, columns=GENERIC)


# Which rows are sent, and when


def test_a_loop_shifts_the_times_on_by_the_slice_and_makes_new_prompts(tmp_path: Path) -> None:
    path = azure_file(tmp_path, [0, 1, 4, 9, 30])
    source = prepared("azure", path, slice={"start": "1s", "duration": "10s"}, loop=3)
    assert [round(at) for at, _, _ in rows_of(source)] == [0, 3, 8, 10, 13, 18, 20, 23, 28]
    assert [length for _, length, _ in rows_of(source)] == [101, 102, 103] * 3
    assert len({source.request(i).prompt for i in range(9)}) == 9
    assert source.notes[0] == "3 of 5 rows of azure.csv are sent, from 1s on, for 10s, 3 times over"


@pytest.mark.parametrize(
    ("part", "second_pass_s"),
    [
        ({}, 40),  # a mean gap of 10 s after the last row
        ({"duration": "90s"}, 40),  # the trace ends before the slice does
        ({"duration": "25s"}, 25),
        ({"duration": "25s", "rows": 2}, 20),
    ],
)
def test_without_a_length_of_its_own_a_slice_lasts_a_mean_gap_beyond_its_last_row(
    tmp_path: Path, part: dict[str, Any], second_pass_s: int
) -> None:
    path = azure_file(tmp_path, [0, 10, 20, 30])
    source = prepared("azure", path, slice=part, loop=2)
    assert source.size is not None
    assert source.offset_ns(source.size // 2) == second_pass_s * SECOND


def test_a_slice_without_a_length_cannot_be_looped(tmp_path: Path) -> None:
    path = azure_file(tmp_path, [5, 5, 8])
    with pytest.raises(BadInput, match=r"all its rows have one time; give prompts\.slice\.duration"):
        prepared("azure", path, slice={"rows": 2}, loop=2)
    assert prepared("azure", path, slice={"rows": 2}).size == 2


def test_lengths_below_a_limit_are_raised_or_left_out(tmp_path: Path) -> None:
    path = azure_file(tmp_path, [0, 1, 2], inputs=[50, 100, 150])
    raised = prepared("azure", path, min_input_tokens=100)
    assert [row[1] for row in rows_of(raised)] == [100, 100, 150]
    assert "1 of 3 rows lengthened: input below 100 tokens" in raised.notes
    dropped = prepared("azure", path, min_input_tokens=100, max_input_tokens=140, over_limit="drop")
    assert rows_of(dropped) == [(1, 100, 2)]


times = st.lists(st.floats(0, 80_000).map(lambda at: round(at, 6)), min_size=2, max_size=40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traces")


@given(times=times, start=st.integers(0, 50_000), length=st.integers(1, 80_000), loop=st.integers(1, 4))
def test_a_pass_holds_what_a_slice_holds_in_order(
    folder: Path, times: list[float], start: int, length: int, loop: int
) -> None:
    path = azure_file(folder, times)
    expected = sorted(round((at - min(times)) * 1e6) for at in times)
    inside = [at - start * 10**6 for at in expected if start * 10**6 <= at < (start + length) * 10**6]
    params = {"slice": {"start": f"{start}s", "duration": f"{length}s"}, "loop": loop}
    if not inside or (loop > 1 and len(set(inside)) == 1 and max(expected) < (start + length) * 10**6):
        with pytest.raises(BadInput):
            prepared("azure", path, **params)
        return
    offsets = [at // 1000 for at in offsets_of(prepared("azure", path, **params))]
    assert offsets[: len(inside)] == inside
    assert len(offsets) == loop * len(inside)
    assert offsets == sorted(offsets)
    shifts = {b - a for a, b in zip(offsets, offsets[len(inside) :], strict=False)}
    assert max(shifts, default=0) - min(shifts, default=0) <= 1, "every pass is the first one, moved"


@given(
    times=times.filter(lambda found: max(found) - min(found) > 1), rate=st.floats(0.01, 1000), loop=st.integers(1, 3)
)
def test_a_rate_becomes_the_mean_rate(folder: Path, times: list[float], rate: float, loop: int) -> None:
    source = prepared("azure", azure_file(folder, times), loop=loop)
    offsets = list(Trace(rate=rate).offsets_ns(0, source))
    assert offsets == sorted(offsets)
    gaps = len(times) * loop - 1
    assert (offsets[-1] - offsets[0]) / SECOND == pytest.approx(gaps / rate, rel=1e-6, abs=1e-8)


def notes(source: Prepared, load: str, run: str = "{}") -> list[str]:
    path = f"{{source: azure, path: {DATA / 'azure.csv'}}}"
    spec = parse_workload(f"version: 1\nprompts: {path}\nload: {load}\nrun: {run}\n").spec
    return list(time_notes(spec, source))


def test_notes_say_what_became_of_the_times(tmp_path: Path) -> None:
    source = prepared("azure", azure_file(tmp_path, range(0, 101, 10)))
    assert notes(source, "{arrivals: trace}") == []
    faster = "times run 2 times as fast as recorded: 0.2 requests a second in place of 0.1"
    assert notes(source, "{arrivals: trace, speed: 2}") == [faster]
    assert notes(source, "{arrivals: trace, rate: 0.2}") == [faster]
    assert notes(source, "{rate: 5}") == ["the recorded times are not used: arrivals are poisson"]
    assert notes(source, "{concurrency: 2}") == ["the recorded times are not used: arrivals are closed"]
    at_once = ["the recorded times are not used: all requests are intended at once"]
    assert notes(source, "{arrivals: trace, rate: inf}") == at_once
    cut = ["the run ends after 60s, before the last of these rows"]
    assert notes(source, "{arrivals: trace}", "{duration: 50s}") == cut
    assert notes(source, "{arrivals: trace}", "{duration: 91s}") == []
    counted = "{requests: 3, warmup: 2}"
    assert notes(source, "{arrivals: trace}", counted) == ["the run ends after 3 of these rows that count"]


def test_a_source_without_times_has_no_such_notes() -> None:
    loaded = parse_workload(
        "version: 1\nprompts: {source: synthetic, input_tokens: 9, output_tokens: 9}\nload: {rate: 1}\n"
    )
    assert list(time_notes(loaded.spec, plan(loaded, estimate("completions", "")).source)) == []


# What the reference says


def trace_sources() -> dict[str, type[TraceSource]]:
    source_of("azure", Path("x"))
    return {name: source for name, source in SOURCES.items() if issubclass(source, TraceSource)}


def test_every_example_in_the_reference_is_a_workload() -> None:
    examples = re.findall(r"```yaml\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    assert {parse_workload(example, "example.yaml").spec.prompts.source for example in examples} == set(trace_sources())


def test_the_reference_names_every_key_and_choice_of_a_trace() -> None:
    named = set(re.findall(r"`([^`\n]+)`", DOC.read_text(encoding="utf-8")))
    words: set[str] = set()

    def collect(part: Any) -> None:
        if isinstance(part, dict):
            words.update(part.get("properties", {}))
            words.update(part.get("enum", []))
            for below in part.values():
                collect(below)
        elif isinstance(part, list):
            for below in part:
                collect(below)

    for name, source in trace_sources().items():
        words.add(name)
        collect(source.model_json_schema())
    assert words - named - {"source", "tokens", "text", "ids"} == set()


@pytest.mark.skipif(not (DATA / "azure").is_dir(), reason="SERVEMARK_DATA names no folder with the published traces")
def test_the_azure_code_trace_of_2023_is_what_its_paper_says() -> None:
    source = prepared("azure", DATA / "azure" / "AzureLLMInferenceTrace_code.csv")
    found = rows_of(source)
    assert len(found) == 8819
    assert sum(row[1] or 0 for row in found) / 8819 == pytest.approx(2048, abs=1)
    assert sum(row[2] or 0 for row in found) / 8819 == pytest.approx(27.9, abs=0.1)
    assert max(row[1] or 0 for row in found) == 7437

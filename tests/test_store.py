"""A run on disk: whole, killed, redacted, on a full disk, or somebody's hostile file."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest
from synthetic_run import records, run_of, samples

from servemark.harness.clock import SECOND
from servemark.harness.errors import BadInput, ResultUnusable
from servemark.harness.figures.frame import Frame
from servemark.harness.types import Record, ServerSample
from servemark.results import schema, store, tables
from servemark.results.headline import prefix_hit_rate, server_part
from servemark.results.host import host_facts, versions
from servemark.results.recover import load
from servemark.results.store import RunStore, new_folder, new_run_id

KNOWN = {"workload": {"name": "chat", "text": "version: 1\n"}, "target": {"name": "sim"}, "simulated": True}
ENDED = {"verdict": {"valid": True, "checks": []}, "summary": {"requests": 3}, "metrics": {}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return new_folder("r1", root=tmp_path)


def filled(folder: Path, wanted: list[Record], redact: tuple[str, ...] = ()) -> RunStore:
    run = RunStore(folder, KNOWN, redact)
    for record in wanted:
        run.record(record)
    for sample in samples(3):
        run.server_sample(sample)
    return run


def test_columns_are_the_records_fields() -> None:
    assert [c.source for c in schema.COLUMNS] == [f.name for f in fields(Record)]
    assert [c.name for c in schema.COLUMNS if c.name != c.source] == ["class"]


def test_types_match_the_records_annotations() -> None:
    by_name = {f.name: str(f.type) for f in fields(Record)}
    for column in schema.COLUMNS:
        annotation = by_name[column.source]
        assert column.required == ("None" not in annotation or column.kind.startswith("list")), column
        assert annotation.startswith("int") == (column.kind == "int64"), column
        assert annotation.startswith("tuple") == column.kind.startswith("list"), column


def test_a_closed_run_reads_back_as_it_was_recorded(folder: Path) -> None:
    wanted = records(40, failures=0.2)
    filled(folder, wanted).close(ENDED)
    assert sorted(p.name for p in folder.iterdir()) == ["requests.parquet", "run.json", "server.parquet"]
    loaded = load(folder)
    assert loaded.finished
    assert list(loaded.records()) == wanted
    assert loaded.server_samples() == samples(3)
    assert loaded.run["workload"] == KNOWN["workload"]
    assert loaded.run["verdict"] == ENDED["verdict"]
    assert loaded.run["id"] == "r1"
    assert load(folder / "run.json").run == loaded.run


def test_unknown_chunk_tokens_are_null_and_come_back_as_none(folder: Path) -> None:
    one = replace(records(1, failures=0)[0], chunk_ns=(5, 9), chunk_tokens=(None, 3))
    filled(folder, [one]).close(ENDED)
    table = load(folder).table()
    assert table.column("chunk_tokens").to_pylist() == [[None, 3]]
    assert next(load(folder).records()) == one


def test_parquet_carries_types_version_and_id(folder: Path) -> None:
    filled(folder, records(3)).close(ENDED)
    found = load(folder).table().schema
    assert found.equals(schema.arrow_schema("r1"))
    assert found.metadata == {b"servemark.schema_version": b"1", b"servemark.run_id": b"r1"}
    assert not found.field("intended_ns").nullable
    assert found.field("sent_ns").nullable


def test_a_run_without_requests_or_server_metrics_is_whole_too(folder: Path) -> None:
    RunStore(folder, KNOWN).close(ENDED)
    loaded = load(folder)
    assert (loaded.table().num_rows, loaded.server_samples(), loaded.server_table()) == (0, [], None)
    assert len(loaded.frame()) == 0


@pytest.mark.parametrize("closed", [True, False])
def test_the_frame_is_the_same_from_parquet_and_from_the_journal(folder: Path, closed: bool) -> None:
    wanted = [
        replace(r, chunk_tokens=(*r.chunk_tokens[:-1], None)[: len(r.chunk_ns)]) for r in records(30, failures=0.2)
    ]
    run = filled(folder, wanted)
    run.close(ENDED) if closed else (run.flush(), run.abandon())
    found, expected = load(folder).frame(), Frame.from_records(wanted)
    assert set(found.columns) == set(expected.columns)
    for name, column in expected.columns.items():
        assert found[name].tolist() == column.tolist(), name
    assert found.chunk_ns.tolist() == expected.chunk_ns.tolist()
    assert found.chunk_tokens.tolist() == expected.chunk_tokens.tolist()
    assert found.offsets.tolist() == expected.offsets.tolist()


def test_a_store_gives_its_own_frame_and_samples_before_it_closes(folder: Path) -> None:
    run = filled(folder, records(5, failures=0))
    assert len(run.frame()) == run.recorded == 5
    assert run.server_samples() == samples(3)
    run.abandon()


def test_batches_do_not_lose_or_repeat_rows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BATCH", 7)
    filled(folder, records(30)).close(ENDED)
    assert load(folder).table().column("request_id").to_pylist() == list(range(30))


def test_infinite_and_nan_become_null_and_numpy_becomes_plain(folder: Path) -> None:
    import numpy as np

    summary = {"a": float("inf"), "b": float("nan"), "c": np.float64(2.5), "d": np.arange(2), "e": np.int64(3)}
    RunStore(folder, KNOWN).close({**ENDED, "summary": summary})
    found = json.loads((folder / "run.json").read_text(), parse_constant=lambda c: pytest.fail(c))
    assert found["summary"] == {"a": None, "b": None, "c": 2.5, "d": [0, 1], "e": 3}


def test_keys_are_written_in_the_formats_order(folder: Path) -> None:
    RunStore(folder, KNOWN).close({"zzz": 1, **ENDED})
    keys = list(json.loads((folder / "run.json").read_text()))
    assert keys == [*(k for k in schema.KEYS if k in keys), "zzz"]


def test_readings_of_replicas_keep_whose_they_are(folder: Path) -> None:
    run = RunStore(folder, {})
    told = [replace(sample, url=url) for sample in samples(2) for url in ("http://a", "http://b", None)]
    for sample in told:
        run.server_sample(sample)
    assert run.server_samples() == told
    run.close({})
    assert load(folder).server_samples() == told


def test_readings_from_before_replicas_were_told_apart_are_read(folder: Path) -> None:
    import pyarrow.parquet as pq

    filled(folder, []).close({})
    path = folder / schema.SERVER
    pq.write_table(pq.read_table(path).drop_columns(["url"]), path)
    assert load(folder).server_samples() == samples(3)


def test_a_file_from_before_a_column_was_there_is_read(folder: Path) -> None:
    import pyarrow.parquet as pq

    wanted = records(10)
    filled(folder, wanted).close({})
    path = folder / schema.REQUESTS
    pq.write_table(pq.read_table(path).drop_columns(["ready_ns"]), path)
    assert list(load(folder).records()) == [replace(record, ready_ns=None) for record in wanted]
    assert len(load(folder).frame()) == 10


# Documentation


def documented(heading: str) -> dict[str, list[str]]:
    """First cell -> the other cells of the table under a heading of docs/results.md."""
    text = (Path(__file__).parent.parent / "docs" / "results.md").read_text()
    section = re.split(r"\n##", text.split(f"\n## {heading}\n", 1)[1])[0]
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return {row[0].strip("`"): row[1:] for row in found[2:]}


def test_the_docs_name_each_column_with_its_type_and_unit() -> None:
    types = {"int64": "int64", "string": "string", "list<int64>": "list of int64", "list<int32>": "list of int32"}
    table = documented("requests.parquet")
    assert list(table) == [c.name for c in schema.COLUMNS]
    for column in schema.COLUMNS:
        kind, unit, meaning = table[column.name]
        expected = types[column.kind] + ("" if column.required else ", null")
        assert kind in (expected, f"{expected}, items null")
        assert unit == ("ns" if column.name.endswith("_ns") else "tokens" if column.name.endswith("_tokens") else "")
        assert meaning


def test_the_docs_name_each_key_and_version() -> None:
    assert tuple(documented("run.json")) == schema.KEYS
    assert list(documented("History")) == [str(v + 1) for v in range(schema.SCHEMA_VERSION)]


def test_the_docs_name_each_summary_figure_and_error() -> None:
    from servemark.harness.types import ErrorKind

    text = (Path(__file__).parent.parent / "docs" / "results.md").read_text()
    run = run_of(records(60, failures=0.1), samples())
    named = set(re.findall(r"`([a-z0-9_]+)`", text))
    for name in run["summary"]:
        latency, _, rest = name.partition("_p")
        base = name.removesuffix("_run")
        assert (
            name in named or base in named or name.startswith(("failed_", "counted_by_")) or (latency in named and rest)
        ), name
    assert set(get_args(ErrorKind)) <= named
    assert set(run) == set(schema.KEYS)


def test_server_part_is_start_end_growth_and_peaks() -> None:
    at = [ServerSample(i, {"waiting": w, "preemptions": p}) for i, (w, p) in enumerate([(0, 5), (7, 6), (2, 9)])]
    assert server_part(at) == {
        "start": {"waiting": 0, "preemptions": 5},
        "end": {"waiting": 2, "preemptions": 9},
        "delta": {"preemptions": 4},
        "max": {"waiting": 7},
        "replicas": [],
    }
    assert server_part([at[2], at[0]])["delta"] == {"preemptions": None}  # a restarted server counts from 0
    replicas = [replace(sample, url=url) for sample in at[:2] for url in ("http://a", "http://b")]
    found = server_part([*replicas, *at])
    assert found["delta"] == {"preemptions": 4}
    assert [(one["url"], one["delta"]) for one in found["replicas"]] == [
        ("http://a", {"preemptions": 1}),
        ("http://b", {"preemptions": 1}),
    ]
    assert server_part([]) == {"start": {}, "end": {}, "delta": {}, "max": {}, "replicas": []}
    assert prefix_hit_rate({"delta": {"prefix_hits": 3.0, "prefix_queries": 12.0}}) == 0.25
    assert prefix_hit_rate({"delta": {"prefix_hits": 0.0, "prefix_queries": 0.0}}) is None


# Killed runs


def test_a_killed_run_is_read_from_its_journal_and_is_invalid(folder: Path) -> None:
    wanted = records(10)
    run = filled(folder, wanted)
    run.flush()
    run.abandon()
    loaded = load(folder)
    assert not loaded.finished
    assert list(loaded.records()) == wanted
    assert loaded.server_samples() == samples(3)
    assert loaded.run["target"] == {"name": "sim"}
    assert loaded.run["verdict"]["valid"] is False
    (check,) = loaded.run["verdict"]["checks"]
    assert (check["code"], check["severity"]) == ("unfinished", "invalid")
    assert "killed" in check["message"]


def test_a_torn_last_line_is_skipped(folder: Path) -> None:
    run = filled(folder, records(4))
    run.flush()
    run.abandon()
    journal = folder / schema.JOURNAL
    journal.write_bytes(journal.read_bytes()[:-30])
    assert [r.request_id for r in load(folder).records()] == [0, 1, 2]


def test_a_run_still_going_on_is_told_from_a_killed_one(folder: Path) -> None:
    pytest.importorskip("fcntl")
    run = filled(folder, records(1))
    assert "still going on" in load(folder).run["verdict"]["checks"][0]["message"]
    run.abandon()
    assert "killed" in load(folder).run["verdict"]["checks"][0]["message"]


def test_a_kill_between_run_json_and_the_clean_up_leaves_a_finished_run(folder: Path) -> None:
    wanted = records(4)
    filled(folder, wanted).close(ENDED)
    (folder / schema.JOURNAL).write_bytes(b"{}\n")
    assert list(load(folder).records()) == wanted


def test_the_store_flushes_by_itself_within_half_a_second(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = [100 * SECOND]
    monkeypatch.setattr(store, "now_ns", lambda: at[0])
    run = RunStore(folder, KNOWN)
    journal = folder / schema.JOURNAL
    first, second, third = records(3)
    run.record(first)
    assert journal.stat().st_size == 0  # gathered, not one write per request
    at[0] += SECOND // 2
    run.record(second)
    assert journal.read_bytes().count(b"\n") == 2
    run.record(third)
    run.flush_due(at[0] + SECOND // 4)
    assert journal.read_bytes().count(b"\n") == 2
    run.flush_due(at[0] + SECOND // 2)
    assert journal.read_bytes().count(b"\n") == 3
    run.abandon()


WRITER = """
import sys, time
from pathlib import Path
from synthetic_run import records
from servemark.results.store import RunStore
run = RunStore(Path(sys.argv[1]), {})
for record in records(100_000, tokens=4, failures=0):
    run.record(record)
    print(record.request_id, time.monotonic_ns(), flush=True)
    time.sleep(0.002)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_kill_9_loses_at_most_the_last_second(folder: Path) -> None:
    writer = WRITER.replace("100_000", "2_000")
    child = subprocess.Popen(
        [sys.executable, "-c", writer, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    with child:
        assert child.stdout is not None
        ended = []
        for line in child.stdout:
            ended.append([int(word) for word in line.split()])
            if ended[-1][1] - ended[0][1] > 1.6 * SECOND:
                break
        child.kill()
        ended += [[int(word) for word in line.split()] for line in child.stdout if line.count(" ") == 1]
    last_ns = ended[-1][1]
    kept = {record.request_id for record in load(folder).records()}
    assert kept >= {index for index, at_ns in ended if at_ns <= last_ns - SECOND}
    assert kept


# Disk and folders


def test_a_full_disk_is_a_sentence_and_keeps_what_was_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = records(6)
    run = RunStore(folder, KNOWN)
    for record in wanted[:3]:
        run.record(record)
    run.flush()

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        run.record(wanted[3])
        with pytest.raises(ResultUnusable, match=r"r1: .*the disk is full.*bench show"):
            run.flush()
        assert [r.request_id for r in load(folder).records()] == [0, 1, 2]
    run.record(wanted[4])
    run.record(wanted[5])
    run.close(ENDED)
    assert list(load(folder).records()) == wanted


def test_a_write_cut_short_by_a_full_disk_is_continued_without_a_torn_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = records(3)
    run = RunStore(folder, KNOWN)
    real, calls = os.write, []

    def short(fd: int, data: bytes) -> int:
        calls.append(len(data))
        if len(calls) == 1:
            return real(fd, bytes(data[:37]))
        raise OSError(errno.ENOSPC, "No space left on device")

    for record in wanted:
        run.record(record)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", short)
        with pytest.raises(ResultUnusable):
            run.flush()
    run.flush()
    run.abandon()
    assert list(load(folder).records()) == wanted


@pytest.mark.parametrize("name", [schema.REQUESTS, schema.SERVER, schema.RUN_JSON])
def test_a_disk_that_fills_while_closing_leaves_nothing_half_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    wanted = records(5)
    run = filled(folder, wanted)
    real = store._sync

    def full(path: Path) -> None:
        if path.name == f".{name}.tmp":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path)

    with monkeypatch.context() as patched:
        patched.setattr(store, "_sync", full)
        with pytest.raises(ResultUnusable, match="the disk is full"):
            run.close(ENDED)
    assert not (folder / name).exists()
    assert not list(folder.glob(".*"))
    assert list(load(folder).records()) == wanted
    run.close(ENDED)
    assert load(folder).finished


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_is_really_full(folder: Path) -> None:
    (folder / schema.SERVER_JOURNAL).symlink_to("/dev/full")
    run = RunStore(folder, KNOWN)
    run._samples._fd = os.open("/dev/full", os.O_WRONLY)
    run.server_sample(samples(1)[0])
    with pytest.raises(ResultUnusable, match="the disk is full"):
        run.flush()
    run.abandon()


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"is not empty \(notes.txt"):
        new_folder("r1", out=tmp_path)
    assert new_folder("r1", out=tmp_path / "a" / "b").is_dir()
    with pytest.raises(BadInput, match="--out"):
        new_folder("r1", out=tmp_path / "notes.txt")


def test_two_runs_of_one_second_get_two_folders(tmp_path: Path) -> None:
    names = [new_folder("r1", root=tmp_path).name for _ in range(3)]
    assert names == ["r1", "r1-2", "r1-3"]


def test_ids_sort_by_time_and_hold_no_path() -> None:
    at = datetime(2026, 11, 20, 18, 45, 12, tzinfo=UTC)
    assert new_run_id("vllm", "chat", at) == "20261120-184512-vllm-chat"
    assert new_run_id("vllm", "../../My Load.yaml", at) == "20261120-184512-vllm-my-load.yaml"
    assert "/" not in new_run_id("a/b", "..", at)


# Secrets


def test_a_key_appears_in_no_file(folder: Path) -> None:
    key = 'sk-"quoted"\\né-12345'
    leak = replace(records(1)[0], error="http_status", error_detail=f"401 for Bearer {key}!", server_request_id=key)
    run = RunStore(
        folder, {**KNOWN, "target": {"name": "sim", "settings": {"echo": [key]}}}, (key, f"Bearer {key}", "")
    )
    run.record(leak)
    run.server_sample(ServerSample(1, {"running": 1.0}))
    run.flush()
    spellings = [key.encode(), json.dumps(key).encode()[1:-1], json.dumps(key, ensure_ascii=False).encode()[1:-1]]

    def look() -> None:
        for path in folder.iterdir():
            for spelling in spellings:
                assert spelling not in path.read_bytes(), path

    look()
    run.close({**ENDED, "workload": {"text": f"key: {key}"}})
    look()
    (found,) = load(folder).records()
    assert found.error_detail == "401 for [redacted]!"
    assert found.server_request_id == "[redacted]"
    assert load(folder).table().column("error_detail").to_pylist() == ["401 for [redacted]!"]


def test_a_key_of_digits_does_not_change_numbers(folder: Path) -> None:
    one = replace(records(1, failures=0)[0], intended_ns=1234567, error_detail="key 12345")
    run = filled(folder, [one], redact=("12345",))
    run.close(ENDED)
    (found,) = load(folder).records()
    assert (found.intended_ns, found.error_detail) == (1234567, "key [redacted]")


def test_a_key_that_is_a_word_of_ours_does_not_make_the_run_unreadable(folder: Path) -> None:
    wanted = replace(records(1)[0], phase="measured", stamp="kernel", error="reset", error_detail="measured, reset")
    run = RunStore(folder, KNOWN, redact=["measured", "kernel", "reset"])
    run.record(wanted)
    run.flush()
    assert list(load(folder).records()) == [replace(wanted, error_detail="[redacted], [redacted]")]
    run.close(ENDED)


def test_a_word_too_short_for_a_secret_leaves_text_alone(folder: Path) -> None:
    run = filled(folder, [], redact=("1",))
    run.close(ENDED)
    assert load(folder).run["workload"]["text"] == "version: 1\n"


# Files that are not ours


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"\x80\x04K\x01.", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b"[]", "no schema_version"),
        (b'{"a": 1}', "no schema_version"),
        (b'{"schema_version": "1"}', "no schema_version"),
        (b'{"schema_version": 2}', "format 2.*Update servemark"),
    ],
)
def test_a_run_json_that_is_not_ours_is_a_sentence(tmp_path: Path, body: bytes, sentence: str) -> None:
    (tmp_path / "run.json").write_bytes(body)
    with pytest.raises(ResultUnusable, match=sentence):
        load(tmp_path)


def test_a_huge_run_json_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "run.json").open("wb") as file:
        file.truncate(65 * 1024 * 1024)
    with pytest.raises(ResultUnusable, match="MB is no run of ours"):
        load(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.json")
    with pytest.raises(ResultUnusable, match="holds no run"):
        load(tmp_path)


def test_no_folder_and_no_run_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(ResultUnusable, match="no such run"):
        load(tmp_path / "nothing")
    with pytest.raises(ResultUnusable, match="holds no run"):
        load(tmp_path)


def test_parquet_that_is_not_ours_is_a_sentence(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    filled(folder, records(2)).close(ENDED)
    path = folder / schema.REQUESTS
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ResultUnusable, match=r"requests\.parquet: "):
        load(folder).table()
    pq.write_table(pa.table({"request_id": ["x"]}), path)
    with pytest.raises(ResultUnusable, match="column request_id is missing or not int64"):
        load(folder).table()
    path.unlink()
    with pytest.raises(ResultUnusable, match="is missing"):
        load(folder).table()


def test_a_row_that_is_no_request_is_a_sentence(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    filled(folder, records(2)).close(ENDED)
    table = load(folder).table()
    place = table.schema.get_field_index("error")
    table = table.set_column(place, "error", pa.array(["gremlins", None], pa.string()))
    pq.write_table(table, folder / schema.REQUESTS)
    with pytest.raises(ResultUnusable, match="no request"):
        list(load(folder).records())


def test_reading_does_not_unpickle() -> None:
    sources = "".join(p.read_text() for p in Path(store.__file__).parent.glob("*.py"))
    assert not re.search(r"\bpickle\b|\beval\(|\bexec\(", sources)


def test_host_facts_name_no_one() -> None:
    import getpass
    import platform

    facts = host_facts()
    assert facts["cores"] >= 1
    assert facts["memory_bytes"] > 1e8
    assert platform.node() not in facts.values()
    assert getpass.getuser() not in facts.values()
    assert versions()["servemark"]


def test_readers_survive_other_types_than_expected() -> None:
    run = {"a": {"b": 3}, "list": [1, {"x": 2}], "s": "t"}
    assert schema.part(run, "a", "b") == {}
    assert schema.part(run, "a") == {"b": 3}
    assert schema.part([], "a") == {}
    assert schema.items(run, "list") == [{"x": 2}]
    assert schema.items(run, "s") == []
    assert [schema.number(v) for v in (1, 2.5, True, "3", None, float("nan"), 10**400)] == [
        1.0,
        2.5,
        None,
        None,
        None,
        None,
        None,
    ]
    assert schema.text("a\x1b[31mb\nc") == "a [31mb c"
    assert schema.text("x" * 50, limit=10) == "x" * 9 + "…"

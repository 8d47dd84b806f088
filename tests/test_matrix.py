"""A matrix: each engine is started once, each cell is an ordinary run, and a second start does what the first left."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from servemark.dashboards.matrix import render_matrix, table_text
from servemark.harness.errors import BadInput, ResultUnusable, TargetUnusable
from servemark.harness.launch import keeper
from servemark.harness.launch.kept import End
from servemark.harness.matrix.cells import EngineUnderTest, cells_of, engines_of
from servemark.harness.matrix.plan import LoadedPlan, json_schema, parse_plan
from servemark.harness.matrix.sweep import Sweep, open_sweep
from servemark.harness.prepare import Asked
from servemark.results.matrix import Entry, Index, open_shelf
from tests.commands import TOLERANT, Process, Said, alive, bench, journal, run_json, started, wait_until

WAIVED = ", ".join(word for word in TOLERANT if word != "--allow")
SHORT = "common: {warmup: 0, input_tokens: 64, output_tokens: 8, requests: 8}"
PLAN = f"""\
version: 1
name: sweep
engines:
  - {{target: sim, name: small, launch: llama-3.1-8b, flags: {{speed: 20, max-num-seqs: 4}}}}
workloads: [chat]
loads: [{{concurrency: 1}}, {{concurrency: 2}}]
cool_down: 0s
{SHORT}
allow: [{WAIVED}]
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def plan(text: str) -> LoadedPlan:
    return parse_plan(text, "p.yaml", Path.cwd())


def matrix(text: str, *words: str) -> Said:
    Path("p.yaml").write_text(text)
    return bench("matrix", "p.yaml", *words)


def index(root: str = "runs/sweep") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(root, "matrix.json").read_text())
    return found


def states(root: str = "runs/sweep") -> dict[str, str]:
    return {cell["id"]: cell["state"] for cell in index(root)["cells"]}


ONE, TWO = "small_chat_concurrency=1", "small_chat_concurrency=2"


# --- the plan


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version: 2\nengines: [{target: sim}]", "p.yaml:1: version: this servemark reads version 1"),
        ("version: 1\nengines: []\nworkloads: [chat]", "p.yaml:2: engines: is empty; give it at least one"),
        ("version: 1\nworkloads: [chat]", "p.yaml:1: engines: is missing; add `engines:` (servers that are compared)"),
        (
            "version: 1\nworkloads: [chat]\nengines:\n  - {target: sim}\n  - {target: sim, lunch: x}",
            "p.yaml:5: engines[1].lunch: there is no such key; did you mean `launch`?",
        ),
        (
            "version: 1\nworkloads: [chat]\nengines: [{target: sim}]\nloads:\n  - {rates: 2}",
            "p.yaml:5: loads[0]: there is no flag 'rates' of `bench run` for it; did you mean rate?",
        ),
        (
            "version: 1\nworkloads: [chat]\nengines: [{target: sim}]\ncommon: {headers: {a: b}}",
            "p.yaml:4: common: there is no flag 'headers'",
        ),
        (
            "version: 1\nworkloads: [chat]\nengines:\n  - {target: sim, launch: m, url: http://h}",
            "p.yaml:4: engines[0].url: a launched server has no address yet",
        ),
        (
            "version: 1\nworkloads: [chat]\nengines:\n  - {target: sim, flags: {max-num-seqs: 8}}",
            "p.yaml:4: engines[0].flags: they are for an engine that is launched",
        ),
        (
            "version: 1\nworkloads: [chat]\nengines:\n  - target: sim\n    launch: m --api-key abcd1234",
            "p.yaml:5: engines[0].launch: a secret here would be copied into results",
        ),
        (
            "version: 1\nworkloads: [chat]\nengines:\n  - {target: sim, launch: m, env: {HF_TOKEN: x}}",
            "p.yaml:4: engines[0].env.HF_TOKEN: a secret here",
        ),
        (
            'version: 1\nworkloads: [chat]\nengines:\n  - {target: sim, launch: m, env: {"A=B": x}}',
            "p.yaml:4: engines[0].env.A=B: is no name of an environment variable",
        ),
        (
            'version: 1\nworkloads: [chat]\nengines:\n  - {target: sim, launch: "m \\0"}',
            "p.yaml:4: engines[0].launch holds a zero byte or half a character",
        ),
        (
            "version: 1\nworkloads: [chat]\nengines: [{target: sim}]\nscrape: 1ms",
            "p.yaml:4: scrape: is too often; give 100ms or more",
        ),
        (
            "version: 1\nworkloads: [chat]\nengines: [{target: sim}]\nrepeat: 10001",
            "p.yaml: this is 10,001 runs, and a matrix has at most 10,000",
        ),
        (
            "version: 1\nworkloads: [chat]\nengines:\n  - {target: sim, launch: m, flags: {a: [1, 2], b: [3, 4]}}\n"
            "repeat: 2501",
            "p.yaml: this is 10,004 runs, and a matrix has at most 10,000",
        ),
        (
            "version: 1\nworkloads: [chat]\nengines:\n  - {target: sim, launch: 'm \"'}",
            "p.yaml:4: engines[0].launch: 'm \"' cannot be split into words",
        ),
        (
            "version: 1\nworkloads: [chat]\nengines:\n  - {target: sim, launch: m, flags: {a: []}}",
            "p.yaml:4: engines[0].flags.a: an empty list leaves no engine",
        ),
        (
            "version: 1\nworkloads: [chat]\nengines:\n  - {target: sim, balance: fair}",
            "p.yaml:4: engines[0].balance: there is no 'fair'",
        ),
        (
            "version: 1\nworkloads: [chat]\nengines:\n  - {target: sim}\n  - {target: sim}",
            "p.yaml:5: engines[1]: is called 'sim' as engines[0] is; give it a name of its own",
        ),
        (
            "version: 1\nworkloads: [chat]\nengines: [{target: sim}]\nloads: [{rate: -3}]",
            "p.yaml: workload chat with rate=-3: --rate: a rate of -3 sends nothing",
        ),
        (
            "version: 1\nworkloads: [chat, chat.yaml]\nengines: [{target: sim}]",
            "p.yaml: two cells are called sim_chat_own-load; list each workload and each load once",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, said: str) -> None:
    found = matrix(text)
    assert found.code == 2
    assert found.err.startswith(f"bench: {said}"), found.err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("engines: [{target: nobody}]", "there is no target 'nobody'"),
        ("engines: [{target: sim}]\nallow: [nothing]", "--allow nothing: there is no such check"),
        ("engines: [{target: sim}]\ncommon: {slo: ttfx=1s}", "--slo: "),
        ("engines: [{target: sim}]\ncommon: {gate: true, slo: []}", ""),
    ],
)
def test_what_only_the_rest_of_bench_knows_is_told_before_anything_runs(line: str, said: str) -> None:
    found = matrix(f"version: 1\nworkloads: [chat]\n{line}\n")
    assert found.code == 2
    assert said in found.err
    assert not Path("runs").exists()


def test_a_plan_that_cannot_be_read_is_a_sentence() -> None:
    assert bench("matrix", "none.yaml").err == "bench: none.yaml: the plan cannot be read (No such file or directory)\n"
    Path("bytes.yaml").write_bytes(b"\xff\xfe\x00")
    assert bench("matrix", "bytes.yaml").err == "bench: bytes.yaml: the plan cannot be read (it is no text)\n"


def test_lists_among_the_flags_are_an_engine_each() -> None:
    text = """\
version: 1
workloads: [chat]
engines:
  - target: vllm
    name: v
    launch: org/model --seed 1
    flags: {max-num-seqs: [64, 128], enforce-eager: [true, false], block-size: 16, off: false, -c: 8}
  - {target: sim, url: "http://127.0.0.1:1"}
"""
    found = {engine.name: engine.words for engine in engines_of(plan(text))}
    start, end = ("org/model", "--seed", "1"), ("--block-size", "16", "-c", "8")
    assert found == {
        "v max-num-seqs=64 enforce-eager": (*start, "--max-num-seqs", "64", "--enforce-eager", *end),
        "v max-num-seqs=64": (*start, "--max-num-seqs", "64", *end),
        "v max-num-seqs=128 enforce-eager": (*start, "--max-num-seqs", "128", "--enforce-eager", *end),
        "v max-num-seqs=128": (*start, "--max-num-seqs", "128", *end),
        "sim": None,
    }


def test_cells_go_engine_by_engine_and_repeat_after_all_loads() -> None:
    text = (
        "version: 1\nworkloads: [chat, rag]\nrepeat: 2\nloads: [{rate: 2}, {}]\n"
        "engines: [{target: sim, name: a}, {target: sim, name: b}]"
    )
    ids = [cell.id for cell in cells_of(plan(text))]
    once = ["chat_rate=2", "chat_own-load", "rag_rate=2", "rag_own-load"]
    assert ids == [f"{e}_{each}{r}" for e in "ab" for r in ("", "_r2") for each in once]


def test_a_load_goes_over_what_is_common() -> None:
    text = "version: 1\nworkloads: [chat]\nengines: [{target: sim}]\ncommon: {rate: 1, drain: 5s}\nloads: [{rate: 2}]"
    (cell,) = cells_of(plan(text))
    assert (cell.load.label, dict(cell.load.flags)) == ("rate=2", {"rate": 2, "drain": "5s"})


def test_a_workload_is_found_beside_the_plan() -> None:
    Path("plans").mkdir()
    Path("plans/mine.yaml").write_text(
        "version: 1\nprompts: {source: synthetic, input_tokens: 8, output_tokens: 8}\nload: {rate: 1}\n"
    )
    text = "version: 1\nworkloads: mine.yaml\nengines: [{target: sim}]"
    (cell,) = cells_of(parse_plan(text, "plans/p.yaml", Path("plans").resolve()))
    assert cell.workload_name == "mine"


def test_a_digest_changes_with_what_is_measured_and_with_nothing_else() -> None:
    def digests(text: str) -> list[str]:
        return [cell.digest for cell in cells_of(plan(text))]

    first = digests(PLAN)
    assert len(set(first)) == 2
    for same in (("small", "other"), ("name: sweep", "name: again"), ("version: 1\n", "version: 1\nabout: why\n")):
        assert digests(PLAN.replace(*same)) == first
    for other in (("max-num-seqs: 4", "max-num-seqs: 8"), ("tokens: 64", "tokens: 65"), ("[chat]", "[rag]")):
        assert not set(digests(PLAN.replace(*other))) & set(first)


def test_the_plans_in_the_docs_are_ones() -> None:
    text = (Path(__file__).parent.parent / "docs/matrix.md").read_text()
    counts = [len(cells_of(plan(block))) for block in re.findall(r"^```yaml\n(.*?)^```", text, re.M | re.S)]
    assert counts == [2 * 1 * 2, 3 * 2 * 3 * 3]


def test_the_schema_is_that_of_the_plan() -> None:
    said = bench("schema", "matrix")
    assert json.loads(said.out) == json_schema()
    assert set(json_schema()["required"]) == {"version", "engines", "workloads"}


# --- the runs


def test_a_program_that_is_missing_is_told_before_the_first_engine_starts() -> None:
    later = PLAN.replace("workloads:", "  - {target: tgi, launch: some/model}\nworkloads:")
    said = matrix(later)
    assert (said.code, Path("runs").exists()) == (3, False)
    assert "text-generation-launcher is not installed" in said.err
    assert "4 of 4 to run" in matrix(later, "--dry-run").out  # which may be asked on another machine


def test_fields_of_the_workload_are_set_for_a_load_and_for_all() -> None:
    text = PLAN.replace("{concurrency: 2}", "{set: {load.rate: 3, load.max_concurrency: 2}}").replace(
        "common: {", "common: {set: {request.temperature: 0.5, load.rate: 9}, "
    ).replace("{concurrency: 1}", "{rate: 2}")  # fmt: skip
    one, two = cells_of(plan(text))
    assert (one.load.label, two.load.label) == ("rate=2", "load.rate=3 load.max_concurrency=2")
    assert two.load.flags["set"] == {"request.temperature": 0.5, "load.rate": 3, "load.max_concurrency": 2}
    wrong = matrix(PLAN.replace("{concurrency: 2}", "{set: {load.rats: 3}}"))
    assert "load.rats=3: --set load.rats: there is no such key; did you mean `rate`?" in wrong.err
    assert "--set: needs paths with their values" in matrix(PLAN.replace("{concurrency: 2}", "{set: 3}")).err


def test_engines_get_the_same_prompts_and_loads_get_others() -> None:
    text = PLAN.replace("max-num-seqs: 4", "max-num-seqs: [4, 8]")
    cells = cells_of(plan(text))
    salts = [cell.salted(11, 0) for cell in cells]
    assert salts[:2] == salts[2:]
    assert len({*salts, cells[0].salted(11, 1), cells[0].salted(12, 0)}) == 4
    assert all(0 <= salt < 2**63 for salt in salts)


def test_a_matrix_starts_each_engine_once_and_goes_on_where_it_stopped() -> None:
    said = matrix(PLAN)
    assert said.code == 0, said.err
    assert states() == {ONE: "valid", TWO: "valid"}
    runs = [run_json(Path("runs/sweep", cell)) for cell in (ONE, TWO)]
    assert runs[0]["target"]["launch"]["command"] == runs[1]["target"]["launch"]["command"]
    assert Path("runs/sweep/small.start.log").read_text().count("listening") == 1
    for cell, run in zip(index()["cells"], runs, strict=True):
        assert cell["figures"]["ttft_p50_ms"] == run["summary"]["ttft_p50_ms"]
        assert Path("runs/sweep", cell["folder"], "engine.log").read_text().startswith("listening")
        assert Path("runs/sweep", cell["folder"], "report.html").exists()
    assert said.out.count("VALID") == 2
    page = Path("runs/sweep/matrix.html").read_text().split("<script", 1)[0]
    assert 'href="small_chat_concurrency%3D1/report.html"' in page
    assert "SIMULATED" in page

    before = index()
    assert matrix(PLAN, "--quiet").code == 0
    assert index() == before

    # As a kill leaves it: some of the run, and no run.json.
    (Path("runs/sweep", TWO) / "run.json").unlink()
    assert "1 of 2 to run" in matrix(PLAN, "--dry-run").out
    assert matrix(PLAN, "--quiet").code == 0
    assert index()["cells"][0] == before["cells"][0]
    assert index()["cells"][1]["ended"] >= before["cells"][1]["ended"]
    assert Path("runs/sweep", f"{TWO}.earlier-1/requests.parquet").exists()
    assert Path("runs/sweep", TWO, "run.json").exists()

    more = matrix(PLAN.replace("\nloads: [", "\nloads: [{concurrency: 3}, "), "--dry-run")
    assert "1 of 3 to run" in more.out
    changed = matrix(PLAN.replace("max-num-seqs: 4", "max-num-seqs: 8"))
    assert changed.code == 2
    assert f"{ONE} and 1 more has been measured with another engine, workload or load" in changed.err


def test_an_invalid_cell_is_measured_again_only_when_asked() -> None:
    strict = PLAN.replace(SHORT, SHORT.replace("}", ", slo: 'ttft:p99=1s'}")).replace(", {concurrency: 2}", "")
    assert matrix(strict, "--quiet").code == 4  # 8 requests certify no p99
    (cell,) = index()["cells"]
    assert cell["state"] == "invalid"
    assert "sample_size" in cell["reason"]
    assert "0 of 1 to run" in matrix(strict, "--dry-run").out
    assert "1 of 1 to run" in matrix(strict, "--dry-run", "--retry-invalid").out
    assert matrix(strict, "--quiet", "--retry-invalid").code == 4
    assert sorted(path.name for path in Path("runs/sweep").glob(f"{ONE}*")) == [ONE, f"{ONE}.earlier-1"]


def test_a_launch_that_fails_costs_its_cells_only() -> None:
    broken = "engines:\n  - {target: sim, name: broken, launch: llama-3.1-8b --no-such-flag}"
    text = PLAN.replace("engines:", broken)
    said = matrix(text)
    assert said.code == 3
    assert list(states().values()) == ["failed", "failed", "valid", "valid"]
    failed = index()["cells"][0]
    assert failed["exit_code"] == 3
    assert failed["reason"].startswith("sim ended with exit status 2 before it was ready")
    assert "unrecognized arguments: --no-such-flag" in failed["reason"]
    assert "unrecognized arguments" in Path("runs/sweep/broken.start.log").read_text()
    assert said.out.count("unrecognized arguments") == 1  # once for both cells
    assert "2 of 4 to run" in matrix(text, "--dry-run").out


def test_a_server_that_runs_already_is_measured_where_it_is_or_fails() -> None:
    there = PLAN.replace("  - {target: sim, name: small", "  - {target: sim, name: gone, url: 'http://127.0.0.1:9'}\n"
                         "  - {target: sim, name: small")  # fmt: skip
    assert matrix(there, "--quiet").code == 3
    cells = index()["cells"]
    assert [cell["state"] for cell in cells] == ["failed", "failed", "valid", "valid"]
    assert "refuses connections" in cells[0]["reason"]


LONG_FIRST = PLAN.replace("requests: 8", "drain: 1s").replace(
    "[{concurrency: 1}, {concurrency: 2}]", "[{concurrency: 1, duration: 300s}, {concurrency: 2, requests: 8}]"
)
FIRST = "small_chat_concurrency=1-duration=300s"
SECOND = "small_chat_concurrency=2-requests=8"


def under_way(process: Process) -> list[int]:
    wait_until(lambda: len(journal(Path("runs/sweep", FIRST))) >= 4, "the first cell's requests have ended")
    return keeper.tree_of(process.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_an_interrupt_ends_the_cell_and_the_matrix_which_can_go_on() -> None:
    Path("p.yaml").write_text(LONG_FIRST)
    with started("matrix", "p.yaml", "--quiet") as process:
        processes = under_way(process)
        process.signal(signal.SIGINT)
        said = process.end()
    assert said.code == 4, said.err
    assert "2 of 2 are left, and the same command goes on with them" in said.out
    assert states() == {FIRST: "interrupted", SECOND: "pending"}
    assert not any(map(alive, processes))
    assert len(open_sweep(plan(LONG_FIRST), None).to_do) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_an_engine_that_dies_in_a_cell_is_started_again_for_the_next() -> None:
    Path("p.yaml").write_text(LONG_FIRST)
    with started("matrix", "p.yaml", "--quiet") as process:
        (engine,) = [pid for pid in under_way(process) if b"adapters.sim" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(engine, signal.SIGKILL)
        said = process.end()
    assert said.code == 4, said.err
    assert states() == {FIRST: "invalid", SECOND: "valid"}
    assert "engine_died: The engine was ended by signal 9" in index()["cells"][0]["reason"]
    commands = {run_json(Path("runs/sweep", cell))["target"]["launch"]["command"] for cell in (FIRST, SECOND)}
    assert len(commands) == 2  # each start has a port of its own


def test_an_engine_that_dies_before_each_cell_costs_a_start_for_each_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sweep, starts = open_sweep(plan(PLAN), None, quiet=True), []

    @contextlib.contextmanager
    def running(self: Sweep, engine: EngineUnderTest) -> Iterator[Any]:
        starts.append(engine.name)
        yield SimpleNamespace(process=SimpleNamespace(end=End(1)))

    def measured(asked: Asked, engine: Any) -> None:
        raise TargetUnusable("sim ended with exit status 1 before the load")

    monkeypatch.setattr(Sweep, "_running", running)
    monkeypatch.setattr("servemark.harness.matrix.sweep.measure", measured)
    sweep.carry_out()
    assert (starts, set(states().values())) == (["small", "small"], {"failed"})


def test_a_run_that_the_index_does_not_know_is_not_taken_for_another() -> None:
    found = matrix(PLAN.replace("requests: 8", "requests: 2"), "--quiet")
    assert found.code in (0, 4), found.err
    Path("runs/sweep/matrix.json").unlink()
    said = bench("matrix", "p.yaml")
    assert said.code == 2
    assert "holds a run, and runs/sweep/matrix.json, which would say of what, does not know it" in said.err


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_kill_9_leaves_no_process_and_an_index_to_go_on_from() -> None:
    Path("p.yaml").write_text(LONG_FIRST)
    with started("matrix", "p.yaml", "--quiet") as process:
        processes = under_way(process)
        process.signal(signal.SIGKILL)
        process.end()
    wait_until(lambda: not any(map(alive, processes)), "all of its processes have ended")
    assert states() == {FIRST: "pending", SECOND: "pending"}
    assert len(open_sweep(plan(LONG_FIRST), None).to_do) == 2


def test_two_at_once_do_not_write_over_each_other() -> None:
    Path("runs/sweep").mkdir(parents=True)
    with open("runs/sweep/.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = matrix(PLAN)
    assert said.code == 2
    assert "another `bench matrix` is at work here" in said.err


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"name": 3}', "nonsense", '{"name": "a", "schema_version": 99}'])
def test_an_index_that_is_none_is_a_sentence(body: str) -> None:
    Path("matrix.json").write_text(body)
    with pytest.raises(ResultUnusable, match=r"is no index of ours|update servemark"):
        open_shelf(Path())


# --- what people see


def entry(name: str, **facts: Any) -> Entry:
    known = {"id": name, "engine": "e", "workload": "chat", "load": "rate=2", "repeat": 1, "digest": "d"}
    return Entry(**(known | facts))


def test_the_table_and_the_page_hold_every_state_and_nothing_that_is_code() -> None:
    figures: dict[str, float | None] = {"output_tps": 1234.0, "ttft_p50_ms": 12.3, "tpot_p50_ms": None}
    cells = [
        entry("a", state="valid", folder="a", figures={**figures, "ttft_p99_ms": 45.6}, uncertain=["ttft_p99_ms"]),
        entry("b", state="invalid", folder="b", reason="x: <script>alert(1)</script>", engine="<b>e</b>"),
        entry("c", state="failed", reason="did not start; its log:\n  line\n  \x1b[31mlast line"),
        entry("d", repeat=2),
        entry("e", state="interrupted", folder="javascript:alert(1)"),
    ]
    found = Index(name="<i>n</i>", cells=cells, plan={"text": "</script><b>"}).to_json()
    table = table_text(found)
    assert all(word in table for word in ("VALID", "INVALID", "FAILED", "to run", "CUT SHORT", "1,234", "12.3", "#2"))
    assert "did not start; its log: " in table
    assert "~45.6" in table
    assert "~ too few requests to certify this percentile" in table
    assert "last line" in table
    assert "\x1b" not in table
    page = render_matrix(found)
    shown, _, script = page.partition('<script type="application/json"')
    assert not any(code in shown for code in ("<script>alert", "<b>e", "<i>n", 'href="javascript:'))
    assert "12.3" in script.partition("</script>")[0]
    assert "1 CUT SHORT" in " ".join(shown.split())


def test_plans_that_are_wrong_in_two_places_tell_both() -> None:
    with pytest.raises(BadInput) as caught:
        plan("version: 1\nengines: [{target: 3}]\nworkloads: [chat]\nrepeat: 0\n")
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()] == ["p.yaml:2", "p.yaml:4"]


def test_a_cell_shows_how_many_requests_met_the_slo() -> None:
    cells = [
        {"engine": "a", "workload": "chat", "load": "rate=2", "state": "valid", "figures": {"goodput_share": 0.163}},
        {"engine": "a", "workload": "rag", "load": "rate=2", "state": "valid", "figures": {"output_tps": 7.0}},
    ]
    head, with_slo, without = table_text({"cells": cells}).splitlines()[-3:]
    assert head.endswith("SLO met")
    assert with_slo.endswith("16.3 %")
    assert without.endswith("–")

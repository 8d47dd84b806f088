"""A sweep: points from flags, each an ordinary run with prompts of its own, on one page with the knee named."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from servemark.adapters.sim.launch import launch
from servemark.adapters.sim.options import SimOptions
from servemark.dashboards.classes import rows as class_rows
from servemark.dashboards.panels import PANELS, Data
from servemark.dashboards.replicas import replicas
from servemark.dashboards.sweep import render_sweep, table_text
from servemark.harness.figures.frame import Frame
from servemark.harness.launch import keeper
from servemark.harness.matrix import rest
from servemark.harness.matrix.cells import cells_of
from servemark.harness.matrix.plan import parse_plan
from servemark.harness.matrix.values import Over, combined, parse_over, spread
from servemark.harness.server.discovery import load_adapter
from servemark.harness.server.scrape import Access
from servemark.results.curves import axis_of, curves, too_high
from tests.commands import TOLERANT, Said, alive, bench, check, journal, run_json, started, wait_until

SHORT = ("--warmup", "0", "--input-tokens", "64", "--output-tokens", "8", "--cool-down", "0s", *TOLERANT)
FAST = ("--launch", "llama-3.1-8b --speed 20")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """With a prefix cache, as servers have one."""
    with launch(SimOptions(speed=20)) as running:
        yield running.url


def sweep(*words: str) -> Said:
    return bench("sweep", "--target", "sim", *words)


def index(root: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(root, "sweep.json").read_text())
    return found


# --- what --over says


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,2,4", [1, 2, 4]),
        (" 1 , 2 ", [1, 2]),
        ("1..4", [1, 2, 3, 4]),
        ("1..10+3", [1, 4, 7, 10]),
        ("1..9+3", [1, 4, 7]),
        ("0.1..0.5+0.1", [0.1, 0.2, 0.3, 0.4, 0.5]),
        ("1..64x2", [1, 2, 4, 8, 16, 32, 64]),
        ("1..100x10", [1, 10, 100]),
        ("1..3x1.5", [1, 1.5, 2.25]),
        ("10s..60s+20s", ["10s", "30s", "50s"]),
        ("1s..9s+4", ["1s", "5s", "9s"]),
        ("250ms..1000msx2", ["250ms", "500ms", "1000ms"]),
        ("1..2,4..16x2,30", [1, 2, 4, 8, 16, 30]),
        ("0.5,inf", [0.5, "inf"]),
        ("lognormal(1000, p95=3000),512", ["lognormal(1000, p95=3000)", 512]),
        ("{distribution: uniform, min: 1, max: 2},7", [{"distribution": "uniform", "min": 1, "max": 2}, 7]),
        ("[ttft=1s, tpot=50ms],[ttft=2s]", [["ttft=1s", "tpot=50ms"], ["ttft=2s"]]),
        ("'a,b',c", ["a,b", "c"]),
        ("it's,yes", ["it's", "yes"]),
        ("../a..b.csv,c", ["../a..b.csv", "c"]),
    ],
)
def test_values_are_lists_steps_and_factors(text: str, values: list[Any]) -> None:
    assert list(spread(text)) == values


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("5..1", "leads downwards; write the lower end first"),
        ("1..4+0", "never comes to its end; give a step above 0"),
        ("1..4x1", "never comes to its end"),
        ("0..4x2", "a factor above 1 from above 0 on"),
        ("1...4", "'1...4' is no range; write 1..8, 1..8+2 in steps of 2, or 1..64x2"),
        ("1..b", "is no range"),
        ("1..8*2", "is no range"),
        ("1s..2m", "has several units; write its ends and its step in one"),
        ("1s..9s+2m", "has several units"),
        ("1,,2", "between two commas there is no value"),
        ("", "between two commas there is no value"),
        ("1,2,2.0", "2.0 stands there twice; keep one of them"),
        ("1..4,3", "3 stands there twice"),
        ("uniform(1,2", "lacks a ')'"),
        ("'a", 'lacks a "\'"'),
        ("{a", "lacks a '}'"),
        ("1..5000", "these are more than 1,000 values; take larger steps"),
        ("1..2x1.0001", "these are more than 1,000 values"),
    ],
)
def test_values_that_make_no_sense_are_a_sentence(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        list(spread(text))


VALUES = st.one_of(
    st.integers(0, 10**6),
    st.sampled_from(["inf", "60s", "uniform(1, 2)", "lognormal(10, p95=30)", "cold", "a,b", "it's", "1..4", "{x"]),
    st.lists(st.integers(0, 9), max_size=3),
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 9), max_size=3),
)


@given(st.lists(VALUES, min_size=1, max_size=6, unique_by=repr))
def test_values_come_back_as_they_were_written(values: list[Any]) -> None:
    assert list(spread(",".join(json.dumps(value) for value in values))) == values


@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 50), st.sampled_from([1, 10, 100]))
def test_steps_are_exact(start: int, more: int, step: int, scale: int) -> None:
    def written(number: int) -> str:
        return f"{number / scale:.2f}"

    found = [Fraction(str(value)) for value in spread(f"{written(start)}..{written(start + more)}+{written(step)}")]
    assert found == [Fraction(number, scale) for number in range(start, start + more + 1, step)]


@given(st.integers(1, 50), st.integers(2, 10), st.integers(0, 5))
def test_factors_are_exact_and_end_where_the_range_does(start: int, factor: int, count: int) -> None:
    expected = [start * factor**k for k in range(count + 1)]
    assert list(spread(f"{start}..{expected[-1]}x{factor}")) == expected
    assert list(spread(f"{start}..{expected[-1] * factor - 1}x{factor}")) == expected


def test_names_are_flags_or_paths() -> None:
    spellings = {"max-concurrency": "concurrency", "input-tokens": "input_tokens"}
    assert parse_over("max-concurrency=1", spellings) == Over("concurrency", (1,))
    assert parse_over("--input-tokens=1", spellings) == Over("input_tokens", (1,))
    assert parse_over("load.max_concurrency=1,2", {}) == Over("load.max_concurrency", (1, 2), placed=True)
    loads = combined([Over("rate", (1, 2)), Over("a.b", (3, 4), True), Over("c[0]", (5,), True)])
    assert loads == [{"rate": r, "set": {"a.b": b, "c[0]": 5}} for r in (1, 2) for b in (3, 4)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--over", "rate"], "--over rate: needs a name and its values, as --over rate=1,2,4"),
        (["--over", "rats=1"], "--over rats: there is no such flag to sweep over; did you mean rate?"),
        (["--over", "headers=1"], "--over headers: there is no such flag to sweep over"),
        (["--over", "rate=2..1"], "--over rate: '2..1' leads downwards"),
        (["--over", "rate=1", "--rate", "3"], "--over rate: --rate gives it one value; leave one of the two out"),
        (["--over", "rate=1", "--over", "rate=2"], "--over rate: is given twice; give all of its values in one"),
        (["--over", "load.rate=1", "--set", "load.rate=3"], "--over load.rate: --set gives it one value"),
        (["--over", "rate=1,-3"], "sweep: workload chat with rate=-3: --rate: a rate of -3 sends nothing"),
        (["--over", "load.x=1"], "sweep: workload chat with load.x=1: --over load.x: there is no such key"),
        (["--over", "rate=1..1000", "--over", "seed=1..11"], "--over: these are more than 10,000 combinations"),
        (["--over", "rate=1", "--repeat", "10001"], "'--repeat'"),
        (["--over", "rate=1", "--cool-down", "5"], "--cool-down: 5 has no unit; write 5s or 5ms"),
        (["--over", "seed=1", "--until-missed"], "--until-missed is for a sweep over a load"),
        (["--over", "rate=1", "--allow", "nothing"], "--allow nothing: there is no such check"),
        (["--over", "rate=1", "--api-key-env", "SERVEMARK_NOT_SET"], "SERVEMARK_NOT_SET (--api-key-env) is not set"),
        (["--over", "rate=1", "--url", "http://a", "--launch", "m"], "--launch starts a server and --url names one"),
    ],
)
def test_a_mistake_is_told_before_anything_runs(words: list[str], said: str) -> None:
    found = sweep(*words)
    assert found.code == 2
    assert said in found.err
    assert not Path("runs").exists()


def test_until_missed_needs_objectives() -> None:
    Path("w.yaml").write_text(
        "version: 1\nprompts: {source: synthetic, input_tokens: 8, output_tokens: 8}\nload: {rate: 1}\n"
    )
    found = sweep("--workload", "w.yaml", "--over", "rate=1,2", "--until-missed")
    assert "--until-missed needs objectives; give them with --slo" in found.err


def test_a_program_that_is_missing_is_told_before_anything_starts() -> None:
    found = bench("sweep", "--target", "tgi", "--launch", "some/model", "--over", "rate=1,2")
    assert (found.code, Path("runs").exists()) == (3, False)
    assert "text-generation-launcher is not installed" in found.err


# --- the runs


def test_a_sweep_goes_through_its_points_and_on_where_it_stopped() -> None:
    words = ("--over", "concurrency=1,4,16", *FAST, "--requests", "80", "--slo", "ttft=2s", *SHORT)
    said = sweep(*words)
    assert said.code == 0, said.err
    root = "runs/sim_chat_concurrency"
    cells = index(root)["cells"]
    assert [(cell["state"], cell["settings"]) for cell in cells] == [("valid", {"concurrency": n}) for n in (1, 4, 16)]
    assert Path(root, "sim.start.log").read_text().count("listening") == 1  # one server for all points
    marks = [line.split()[0] for line in said.out.splitlines() if line.startswith("VALID")]
    assert marks == ["VALID*"] * 3  # over at once
    assert re.search(r"^VALID\* +4 ", said.out, re.M)
    assert re.search(r"^  no knee: .* steady throughput; left out", said.out, re.M)
    assert "~ too few requests to certify this percentile" in said.out  # 80 are none too many for p99
    page = Path(root, "sweep.html").read_text()
    shown = page.partition("<script")[0]
    assert 'href="sim_chat_concurrency%3D4/report.html"' in shown
    assert all(word in shown for word in ("SIMULATED", "Throughput against latency", "nee"))
    figures = json.loads(re.search(r'<script type="application/json" id="figures">(.*?)</script>', page)[1])  # type: ignore[index]
    titles = {(f["layout"]["xaxis"]["title"]["text"], f["layout"]["yaxis"]["title"]["text"]) for f in figures.values()}
    assert titles == {
        ("output tok/s", "TTFT p99, ms"),
        ("output tok/s", "TPOT p50, ms"),
        ("offered: concurrency", "goodput, req/s"),
        ("tok/s per user: 1 / TPOT p50", "output tok/s per GPU"),
    }

    before = index(root)
    again = sweep(*words)
    assert again.code == 0
    assert "3 of 3 runs were made before and stand as they are" in again.err
    assert index(root) == before

    (Path(root, "sim_chat_concurrency=4") / "run.json").unlink()  # as a kill leaves it
    assert "1 of 3 to run" in sweep(*words, "--dry-run").out
    assert sweep(*words, "--quiet").code == 0
    cells = index(root)["cells"]
    assert cells[0] == before["cells"][0]
    assert Path(root, "sim_chat_concurrency=4.earlier-1").is_dir()
    salts = [run_json(Path(root, cell["id"]))["schedule"]["seeds"]["salt"] for cell in cells]
    assert len({*salts, index(root)["salt"]}) == 4

    wider = [word.replace("1,4,16", "1,2,4,16") for word in words]
    assert "1 of 4 to run" in sweep(*wider, "--dry-run").out
    other = [word.replace("80", "90") for word in words]
    refused = sweep(*other)
    assert refused.code == 2
    assert "has been measured with another engine, workload or load of this name; give another folder" in refused.err


def test_requests_too_few_for_their_clients_are_told_before_and_marked_after() -> None:
    said = sweep("--over", "concurrency=1,8", *FAST, "--requests", "20", *SHORT)
    assert said.code == 0, said.err
    warned, _, rest = said.err.partition("launching sim")
    assert "20 requests are fewer than 5 for each client at concurrency 8:" in " ".join(warned.split())
    assert rest
    of_eight = index("runs/sim_chat_concurrency")["cells"][1]
    assert [each.partition(":")[0] for each in of_eight["unsteady"]] == ["short_run", "sample_size"]
    assert "output_tps" in of_eight["uncertain"]


def test_no_point_meets_the_prompts_of_another_though_their_seed_is_fixed(server: str) -> None:
    fixed = ("--url", server, "--seed", "7", "--requests", "30", "--concurrency", "4", *SHORT)
    without = [word for word in fixed if word not in ("--cool-down", "0s")]
    for name in ("first", "second"):  # what a sweep without salts would be
        bench("run", "--target", "sim", "--quiet", "--out", name, *without)
    assert check(run_json(Path("second")), "prefix_cache") == "invalid"

    swept = [word for word in fixed if word not in ("--concurrency", "4")]
    assert sweep("--over", "concurrency=2,4,8", "--repeat", "2", "--quiet", *swept).code == 0
    cells = index("runs/sim_chat_concurrency")["cells"]
    assert [cell["repeat"] for cell in cells] == [1, 1, 1, 2, 2, 2]  # all points, and then all again
    runs = [run_json(Path("runs/sim_chat_concurrency", cell["id"])) for cell in cells]
    assert [check(run, "prefix_cache") for run in runs] == ["pass"] * 6
    assert {run["schedule"]["seeds"]["prompts"] for run in runs} == {7}
    assert len({run["schedule"]["seeds"]["salt"] for run in runs}) == 6


def test_a_salt_of_the_users_own_makes_a_sweep_that_can_be_made_again() -> None:
    words = ("--over", "concurrency=1,2", "--requests", "4", "--seed", "7", "--set", "run.seeds.salt=5", *SHORT)
    for out in ("a", "b"):
        sweep(*words, "--quiet", "--out", out)
    hashes = {
        out: [run_json(Path(out, cell["id"]))["schedule"]["hash"] for cell in index(out)["cells"]] for out in "ab"
    }
    assert hashes["a"] == hashes["b"]
    assert len(set(hashes["a"])) == 2


def test_fields_and_flags_are_swept_together_and_a_plan_says_the_same() -> None:
    words = ("--over", "load.max_concurrency=2,3", "--over", "input-tokens=uniform(10, 20),32", "--rate", "50")
    words = (*words, "--set", "prompts.output_tokens=4", "--duration", "1s", "--warmup", "0s", "--dry-run", "--json")
    found = json.loads(sweep(*words).out)
    assert [cell["settings"] for cell in found["cells"]] == [
        {"load.max_concurrency": n, "input_tokens": tokens} for n in (2, 3) for tokens in ("uniform(10, 20)", 32)
    ]
    plan = parse_plan(found["plan"]["text"], "p.yaml", Path.cwd())
    cells = cells_of(plan)
    assert [cell.id for cell in cells] == [cell["id"] for cell in found["cells"]]
    assert [cell.digest for cell in cells] == [cell["digest"] for cell in found["cells"]]
    assert cells[0].load.flags["set"] == {"prompts.output_tokens": 4, "load.max_concurrency": 2}


def test_secrets_of_the_command_line_stay_out_of_the_index(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "key-very-secret")
    words = ("--over", "concurrency=1,2", "--requests", "3", "--header", "X-Pass: header-very-secret", *SHORT)
    sweep(*words, "--url", server, "--api-key-env", "MY_KEY", "--quiet")
    files = [path for path in Path("runs").rglob("*") if path.is_file()]
    assert {"sweep.json", "run.json", "sweep.html"} <= {path.name for path in files}
    assert not [path for path in files if b"very-secret" in path.read_bytes()]
    assert "X-Pass" in Path("runs/sim_chat_concurrency/sim_chat_concurrency=1/run.json").read_text()
    launched = sweep(
        "--launch", "m --api-key launch-very-secret", "--over", "rate=1", "--dry-run", "--json", "--out", "x"
    )
    assert "very-secret" not in launched.out
    assert yaml.safe_load(json.loads(launched.out)["plan"]["text"])["engines"][0]["launch"] == "m --api-key '(hidden)'"


def test_several_replicas_are_swept_as_one(server: str) -> None:
    with launch(SimOptions(speed=20)) as other:
        words = ("--url", server, "--url", other.url, "--over", "concurrency=2,4", "--requests", "20", *SHORT)
        assert sweep(*words, "--quiet", "--allow", "replicas_uneven").code == 0
    run = run_json(Path("runs/sim_chat_concurrency/sim_chat_concurrency=4"))
    assert [replica["url"] for replica in run["target"]["replicas"]] == [server, other.url]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_an_interrupt_ends_the_sweep_which_can_go_on() -> None:
    words = ("sweep", "--target", "sim", *FAST, "--over", "concurrency=1,2", "--duration", "300s", "--drain", "1s")
    with started(*words, *SHORT, "--quiet") as process:
        first = Path("runs/sim_chat_concurrency/sim_chat_concurrency=1")
        wait_until(lambda: len(journal(first)) >= 4, "the first point's requests have ended")
        processes = keeper.tree_of(process.pid)
        process.signal(signal.SIGINT)
        said = process.end()
    assert said.code == 4, said.err
    assert "2 of 2 are left, and the same command goes on with them" in said.out
    assert [cell["state"] for cell in index("runs/sim_chat_concurrency")["cells"]] == ["interrupted", "pending"]
    assert not any(map(alive, processes))


def test_loads_above_two_that_miss_the_slo_are_skipped() -> None:
    words = ("--over", "concurrency=1,2,3,4", *FAST, "--requests", "20", "--slo", "ttft=0.001ms", *SHORT)
    said = sweep(*words, "--until-missed", "--repeat", "2", "--quiet")
    assert said.code == 0, said.err
    cells = index("runs/sim_chat_concurrency")["cells"]
    assert [cell["state"] for cell in cells] == [*["valid"] * 2, *["skipped"] * 2] * 2
    assert said.out.count("skipped") == 2
    assert "0 of 8 to run" in sweep(*words, "--until-missed", "--repeat", "2", "--dry-run").out
    assert "4 of 8 to run" in sweep(*words, "--repeat", "2", "--dry-run").out  # without the flag they are wanted


# --- between the runs


class Metrics:
    """What a server says each time that it is asked, the last word again and again."""

    def __init__(self, *running: float) -> None:
        self.left = list(running)

    def __call__(self, *_: object) -> tuple[float, float] | None:
        now = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        return (now, 0.0) if now else None


@pytest.mark.parametrize(
    ("running", "most_s", "said"),
    [
        ((0,), 60, None),
        ((3, 1, 0), 60, None),
        ((2,), 0.05, "the server still has 2 requests running and 0 waiting after 0.05 s"),
    ],
)
def test_a_server_is_waited_for_until_it_is_at_rest_but_not_for_ever(
    running: tuple[float, ...], most_s: float, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Metrics(*running)
    monkeypatch.setattr(rest, "_at_work", metrics)
    monkeypatch.setattr(rest, "_LOOK_S", 0.02)
    assert rest.rested(load_adapter("sim"), Access(("http://127.0.0.1:9",)), (), 0.0, most_s) == said
    assert len(metrics.left) == 1


def test_a_server_that_tells_nothing_is_not_waited_for(server: str) -> None:
    sim = load_adapter("sim")
    assert rest.rested(sim, Access((server,)), (), 0.0) is None
    assert rest.rested(sim, Access(("http://127.0.0.1:9",)), (), 0.0) is None
    assert rest.rested(load_adapter("openai"), Access((server,)), (), 0.0) is None


# --- what people see


def cell(load: float, state: str = "valid", tps: float = 0, ms: float = 1, **facts: Any) -> dict[str, Any]:
    figures = {"output_tps": tps, "e2e_mean_ms": ms, "ttft_p99_ms": 310.0, "tpot_p50_ms": 9.0, "goodput": load}
    known = {"id": f"p{load:g}", "engine": "e", "workload": "chat", "load": f"rate={load:g}", "folder": f"p{load:g}"}
    return {**known, "settings": {"rate": load}, "repeat": 1, "state": state, "figures": figures, **facts}


CELLS = [cell(1, tps=50, ms=100), cell(4, tps=200, ms=110), cell(8, tps=412, ms=150), cell(16, tps=420, ms=900)]


def test_the_knee_is_named_with_what_is_reached_there() -> None:
    assert "  knee at rate 8: 412 tok/s at TTFT p99 310 ms (by these loads between 4 and 16)" in table_text(
        {"kind": "sweep", "cells": CELLS}
    )
    page = render_sweep({"kind": "sweep", "cells": CELLS})
    assert "Knee at rate 8: 412 tok/s at TTFT p99 310 ms" in page.partition("<script")[0]


def test_a_percentile_that_is_not_certified_is_marked() -> None:
    cells = [*CELLS[:2], {**CELLS[2], "uncertain": ["ttft_p99_ms"]}, CELLS[3]]
    table = table_text({"kind": "sweep", "cells": cells})
    assert "at TTFT p99 ~310 ms" in table
    assert [line.count("~") for line in table.splitlines() if line.startswith("VALID")] == [0, 0, 1, 0]
    assert "~8" in render_sweep({"kind": "sweep", "cells": cells})  # beside its point in the chart


def test_parts_of_a_run_are_marked_as_the_run_is() -> None:
    metrics = {"ttft": {"n": 9, "p50": 1.0, "p99": 2.0, "certified": []}}
    groups = [{"by": {"url": "http://a"}, "metrics": metrics}, {"by": {"class": "rag"}, "metrics": metrics}]
    assert replicas({"groups": groups})[0][2:4] == ("1.00", "~2.00")
    assert class_rows({"groups": groups})[0][2:4] == ("1.00", "~2.00")
    panel = PANELS["groups"](Data({"groups": groups}, Frame.from_records([])))
    assert panel is not None
    assert [cell.text for cell in panel.parts[0].rows[0][2:4]] == ["1.00", "~2.00"]  # type: ignore[union-attr]


def test_latencies_far_apart_are_shown_on_a_logarithmic_axis() -> None:
    def scales(cells: list[dict[str, Any]]) -> set[str | None]:
        figures = render_sweep({"cells": cells}).partition('id="figures">')[2].partition("</script>")[0]
        return {figure["layout"]["yaxis"].get("type") for figure in json.loads(figures).values()}

    far = {**CELLS[3], "figures": {**CELLS[3]["figures"], "ttft_p99_ms": 31_000.0}}
    assert scales(CELLS) == {None}
    assert scales([*CELLS[:3], far]) == {None, "log"}


def test_points_that_do_not_count_are_drawn_apart_and_make_no_knee() -> None:
    late = cell(16, "invalid", 5000, 1, reason="overloaded: x", codes=["overloaded"])
    cells = [*CELLS[:3], late]
    (curve,) = curves(cells)
    assert curve.knee is not None
    assert (curve.knee.load, curve.knee.overload) == (8, 16)
    assert "16 overloads the server" in table_text({"cells": cells})
    figures = render_sweep({"cells": cells}).partition('id="figures">')[2].partition("</script>")[0]
    for figure in json.loads(figures).values():
        by_name = {trace["name"]: trace for trace in figure["data"]}
        assert len(by_name["INVALID"]["x"]) == 1
        assert by_name["INVALID"]["mode"] == "markers"
        assert all(5000.0 not in [*t["x"], *t["y"]] for name, t in by_name.items() if name != "INVALID")
    (other,) = curves([*CELLS[:3], {**late, "codes": ["client_lag"]}])
    assert other.knee is not None
    assert other.knee.kind == "above"  # the client's fault says nothing of the server


def test_repetitions_are_one_point_of_the_median_of_the_valid_ones() -> None:
    again = [cell(8, tps=tps, ms=150, id=f"r{tps}", repeat=n) for n, tps in enumerate((430, 400, 9), start=2)]
    cells = [*CELLS, *again[:2], {**again[2], "state": "invalid"}]
    (curve,) = curves(cells)
    point = curve.points[2]
    assert (point.load, len(point.cells), point.figure("output_tps")) == (8, 4, 412)
    assert "3/4 VALID" in table_text({"cells": cells})
    assert "Each run with its own report." in render_sweep({"cells": cells})


def test_each_setting_beside_the_load_is_a_curve_of_its_own() -> None:
    cells = [
        {
            **each,
            "settings": {"rate": each["settings"]["rate"], "input_tokens": tokens},
            "load": f"{each['load']} {tokens}",
        }
        for tokens in (10, 20)
        for each in CELLS
    ]
    found = curves(cells)
    assert [(curve.others, curve.axis, len(curve.points)) for curve in found] == [
        ("input_tokens=10", "rate", 4),
        ("input_tokens=20", "rate", 4),
    ]
    assert table_text({"cells": cells}).count("knee at rate 8") == 2


@pytest.mark.parametrize(
    ("settings", "axis"),
    [
        ({"rate": 2, "concurrency": 8}, "rate"),
        ({"concurrency": 8, "rate": "inf"}, "concurrency"),
        ({"input_tokens": 8, "load.max_concurrency": 4}, "load.max_concurrency"),
        ({"rate": "8/s"}, "rate"),
        ({"input_tokens": 8, "output_tokens": 4}, "output_tokens"),
        ({"cache": "cold"}, None),
        ({"gate": True}, None),
        ({}, None),
    ],
)
def test_the_load_is_what_a_curve_goes_over(settings: dict[str, Any], axis: str | None) -> None:
    assert axis_of(settings) == axis


def test_a_sweep_over_no_load_has_no_knee() -> None:
    cells = [{**each, "settings": {"input_tokens": each["settings"]["rate"]}} for each in CELLS]
    assert "knee" not in table_text({"cells": cells})


@pytest.mark.parametrize(
    ("missed", "above"),
    [
        ((0, 0, 0, 0), []),
        ((0, 0, 1, 1), []),
        ((0, 1, 1, 0), ["p16"]),
        ((1, 1, 0, 0), ["p8", "p16"]),
        ((1, 0, 1, 0), []),
    ],
)
def test_two_neighbours_that_miss_are_enough(missed: tuple[int, ...], above: list[str]) -> None:
    cells = [{**each, "slo_met": not miss} for each, miss in zip(CELLS, missed, strict=True)]
    assert too_high(cells) == above
    lame = [{**each, "state": "invalid", "codes": ["client_lag"]} for each in cells]
    assert too_high(lame) == []  # nothing is known of these


def test_names_of_others_are_text_on_the_page_and_in_the_terminal() -> None:
    code = "<script>alert(1)</script>\x1b[31m"
    cells = [{**each, "engine": code, "workload": code, "load": code + each["load"], "reason": code} for each in CELLS]
    cells = [{**each, "settings": {"rate": each["settings"]["rate"], code: code}} for each in cells]
    found = {"kind": "sweep", "name": code, "cells": cells, "plan": {"text": code}}
    assert "\x1b" not in table_text(found)
    page = render_sweep(found)
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert(1)") > 5


@pytest.mark.parametrize("cells", [[], [{}], [{"state": 3, "settings": 4, "figures": 5, "codes": 6, "uncertain": 7}]])
def test_an_index_that_makes_no_sense_is_shown_as_far_as_it_does(cells: list[Any]) -> None:
    assert isinstance(table_text({"cells": cells}), str)
    assert "servemark" in render_sweep({"cells": cells})

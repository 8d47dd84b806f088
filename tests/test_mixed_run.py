"""A run of two classes against the simulated server, from the command to the files, its rows counted anew by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from servemark.adapters.sim.launch import LocalServer, launch
from servemark.adapters.sim.options import SimOptions
from servemark.harness.plan.spec import parse_workload
from servemark.results.asked_slo import slo_of_run
from servemark.results.known import slo_part
from tests.commands import TOLERANT, Said, bench, check, run_json

CHAT_MS, RAG_MS = 2000, 0.001
WORKLOAD = f"""\
version: 1
classes:
  chat:
    weight: 3
    prompts: {{source: synthetic, lengths: "U(40,60)/(4,8)"}}
    slo: {{limits: "ttft={CHAT_MS}ms"}}
  rag:
    prompts: {{source: synthetic, lengths: [[200, 3], [300, 2, 2]]}}
    slo: {{limits: "ttft={RAG_MS}ms"}}
load: {{rate: 50}}
run: {{requests: 120, warmup: 10}}
slo: {{gate: true, limits: "error_rate=1%"}}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with launch(SimOptions(speed=20, max_model_len=4096)) as one:
        yield one


@pytest.fixture(scope="module")
def run(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Said, Path]:
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "mix.yaml").write_text(WORKLOAD)
    return made(server, folder, "--out", str(folder / "r")), folder / "r"


def made(server: LocalServer, folder: Path, *words: str) -> Said:
    workload = str(folder / "mix.yaml")
    return bench("run", "--target", "sim", "--url", server.url, "--workload", workload, *TOLERANT, *words)


def rows(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(folder / "requests.parquet").to_pylist()
    return [row for row in found if row["phase"] == "measured"]


def test_one_class_that_misses_its_slo_misses_the_gate(run: tuple[Said, Path]) -> None:
    said, folder = run
    assert said.code == 1, said.err
    slo = run_json(folder)["slo"]
    assert (slo["classes"]["chat"]["met"], slo["classes"]["rag"]["met"], slo["met"]) == (True, False, False)
    assert any(reason.startswith("class rag: 0.00% of") for reason in slo["reasons"])


def test_the_classes_are_what_the_workload_says(run: tuple[Said, Path]) -> None:
    measured = rows(run[1])
    assert len(measured) == 120
    chats = [row for row in measured if row["class"] == "chat"]
    # 3 of 4: 90 with a standard deviation of sqrt(120 * 3/4 * 1/4) = 4.7.
    assert abs(len(chats) - 90) < 5 * 4.7
    assert all(40 <= row["prompt_tokens"] <= 60 and 4 <= row["output_tokens"] <= 8 for row in chats)
    rags = {(row["prompt_tokens"], row["output_tokens"]) for row in measured if row["class"] == "rag"}
    assert rags == {(200, 3), (300, 2)}


def test_rows_of_the_result_are_those_that_the_parquet_gives(run: tuple[Said, Path]) -> None:
    folder = run[1]
    result, measured = run_json(folder), rows(folder)
    start, end = result["clock"]["window_ns"]
    for name, limit_ms in (("chat", CHAT_MS), ("rag", RAG_MS)):
        own = [row for row in measured if row["class"] == name]
        good = [row for row in own if (row["first_token_ns"] - row["intended_ns"]) / 1e6 <= limit_ms]
        inside = [row for row in good if start <= row["intended_ns"] < end]
        (metrics,) = (each["metrics"] for each in result["groups"] if each["by"] == {"class": name})
        assert metrics["goodput_share"]["value"] == pytest.approx(len(good) / len(own))
        assert metrics["goodput"]["value"] == pytest.approx(len(inside) / ((end - start) / 1e9))
        ttfts = sorted((row["first_token_ns"] - row["intended_ns"]) / 1e6 for row in own)
        assert metrics["ttft"]["p50"] == pytest.approx(ttfts[-(-len(ttfts) // 2) - 1])
        told = result["slo"]["classes"][name]
        assert (told["good"], told["measured"]) == (len(good), len(own))


def test_summary_and_page_show_a_row_for_each_class(run: tuple[Said, Path]) -> None:
    said, folder = run
    lines = said.out[said.out.index("\nClasses\n") :].splitlines()[2:5]
    assert lines[0].split()[:3] == ["answered", "TTFT", "p50"]
    assert (lines[1].split()[0], lines[1].split()[-1]) == ("chat", "met")
    assert (lines[2].split()[0], lines[2].split()[-1]) == ("rag", "missed")
    assert "class chat          synthetic(input_tokens=uniform(min=40, max=60)" in said.out
    page = (folder / "report.html").read_text()
    section = page[page.index('id="classes"') :]
    assert all(word in section[: section.index("</section>")] for word in ("chat", "rag", "missed", "ttft=0.001ms"))


def test_a_killed_run_is_shown_with_its_classes() -> None:
    """What is written before the first request says what each class was to meet."""
    slo = slo_of_run({"slo": slo_part(parse_workload(WORKLOAD))})
    assert slo is not None
    assert {name: str(own) for name, own in slo.classes.items()} == {"chat": "ttft=2000ms", "rag": "ttft=0.001ms"}


def test_an_slo_of_the_command_line_holds_for_all(server: LocalServer, run: tuple[Said, Path], tmp_path: Path) -> None:
    folder = run[1].parent
    said = made(server, folder, "--slo", "ttft=1min", "--requests", "70", "--out", str(tmp_path / "r"))
    assert said.code == 0, said.out
    slo = run_json(tmp_path / "r")["slo"]
    assert [own["limits"] for own in slo["classes"].values()] == [["ttft=1min"], ["ttft=1min"]]
    assert (slo["share"], slo["met"]) == (1.0, True)


def test_check_names_what_each_class_is_to_meet(server: LocalServer, run: tuple[Said, Path]) -> None:
    workload = str(run[1].parent / "mix.yaml")
    said = bench("check", "--target", "sim", "--url", server.url, "--workload", workload)
    assert said.code == 0, said.out
    assert "SLO error_rate=1%; chat: ttft=2000ms; rag: ttft=0.001ms" in said.out


def test_a_percentile_of_a_rare_class_needs_its_requests(
    server: LocalServer, run: tuple[Said, Path], tmp_path: Path
) -> None:
    (tmp_path / "mix.yaml").write_text(WORKLOAD.replace(f"ttft={RAG_MS}ms", "ttft:p90=10s"))
    said = made(server, tmp_path, "--out", str(tmp_path / "r"))
    assert said.code == 4
    assert check(run_json(tmp_path / "r"), "sample_size") == "invalid"

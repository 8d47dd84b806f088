"""The packaged workloads: each parses, plans, fits the context that it is for, and says where its figures come from."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from commands import bench

from servemark.harness.errors import BadInput
from servemark.harness.figures.slo import parse_slo
from servemark.harness.plan.arrivals import OpenLoop
from servemark.harness.plan.schedule import Planned, plan
from servemark.harness.plan.spec import Loaded, load_workload, packaged
from servemark.harness.plan.tokens import estimate

ROOT = Path(__file__).parent.parent
NAMES = list(packaged())
VOCABULARY = estimate("chat", "")

CONTEXT = {
    "agent": 32768,
    "batch": 4096,
    "chat": 4096,
    "chat-sessions": 8192,
    "code": 8192,
    "long-context": 131072,
    "mixed": 8192,
    "mlperf-deepseek-r1": 32768,
    "mlperf-llama2-70b": 4096,
    "mlperf-llama3.1-405b": 32768,
    "mlperf-llama3.1-8b": 4096,
    "rag": 4096,
    "rag-documents": 4096,
    "reasoning": 32768,
    "summarize": 4096,
}
"""The longest request fits into it."""

MLPERF = {
    "deepseek-r1": ((2000, 80), (1500, 15), 4388, (800, 3880)),
    "llama2-70b": ((2000, 200), (450, 40), 24576, (None, 294.45)),
    "llama3.1-405b": ((6000, 175), (4500, 80), 8313, (9400, 684.68)),
    "llama3.1-8b": ((2000, 100), (500, 30), 13368, (778, 73)),
}
"""As published: p99 of TTFT and TPOT in ms in Server and Interactive, the size of the data set, its mean lengths."""


def question(i: int) -> dict[str, Any]:
    return {"question_id": i, "category": ["writing", "math"][i % 2], "turns": [f"What is {i}?", "And then?"]}


ROWS: dict[str, Callable[[int], dict[str, Any]]] = {
    "gsm8k": lambda i: {"question": f"What is {i}?", "answer": f"It is {i}."},
    "humaneval": lambda i: {"prompt": f"def f{i}():\n", "canonical_solution": f"    return {i}\n"},
    "mt-bench": question,
    "spec-bench": question,
    "sharegpt": lambda i: {
        "conversations": [{"from": "human", "value": f"What is {i}?"}, {"from": "gpt", "value": "A number, I think."}]
    },
}
"""What a file of each data set holds."""


@pytest.fixture
def loaded(tmp_path: Path) -> Callable[[str], Loaded]:
    """A packaged workload; one of a data set has a file of 120 rows of its form."""

    def load(name: str) -> Loaded:
        if name not in ROWS:
            return load_workload(name)
        path = tmp_path / "rows"
        path.write_text("".join(json.dumps(ROWS[name](i)) + "\n" for i in range(120)))
        return load_workload(name, {"data": path})

    return load


@cache
def planned(name: str) -> list[Planned]:
    return list(islice(plan(load_workload(name, {"seed": 1}), VOCABULARY), 2000))


@pytest.mark.parametrize("name", NAMES)
def test_a_workload_is_short_and_says_what_it_is(name: str) -> None:
    loaded = load_workload(name)
    assert loaded.spec.name == loaded.name == name
    assert len(loaded.text.splitlines()) <= 40
    assert all(len(line) <= 120 for line in loaded.text.splitlines())


@pytest.mark.parametrize("name", NAMES)
def test_a_workload_names_the_source_of_its_figures(name: str) -> None:
    about = load_workload(name).spec.about
    assert len(about.split(". ")) >= 2
    assert re.search(r"\b(19|20)\d\d\b|MLPerf Inference", about), "a paper with its year, or a benchmark"
    assert "our choice" in about or "as published" in about, "what is not of the source is said"


@pytest.mark.parametrize("name", NAMES)
def test_the_objectives_can_be_read(name: str) -> None:
    section = load_workload(name).spec.slo
    if section.limits:
        assert str(parse_slo(section.limits, section.attainment))
    assert not section.gate, "the user decides whether a missed objective is an error"


@pytest.mark.parametrize("name", NAMES)
def test_a_hundred_requests_are_planned(name: str, loaded: Callable[[str], Loaded]) -> None:
    first = list(islice(plan(loaded(name), VOCABULARY), 100))
    assert sum(each.turns for each in first) >= 100
    assert all(each.request.prompt and each.request.asked_output_tokens for each in first)
    assert len({each.request.prompt for each in first}) == len(first), "a packaged workload repeats no prompt"


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ROWS])
def test_the_longest_request_fits_the_context(name: str) -> None:
    context = next(tokens for start, tokens in sorted(CONTEXT.items(), reverse=True) if name.startswith(start))
    most = plan(load_workload(name), VOCABULARY).source.most_tokens
    assert most is not None
    assert most <= context


@pytest.mark.parametrize("name", ROWS)
def test_a_data_set_is_asked_for_by_name_where_it_is_not_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = load_workload(name).spec
    assert "not packaged" in spec.about
    assert "--data" in spec.about
    with pytest.raises(BadInput, match=r"the data cannot be read \(No such file or directory\); .* --data; it is publ"):
        plan(load_workload(name), VOCABULARY)


def test_two_turns_of_a_bench_are_a_session_of_its_category(loaded: Callable[[str], Loaded]) -> None:
    for name in ("mt-bench", "spec-bench"):
        first = list(islice(plan(loaded(name), VOCABULARY), 10))
        assert {each.turns for each in first} == {2}
        assert {each.request.class_ for each in first} == {"writing", "math"}


@pytest.mark.parametrize("model", MLPERF)
def test_the_scenarios_of_mlperf_have_its_limits(model: str) -> None:
    *limits, count, _ = MLPERF[model]
    for scenario, (ttft, tpot) in zip(("server", "interactive"), limits, strict=True):
        spec = load_workload(f"mlperf-{model}-{scenario}").spec
        assert spec.slo.limits == (f"ttft:p99={ttft}ms,tpot:p99={tpot}ms",)
        assert spec.load.arrivals == "poisson"
        assert spec.run.duration == 600 * 10**9
    offline = load_workload(f"mlperf-{model}-offline").spec
    assert isinstance(offline.load, OpenLoop)
    assert offline.load.all_at_once
    assert offline.run.requests == count
    assert not offline.slo.limits


@pytest.mark.parametrize("model", MLPERF)
def test_the_lengths_of_mlperf_have_the_published_means(model: str) -> None:
    means = MLPERF[model][-1]
    requests = [each.request for each in planned(f"mlperf-{model}-offline")]
    drawn = (
        mean(each.asked_prompt_tokens or 0 for each in requests),
        mean(each.asked_output_tokens or 0 for each in requests),
    )
    for found, published in zip(drawn, means, strict=True):
        assert published is None or found == pytest.approx(published, rel=0.05)


def test_every_workload_stands_in_the_documentation() -> None:
    text = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w.-]+)`", text, re.MULTILINE)
    assert sorted(rows) == sorted(NAMES)


def test_the_list_names_every_workload_in_its_group() -> None:
    said = bench("list").out
    groups = re.split(r"\n(?=\S)", said)
    own, data, mlperf = ((group.split()) for group in groups if group.startswith("Workloads"))
    assert set(NAMES) <= {*own, *data, *mlperf}
    assert set(ROWS) <= set(data)
    assert "mlperf-llama2-70b-server" in mlperf

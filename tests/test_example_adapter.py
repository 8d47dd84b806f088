"""The adapter that the docs show, as another package would have it: it keeps the contract and measures a server."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from answering import Asked, answering
from commands import BENCH, PATIENCE_S, run_json

from servemark.adapters.contract import Check, checks
from servemark.harness.types import Adapter

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "servemark-ollama"
SOURCE = EXAMPLE / "servemark_ollama.py"


def adapter() -> Adapter:
    spec = importlib.util.spec_from_file_location("servemark_ollama", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Adapter = module.ADAPTER
    return found


CONTRACT = [pytest.param(check, id=str(check)) for check in checks(adapter(), EXAMPLE / "tests" / "transcripts")]


@pytest.mark.parametrize("check", CONTRACT)
def test_the_example_keeps_the_contract(check: Check) -> None:
    check()


def test_the_docs_show_it_word_for_word_and_it_is_short() -> None:
    source = SOURCE.read_text()
    page = (ROOT / "docs" / "adapters.md").read_text()
    assert f"```python\n{source}```\n" in page
    assert f"```toml\n{(EXAMPLE / 'pyproject.toml').read_text()}```\n" in page
    assert f"```python\n{(EXAMPLE / 'tests' / 'test_contract.py').read_text()}```\n" in page
    assert len(source.splitlines()) < 100


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder of packages that holds the example as pip would leave it."""
    site = tmp_path / "site"
    facts = site / "servemark_ollama-0.1.0.dist-info"
    facts.mkdir(parents=True)
    shutil.copy(SOURCE, site)
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points: Mapping[str, Mapping[str, str]] = project["entry-points"]
    lines = [f"[{group}]\n" + "\n".join(f"{k} = {v}" for k, v in names.items()) for group, names in points.items()]
    (facts / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return site


def ollama(asked: Asked) -> tuple[int, bytes]:
    if asked.path == "/":
        return 200, b"Ollama is running"
    if asked.path == "/api/version":
        return 200, b'{"version":"0.12.6"}'
    if asked.path == "/api/tags":
        return 200, b'{"models":[{"name":"llama3.2:latest"}]}'
    if asked.path != "/api/generate":
        return 404, b"404 page not found"
    wanted = json.loads(asked.body)
    count = wanted["options"]["num_predict"]
    words = [{"model": wanted["model"], "response": " word", "done": False} for _ in range(count)]
    last = {"response": "", "done": True, "done_reason": "length", "prompt_eval_count": 40, "eval_count": count}
    return 200, b"".join(json.dumps(line).encode() + b"\n" for line in (*words, last))


def bench(installed: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(
        [*BENCH, *words], env=environment, cwd=installed.parent, capture_output=True, text=True, timeout=PATIENCE_S
    )


def test_installed_it_is_found_by_name_and_measures(installed: Path, tmp_path: Path) -> None:
    assert "ollama" in bench(installed, "list").stdout
    with answering(ollama) as url:
        flags = ("--concurrency", "2", "--requests", "6", "--warmup", "0", "--output-tokens", "12", "--quiet")
        done = bench(installed, "run", "--target", "ollama", "--url", url, "--out", "r", *flags)
        refused = bench(installed, "run", "--target", "vllm", "--url", url, "--out", "s")
    run: dict[str, Any] = run_json(tmp_path / "r")
    assert run["summary"]["requests_ok"] == 6, done.stdout + done.stderr
    assert run["metrics"]["output_tokens"]["p50"] == 12
    assert (run["target"]["name"], run["target"]["version"]) == ("ollama", "0.12.6")
    assert (refused.returncode, (tmp_path / "s").exists()) == (3, False)
    assert "is a server of the kind ollama" in refused.stderr

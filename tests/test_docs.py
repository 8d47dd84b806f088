"""Every command in README and docs is one that the command line takes, and every link leads somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from servemark.harness.cli import bench
from servemark.harness.plan.spec import parse_workload
from servemark.harness.prepare import slo_of

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for language, text in FENCE.findall(page.read_text()) if language in languages]


def commands() -> list[object]:
    found = []
    for page in PAGES:
        for block in blocks(page, "console", "sh", "bash"):
            lines = block.replace("\\\n", " ").splitlines()
            words = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
            found += [pytest.param(each, id=f"{page.name}: {' '.join(each)}") for each in words if each]
    return found


@pytest.mark.parametrize("words", commands())
def test_a_command_in_the_docs_is_taken(words: list[str]) -> None:
    while "=" in words[0]:
        words = words[1:]
    name = Path(words[0]).name
    if name == "make":
        assert [word for word in words[1:] if "=" not in word and word not in TARGETS] == []
    if name != "bench":
        return
    command: click.Command = bench
    arguments = words[1:]
    while isinstance(command, click.Group):
        command = command.commands[arguments[0]]
        arguments = arguments[1:]
    with command.make_context(command.name, list(arguments)):
        pass  # a usage error is raised


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_the_workload_in_the_readme_is_one() -> None:
    (text,) = blocks(ROOT / "README.md", "yaml")
    asked = slo_of(parse_workload(text))
    assert asked is not None
    assert asked.every_limit


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_workload_in_the_docs_is_one(page: Path) -> None:
    whole = [text for text in blocks(page, "yaml") if text.startswith("version: 1") and "load:" in text]
    for text in whole:
        slo_of(parse_workload(text, page.name))
    assert whole or page.name != "workload.md"


def test_the_exit_codes_in_the_readme_are_those_of_the_command() -> None:
    from servemark.harness import errors

    codes = [int(code) for code in re.findall(r"^\| (\d) \|", (ROOT / "README.md").read_text(), re.MULTILINE)]
    assert codes == sorted(value for name, value in vars(errors).items() if name.startswith("EXIT_"))

"""Help of commands with many flags: each flag stands under a heading, once, and in the same order everywhere."""

from __future__ import annotations

import re
import subprocess
import sys

import click
import pytest

from servemark.harness.cli import bench
from servemark.harness.help_sections import REST, SECTIONS, SectionedCommand

MANY = ("run", "sweep", "search", "check", "estimate", "show")


def sections(name: str) -> dict[str, list[str]]:
    """Heading -> the flags below it, as the help has them."""
    command = bench.commands[name]
    text = command.get_help(click.Context(command, info_name=name, max_content_width=100))
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if (head := re.fullmatch(r"([A-Z][\w ]+):", line)) is not None:
            found[head[1]] = []
        elif found and (flag := re.match(r"  (?:-\w, )?(--[\w-]+)", line)) is not None:
            found[list(found)[-1]].append(flag[1])
    return found


@pytest.mark.parametrize("name", MANY)
def test_every_flag_stands_under_a_heading_once(name: str) -> None:
    found = sections(name)
    assert list(found) == [each for each in (*SECTIONS, REST) if each in found]
    shown = [flag for flags in found.values() for flag in flags]
    options = [param for param in bench.commands[name].params if isinstance(param, click.Option)]
    assert sorted(shown) == sorted([option.opts[0] for option in options] + ["--help"])
    assert found[REST] == ["--help"]


def test_an_argument_is_no_flag() -> None:
    show = bench.commands["show"]
    assert "[RUN]\n" not in show.get_help(click.Context(show, info_name="show")).partition("\n")[2]


def test_flags_are_found_where_one_looks_for_them() -> None:
    found = sections("run")
    for heading, flag in {
        "Server": "--target",
        "Load": "--rate",
        "SLO and verdict": "--allow",
        "Hardware and cost": "--gpu-price",
        "GPU sampling": "--gpu-metrics",
        "Output": "--json",
    }.items():
        assert flag in found[heading]
    assert "--over" in sections("sweep")["Sweep"]
    assert "--precision" in sections("search")["Search"]
    assert "--gpu" in sections("estimate")["Model and GPUs"]


def test_commands_with_more_flags_than_fit_a_screen_have_headings() -> None:
    long = {name for name, command in bench.commands.items() if len(command.params) > 12}
    assert long <= {name for name, command in bench.commands.items() if isinstance(command, SectionedCommand)}


def test_help_loads_nothing_heavy() -> None:
    program = "import sys; from servemark.harness.cli import bench; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "pydantic", "httpx", "rich"} & set(loaded)

"""Help of a command with many options, under headings: an option names its own, and a command shows them in turn."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click

SECTIONS = (
    "Server",
    "Model and GPUs",
    "Load",
    "Sweep",
    "Search",
    "SLO and verdict",
    "Hardware and cost",
    "Predictions",
    "GPU sampling",
    "Output",
)
"""In the order in which they are shown; what names none of them comes last."""
REST = "Other"


class SectionedOption(click.Option):
    """An option that knows its section."""

    def __init__(self, *args: Any, section: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class SectionedCommand(click.Command):
    """A command whose help has a heading for each section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        found: dict[str, list[tuple[str, str]]] = {name: [] for name in (*SECTIONS, REST)}
        for param in self.get_params(ctx):
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)) is not None:
                found[param.section if isinstance(param, SectionedOption) else REST].append(record)
        for name, records in found.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)


def under(section: str) -> Callable[..., Callable[[Callable[..., Any]], Callable[..., Any]]]:
    """`click.option` for options of a section."""
    return partial(click.option, cls=SectionedOption, section=section)

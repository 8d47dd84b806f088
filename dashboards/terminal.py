"""The summary of a run for the terminal: the verdict first, then the figures, in 100 columns."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servemark.dashboards import classes, hardware, sides
from servemark.dashboards.asked import load_facts
from servemark.dashboards.facts import (
    LATENCIES,
    UNCERTAIN,
    Check,
    certain,
    checks,
    failures,
    hang_ups,
    is_simulated,
    is_valid,
    launch_figures,
    readings,
    server_figures,
    slo_results,
    subject,
)
from servemark.dashboards.promises import unpromised
from servemark.dashboards.replicas import table as replica_table
from servemark.dashboards.words import NOTHING, figure, name_of, of_unit, seconds
from servemark.results.headline import PERCENTILES
from servemark.results.schema import ENGINE_LOG, PAGE, REQUESTS, RUN_JSON, SERVER, number, part, text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

WIDTH = 100
_DUE = "goodput counts requests that were due in the steady window, throughput what came in it"


def summary_text(run: Mapping[str, Any], width: int = WIDTH, folder: Path | None = None) -> str:
    """The summary as plain text; the same run always gives the same text."""
    from rich.console import Console

    out = io.StringIO()
    print_summary(run, Console(file=out, width=width, color_system=None, highlight=False), folder)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def print_summary(run: Mapping[str, Any], console: Console, folder: Path | None = None) -> None:
    """Prints the summary, in colour where the console has any."""
    for block in _blocks(run, folder):
        console.print(block, width=min(console.width, WIDTH), highlight=False, markup=False)


def _blocks(run: Mapping[str, Any], folder: Path | None) -> Iterator[RenderableType]:
    from rich.text import Text

    yield _headline(run)
    yield from _verdict(run)
    for title, block in (
        ("Load", _pairs(load_facts(run))),
        (_latency_title(run), _latencies(run)),
        ("Throughput", _throughput(run)),
        ("Service level", _service_level(run)),
        ("Classes", classes.table(run)),
        ("Requests", _pairs(_requests(run))),
        ("Replicas", replica_table(run)),
        ("What this target cannot promise", _pairs(unpromised(run))),
        ("Hardware", _pairs(hardware.lines(run))),
        ("Server", _pairs(_server(run))),
        ("Files", _pairs(_files(folder))),
    ):
        if block is not None:
            yield Text(f"\n{title}", style="bold")
            yield block


def _headline(run: Mapping[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    valid = is_valid(run)
    badge = Text(" VALID " if valid else " INVALID ", style="bold white on green" if valid else "bold white on red")
    first = Text.assemble(badge, "  ", (subject(run), "bold"))
    lines: list[Text] = [first]
    if is_simulated(run):
        lines.append(
            Text.assemble(
                (" SIMULATED ", "bold black on yellow"),
                "  the target is a simulation: no figure here is one of a real server",
            )
        )
    lines.append(Text(text(run.get("id")), style="dim"))
    return Group(*lines)


def _verdict(run: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Reasons with their remedies; warnings in one line each."""
    found = [check for check in checks(run) if check.severity != "pass"]
    if found:
        yield ""
    for check in found:
        yield _reason(check)


def _reason(check: Check) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    invalid = check.word == "invalid"
    row = Table.grid(padding=(0, 1))
    row.add_column(width=7, no_wrap=True)
    row.add_column(ratio=1)
    said = Text.assemble((check.code, "bold"), f": {check.message}")
    if check.remedy and invalid:
        said.append(f"\n→ {check.remedy}")
    row.add_row(Text(check.word, style="red" if invalid else "yellow"), said)
    return row


def _latency_title(run: Mapping[str, Any]) -> str:
    origin = text(part(run, "metrics", "ttft").get("origin") or "intended", 20)
    return f"Latency, ms from the {origin} time"


def _latencies(run: Mapping[str, Any]) -> RenderableType | None:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=18, no_wrap=True)
    for _ in range(len(PERCENTILES) + 2):
        table.add_column(justify="right", no_wrap=True, min_width=8)
    heads = ["", *(p.replace("_", ".") for p in PERCENTILES), "mean", "samples"]
    table.add_row(*(Text(head, style="dim") for head in heads))
    shown, marked = 0, False
    for name in LATENCIES:
        entry = part(run, "metrics", name)
        if not number(entry.get("n")) or (name == "ttfa" and not _reasons(run)):
            continue
        cells = [_percentile(entry, p) for p in PERCENTILES]
        marked = marked or any(cell.plain.startswith(UNCERTAIN) for cell in cells)
        rest = [figure(number(entry.get("mean"))), f"{number(entry.get('n')) or 0:,.0f}"]
        table.add_row(Text(name_of(name), style="bold"), *cells, *(Text(each) for each in rest))
        shown += 1
    if not shown:
        return Text("no request gave a token", style="dim")
    if not marked:
        return table
    return Group(table, Text(f"{UNCERTAIN} too few requests to certify this percentile", style="dim"))


def _percentile(entry: Mapping[str, Any], name: str) -> Text:
    from rich.text import Text

    value = number(entry.get(name))
    if value is None or certain(entry, name):
        return Text(figure(value))
    return Text(UNCERTAIN + figure(value), style="dim")


def _reasons(run: Mapping[str, Any]) -> bool:
    """Whether there was reasoning: only then does the first answer token come after the first token."""
    first, answer = part(run, "metrics", "ttft"), part(run, "metrics", "ttfa")
    return any(first.get(p) != answer.get(p) for p in ("n", *PERCENTILES))


def _throughput(run: Mapping[str, Any]) -> RenderableType | None:
    from rich.table import Table
    from rich.text import Text

    steady, whole = (part(run, "metrics", name) for name in ("output_tps", "output_tps_run"))
    if not steady and not whole:
        return None
    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=18, no_wrap=True)
    table.add_column(justify="right", min_width=18, no_wrap=True)
    table.add_column(justify="right", min_width=18, no_wrap=True)
    spans = [f"{label} {_span(entry)}" for label, entry in (("steady", steady), ("whole run", whole))]
    table.add_row("", *(Text(span.strip(), style="dim") for span in spans))
    for label, name in (("output tok/s", "output_tps"), ("input tok/s", "input_tps"), ("requests/s", "rps")):
        values = (number(part(run, "metrics", each).get("value")) for each in (name, f"{name}_run"))
        table.add_row(Text(label, style="bold"), *(figure(value) for value in values))
    return table


def _span(entry: Mapping[str, Any]) -> str:
    length = number(entry.get("seconds"))
    return "" if length is None else f"({seconds(length)})"


def _service_level(run: Mapping[str, Any]) -> RenderableType | None:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    results = slo_results(run)
    pairs = []
    for name in _goodputs(run):
        entry = part(run, "metrics", name)
        said = of_unit(number(entry.get("value")), text(entry.get("unit"), 20))
        if number(entry.get("offered")) is not None:
            said = f"{classes.goodput(part(run, 'metrics'))} req/s offered"
        pairs.append((name_of(name), said))
    if not results and not pairs:
        return None
    table = Table.grid(padding=(0, 2))
    for result in results:
        colour = {True: "green", False: "red", None: "dim"}[result.met]
        table.add_row(Text(f"{result.word:6}", style=colour), Text(result.limit, style="bold"), Text(result.said))
    figures = _pairs(pairs)
    return Group(
        *([figures] if figures is not None else []),
        *([Text(_DUE, style="dim")] if _more_than_came(run) else []),
        *([table] if results else []),
    )


def _more_than_came(run: Mapping[str, Any]) -> bool:
    """Goodput above the throughput that stands over it."""
    pairs = (("goodput", "rps"), ("goodput_tps", "output_tps"))
    values = [[number(part(run, "metrics", name).get("value")) for name in pair] for pair in pairs]
    return any(good is not None and every is not None and good > every for good, every in values)


def _goodputs(run: Mapping[str, Any]) -> list[str]:
    """Those that there are; of the whole run where no window is steady, as when all is sent at once."""
    steady = number(part(run, "metrics", "goodput").get("value")) is not None
    names = ("goodput", "goodput_tps", "goodput_share") if steady else ("goodput_run", "goodput_share")
    return [name for name in names if part(run, "metrics", name)]


def _requests(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    summary = part(run, "summary")
    count = {name: number(summary.get(name)) for name in ("requests", "requests_ok", "requests_failed")}
    found = []
    if count["requests"] is not None:
        counted = number(summary.get("requests_measured"))
        beside = "" if counted in (None, count["requests"]) else f", of which {counted:,.0f} count"
        found.append(("sent", f"{count['requests']:,.0f}{beside}"))
    if count["requests_ok"] is not None:
        found.append(("ok", f"{count['requests_ok']:,.0f}"))
    if count["requests_failed"] is not None:
        kinds = ", ".join(f"{n:,.0f} {kind}" for kind, n in failures(run))
        found.append(("failed", f"{count['requests_failed']:,.0f}" + (f" ({kinds})" if kinds else "")))
    if (adjusted := _adjusted(run)) is not None:
        found.append(("p99, failures as ∞", adjusted))
    if (gone := hang_ups(run)) is not None:
        found.append(("gave up", gone))
    found += [(name_of(name), drift) for name in ("prompt_drift", "output_drift") if (drift := _drift(run, name))]
    lag = part(run, "metrics", "send_lag")
    if number(lag.get("p99")) is not None:
        found.append(("send lag p99", of_unit(number(lag.get("p99")), "ms")))
    return found


def _adjusted(run: Mapping[str, Any]) -> str | None:
    """The percentile that decides an SLO, where failures move it."""
    shown = []
    for name in ("ttft", "tpot", "e2e"):
        entry = part(run, "metrics", name)
        if "p99_adj" in entry and entry.get("p99_adj") != entry.get("p99"):
            value = number(entry.get("p99_adj"))
            shown.append(f"{name_of(name)} {'∞' if value is None else of_unit(value, 'ms')}")
    return ", ".join(shown) or None


def _drift(run: Mapping[str, Any], name: str) -> str | None:
    entry = part(run, "metrics", name)
    low, mean, high = (number(entry.get(key)) for key in ("min", "mean", "max"))
    if low is None or high is None or mean is None:
        return None
    if low == high == 0:
        return "none: every length as asked"
    return f"{mean:+.2f} tokens on average, from {low:+.0f} to {high:+.0f}"


def _server(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Its own figures; how often they were read stands there where something was missing."""
    found = [*launch_figures(run), *server_figures(run)]
    if both := sides.sentence(run):
        found.append(("mean TTFT", both))
    if stages := sides.stages_sentence(run):
        found.append(("of which", stages))
    read = readings(run)
    return [*found, ("readings", read)] if read and not read.replace(",", "").isdigit() else found


def _files(folder: Path | None) -> list[tuple[str, str]]:
    if folder is None:
        return []
    there = [name for name in (RUN_JSON, REQUESTS, SERVER, ENGINE_LOG) if (folder / name).exists()]
    page = [("page", text(folder / PAGE))] if (folder / PAGE).exists() else []
    return [*page, ("folder", text(folder)), ("in it", ", ".join(there))]


def _pairs(pairs: list[tuple[str, str]]) -> RenderableType | None:
    from rich.table import Table
    from rich.text import Text

    if not pairs:
        return None
    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=18, no_wrap=True)
    table.add_column(ratio=1, overflow="fold")
    for label, value in pairs:
        table.add_row(Text(label, style="bold"), Text(value or NOTHING))
    return table

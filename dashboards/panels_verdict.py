"""The panels that a reader sees first: headline figures, verdict, SLO, percentiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from servemark.dashboards.facts import Check, certain, checks, is_valid, marked, slo_results
from servemark.dashboards.panels import PANELS, Card, Cards, Cell, Data, Note, Panel, Part, Table
from servemark.dashboards.promises import unpromised
from servemark.dashboards.words import NOTHING, figure, name_of, share
from servemark.results.headline import PERCENTILES
from servemark.results.schema import number, part, text

TONES = {"pass": "good", "met": "good", "warning": "warn", "waived": "warn", "invalid": "bad", "missed": "bad"}
HEADLINES = (
    ("ttft", "Time to first token", "ttft"),
    ("itl", "Inter-token latency", "decode"),
    ("tpot", "Time per output token", "tpot"),
    ("e2e", "End-to-end latency", "e2e"),
)
RATES = (
    ("output_tps", "Output throughput", "decode"),
    ("input_tps", "Input throughput", "ttft"),
    ("rps", "Requests completed", "requests"),
    ("goodput", "Goodput", "good"),
    ("error_rate", "Failed requests", "error"),
    ("give_up_rate", "Clients that gave up", "queue"),
)
TABLED = ("ttft", "ttft_sent", "ttfa", "itl", "icl", "tpot", "e2e", "e2e_sent", "e2e_per_token", "tps_user")


@PANELS.register("headline")
def headline(data: Data) -> Panel | None:
    latencies = [card for each in HEADLINES if (card := _latency_card(data.run, *each)) is not None]
    rates = [card for rate in RATES if (card := _rate_card(data.run, *rate)) is not None]
    if not latencies and not rates:
        return None
    origin = text(part(data.run, "metrics", "ttft").get("origin") or "intended", 20)
    about = (
        f"Medians of the steady window with their 95 % intervals within this run; latencies count from the {origin} "
        "time of a request. ~ marks a percentile that the number of requests does not certify."
    )
    return Panel("Headline figures", about, [Cards(cards) for cards in (latencies, rates) if cards])


def _latency_card(run: Mapping[str, Any], name: str, label: str, role: str) -> Card | None:
    entry = part(run, "metrics", name)
    median = number(entry.get("p50"))
    if median is None:
        return None
    tail = [f"{p} {marked(entry, p)}" for p in ("p90", "p99") if number(entry.get(p)) is not None]
    return Card(
        label=label,
        value=figure(median),
        unit=text(entry.get("unit"), 20),
        interval=_between(entry),
        also=" · ".join(tail),
        role=role,
        about=f"{name_of(name)}, median",
    )


def _rate_card(run: Mapping[str, Any], name: str, label: str, role: str) -> Card | None:
    entry = part(run, "metrics", name)
    if name == "goodput" and number(entry.get("value")) is None:  # no steady window, as when all is sent at once
        entry = part(run, "metrics", "goodput_run")
    value, unit = number(entry.get("value")), text(entry.get("unit"), 20)
    if value is None or (name in ("error_rate", "give_up_rate") and value == 0):
        return None
    whole = number(part(run, "metrics", f"{name}_run").get("value"))
    also = "" if whole is None else f"whole run {figure(whole)}"
    if name == "goodput":
        also = f"{share(number(part(run, 'metrics', 'goodput_share').get('value')))} of requests"
    if unit == "share":
        return Card(label, share(value).removesuffix(" %"), "%", "of the measured requests", also, role)
    length = number(entry.get("seconds"))
    return Card(label, figure(value), unit, "" if length is None else f"over {figure(length)} s", also, role)


def _between(entry: Mapping[str, Any]) -> str:
    found = _interval(entry, "p50")
    return f"95 %: {found}" if found else ""


def _interval(entry: Mapping[str, Any], percentile: str) -> str:
    found = part(entry, "ci").get(percentile)
    if not isinstance(found, list | tuple) or len(found) != 2:
        return ""
    low, high = (number(each) for each in found)
    if low is None and high is None:
        return ""
    return f"{figure(low)} to {'beyond' if high is None else figure(high)}"


@PANELS.register("verdict")
def verdict(data: Data) -> Panel:
    found = checks(data.run)
    said = "This run counts: no check says otherwise." if is_valid(data.run) else "This run does not count."
    passed = [check for check in found if check.severity == "pass"]
    others = [check for check in found if check.severity != "pass"]
    parts: list[Part] = [] if found else [Note("The result holds no checks.", "dim")]
    if others:
        parts.append(_check_table(others))
    if passed:
        parts.append(_check_table(passed, f"{len(passed)} check{'s' if len(passed) > 1 else ''} passed"))
    return Panel("Verdict", f"{said} Each check with what it found and its threshold.", parts)


def _check_table(found: Sequence[Check], folded: str = "") -> Table:
    head = ("", "check", "finding", "value", "threshold")
    return Table(head, [_check_row(check) for check in found], numbers_from=3, folded=folded)


def _check_row(check: Check) -> list[Cell]:
    finding = check.message
    if check.remedy and check.severity != "pass":
        finding += f" → {check.remedy}"
    code = Cell(check.code)
    return [Cell(check.word, TONES.get(check.word, "")), code, Cell(finding), Cell(check.value), Cell(check.threshold)]


@PANELS.register("promises")
def promises(data: Data) -> Panel | None:
    rows = [[Cell(label), Cell(f"{said[0].upper()}{said[1:]}")] for label, said in unpromised(data.run)]
    if not rows:
        return None
    about = "What servers of this kind, asked in this way, leave open, and what it means for the figures of this run."
    return Panel("What this target cannot promise", about, [Table(("", "in this run"), rows, numbers_from=2)])


@PANELS.register("slo")
def slo(data: Data) -> Panel | None:
    lines = slo_results(data.run)
    if not lines:
        return None
    rows = [[Cell(line.word, TONES.get(line.word, "dim")), Cell(line.limit), Cell(line.said)] for line in lines]
    about = (
        "ttft=200ms limits every request, ttft:p99=500ms limits the run. Failed requests meet no limit, and count as "
        "infinite in the percentiles that are judged."
    )
    return Panel("Service-level objectives", about, [Table(("", "limit", "result"), rows, numbers_from=3)])


@PANELS.register("percentiles")
def percentiles(data: Data) -> Panel | None:
    rows = []
    for name in TABLED:
        entry = part(data.run, "metrics", name)
        if number(entry.get("n")):
            rows.append(_percentile_row(name, entry))
    if not rows:
        return None
    head = ("metric", "unit", *(p.replace("_", ".") for p in PERCENTILES), "mean", "std", "min", "max", "samples")
    about = (
        "Nearest-rank percentiles of successful requests, not interpolated. Point at a figure for its 95 % interval; "
        "a figure after ~ is not certified by this many requests."
    )
    return Panel("Latency percentiles", about, [Table(head, rows, numbers_from=2)])


def _percentile_row(name: str, entry: Mapping[str, Any]) -> list[Cell]:
    cells = [Cell(name_of(name)), Cell(text(entry.get("unit"), 20), "dim")]
    for p in PERCENTILES:
        interval = _interval(entry, p)
        note = f"95 % interval {interval}" if interval else ""
        cells.append(Cell(marked(entry, p), "" if certain(entry, p) else "dim", note))
    cells += [Cell(figure(number(entry.get(key)))) for key in ("mean", "std", "min", "max")]
    count = number(entry.get("n"))
    return [*cells, Cell(NOTHING if count is None else f"{count:,.0f}")]

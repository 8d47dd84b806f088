"""The panels that explain a run: errors, groups, workload, environment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from servemark.dashboards.asked import load_facts
from servemark.dashboards.facts import certain, marked
from servemark.dashboards.panels import PANELS, Cell, Data, Facts, Note, Panel, Part, Table, Verbatim
from servemark.dashboards.words import figure, name_of, of_unit, share
from servemark.results.schema import items, number, part, text

MOST_LINES = 40
GROUPED = ("ttft", "itl", "tpot", "e2e")


@PANELS.register("errors")
def errors(data: Data) -> Panel:
    failed = np.flatnonzero(data.frame.failed)
    about = "Requests that failed, in all phases, by kind; clients that gave up are no failures."
    if not len(failed):
        return Panel("Errors", about, [Note("No request failed.", "good")])
    kinds = data.frame["error"][failed]
    details = data.frame["error_detail"][failed]
    at = data.seconds(data.frame["intended_ns"])[failed]
    rows = []
    for kind, count in Counter(kinds.tolist()).most_common(MOST_LINES):
        own = np.flatnonzero(kinds == kind)
        said = Counter(text(details[i], 300) for i in own).most_common(3)
        example = "; ".join(f"{detail} (×{n:,})" if n > 1 else detail for detail, n in said if detail)
        moments = f"{figure(float(at[own].min()))} to {figure(float(at[own].max()))} s"
        rows.append(
            [
                Cell(text(kind, 60), "bad"),
                Cell(example),
                Cell(f"{count:,}"),
                Cell(share(count / len(data.frame))),
                Cell(moments),
            ]
        )
    return Panel("Errors", about, [Table(("kind", "said", "requests", "of all", "when"), rows, numbers_from=2)])


@PANELS.register("groups")
def groups(data: Data) -> Panel | None:
    rows = []
    for group in items(data.run, "groups")[:MOST_LINES]:
        name = ", ".join(f"{text(key, 40)} {text(value, 80)}" for key, value in part(group, "by").items())
        metrics = part(group, "metrics")
        count = number(part(metrics, "ttft").get("n"))
        cells = [Cell(name), Cell("" if count is None else f"{count:,.0f}")]
        for each in GROUPED:
            entry = part(metrics, each)
            cells += [Cell(marked(entry, p), "" if certain(entry, p) else "dim") for p in ("p50", "p99")]
        rows.append([*cells, Cell(figure(number(part(metrics, "output_tps").get("value"))))])
    if not rows:
        return None
    head = ["group", "requests"] + [f"{name_of(each)} {p}" for each in GROUPED for p in ("p50", "p99")] + ["tok/s"]
    about = "Parts of the run by themselves; latencies in ms. ~ marks what so few requests do not certify."
    return Panel("Groups", about, [Table(tuple(head), rows)])


@PANELS.register("workload")
def workload(data: Data) -> Panel:
    found, schedule = part(data.run, "workload"), part(data.run, "schedule")
    facts = load_facts(data.run) + _facts(
        {"file": found.get("path"), **_flat("override", part(found, "overrides")), **_flat("schedule", schedule)}
    )
    parts: list[Part] = [Facts(facts)] if facts else []
    body = found.get("text")
    if isinstance(body, str) and body:
        parts.append(Verbatim(body[:200_000], "The workload file, word for word"))
    about = "What was asked of the server. The hash covers the planned times, lengths and prompts."
    return Panel("Workload", about, parts or [Note("The result holds no workload.", "dim")])


@PANELS.register("environment")
def environment(data: Data) -> Panel:
    target = part(data.run, "target")
    named = (
        ("Target", _facts(_flat("", target))),
        ("Load generator", _facts(_flat("", part(data.run, "host")) | _flat("", part(data.run, "worker")))),
        ("Versions", _facts(_flat("", part(data.run, "versions")))),
    )
    parts: list[Part] = [Facts(rows, title) for title, rows in named if rows]
    about = "The server under test and the machine that made the load."
    return Panel("Environment", about, parts or [Note("The result does not say.", "dim")])


def _flat(prefix: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings as one, with names like `settings block size`."""
    flat: dict[str, Any] = {}
    for key, value in list(found.items())[:200]:
        name = f"{prefix} {text(key, 60)}".strip()
        if isinstance(value, Mapping):
            flat |= _flat(name, value)
        else:
            flat[name] = value
    return flat


def _facts(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for name, value in found.items():
        if value is None or value == "" or value == []:
            continue
        rows.append((name_of(name.removesuffix("_bytes").removesuffix("_ns")), _said(name, value)))
    return rows[:120]


def _said(name: str, value: object) -> str:
    plain = number(value)
    if plain is not None and name.endswith("_bytes"):
        return of_unit(plain, "bytes")
    if plain is not None and name.endswith("_ns") and 0 <= plain < 1e15 and not name.startswith(("started", "ended")):
        return of_unit(plain / 1e6, "ms")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return text(", ".join(text(each, 100) for each in value[:50]), 600)
    return text(value, 600)

"""The panel of the server's own metrics: over time, beside the client's stamps, and replica by replica."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from servemark.dashboards import plots, sides
from servemark.dashboards.facts import checks, readings, server_figures
from servemark.dashboards.panels import PANELS, Cell, Data, Facts, Figure, Note, Panel, Part, Table
from servemark.dashboards.words import NOTHING, figure, milliseconds, share
from servemark.harness.server.samples import by_replica, whole
from servemark.harness.types import ServerSample
from servemark.results.headline import prefix_hit_rate
from servemark.results.schema import items, number, part, text

MOST_REPLICAS = 16
# Enough to tell lines apart; further replicas share them.
COLOURS = ("decode", "ttft", "tpot", "e2e", "requests", "error", "flight", "queue")
NEGLIGIBLE_MS = 0.05
BESIDE = (
    "Means over what was counted between the first and the last reading, warm-up included. The client counts from "
    "sending a request to the arrival of its token at this machine. Outside the server's count lies what its HTTP "
    "front end does before that count begins and after it ends, the network both ways, and this client."
)


@PANELS.register("server")
def server(data: Data) -> Panel | None:
    facts = server_figures(data.run)
    if read := readings(data.run):
        facts.append(("readings", read))
    parts: list[Part] = [Facts(facts)] if facts else []
    parts += _beside(data.run)
    parts += _over_time(data)
    parts += _replicas(data)
    about = "The server's own metrics: what it says of its queue, its cache and its work while the load ran."
    return Panel("Server", about, parts) if parts else None


def _beside(run: Mapping[str, Any]) -> Iterator[Part]:
    rows = [_row(line) for line in sides.lines(run)]
    if not rows:
        return
    head = ("mean of", "how the server counts it", "by the client", "by the server", "outside the server")
    yield Table(head, rows, numbers_from=2, caption="The same latencies from both sides")
    yield Note(" ".join((*_explained(run), BESIDE)), "soft")
    for check in checks(run):
        if check.code == "outside_server" and check.word != "pass":
            yield Note(f"{check.message} {check.remedy}", "warn")


def _row(line: sides.Line) -> list[Cell]:
    label = Cell(f"↳ {line.label}" if line.part else line.label, "dim" if line.part else "")
    outside = "" if line.part or line.outside_ms is None else milliseconds(_or_nothing(line.outside_ms))
    client = "" if line.part else milliseconds(line.client_ms)
    return [label, Cell(line.meaning, "dim"), Cell(client), Cell(milliseconds(line.server_ms)), Cell(outside)]


def _or_nothing(ms: float) -> float:
    """Two clocks do not agree more closely."""
    return ms if abs(ms) >= NEGLIGIBLE_MS else 0.0


def _explained(run: Mapping[str, Any]) -> Iterator[str]:
    found = sides.counts(run)
    if found is None:
        yield "This server tells no TTFT of its own."
    elif found[0] == found[1]:
        yield f"Both sides counted {found[0]:,} first tokens."
    else:
        yield (
            f"The client counted {found[0]:,} first tokens and the server {found[1]:,}, so the means are not of the "
            "same requests."
        )


def _over_time(data: Data) -> Iterator[Part]:
    samples = whole(data.samples)
    if len(samples) < 2:
        return
    at = np.array([sample.at_ns for sample in samples], dtype=np.int64)
    for made in (_levels(data, samples, at), _cache(data, samples, at), _rates(data, samples, at)):
        if made is not None:
            yield made


def _series(samples: list[ServerSample], name: str) -> Any:
    return np.array([sample.values.get(name, np.nan) for sample in samples], dtype=np.float64)


def _server_figure(data: Data, label: str, unit: str, traces: list[plots.Trace]) -> Figure | None:
    if not traces:
        return None
    layout = {
        "xaxis": plots.time_axis(data.end_s),
        "yaxis": plots.axis(unit, rangemode="tozero"),
        "shapes": plots.shading(data.window_s, data.end_s),
        "hovermode": "x unified",
    }
    return Figure(label, traces, layout, 260, half=True)


def _traces(data: Data, at: Any, wanted: list[tuple[str, str, Any]]) -> list[plots.Trace]:
    shown = plots.spread(len(at), 600)
    x = plots.times(data.seconds(at)[shown])
    return [
        plots.line(x, plots.numbers(values[shown]), label, role)
        for label, role, values in wanted
        if not np.all(np.isnan(values))
    ]


def _levels(data: Data, samples: list[ServerSample], at: Any) -> Figure | None:
    wanted = [("running", "decode", _series(samples, "running")), ("waiting", "error", _series(samples, "waiting"))]
    return _server_figure(data, "Requests in the server", "requests", _traces(data, at, wanted))


def _cache(data: Data, samples: list[ServerSample], at: Any) -> Figure | None:
    hits, queries = (_steps(_series(samples, name)) for name in ("prefix_hits", "prefix_queries"))
    rate = np.where(queries > 0, hits / np.where(queries > 0, queries, 1), np.nan)
    wanted = [("KV in use", "tpot", _series(samples, "kv_usage") * 100), ("prefix cache hits", "e2e", rate * 100)]
    return _server_figure(data, "KV cache", "share, %", _traces(data, at, wanted))


def _rates(data: Data, samples: list[ServerSample], at: Any) -> Figure | None:
    seconds = _steps(at.astype(np.float64)) / 1e9
    wanted = [
        (label, role, _steps(_series(samples, name)) / np.where(seconds > 0, seconds, np.nan))
        for label, role, name in (("output", "decode", "generation_tokens"), ("input", "ttft", "prompt_tokens"))
    ]
    return _server_figure(data, "Tokens as the server counts them", "tok/s", _traces(data, at, wanted))


def _steps(values: Any) -> Any:
    """Growth since the reading before; nan for the first, and where a counter was reset."""
    grown = np.concatenate(([np.nan], np.diff(values)))
    return np.where(grown >= 0, grown, np.nan)


def _replicas(data: Data) -> Iterator[Part]:
    traces: list[plots.Trace] = []
    for place, (url, samples) in enumerate(list(by_replica(data.samples).items())[:MOST_REPLICAS]):
        at = np.array([sample.at_ns for sample in samples], dtype=np.int64)
        held = _series(samples, "running") + np.nan_to_num(_series(samples, "waiting"))
        traces += _traces(data, at, [(text(url, 60), COLOURS[place % len(COLOURS)], held)])
    drawn = _server_figure(data, "Requests in each replica", "requests", traces)
    if drawn is not None:
        yield drawn
    rows = [_replica(replica) for replica in items(data.run, "server", "replicas")[:MOST_REPLICAS]]
    if rows:
        most = ("most running", "most waiting", "most KV")
        head = ("replica", "requests", "output tok", *most, "prefix hits", "mean TTFT")
        yield Table(head, rows, caption="Each replica by its own metrics")


def _replica(found: Mapping[str, Any]) -> list[Cell]:
    delta, most = part(found, "delta"), part(found, "max")
    total, count = number(delta.get("ttft_sum")), number(delta.get("ttft_count"))
    kv = number(most.get("kv_usage"))
    return [
        Cell(text(found.get("url"), 100)),
        *(Cell(_whole(delta.get(name))) for name in ("requests_finished", "generation_tokens")),
        *(Cell(_whole(most.get(name))) for name in ("running", "waiting")),
        Cell(share(kv)),
        Cell(share(prefix_hit_rate(found))),
        Cell(milliseconds(total / count * 1000) if total is not None and count else NOTHING),
    ]


def _whole(value: object) -> str:
    found = number(value)
    return figure(found) if found is None else f"{found:,.0f}"

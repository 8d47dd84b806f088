"""Curves over a load: their charts, and their knee in a sentence. What does not count is drawn apart from the curve."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from servemark.dashboards import plots
from servemark.dashboards.facts import UNCERTAIN
from servemark.dashboards.hardware_columns import worded
from servemark.dashboards.panels import Figure
from servemark.dashboards.words import figure, milliseconds
from servemark.harness.figures.knee import LEAST_LOADS, Knee
from servemark.results.curves import Curve, Point, pareto

if TYPE_CHECKING:
    from rich.table import Table as Rows

ROLES = ("ttft", "e2e", "decode", "tpot", "requests", "flight")
Axis = tuple[Callable[[Point], float | None], str]
"""What a point has on it, and the title."""

AT_KNEE, INVALID = "knee", "INVALID"
STAR = "*"
"""Beside VALID, where the run's throughput is nothing to lean on."""
LOGARITHMIC = 20
"""So many times the lowest value is the highest where the axis is logarithmic."""


def of_figure(name: str, title: str) -> Axis:
    return (lambda point: point.figure(name), title)


OUTPUT = of_figure("output_tps", "output tok/s")
PER_GPU = of_figure("output_tps_per_gpu", "output tok/s per GPU")
PER_USER: Axis = (lambda point: point.tps_per_user, "tok/s per user: 1 / TPOT p50")


def grid(left: Sequence[int], head: Sequence[str], rows: Iterable[Sequence[str]]) -> Rows:
    """For the terminal: columns as wide as `left` says, and after them figures, set to the right."""
    from rich.table import Table as Rows
    from rich.text import Text

    made = Rows.grid(padding=(0, 2))
    for width in left:
        made.add_column(min_width=width)
    for _ in head[len(left) :]:
        made.add_column(justify="right", no_wrap=True, min_width=8)
    made.add_row(*(Text(each, style="dim") for each in head))
    for row in rows:
        made.add_row(*map(Text, row))
    return made


def marked(point: Point, name: str, said: str) -> str:
    """A figure that the sample does not certify stands after ~."""
    return said if point.certain(name) or point.figure(name) is None else UNCERTAIN + said


def shown(point: Point, name: str) -> str:
    return marked(point, name, worded(name, point.figure(name)))


def name_of(curve: Curve, several: bool = True) -> str:
    """With the engine and the workload where there are several curves."""
    by = f"by {curve.axis}" if curve.axis else ""
    return "  ".join(filter(None, (*((curve.engine, curve.workload) if several else ()), curve.others, by)))


def knee_sentence(curve: Curve) -> str | None:
    """None where the curve is none over a load, or nothing is measured yet. Loads that are left out are named."""
    found, left_out = curve.knee, curve.unsteady
    if found is None or not (curve.measured or left_out):
        return None
    said = _of_knee(curve, found)
    if not left_out:
        return said
    which = ", ".join(f"{load:g}" for load in left_out)
    return f"{said}; left out, as throughput there is unsteady ({STAR}): {curve.axis} {which}"


def _of_knee(curve: Curve, found: Knee) -> str:
    point, loads = curve.at_knee, [each.load for each in curve.measured]
    if found.kind == "few":
        steady = "steady " if curve.unsteady else ""
        return f"no knee: it takes {LEAST_LOADS} loads with a VALID run that has a {steady}throughput"
    if found.kind == "above":
        again = any(load > max(loads) for load in curve.unsteady)
        advice = "measure the higher ones for longer" if again else "go on to higher loads"
        return f"no knee up to {curve.axis} {max(loads):g}: throughput is still worth its latency; {advice}"
    if found.kind == "below":
        again = any(load < min(loads) for load in curve.unsteady)
        advice = "measure the lower ones for longer" if again else "begin with lower ones"
        return f"no knee from {curve.axis} {min(loads):g} on: it lies at or below that load; {advice}"
    if found.kind == "flat" or point is None or found.low is None or found.high is None:
        return "no knee: over these loads throughput and latency rise together"
    tail = marked(point, "ttft_p99_ms", milliseconds(point.figure("ttft_p99_ms")))
    at = f"knee at {curve.axis} {found.load:g}: {figure(point.figure('output_tps'))} tok/s at TTFT p99 {tail}"
    bound = f"; {found.high:g} overloads the server" if found.overload is not None else ""
    return f"{at} (by these loads between {found.low:g} and {found.high:g}{bound})"


def chart(curves: Sequence[Curve], x: Axis, y: Axis, label: str, certified: str = "") -> Figure | None:
    """A line for each curve through its VALID points. `certified` is the figure whose certainty is marked."""
    traces = [
        trace for place, curve in enumerate(curves) for trace in _traces(curve, place, x, y, certified, len(curves))
    ]
    if not traces:
        return None
    _name_once([trace for trace in traces if trace["name"] in (AT_KNEE, INVALID)])
    layout = {
        "xaxis": plots.axis(x[1], rangemode="tozero"),
        "yaxis": _vertical(y[1], [value for trace in traces for value in trace["y"] if value is not None]),
        "hovermode": "closest",
    }
    return Figure(label, traces, layout, 360, half=True)


def pareto_chart(curves: Sequence[Curve]) -> Figure | None:
    """Tokens/s per GPU against tokens/s per user, with each workload's points of which no other is better in both."""
    drawn = chart(curves, PER_USER, PER_GPU, "Throughput per GPU against tok/s per user")
    if drawn is None:
        return None
    best = pareto(curves)
    joined = [_front(f"Pareto front, {name}" if len(best) > 1 else "Pareto front", own) for name, own in best.items()]
    note = "Pareto front: points of which no other gives more to a user and more per GPU; open circles are left out."
    return Figure(drawn.label, [*joined, *drawn.data], drawn.layout, drawn.height, note if joined else "", half=True)


def _front(name: str, best: Sequence[Point]) -> plots.Trace:
    xs, ys = (plots.numbers([axis(point) or 0.0 for point in best]) for axis, _ in (PER_USER, PER_GPU))
    return plots.line(xs, ys, name, "good", width=7, opacity=0.3)


def _vertical(title: str, values: Sequence[float]) -> dict[str, Any]:
    """From zero on, unless one overloaded point would press all other latencies onto the axis."""
    least, most = min(values, default=0), max(values, default=0)
    if title.endswith(", ms") and least > 0 and most > LOGARITHMIC * least:
        return plots.axis(f"{title} (logarithmic)", type="log")
    return plots.axis(title, rangemode="tozero")


def _name_once(marks: Sequence[plots.Trace]) -> None:
    """In the legend."""
    for place, mark in enumerate(marks):
        mark["showlegend"] = mark["name"] not in [before["name"] for before in marks[:place]]


def _traces(curve: Curve, place: int, x: Axis, y: Axis, certified: str, count: int) -> Iterator[plots.Trace]:
    role, name = ROLES[place % len(ROLES)], name_of(curve, count > 1)
    drawn = [
        (a, b, point) for point in curve.points if (a := x[0](point)) is not None and (b := y[0](point)) is not None
    ]
    valid = [each for each in drawn if each[2].valid]
    if valid:
        yield plots.line(
            *_places(valid),
            name or "VALID",
            role,
            mode="lines+markers+text",
            text=[_label(point, certified) for *_, point in valid],
            textposition="top center",
            marker={
                "size": 8,
                "symbol": ["circle" if _sure(point, certified) else "circle-open" for *_, point in valid],
            },
            line={"dash": ("solid", "dash", "dot")[place // len(ROLES) % 3]},
            showlegend=count > 1,
            cliponaxis=False,
        )
    at_knee = curve.at_knee
    if knee := [each for each in valid if each[2] == at_knee]:
        yield _marks(knee, AT_KNEE, role, "star-diamond-open", 17, certified)
    if others := [each for each in drawn if not each[2].valid]:
        yield _marks(others, INVALID, "error", "x", 9, certified)


def _marks(
    drawn: Sequence[tuple[float, float, Point]], name: str, role: str, symbol: str, size: int, certified: str
) -> plots.Trace:
    texts = [f"{name} {_label(point, certified)}" for *_, point in drawn]
    return plots.dots(
        *_places(drawn),
        name,
        role,
        marker={"symbol": symbol, "size": size, "opacity": 1},
        text=texts,
        hoverinfo="text+x+y",
        cliponaxis=False,
    )


def _places(drawn: Sequence[tuple[float, float, Point]]) -> tuple[list[Any], list[Any]]:
    return plots.numbers([a for a, _, _ in drawn]), plots.numbers([b for _, b, _ in drawn])


def _label(point: Point, certified: str) -> str:
    said = point.name if point.load is None else f"{point.load:g}"
    return said if _sure(point, certified) else UNCERTAIN + said


def _sure(point: Point, certified: str) -> bool:
    """Whether the figure, where there is one, and the throughput can be leant on."""
    return not point.unsteady and (point.certain(certified) or point.figure(certified) is None)

"""A search for people, in words: what is measured now, what came of it, the answer in a sentence, a table of points."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

from servemark.dashboards.facts import UNCERTAIN
from servemark.dashboards.hardware_columns import columns_of, worded
from servemark.dashboards.words import NOTHING, figure, share
from servemark.results.schema import items, number, part, text
from servemark.results.unsteady import FIGURES as OF_THROUGHPUT

WORDS = {"meets": "MEETS", "misses": "MISSES", "uncertain": "UNCERTAIN"}
COLOURS = {"meets": "green", "misses": "red", "uncertain": "yellow"}
WHY = {
    "bracket": "looking for a load that meets and one that misses",
    "bisect": "between the highest that meets and the lowest that misses",
    "confirm": "again, to confirm it",
    "prove": "again, to narrow the interval",
    "again": "again, as the client was not up to it",
}
HEAD = ("load", "", "runs", "requests", "worth", "SLO met", "95 % interval", "TTFT p99", "TPOT p50", "tok/s")
UNSTEADY = (
    f"{UNCERTAIN} throughput, and what stands on it, may be far off: too little was measured for it to be steady, "
    "whatever the share that met the SLO"
)
MONEY = {
    "goodput_per_gpu": "{} good requests/s per GPU",
    "output_tps_per_gpu": "{} output tok/s per GPU",
    "goodput_requests_per_usd": "{} good requests per $",
    "usd_per_million_output_tokens": "${} per 1M output tokens",
}

BY_RUNS = {
    "output_tps_per_gpu": "{} output tok/s per GPU",
    "usd_per_1m_output_slo": "{} per 1M output tokens of requests that met the SLO",
    "joules_per_output_token": "{} J per output token",
    "mbu": "MBU {}",
    "mfu": "MFU {}",
}


def load_of(index: Mapping[str, Any], value: object) -> str:
    """`7.34 req/s`, `12 in flight`; what arrives are sessions where their later turns were seen."""
    load, rate = number(value), "sessions/s" if any(run.get("sessions") for run in items(index, "runs")) else "req/s"
    unit = "in flight" if part(index, "asked").get("by") == "concurrency" else rate
    return "no load" if load is None else f"{load:g} {unit}"


def goal(index: Mapping[str, Any]) -> str:
    """`ttft=500ms,tpot=50ms for 99 % of requests`."""
    asked = part(index, "asked")
    attainment, slo = number(asked.get("attainment")), text(asked.get("slo"), 300)
    if attainment is not None:
        return f"{slo} for {attainment * 100:.4g} % of requests"
    return f"{slo} for the share that each class asks" if part(asked, "classes") else slo


def asking(index: Mapping[str, Any], load: float, why: str) -> str:
    """Before a run."""
    return f"{load_of(index, load)}: {WHY.get(why, why)}"


def told(index: Mapping[str, Any], run_id: str) -> str:
    """After a run: its load's runs taken together."""
    run = next(each for each in items(index, "runs") if each.get("id") == run_id)
    name = load_of(index, run.get("load"))
    if run.get("state") == "void":
        return f"{name}: says nothing, as this client was not up to it ({text(run.get('reason'), 300)})"
    point = point_at(index, run.get("load"))
    runs = f", over {of(point, 'runs'):.0f} runs" if of(point, "runs") > 1 else ""
    return f"{name}: {met(point)} of {of(point, 'requests'):,.0f} requests met the SLO{runs}: {verdict(point)}"


def points_of(index: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The points, each with the figures of its share beside the others."""
    return [{**part(point, "share"), **point} for point in items(index, "points")]


def point_at(index: Mapping[str, Any], load: object) -> dict[str, Any]:
    return next((point for point in points_of(index) if point.get("load") == load), {})


def of(point: Mapping[str, Any], name: str) -> float:
    """A count."""
    return number(point.get(name)) or 0.0


def met(point: Mapping[str, Any]) -> str:
    requests = of(point, "requests")
    return share(of(point, "good") / requests) if requests else NOTHING


def verdict(point: Mapping[str, Any]) -> str:
    """The word of its state; of an uncertain one the side that its share is on."""
    state = text(point.get("state"), 20)
    if state != "uncertain":
        return state
    return f"{'meets' if point.get('passes') else 'misses'} it, not proved"


def interval(point: Mapping[str, Any]) -> str:
    low, high = number(point.get("low")), number(point.get("high"))
    return NOTHING if low is None or high is None else f"{share(low).removesuffix(' %')} to {share(high)}"


def sentence(index: Mapping[str, Any]) -> str:
    """The answer, with what must be said beside it."""
    answer = part(index, "answer")
    if not answer:
        return text(index.get("stopped"), 2_000) or "There is no answer yet."
    say = _SENTENCES.get(text(answer.get("kind"), 20), _void)
    return " ".join([say(index, answer), *_beside(index, answer)])


def _found(index: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
    proved, refuted = number(answer.get("proved")), number(answer.get("refuted"))
    if proved is not None and refuted is not None:
        bounds = f"{_confidence(index)} interval {proved:g} to {refuted:g}"
    elif refuted is not None:
        bounds = f"at {_confidence(index)} less than {refuted:g}, and no load is proved to meet it"
    elif proved is not None:
        bounds = f"at {_confidence(index)} {proved:g} or more, and no load is proved to miss it"
    else:
        bounds = f"no load is proved to meet or to miss it at {_confidence(index)}"
    runs = _runs(index, answer)
    return f"{load_of(index, answer.get('load'))} meets {goal(index)} ({bounds}; {runs})."


def _below(index: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
    point = point_at(index, answer.get("failing"))
    return (
        f"Even {load_of(index, answer.get('failing'))}, the lowest load asked, misses {goal(index)}: {met(point)} of "
        f"requests met it ({_confidence(index)} interval {interval(point)}; {_count(point)})."
    )


def _above(index: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
    point = point_at(index, answer.get("load"))
    proof = "" if point.get("state") == "meets" else ", which is not proved"
    return (
        f"{load_of(index, answer.get('load'))}, the highest load asked, still meets {goal(index)}{proof}: {met(point)} "
        f"of requests met it ({_confidence(index)} interval {interval(point)}; {_count(point)})."
    )


def _client(index: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
    why = next((r.get("reason") for r in items(index, "runs") if r.get("load") == answer.get("failing")), "")
    return (
        f"At least {load_of(index, answer.get('load'))} meets {goal(index)}; at "
        f"{load_of(index, answer.get('failing'))} this client, and not the server, is the limit ({text(why, 400)})."
    )


def _void(index: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
    why = next((r.get("reason") for r in items(index, "runs") if r.get("load") == answer.get("failing")), "")
    return (
        f"Nothing can be said: this client was not up to {load_of(index, answer.get('failing'))}, "
        f"the lowest load tried ({text(why, 400)})."
    )


_SENTENCES = {"found": _found, "below": _below, "above": _above, "client": _client}


def _beside(index: Mapping[str, Any], answer: Mapping[str, Any]) -> Iterator[str]:
    odd, split = (_loads(answer.get(name)) for name in ("odd", "split"))
    if odd:
        which = " and ".join(f"{load:g} ({met(point_at(index, load))})" for load in odd)
        yield f"Not monotone: below it, {which} missed it."
    failing = point_at(index, answer.get("failing"))
    for name, attainment in part(index, "asked", "classes").items():
        own = part(failing, "classes", name)
        if of(own, "good") < (number(attainment) or 0) * of(own, "requests"):
            yield f"At {load_of(index, answer.get('failing'))} class {text(name, 60)} misses it ({met(own)})."
    if split:
        yield f"Runs of one load disagree at {', '.join(f'{load:g}' for load in split)}."


def _loads(value: object) -> list[float]:
    return [load for each in value if (load := number(each)) is not None] if isinstance(value, list | tuple) else []


def _confidence(index: Mapping[str, Any]) -> str:
    return f"{(number(part(index, 'asked').get('confidence')) or 0) * 100:g} %"


def _runs(index: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
    ends = [point_at(index, answer.get(name)) for name in ("load", "failing")]
    runs = " + ".join(f"{of(point, 'runs'):.0f}" for point in ends)
    counts = list(dict.fromkeys(f"{of(point, 'requests'):,.0f}" for point in ends))
    each = f"{counts[0]} requests each" if len(counts) == 1 else f"{' and '.join(counts)} requests"
    return f"{runs} runs at the bracket, {each}"


def _count(point: Mapping[str, Any]) -> str:
    runs = of(point, "runs")
    return f"{runs:.0f} {'run' if runs == 1 else 'runs'}, {of(point, 'requests'):,.0f} requests"


def money(index: Mapping[str, Any]) -> str:
    """What the answer's load costs, and makes of its GPUs; empty where of these nothing was told."""
    found = part(index, "economics")
    said = [say.format(figure(number(found[name]))) for name, say in MONEY.items() if found.get(name) is not None]
    mark = UNCERTAIN if shaky(index, part(index, "answer").get("load")) else ""
    return ", ".join(f"{mark}{each}" for each in (*said, *_by_runs(index, found)))


def _by_runs(index: Mapping[str, Any], told: Mapping[str, Any]) -> Iterator[str]:
    """What the runs at the answer's load say of their hardware, on the whole."""
    load = part(index, "answer").get("load")
    for name, say in BY_RUNS.items():
        value = mean(index, load, name)
        if value is not None and told.get(name) is None:
            yield say.format(worded(name, value))


def columns(index: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Figures of the hardware that any run has."""
    figures = [part(run, "figures") for run in items(index, "runs")]
    return columns_of(lambda name: any(number(each.get(name)) is not None for each in figures))


def rows(index: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """A row for each load that has a run which counts, under HEAD, and below it one for each class of a mix."""
    for point in points_of(index):
        load, state = point.get("load"), text(point.get("state"), 20)
        names = ("ttft_p99_ms", "tpot_p50_ms", "output_tps")
        figures = (shown(index, load, name) for name in names)
        yield load_of(index, load), WORDS.get(state, state), f"{of(point, 'runs'):.0f}", *_share_cells(point), *figures
        for name in part(point, "classes"):
            yield f"  {text(name, 60)}", "", "", *_share_cells(part(point, "classes", name)), *("" for _ in names)


def _share_cells(share_of: Mapping[str, Any]) -> tuple[str, ...]:
    counts = (f"{of(share_of, name):,.0f}" for name in ("requests", "effective"))
    return (*counts, met(share_of), interval(share_of))


def shaky(index: Mapping[str, Any], load: object) -> str:
    """Why the throughput of a load is nothing to lean on, as the first of its runs says; empty where it is steady."""
    for run in items(index, "runs"):
        said = run.get("unsteady")
        if run.get("load") == load and run.get("state") == "counts" and isinstance(said, list) and said:
            return " ".join(text(each, 600) for each in said)
    return ""


def unsteady_notes(index: Mapping[str, Any]) -> list[str]:
    """What ~ means in these tables, and for each load that has it why."""
    loads = [point.get("load") for point in points_of(index)]
    said = [f"{UNCERTAIN} {load_of(index, load)}: {why}" for load in loads if (why := shaky(index, load))]
    return [UNSTEADY, *said] if said else []


def shown(index: Mapping[str, Any], load: object, name: str) -> str:
    """The mean of a figure over a load's runs, marked where it stands on a throughput that is not steady."""
    value = mean(index, load, name)
    marked = value is not None and name in OF_THROUGHPUT and shaky(index, load)
    return (UNCERTAIN if marked else "") + worded(name, value)


def mean(index: Mapping[str, Any], load: object, name: str) -> float | None:
    """Of a figure over a load's runs."""
    runs = (run for run in items(index, "runs") if run.get("load") == load and run.get("state") == "counts")
    values = [value for run in runs if (value := number(part(run, "figures").get(name))) is not None]
    return sum(values) / len(values) if values else None


def table_text(index: Mapping[str, Any], width: int = 120) -> str:
    """The points as plain text."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for place in range(len(HEAD)):
        table.add_column(justify="left" if place < 2 else "right", no_wrap=True)
    table.add_row(*HEAD)
    for row in rows(index):
        table.add_row(*map(Text, row))
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, highlight=False).print(table)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    notes = unsteady_notes(index)
    return "\n".join([*lines, *([""] if notes else []), *notes])

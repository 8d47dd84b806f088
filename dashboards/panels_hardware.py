"""The panel of efficiency: what the run made of its hardware, as modelled, as measured, and as the server has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from servemark.dashboards import deployment, plots
from servemark.dashboards import hardware as words
from servemark.dashboards.hardware import HOWS, decimal, dollars, sentence
from servemark.dashboards.panels import PANELS, Card, Cards, Cell, Data, Facts, Figure, Note, Panel, Part, Table
from servemark.dashboards.words import figure, share
from servemark.harness.efficiency.thresholds import THRESHOLDS
from servemark.results.headline import hardware_summary
from servemark.results.schema import items, number, part, text

_CONVENTIONS = {
    "mbu": "bytes moved, of what the memories could move; weights are read once a step, whatever its batch",
    "mfu": "FLOPs of the tokens that were served, of the dense peak of each dtype",
    "hfu": "the same, and the tokens that were drafted in vain",
}
_LABELS = {"mbu": "MBU, per step", "mfu": "MFU", "hfu": "HFU"}
_DATABRICKS = (
    "(parameters + KV cache) / TPOT, of the peak: each token is a step that reads all of both, the input "
    "embedding too, which a step does not read"
)
_MEASURED = (
    "Measured is what the GPUs' own counters say. Beside MFU that is the share of time in which the tensor cores "
    "worked, which is no count of FLOPs."
)
_IMPOSSIBLE = (
    "More than 100 % cannot be: something that this rests on is not so. Look at the kind and the number of GPUs, the "
    "format of the weights, and the count of steps."
)
_OVER_TIME = (
    ("MBU, modelled", "mbu_modelled", "decode", "solid"),
    ("MBU, measured", "mbu_measured", "decode", "dot"),
    ("MFU, modelled", "mfu_modelled", "tpot", "solid"),
    ("tensor cores, measured", "tensor_active", "tpot", "dot"),
)
_MOST = 400


@PANELS.register("efficiency")
def efficiency(data: Data) -> Panel:
    hardware = part(data.run, "hardware")
    about = "What the run made of its hardware in the steady window."
    doubted = [Note(" ".join(map(sentence, said)), "warn")] if (said := words.doubts(hardware)) else []
    parts = [
        *doubted,
        *_cards(data.run),
        *_shares(hardware),
        *_phases(hardware),
        *_over_time(data),
        *_rests_on(hardware),
    ]
    if not parts:
        return Panel("Efficiency", about, [Note(" ".join([words.GIVE, *words.unread(hardware)]), "soft")])
    said = [*words.lacks(hardware), *words.unread(hardware)]
    return Panel("Efficiency", about, [*parts, *([Note(" ".join(said), "soft")] if said else [])])


def _cards(run: Mapping[str, Any]) -> Iterator[Part]:
    hardware = part(run, "hardware")
    made = [_share_card(hardware, *each) for each in (("mbu", "decode"), ("mfu", "tpot"))]
    made += [_tokens_card(run), _joules_card(hardware), _dollars_card(hardware)]
    if cards := [card for card in made if card is not None]:
        yield Cards(cards)


def _share_card(hardware: Mapping[str, Any], what: str, role: str) -> Card | None:
    found = words.known(hardware, what)
    if not found:
        return None
    (how, value), *others = found
    beside = [f"{share(other)} {HOWS[each]}" for each, other in others]
    also = " · ".join(filter(None, (*beside, words.tensor(hardware) if what == "mfu" else "")))
    label = {"mbu": "Memory bandwidth, MBU", "mfu": "Arithmetic, MFU"}[what]
    return Card(label, share(value).removesuffix(" %"), "%", HOWS[how], also, role, _CONVENTIONS[what])


def _tokens_card(run: Mapping[str, Any]) -> Card | None:
    hardware, total = part(run, "hardware"), number(part(run, "summary").get("output_tps"))
    value = hardware_summary(hardware, total).get("output_tps_per_gpu")
    gpus = number(part(hardware, "deployment").get("gpus"))
    if value is None or gpus is None:
        return None
    also = f"{figure(total)} tok/s over {gpus:,.0f} GPU{'s' if gpus != 1 else ''}"
    return Card("Output per GPU", figure(value), "tok/s", "", also, "requests")


def _joules_card(hardware: Mapping[str, Any]) -> Card | None:
    found = part(hardware, "energy")
    value = number(found.get("joules_per_output_token"))
    return None if value is None else Card(
        "Energy per output token", figure(value), "J", text(found.get("source"), 60),
        f"{figure(number(found.get('watts')))} W drawn", "e2e",
    )  # fmt: skip


def _dollars_card(hardware: Mapping[str, Any]) -> Card | None:
    found = part(hardware, "cost")
    plain, slo = (number(found.get(name)) for name in ("usd_per_1m_output", "usd_per_1m_output_at_slo"))
    if plain is None and slo is None:
        return None
    at_slo = "" if slo is None else f"{dollars(slo)} counting requests that met the SLO"
    also = " · ".join(filter(None, (text(found.get("price_source"), 60), words.assumed(hardware))))
    return Card("Cost of 1M output tokens", dollars(plain), "", at_slo, also, "good")


def _shares(hardware: Mapping[str, Any]) -> Iterator[Part]:
    rows = [row for what in _LABELS if (row := _row(hardware, what)) is not None]
    databricks = number(part(hardware, "efficiency").get("databricks_mbu"))
    if databricks is not None:
        own = [Cell("MBU, Databricks' form"), Cell(_DATABRICKS, "dim"), *_figures([databricks, None, None])]
        rows.insert(1 if words.known(hardware, "mbu") else 0, own)
    if not rows:
        return
    head = ("", "convention", "modelled", "measured", "server's own")
    yield Table(head, rows, numbers_from=2, caption="How it is known")
    values = {key: number(row.get("value")) for key, row in words.rows(hardware).items()}
    if any(map(_impossible, values.values())):
        yield Note(_IMPOSSIBLE, "warn")
    if any(value is not None and how == "measured" for (_, how), value in values.items()):
        yield Note(_MEASURED, "soft")
    if said := words.texts(part(hardware, "efficiency").get("gap"), _MOST):
        yield Note(" ".join(map(sentence, said)), "soft")
    yield from _notes(hardware)


def _row(hardware: Mapping[str, Any], what: str) -> list[Cell] | None:
    if all(words.value_of(hardware, what, how) is None for how in HOWS):
        return None
    values = _figures([words.value_of(hardware, what, how) for how in HOWS])
    return [Cell(_LABELS[what]), Cell(_CONVENTIONS[what], "dim"), *values]


def _figures(values: list[float | None]) -> list[Cell]:
    return [Cell(share(value), "bad" if _impossible(value) else "") for value in values]


def _impossible(value: float | None) -> bool:
    return value is not None and value > THRESHOLDS.possible


def _notes(hardware: Mapping[str, Any]) -> Iterator[Part]:
    """What was counted for each share, and what its source says of it."""
    rows = []
    for (what, how), row in words.rows(hardware).items():
        unit = {"mbu": "B", "mfu": "FLOP", "hfu": "FLOP"}.get(what, "")
        counted = number(row.get("bytes_or_flops"))
        note = text(row.get("note"), _MOST)
        if note or counted is not None:
            label = f"{what.upper()}, {HOWS.get(how, how)}"
            rows.append([Cell(label), Cell(note, "dim"), Cell(decimal(counted, unit))])
    if rows:
        yield Table(("", "basis", "counted"), rows, numbers_from=2, folded="What each share counts")


def _phases(hardware: Mapping[str, Any]) -> Iterator[Part]:
    rows, why = [], []
    for name, found in list(part(hardware, "efficiency", "per_phase").items())[:4]:
        phase = text(name, 20)
        own = part({"own": found}, "own")
        shown = [number(own.get(each)) for each in ("mbu", "mfu")]
        if any(value is not None for value in shown):
            rows.append([Cell(phase), Cell(text(own.get("note"), _MOST), "dim"), *_figures(shown)])
        elif isinstance(found, str) and found:
            why.append(f"{phase.capitalize()} apart is not told: {text(found, _MOST).rstrip('.')}.")
    if rows:
        yield Table(("phase", "", "MBU", "MFU"), rows, numbers_from=2, caption="Decode and prefill apart")
    if why:
        yield Note(" ".join(why), "soft")


def _over_time(data: Data) -> Iterator[Part]:
    bins = items(data.run, "hardware", "efficiency", "over_time")[:1000]
    spans = [(number(each.get("from_s")), number(each.get("to_s"))) for each in bins]
    x = [None if a is None or b is None else round((a + b) / 2, 4) for a, b in spans]
    traces = []
    for label, name, role, dash in _OVER_TIME:
        values = [number(each.get(name)) for each in bins]
        if any(value is not None for value in values):
            drawn = plots.numbers([float("nan") if value is None else value * 100 for value in values])
            traces.append(plots.line(x, drawn, label, role, line={"dash": dash}))
    if traces:
        layout = {
            "xaxis": plots.time_axis(data.end_s),
            "yaxis": plots.axis("share of the peak, %", rangemode="tozero"),
            "shapes": plots.shading(data.window_s, data.end_s),
            "hovermode": "x unified",
        }
        note = "Shaded: outside the steady window."
        yield Figure("MBU and MFU over time", traces, layout, 300, note)


def _rests_on(hardware: Mapping[str, Any]) -> Iterator[Part]:
    if facts := deployment.facts(hardware):
        yield Facts(facts, "What this rests on")

"""What a run made of its hardware, in words: the same for the page and the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from servemark.dashboards.facts import is_simulated
from servemark.dashboards.words import NOTHING, figure, share
from servemark.results.schema import items, number, part, text

HOWS = {"modelled": "modelled", "measured": "measured", "server": "by the server"}
TENSOR = ("mfu", "measured")
"""Stands for the share of time in which the tensor cores worked."""
RESOURCES = {
    "compute": "arithmetic",
    "bandwidth": "memory bandwidth",
    "capacity": "memory capacity",
    "queueing": "queueing",
    "client": "the client or its load",
}
GIVE = (
    "Nothing is known of the hardware, so neither MBU and MFU nor a cost are given. Name the GPU with --gpu "
    "(`bench list gpus`), the model's config.json with --model-config, and a price with --gpu-price."
)
_NEEDED = (
    ("model", "the model is not known", "--model-config"),
    ("gpu", "the kind of GPU is not known", "--gpu"),
)
"""What MBU and MFU rest on."""
_NO_STEPS = "No modelled MBU"
_SHOWN = 2
"""Doubts in the terminal; the page has them all."""
_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def dollars(value: float | None) -> str:
    """Cents from a dollar up, three digits below: "$12.30", "$0.00174"."""
    if value is None:
        return NOTHING
    return f"${value:,.2f}" if 0.995 <= value < 1000 else f"${figure(value)}"


def decimal(value: float | None, unit: str) -> str:
    """With a prefix of powers of 1000, as makers of hardware count: "3.35 TB/s"."""
    if value is None:
        return NOTHING
    for size, prefix in _PREFIXES:
        if abs(value) >= size * 0.9995:
            return f"{figure(value / size)} {prefix}{unit}"
    return f"{figure(value)} {unit}"


def times(ratio: float | None) -> str:
    """`1.9x`; near 1 a digit more."""
    if ratio is None:
        return NOTHING
    digits = 2 if ratio < 1.095 else 1 if ratio < 9.95 else 0
    return f"{ratio:,.{digits}f}x"


def rows(hardware: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """The shares by what they are (`mbu`, `mfu`, `hfu`) and how they are known (one of HOWS)."""
    found = items(hardware, "efficiency", "rows")
    return {(text(row.get("what"), 20), text(row.get("how"), 20)): row for row in found}


def value_of(hardware: Mapping[str, Any], what: str, how: str) -> float | None:
    return number(rows(hardware).get((what, how), {}).get("value"))


def known(hardware: Mapping[str, Any], what: str) -> list[tuple[str, float]]:
    """How a share is known, and its value, the modelled one first; no tensor cores' time, which is no MFU."""
    hows = (how for how in HOWS if (what, how) != TENSOR)
    found = ((how, value_of(hardware, what, how)) for how in hows)
    return [(how, value) for how, value in found if value is not None]


def shares(hardware: Mapping[str, Any], what: str) -> str:
    """`MBU 46.0 % modelled, 53.0 % measured`; empty where nothing is known."""
    said = ", ".join(f"{share(value)} {HOWS[how]}" for how, value in known(hardware, what))
    return f"{what.upper()} {said}" if said else ""


def tensor(hardware: Mapping[str, Any]) -> str:
    """`tensor cores at work 8.0 %` of the time; empty where that was not measured."""
    value = value_of(hardware, *TENSOR)
    return "" if value is None else f"tensor cores at work {share(value)}"


def over_floor(hardware: Mapping[str, Any], name: str) -> str:
    """`TPOT is 1.9x its bandwidth floor`."""
    found = part(hardware, "limits", name)
    ratio = number(found.get("ratio"))
    floor = " ".join(filter(None, (text(found.get("binding"), 20), "floor")))
    return "" if ratio is None else f"{name.upper()} is {times(ratio)} its {floor}"


def resource(hardware: Mapping[str, Any]) -> str:
    """`memory bandwidth`; empty where that was not looked for or is not clear."""
    found = part(hardware, "binding")
    names = [text(each.get("resource"), 40) for each in (found, part(found, "tie"))]
    return " and ".join(RESOURCES.get(name, name) for name in names if name and name != "unclear")


def bound_by(hardware: Mapping[str, Any]) -> str:
    """`memory bandwidth binds it: the memories move 53 % of what they can`."""
    named, tie = resource(hardware), part(hardware, "binding", "tie")
    why = next(iter(reasons([tie] if tie else items(hardware, "binding", "evidence"))), "")
    return "" if not named else f"{named} bind{'' if tie else 's'} it" + (f": {_within(why)}" if why else "")


def _within(said: str) -> str:
    """A sentence within another: its first letter is small, unless it begins a term such as MBU."""
    return said if said[1:2].isupper() else said[:1].lower() + said[1:]


def reasons(evidence: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each piece of evidence says, without its full stop."""
    return [said.rstrip(".") for each in evidence if (said := text(each.get("text"), 400))]


def cost(hardware: Mapping[str, Any]) -> str:
    """`$0.842 per 1M output tokens, $1.21 at the SLO`, and on how many GPUs where nobody said."""
    found = part(hardware, "cost")
    plain, slo = (number(found.get(name)) for name in ("usd_per_1m_output", "usd_per_1m_output_at_slo"))
    if plain is None and slo is None:
        return ""
    if plain is None:
        return f"{dollars(slo)} per 1M output tokens at the SLO"
    said = f"{dollars(plain)} per 1M output tokens" + ("" if slo is None else f", {dollars(slo)} at the SLO")
    on = assumed(hardware)
    return said + ("" if not on else f" {on}" if slo is None else f", {on}")


def assumed(hardware: Mapping[str, Any]) -> str:
    """`if 1 GPU serves (assumed; say --gpus N)`; empty where somebody told how many there are."""
    found = part(hardware, "deployment")
    gpus = number(found.get("gpus"))
    if gpus is None or not text(found.get("layout_source")).startswith("assumed"):
        return ""
    return f"if {gpus:,.0f} GPU{' serves' if gpus == 1 else 's serve'} (assumed; say --gpus N)"


def energy(hardware: Mapping[str, Any]) -> str:
    """`0.618 J per output token, 1.62 tok/s/W`."""
    found = part(hardware, "energy")
    joules, tokens = (number(found.get(name)) for name in ("joules_per_output_token", "output_tokens_per_s_per_watt"))
    said = ["" if joules is None else f"{figure(joules)} J per output token"]
    said.append("" if tokens is None else f"{figure(tokens)} output tok/s/W")
    return ", ".join(filter(None, said))


def lines(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is known, what of it cannot be, and what is missing; none where there is nothing to say."""
    hardware = part(run, "hardware")
    found = (
        ("use", "; ".join(filter(None, (shares(hardware, "mbu"), shares(hardware, "mfu"), tensor(hardware))))),
        ("limit", "; ".join(filter(None, (over_floor(hardware, "tpot"), bound_by(hardware))))),
        ("cost", "; ".join(filter(None, (cost(hardware), energy(hardware))))),
        ("wrong?", "; ".join(doubts(hardware)[:_SHOWN])),
        ("lacks", missing(run)),
    )
    return [(label, said) for label, said in found if said]


def missing(run: Mapping[str, Any]) -> str:
    """Why there is no MBU or MFU and what gives them, where somebody may want them; see `_asks`."""
    hardware = part(run, "hardware")
    found = part(hardware, "deployment")
    why = [
        f"{_short(text(found.get(f'{what}_lacks'), 120)) or unknown} ({flag})"
        for what, unknown, flag in _NEEDED
        if found and not found.get(what)
    ]
    if not _asks(run):
        return ""
    if not why:
        return next((said for said in texts(hardware.get("lacks")) if said.startswith(_NO_STEPS)), "")
    what = "nothing modelled" if rows(hardware) else "no MBU or MFU"
    return f"{what}: {', '.join(why)}; `bench show RUN` takes these flags too"


def _short(why: str) -> str:
    return why.partition(";")[0].replace(" is on this machine", " here")


def _asks(run: Mapping[str, Any]) -> bool:
    """Not of a simulated server, nor of a hosted one whose hardware nobody spoke of."""
    url = text(part(run, "target").get("url"))
    hosted = url.startswith("https:") and not part(run, "hardware", "deployment", "asked")
    return not is_simulated(run) and not hosted


def doubts(hardware: Mapping[str, Any]) -> list[str]:
    """Signs that something is not what it was named."""
    return texts(hardware.get("doubts"))


def lacks(hardware: Mapping[str, Any]) -> list[str]:
    """Sentences on what is not known."""
    doubted = doubts(hardware)
    return [sentence(said) for said in texts(hardware.get("lacks")) if said not in doubted]


def unread(hardware: Mapping[str, Any]) -> list[str]:
    """Sentences on why no GPU was read, where none was."""
    telemetry = part(hardware, "telemetry")
    return [] if items(telemetry, "gpus") else [sentence(said) for said in texts(telemetry.get("notes"))]


def texts(found: object, limit: int = 400, most: int = 20) -> list[str]:
    """The texts of a list."""
    known = found[:most] if isinstance(found, list | tuple) else []
    return [said for each in known if (said := text(each, limit))]


def sentence(said: str) -> str:
    """With a capital and a full stop."""
    return said if not said else said[0].upper() + said[1:] + ("" if said.endswith((".", "!", "?", "…", ":")) else ".")

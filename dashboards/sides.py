"""The client's and the server's count of the same latencies, in words and figures for the terminal and the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from servemark.dashboards.words import milliseconds, name_of
from servemark.results.schema import items, number, part, text

STAGES = {"queue_time": "queue", "prefill_time": "prefill", "decode_time": "decode"}
# What a server's count means where its adapter does not say it more closely.
MEANINGS = {
    "ttft": "from when the server takes the request up to its first token",
    "itl": "between two steps that gave a request tokens",
    "tpot": "per output token, one value a request",
    "e2e": "from when the server takes the request up to its last token",
    "queue_time": "waiting in the server's queue",
    "prefill_time": "from leaving the queue to the first token",
    "decode_time": "from the first token to the last",
}
REST = "what these leave of the server's TTFT: its front end, and handing over between that and the engine"


@dataclass(frozen=True, slots=True)
class Line:
    """One latency in ms, None where a side does not have it; `part` marks a stage of the line above it."""

    label: str
    client_ms: float | None
    server_ms: float | None
    outside_ms: float | None
    meaning: str
    part: bool = False


def lines(run: Mapping[str, Any]) -> list[Line]:
    """TTFT with its stages first, then what else both sides have."""
    server = part(run, "server")
    notes = _notes(server)
    sides, stages = part(server, "both_sides"), _stages(server)
    found = [_side(name, part(sides, name), notes) for name in ("ttft",) if name in sides]
    found += _inside(part(sides, "ttft"), stages, notes)
    found += [_side(name, part(sides, name), notes) for name in ("itl", "tpot", "e2e") if name in sides]
    if "decode_time" in stages:
        found.append(_stage("decode_time", stages, notes))
    return found


def sentence(run: Mapping[str, Any]) -> str:
    """Both means of TTFT, and what passes outside the server's count; empty where one side has none."""
    ttft = part(run, "server", "both_sides", "ttft")
    client, server, outside = (number(ttft.get(name)) for name in ("client_ms", "server_ms", "outside_ms"))
    if client is None or server is None or outside is None:
        return ""
    sides = f"{milliseconds(client)} from sending, {milliseconds(server)} by the server's count"
    return f"{sides}: {milliseconds(outside)} outside it" if outside >= 0 else f"{sides}, {milliseconds(-outside)} more"


def stages_sentence(run: Mapping[str, Any]) -> str:
    """The stages before the first token that the server tells, in a line."""
    stages = _stages(part(run, "server"))
    return ", ".join(f"{STAGES[n]} {milliseconds(stages[n])}" for n in ("queue_time", "prefill_time") if n in stages)


def counts(run: Mapping[str, Any]) -> tuple[int, int] | None:
    """How many first tokens the client and the server counted, where both did."""
    ttft = part(run, "server", "both_sides", "ttft")
    client, server = number(ttft.get("client_n")), number(ttft.get("server_n"))
    return None if client is None or server is None else (round(client), round(server))


def _notes(server: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for source in items(server, "sources"):
        found = {name: text(note, 300) for name, note in part(source, "notes").items() if note} | found
    return found


def _stages(server: Mapping[str, Any]) -> dict[str, float]:
    told = part(server, "stages")
    return {name: ms for name in STAGES if (ms := number(part(told, name).get("ms"))) is not None}


def _side(name: str, found: Mapping[str, Any], notes: Mapping[str, str]) -> Line:
    client, server, outside = (number(found.get(key)) for key in ("client_ms", "server_ms", "outside_ms"))
    label = "ICL" if found.get("client_metric") == "icl" else name_of(name)
    return Line(label, client, server, outside, notes.get(name, MEANINGS[name]))


def _inside(ttft: Mapping[str, Any], stages: Mapping[str, float], notes: Mapping[str, str]) -> Iterator[Line]:
    before = [name for name in ("queue_time", "prefill_time") if name in stages]
    yield from (_stage(name, stages, notes) for name in before)
    rest = (number(ttft.get("server_ms")) or 0.0) - sum(stages[name] for name in before)
    if len(before) == 2 and rest >= 0.05:
        yield Line("rest", None, rest, None, REST, part=True)


def _stage(name: str, stages: Mapping[str, float], notes: Mapping[str, str]) -> Line:
    return Line(STAGES[name], None, stages[name], None, notes.get(name, MEANINGS[name]), part=True)

"""What a run's result says, read tolerantly: keys may be missing, and their values may be anybody's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from servemark.dashboards.words import figure, name_of, of_unit, share
from servemark.results.headline import prefix_hit_rate
from servemark.results.schema import items, number, part, text

LATENCIES = ("ttft", "ttfa", "itl", "icl", "tpot", "e2e")


@dataclass(frozen=True, slots=True)
class Check:
    """One check of the verdict."""

    code: str
    severity: str
    message: str
    remedy: str
    waived: bool
    value: str
    threshold: str

    @property
    def word(self) -> str:
        return "waived" if self.waived and self.severity == "invalid" else self.severity


@dataclass(frozen=True, slots=True)
class SloLine:
    """One limit of the SLO, or the SLO as a whole; `met` is None where that was not judged."""

    limit: str
    met: bool | None
    said: str

    @property
    def word(self) -> str:
        return "–" if self.met is None else "met" if self.met else "missed"


def is_valid(run: Mapping[str, Any]) -> bool:
    """A run without a verdict is not valid."""
    return part(run, "verdict").get("valid") is True


def is_simulated(run: Mapping[str, Any]) -> bool:
    return bool(run.get("simulated") or part(run, "target").get("simulated"))


def checks(run: Mapping[str, Any]) -> list[Check]:
    """The verdict's checks, the worst first."""
    found = [_check(each) for each in items(run, "verdict", "checks")]
    rank = {"invalid": 0, "waived": 1, "warning": 2, "pass": 3}
    return sorted(found, key=lambda check: rank.get(check.word, 2))


def _check(found: Mapping[str, Any]) -> Check:
    severity = text(found.get("severity"), 20)
    return Check(
        code=text(found.get("code"), 60),
        severity=severity if severity in ("pass", "warning", "invalid") else "warning",
        message=text(found.get("message"), 400),
        remedy=text(found.get("remedy"), 400),
        waived=found.get("waived") is True,
        value=_plain(found.get("value")),
        threshold=_plain(found.get("threshold")),
    )


def _plain(value: object) -> str:
    return figure(number(value)) if number(value) is not None else text(value, 60)


def subject(run: Mapping[str, Any]) -> str:
    """What was run on what: "chat on vllm 0.32.0, tiny"."""
    target = part(run, "target")
    workload = text(part(run, "workload").get("name"), 60) or "a workload"
    server = " ".join(filter(None, (text(target.get("name"), 40) or "a target", text(target.get("version"), 30))))
    model = text(target.get("model"), 80)
    return f"{workload} on {server}" + (f", {model}" if model else "")


def certain(entry: Mapping[str, Any], percentile: str) -> bool:
    """Whether the sample is large enough to certify this percentile; p50 always counts as certain."""
    certified = entry.get("certified")
    return percentile == "p50" or not isinstance(certified, list | tuple) or percentile in certified


def failures(run: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Kinds of error with how many requests failed so, the most frequent first."""
    found = [
        (text(name.removeprefix("failed_"), 40), count)
        for name, value in part(run, "summary").items()
        if name.startswith("failed_") and (count := number(value))
    ]
    return sorted(found, key=lambda pair: (-pair[1], pair[0]))


def slo_results(run: Mapping[str, Any]) -> list[SloLine]:
    """Each limit with what became of it; the joint share last."""
    lines = [_limit(run, each) for each in items(run, "slo", "results")]
    slo = part(run, "slo")
    joint, needed = number(slo.get("share")), number(slo.get("attainment"))
    if joint is not None:
        said = f"{share(joint)} of the requests meet every limit per request"
        asked = "" if needed is None else f"; asked for: {share(needed)}"
        lines.append(SloLine("all", None if needed is None else joint >= needed, said + asked))
    return lines


def _limit(run: Mapping[str, Any], found: Mapping[str, Any]) -> SloLine:
    limit, value = text(found.get("limit"), 80), number(found.get("value"))
    name, _, percentile = limit.partition("=")[0].partition(":")
    entry = part(run, "metrics", name)
    met = found.get("met") if isinstance(found.get("met"), bool) else None
    if not percentile and entry.get("kind") == "per_request":
        said = f"{share(value)} of the requests meet it"
    else:
        reached = "infinite" if value is None else of_unit(value, text(entry.get("unit"), 20))
        said = f"{name_of(name)}{' ' + percentile if percentile else ''} is {reached}"
    return SloLine(limit, met, said)


def server_figures(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the server's own metrics say over the run, where they were read."""
    server = part(run, "server")
    delta, most = part(server, "delta"), part(server, "max")
    hits = prefix_hit_rate(server)
    found = [
        ("preemptions", _count(delta.get("preemptions"))),
        ("prefix cache hits", None if hits is None else share(hits)),
        ("most waiting", _count(most.get("waiting"))),
        ("most running", _count(most.get("running"))),
        ("most KV in use", None if number(most.get("kv_usage")) is None else share(number(most.get("kv_usage")))),
    ]
    return [(label, value) for label, value in found if value is not None]


def _count(value: object) -> str | None:
    found = number(value)
    return None if found is None else f"{found:,.0f}"

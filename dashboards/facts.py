"""What a run's result says, read tolerantly: keys may be missing, and their values may be anybody's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from servemark.dashboards import cached
from servemark.dashboards.words import figure, name_of, of_unit, share
from servemark.results.headline import prefix_hit_rate
from servemark.results.schema import items, number, part, text

UNCERTAIN = "~"
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
        message=text(found.get("message"), 1_500),  # the end of an engine's log may be in it
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


def marked(entry: Mapping[str, Any], percentile: str) -> str:
    """The figure, after ~ where the sample does not certify it."""
    value = number(entry.get(percentile))
    return ("" if value is None or certain(entry, percentile) else UNCERTAIN) + figure(value)


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
    return slo_lines(part(run, "metrics"), part(run, "slo"))


def slo_lines(metrics: Mapping[str, Any], slo: Mapping[str, Any]) -> list[SloLine]:
    """Those of the run, or of one class by its own metrics."""
    lines = [_limit(metrics, each) for each in items(slo, "results")]
    joint, needed = number(slo.get("share")), number(slo.get("attainment"))
    if joint is not None:
        said = f"{share(joint)} of the requests meet every limit per request"
        asked = "" if needed is None else f"; asked for: {share(needed)}"
        lines.append(SloLine("all", None if needed is None else joint >= needed, said + asked))
    return lines


def _limit(metrics: Mapping[str, Any], found: Mapping[str, Any]) -> SloLine:
    limit, value = text(found.get("limit"), 80), number(found.get("value"))
    name, _, percentile = limit.partition("=")[0].partition(":")
    entry = part(metrics, name)
    met = found.get("met") if isinstance(found.get("met"), bool) else None
    if not percentile and entry.get("kind") == "per_request":
        said = f"{share(value)} of the requests meet it"
    else:
        reached = "infinite" if value is None else of_unit(value, text(entry.get("unit"), 20))
        said = f"{name_of(name)}{' ' + percentile if percentile else ''} is {reached}"
    return SloLine(limit, met, said)


def hang_ups(run: Mapping[str, Any]) -> str | None:
    """How many clients gave up, and after how long; None where nobody did."""
    found = part(run, "server", "gave_up")
    clients, waited_s = number(found.get("clients")), number(found.get("waited_s"))
    return f"{clients:,.0f} clients after {figure(waited_s)} s (median)" if clients else None


def _aborted(run: Mapping[str, Any]) -> str | None:
    """What the server did about those that gave up."""
    found = part(run, "server", "gave_up")
    aborted, cut, unwanted = (number(found.get(name)) for name in ("aborted", "cut", "unwanted_tokens"))
    said = [] if aborted is None or cut is None else [f"{aborted:,.0f} counted, of {cut:,.0f} that the client cut"]
    said += [] if unwanted is None else [f"{unwanted:,.0f} tokens generated that nobody received"]
    return "; ".join(said) or None


def server_figures(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the server's own metrics say over the run, where they were read."""
    server = part(run, "server")
    delta, most = part(server, "delta"), part(server, "max")
    found = [
        ("preemptions", _count(delta.get("preemptions"))),
        ("prefix cache", _cache_at_start(run)),
        ("prefix cache hits", _hits(run)),
        ("TTFT p50", cached.sentence(run)),
        ("accepted drafts", _accepted(delta)),
        ("engine steps", _steps(delta)),
        ("aborted requests", _aborted(run)),
        ("most waiting", _count(most.get("waiting"))),
        ("most running", _count(most.get("running"))),
        ("most KV in use", None if number(most.get("kv_usage")) is None else share(number(most.get("kv_usage")))),
    ]
    return [(label, value) for label, value in found if value is not None]


def launch_figures(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How the engine was started, where it was started for the run."""
    launch = part(run, "target", "launch")
    command, ready_s = text(launch.get("command"), 1_000), number(launch.get("ready_after_s"))
    if not command:
        return []
    return [("launched as", command), *([("ready after", of_unit(ready_s, "s"))] if ready_s is not None else [])]


def _cache_at_start(run: Mapping[str, Any]) -> str | None:
    """Where a state of it was asked for."""
    cache = part(run, "cache")
    return text(cache.get("said"), 200) or None if cache.get("protocol") in ("cold", "warm") else None


def _hits(run: Mapping[str, Any]) -> str | None:
    """As the verdict read them, beside what the workload implies; else what the server's metrics say."""
    cache = part(run, "cache")
    observed, expected = number(cache.get("observed_hit_rate")), number(cache.get("expected_hit_rate"))
    if observed is None or expected is None:
        hits = prefix_hit_rate(part(run, "server"))
        return None if hits is None else share(hits)
    by = {"responses": " by the responses", "counters": " by the server's counters"}.get(text(cache.get("source")), "")
    return f"{share(observed)}{by}; the workload implies {share(expected)}"


def _accepted(delta: Mapping[str, Any]) -> str | None:
    """Of the tokens that speculative decoding drafted."""
    drafted, accepted = number(delta.get("spec_draft_tokens")), number(delta.get("spec_accepted_tokens"))
    return f"{share(accepted / drafted)} of {drafted:,.0f} tokens" if drafted and accepted is not None else None


def _steps(delta: Mapping[str, Any]) -> str | None:
    steps, tokens = number(delta.get("iterations")), number(delta.get("iteration_tokens"))
    if not steps:
        return None
    return f"{steps:,.0f}" + (f" of {figure(tokens / steps)} tokens each" if tokens else "")


def readings(run: Mapping[str, Any]) -> str:
    """How often the server's metrics were read, and why there is a gap; empty where that is not known."""
    server = part(run, "server")
    sources, absent = items(server, "sources"), server.get("absent")
    places = ", ".join(text(each, 100) for each in absent[:8]) if isinstance(absent, list) else ""
    said = [f"none told at {places}"] if places else []
    if sources:
        good, bad = (sum(number(source.get(key)) or 0 for source in sources) for key in ("samples", "failures"))
        why = next((text(source.get("last_failure"), 100) for source in sources if source.get("last_failure")), "")
        if good or bad:  # of a run that was killed nobody counted them
            said.append(f"{good:,.0f}" + (f", {bad:,.0f} failed ({why})" if bad else ""))
    return "; ".join(said)


def _count(value: object) -> str | None:
    found = number(value)
    return None if found is None else f"{found:,.0f}"

"""What a target cannot promise, said for the run at hand: what was asked, what came, and which figures it touches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from servemark.dashboards.words import NOTHING, share
from servemark.results.headline import prefix_hit_rate
from servemark.results.schema import number, part


def unpromised(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Subject and sentence of each promise that the target does not give; one that is not told of is taken as given."""
    return [(label, said) for label, said in _found(run, part(run, "target", "promises")) if said]


def _found(run: Mapping[str, Any], promises: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, label, say in (
        ("fixed_length", "output lengths", _lengths),
        ("exact_counts", "token counts", _counts),
        ("per_chunk_counts", "tokens per chunk", _chunks),
        ("cached_tokens", "prefix cache", _cache),
    ):
        if promises.get(name) is False:
            yield label, say(run)


def _lengths(run: Mapping[str, Any]) -> str:
    asked, got, drift = (part(run, "metrics", n) for n in ("asked_output_tokens", "output_tokens", "output_drift"))
    if not number(asked.get("n")) or not number(got.get("n")):
        return "cannot be forced; the model ends its answers where it likes."
    if drift.get("min") == drift.get("max") == 0:
        return "cannot be forced; in this run every one came as asked."
    pairs = (f"{p} {_count(got, p)} for {_count(asked, p)}" for p in ("p50", "p95"))
    return f"cannot be forced; got for asked, in tokens: {', '.join(pairs)}. Compare runs with like lengths only."


def _counts(run: Mapping[str, Any]) -> str:
    summary = part(run, "summary")
    by = {name: number(value) or 0 for name, value in summary.items() if name.startswith("counted_by_")}
    estimated, total = by.get("counted_by_estimate", 0), sum(by.values())
    if not estimated:
        return "are the server's own, which it does not promise to be exact."
    return f"are an estimate in {share(estimated / total)} of the responses: tok/s, TPOT and ITL are approximate."


def _chunks(run: Mapping[str, Any]) -> str:
    if part(run, "clock").get("stamp") == "engine":
        return "come as the first and the rest together: ITL is an answer's average, not a gap. Read TPOT."
    known, all_of_them = (number(part(run, "metrics", name).get("n_requests")) or 0 for name in ("itl", "icl"))
    if known and known >= all_of_them:
        return "are not told; each chunk held one in this run, so ITL is what ICL is."
    if not all_of_them:
        return "are not told."
    some = f"of {known:,.0f} of {all_of_them:,.0f} responses, those with one token to a chunk" if known else "not known"
    return f"are not told: ITL is {some}. Read ICL, the gaps between chunks, and TPOT."


def _cache(run: Mapping[str, Any]) -> str:
    """Nothing to say where somebody tells the hits after all."""
    if number(part(run, "metrics", "cached_share").get("n")) or prefix_hit_rate(part(run, "server")) is not None:
        return ""
    return "hits are not known: neither the responses nor the server's metrics tell them."


def _count(entry: Mapping[str, Any], percentile: str) -> str:
    found = number(entry.get(percentile))
    return NOTHING if found is None else f"{found:,.0f}"

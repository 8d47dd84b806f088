"""Reasons that lie with lengths, counts, the prefix cache and other clients."""

from __future__ import annotations

import numpy as np

from servemark.harness.figures.chunks import counted
from servemark.harness.figures.frame import MISSING
from servemark.harness.verdict.evidence import Evidence, Finding, graded, passed, reason, warning


@reason("token_counts")
def token_counts(evidence: Evidence) -> Finding:
    """Two sources disagree on the tokens of the same responses."""
    frame, limit = evidence.frame, evidence.thresholds.count_mismatch_share
    tokens, known = counted(frame)
    sums = np.bincount(frame.chunk_rows, tokens, len(frame))
    rows = known & frame.ok & frame.measured & (frame["output_tokens"] != MISSING)
    total = int(frame["output_tokens"][rows].sum())
    off = float(np.abs(sums[rows] - frame["output_tokens"][rows]).sum()) / total if total else 0.0
    if off:
        message = f"Counts per chunk and per response differ by {off:.2%} of {total} tokens."
        remedy = "The server swallows or merges tokens: trust its usage, and read ICL in place of ITL."
        return graded(message, remedy, off, 0.0, limit)
    return _server_tokens(evidence, limit)


def _server_tokens(evidence: Evidence, limit: float) -> Finding:
    """The server's own counter against ours, where both saw the same requests and all of them succeeded."""
    counter, ours = evidence.counter("generation_tokens"), evidence.frame["output_tokens"]
    if counter is None or not evidence.covers_run() or not evidence.frame.ok.all() or (ours == MISSING).any():
        return passed("No two sources of token counts disagree.")
    total = int(ours.sum())
    off = abs(counter - total) / max(1, total)
    message = f"The server counted {counter:.0f} output tokens, the responses {total}."
    remedy = "Look for another client, for tokens that the server hides, or for requests it ran twice."
    return graded(message, remedy, off, limit, None)


@reason("prompt_length")
def prompt_length(evidence: Evidence) -> Finding:
    """Prompts were not of the asked length, as the server counts it."""
    frame, limits = evidence.frame, evidence.thresholds
    drift, asked = evidence.view.frame.floats("prompt_tokens"), frame.floats("asked_prompt_tokens")
    rows = frame.measured & ~np.isnan(drift) & (asked > 0)
    if not rows.any():
        return passed("No prompt has both an asked and a counted length.")
    off = float(np.abs(drift - asked)[rows].sum() / asked[rows].sum())
    message = f"Prompts are off their asked length by {off:.2%} on average."
    remedy = "Let the server's or a local tokenizer make them, or send token ids."
    return graded(message, remedy, off, limits.prompt_drift_warn_share, limits.prompt_drift_share)


@reason("output_length")
def output_length(evidence: Evidence) -> Finding:
    """Responses were not of the forced length."""
    if not evidence.force_output_length:
        return passed("Output lengths are left to the model.")
    frame, limit = evidence.frame, evidence.thresholds.output_off_share
    got, asked = frame.floats("output_tokens"), frame.floats("asked_output_tokens")
    rows = frame.measured & frame.ok & ~np.isnan(got) & ~np.isnan(asked)
    if not rows.any():
        return passed("No response has both an asked and a counted length.")
    share = float((got != asked)[rows].mean())
    message = f"{share:.2%} of responses are not of the asked length."
    promised = evidence.promises is None or evidence.promises.fixed_length
    if promised:
        return graded(message, "See that the server obeys ignore_eos and has room for the length.", share, 0.0, limit)
    remedy = "This server cannot force a length; compare only runs with like output lengths."
    return graded(message, remedy, share, 0.0, None)


@reason("prefix_cache")
def prefix_cache(evidence: Evidence) -> Finding:
    """The server answered prompts from its prefix cache though the workload asks for no repeats."""
    share, source = _cached(evidence)
    if share is None:
        if evidence.prompts_unique:
            return passed("Prompts are unique; the server does not tell its prefix cache hits.")
        remedy = "Start the server so that it reports cached tokens, or read the result as one with a warm cache."
        return warning("Prompts repeat, and the server does not tell its prefix cache hits.", remedy)
    found = f"{share:.2%} of prompt tokens came from the prefix cache, {source}"
    if not evidence.prompts_unique:
        return passed(f"{found}; the workload repeats prompts.", share)
    limit = evidence.thresholds.cached_share + _shared_share(evidence)
    remedy = "Reset the server's prefix cache, change --seed, or look for a prefix that all prompts share."
    return graded(f"{found}; {limit:.2%} are explained.", remedy, share, None, limit)


def _cached(evidence: Evidence) -> tuple[float | None, str]:
    """Share of prompt tokens from the cache, and who says so: the responses, or else the server's counters."""
    frame = evidence.frame
    rows = frame.measured & (frame["prompt_tokens"] > 0)
    told = rows & (frame["cached_tokens"] != MISSING)
    if told.any():
        # Some servers leave the field out where it is 0.
        return float(frame["cached_tokens"][told].sum() / frame["prompt_tokens"][rows].sum()), "by the responses"
    for hits, total in (("prompt_tokens_cached", "prompt_tokens"), ("prefix_hits", "prefix_queries")):
        part, whole = evidence.counter(hits), evidence.counter(total)
        if part is not None and whole:
            return part / whole, "by the server's counters"
    return None, ""


def _shared_share(evidence: Evidence) -> float:
    """Share of the prompts that the tokens they all start with, a chat template's say, can explain."""
    prompts = evidence.frame["prompt_tokens"]
    known = prompts[evidence.frame.measured & (prompts > 0)]
    return evidence.shared_prefix_tokens * len(known) / int(known.sum()) if len(known) else 0.0


@reason("other_load", "warning")
def other_load(evidence: Evidence) -> Finding:
    """The server finished more requests than this run sent: another client was there."""
    finished = evidence.counter("requests_finished")
    if finished is None:
        return passed("The server does not tell how many requests it finished.")
    frame = evidence.frame
    sent, done = frame["sent_ns"], frame["done_ns"]
    possible = (sent != MISSING) & (sent <= evidence.server[-1].at_ns)
    possible &= (done == MISSING) | (done >= evidence.server[0].at_ns)
    ours = int((possible * (1 + frame["resends"])).sum())
    limits = evidence.thresholds
    allowed = ours + max(limits.foreign_requests, limits.foreign_requests_share * ours)
    message = f"The server finished {finished:.0f} requests while this run had {ours}."
    return graded(message, "Keep other clients off the server while measuring.", finished, allowed, None)

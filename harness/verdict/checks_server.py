"""Reasons that lie with lengths, counts, the prefix cache and other clients."""

from __future__ import annotations

import numpy as np

from servemark.harness.figures.chunks import counted
from servemark.harness.figures.frame import MISSING
from servemark.harness.figures.hang_ups import HangUps, hang_ups
from servemark.harness.verdict.evidence import Evidence, Finding, graded, invalid, passed, reason, warning


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
    """The prefix cache gave more of the prompts than the workload implies, or far less in a run that was to be warm."""
    hits, limits = evidence.hits, evidence.thresholds
    if hits.observed is None or hits.ideal is None or hits.expected is None:
        return _untold(evidence)
    found = f"{hits.observed:.2%} of prompt tokens came from the prefix cache, by {_BY[hits.source or 'responses']}"
    limit = hits.ideal + limits.cached_share
    if hits.observed > limit:
        return _held_before(evidence, f"{found}; the workload explains at most {hits.ideal:.2%}.", limit)
    message = f"{found}; the workload implies {hits.expected:.2%}."
    least = hits.expected - limits.uncached_share
    if evidence.cache.protocol == "warm" and hits.observed < least:
        return warning(message, _why_cold(evidence), hits.observed, least)
    return passed(message, hits.observed, limit)


_BY = {"responses": "the responses", "counters": "the server's counters"}


def _untold(evidence: Evidence) -> Finding:
    if evidence.prompts_unique:
        return passed("Prompts are unique; the server does not tell its prefix cache hits.")
    remedy = "Start the server so that it reports cached tokens, or read the result as one with a warm cache."
    return warning("Prompts repeat or begin alike, and the server does not tell its prefix cache hits.", remedy)


def _held_before(evidence: Evidence, message: str, limit: float) -> Finding:
    """Where prompts repeat and nobody asked for a state of the cache, what it held is part of what was measured."""
    observed = evidence.hits.observed
    if evidence.cache.protocol == "as_is" and not evidence.prompts_unique:
        return warning(message, "Say which cache is meant: give --cache cold or --cache warm.", observed, limit)
    remedy = "Give --cache cold, change --seed, or look for a prefix that all prompts share."
    if evidence.cache.protocol != "as_is":
        remedy = "Look for another client that sends the same prompts, or restart the server before the run."
    return invalid(message, remedy, observed, limit)


def _why_cold(evidence: Evidence) -> str:
    """What is known to keep a warmed cache from hitting, the surest first."""
    warm_up, server = evidence.cache.warm_up, evidence.cache.server
    if server.enabled is False:
        return "The server runs without prefix caching; start it with it, or run cold."
    if warm_up is not None and warm_up.failed:
        return f"{warm_up.failed} of {warm_up.requests} requests of the warm-up failed: {warm_up.failure}."
    if warm_up is not None and server.capacity_tokens is not None and warm_up.prompt_tokens > server.capacity_tokens:
        needed, room = warm_up.prompt_tokens, server.capacity_tokens
        return f"The warmed prompts take {needed} tokens and the KV memory holds {room}; repeat fewer or shorter ones."
    return "See that the server caches prefixes, and that its KV memory holds the warmed prompts beside the load."


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


@reason("gave_up", "warning")
def gave_up(evidence: Evidence) -> Finding:
    """Clients gave up, and the server went on working for nobody."""
    found = hang_ups(evidence.frame, evidence.server)
    if found is None:
        return passed("No client gave up.")
    limits, said = evidence.thresholds, f"{found.clients} clients gave up after {found.waited_s:.3g} s (median)"
    if not found.cut:
        return passed(f"{said}, before their requests were sent.", 0)
    least = limits.aborted_share * found.cut
    if found.aborted is not None and found.aborted >= least:
        return passed(f"{said}; {_counted(found)}.", found.aborted, least)
    if found.unwanted_share is None and found.aborted is None:
        return passed(f"{said}; the server does not tell what it did about it.")
    if found.unwanted_share is not None and found.unwanted_share <= limits.unwanted_share:
        return passed(f"{said}; {_counted(found)}.", found.unwanted_share, limits.unwanted_share)
    remedy = "The server works for nobody: see that it looks for hang-ups, and that a proxy before it passes them on."
    return warning(f"{said}; {_counted(found)}.", remedy, found.aborted, least)


def _counted(found: HangUps) -> str:
    """What the server did, in its own figures."""
    said = []
    if found.aborted is not None:
        of = f" of the {found.cut} that were cut" if found.cut != found.clients else ""
        said.append(f"the server counted {found.aborted} aborted requests{of}")
    if found.unwanted_share is not None:
        who = "it" if said else "the server"
        said.append(
            f"{who} generated {found.unwanted_tokens:,} tokens that nobody received, of {found.missing_tokens:,} that "
            "were still to come"
        )
    return ", and ".join(said)

"""Reasons that lie with what the target can tell of itself: who counts tokens, and what it says of its own times."""

from __future__ import annotations

from servemark.harness.figures.both_sides import BothSides, both_sides
from servemark.harness.figures.chunks import counted
from servemark.harness.figures.frame import MISSING
from servemark.harness.verdict.evidence import Evidence, Finding, graded, invalid, passed, reason, warning


@reason("token_source", "warning")
def token_source(evidence: Evidence) -> Finding:
    """Output tokens were estimated, or counted by nobody."""
    frame = evidence.frame
    rows = frame.measured & frame.ok
    if not rows.any():
        return passed("There is no response whose tokens could be counted.")
    estimated = float((frame["token_source"][rows] == "estimate").mean())
    uncounted = float((frame["output_tokens"][rows] == MISSING).mean())
    if uncounted:
        message = f"Nobody counted the output tokens of {uncounted:.2%} of responses; token figures leave them out."
        return warning(message, "Use an endpoint whose responses hold a usage, and read E2E and TTFT.", uncounted, 0.0)
    if not estimated:
        return passed("The output tokens of every response were counted.", 0.0, 0.0)
    message = f"The output tokens of {estimated:.2%} of responses are an estimate."
    remedy = "Read TPOT, ITL and tok/s as approximate, and compare them only with runs against the same server."
    return warning(message, remedy, estimated, 0.0)


@reason("chunk_counts")
def chunk_counts(evidence: Evidence) -> Finding:
    """Chunks came without their token counts, so ITL is of the other responses only."""
    frame, limit = evidence.frame, evidence.thresholds.uncounted_share
    rows = frame.measured & frame.ok & (frame.counts > 1)
    if not rows.any():
        return passed("No response came in several chunks.")
    share = float((~counted(frame)[1])[rows].mean())
    if not share:
        return passed("It is known of every response how many tokens each chunk held.", 0.0, limit)
    message = f"{share:.2%} of responses do not say how many tokens their chunks held; ITL is of the others."
    remedy = "Read ICL and TPOT in place of ITL."
    if share > limit and any(each.metric == "itl" for each in (evidence.slo.every_limit if evidence.slo else ())):
        return invalid(message, "Set the limit on ICL or TPOT in place of ITL.", share, limit)
    return graded(message, remedy, share, limit, None)


@reason("outside_server", "warning")
def outside_server(evidence: Evidence) -> Finding:
    """TTFT as the client stamped it and as the server counts it lie far apart."""
    ttft = both_sides(evidence.frame, evidence.server).get("ttft")
    if (evidence.frame["stamp"] == "engine").all():
        return passed("The engine's own stamps are those of the run.")
    if ttft is None:
        return passed("The server tells no TTFT of its own to hold against the client's.")
    limits, outside = evidence.thresholds, ttft.outside_ms
    most = max(limits.outside_ms, limits.outside_share * ttft.client.ms)
    least = -max(limits.below_server_ms, limits.below_server_share * ttft.server.ms)
    if outside > most:
        remedy = (
            "Look at the way between: network, proxy or TLS, a server's front end short of CPU (HTTP, chat template, "
            "tokeniser), or a busy client (client_cpu, loop_stalls)."
        )
        return warning(_said(ttft), remedy, outside, most)
    if outside < least:
        remedy = (
            "The server's mean holds other requests than ours: look for another client, or for a server in between."
        )
        return warning(_said(ttft), remedy, outside, least)
    return passed(_said(ttft), outside, most)


def _said(ttft: BothSides) -> str:
    sides = f"Mean TTFT is {ttft.client.ms:.4g} ms from sending and {ttft.server.ms:.4g} ms by the server's own count"
    if ttft.client.n != ttft.server.n:
        sides += f" (of {ttft.client.n} and of {ttft.server.n} requests)"
    outside = ttft.outside_ms
    return (
        f"{sides}: {outside:.3g} ms pass outside it." if outside >= 0 else f"{sides}, which is {-outside:.3g} ms more."
    )

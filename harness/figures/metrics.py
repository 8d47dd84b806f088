"""The metric table: one decorated function each. `docs/metrics.md` holds the definitions for readers.

The functions are declared without numpy and return, by kind, float64 per row of the frame, Gaps, or a Scalar.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from servemark.harness.figures.view import METRICS, Metric, Scalar, View, metric, view_of

if TYPE_CHECKING:
    from servemark.harness.figures.chunks import Gaps, Tokens
    from servemark.harness.figures.frame import Floats, Frame, Mask, Window

__all__ = ["METRICS", "Metric", "Scalar", "View", "errors", "view_of"]

# Latencies


@metric("ttft", "ms", "lower", origin="run", early=True)
def ttft(view: View) -> Floats:
    """Time to first token: the first event that carries one, less the origin."""
    return view.since_ms("first_token_ns")


@metric("ttft_sent", "ms", "lower", origin="sent", early=True)
def ttft_sent(view: View) -> Floats:
    """TTFT counted from the moment the request was sent."""
    return view.frame.ms_between("sent_ns", "first_token_ns")


@metric("ttfa", "ms", "lower", origin="run", early=True)
def ttfa(view: View) -> Floats:
    """Time to first answer token: the first token that is not reasoning."""
    return view.since_ms("first_answer_ns")


@metric("itl", "ms", "lower", "pooled")
def itl(view: View) -> Gaps:
    """Inter-token latency, pooled: a gap before a chunk of k tokens is k samples of gap / k."""
    return view.itl


@metric("icl", "ms", "lower", "pooled")
def icl(view: View) -> Gaps:
    """Inter-chunk latency, pooled: the raw gaps between reads that carried tokens."""
    return view.icl


@metric("tpot", "ms", "lower", vacuous=True)
def tpot(view: View) -> Floats:
    """Time per output token after the first chunk: (last - first token) / (N - tokens in the first chunk)."""
    first = view.first_tokens
    return _tpot(view, view.frame.floats("output_tokens") - _or_one(first))


@metric("tpot_n1", "ms", "lower", vacuous=True)
def tpot_n1(view: View) -> Floats:
    """TPOT in the field's form, which takes the first chunk for one token: (last - first token) / (N - 1)."""
    return _tpot(view, view.frame.floats("output_tokens") - 1)


@metric("e2e", "ms", "lower", origin="run")
def e2e(view: View) -> Floats:
    """End-to-end latency: last token less the origin; usage and end markers do not extend it."""
    return view.since_ms("last_token_ns")


@metric("e2e_sent", "ms", "lower", origin="sent")
def e2e_sent(view: View) -> Floats:
    """E2E counted from the moment the request was sent."""
    return view.frame.ms_between("sent_ns", "last_token_ns")


@metric("e2e_per_token", "ms/tok", "lower", origin="run")
def e2e_per_token(view: View) -> Floats:
    """Normalized E2E: E2E / output tokens."""
    return _over(e2e(view), view.frame.floats("output_tokens"))


@metric("tps_user", "tok/s", "higher", vacuous=True)
def tps_user(view: View) -> Floats:
    """Tokens per second that one user sees: 1 / TPOT."""
    return _over(1000.0, tpot(view))


@metric("fluidity", "share", "higher", origin="run")
def fluidity(view: View) -> Floats:
    """Share of a response's tokens that met their deadline, slack being carried forward."""
    return view.deadlines.fluidity


@metric("stall_time", "ms", "lower", origin="run")
def stall_time(view: View) -> Floats:
    """Time a response's tokens after the first chunk came past their deadlines, added up."""
    return view.deadlines.stall_ms


# Lengths


@metric("output_tokens", "tok")
def output_tokens(view: View) -> Floats:
    """Output tokens of a request, reasoning included."""
    return view.frame.floats("output_tokens")


@metric("asked_output_tokens", "tok")
def asked_output_tokens(view: View) -> Floats:
    """Output tokens that were asked of a request."""
    return view.frame.floats("asked_output_tokens")


@metric("prompt_tokens", "tok")
def prompt_tokens(view: View) -> Floats:
    """Prompt tokens of a request as the server counts them."""
    return view.frame.floats("prompt_tokens")


@metric("output_drift", "tok")
def output_drift(view: View) -> Floats:
    """Output tokens less the asked number."""
    return view.frame.floats("output_tokens") - view.frame.floats("asked_output_tokens")


@metric("prompt_drift", "tok")
def prompt_drift(view: View) -> Floats:
    """Prompt tokens less the asked number."""
    return view.frame.floats("prompt_tokens") - view.frame.floats("asked_prompt_tokens")


@metric("cached_share", "share")
def cached_share(view: View) -> Floats:
    """Share of a prompt's tokens that the server took from its prefix cache."""
    return _over(view.frame.floats("cached_tokens"), view.frame.floats("prompt_tokens"))


# The client


@metric("send_lag", "ms", "lower", origin="intended", failures="apart")
def send_lag(view: View) -> Floats:
    """Sent less intended: how late the request left, by a busy client or for want of a slot under a cap."""
    return view.frame.ms_between("intended_ns", "sent_ns")


@metric("connect_time", "ms", "lower", failures="apart")
def connect_time(view: View) -> Floats:
    """Time to open the connection a request went over; never part of TTFT where it was opened ahead."""
    return view.frame.ms_between("connect_started_ns", "connect_ns")


@metric("coalesced_share", "share", "none", "scalar")
def coalesced_share(view: View) -> Scalar:
    """Share of reads that held several token-bearing events, which then share one stamp."""
    rows = view.frame.measured
    reads = int(view.frame["reads"][rows].sum())
    return _ratio(int(view.frame["coalesced_reads"][rows].sum()), reads, {"reads": reads})


# Throughput


@metric("output_tps", "tok/s", "higher", "scalar")
def output_tps(view: View) -> Scalar:
    """Output tokens stamped inside the steady window, per second."""
    return _tps(view.steady_tokens, view.window)


@metric("output_tps_run", "tok/s", "higher", "scalar", window="run")
def output_tps_run(view: View) -> Scalar:
    """Output tokens of the whole run per second, warm-up and drain included."""
    from servemark.harness.figures.chunks import tokens_in

    return _tps(tokens_in(view.frame, view.whole), view.whole)


@metric("input_tps", "tok/s", "higher", "scalar")
def input_tps(view: View) -> Scalar:
    """Prompt tokens of the requests whose first token fell inside the steady window, per second."""
    return _input_tps(view, view.window)


@metric("input_tps_run", "tok/s", "higher", "scalar", window="run")
def input_tps_run(view: View) -> Scalar:
    """Prompt tokens of all requests that got a first token, per second of the whole run."""
    return _input_tps(view, view.whole)


@metric("rps", "req/s", "higher", "scalar")
def rps(view: View) -> Scalar:
    """Successful requests whose last token fell inside the steady window, per second."""
    return _rps(view, view.window)


@metric("rps_run", "req/s", "higher", "scalar", window="run")
def rps_run(view: View) -> Scalar:
    """Successful requests of the whole run per second."""
    return _rps(view, view.whole)


@metric("offered_rps", "req/s", "none", "scalar", origin="intended")
def offered_rps(view: View) -> Scalar:
    """Requests intended inside the steady window, per second."""
    return _ratio(int(_intended_inside(view).sum()), view.window.seconds)


@metric("goodput", "req/s", "higher", "scalar", origin="run", needs_slo=True)
def goodput(view: View) -> Scalar:
    """Requests intended inside the steady window that met every limit on requests, per second."""
    inside, seconds = _intended_inside(view) & view.judged, view.window.seconds
    offered = {"offered": int(inside.sum()) / seconds} if seconds > 0 else None
    return _ratio(int((inside & view.good).sum()), seconds, offered)


@metric("goodput_run", "req/s", "higher", "scalar", origin="run", window="run", needs_slo=True)
def goodput_run(view: View) -> Scalar:
    """Requests of the whole run that met every limit on requests, warm-up included, per second."""
    return _ratio(int(view.good.sum()), view.whole.seconds)


@metric("goodput_tps", "tok/s", "higher", "scalar", origin="run", needs_slo=True)
def goodput_tps(view: View) -> Scalar:
    """Output tokens of the requests that goodput counts, per second."""
    rows = _intended_inside(view) & view.good & (view.frame["output_tokens"] > 0)
    return _ratio(int(view.frame["output_tokens"][rows].sum()), view.window.seconds)


@metric("goodput_share", "share", "higher", "scalar", origin="run", needs_slo=True)
def goodput_share(view: View) -> Scalar:
    """Share of the measured requests, failed ones included, that met every limit on requests."""
    good, every = view.good & view.frame.measured, view.frame.measured & view.judged
    ended = int((every & view.frame.ok).sum())
    notes = {
        "of_successful": int(good.sum()) / ended if ended else None,
        "of_tokens": _share_of_tokens(view.frame, good, every),
    }
    return _ratio(int(good.sum()), int(every.sum()), notes)


@metric("error_rate", "share", "lower", "scalar")
def error_rate(view: View) -> Scalar:
    """Share of the measured requests that failed, those abandoned at the drain limit included."""
    measured = view.frame.measured
    return _ratio(int((measured & view.frame.failed).sum()), int(measured.sum()), {"kinds": errors(view.frame)})


@metric("give_up_rate", "share", "lower", "scalar")
def give_up_rate(view: View) -> Scalar:
    """Share of the measured requests whose client hung up after its wait, as the workload asks; no failures."""
    measured = view.frame.measured
    gone = int((measured & view.frame.gave_up).sum())
    return _ratio(gone, int(measured.sum()), {"requests": gone} if gone else None)


def errors(frame: Frame) -> dict[str, int]:
    """Measured requests that failed, by kind of error, most frequent first; who gave up has not failed."""
    from collections import Counter

    failed = frame["error"][frame.measured & frame.failed]
    return dict(Counter(failed.tolist()).most_common())


def _tpot(view: View, following: Floats) -> Floats:
    span = view.frame.ms_between("first_token_ns", "last_token_ns")
    return _over(_positive(span), following)


def _tps(tokens: Tokens, window: Window) -> Scalar:
    notes = {"spread_tokens": tokens.spread, "uncounted_chunks": tokens.uncounted}
    return _ratio(tokens.total, window.seconds, {name: count for name, count in notes.items() if count})


def _input_tps(view: View, window: Window) -> Scalar:
    rows = window.holds(view.frame["first_token_ns"]) & (view.frame["prompt_tokens"] > 0)
    return _ratio(int(view.frame["prompt_tokens"][rows].sum()), window.seconds)


def _rps(view: View, window: Window) -> Scalar:
    return _ratio(int((window.holds(view.frame["last_token_ns"]) & view.frame.ok).sum()), window.seconds)


def _intended_inside(view: View) -> Mask:
    return view.window.holds(view.frame["intended_ns"]) & view.frame.measured


def _share_of_tokens(frame: Frame, some: Mask, every: Mask) -> float | None:
    """Of the output tokens that came for `every` request, those of `some`."""
    from servemark.harness.figures.chunks import received

    tokens = received(frame)
    total = float(tokens[every].sum())
    return float(tokens[some].sum()) / total if total > 0 else None


def _ratio(part: float, whole: float, notes: Mapping[str, Any] | None = None) -> Scalar:
    return Scalar(part / whole if whole > 0 else None, notes)


def _positive(values: Floats) -> Floats:
    import numpy as np

    return np.where(values > 0, values, np.nan)


def _over(values: Floats | float, divisor: Floats) -> Floats:
    """values / divisor, nan where the divisor is not positive."""
    return values / _positive(divisor)


def _or_one(values: Floats) -> Floats:
    import numpy as np

    return np.where(np.isnan(values), 1.0, values)

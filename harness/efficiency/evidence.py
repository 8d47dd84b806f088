"""The pieces of evidence for what binds a run."""

from __future__ import annotations

from servemark.harness.efficiency.facts import Facts
from servemark.harness.efficiency.pieces import Evidence, evidence
from servemark.harness.efficiency.thresholds import Thresholds
from servemark.harness.figures.percent import share as percent

CLIENT_CHECKS = ("client_lag", "client_cpu", "late_jobs", "loop_stalls")
"""Codes of the verdict that find fault with the load generator."""


@evidence("client_lag", "client")
def client_lag(facts: Facts, limits: Thresholds) -> Evidence | None:
    """The verdict found the load generator itself late, stalled or out of CPU."""
    late = [code for code in CLIENT_CHECKS if facts.checks.get(code) == "invalid"]
    if not late:
        return None
    return Evidence(
        "client checks failed", len(late), 0, f"The verdict says that the client was at fault: {', '.join(late)}."
    )


@evidence("few_clients", "client")
def few_clients(facts: Facts, limits: Thresholds) -> Evidence | None:
    """A closed loop of few clients, with nothing waiting and no peak near: the server has room for more."""
    if facts.clients is None or not facts.largest_batch or not _at_ease(facts, limits) or _near_floor(facts, limits):
        return None
    share = facts.clients / facts.largest_batch
    if share >= limits.few_clients or (facts.kv_usage or 0.0) >= limits.few_clients:
        return None
    clients = "one client" if facts.clients == 1 else f"{facts.clients} clients"
    text = (
        f"A closed loop of {clients} leaves room: memory holds {facts.largest_batch:.0f} such requests, "
        f"nothing waits, and {_peaks(facts)}."
    )
    return Evidence("clients / largest batch", share, limits.few_clients, text)


@evidence("load_served", "client")
def load_served(facts: Facts, limits: Thresholds) -> Evidence | None:
    """An open loop whose whole load was served without a queue and with no peak near: the load is what there was."""
    if facts.clients is not None or not facts.offered_rps or facts.rps is None or facts.overloaded:
        return None
    share = facts.rps / facts.offered_rps
    if share < limits.kept_up or not _at_ease(facts, limits):
        return None
    text = f"All of the {facts.offered_rps:.3g} requests/s that came were served with no queue, and {_peaks(facts)}."
    return Evidence("served / offered load", share, limits.kept_up, text)


@evidence("mfu", "compute")
def mfu(facts: Facts, limits: Thresholds) -> Evidence | None:
    """MFU is high: large matrix products reach 50 to 80 % of the peak, depending on the device."""
    if facts.mfu is None or facts.mfu < limits.mfu:
        return None
    return Evidence("MFU", facts.mfu, limits.mfu, f"MFU is {percent(facts.mfu)} over the whole window.")


@evidence("prefill", "compute")
def prefill(facts: Facts, limits: Thresholds) -> Evidence | None:
    """Prompts take most of the least time that the work needs, and that fills the window."""
    if facts.busy is None or facts.prefill_share is None or facts.busy < limits.busy:
        return None
    if facts.prefill_share < limits.prefill_share:
        return None
    text = _at_the_peaks(facts.busy, facts.prefill_share, "the arithmetic of prompts")
    return Evidence("share of prompts in the floors", facts.prefill_share, limits.prefill_share, text)


@evidence("kv_full", "capacity")
def kv_full(facts: Facts, limits: Thresholds) -> Evidence | None:
    """The KV memory is all but full while requests wait."""
    if facts.kv_usage is None or facts.kv_usage < limits.kv_usage or not facts.waiting:
        return None
    text = (
        f"KV memory was {percent(facts.kv_usage)} full at its peak, and {facts.waiting:.3g} requests waited on average."
    )
    return Evidence("KV usage", facts.kv_usage, limits.kv_usage, text)


@evidence("preemptions", "capacity")
def preemptions(facts: Facts, limits: Thresholds) -> Evidence | None:
    """Requests lost their KV memory and were computed again."""
    if not facts.preemptions or not facts.requests:
        return None
    share = facts.preemptions / facts.requests
    if share < limits.preempted_share:
        return None
    text = f"{facts.preemptions:.0f} times a request lost its KV memory, with {facts.requests} requests in the window."
    return Evidence("preemptions / requests", share, limits.preempted_share, text)


@evidence("batch_full", "capacity")
def batch_full(facts: Facts, limits: Thresholds) -> Evidence | None:
    """As many requests run as memory can hold, where the server does not tell how full it is."""
    if facts.kv_usage is not None or not facts.largest_batch or facts.running is None or not facts.waiting:
        return None
    share = facts.running / facts.largest_batch
    if share < limits.kv_usage:
        return None
    text = f"{facts.running:.0f} requests run, and memory holds {facts.largest_batch:.0f} such requests."
    return Evidence("running / largest batch", share, limits.kv_usage, text)


@evidence("mbu", "bandwidth")
def mbu(facts: Facts, limits: Thresholds) -> Evidence | None:
    """MBU is high; good engines reach 60 to 85 % in decode."""
    if facts.mbu is None or facts.mbu < limits.mbu:
        return None
    return Evidence(
        "MBU", facts.mbu, limits.mbu, f"MBU ({facts.mbu_how}) is {percent(facts.mbu)} over the whole window."
    )


@evidence("decode", "bandwidth")
def decode(facts: Facts, limits: Thresholds) -> Evidence | None:
    """Tokens come close to their floor, which is the bandwidth's; in an open loop also while there is little to do."""
    if not _near_floor(facts, limits) or facts.tpot_ratio is None:
        return None
    if facts.clients is None and (facts.busy is None or facts.busy < limits.busy):
        return None
    text = f"TPOT is {facts.tpot_ratio:.2g} times what reading weights and KV cache takes at the peak bandwidth."
    return Evidence("TPOT / floor", facts.tpot_ratio, 1 / limits.mbu, text)


@evidence("moving", "bandwidth")
def moving(facts: Facts, limits: Thresholds) -> Evidence | None:
    """Weights and KV cache take most of the least time that the work needs, and that fills the window."""
    if facts.busy is None or facts.prefill_share is None or facts.busy < limits.busy:
        return None
    share = 1 - facts.prefill_share
    if share <= 1 - limits.prefill_share:
        return None
    text = _at_the_peaks(facts.busy, share, "moving bytes")
    return Evidence("share of bytes in the floors", share, 1 - limits.prefill_share, text)


@evidence("waiting", "queueing")
def waiting(facts: Facts, limits: Thresholds) -> Evidence | None:
    """Requests wait most of the time."""
    if facts.waiting is None or facts.waiting_share is None or not queued(facts, limits):
        return None
    text = (
        f"{facts.waiting:.3g} requests waited on average, and some did for {percent(facts.waiting_share)} of the time."
    )
    return Evidence("requests waiting", facts.waiting, limits.waiting, text)


@evidence("late_start", "queueing")
def late_start(facts: Facts, limits: Thresholds) -> Evidence | None:
    """TTFT is far over its floor while the time for each token is not."""
    if facts.ttft_ratio is None or facts.tpot_ratio is None:
        return None
    if facts.ttft_ratio < limits.ttft_ratio or facts.tpot_ratio > limits.tpot_ratio or _no_queue(facts):
        return None
    text = f"TTFT is {facts.ttft_ratio:.2g} times its floor and TPOT only {facts.tpot_ratio:.2g} times."
    return Evidence("TTFT / floor", facts.ttft_ratio, limits.ttft_ratio, text)


def _at_the_peaks(busy: float, share: float, what: str) -> str:
    return (
        f"At the published peaks the same work needs {percent(busy)} of the time that it took; {percent(share)} of "
        f"that is {what}."
    )


def queued(facts: Facts, limits: Thresholds) -> bool:
    """Requests wait, and not in short bursts only."""
    return (facts.waiting or 0.0) >= limits.waiting and (facts.waiting_share or 0.0) >= limits.waiting_share


def _no_queue(facts: Facts) -> bool:
    """The server says that hardly anybody waited."""
    return facts.waiting is not None and facts.waiting < 0.1


def _near_floor(facts: Facts, limits: Thresholds) -> bool:
    """Tokens take little more time than reading what they need."""
    return facts.tpot_binding == "bandwidth" and facts.tpot_ratio is not None and facts.tpot_ratio <= 1 / limits.mbu


def _at_ease(facts: Facts, limits: Thresholds) -> bool:
    """No queue and no peak near, as far as is known; and one of the peaks is."""
    if facts.mbu is None and facts.mfu is None:
        return False
    near = (facts.mbu or 0.0) >= limits.mbu or (facts.mfu or 0.0) >= limits.mfu or (facts.busy or 0.0) >= limits.busy
    return not near and not queued(facts, limits)


def _peaks(facts: Facts) -> str:
    named = (("MBU", facts.mbu), ("MFU", facts.mfu))
    return " and ".join(f"{name} is {percent(value)}" for name, value in named if value is not None)

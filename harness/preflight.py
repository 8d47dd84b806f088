"""`bench check`: could a run start, and what would limit it? Finds out without sending load."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

from servemark.harness.clock import wall_offset_ns
from servemark.harness.errors import BenchError
from servemark.harness.hardware.deployed import refuse_senseless
from servemark.harness.load.limits import check_files, most_files
from servemark.harness.load.wire import SO_TIMESTAMPNS
from servemark.harness.machines import deployment, gpu_watch
from servemark.harness.plaintext import one_line
from servemark.harness.plan.arrivals import ClosedLoop
from servemark.harness.plan.planning import worker_plan
from servemark.harness.plan.spec import Loaded, Workload, load_workload
from servemark.harness.prepare import Asked, metered, planned, reached, secrets_of, slo_of
from servemark.harness.server.meters import Metering
from servemark.harness.server.target import Target
from servemark.harness.types import Endpoint
from servemark.results.redact import Redactor

_TRIES, _PAUSE_S = 10, 0.01


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the answer; `exit_code` is 0 where nothing stands against a run."""

    subject: str
    said: str
    state: Literal["ok", "note", "no"] = "ok"
    exit_code: int = 0

    def line(self) -> str:
        return f"{self.state:5} {self.subject:12} {self.said}"


def preflight(asked: Asked) -> Iterator[Finding]:
    """Findings in order, as they are made; the first that rules a run out is the last."""
    yield from _machine()
    try:
        loaded = load_workload(asked.workload, asked.flags)
        slo = slo_of(loaded)
        refuse_senseless(asked.hardware, max(1, len(asked.urls)))
        yield Finding("workload", f"{loaded.name}: {_load(loaded.spec)}" + (f"; SLO {slo.said}" if slo else ""))
        with reached(asked, loaded) as target:
            said_by_server = Redactor(secrets_of(loaded, target.headers))  # which may say a key
            about = (_server(target), _metrics(metered(asked, target)), _hardware(asked, target))
            for finding in chain(*about, _load_on(asked, loaded, target)):
                yield replace(finding, said=said_by_server.text(finding.said))
    except BenchError as error:
        yield Finding("cannot run", str(error), "no", error.exit_code)


def _load_on(asked: Asked, loaded: Loaded, target: Target) -> Iterator[Finding]:
    schedule, options = planned(asked, loaded, target)
    yield from _promises(target, options.endpoint)
    vocabulary, most = schedule.vocabulary, schedule.source.most_tokens
    how = f"lengths counted by the {vocabulary.origin}'s tokenizer"
    yield Finding("prompts", how) if vocabulary.exact else Finding("prompts", vocabulary.note, "note")
    yield Finding("longest", f"{most:,} tokens in and out" if most else "not bounded by the workload")
    yield from _cache(loaded, target)
    check_files(worker_plan(loaded.spec, schedule, target, options.endpoint))


def _cache(loaded: Loaded, target: Target) -> Iterator[Finding]:
    """What a run would do to the prefix cache; nothing is done to it here."""
    protocol, reset = loaded.spec.run.cache, target.adapter.cache_reset
    if protocol == "cold" and reset is None:
        yield Finding("cache", "cold: prompts are salted, since this kind of server cannot be asked to empty it")
    elif protocol == "cold" and reset is not None:
        how = f"{reset.method} {reset.path} before the load"
        yield Finding("cache", f"cold: {how}; where the server does not take it, prompts are salted")
    elif protocol == "warm":
        yield Finding("cache", "warm: each prompt that comes again is sent once before the load")


def _load(spec: Workload) -> str:
    load = spec.load
    if isinstance(load, ClosedLoop):
        cap = f", at most {load.requests_per_minute} requests a minute" if load.requests_per_minute else ""
        return f"closed loop, {load.concurrency} in flight{cap}"
    rate, mean = load.mean_rate, "a mean of " if load.varies else ""
    return f"open loop, {load.arrivals} arrivals" + (f" at {mean}{rate:g}/s" if rate is not None else "")


def _machine() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    few = "" if cores > 1 else "; a server on this machine would share it"
    yield Finding("cores", f"{cores} usable, of which the load generator takes one{few}", "ok" if cores > 1 else "note")
    files = most_files()
    yield Finding(
        "files", f"{files:,} may be open: at most {max(0, files - 64):,} streams", "ok" if files > 1100 else "note"
    )
    drift = abs(wall_offset_ns() - wall_offset_ns())
    yield Finding(
        "clock", f"wall and monotonic clock agree within {max(drift, 1):,} ns", "ok" if drift < 10_000 else "note"
    )
    if stamps_by_kernel():
        yield Finding("stamps", "taken by the kernel on arrival")
    else:
        yield Finding(
            "stamps", "taken in user space: a busy client reads late (SO_TIMESTAMPNS is not to be had)", "note"
        )


def stamps_by_kernel() -> bool:
    """Whether a TCP read on this machine comes with the kernel's time of arrival; tried on loopback."""
    if sys.platform != "linux":
        return False
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as ours:
        theirs, _ = server.accept()
        with theirs:
            try:
                ours.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
                # The kernel begins to take stamps a moment after it was first asked to.
                return any(_stamped(theirs, ours) for _ in range(_TRIES))
            except OSError:
                return False


def _stamped(sender: socket.socket, receiver: socket.socket) -> bool:
    sender.sendall(b"x")
    stamped = bool(receiver.recvmsg(1, socket.CMSG_SPACE(16))[1])
    if not stamped:
        time.sleep(_PAUSE_S)
    return stamped


def _server(target: Target) -> Iterator[Finding]:
    simulated = " (SIMULATED)" if target.simulated else ""
    for each in target.replicas:
        engine = " ".join(filter(None, (each.facts.engine or target.adapter.name, each.facts.version)))
        yield Finding("server", f"{engine} at {each.url} is ready{simulated}")
    if target.others:
        yield Finding("replicas", f"{len(target.replicas)}, requests go {target.balance}")
    if len(target.versions) > 1:
        yield Finding("replicas", f"they are of different versions: {', '.join(target.versions)}", "note")
    if target.engine is not None:
        yield Finding("engine", f"{target.engine.command} was ready after {target.engine.ready_after_s:.1f} s")
    context = f", context {target.facts.context_tokens:,} tokens" if target.facts.context_tokens else ""
    yield Finding("model", f"{one_line(target.model)}{context}")


def _metrics(metering: Metering) -> Iterator[Finding]:
    if metering.meters:
        yield Finding("metrics", f"the server's own are read at {', '.join(meter.url for meter in metering.meters)}")
    if metering.absent:
        said = f"the server tells none of its own at {', '.join(metering.absent)}; name the place with --metrics-url"
        yield Finding("metrics", said, "note")
    elif not metering.meters:
        yield Finding("metrics", "this kind of server tells none of its own; name a place with --metrics-url", "note")


def _hardware(asked: Asked, target: Target) -> Iterator[Finding]:
    """What MBU, MFU, limits and cost would be worked out from. The GPUs are looked at for a moment."""
    watch = gpu_watch(asked, target, lambda sample: None)
    watch.begin()
    watch.end()
    watched = watch.facts()
    made_on = deployment(asked, target).seen(watched["gpus"])
    if made_on.model is not None:
        model, gigabytes = made_on.model, made_on.model.weight_bytes / 1e9
        said = f"{model.params / 1e9:,.2f}B parameters, {gigabytes:,.1f} GB of weights in {model.weights}"
        yield Finding("arithmetic", f"{said}, from {one_line(model.source)}")
    elif made_on.model_lacks is not None:
        yield Finding("arithmetic", one_line(made_on.model_lacks), "note")
    count = f"{made_on.gpus} GPU{'s' if made_on.gpus > 1 else ''}, by {made_on.layout_source}"
    if made_on.gpu is not None:
        yield Finding("hardware", f"{made_on.gpu.title}, by {made_on.gpu_source}; {count}")
    elif made_on.gpu_lacks is not None:
        yield Finding("hardware", f"{made_on.gpu_lacks}; {count}", "note")
    if made_on.price is not None:
        yield Finding("price", f"${made_on.price.usd_per_gpu_hour:.4g} for a GPU and hour, by {made_on.price.source}")
    elif made_on.section.prices is not None and made_on.price_lacks is not None:
        yield Finding("price", made_on.price_lacks, "note")
    for each in watched["gpus"]:
        yield Finding("gpu", one_line(f"{each.get('index')}: {each.get('name')}, {each.get('gpu')}"))
    for note in watched["notes"]:
        yield Finding("gpu", one_line(str(note)), "note")


def _promises(target: Target, endpoint: Endpoint) -> Iterator[Finding]:
    promises = target.adapter.promises(endpoint)
    missing = [name for name, kept in (
        ("fixed output lengths", promises.fixed_length),
        ("exact token counts", promises.exact_counts),
        ("counts in each chunk", promises.per_chunk_counts),
    ) if not kept]  # fmt: skip
    if missing:
        yield Finding("promises", f"this kind of server gives no {', no '.join(missing)}", "note")

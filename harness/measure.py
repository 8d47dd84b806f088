"""One run from the flags to the files: reach the target, plan, drive the load, judge, write.

A composition root, like the command line that calls it: what is below is handed its parts here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from servemark.adapters.sim.launch import launch
from servemark.harness.address import build_headers
from servemark.harness.arrivals import ClosedLoop, OpenLoop
from servemark.harness.discovery import load_adapter
from servemark.harness.drive import Drive
from servemark.harness.encoding import Jobs
from servemark.harness.errors import EXIT_GATE_MISSED, EXIT_INVALID, EXIT_OK, BadInput, TargetUnusable
from servemark.harness.limits import check_files
from servemark.harness.messages import Plan
from servemark.harness.planning import worker_plan
from servemark.harness.schedule import Schedule, plan
from servemark.harness.scrape import read_sample
from servemark.harness.slo import Slo, parse_slo
from servemark.harness.spec import Loaded, load_workload
from servemark.harness.target import Target, learn_vocabulary, reach
from servemark.harness.types import Options, WorkerReport
from servemark.results.known import clock_part, known_at_start, scheduled
from servemark.results.store import RunStore, new_folder, new_run_id


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user asks for. `flags` go over the workload file; None in them was not given."""

    target: str
    workload: str
    url: str | None = None
    model: str | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)
    api_key_env: str | None = None
    allow: tuple[str, ...] = ()
    out: Path | None = None
    wait_s: float = 0.0
    scrape_s: float = 1.0
    tokenizer: Path | None = None
    cacert: str | None = None
    insecure: bool = False
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """A finished run: run.json's content, its folder, and the exit code that it deserves."""

    run: dict[str, Any]
    folder: Path
    exit_code: int


def measure(asked: Asked) -> Measured:
    """Makes the run. Raises BadInput, TargetUnusable or ResultUnusable."""
    loaded = load_workload(asked.workload, asked.flags)
    slo = slo_of(loaded)
    _known_codes(asked.allow)
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(reached(asked, loaded))
        return _measure(asked, loaded, slo, target)


@contextlib.contextmanager
def reached(asked: Asked, loaded: Loaded) -> Iterator[Target]:
    """The target, looked at and ready; the built-in one is started where no address is given."""
    adapter = load_adapter(asked.target)
    headers = build_headers(asked.api_key_env, loaded.spec.request.headers)
    with contextlib.ExitStack() as stack:
        url = asked.url or adapter.default_url
        if asked.url is None and adapter.name == "sim":
            url = stack.enter_context(launch()).url
        target = reach(
            adapter,
            url,
            headers,
            asked.model,
            wait_s=asked.wait_s,
            cacert=asked.cacert,
            insecure=asked.insecure,
        )
        stack.callback(target.control.close)
        yield target


def slo_of(loaded: Loaded) -> Slo | None:
    """The workload's objectives; BadInput where one is no limit."""
    section = loaded.spec.slo
    if not section.limits:
        if section.gate:
            raise BadInput("--gate needs a limit to hold; give one with --slo, as --slo ttft=200ms")
        return None
    try:
        return parse_slo(section.limits, section.attainment)
    except ValueError as error:
        where = "--slo" if "slo" in loaded.overrides else f"{loaded.path}: slo.limits"
        raise BadInput(f"{where}: {error}") from None


def planned(asked: Asked, loaded: Loaded, target: Target) -> tuple[Schedule, Options]:
    """The schedule, with prompts in the server's own tokens. Raises BadInput or TargetUnusable."""
    options = loaded.spec.request.options(target.model)
    if options.endpoint not in target.adapter.endpoints:
        raise BadInput(f"target {target.adapter.name} has no endpoint {options.endpoint}")
    vocabulary = learn_vocabulary(target, options, asked.tokenizer)
    schedule = plan(loaded, vocabulary)
    most, context = schedule.source.most_tokens, target.facts.context_tokens
    if most is not None and context is not None and most > context:
        raise TargetUnusable(
            f"the longest request takes {most} tokens, and {target.model} at {target.url} has a context of {context}; "
            "shorten it with --input-tokens or --output-tokens, or serve a longer context"
        )
    return schedule, options


def _measure(asked: Asked, loaded: Loaded, slo: Slo | None, target: Target) -> Measured:
    schedule, options = planned(asked, loaded, target)
    work = worker_plan(loaded.spec, schedule, target)
    check_files(work.connections_ahead, work.concurrency or work.max_in_flight)
    run_id = new_run_id(target.adapter.name, loaded.name)
    jobs = Jobs(schedule, target, options, run_id)
    known = known_at_start(loaded, schedule, target)
    store = RunStore(new_folder(run_id, asked.out), known, redact=_secrets(loaded, target))
    try:
        report = _driven(asked, loaded, target, work, jobs, store)
        run = _judged(asked, loaded, slo, target, schedule, jobs, store, report)
        store.close(run)
    except BaseException:
        store.abandon()
        raise
    return _written(store, run)


def _secrets(loaded: Loaded, target: Target) -> tuple[str, ...]:
    """Header values that did not come from the workload file, with and without their scheme word."""
    public = ((loaded.document.data.get("request") or {}).get("headers") or {}).values()
    values = [value for _, value in target.headers if value not in public]
    return tuple({*values, *(value.split(" ", 1)[-1] for value in values)})


def _driven(
    asked: Asked, loaded: Loaded, target: Target, work: Plan, jobs: Jobs, store: RunStore
) -> WorkerReport | None:
    """The load, between a first and a last reading of the server's metrics; None where the worker was lost."""
    _read_server(target, store)
    report = asyncio.run(Drive(target, work, iter(jobs), store, asked.scrape_s, loaded.name, asked.quiet).run())
    _read_server(target, store)
    return report


def _read_server(target: Target, store: RunStore) -> None:
    sample = read_sample(target.adapter, target.control)
    if sample is not None:
        store.server_sample(sample)


def _judged(
    asked: Asked,
    loaded: Loaded,
    slo: Slo | None,
    target: Target,
    schedule: Schedule,
    jobs: Jobs,
    store: RunStore,
    report: WorkerReport | None,
) -> dict[str, Any]:
    """All of run.json that was not known at the start. Its imports are heavy, and the load is over by now."""
    from servemark.harness.validity import Evidence
    from servemark.results.evaluate import evaluate

    spec, frame = loaded.spec, store.frame()
    warmup_ns = spec.run.warmup.duration_ns
    window = frame.steady_window(report.started_ns + warmup_ns if report and warmup_ns else None)
    closed = isinstance(spec.load, ClosedLoop)
    evidence = Evidence(
        frame=frame,
        window=window,
        loop="closed" if closed else "open",
        reports=(report,) if report else (),
        server=tuple(store.server_samples()),
        cap=spec.load.max_concurrency if isinstance(spec.load, OpenLoop) else None,
        planned_in_window=None if closed else schedule.planned_in_window,
        slo=slo,
        shared_prefix_tokens=schedule.vocabulary.shared_prefix_tokens,
        force_output_length=spec.request.force_output_length,
        promises=target.adapter.promises,
    )
    hashed, count = jobs.hash_at(report.issued if report else len(frame))
    return {
        **evaluate(evidence, spec.slo.gate, asked.allow),
        "schedule": scheduled(loaded, schedule) | {"hash": hashed, "requests": count},
        "clock": clock_part(frame, window, report),
        "worker": asdict(report) if report else {},
    }


def _written(store: RunStore, run: dict[str, Any]) -> Measured:
    """Reads the run back as anybody will, and adds its page."""
    from servemark.dashboards.page import write_page
    from servemark.results.recover import load
    from servemark.results.schema import PAGE

    saved = load(store.folder)
    write_page(saved.run, saved.frame(), saved.server_samples(), store.folder / PAGE)
    code = EXIT_OK
    if not run["verdict"]["valid"]:
        code = EXIT_INVALID
    elif run["slo"]["gate"] and run["slo"]["met"] is False:
        code = EXIT_GATE_MISSED
    return Measured(saved.run, store.folder, code)


def _known_codes(allow: tuple[str, ...]) -> None:
    """Before the run, not after it. The registry is imported only where it is needed: it brings numpy."""
    if not allow:
        return
    from servemark.harness.validity import CHECKS

    for code in allow:
        if code not in CHECKS:
            raise BadInput(f"--allow {code}: there is no such check; there are: {', '.join(CHECKS)}")

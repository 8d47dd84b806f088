"""One run from the flags to the files: prepare, drive the load, judge, write.

A composition root, like the command line that calls it: what is below is handed its parts here.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servemark.harness.drive import Drive
from servemark.harness.errors import EXIT_GATE_MISSED, EXIT_INVALID, EXIT_OK, ResultUnusable
from servemark.harness.figures.slo import Slo
from servemark.harness.interrupts import Interrupts
from servemark.harness.load.limits import check_files
from servemark.harness.load.messages import Plan
from servemark.harness.plan.arrivals import ClosedLoop, OpenLoop
from servemark.harness.plan.encoding import Jobs
from servemark.harness.plan.planning import worker_plan
from servemark.harness.plan.schedule import Schedule
from servemark.harness.plan.spec import Loaded, load_workload
from servemark.harness.prepare import Asked, planned, reached, refuse_unknown_codes, secrets_of, slo_of
from servemark.harness.server.scrape import read_sample
from servemark.harness.server.target import Target
from servemark.harness.types import WorkerReport
from servemark.results.known import clock_part, known_at_start, scheduled
from servemark.results.store import RunStore, new_folder, new_run_id, refuse_taken

if TYPE_CHECKING:
    from servemark.harness.figures.frame import Frame, Window
    from servemark.harness.verdict.validity import Evidence


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
    refuse_unknown_codes(asked.allow)
    if asked.out is not None:
        refuse_taken(asked.out)
    with Interrupts() as interrupts, reached(asked, loaded) as target:
        schedule, options = planned(asked, loaded, target)
        plan = worker_plan(loaded.spec, schedule, target, options.endpoint)
        check_files(plan)
        run_id = new_run_id(target.adapter.name, loaded.name)
        jobs = Jobs(schedule, target, options, run_id)
        known = known_at_start(loaded, schedule, target, options.endpoint)
        store = RunStore(new_folder(run_id, asked.out), known, redact=secrets_of(loaded, target.headers))
        return Run(asked, loaded, slo, target, schedule, plan, jobs, store).carried_out(interrupts)


@dataclass(frozen=True, slots=True)
class Run:
    """All that a run needs, made and checked; from here on there is a folder."""

    asked: Asked
    loaded: Loaded
    slo: Slo | None
    target: Target
    schedule: Schedule
    plan: Plan
    jobs: Jobs
    store: RunStore

    def carried_out(self, interrupts: Interrupts) -> Measured:
        """Whatever goes wrong, what has ended by then is on disk."""
        try:
            report, cpu_ns = self._driven(interrupts)
            run = self._judged(report)
            run["worker"]["coordinator_cpu_ns"] = cpu_ns
            self.store.close(run)
            return self._written()
        except KeyboardInterrupt:
            if not self.store.recorded:
                raise
            raise ResultUnusable(self._left()) from None
        finally:
            self.store.abandon()

    def _left(self) -> str:
        folder, count = self.store.folder, self.store.recorded
        return (
            f"{folder}: interrupted before all of the result was written; the {count} requests that had ended "
            f"are there, read them with `bench show {folder}`"
        )

    def _driven(self, interrupts: Interrupts) -> tuple[WorkerReport | None, int]:
        """The load, between a first and a last reading of the server's metrics; see `Drive.run`."""
        asked = self.asked
        self._read_server()
        drive = Drive(
            self.target, self.plan, iter(self.jobs), self.store, asked.scrape_s, self.loaded.name, asked.quiet
        )
        report, cpu_ns = asyncio.run(drive.run(interrupts))
        # After any other end the server may hang, and nobody wants to wait for it.
        if report is not None and report.stop_reason == "finished":
            self._read_server()
        return report, cpu_ns

    def _read_server(self) -> None:
        meter = self.target.meter
        sample = read_sample(meter, self.target.control) if meter is not None else None
        if sample is not None:
            self.store.server_sample(sample)

    def _judged(self, report: WorkerReport | None) -> dict[str, Any]:
        """All of run.json that was not known at the start. Its imports are heavy, and the load is over by now."""
        from servemark.results.evaluate import evaluate

        spec, frame = self.loaded.spec, self.store.frame()
        warmup_ns = spec.run.warmup.duration_ns
        window = frame.steady_window(report.started_ns + warmup_ns if report and warmup_ns else None)
        hashed, count = self.jobs.hash_at(report.issued if report else len(frame))
        return {
            **evaluate(self._evidence(report, frame, window), spec.slo.gate, self.asked.allow),
            "schedule": scheduled(self.loaded, self.schedule) | {"hash": hashed, "requests": count},
            "clock": clock_part(frame, window, report),
            "worker": asdict(report) if report else {},
        }

    def _evidence(self, report: WorkerReport | None, frame: Frame, window: Window) -> Evidence:
        from servemark.harness.verdict.validity import Evidence

        spec = self.loaded.spec
        closed = isinstance(spec.load, ClosedLoop)
        return Evidence(
            frame=frame,
            window=window,
            loop="closed" if closed else "open",
            reports=(report,) if report else (),
            server=tuple(self.store.server_samples()),
            cap=spec.load.max_concurrency if isinstance(spec.load, OpenLoop) else None,
            planned_in_window=None if closed else self.schedule.planned_in_window,
            slo=self.slo,
            prompts_unique=spec.prompts.unique,
            shared_prefix_tokens=self.schedule.vocabulary.shared_prefix_tokens,
            force_output_length=spec.request.force_output_length,
            promises=self.target.adapter.promises(self.plan.endpoint),
        )

    def _written(self) -> Measured:
        """Reads the run back as anybody will, and adds its page."""
        from servemark.dashboards.page import write_page
        from servemark.results.recover import load
        from servemark.results.schema import PAGE

        saved = load(self.store.folder)
        write_page(saved.run, saved.frame(), saved.server_samples(), saved.folder / PAGE)
        return Measured(saved.run, saved.folder, _exit_code(saved.run))


def _exit_code(run: dict[str, Any]) -> int:
    """An INVALID run says nothing about a gate."""
    if not run["verdict"]["valid"]:
        return EXIT_INVALID
    return EXIT_GATE_MISSED if run["slo"]["gate"] and run["slo"]["met"] is False else EXIT_OK

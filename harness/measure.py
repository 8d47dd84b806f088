"""One run from the flags to the files: prepare, drive the load, judge, write.

A composition root, like the command line that calls it: what is below is handed its parts here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servemark.harness.cache import WarmPass, begun
from servemark.harness.drive import Drive
from servemark.harness.errors import EXIT_GATE_MISSED, EXIT_INVALID, EXIT_OK, ResultUnusable
from servemark.harness.figures.slo import Slo
from servemark.harness.gpu.watch import GpuWatch
from servemark.harness.hardware.deployed import Deployed, refuse_senseless
from servemark.harness.interrupts import Interrupts
from servemark.harness.launch.launching import Engine
from servemark.harness.load.limits import check_files
from servemark.harness.load.messages import Plan
from servemark.harness.machines import deployment, gpu_watch
from servemark.harness.plaintext import one_line
from servemark.harness.plan.arrivals import ClosedLoop, OpenLoop
from servemark.harness.plan.encoding import Jobs
from servemark.harness.plan.planning import worker_plan
from servemark.harness.plan.schedule import Schedule
from servemark.harness.plan.spec import Loaded, load_workload
from servemark.harness.prepare import Asked, metered, planned, reached, refuse_unknown_codes, secrets_of, slo_of
from servemark.harness.server.caching import CacheState
from servemark.harness.server.meters import Metering
from servemark.harness.server.samples import whole
from servemark.harness.server.target import Target
from servemark.harness.types import ServerSample, WorkerReport
from servemark.results.known import clock_part, known_at_start, scheduled, stage_windows
from servemark.results.schema import ENGINE_LOG
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


def measure(asked: Asked, engine: Engine | None = None) -> Measured:
    """Makes the run, on an engine that was started before if one is given.

    Raises BadInput, TargetUnusable or ResultUnusable.
    """
    loaded = load_workload(asked.workload, asked.flags)
    slo = slo_of(loaded)
    refuse_unknown_codes(asked.allow)
    refuse_senseless(asked.hardware, max(1, len(asked.urls)))
    if asked.out is not None:
        refuse_taken(asked.out)
    with Interrupts() as interrupts, reached(asked, loaded, engine) as target:
        cache = begun(loaded, target)
        schedule, options = planned(asked, loaded, target, salt=cache.how == "salted")
        plan = worker_plan(loaded.spec, schedule, target, options.endpoint)
        check_files(plan)
        metering = metered(asked, target)
        made_on = deployment(asked, target)
        watch = gpu_watch(asked, target, lambda sample: store.gpu_sample(sample))
        run_id = new_run_id(target.adapter.name, loaded.name)
        jobs = Jobs(schedule, target, options, run_id)
        if cache.protocol == "warm":
            cache = WarmPass(loaded, schedule, target, options, plan, run_id, asked.quiet).made(cache, interrupts)
            metering = metered(asked, target)  # what it made of the metrics is no part of the run's
        known = known_at_start(loaded, schedule, target, options.endpoint)
        known |= {"cache": cache.facts(), "server": metering.facts(asked.scrape_s)}
        known["hardware"] = {"deployment": made_on.facts()}
        store = _begun(asked, loaded, target, run_id, known)
        run = Run(asked, loaded, slo, target, cache, schedule, plan, jobs, metering, store, made_on, watch)
        measured = run.carried_out(interrupts)
        if target.engine is not None and engine is None:  # all is written: a signal can only be for the engine's end
            interrupts.to(target.engine.process.hurry)
        return measured


def _begun(asked: Asked, loaded: Loaded, target: Target, run_id: str, known: dict[str, Any]) -> RunStore:
    """The run's folder; an engine that was started for the run writes its log there from now on."""
    engine, secrets = target.engine, secrets_of(loaded, target.headers)
    if engine is None:
        return RunStore(new_folder(run_id, asked.out), known, redact=secrets)
    engine.refuse_ended()
    store = RunStore(new_folder(run_id, asked.out), known, redact=(*secrets, *engine.secrets))
    engine.process.log_to(store.folder / ENGINE_LOG)
    return store


@dataclass(frozen=True, slots=True)
class Run:
    """All that a run needs, made and checked; from here on there is a folder."""

    asked: Asked
    loaded: Loaded
    slo: Slo | None
    target: Target
    cache: CacheState
    schedule: Schedule
    plan: Plan
    jobs: Jobs
    metering: Metering
    store: RunStore
    made_on: Deployed
    watch: GpuWatch

    def carried_out(self, interrupts: Interrupts) -> Measured:
        """Whatever goes wrong, what has ended by then is on disk."""
        try:
            report, cpu_ns = self._driven(interrupts)
            run = self._judged(report, self._engine_end())
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
        """The load, between a first and a last reading of the server's metrics and the GPUs; see `Drive.run`."""
        asked = self.asked
        scraper = self.metering.scraper(asked.scrape_s, self.store.server_sample)
        try:
            self.watch.begin()
            if scraper is not None:
                scraper.begin(self.metering.first)
            readers = (self.watch,) if scraper is None else (self.watch, scraper)
            jobs, title = iter(self.jobs), self.loaded.name
            drive = Drive(self.target, self.plan, jobs, self.store, readers, title, asked.quiet, self.jobs.follow)
            report, cpu_ns = asyncio.run(drive.run(interrupts))
        finally:
            self.watch.end()
        # After any other end the server may hang, and nobody wants to wait for it.
        if scraper is not None and report is not None and report.stop_reason == "finished":
            scraper.once()
        return report, cpu_ns

    def _engine_end(self) -> str | None:
        """What there is to say of an engine that was started for the run and has ended before it."""
        return self.target.engine.last_words() if self.target.engine is not None else None

    def _judged(self, report: WorkerReport | None, engine_end: str | None) -> dict[str, Any]:
        """All of run.json that was not known at the start. Its imports are heavy, and the load is over by now."""
        from servemark.results.evaluate import evaluate

        spec, frame, samples = self.loaded.spec, self.store.frame(), self.store.server_samples()
        warmup_ns = spec.run.warmup.duration_ns
        window = frame.steady_window(report.started_ns + warmup_ns if report and warmup_ns else None)
        hashed, count = self.jobs.hash_at(_begun_items(report, frame))
        evidence = self._evidence(report, frame, window, samples, engine_end)
        judged = evaluate(evidence, spec.slo.gate, self.asked.allow, samples)
        judged |= self._hardware(judged, evidence)
        return {
            **judged,
            "server": self.metering.facts(self.asked.scrape_s) | judged["server"],
            "schedule": scheduled(self.loaded, self.schedule) | {"hash": hashed, "requests": count},
            "clock": clock_part(frame, window, report),
            "worker": asdict(report) if report else {},
        }

    def _hardware(self, judged: Mapping[str, Any], evidence: Evidence) -> dict[str, Any]:
        """What the run made of its hardware, and the summary with the figures of it."""
        from servemark.results.hardware import hardware_part
        from servemark.results.headline import hardware_summary

        summary = judged["summary"]
        try:
            found = hardware_part(
                evidence.frame,
                evidence.window,
                evidence.server,
                evidence.gpu,
                evidence.gpu_facts,
                self.made_on.seen(evidence.gpu_facts["gpus"]),
                judged["metrics"],
                judged["verdict"]["checks"],
                self.plan.concurrency,
                evidence.reports[0].started_ns if evidence.reports else None,
            )
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # the run is made, and goes before this
            lacks = f"No figure of the hardware could be worked out ({type(error).__name__}: {error})"
            return {"hardware": {"deployment": self.made_on.facts(), "lacks": [one_line(lacks)]}}
        return {"hardware": found, "summary": summary | hardware_summary(found, summary.get("output_tps"))}

    def _evidence(
        self,
        report: WorkerReport | None,
        frame: Frame,
        window: Window,
        samples: Sequence[ServerSample],
        engine_end: str | None,
    ) -> Evidence:
        from servemark.harness.verdict.validity import Evidence

        spec = self.loaded.spec
        closed = isinstance(spec.load, ClosedLoop)
        return Evidence(
            frame=frame,
            window=window,
            loop="closed" if closed else "open",
            reports=(report,) if report else (),
            server=tuple(whole(samples)),
            cap=spec.load.max_concurrency if isinstance(spec.load, OpenLoop) else None,
            varies=spec.load.varies,
            stages=stage_windows(spec.load, report),
            planned_in_window=None if closed else self.schedule.planned_in_window,
            slo=self.slo,
            prompts_unique=spec.source.unique,
            sharing=self.schedule.sharing,
            cache=self.cache,
            force_output_length=spec.request.force_output_length,
            promises=self.target.adapter.promises(self.plan.endpoint),
            versions=self.target.versions,
            engine_end=engine_end,
            gpu=tuple(self.store.gpu_samples()),
            gpu_facts=self.watch.facts(),
        )

    def _written(self) -> Measured:
        """Reads the run back as anybody will, and adds its page."""
        from servemark.dashboards.page import write_page
        from servemark.results.recover import load
        from servemark.results.schema import PAGE

        saved = load(self.store.folder)
        write_page(saved.run, saved.frame(), saved.server_samples(), saved.folder / PAGE, saved.gpu_samples())
        return Measured(saved.run, saved.folder, _exit_code(saved.run))


def _begun_items(report: WorkerReport | None, frame: Frame) -> int:
    """How many items of the source were sent, each of which is a request or a session."""
    return report.issued - report.later_turns if report else int((frame["turn"] == 0).sum())


def _exit_code(run: dict[str, Any]) -> int:
    """An INVALID run says nothing about a gate."""
    if not run["verdict"]["valid"]:
        return EXIT_INVALID
    return EXIT_GATE_MISSED if run["slo"]["gate"] and run["slo"]["met"] is False else EXIT_OK

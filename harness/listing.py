"""What `bench list` shows."""

from __future__ import annotations

from collections.abc import Iterator

from servemark.harness.figures.metrics import METRICS
from servemark.harness.load.balance import BALANCES
from servemark.harness.plan.spec import Workload, load_workload, packaged
from servemark.harness.server.discovery import adapter_names, load_adapter
from servemark.harness.verdict.validity import CHECKS


def listing() -> Iterator[str]:
    yield "Targets (--target)"
    for name in adapter_names():
        adapter = load_adapter(name)
        yield from _row(name, f"{adapter.about}  [{adapter.default_url}]")
    yield from _workloads()
    yield "\nReplicas (several --url, --balance)"
    for name, policy in BALANCES.items():
        yield from _row(name, (policy.__doc__ or "").splitlines()[0])
    yield "\nMetrics (--slo METRIC=VALUE, METRIC:p99=VALUE)"
    for name, metric in METRICS.items():
        yield from _row(name, f"{metric.about}  [{metric.unit}]")
    yield "\nChecks of the verdict (--allow CODE waives one)"
    for code, reason in CHECKS.items():
        yield from _row(code, f"{reason.about}  [{reason.worst}]")


def _workloads() -> Iterator[str]:
    """The packaged ones, each with the first sentence of what it is about; the file says the rest."""
    titles = {
        "own": "\nWorkloads (--workload)",
        "data": "\nWorkloads of published data sets, which are fetched by hand (--workload, and --data FILE)",
        "mlperf": "\nWorkloads after the scenarios of MLPerf Inference (--workload)",
    }
    found = {name: load_workload(name).spec for name in packaged()}
    for group, title in titles.items():
        yield title
        for name, spec in found.items():
            if group == _group(name, spec):
                yield from _row(name, spec.about.split(". ")[0].removesuffix("."))


def _group(name: str, spec: Workload) -> str:
    if name.startswith("mlperf-"):
        return "mlperf"
    return "data" if hasattr(spec.prompts, "path") else "own"


def _row(name: str, about: str) -> Iterator[str]:
    """A name that is too long for its column stands on a line of its own."""
    import textwrap

    lines = textwrap.wrap(about, 76) or [""]
    if len(name) > 20:
        yield f"  {name}"
        name = ""
    yield f"  {name:20}  {lines[0]}"
    for line in lines[1:]:
        yield f"  {'':20}  {line}"

"""What `bench list` shows."""

from __future__ import annotations

from collections.abc import Iterator

from servemark.harness.figures.metrics import METRICS
from servemark.harness.load.balance import BALANCES
from servemark.harness.plan.spec import load_workload, packaged
from servemark.harness.server.discovery import adapter_names, load_adapter
from servemark.harness.verdict.validity import CHECKS


def listing() -> Iterator[str]:
    yield "Targets (--target)"
    for name in adapter_names():
        adapter = load_adapter(name)
        yield from _row(name, f"{adapter.about}  [{adapter.default_url}]")
    yield "\nWorkloads (--workload)"
    for name in packaged():
        yield from _row(name, load_workload(name).spec.about)
    yield "\nReplicas (several --url, --balance)"
    for name, policy in BALANCES.items():
        yield from _row(name, (policy.__doc__ or "").splitlines()[0])
    yield "\nMetrics (--slo METRIC=VALUE, METRIC:p99=VALUE)"
    for name, metric in METRICS.items():
        yield from _row(name, f"{metric.about}  [{metric.unit}]")
    yield "\nChecks of the verdict (--allow CODE waives one)"
    for code, reason in CHECKS.items():
        yield from _row(code, f"{reason.about}  [{reason.worst}]")


def _row(name: str, about: str) -> Iterator[str]:
    import textwrap

    lines = textwrap.wrap(about, 76) or [""]
    yield f"  {name:20}  {lines[0]}"
    for line in lines[1:]:
        yield f"  {'':20}  {line}"

"""What `bench list` shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from servemark.harness.figures.metrics import METRICS
from servemark.harness.hardware.devices import Gpu, gpus
from servemark.harness.load.balance import BALANCES
from servemark.harness.plaintext import one_line
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
    yield "\nGPUs (--gpu; `bench list gpus` has their figures)"
    yield from _row("", ", ".join(each.name for each in gpus()))


GPU_HEAD = ("name", "", "BF16", "FP8", "INT8", "FP4", "GB/s", "GB", "MiB", "W", "reached")


def gpu_table(files: Sequence[Path] = ()) -> Iterator[str]:
    """The devices, a line each, in columns. Raises BadInput."""
    rows = [GPU_HEAD, *(gpu_row(each) for each in gpus(files))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        words = map(str.ljust, row[:2], widths[:2])
        yield "  ".join((*words, *map(str.rjust, row[2:], widths[2:])))
    yield "\nPeaks are dense, in TFLOP/s (INT8: TOP/s); BF16 stands for FP16 too; ~ where sources disagree."
    yield "GB are as published; MiB are what the driver reports, and where known what fits is counted with those."
    yield "Reached is the share of the BF16 peak that large matrix products have reached."


def gpu_row(device: Gpu) -> tuple[str, ...]:
    """The cells of a device, under GPU_HEAD."""
    names = one_line(device.name, 40), one_line(device.title, 60)
    peaks = (_peak(device, dtype) for dtype in ("bf16", "fp8", "int8", "fp4"))
    bandwidth = f"{'~' if device.bandwidth_disputed else ''}{device.bandwidth_gb_s:,.0f}"
    power = "-" if device.power_w is None else f"{device.power_w:,.0f}"
    reached = "-" if device.achievable is None else f"{device.achievable * 100:.0f} %"
    mib = "-" if device.memory_mib is None else f"{device.memory_mib:,.0f}"
    return *names, *peaks, bandwidth, f"{device.memory_gb:g}", mib, power, reached


def _peak(device: Gpu, dtype: str) -> str:
    peak = device.peaks.get(dtype)
    return "-" if peak is None else f"{'~' if peak.disputed else ''}{peak.dense_tflops:,g}"


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

"""The text of our own exporter, written and read here: Prometheus lines of our fields, with its clock.

servemark_gpu_exporter_info{version="0.1.0",facts="{...}"} 1
servemark_gpu_asked_at_ns 812345678901234        its monotonic clock, when it was asked
servemark_gpu_answered_at_ns 812345681234567     and when it answered
servemark_gpu_info{gpu="GPU-...",index="0",name="NVIDIA H100",facts="{...}"} 1
servemark_gpu_sampled_at_ns{gpu="GPU-...",index="0",name="NVIDIA H100"} 812345680000000
servemark_gpu_power{gpu="GPU-...",index="0",name="NVIDIA H100"} 412.5
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from servemark.harness.gpu.answers import MOST_GPUS, Answer, Exporter, Reading, clean, named
from servemark.harness.gpu.fields import GPU_FIELDS
from servemark.harness.server.prometheus import Metrics
from servemark.harness.types import GpuSample

PREFIX = "servemark_gpu_"
_LONGEST_FACTS = 1 << 16
_STAMP = "Monotonic clock of this exporter, in ns, "
_SUFFIX = {"counter": "_total", "level": ""}


def metric(field: str) -> str:
    """A counter's name ends as Prometheus wants it."""
    return f"{PREFIX}{field}{_SUFFIX[GPU_FIELDS[field].kind]}"


def write(
    samples: Sequence[GpuSample], facts: Mapping[str, Any], asked_ns: int, version: str, cpu_s: float | None = None
) -> Iterator[str]:
    """All lines but the last one, which is `answered`, since it has to be written last."""
    described = {each["gpu"]: each for each in facts.get("gpus", ())}
    rest = {key: value for key, value in facts.items() if key not in ("gpus", "samples")}
    yield from _family("exporter_info", "What this is.", [({"version": version, "facts": _json(rest)}, 1)])
    yield from _family("asked_at_ns", f"{_STAMP}when it was asked.", [({}, asked_ns)])
    if cpu_s is not None:
        yield from _family("exporter_cpu_seconds_total", "Processor time of this exporter.", [({}, cpu_s)], "counter")
    yield from _family("info", "A GPU.", [(_labels(e) | {"facts": _json(e)}, 1) for e in described.values()])
    names = {sample.gpu: _labels(described.get(sample.gpu, {"gpu": sample.gpu})) for sample in samples}
    yield from _family("sampled_at_ns", f"{_STAMP}when it was read.", [(names[s.gpu], s.at_ns) for s in samples])
    for name, field in GPU_FIELDS.items():
        told = [(names[s.gpu], s.values[name]) for s in samples if name in s.values]
        kind = "counter" if field.kind == "counter" else "gauge"
        about = f"{field.about} Unit: {field.unit}." if field.unit else field.about
        yield from _family(metric(name).removeprefix(PREFIX), about, told, kind)


def answered(at_ns: int) -> str:
    return "".join(_family("answered_at_ns", f"{_STAMP}when it answered.", [({}, at_ns)]))


def _labels(described: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(described[key]) for key in ("gpu", "index", "name") if described.get(key) is not None}


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _family(
    name: str, about: str, told: Iterable[tuple[Mapping[str, str], float]], kind: str = "gauge"
) -> Iterator[str]:
    lines = [f"{PREFIX}{name}{_written(labels)} {_number(value)}\n" for labels, value in told if math.isfinite(value)]
    if lines:
        yield f"# HELP {PREFIX}{name} {about}\n# TYPE {PREFIX}{name} {kind}\n"
        yield from lines


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))


def _written(labels: Mapping[str, str]) -> str:
    inside = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{inside}}}" if inside else ""


def _escaped(value: str) -> str:
    """As the format wants it; a carriage return would end a line for some readers."""
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"').replace("\r", " ")


# And back


def is_ours(metrics: Metrics) -> bool:
    return f"{PREFIX}exporter_info" in metrics.series


def read(metrics: Metrics) -> Answer:
    """ValueError, with the reason, where it is not what `write` writes."""
    asked_ns, answered_ns = _stamp(metrics, "asked_at_ns"), _stamp(metrics, "answered_at_ns")
    values: dict[str, dict[str, float]] = {}
    for field in GPU_FIELDS:
        for gpu, value in _of_gpus(metrics, metric(field)):
            if math.isfinite(value) and value >= 0:
                values.setdefault(gpu, {})[field] = value
    stamps = dict(_of_gpus(metrics, f"{PREFIX}sampled_at_ns"))
    if len(stamps) > MOST_GPUS:
        raise ValueError(f"it tells of {len(stamps)} GPUs; more than {MOST_GPUS} cannot be")
    readings = []
    for gpu, at_ns in stamps.items():
        if not 0 < at_ns <= answered_ns:
            raise ValueError("its stamps make no sense: a GPU was read after the answer")
        readings.append(Reading(gpu, values.get(gpu, {}), int(at_ns)))
    return Answer(tuple(readings), asked_ns, answered_ns, _facts(metrics))


def _stamp(metrics: Metrics, name: str) -> int:
    value = metrics.value(PREFIX + name)
    if value is None or not 0 < value < 2.0**63:
        raise ValueError(f"it has no {PREFIX}{name} that is a time")
    return int(value)


def _of_gpus(metrics: Metrics, name: str) -> Iterator[tuple[str, float]]:
    for series in metrics.series.get(name, ()):
        if gpu := named(series.labels.get("gpu", "")):
            yield gpu, series.value


def _facts(metrics: Metrics) -> dict[str, Any]:
    facts = _parsed(next(iter(metrics.labels(f"{PREFIX}exporter_info")), {}))
    gpus = []
    for labels in metrics.labels(f"{PREFIX}info")[:MOST_GPUS]:
        if gpu := named(labels.get("gpu", "")):
            gpus.append(_parsed(labels) | {"gpu": gpu})
    found: dict[str, Any] = {"gpus": gpus, "notes": _texts(facts.get("notes")), "missing": _whys(facts.get("missing"))}
    if (period_s := facts.get("period_s")) is not None:
        found["exporter_period_s"] = period_s
    if (cpu_s := metrics.value(f"{PREFIX}exporter_cpu_seconds_total")) is not None and math.isfinite(cpu_s):
        found["cpu_s"] = cpu_s
    return found


def _parsed(labels: Mapping[str, str]) -> dict[str, Any]:
    """The JSON of the label `facts`; {} for what is none."""
    text = labels.get("facts", "")
    try:
        found = clean(json.loads(text)) if len(text) <= _LONGEST_FACTS else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _texts(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _whys(value: Any) -> dict[str, str]:
    told = value.items() if isinstance(value, dict) else ()
    return {field: why for field, why in told if field in GPU_FIELDS and isinstance(why, str)}


OURS = Exporter("gpu-exporter", "bench gpu-exporter", is_ours, read)

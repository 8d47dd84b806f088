"""What a run's efficiency rests on: the GPUs, the layout, the model, the count of steps, and who told each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from servemark.dashboards.hardware import decimal, texts
from servemark.dashboards.words import figure
from servemark.results.headline import known_gpus
from servemark.results.schema import number, part, text


def facts(hardware: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Nothing where there is but a layout that is assumed."""
    if not (part(hardware, "gpu") or part(hardware, "model") or known_gpus(hardware)):
        return []
    return [*_gpus(hardware), *_model(hardware), *_steps(hardware)]


def _gpus(hardware: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    found, gpu = part(hardware, "deployment"), part(hardware, "gpu")
    count, title = number(found.get("gpus")), text(gpu.get("title") or gpu.get("name"), 80)
    if title:
        source = text(found.get("gpu_source"), 80)
        many = "" if count is None else f"{count:,.0f} x "
        yield "GPUs", f"{many}{title}" + (f" ({source})" if source else "")
    ranks = [f"{name} {value:,.0f}" for name in ("tensor", "pipeline", "data", "replicas")
             if (value := number(found.get(name))) is not None and value > 1]  # fmt: skip
    if found.get("expert") is True:
        ranks.append("experts spread")
    if source := text(found.get("layout_source"), 120):
        yield "layout", f"{', '.join(ranks) or 'one GPU'} ({source})"


def _model(hardware: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    found = part(hardware, "model")
    params, active = (number(found.get(name)) for name in ("params", "active_params"))
    if params is None:
        return
    source = text(found.get("source") or part(hardware, "deployment").get("model_source"), 200)
    yield "model", f"{text(found.get('name'), 120)}" + (f" ({source})" if source else "")
    sparse = f", {figure(active / 1e9)} billion active" if active is not None and active < 0.8 * params else ""
    yield "parameters", f"{figure(params / 1e9)} billion{sparse}"
    kept = decimal(number(found.get("weight_bytes")), "B")
    yield "weights", f"{text(found.get('weights'), 40)}, {kept}"
    yield "KV cache", f"{text(found.get('kv'), 40)}, {decimal(number(found.get('kv_bytes_per_token')), 'B')} per token"
    if left_out := "; ".join(texts(found.get("left_out"))):
        yield "left out", left_out


def _steps(hardware: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    efficiency = part(hardware, "efficiency")
    steps = part(efficiency, "steps")
    count, batch = number(steps.get("count")), number(efficiency.get("tokens_per_step"))
    if count is not None:
        about = "about " if steps.get("approximate") is True else ""
        by = text(steps.get("note"), 300) or text(steps.get("source"), 40)
        yield "engine steps", f"{about}{count:,.0f}" + (f" ({by})" if by else "")
    if batch is not None:
        yield "tokens in a step", f"{figure(batch)} on average"

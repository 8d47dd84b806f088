"""An estimate in sentences, for the terminal and the page: the model, what was asked, what must be known beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from servemark.dashboards.hardware import texts
from servemark.dashboards.words import NOTHING, figure, share
from servemark.results.schema import items, number, part, text

WITHOUT = (
    "Bounds, not predictions: give --like RUN for what engines reach, as measured in a run of yours, or assume it: "
    "--mbu 0.7 --mfu 0.5."
)
UNQUANTISED = ("bf16", "fp16", "fp32")
SHARES = (("decode MBU", "mbu"), ("prefill MFU", "mfu"))


def model_line(found: Mapping[str, Any]) -> str:
    model = part(found, "model")
    params, active = number(model.get("params")) or 0, number(model.get("active_params")) or 0
    chosen = f" ({figure(active / 1e9)}B active)" if active < 0.7 * params else ""
    return (
        f"{text(model.get('name'), 120)}: {figure(params / 1e9)}B parameters{chosen}, "
        f"{text(model.get('weights'), 40)} weights {gigabytes(model.get('weight_bytes'))} GB, "
        f"{text(model.get('kv'), 40)} KV cache {number(model.get('kv_bytes_per_token')) or 0:,.0f} B per token"
        + (f"; {left_out}" if (left_out := "; ".join(texts(model.get("left_out")))) else "")
    )


def asked_line(found: Mapping[str, Any]) -> str:
    asked = part(found, "asked")
    prompt, output, context = (number(asked.get(name)) or 0 for name in ("input_tokens", "output_tokens", "context"))
    return (
        f"requests of {prompt:,.0f} + {output:,.0f} tokens, room for {context:,.0f} each; engines take "
        f"{share(number(asked.get('memory_utilisation')))} of the memory"
    )


def objectives(found: Mapping[str, Any]) -> str:
    return text(part(part(found, "asked"), "slo").get("said"), 200)


def name_of(deployment: Mapping[str, Any], replicas: bool = True) -> str:
    """`h100-sxm TP4 PP2 x3`; without `replicas` that of one server."""
    layout = part(deployment, "layout")
    ranks = [
        f"{word}{count:.0f}"
        for word, name in (("TP", "tensor"), ("PP", "pipeline"), ("DP", "data"))
        if (count := number(layout.get(name)) or 1) > 1
    ]
    expert = ["EP"] if layout.get("expert") is True else []
    servers = (number(layout.get("replicas")) or 1) if replicas else 1
    return " ".join([text(deployment.get("gpu"), 60), *ranks, *expert, *([f"x{servers:.0f}"] if servers > 1 else [])])


def notes(found: Mapping[str, Any]) -> Iterator[str]:
    """What must be known beside the figures, each sentence once."""
    like = items(found, "like")
    assumed = part(found, "asked", "assumed")
    if not like and not assumed:
        yield WITHOUT
    for run in like:
        yield run_sentence(run)
    if assumed:
        yield assumed_sentence(assumed, like)
    if like or assumed:
        yield from _unknown([*like, assumed])
    yield from _kv_note(part(found, "model"))
    if isinstance(unpriced := part(found, "asked").get("unpriced"), list) and unpriced:
        yield f"The file of prices has none for {', '.join(text(name, 60) for name in unpriced)}."
    for gpu in items(found, "gpus"):
        if gpu.get("memory_mib") is None:
            name, published = text(gpu.get("name"), 60), figure(number(gpu.get("memory_gb")))
            yield f"{name}: what fits is counted with the published {published} GB; its driver's figure is not known."
        for dtype, instead in part(gpu, "widened").items():
            yield f"{text(gpu.get('name'), 60)} multiplies no {text(dtype, 10)}: it is computed as {text(instead, 10)}."
    said = [sentence for each in items(found, "deployments") for sentence in _of_deployment(each)]
    yield from dict.fromkeys(said)


def _unknown(told: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not any(number(each.get("mbu")) for each in told):
        yield "No run tells the MBU of its decode steps, so nothing is predicted: add one, or --mbu."
    elif not any(number(each.get("mfu")) for each in told):
        yield (
            "No run tells the MFU of its prefill, so of predictions there are only steps without prompts: "
            "add a run with --concurrency 1 and long prompts, or --mfu."
        )


def assumed_sentence(assumed: Mapping[str, Any], like: Sequence[Mapping[str, Any]]) -> str:
    """Runs go before it."""
    told = {name: any(number(run.get(name)) for run in like) for _, name in SHARES}
    said = [(word, name, number(assumed.get(name))) for word, name in SHARES]
    used = [f"{word} {share(value)}" for word, name, value in said if value is not None and not told[name]]
    unused = [f"--{name}" for _, name, value in said if value is not None and told[name]]
    first = f"Assumed, not measured: {', '.join(used)}, the same for all." if used else ""
    second = f"{' and '.join(unused)}: not used, as runs tell it." if unused else ""
    return " ".join(filter(None, (first, second)))


def _kv_note(model: Mapping[str, Any]) -> Iterator[str]:
    weights, kv = text(model.get("weights"), 40), text(model.get("kv"), 40)
    if weights not in UNQUANTISED and kv in ("bf16", "fp16"):
        yield f"KV cache at {kv}; --kv-dtype fp8 doubles the batch."


def run_sentence(run: Mapping[str, Any]) -> str:
    """`As efficient as runs/x (h100-sxm, llama-3.1-8b, batch 16): decode MBU 73.4 %, prefill MFU 58.1 %.`"""
    batch = number(run.get("batch"))
    of = [text(run.get(name), 100) for name in ("gpu", "model") if run.get(name)]
    known = [f"{word} {share(value)}" for word, name in SHARES if (value := number(run.get(name))) is not None]
    about = ", ".join([*of, *([f"batch {figure(batch)}"] if batch else [])])
    doubts = run.get("doubts")
    doubted = "".join(f"; {text(each, 300)}" for each in doubts) if isinstance(doubts, list) else ""
    return f"Efficiency of {text(run.get('run'), 200)} ({about}): {', '.join(known)}{doubted}."


def _of_deployment(deployment: Mapping[str, Any]) -> Iterator[str]:
    name, memory = name_of(deployment), part(deployment, "memory")
    too_large = [row for row in items(deployment, "rows") if row.get("fits") is not True]
    if memory.get("fits") is True and too_large:
        needs = [f"{number(row.get('batch')) or 0:,.0f} ({least(row.get('least_tensor'))})" for row in too_large]
        yield f"{name} does not hold a batch of {', '.join(needs)}."
    for sentence in deployment.get("notes") or ():
        yield f"{text(sentence, 400)}."


def least(tensor: object) -> str:
    ranks = number(tensor)
    return "no TP fits" if ranks is None else f"TP{ranks:.0f} fits"


def gigabytes(value: object) -> str:
    found = number(value)
    return NOTHING if found is None else figure(found / 1e9)


def milli(value: object) -> str:
    """Seconds as ms."""
    found = number(value)
    return NOTHING if found is None else figure(found * 1000)

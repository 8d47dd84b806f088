"""`bench estimate`: from its flags to the question that is asked of each deployment, and its answer as JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from servemark.harness.errors import BadInput
from servemark.harness.hardware.devices import Gpu, gpu
from servemark.harness.hardware.estimate import estimate
from servemark.harness.hardware.estimate_cycle import Traffic
from servemark.harness.hardware.estimate_layouts import Engine, check, layouts
from servemark.harness.hardware.estimate_point import Objectives, Question
from servemark.harness.hardware.estimate_reached import Reached
from servemark.harness.hardware.estimate_words import context_tokens, share
from servemark.harness.hardware.known import find_model
from servemark.harness.hardware.layout import Layout
from servemark.harness.hardware.limits import GB
from servemark.harness.hardware.model import Model
from servemark.harness.hardware.price import Price
from servemark.harness.hardware.prices import price_for
from servemark.harness.hardware.quantisation import kv_format, weight_format

if TYPE_CHECKING:
    from servemark.harness.figures.slo import Limit
    from servemark.harness.plan.lengths import Lengths
    from servemark.harness.plan.spec import Workload

MOST_DEPLOYMENTS = 100
MOST_TOKENS = 100_000_000
INPUT_TOKENS, OUTPUT_TOKENS = 1024, 256
_QUANTILES = 2_000
_WHOLE = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_METRIC = re.compile(r"\s*([a-z0-9_]+)\s*[:=]", re.ASCII)
MOST_RATE = 1e9
_ESTIMABLE = ("ttft", "tpot", "itl", "e2e")


def estimated(given: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a command's flags. Raises BadInput."""
    model = _model(given["model"], given["dtype"], given["kv_dtype"])
    workload = None if given["workload"] is None else _workload(given["workload"])
    files = tuple(given["gpu_file"])
    names = [name for each in given["gpu"] for name in map(str.strip, each.split(",")) if name]
    kinds = [gpu(name, files) for name in dict.fromkeys(names or given["gpu"])]
    asked = _layouts(model, given)
    if len(kinds) * len(asked) > MOST_DEPLOYMENTS:
        raise BadInput(
            f"--gpu, --tp, --pp, --dp: {len(kinds) * len(asked)} deployments are too many to compare; "
            f"{MOST_DEPLOYMENTS} are the most"
        )
    priced = [(kind, _price(kind, given)) for kind in kinds]
    question = Question(
        model=model,
        traffic=_traffic(model, given, workload),
        batches=whole_numbers("--batch", given["batch"]),
        engine=_engine(given),
        objectives=_objectives(given["slo"], workload),
        runs=_runs(given),
        assumed=_assumed(given),
        rate=_rate(given["rate"]),
    )
    found = estimate(question, priced, asked)
    unpriced = [kind.name for kind, price in priced if price is None] if given["prices"] is not None else []
    return found | {"asked": found["asked"] | {"unpriced": unpriced}}


def _model(text: str, weights: str | None, kv: str | None) -> Model:
    for flag, name, known in (("--dtype", weights, weight_format), ("--kv-dtype", kv, kv_format)):
        try:
            known(name if name is not None and name.strip().lower() != "auto" else "bf16")
        except ValueError as error:
            raise BadInput(f"{flag}: {error}") from error
    return find_model(text, weights, kv)


def whole_numbers(flag: str, text: str) -> tuple[int, ...]:
    """`1,8,64` or `1..64x2`, as values of a sweep are written, in order and each once."""
    from servemark.harness.matrix.values import spread

    try:
        words = [str(value) for part in text.split(",") for value in spread(part)]
    except ValueError as error:
        raise BadInput(f"{flag} {text!r}: {error}") from None
    if not all(_WHOLE.fullmatch(word) for word in words):
        raise BadInput(f"{flag} {text!r}: give whole numbers from 1 on, with commas, as 1,8,64, or 1..64x2")
    return tuple(sorted({int(word) for word in words}))


def _layouts(model: Model, given: Mapping[str, Any]) -> list[Layout]:
    tensor, pipeline, data = (whole_numbers(flag, given[flag[2:]]) for flag in ("--tp", "--pp", "--dp"))
    found = list(layouts(tensor, pipeline, data, given["ep"], given["replicas"]))
    try:
        for each in found[:MOST_DEPLOYMENTS]:
            check(model, each)
    except ValueError as error:
        raise BadInput(str(error)) from error
    return found


def _engine(given: Mapping[str, Any]) -> Engine:
    utilisation, reserve = given["memory_utilisation"], given["reserve_gb"]
    if not 0 < utilisation <= 1:
        raise BadInput(f"--memory-utilisation {utilisation:g}: give the share of a GPU's memory, as 0.9")
    if reserve is not None and not 0 <= reserve < 10_000:
        raise BadInput(f"--reserve-gb {reserve:g}: give the GB of each GPU that hold neither weights nor KV cache")
    return Engine(utilisation, None if reserve is None else reserve * GB)


def _runs(given: Mapping[str, Any]) -> tuple[Reached, ...]:
    if not given["like"]:
        return ()
    from servemark.harness.like_runs import reached_by

    return tuple(reached_by(folder, given["model"], given["like_gpu"]) for folder in given["like"])


def _assumed(given: Mapping[str, Any]) -> Reached | None:
    """What --mbu and --mfu say, for what no run of --like tells."""
    said = {name: share(f"--{name}", given[name]) for name in ("mbu", "mfu") if given[name] is not None}
    name = ", ".join(f"--{name} {value:g}" for name, value in said.items())
    return Reached(name, said.get("mbu"), said.get("mfu"), assumed=True) if said else None


def _rate(rate: float | None) -> float | None:
    if rate is not None and not 0 < rate <= MOST_RATE:
        raise BadInput(f"--rate {rate:g}: give requests per second, more than 0, as 20")
    return rate


def _price(kind: Gpu, given: Mapping[str, Any]) -> Price | None:
    return price_for(kind.name, given["gpu_price"], given["prices"], given["gpu_file"])


# -- the requests


def _traffic(model: Model, given: Mapping[str, Any], workload: Workload | None) -> Traffic:
    """A context alone is one of a request with the usual answer; else each has room for all its tokens at least."""
    prompt, output = given["input_tokens"], given["output_tokens"]
    context = None if given["context"] is None else context_tokens(given["context"])
    if workload is not None:
        means = _mean_lengths(workload, given["workload"])
        prompt, output = prompt or means[0], output or means[1]
    output = output or OUTPUT_TOKENS
    if prompt is None:
        prompt = INPUT_TOKENS if context is None else context - output
    longest = prompt + output
    if prompt < 1 or (context is not None and context < longest):
        raise BadInput(
            f"--context {context:,}: a request of {max(prompt, 1):,} + {output:,} tokens does not fit in it; raise it, "
            "or lower --input-tokens or --output-tokens"
        )
    context, limit = context or longest, model.architecture.max_context
    if limit is not None and context > limit:
        flag = f"--context {context:,}" if given["context"] is not None else f"{prompt:,} + {output:,} tokens"
        raise BadInput(f"{flag}: {model.name} takes no more than {limit:,} tokens by its config; ask for less")
    return Traffic(prompt, output, context)


def _workload(name: str) -> Workload:
    from servemark.harness.plan.spec import load_workload

    return load_workload(name).spec


def _mean_lengths(workload: Workload, name: str) -> tuple[int, int]:
    """Of lengths that the workload declares; means over evenly spaced quantiles."""
    both = getattr(workload.prompts, "both", None)
    if both is None or getattr(workload.prompts, "lengths", None) is not None:
        raise BadInput(
            f"--workload {name}: it does not declare one distribution each of input and output lengths, so there are "
            "no means to take; give --input-tokens and --output-tokens"
        )
    return _mean(both.input), _mean(both.output)


def _mean(lengths: Lengths) -> int:
    draws = [lengths.draw((place + 0.5) / _QUANTILES) for place in range(_QUANTILES)]
    return min(MOST_TOKENS, round(sum(draws) / _QUANTILES))


# -- the objectives


def _objectives(text: str | None, workload: Workload | None) -> Objectives | None:
    """Those of the flag, else of the workload."""
    from servemark.harness.figures.slo import parse_slo

    declared = workload.slo.limits if workload is not None and workload.slo is not None else ()
    said = declared if text is None else text
    if not said:
        return None
    if text is not None:
        _refuse_others(text)
    try:
        limits = parse_slo(said).limits
    except ValueError as error:
        raise BadInput(f"--slo: {error}") from error
    return _of([each for each in limits if each.metric in _ESTIMABLE])


def _refuse_others(text: str) -> None:
    names = (_METRIC.match(each) for each in text.split(","))
    other = next((found[1] for found in names if found and found[1] not in _ESTIMABLE), None)
    if other is not None:
        raise BadInput(f"--slo: {other} cannot be estimated from the hardware; limits go on {', '.join(_ESTIMABLE)}")


def _of(limits: Sequence[Limit]) -> Objectives | None:
    def least(*metrics: str) -> float | None:
        return min((each.value / 1000 for each in limits if each.metric in metrics), default=None)

    said = ",".join(each.text for each in limits)
    return Objectives(least("ttft"), least("tpot", "itl"), least("e2e"), said) if limits else None

"""From the flags of `bench sweep` to the plan that they stand for: one engine, one workload, a load for each point."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from servemark.harness.clock import SECOND
from servemark.harness.errors import BadInput
from servemark.harness.launch.words import shown
from servemark.harness.load.balance import DEFAULT
from servemark.harness.matrix.labels import slug
from servemark.harness.matrix.plan import LoadedPlan, MatrixPlan
from servemark.harness.matrix.values import FLAG, Over, combined, parse_over
from servemark.harness.plan.overrides import SET
from servemark.harness.plan.sentences import Where, of_validation
from servemark.harness.plan.yaml_lines import Document
from servemark.harness.prepare import Asked
from servemark.harness.units import format_duration

LABEL = "sweep"


def sweep_plan(
    asked: Asked, over: Sequence[str], spellings: Mapping[str, str], repeat: int, cool_down: str
) -> LoadedPlan:
    """Headers are no part of it: they may hold secrets. Raises BadInput."""
    overs = [parse_over(text, spellings) for text in over]
    common = {name: value for name, value in asked.flags.items() if value is not None and name != "headers"}
    _refuse_both(overs, common)
    data = {
        "version": 1,
        "name": slug("_".join((asked.target, Path(asked.workload).stem, *(each.name for each in overs)))),
        "engines": [_engine(asked)],
        "workloads": [asked.workload],
        "loads": combined(overs),
        **({"common": common} if common else {}),
        "repeat": repeat,
        "cool_down": cool_down,
        **({"allow": list(asked.allow)} if asked.allow else {}),
        "scrape": format_duration(round(asked.scrape_s * SECOND)),
    }
    where = Where(Document(LABEL, data, {}), {("cool_down",): "--cool-down"})
    try:
        spec = MatrixPlan.model_validate(data)
    except ValidationError as error:
        raise BadInput(of_validation(error, data, MatrixPlan, where)) from None
    return LoadedPlan(spec, slug(spec.name or LABEL), _written(data), LABEL, Path.cwd(), where, "sweep")


def _refuse_both(overs: Sequence[Over], common: Mapping[str, Any]) -> None:
    for over in overs:
        if over.placed and over.name in common.get(SET, ()):
            raise BadInput(f"{FLAG} {over.name}: --set gives it one value; leave one of the two out")
        if not over.placed and over.name in common:
            flag = over.name.replace("_", "-")
            raise BadInput(f"{FLAG} {flag}: --{flag} gives it one value; leave one of the two out")


def _engine(asked: Asked) -> dict[str, Any]:
    """As the plan of a matrix has it; what was not asked for is left out."""
    wait_s = asked.launch.wait_s if asked.launch is not None else asked.wait_s
    given = {
        "launch": None if asked.launch is None else shlex.join(asked.launch.words),
        "url": list(asked.urls),
        "balance": asked.balance if asked.balance != DEFAULT else None,
        "metrics_url": list(asked.metrics_urls),
        "model": asked.model,
        "api_key_env": asked.api_key_env,
        "wait": format_duration(round(wait_s * SECOND)) if wait_s else None,
        "tokenizer": None if asked.tokenizer is None else str(asked.tokenizer),
        "cacert": asked.cacert,
        "insecure": asked.insecure or None,
        "hardware": asked.hardware.model_dump(mode="json", exclude_defaults=True) or None,
    }
    return {"target": asked.target, **{name: value for name, value in given.items() if value not in (None, [])}}


def _written(data: Mapping[str, Any]) -> str:
    """As a plan for `bench matrix`, without the secrets that a command line may hold."""
    (engine,) = data["engines"]
    if "launch" in engine:
        engine = {**engine, "launch": shown(shlex.split(engine["launch"]))}
    text: str = yaml.safe_dump({**data, "engines": [engine]}, sort_keys=False, default_flow_style=None, width=110)
    return text

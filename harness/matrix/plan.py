"""The plan of a matrix: engines, workloads and loads, as a strict YAML file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from servemark.harness.clock import SECOND
from servemark.harness.errors import BadInput
from servemark.harness.hardware.section import HardwareSection
from servemark.harness.launch.launching import WAIT_S
from servemark.harness.launch.words import is_secret_name, secrets_in, split
from servemark.harness.load.balance import BALANCES, DEFAULT
from servemark.harness.matrix.labels import slug
from servemark.harness.plan.overrides import FLAGS
from servemark.harness.plan.sentences import Complaint, Where, of_validation, raise_if
from servemark.harness.plan.strict import Count, Duration, PositiveDuration, Strict, one_or_many
from servemark.harness.plan.yaml_lines import read
from servemark.harness.server.address import parse_url
from servemark.harness.server.scrape import LEAST_PERIOD_S
from servemark.harness.units import parse_duration

_SECRET = "a secret here would be copied into results; set it in the environment that bench runs in"
COOL_DOWN = "5s"
_NOT_HERE = {"headers"}  # their values may be secrets, and the plan is copied into results


def _known_flags(given: dict[str, Any]) -> dict[str, Any]:
    known = [name for name in FLAGS if name not in _NOT_HERE]
    for name in given:
        if name.replace("-", "_") not in known:
            close = get_close_matches(name.replace("-", "_"), known, 1)
            guess = f"did you mean {close[0]}? " if close else ""
            raise ValueError(f"there is no flag {name!r} of `bench run` for it; {guess}there are: {', '.join(known)}")
    return {name.replace("-", "_"): value for name, value in given.items()}


RunFlags = Annotated[dict[str, Any], AfterValidator(_known_flags)]
"""Flags of `bench run` that go over the workload, without their dashes."""

FlagValue = str | int | float | bool
_NOT_EMPTY: dict[str, Any] = {"minItems": 1}
Texts = Annotated[
    tuple[str, ...], BeforeValidator(one_or_many, json_schema_input_type=str | tuple[str, ...]), Field(strict=False)
]


class EngineSection(Strict):
    """A server: one that is launched, once for all that is measured on it, or one that runs already."""

    target: str = Field(description="kind of server, as --target")
    name: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="what results call it; without it the target's name"
    )
    launch: str | None = Field(default=None, description="model and engine flags, as --launch")
    flags: dict[str, FlagValue | list[FlagValue]] = Field(
        default_factory=dict,
        description="flags added to launch; true is a flag without a value, false none, a list one engine for each",
    )
    env: dict[str, str] = Field(default_factory=dict, description="environment variables of the engine; no secrets")
    url: Texts = Field(default=(), description="address of a server that runs, or of each of its replicas")
    balance: str = Field(default=DEFAULT, description="which of several replicas gets a request, as --balance")
    metrics_url: Texts = Field(default=(), description="where its own metrics are, if elsewhere, as --metrics-url")
    model: str | None = Field(default=None, description="model to ask for")
    api_key_env: str | None = Field(default=None, description="environment variable that holds the API key")
    wait: Duration | None = Field(
        default=None, description=f"how long it may take to be ready; a launched one {WAIT_S:g}s without it"
    )
    tokenizer: str | None = Field(default=None, description="tokenizer.json, where the server has none")
    cacert: str | None = Field(default=None, description="authorities to trust for https (PEM)")
    insecure: bool = Field(default=False, description="do not verify the server's certificate")
    hardware: HardwareSection = Field(
        default_factory=HardwareSection, description="what it runs on, for MBU, MFU, limits and cost"
    )


class MatrixPlan(Strict):
    """A plan of version 1: every engine with every workload at every load."""

    version: Literal[1] = Field(description="version of this format")
    name: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="folder of its results under runs/; without it the file's name"
    )
    about: str = Field(default="", description="what it is to find out")
    engines: Annotated[tuple[EngineSection, ...], Field(strict=False)] = Field(
        description="servers that are compared", json_schema_extra=_NOT_EMPTY
    )
    workloads: Texts = Field(
        description="workload files, from the plan's folder, or packaged names", json_schema_extra=_NOT_EMPTY
    )
    loads: Annotated[tuple[RunFlags, ...], Field(strict=False)] = Field(
        default=({},),
        description="flags of `bench run` for one load each, as {rate: 2}; without it the workload's own",
        json_schema_extra=_NOT_EMPTY,
    )
    common: RunFlags = Field(default_factory=dict, description="flags of `bench run` for every load")
    repeat: Count = Field(default=1, description="how often each is measured")
    cool_down: Duration = Field(
        default=parse_duration(COOL_DOWN),
        description="pause between two runs, after which the server must have come to rest",
    )
    allow: Texts = Field(default=(), description="checks of the verdict that are waived, as --allow")
    scrape: PositiveDuration = Field(default=10**9, description="period of the server's metrics, as --scrape")


@dataclass(frozen=True, slots=True)
class LoadedPlan:
    """A plan as read, or as the flags of a sweep make one; `folder` is where relative paths in it begin."""

    spec: MatrixPlan
    name: str
    text: str
    path: str
    folder: Path
    where: Where
    kind: Literal["matrix", "sweep"] = "matrix"


def load_plan(path: Path) -> LoadedPlan:
    """Raises BadInput, a line for each mistake."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BadInput(f"{path}: the plan cannot be read ({why})") from error
    return parse_plan(text, str(path), path.resolve().parent)


def parse_plan(text: str, label: str, folder: Path) -> LoadedPlan:
    """A plan from text; `label` names it in errors. Raises BadInput."""
    document = read(text, label)
    where = Where(document, {})
    try:
        spec = MatrixPlan.model_validate(document.data)
    except ValidationError as error:
        raise BadInput(of_validation(error, document.data, MatrixPlan, where)) from None
    raise_if(_conflicts(spec), where)
    return LoadedPlan(spec, slug(spec.name or Path(label).stem), text, label, folder, where)


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the file."""
    schema = MatrixPlan.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "servemark matrix"}


def _conflicts(spec: MatrixPlan) -> Iterator[Complaint]:
    for name in ("engines", "workloads", "loads"):
        if not getattr(spec, name):
            yield (name,), "is empty; give it at least one"
    if spec.scrape < LEAST_PERIOD_S * SECOND:
        yield ("scrape",), f"is too often; give {LEAST_PERIOD_S * 1000:g}ms or more"
    for place, engine in enumerate(spec.engines):
        path = ("engines", place)
        if engine.launch is not None and engine.url:
            yield (*path, "url"), "a launched server has no address yet; keep launch or url"
        if engine.balance not in BALANCES:
            yield (*path, "balance"), f"there is no {engine.balance!r}; there are: {', '.join(BALANCES)}"
        if engine.launch is None and (engine.flags or engine.env):
            key = "flags" if engine.flags else "env"
            yield (*path, key), "they are for an engine that is launched; add launch, or remove them"
        if engine.launch is not None:
            yield from (((*path, "launch"), said) for said in _launch_complaints(engine.launch))
        yield from (((*path, "hardware", key), said) for key, said in _hardware_complaints(engine.hardware))
        for variable in engine.env:
            if is_secret_name(variable):
                yield (*path, "env", variable), _SECRET
            if not variable or "=" in variable:
                yield (*path, "env", variable), "is no name of an environment variable"
        for flag, value in engine.flags.items():
            if isinstance(value, list) and not value:
                yield (*path, "flags", flag), "an empty list leaves no engine; give it a value"
            if is_secret_name(flag):
                yield (*path, "flags", flag), _SECRET


def _hardware_complaints(hardware: HardwareSection) -> Iterator[tuple[str, str]]:
    if 0 < hardware.gpu_sample < LEAST_PERIOD_S * SECOND:
        yield "gpu_sample", f"is too often; give {LEAST_PERIOD_S * 1000:g}ms or more, or off"
    for url in hardware.gpu_metrics:
        try:
            parse_url(url, "the address")
        except BadInput as error:
            yield "gpu_metrics", str(error)


def _launch_complaints(launch: str) -> Iterator[str]:
    try:
        words = split(launch, "launch")
    except BadInput as error:
        yield str(error).removeprefix("launch: ")
        return
    if secrets_in(words):
        yield _SECRET

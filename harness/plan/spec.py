"""The workload file: its strict, versioned model, and how it is found and read.

`load_workload` finds and reads a file, `apply` puts flags over it, `json_schema` publishes its form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from servemark.harness.errors import BadInput
from servemark.harness.plan import overrides as flags
from servemark.harness.plan import sentences
from servemark.harness.plan.arrivals import ARRIVALS, ClosedLoop, OpenLoop
from servemark.harness.plan.classes import ClassSection, Mix, PromptsField, check_names
from servemark.harness.plan.schema_defs import with_defs
from servemark.harness.plan.sections import DEFAULT_DURATION, RequestSection, RunSection, SloSection
from servemark.harness.plan.sources import PACKAGED, SOURCES, PromptSource, discover
from servemark.harness.plan.strict import Registered, Strict, either
from servemark.harness.plan.yaml_lines import Document, read
from servemark.harness.units import parse_duration

HIDDEN = "(hidden)"
"""Stands in results for the value of a header that came from a flag: it may be a secret."""


def _spell_out_load(value: Any) -> Any:
    """`concurrency` alone is the closed loop; stages are stages; a rate without a word about arrivals is Poisson."""
    if isinstance(value, dict) and "arrivals" not in value:
        if "stages" in value:
            return {"arrivals": "stages", **value}
        if "rate" in value:
            return {"arrivals": "poisson", **value}
        if "concurrency" in value:
            return {"arrivals": "closed", **value}
        raise ValueError("no load is described; give a `rate:`, a `concurrency:`, or `arrivals: trace`")
    return value


class Workload(Strict):
    """A workload file of version 1."""

    model_config = ConfigDict(json_schema_extra=either(("prompts",), ("classes",)))

    version: Literal[1] = Field(description="version of this format")
    name: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="what results call it; without it the file's name"
    )
    about: str = Field(default="", description="what it stands for, and where its figures come from")
    prompts: PromptsField | None = Field(default=None, description="what is sent")
    classes: dict[str, ClassSection] | None = Field(
        default=None, description="in place of prompts: kinds of requests by name, mixed by their weights"
    )
    load: Annotated[OpenLoop | ClosedLoop, Registered(ARRIVALS, "arrivals", _spell_out_load)] = Field(
        description="when it is sent"
    )
    request: RequestSection = Field(default=RequestSection(), description="how it is sent")
    run: RunSection = Field(default=RunSection(), description="for how long")
    slo: SloSection = Field(default=SloSection(), description="what the answers should meet")

    @field_validator("classes")
    @classmethod
    def _named(cls, classes: dict[str, ClassSection] | None) -> dict[str, ClassSection] | None:
        if classes is not None:
            check_names(classes)
        return classes

    @model_validator(mode="after")
    def _one_of_two(self) -> Workload:
        if self.prompts is not None and self.classes is not None:
            raise ValueError("prompts and classes both say what is sent; keep one of the two")
        if self.prompts is None and self.classes is None:
            raise ValueError("nothing is sent; add `prompts:` (what is sent), or `classes:` for a mix")
        return self

    @property
    def source(self) -> PromptSource:
        """What is sent: the prompts, or the mix of classes."""
        if self.prompts is not None:
            return self.prompts
        members = self.classes or {}
        kinds = {member.prompts.tokens for member in members.values()}
        return Mix(members=members, tokens="ids" if kinds == {"ids"} else "text")

    @property
    def duration_ns(self) -> int | None:
        """The measured time; None where `requests` or the source's end decides. Stages hold the warm-up too."""
        run, lasts_ns = self.run, self.load.lasts_ns
        if run.duration is not None or run.requests is not None:
            return run.duration
        if lasts_ns is not None:
            return None if run.warmup.requests else lasts_ns - run.warmup.duration_ns
        return None if self.source.finite else parse_duration(DEFAULT_DURATION)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A workload as read. `text` is the file verbatim, `overrides` the flags that were put over it."""

    spec: Workload
    name: str
    text: str
    path: str
    folder: Path
    document: Document
    raw: dict[str, Any]
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def dump(self) -> dict[str, Any]:
        """What ran, defaults and flags included, as JSON-ready data with units; headers of flags are hidden."""
        data = self.spec.model_dump(mode="json")
        open_ones = (self.document.data.get("request") or {}).get("headers") or {}
        headers = data["request"]["headers"]
        data["request"]["headers"] = {name: headers[name] if name in open_ones else HIDDEN for name in headers}
        return data


def packaged() -> dict[str, Any]:
    """Name -> file of every workload that ships with servemark."""
    folder = resources.files(PACKAGED)
    files = (file for file in folder.iterdir() if file.name.endswith(".yaml"))
    return {file.name.removesuffix(".yaml"): file for file in sorted(files, key=lambda file: file.name)}


def load_workload(name_or_path: str, overrides: Mapping[str, Any] | None = None) -> Loaded:
    """A workload by path, else by name (`chat` or `chat.yaml`) from the packaged ones, with flags put over it.

    Given here, flags may mend what would not go together in the file; see `apply`. Raises BadInput.
    """
    text, label, folder = _find(name_or_path)
    if overrides is None:
        return parse_workload(text, label, folder)
    return apply(_parse(text, label, folder), overrides)


def _find(name_or_path: str) -> tuple[str, str, Path]:
    """Text, label and data folder of a workload."""
    path = Path(name_or_path).expanduser()
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8"), name_or_path, path.resolve().parent
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"{name_or_path}: the workload file cannot be read: {error}") from error
    ours = packaged()
    file = ours.get(name_or_path.removesuffix(".yaml"))
    if file is None:
        close = get_close_matches(name_or_path.removesuffix(".yaml"), ours, 2)
        guess = f" (did you mean {' or '.join(close)}?)" if close else ""
        raise BadInput(
            f"there is no workload {name_or_path!r}, neither as a file nor packaged{guess}; "
            "give a path, or a name that `bench list` shows"
        )
    return file.read_text(encoding="utf-8"), file.name, Path.cwd()


def parse_workload(text: str, label: str = "workload.yaml", folder: Path | None = None) -> Loaded:
    """A workload from text; `label` names it in errors, relative data paths start at `folder`. Raises BadInput."""
    loaded = _parse(text, label, folder or Path.cwd())
    sentences.raise_if(_conflicts(loaded.spec), sentences.Where(loaded.document, {}))
    return loaded


def _parse(text: str, label: str, folder: Path) -> Loaded:
    document = read(text, label)
    raw = document.data
    where = sentences.Where(document, {})
    sentences.raise_if(_secrets(raw), where)
    spec = _validate(raw, where)
    name = spec.name or Path(label).name.removesuffix(".yaml")
    return Loaded(spec, name, text, label, folder, document, raw)


def apply(loaded: Loaded, overrides: Mapping[str, Any]) -> Loaded:
    """The workload with flags put over it; None is a flag that was not given. Raises BadInput naming the flag.

    Flags mean what they mean in the vLLM family: a rate with a concurrency is an open loop with a cap in flight,
    a concurrency alone is a closed loop. See `overrides.FLAGS` for the names.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    raw = deepcopy(loaded.raw)
    flagged = flags.put(raw, given)
    where = sentences.Where(loaded.document, flagged)
    spec = _validate(raw, where)
    sentences.raise_if(_conflicts(spec), where)
    if "headers" in given:
        given["headers"] = dict.fromkeys(given["headers"], HIDDEN)
    return replace(loaded, spec=spec, raw=raw, overrides={**loaded.overrides, **given})


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the file, with every registered source, arrival process and distribution."""
    discover()
    schema = with_defs(Workload.model_json_schema(mode="validation"))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "servemark workload"}


def _validate(raw: dict[str, Any], where: sentences.Where) -> Workload:
    discover()
    sentences.raise_if(_misplaced_cap(raw), where)
    try:
        return Workload.model_validate(_settled(raw))
    except ValidationError as error:
        raise BadInput(sentences.of_validation(error, raw, Workload, where)) from None


def _misplaced_cap(raw: dict[str, Any]) -> Iterator[sentences.Complaint]:
    """The key is one of a closed loop; that it is unknown elsewhere would not say why."""
    load = raw.get("load")
    if not isinstance(load, dict) or load.get("requests_per_minute") is None:
        return
    if "rate" in load or load.get("arrivals", "closed") != "closed":
        yield (
            ("load", "requests_per_minute"),
            "caps a closed loop only, since the arrivals of an open loop wait for nobody; "
            "lower its rate, or give a concurrency in place of the arrivals",
        )


def _settled(raw: dict[str, Any]) -> dict[str, Any]:
    """All at once leaves no time to warm up in, so an unsaid warm-up is none."""
    load, run = raw.get("load"), raw.get("run", {})
    if isinstance(load, dict) and isinstance(run, dict) and "warmup" not in run:
        rates = (load.get("rate"), load.get("speed"))
        if any(str(rate).lower().removesuffix("/s") in ("inf", ".inf") for rate in rates):
            return {**raw, "run": {**run, "warmup": 0}}
    return raw


_SECRET_HEADERS = {"authorization", "proxy-authorization", "x-api-key", "api-key", "cookie"}


def _secrets(raw: dict[str, Any]) -> Iterator[sentences.Complaint]:
    """The file is copied into results, so it must hold no credentials."""
    request = raw.get("request")
    headers = request.get("headers") if isinstance(request, dict) else None
    for name in headers if isinstance(headers, dict) else ():
        if str(name).lower() in _SECRET_HEADERS:
            path = ("request", "headers", str(name))
            yield path, "a secret here would be copied into every result; use --api-key-env or --header"


def _conflicts(spec: Workload) -> Iterator[sentences.Complaint]:
    """What is wrong between sections."""
    load = spec.load
    sends = "prompts" if spec.classes is None else "classes"
    if spec.source.tokens == "ids" and spec.request.endpoint == "chat":
        yield (sends, "tokens"), "a chat takes no token ids; leave request.endpoint out, or set it to completions"
    yield from _between_classes(spec)
    if spec.run.cache == "warm" and spec.source.unique:
        yield (
            ("run", "cache"),
            f"there is nothing to warm: every prompt of the source {spec.source.source} is a new one; "
            "take cold or as_is, or repeat prompts or beginnings, as synthetic does by `distinct` or `shared_prefix`",
        )
    if isinstance(load, ClosedLoop):
        return
    if load.arrivals == "trace" and not spec.source.timed:
        timed = ", ".join(name for name, source in SOURCES.items() if source.timed)
        yield (
            ("load", "arrivals"),
            f"the prompt source {spec.source.source} has no recorded times; use poisson or constant, "
            f"or a source that has them: {timed}"
            if spec.classes is None
            else "a mix of classes has no recorded times of its own; use poisson, gamma or constant",
        )
    if load.all_at_once:
        yield from _all_at_once(spec)
    if load.lasts_ns is not None and spec.run.warmup.duration_ns >= load.lasts_ns:
        yield (
            ("run", "warmup"),
            f"the warm-up is a part of the {load.arrivals}, which take no longer than it, so that nothing would count; "
            "shorten it, or give 0",
        )


def _between_classes(spec: Workload) -> Iterator[sentences.Complaint]:
    """What is wrong between the classes of a mix."""
    classes = spec.classes or {}
    if len({member.prompts.tokens for member in classes.values()}) > 1:
        yield ("classes",), "some classes send text and others token ids; let all send the same"


def _all_at_once(spec: Workload) -> Iterator[sentences.Complaint]:
    if spec.run.requests is None and not spec.source.finite:
        yield ("load", "rate"), "all requests at once never end by time; say how many: run.requests, or --requests"
    if spec.run.warmup.duration_ns:
        yield (
            ("run", "warmup"),
            "all requests at once (an infinite rate) leave no time to warm up; give a number of requests, or 0",
        )

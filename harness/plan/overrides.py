"""Flags over a workload file: each is a small function that puts a value into the file's data.

The names are the command's flags with underscores; `put` says which places of the data they set, so that an error there
names the flag.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path as FilePath
from typing import Any

from servemark.harness.errors import BadInput
from servemark.harness.plan import places
from servemark.harness.plan.lengths.shorthand import spell_out_both
from servemark.harness.plan.sources import SOURCES, discover
from servemark.harness.plan.yaml_lines import Path, dotted
from servemark.harness.registry import Registry

Put = Callable[[dict[str, Any], Any, Mapping[str, Any]], list[Path]]
"""(data, value, all flags) -> the paths that were set."""

FLAGS: Registry[Put] = Registry("flag")
SET = "set"


def put(raw: dict[str, Any], given: Mapping[str, Any]) -> dict[Path, str]:
    """Puts all given flags into the data; path -> flag. Raises BadInput, and KeyError for a flag unknown here."""
    flagged: dict[Path, str] = {}
    for name, value in given.items():
        if name == SET:
            continue
        flag = _flag(name)
        for path in FLAGS[name](raw, value, given):
            flagged.setdefault(path, flag)
    if SET in given:  # over all other flags
        flagged |= {path: f"{places.FLAG} {dotted(path)}" for path in FLAGS[SET](raw, given[SET], given)}
    return flagged


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _section(raw: dict[str, Any], *names: str) -> dict[str, Any]:
    """The mapping of a section, made where the file has none (or something else, which the flag replaces)."""
    for name in names:
        if not isinstance(raw.get(name), dict):
            raw[name] = {}
        raw = raw[name]
    return raw


def _prompts(raw: dict[str, Any], flag: str) -> dict[str, Any]:
    """The section that a flag on prompts goes to. BadInput where there are several."""
    classes = raw.get("classes")
    if isinstance(classes, dict) and classes:
        key = {"data": "path"}.get(flag, flag)
        example = f"--set classes.{next(iter(classes))}.prompts.{key}=..."
        raise BadInput(f"{_flag(flag)}: the workload mixes classes, each with prompts of its own; say whose: {example}")
    return _section(raw, "prompts")


def _number(value: Any) -> Any:
    """Whole numbers and fractions that came as text; anything else as it is, for the model to judge."""
    if isinstance(value, str):
        if re.fullmatch(r"\s*\d+\s*", value):
            return int(value)
        if re.fullmatch(r"\s*\d*\.\d+\s*", value):
            return float(value)
    return value


def _simple(name: str, *path: str) -> None:
    """A flag that sets one key."""

    @FLAGS.register(name)
    def set_key(raw: dict[str, Any], value: Any, given: Mapping[str, Any]) -> list[Path]:
        _section(raw, *path[:-1])[path[-1]] = _number(value)
        return [path]


_simple("warmup", "run", "warmup")
_simple("drain", "run", "drain")
_simple("cache", "run", "cache")
_simple("endpoint", "request", "endpoint")
_simple("temperature", "request", "temperature")
_simple("top_p", "request", "top_p")
_simple("force_output_length", "request", "force_output_length")
_simple("connections", "request", "connections")
_simple("attainment", "slo", "attainment")
_simple("gate", "slo", "gate")


_SIDES = ("input_tokens", "output_tokens")


def _side(name: str, other: str) -> None:
    """A flag for one of the two lengths; where the file has both in one, the other one is kept."""

    @FLAGS.register(name)
    def set_side(raw: dict[str, Any], value: Any, given: Mapping[str, Any]) -> list[Path]:
        prompts = _prompts(raw, name)
        lengths = prompts.pop("lengths", None)
        if isinstance(lengths, str):
            prompts.update(zip(_SIDES, spell_out_both(lengths), strict=True))
        elif lengths is not None and other not in given:
            raise BadInput(
                f"{_flag(name)}: the workload draws input and output together; give {_flag(other)} too, or --lengths"
            )
        prompts[name] = _number(value)
        return [("prompts", name)]


_side("input_tokens", "output_tokens")
_side("output_tokens", "input_tokens")


@FLAGS.register("lengths")
def _lengths(raw: dict[str, Any], value: Any, given: Mapping[str, Any]) -> list[Path]:
    """Both at once, in place of what the file has of either."""
    prompts = _prompts(raw, "lengths")
    for name in _SIDES:
        if name in given:
            raise BadInput(f"--lengths and {_flag(name)} say the same thing; give one of them")
        prompts.pop(name, None)
    prompts["lengths"] = value
    return [("prompts", "lengths")]


@FLAGS.register("rate")
def _rate(raw: dict[str, Any], value: Any, given: Mapping[str, Any]) -> list[Path]:
    """An open loop, by the file's own arrival process where it has one."""
    load = _section(raw, "load")
    if "concurrency" in load or load.get("arrivals") == "closed":
        load.clear()
    load.setdefault("arrivals", "stages" if "stages" in load else "poisson")
    load.pop("speed", None)
    load["rate"] = value
    # Without a word about warm-up on the command line, all at once drops the file's warm-up time.
    if str(value).lower().removesuffix("/s") == "inf" and "warmup" not in given:
        _section(raw, "run")["warmup"] = 0
    return [("load", "rate"), ("load",)]


@FLAGS.register("concurrency")
def _concurrency(raw: dict[str, Any], value: Any, given: Mapping[str, Any]) -> list[Path]:
    """With a rate the cap of an open loop; alone a closed loop."""
    load = _section(raw, "load")
    if "rate" in given:
        if "concurrency" in load:
            load.clear()
        load["max_concurrency"] = _number(value)
        return [("load", "max_concurrency")]
    kept = {key: load[key] for key in ("think_time", "ramp_up", "requests_per_minute") if load.get(key) is not None}
    load.clear()
    load.update({"concurrency": _number(value)} | kept)
    return [("load", "concurrency"), ("load",)]


_simple("requests_per_minute", "load", "requests_per_minute")


@FLAGS.register("requests")
def _requests(raw: dict[str, Any], value: Any, given: Mapping[str, Any]) -> list[Path]:
    """So many requests, however long they take, unless a duration is given too."""
    run = _section(raw, "run")
    run["requests"] = _number(value)
    if "duration" not in given:
        run.pop("duration", None)
    return [("run", "requests")]


@FLAGS.register("duration")
def _duration(raw: dict[str, Any], value: Any, given: Mapping[str, Any]) -> list[Path]:
    run = _section(raw, "run")
    run["duration"] = value
    if "requests" not in given:
        run.pop("requests", None)
    return [("run", "duration")]


@FLAGS.register("seed")
def _seed(raw: dict[str, Any], value: Any, given: Mapping[str, Any]) -> list[Path]:
    """The four; a salt stays."""
    names = ("arrivals", "prompts", "lengths", "order")
    _section(raw, "run", "seeds").update(dict.fromkeys(names, _number(value)))
    return [("run", "seeds", name) for name in names]


@FLAGS.register("slo")
def _slo(raw: dict[str, Any], value: Any, given: Mapping[str, Any]) -> list[Path]:
    """Replaces the file's limits, those of its classes included."""
    _section(raw, "slo")["limits"] = list(value) if isinstance(value, tuple) else value
    classes = raw.get("classes")
    for each in classes.values() if isinstance(classes, dict) else ():
        if isinstance(each, dict):
            each.pop("slo", None)
    return [("slo", "limits")]


@FLAGS.register("headers")
def _headers(raw: dict[str, Any], value: Mapping[str, str], given: Mapping[str, Any]) -> list[Path]:
    """Added to the file's headers; a header of the same name is replaced."""
    headers = _section(raw, "request", "headers")
    for name, text in value.items():
        for old in [old for old in headers if old.lower() == name.lower()]:
            del headers[old]
        headers[name] = text
    return [("request", "headers")]


@FLAGS.register("extra_body")
def _extra_body(raw: dict[str, Any], value: Any, given: Mapping[str, Any]) -> list[Path]:
    """Added to the file's fields; a field of the same name is replaced."""
    if not isinstance(value, Mapping):
        raise BadInput(f'--extra-body: needs a JSON object such as {{"top_k": 20}}, not {value!r}')
    _section(raw, "request", "extra_body").update(value)
    return [("request", "extra_body")]


@FLAGS.register("data")
def _data(raw: dict[str, Any], value: Any, given: Mapping[str, Any]) -> list[Path]:
    """The source's data file, from the caller's own folder and not the workload file's."""
    prompts = _prompts(raw, "data")
    discover()
    source = prompts.get("source")
    if isinstance(source, str) and source in SOURCES and "path" not in SOURCES[source].model_fields:
        raise BadInput(f"--data: the source {source} reads no data file; leave it out, or take a workload that has one")
    prompts["path"] = str(FilePath(value).expanduser().resolve())
    return [("prompts", "path")]


@FLAGS.register(SET)
def _set(raw: dict[str, Any], value: Any, given: Mapping[str, Any]) -> list[Path]:
    """Any field by its dotted path."""
    if not isinstance(value, Mapping):
        raise BadInput(f"{places.FLAG}: needs paths with their values, as {{load.max_concurrency: 64}}, not {value!r}")
    found: list[Path] = []
    for text, new in value.items():
        try:
            path = places.parse_path(str(text))
            if places.touches(path, new, ("request", "headers")):
                raise ValueError("would be copied into every result; give headers with --header, which are hidden")
            found += places.put_at(raw, path, new)
        except ValueError as error:
            raise BadInput(f"{places.FLAG} {text}: {error}") from None
    return found

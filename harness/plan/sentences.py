"""What a user reads when a workload is wrong: one line per error, with where and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain
from typing import Any, cast, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from servemark.harness.errors import BadInput
from servemark.harness.plan.strict import Registered
from servemark.harness.plan.yaml_lines import Document, Path, dotted

Complaint = tuple[Path, str]
"""A place in the file, and what is wrong there and what to do."""


@dataclass(frozen=True, slots=True)
class Where:
    """Knows whether a value came from the file or from a flag (path -> `--flag`)."""

    document: Document
    flagged: Mapping[Path, str]

    def line(self, complaint: Complaint) -> str:
        path, text = complaint
        for length in range(len(path), 0, -1):
            flag = self.flagged.get(path[:length])
            if flag is not None:
                rest = dotted(path[length:])
                return f"{flag}: {rest}: {text}" if rest else f"{flag}: {text}"
        place = f"{self.document.label}:{self.document.line(path)}"
        inside = [flag for flagged, flag in self.flagged.items() if path and flagged[: len(path)] == path]
        text += f" (here with {' and '.join(inside)})" if inside else ""
        return f"{place}: {dotted(path)}: {text}" if path else f"{place}: {text}"


def raise_if(complaints: Iterable[Complaint], where: Where) -> None:
    """Raises BadInput with all complaints, if there are any."""
    lines = [where.line(complaint) for complaint in complaints]
    if lines:
        raise BadInput("\n".join(lines))


def of_validation(error: ValidationError, raw: Any, model: type[BaseModel], where: Where) -> str:
    """One line for each error of a validation, in the order of the file."""
    complaints = [_complaint(dict(detail), raw, model) for detail in error.errors(include_url=False)]
    # A list without its bad items is too short, which is no complaint of its own.
    deeper = {complaint[0][:length] for complaint in complaints for length in range(len(complaint[0]))}
    complaints = [each for each in complaints if not (each[1].startswith(_TOO_SHORT) and each[0] in deeper)]
    # Of a file in another format nothing else that is said would help.
    complaints = [complaint for complaint in complaints if complaint[0] == ("version",)] or complaints
    complaints.sort(key=lambda complaint: where.document.line(complaint[0]))
    return "\n".join(dict.fromkeys(where.line(complaint) for complaint in complaints))


_OF_PROMPTS = re.compile(r"(?:class ([\w-]+): )?(prompts(?:\.\w+)+): ")


def placed(text: str, document: Document, raw: Any) -> str:
    """What was found wrong with the prompts later, on making them, with its place if that is in the file."""
    found = _OF_PROMPTS.match(text)
    if found is None:
        return text
    path: Path = (*(("classes", found[1]) if found[1] else ()), *found[2].split("."))
    if not _holds(_at(raw, path[:-1]), path[-1]) or _at(raw, path) != _at(document.data, path):
        return text  # a flag has put it there
    return f"{document.label}:{document.line(path)}: {text}"


def _at(raw: Any, path: Path) -> Any:
    for part in path:
        raw = raw[part] if _holds(raw, part) else None
    return raw


def _complaint(detail: dict[str, Any], raw: Any, model: type[BaseModel]) -> Complaint:
    kind, path = detail["type"], _present(detail["loc"], raw, detail["type"])
    if kind == "extra_forbidden":
        return path, _unknown_key(path, raw, model)
    if kind == "missing":
        return path, _missing(path, raw, model)
    if kind == "value_error":
        return path, str(detail["ctx"]["error"])
    if path == ("version",):
        return path, f"this servemark reads version 1, not {detail['input']!r}; use a newer servemark, or version: 1"
    return path, f"{_NEEDS.get(kind, _plain)(detail)}, not {_short(detail['input'])}"


def _present(loc: Path, raw: Any, kind: str) -> Path:
    """The path without the parts that stand for members of a union and not for keys."""
    path: list[str | int] = []
    for part in loc[:-1]:
        if _holds(raw, part):
            raw = raw[part]
            path.append(part)
    if loc and (kind == "missing" or _holds(raw, loc[-1])):
        path.append(loc[-1])
    return tuple(path)


def _holds(raw: Any, part: str | int) -> bool:
    if isinstance(raw, list):
        return isinstance(part, int) and part < len(raw)
    return isinstance(raw, dict) and part in raw


def _plain(detail: dict[str, Any]) -> str:
    message: str = detail["msg"]
    return message.removeprefix("Input ").replace("should be", "must be", 1)


def _literal(detail: dict[str, Any]) -> str:
    expected = detail["ctx"]["expected"]
    guess = get_close_matches(str(detail["input"]), expected.replace("'", "").replace(" or ", ", ").split(", "), 1)
    return f"must be {expected}" + (f" (did you mean {guess[0]}?)" if guess else "")


_TOO_SHORT = "needs a list of at least"

_NEEDS: dict[str, Callable[[dict[str, Any]], str]] = {
    "int_type": lambda _: "needs a whole number",
    "int_from_float": lambda _: "needs a whole number",
    "float_type": lambda _: "needs a number",
    "bool_type": lambda _: "needs true or false",
    "string_type": lambda _: "needs text; put the value in quotes",
    "string_too_short": lambda _: "needs some text",
    "dict_type": lambda _: "needs keys below it",
    "model_type": lambda _: "needs keys below it",
    "tuple_type": lambda _: "needs a list",
    "too_short": lambda detail: f"{_TOO_SHORT} {detail['ctx']['min_length']}",
    "too_long": lambda detail: f"needs a list of at most {detail['ctx']['max_length']}",
    "literal_error": _literal,
    "greater_than_equal": lambda detail: f"must be at least {detail['ctx']['ge']:g}",
    "greater_than": lambda detail: f"must be above {detail['ctx']['gt']:g}",
    "less_than_equal": lambda detail: f"must be at most {detail['ctx']['le']:g}",
    "less_than": lambda detail: f"must be below {detail['ctx']['lt']:g}",
}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _missing(path: Path, raw: Any, model: type[BaseModel]) -> str:
    owner = _model_at(path[:-1], raw, model)
    field = owner.model_fields.get(str(path[-1])) if owner else None
    meaning = f" ({field.description})" if field and field.description else ""
    return f"is missing; add `{path[-1]}:`{meaning}"


def _unknown_key(path: Path, raw: Any, model: type[BaseModel]) -> str:
    key, owner = str(path[-1]), _model_at(path[:-1], raw, model)
    known = [*owner.model_fields] if owner else []
    close = get_close_matches(key, known, 1)
    if close:
        return f"there is no such key; did you mean `{close[0]}`?"
    here = ".".join(map(str, path[:-1]))
    elsewhere = sorted({place for place, name in _keys(model, "") if name == key and place not in ("", here)})
    if elsewhere:
        return f"there is no such key here; it belongs to {' or '.join(elsewhere[:2])}"
    return f"there is no such key; remove it, or use one of {', '.join(known)}"


def _model_at(path: Path, raw: Any, model: type[BaseModel]) -> type[BaseModel] | None:
    """The model that reads the mapping at a path."""
    current: type[BaseModel] | None = model
    named: type[BaseModel] | None = None  # the model of each value, inside a mapping whose keys are the user's
    for part in path:
        if named is not None:
            raw = raw.get(part) if isinstance(raw, dict) else None
            current, named = named, None
            continue
        if isinstance(part, int):  # an item of a list, whose model is known from the list's field
            raw = raw[part] if isinstance(raw, list) else None
            continue
        field = current.model_fields.get(part) if current else None
        raw = raw.get(part) if isinstance(raw, dict) else None
        if field is None:
            return None
        mapping = get_origin(field.annotation) is dict
        annotation = field.annotation if mapping else next(iter(get_args(field.annotation)), field.annotation)
        named = _of_each(annotation)
        current = cast("type[BaseModel]", annotation) if _is_model(annotation) else None
        for chooser in _choosers(field):
            try:
                current = chooser.model_for(chooser.spell_out(raw))
            except ValueError:
                return None
    return current


def _choosers(field: FieldInfo) -> list[Registered[Any]]:
    """Of the field's own annotation, or of one that may also be null."""
    members = (getattr(member, "__metadata__", ()) for member in get_args(field.annotation))
    return [each for each in chain(field.metadata, *members) if isinstance(each, Registered)]


def _of_each(annotation: Any) -> type[BaseModel] | None:
    """`Model` of `dict[str, Model]`."""
    last = get_args(annotation)[-1:]
    return cast("type[BaseModel]", last[0]) if last and _is_model(last[0]) else None


def _keys(model: type[BaseModel], place: str) -> Iterator[tuple[str, str]]:
    """Every (section, key) that the file may hold."""
    for name, field in model.model_fields.items():
        yield place, name
        below = f"{place}.{name}" if place else name
        if _is_model(field.annotation) and not field.metadata:
            yield from _keys(field.annotation, below)  # type: ignore[arg-type]
        for chooser in _choosers(field):
            for _, chosen in chooser.registry.items():
                yield from _keys(chosen, below)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)

"""TOML with the line of its keys, and what is wrong with it in sentences."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from servemark.harness.errors import BadInput
from servemark.harness.plan.sentences import Where, of_validation
from servemark.harness.plan.strict import Strict
from servemark.harness.plan.yaml_lines import Document
from servemark.harness.plan.yaml_lines import Path as Keys

M = TypeVar("M", bound=Strict)

_HEADER = re.compile(r"\s*\[([^\[\]]+)\]\s*(?:#.*)?$")
_KEY = re.compile(r"""\s*((?:[\w.\s-]|"[^"]*"|'[^']*')+?)\s*=""")
_AT = re.compile(r"\s*\(at (?:line (\d+), column \d+|end of document)\)$")


def file_text(path: Path, what: str) -> str:
    """Raises BadInput."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BadInput(f"{path}: the {what} cannot be read ({why})") from None


def read_toml(text: str, label: str) -> Document:
    """Raises BadInput with file and line."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _AT.search(str(error))
        line = (found and found[1]) or len(text.splitlines()) or 1
        raise BadInput(f"{label}:{line}: this is no valid TOML: {_AT.sub('', str(error))}") from None
    except RecursionError:
        raise BadInput(f"{label}:1: the file is nested too deeply to be read") from None
    return Document(label, data, _lines(text, data))


def checked(document: Document, model: type[M]) -> M:
    """The document as the model says. Raises BadInput, a line for each mistake."""
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        sentences = of_validation(error, document.data, model, Where(document, {}))
        raise BadInput(re.sub(r"; add `(\w+):`", r"; add `\1 = ...`", sentences)) from None


def _lines(text: str, data: dict[str, Any]) -> dict[Keys, int]:
    """Of tables and of keys that begin a line; what stands inside a value begins at the value's line."""
    lines: dict[Keys, int] = {(): 1}
    table: Keys = ()
    for number, line in enumerate(text.splitlines(), 1):
        if (header := _HEADER.match(line)) and (path := _path(header[1])) and _holds(data, path):
            table = path
        elif (key := _KEY.match(line)) and (below := _path(key[1])) and _holds(data, (*table, *below)):
            path = (*table, *below)
        else:
            continue
        for length in range(1, len(path) + 1):
            lines.setdefault(path[:length], number)
    return lines


def _path(words: str) -> Keys:
    """The keys of `a."b.c".d`; none where the words only look like keys."""
    try:
        found: Any = tomllib.loads(f"{words} = 0")
    except tomllib.TOMLDecodeError:
        return ()
    path: list[str | int] = []
    while isinstance(found, dict):
        ((word, found),) = found.items()
        path.append(word)
    return tuple(path)


def _holds(data: Any, path: Keys) -> bool:
    for word in path:
        if not isinstance(data, dict) or word not in data:
            return False
        data = data[word]
    return True

"""YAML with the line of every key: what an error sentence needs to say where."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from servemark.harness.errors import BadInput

Path = tuple[str | int, ...]

_NO_TEXT = re.compile("[\x00\ud800-\udfff]")
_MOST_DIGITS = 100


@dataclass(frozen=True, slots=True)
class Document:
    """The data of a YAML file; `label` is how the file is called in sentences."""

    label: str
    data: dict[str, Any]
    lines: dict[Path, int]

    def line(self, path: Path) -> int:
        """The line of a key, or of the nearest one above it that the file holds."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


class _Loader(yaml.SafeLoader):
    """Safe, and plainer than YAML 1.1: no aliases, dates stay text, `1:30` is no number."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(
                None, None, f"an alias (*{event.anchor}) is not supported; write the value out", event.start_mark
            )
        return super().compose_node(parent, index)


# YAML 1.2's plain scalars: `no` and `on` are text, `1e3` is a number, dates and `1:30` are text.
_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"^(?:~|null|)$", ["~", "n", ""]),
    ("bool", r"^(?:true|false)$", ["t", "f"]),
    ("int", r"^[-+]?(?:0|[1-9][0-9_]*)$", list("-+0123456789")),
    ("float", r"^(?:[-+]?(?:[0-9][0-9_]*)?\.?[0-9]+(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan)$", list("-+0123456789.")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def read(text: str, label: str) -> Document:
    """The one mapping that the text holds. Raises BadInput with file and line."""
    loader = None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            raise BadInput(f"{label}:1: the file holds no keys; start with `version: 1`")
        lines: dict[Path, int] = {(): 1}
        _walk(root, (), label, lines)
        return Document(label, loader.construct_document(root), lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise BadInput(f"{label}:{line}: this is no valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise BadInput(f"{label}:1: this is no valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise BadInput(f"{label}:1: the file is nested too deeply to be read") from None
    finally:
        if loader is not None:
            loader.dispose()


def read_value(text: str) -> Any:
    """One value as it may stand behind a key of a file. Raises ValueError, which says what is wrong."""
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            raise ValueError("holds no value; write null for none")
        _walk(node, ("value",), "value", {})
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        why = getattr(error, "problem", None) or getattr(error, "context", None) or " ".join(str(error).split())
        raise ValueError(f"{shown!r} is no value of YAML ({why}); put text in quotes") from None
    except BadInput as error:
        raise ValueError(f"{shown!r} is no value here ({error})") from None
    except RecursionError:
        raise ValueError(f"{shown!r} is nested too deeply to be read") from None
    finally:
        if loader is not None:
            loader.dispose()


def _walk(node: yaml.Node, path: Path, label: str, lines: dict[Path, int]) -> None:
    """Notes the line of every key and item below a node. BadInput for a value that nothing could hold."""
    if isinstance(node, yaml.ScalarNode):
        line = node.start_mark.line + 1
        if _NO_TEXT.search(node.value):
            raise BadInput(f"{label}:{line}: {dotted(path)} holds a zero byte or half a character; write it without")
        if node.tag == "tag:yaml.org,2002:int" and len(node.value) > _MOST_DIGITS:
            raise BadInput(f"{label}:{line}: {dotted(path)} has too many digits to be a number here")
    if isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            lines[(*path, position)] = item.start_mark.line + 1
            _walk(item, (*path, position), label, lines)
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise BadInput(f"{label}:{line}: a key must be a plain word")
        below = (*path, key.value)
        if below in lines:
            raise BadInput(f"{label}:{line}: {dotted(below)} stands here and in line {lines[below]}; keep one of them")
        lines[below] = line
        _walk(value, below, label, lines)


def dotted(path: Path) -> str:
    """`load.rate`; `slo.limits[1]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text

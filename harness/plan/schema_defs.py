"""A JSON Schema in which what stands in many places stands once, under `$defs`."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any


def with_defs(schema: dict[str, Any]) -> dict[str, Any]:
    """The same schema; models that come twice or more become definitions, by their titles."""
    seen: Counter[str] = Counter()
    _count(schema, seen)
    names: dict[str, str] = {}
    defs: dict[str, Any] = dict(schema.get("$defs", {}))
    for text in (text for text, times in seen.items() if times > 1):
        title = json.loads(text)["title"]
        taken = sum(name == title or name.startswith(f"{title}_") for name in defs | dict.fromkeys(names.values()))
        names[text] = f"{title}_{taken + 1}" if taken else title
    found: dict[str, Any] = _referring(schema, names)
    added = {name: _parts_referring(json.loads(text), names) for text, name in names.items()}
    return {**found, "$defs": {**found.get("$defs", {}), **added}}


def _is_model(part: Any) -> bool:
    return isinstance(part, dict) and "properties" in part and isinstance(part.get("title"), str)


def _text(part: Any) -> str:
    return json.dumps(part, sort_keys=True)


def _count(part: Any, seen: Counter[str]) -> None:
    if _is_model(part):
        seen[_text(part)] += 1
    for each in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        _count(each, seen)


def _referring(part: Any, names: dict[str, str]) -> Any:
    if _is_model(part) and (name := names.get(_text(part))):
        return {"$ref": f"#/$defs/{name}"}
    return _parts_referring(part, names)


def _parts_referring(part: Any, names: dict[str, str]) -> Any:
    if isinstance(part, dict):
        return {key: _referring(each, names) for key, each in part.items()}
    return [_referring(each, names) for each in part] if isinstance(part, list) else part

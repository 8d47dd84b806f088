"""The published JSON Schema says each thing once, and nothing else than without that."""

from __future__ import annotations

import json
from typing import Any

from servemark.harness.plan.schema_defs import with_defs
from servemark.harness.plan.spec import Workload, json_schema


def test_models_that_repeat_become_definitions() -> None:
    model = {"title": "Part", "type": "object", "properties": {"x": {"type": "integer"}}}
    other = {"title": "Part", "type": "object", "properties": {"y": {"type": "integer"}}}
    outer = {"title": "Outer", "properties": {"a": model, "b": other}}
    found = with_defs({"properties": {"one": outer, "two": [outer, other], "three": model}})
    assert found["properties"] == {
        "one": {"$ref": "#/$defs/Outer"},
        "two": [{"$ref": "#/$defs/Outer"}, {"$ref": "#/$defs/Part_2"}],
        "three": {"$ref": "#/$defs/Part"},
    }
    assert found["$defs"]["Outer"]["properties"] == {"a": {"$ref": "#/$defs/Part"}, "b": {"$ref": "#/$defs/Part_2"}}
    assert found["$defs"]["Part"] == model


def test_references_followed_to_their_ends_give_back_the_whole() -> None:
    short = json_schema()  # after it every source is known
    whole = Workload.model_json_schema(mode="validation")
    assert len(json.dumps(short)) < len(json.dumps(whole)) / 2
    for key in ("properties", "required", "oneOf"):
        assert _followed(short[key], short["$defs"]) == _followed(whole[key], whole["$defs"])


def _followed(part: Any, defs: dict[str, Any]) -> Any:
    if isinstance(part, dict) and "$ref" in part:
        return _followed(defs[part["$ref"].rpartition("/")[2]], defs)
    if isinstance(part, dict):
        return {key: _followed(each, defs) for key, each in part.items()}
    return [_followed(each, defs) for each in part] if isinstance(part, list) else part


def test_a_reference_in_the_schema_leads_somewhere() -> None:
    schema = json_schema()
    text = json.dumps(schema)
    named = {part.split('"')[0] for part in text.split('"#/$defs/')[1:]}
    assert named <= set(schema["$defs"])

"""The packaged workloads, their sources, the schema, and the reference in the docs."""

from __future__ import annotations

import json
import math
import re
import sys
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest
import yaml

from servemark.harness.errors import BadInput
from servemark.harness.plan import sources
from servemark.harness.plan.sources import SOURCES, Given, Prepared, PromptSource, Seeds
from servemark.harness.plan.spec import json_schema, load_workload, packaged, parse_workload
from servemark.harness.plan.tokens import estimate
from servemark.workloads.azure import Azure
from servemark.workloads.traces.stamps import Stamps

ROOT = Path(__file__).parent.parent
SECOND = 1_000_000_000
SEEDS = Seeds(0, 1, 2, 3)


def disagreements(value: Any, schema: dict[str, Any], root: dict[str, Any], at: str = "") -> list[str]:
    """What JSON Schema says against a value; knows the keywords that our schema uses."""
    known = {
        "$ref", "$schema", "$defs", "title", "description", "default", "examples", "type", "const", "enum", "anyOf",
        "properties", "required", "additionalProperties", "items", "pattern", "minimum", "maximum",
        "exclusiveMinimum", "exclusiveMaximum", "minLength", "oneOf", "minItems", "maxItems", "minProperties",
        "prefixItems",
    }  # fmt: skip
    assert set(schema) <= known, set(schema) - known
    if "$ref" in schema:
        return disagreements(value, root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root, at)
    found = []
    kinds = {"object": dict, "string": str, "integer": int, "number": (int, float), "array": list, "boolean": bool}
    if "anyOf" in schema and all(disagreements(value, part, root, at) for part in schema["anyOf"]):
        found.append(f"{at}: {value!r} fits none of anyOf")
    if "oneOf" in schema and sum(not disagreements(value, part, root, at) for part in schema["oneOf"]) != 1:
        found.append(f"{at}: {value!r} fits not exactly one of oneOf")
    if isinstance(value, list | dict):
        least = schema.get("minItems" if isinstance(value, list) else "minProperties", 0)
        if not least <= len(value) <= schema.get("maxItems", math.inf):
            found.append(f"{at}: {value!r} has too few or too many parts")
    kind = schema.get("type")
    if kind == "null" and value is not None:
        found.append(f"{at}: {value!r} is not null")
    elif kind in kinds and (not isinstance(value, kinds[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return [f"{at}: {value!r} is no {kind}"]
    if "const" in schema and value != schema["const"]:
        found.append(f"{at}: {value!r} is not {schema['const']!r}")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{at}: {value!r} is none of {schema['enum']}")
    if "pattern" in schema and isinstance(value, str) and not re.search(schema["pattern"], value):
        found.append(f"{at}: {value!r} does not match {schema['pattern']}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, above = schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf)
        high, below = schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf)
        if not (low <= value <= high and above < value < below):
            found.append(f"{at}: {value!r} is out of bounds")
    if isinstance(value, dict) and "properties" in schema:
        found += [f"{at}.{key}: missing" for key in schema.get("required", []) if key not in value]
        for key, item in value.items():
            if key in schema["properties"]:
                found += disagreements(item, schema["properties"][key], root, f"{at}.{key}")
            elif schema.get("additionalProperties") is False:
                found.append(f"{at}.{key}: not allowed")
    if isinstance(value, list):
        for position, (item, part) in enumerate(zip(value, schema.get("prefixItems", []), strict=False)):
            found += disagreements(item, part, root, f"{at}[{position}]")
    if isinstance(value, list) and "items" in schema:
        for position, item in enumerate(value[len(schema.get("prefixItems", [])) :]):
            found += disagreements(item, schema["items"], root, f"{at}[{position}]")
    return found


@pytest.mark.parametrize("name", packaged())
def test_the_schema_accepts_the_packaged_workloads(name: str) -> None:
    schema = json_schema()
    loaded = load_workload(name)
    assert disagreements(yaml.safe_load(loaded.text), schema, schema) == []
    assert disagreements(loaded.dump(), schema, schema) == []


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("load", "rate", -1),
        ("load", "rte", 3),
        ("run", "duration", 60),
        ("run", "duration", "60"),
        ("run", "requests", 0),
        ("prompts", "input_tokens", 2.5),
        ("prompts", "source", "nosuch"),
        ("request", "endpoint", "x"),
        ("slo", "gate", "yes"),
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(section: str, key: str, value: Any) -> None:
    schema = json_schema()
    data = yaml.safe_load(load_workload("chat").text)
    data.setdefault(section, {})[key] = value
    assert disagreements(data, schema, schema)
    with pytest.raises(BadInput):
        parse_workload(json.dumps(data))


TRACE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    "2023-11-16 18:17:03.9799600,4808,10\r\n"
    "2023-11-16 18:17:04.0319601,3180,8\r\n"
    "2023-11-16 18:17:10.0000000,110,900\r\n"
    "2023-11-16 18:18:04.0000000,12,0\r\n"
)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_bytes(TRACE.encode())
    return path


def prepared(trace: Path, **params: Any) -> Prepared:
    source = Azure.model_validate({"path": trace.name, **params})
    return source.prepare(Given(SEEDS, estimate("completions", ""), trace.parent))


def all_of(source: Prepared) -> list[tuple[int, int, int]]:
    assert source.size is not None
    return [(source.offset_ns(i), *source.lengths(i)) for i in range(source.size)]


def test_an_azure_trace_is_read_to_100_ns(trace: Path) -> None:
    source = prepared(trace)
    assert all_of(source) == [
        (0, 4808, 10),
        (52_000_100, 3180, 8),
        (6_020_040_000, 110, 900),
        # An answer of no tokens cannot be asked for.
        (60_020_040_000, 12, 1),
    ]
    assert source.data_digest == sha256(TRACE.encode()).hexdigest()
    assert source.most_tokens == 4818
    assert source.notes == (
        "4 of 4 rows of trace.csv are sent",
        "1 of 4 rows raised to 1: output of 0 tokens",
        "random words stand in for the prompts, which the trace does not hold",
    )
    request = source.request(2)
    assert (request.asked_prompt_tokens, request.asked_output_tokens) == (110, 900)


@pytest.mark.parametrize(
    ("part", "offsets_s", "inputs"),
    [
        ({"start": "5s"}, [1.02004, 55.02004], [110, 12]),
        ({"duration": "7s"}, [0, 0.0520001, 6.02004], [4808, 3180, 110]),
        ({"start": "1s", "duration": "10s"}, [5.02004], [110]),
        ({"rows": 2}, [0, 0.0520001], [4808, 3180]),
        ({"start": "1s", "rows": 1}, [5.02004], [110]),
    ],
)
def test_a_slice_starts_its_own_time(
    trace: Path, part: dict[str, Any], offsets_s: list[float], inputs: list[int]
) -> None:
    rows = all_of(prepared(trace, slice=part))
    assert [offset / SECOND for offset, _, _ in rows] == offsets_s
    assert [length for _, length, _ in rows] == inputs


def test_rows_above_a_limit_are_shortened_and_counted(trace: Path) -> None:
    source = prepared(trace, max_input_tokens=3500, max_output_tokens=100)
    assert [row[1:] for row in all_of(source)] == [(3500, 10), (3180, 8), (110, 100), (12, 1)]
    assert source.notes[1:3] == (
        "1 of 4 rows shortened: input above 3500 tokens",
        "1 of 4 rows shortened: output above 100 tokens",
    )


def test_rows_above_a_limit_can_be_left_out(trace: Path) -> None:
    source = prepared(trace, max_input_tokens=3500, over_limit="drop")
    assert [row[1] for row in all_of(source)] == [3180, 110, 12]
    assert all_of(source)[0][0] == 52_000_100
    assert source.notes[:2] == ("3 of 4 rows of trace.csv are sent", "1 of 4 rows left out: input above 3500 tokens")


def test_shuffling_deals_lengths_out_anew_and_leaves_the_times(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    rows = "".join(f"2023-11-16 18:17:{i:02d}.0,{100 + i},{i + 1}\n" for i in range(60))
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows)
    plain, mixed = all_of(prepared(path)), all_of(prepared(path, shuffle=True))
    assert [row[0] for row in mixed] == [row[0] for row in plain]
    assert [row[1:] for row in mixed] != [row[1:] for row in plain]
    assert sorted(row[1:] for row in mixed) == sorted(row[1:] for row in plain)
    assert all_of(prepared(path, shuffle=True)) == mixed


def test_rows_that_are_out_of_order_are_put_in_order(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    lines = TRACE.splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[3], lines[1], lines[2]]))
    source = prepared(path)
    assert [row[1] for row in all_of(source)] == [4808, 3180, 110]
    assert "2 rows earlier than a row before, sent in the order of time" in source.notes


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01 00:00:01.0000001", SECOND + 100),
        ("1970-01-02 00:00:00", 86_400 * SECOND),
        ("1970-01-01T00:00:00.123456789Z", 123_456_789),
        ("1970-01-01 00:00:02.5+00:00", 2_500_000_000),
    ],
)
def test_time_stamps_are_read_exactly(text: str, ns: int) -> None:
    assert Stamps()(text) == ns


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a,b\n1,2\n", "t.csv:1: the columns TIMESTAMP, ContextTokens, GeneratedTokens are needed"),
        ("", "t.csv:1: the columns"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "t.csv: the trace holds no rows"),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,x,3\n",
            "t.csv: 1 of 1 row cannot be read, the first in line 2: 'x' is no number",
        ),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n\nnow,1,3\n", "the first in line 3: 'now' is no timestamp"),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,1\n",
            "the first in line 2: it has too few cells",
        ),
        ("\udcff", "t.csv: this is no text file"),
    ],
)
def test_a_broken_trace_is_refused_with_its_line(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(BadInput, match=re.escape(sentence)):
        prepared(path)


def test_a_trace_that_is_not_there_says_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no\.csv: the trace cannot be read .*; set prompts\.path .* or --data"):
        prepared(tmp_path / "no.csv")


def test_sources_are_found_by_their_registered_names() -> None:
    sources.discover()
    assert set(SOURCES) >= {"synthetic", "azure"}
    for name, model in SOURCES.items():
        assert model.model_fields["source"].default == name


def test_another_package_can_bring_a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(PromptSource):
        source: Literal["other"] = "other"

    module = ModuleType("other_package_source")
    module.Other = Other  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    entry = metadata.EntryPoint("other", f"{module.__name__}:Other", sources.ENTRY_POINTS)
    broken = metadata.EntryPoint("broken", f"{module.__name__}:Missing", sources.ENTRY_POINTS)
    for given, error in (([entry], None), ([entry, broken], "the prompt source 'broken' of an installed package")):
        monkeypatch.setattr(metadata, "entry_points", lambda group, given=given: given)
        sources.discover.cache_clear()
        if error is None:
            sources.discover()
        else:
            with pytest.raises(BadInput, match=error):
                sources.discover()
    monkeypatch.undo()
    sources.discover.cache_clear()
    sources.discover()


REFERENCE = ("workload", "arrivals", "sessions", "data", "traces")
"""The pages that describe the file's keys."""


def _reference() -> str:
    return "\n".join((ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8") for page in REFERENCE)


def _examples() -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", _reference(), re.DOTALL)


def test_every_example_in_the_reference_is_a_workload() -> None:
    examples = _examples()
    assert len(examples) >= 4
    for example in examples:
        parse_workload(example, "example.yaml")


def test_the_reference_names_every_key_and_every_choice() -> None:
    text = _reference()
    words: set[str] = set()

    def collect(part: Any) -> None:
        if isinstance(part, dict):
            words.update(part.get("properties", {}))
            words.update(str(choice) for choice in [*part.get("enum", []), part.get("const")] if choice is not None)
            for below in part.values():
                collect(below)
        elif isinstance(part, list):
            for below in part:
                collect(below)

    collect(json_schema())
    named = set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)))
    assert words - named == set()

"""`--set PATH=VALUE`: any field of the workload file, read as strictly as the file is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.harness.errors import BadInput
from servemark.harness.plan.places import parse_path, put_at, read_settings, touches
from servemark.harness.plan.spec import load_workload, parse_workload
from servemark.harness.plan.yaml_lines import dotted, read_value
from tests.commands import bench

KEYS = st.from_regex(r"[a-z_][a-z0-9_-]{0,8}", fullmatch=True)
PATHS = st.builds(lambda first, rest: (first, *rest), KEYS, st.lists(KEYS | st.integers(0, 99), max_size=4))
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text("abz 019.:-", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


@given(PATHS)
def test_a_path_is_written_as_errors_print_it(path: tuple[str | int, ...]) -> None:
    assert parse_path(dotted(path)) == path


def test_a_key_with_a_dot_stands_in_quotes() -> None:
    assert parse_path('request.extra_body."guided.json"') == ("request", "extra_body", "guided.json")
    assert read_settings(['request.extra_body."a=b"=1']) == {'request.extra_body."a=b"': 1}


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "[0]", "a b", "a[x]", "a[0", "a..b", 'a."', "a[1]b"])
def test_what_is_no_path_is_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no path of a field; write it as load\.rate"):
        parse_path(text)


@given(PLAIN)
def test_a_value_is_read_as_yaml(value: Any) -> None:
    """JSON is YAML, so that what a value means is known from elsewhere."""
    assert read_value(json.dumps(value)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("512", 512), ("0.5", 0.5), ("inf", "inf"), ("60s", "60s"), ("no", "no"), ("true", True), ("null", None),
     ("uniform(1, 2)", "uniform(1, 2)"), ("[a, 1]", ["a", 1]), ("{a: {b: 1}}", {"a": {"b": 1}})],
)  # fmt: skip
def test_values_are_those_of_the_file(text: str, value: Any) -> None:
    assert read_value(text) == value
    assert parse_workload(f"{WORKLOAD}about: x\nname: {text if isinstance(value, str) else 'x'}\n")


WORKLOAD = """\
version: 1
prompts: {source: synthetic, input_tokens: {distribution: uniform, min: 10, max: 20}, output_tokens: 8}
load: {rate: 2}
"""


@given(st.dictionaries(KEYS, st.integers(), max_size=3), PATHS, st.integers())
def test_what_is_set_is_there_and_nothing_else_changes(data: dict[str, Any], path: tuple[Any, ...], value: int) -> None:
    before = dict(data)
    try:
        put = put_at(data, path, value)
    except ValueError:
        assert any(isinstance(part, int) for part in path) or path[0] in before  # no list is made, no value replaced
        return
    here: Any = data
    for part in path:
        here = here[part]
    assert here == value
    assert put[0] == path
    assert {key: each for key, each in data.items() if key != path[0]} == {
        key: each for key, each in before.items() if key != path[0]
    }


def test_a_value_that_is_set_is_a_copy() -> None:
    given_: dict[str, Any] = {"a": 1}
    data: dict[str, Any] = {}
    put_at(data, ("x",), given_)
    put_at(data, ("x", "b"), 2)
    assert given_ == {"a": 1}


def test_any_field_of_the_file_can_be_set(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(WORKLOAD)
    given_ = read_settings(
        ["prompts.input_tokens.max=512", "load.max_concurrency=64", "request.timeouts.gap=5s", "slo.limits=[ttft=1s]"]
    )
    spec = load_workload(str(path), {"rate": "3", "set": given_}).spec
    assert spec.model_dump(mode="json")["prompts"]["input_tokens"]["max"] == 512
    assert spec.load.model_dump(mode="json")["max_concurrency"] == 64
    assert spec.load.model_dump(mode="json")["rate"] == 3
    assert spec.request.timeouts.gap == 5 * 10**9
    assert spec.slo.limits == ("ttft=1s",)


def test_a_field_that_is_set_goes_over_the_flag_for_it() -> None:
    assert load_workload("chat", {"set": {"load.rate": 5}, "rate": "3"}).spec.load.mean_rate == 5


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ("load.rate=-3", "--set load.rate: a rate of -3 sends nothing"),
        ("load={rate: 2, arivals: x}", "--set load: arivals: there is no such key; did you mean `arrivals`?"),
        ("promts.input_tokens=5", "--set promts: there is no such key; did you mean `prompts`?"),
        ("prompts.input_tokns=5", "--set prompts.input_tokns: there is no such key; did you mean `input_tokens`?"),
        ("run.duration=5", "--set run.duration: 5 has no unit; write 5s or 5ms"),
        ("prompts.input_tokens.max=5", "(here with --set prompts.input_tokens.max)"),
        ("about.x=5", "--set about.x: about is 'A chat assistant."),
        ("slo.limits[0]=ttft=1s", "--set slo.limits[0]: slo.limits is no list; set it as a whole"),
        ("load.rate", "--set load.rate: needs a path and a value, as --set load.max_concurrency=64"),
        ("load.rate=", "--set load.rate: holds no value; write null for none"),
        ("load.rate={a", "--set load.rate: '{a' is no value of YAML"),
        ("load.rate=*a", "--set load.rate: '*a' is no value of YAML (an alias (*a) is not supported"),
        ("load rate=4", "--set load rate: 'load rate' is no path of a field"),
        ("request.headers.Authorization=x", "--set request.headers.Authorization: would be copied into every result"),
        ("request={headers: {X: y}}", "--set request: would be copied into every result; give headers with --header"),
    ],
)
def test_a_mistake_names_the_flag_and_the_path(given_: str, said: str) -> None:
    found = bench("check", "--target", "sim", "--set", given_)
    assert found.code == 2
    assert said in found.out + found.err


def test_a_path_is_set_once() -> None:
    with pytest.raises(BadInput, match=r"^--set load\.rate: is given twice; keep one of them$"):
        read_settings(["load.rate=1", "load.rate=2"])


def test_a_list_has_only_the_items_that_it_has() -> None:
    data: dict[str, Any] = {"a": ["x"]}
    assert put_at(data, ("a", 0), "y")
    assert data == {"a": ["y"]}
    with pytest.raises(ValueError, match="a has 1 items"):
        put_at(data, ("a", 1), "z")


def test_headers_are_found_however_they_are_set() -> None:
    place = ("request", "headers")
    assert touches(("request", "headers", "X"), 1, place)
    assert touches(("request",), {"headers": {}}, place)
    assert not touches(("request",), {"timeouts": {}}, place)
    assert not touches(("request", "timeouts"), {"headers": {}}, place)
    assert not touches(("run",), {"headers": {}}, place)

"""The workload file: what is accepted, what flags do to it, and what is said of a mistake."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from servemark.harness.errors import BadInput
from servemark.harness.plan.arrivals import ClosedLoop, Constant, Poisson, Trace
from servemark.harness.plan.overrides import FLAGS
from servemark.harness.plan.spec import HIDDEN, Loaded, apply, json_schema, load_workload, parse_workload
from servemark.harness.plan.strict import Warmup

SECOND = 1_000_000_000

GOOD = """\
version: 1
prompts:
  source: synthetic
  input_tokens: 100
  output_tokens: uniform(10, 20)
load:
  rate: 8
run:
  duration: 60s
"""
CLOSED = GOOD.replace("  rate: 8", "  concurrency: 4\n  think_time: 2s")
TRACE = """\
version: 1
prompts: {source: azure, path: trace.csv}
load: {arrivals: trace, speed: 2}
"""


def parse(text: str) -> Loaded:
    return parse_workload(text, "w.yaml")


def complaint(text: str) -> str:
    with pytest.raises(BadInput) as caught:
        parse(text)
    return str(caught.value)


def test_a_small_file_gets_the_documented_defaults() -> None:
    spec = parse(GOOD).spec
    assert isinstance(spec.load, Poisson)
    assert spec.load.rate == 8
    assert (spec.request.endpoint, spec.request.temperature, spec.request.force_output_length) == (None, 0.0, True)
    timeouts = spec.request.timeouts
    assert [timeouts.connect, timeouts.first_event, timeouts.gap, timeouts.total] == [
        seconds * SECOND for seconds in (10, 120, 60, 600)
    ]
    assert (spec.run.warmup, spec.run.drain) == (Warmup(duration_ns=10 * SECOND), 30 * SECOND)
    seeds = spec.run.seeds
    assert (seeds.arrivals, seeds.prompts, seeds.lengths, seeds.order) == (0, None, 0, 0)
    assert not spec.slo.gate


def test_concurrency_alone_is_a_closed_loop() -> None:
    load = parse(CLOSED).spec.load
    assert isinstance(load, ClosedLoop)
    assert (load.concurrency, load.think_time.draw_ns(0.5)) == (4, 2 * SECOND)


@pytest.mark.parametrize(
    ("run", "source_line", "duration_ns"),
    [
        ("", "", 60 * SECOND),
        ("run: {duration: 5s}", "", 5 * SECOND),
        ("run: {requests: 5}", "", None),
        ("run: {requests: 5, duration: 3s}", "", 3 * SECOND),
    ],
)
def test_a_run_lasts_60s_unless_it_says_otherwise(run: str, source_line: str, duration_ns: int | None) -> None:
    text = GOOD.split("run:")[0] + run
    assert parse(text).spec.duration_ns == duration_ns


def test_a_trace_lasts_to_its_end() -> None:
    assert parse(TRACE).spec.duration_ns is None


@pytest.mark.parametrize(("warmup", "read"), [("5s", Warmup(5 * SECOND)), (50, Warmup(requests=50)), (0, Warmup())])
def test_warm_up_is_a_time_or_a_count(warmup: object, read: Warmup) -> None:
    assert parse(GOOD + f"  warmup: {warmup}").spec.run.warmup == read


def test_all_at_once_has_no_warm_up_by_default() -> None:
    spec = parse(GOOD.replace("rate: 8", "rate: inf").replace("duration: 60s", "requests: 5")).spec
    assert spec.run.warmup == Warmup()


MISTAKES = [
    ("rate: 8", "rte: 8", "w.yaml:6: load: no load is described; give a `rate:`"),
    ("rate: 8", "rate: 8\n  rte: 8", "w.yaml:8: load.rte: there is no such key; did you mean `rate`?"),
    ("rate: 8", "rate: fast", "w.yaml:7: load.rate: 'fast' is no rate; write requests per second"),
    ("rate: 8", "rate: 0", "w.yaml:7: load.rate: a rate of 0 sends nothing"),
    (
        "rate: 8",
        "arrivals: poison\n  rate: 8",
        "w.yaml:7: load.arrivals: there is no arrival process 'poison'; did you",
    ),
    ("rate: 8", "rate: 8\n  concurrency: 4", "load.concurrency: there is no such key; did you mean `max_concurrency`?"),
    ("rate: 8", "arrivals: trace", "w.yaml:7: load.arrivals: the prompt source synthetic has no recorded times"),
    ("rate: 8", "rate: inf", "w.yaml:7: load.rate: all requests at once never end by time; say how many"),
    ("load:\n  rate: 8\n", "", "w.yaml:1: load: is missing; add `load:` (when it is sent)"),
    ("duration: 60s", "duration: 60", "w.yaml:9: run.duration: 60 has no unit; write 60s or 60ms"),
    ("duration: 60s", "duration: 0s", "w.yaml:9: run.duration: must be above 0"),
    ("duration: 60s", "requests: 1000000001", "w.yaml:9: run.requests: must be at most 1e+09"),
    ("duration: 60s", "warmup: 1000000001", "w.yaml:9: run.warmup: 1000000001 requests are too many to warm up with"),
    ("duration: 60s", "seed: " + "9" * 5000, "w.yaml:9: run.seed has too many digits to be a number here"),
    ("version: 1", 'version: 1\nname: "a\\ud800"', "w.yaml:2: name holds a zero byte or half a character"),
    ("version: 1", "version: 1\nname: a\x1b", "w.yaml:1: this is no valid YAML: unacceptable character #x001b"),
    ("version: 1", "version: 1\nabout: " + "[" * 5000, "w.yaml:1: the file is nested too deeply to be read"),
    ("rate: 8", "stages: []", "w.yaml:7: load.stages: needs a list of at least 1, not []"),
    ("rate: 8", "stages: [{rate: 5}]", "w.yaml:7: load.stages[0].duration: is missing; add `duration:`"),
    ("duration: 60s", "requests: -3", "w.yaml:9: run.requests: must be at least 1, not -3"),
    ("duration: 60s", "requests: 2.5", "w.yaml:9: run.requests: needs a whole number, not 2.5"),
    ("duration: 60s", "requests: '5'", "w.yaml:9: run.requests: needs a whole number, not '5'"),
    ("duration: 60s", "rate: 5", "w.yaml:9: run.rate: there is no such key here; it belongs to load"),
    ("duration: 60s", "seeds: {prompts: x}", "w.yaml:9: run.seeds.prompts: needs a whole number"),
    ("duration: 60s", "warmup: long", "w.yaml:9: run.warmup: 'long' is no duration"),
    ("input_tokens: 100", "input_tokens: normal(5)", "w.yaml:4: prompts.input_tokens.std: is missing; add `std:`"),
    (
        "source: synthetic",
        "source: sythetic",
        "w.yaml:3: prompts.source: there is no prompt source 'sythetic'; did you",
    ),
    ("version: 1", "version: 2", "w.yaml:1: version: this servemark reads version 1, not 2"),
    ("version: 1\n", "", "w.yaml:1: version: is missing"),
    ("version: 1", "version: 1\nversion: 1", "w.yaml:2: version stands here and in line 1; keep one of them"),
    ("version: 1", "version: [1", "w.yaml:2: this is no valid YAML: expected ',' or ']'"),
    ("version: 1", "version: !!python/name:os.system 1", "w.yaml:1: this is no valid YAML: could not determine"),
    ("version: 1", "version: 1\nname: &x a\nabout: *x", "w.yaml:3: this is no valid YAML: an alias (*x) is not"),
    ("version: 1", "version: 1\n? [a]\n: 2", "w.yaml:2: a key must be a plain word"),
    ("version: 1", "version: 1\nname: 3", "w.yaml:2: name: needs text; put the value in quotes, not 3"),
    ("version: 1", "version: 1\nslo: {limits: ttft<200ms}", "w.yaml:2: slo.limits: 'ttft<200ms' is no limit; write"),
    ("version: 1", "version: 1\nslo: {limits: 3}", "w.yaml:2: slo.limits: needs a text or a list of texts, not 3"),
    ("version: 1", "version: 1\nslo: {gate: yes}", "w.yaml:2: slo.gate: needs true or false, not 'yes'"),
    ("version: 1", "version: 1\nslo: 3", "w.yaml:2: slo: needs keys below it, not 3"),
    (
        "version: 1",
        "version: 1\nrequest: {endpoint: chats}",
        "request.endpoint: must be 'chat', 'completions' or 'generate' (did",
    ),
    ("version: 1", "version: 1\nrequest: {timeouts: {gp: 3s}}", "request.timeouts.gp: there is no such key; did you"),
    ("version: 1", "version: 1\nrequest: {temperature: .nan}", "request.temperature: must be"),
    (
        "version: 1",
        "version: 1\nrequest:\n  headers:\n    Authorization: x",
        "w.yaml:4: request.headers.Authorization: a secret here would be copied into every result; use --api-key-env",
    ),
]


@pytest.mark.parametrize(("old", "new", "sentence"), MISTAKES)
def test_a_mistake_is_one_sentence_with_file_and_line(old: str, new: str, sentence: str) -> None:
    said = complaint(GOOD.replace(old, new, 1))
    assert sentence in said
    assert "\n" not in said
    assert "pydantic" not in said.lower()


def test_several_mistakes_are_one_line_each_in_the_order_of_the_file() -> None:
    said = complaint(GOOD.replace("100", "x").replace("rate: 8", "rate: fast").replace("60s", "60"))
    places = re.findall(r"^w\.yaml:(\d+): ", said, re.MULTILINE)
    assert places == ["4", "7", "9"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "just text"])
def test_a_file_without_keys_is_refused(text: str) -> None:
    assert complaint(text) == "w.yaml:1: the file holds no keys; start with `version: 1`"


def test_dates_and_words_stay_text_and_numbers_may_have_exponents() -> None:
    spec = parse(GOOD.replace("rate: 8", "rate: 1e1").replace("version: 1", "version: 1\nname: 2024-01-01")).spec
    assert spec.name == "2024-01-01"
    assert isinstance(spec.load, Poisson)
    assert spec.load.rate == 10


def with_flags(text: str, **flags: Any) -> Loaded:
    return apply(parse(text), flags)


def test_a_rate_makes_a_closed_loop_an_open_one() -> None:
    assert with_flags(CLOSED, rate="20").spec.load == Poisson(rate=20)


def test_a_rate_keeps_the_arrival_process_of_the_file() -> None:
    assert with_flags(GOOD.replace("rate: 8", "arrivals: constant\n  rate: 8"), rate=20).spec.load == Constant(rate=20)


COURSES = {
    "stages": "stages\n  stages: [{rate: 2, duration: 30s}, {rate: 2, to: 8, duration: 30s}]",
    "bursts": "bursts\n  on: 5s\n  off: 15s\n  on_rate: 12\n  off_rate: 1",
    "daily": "daily\n  peak: 9\n  trough: 1\n  day: 10m",
}


@pytest.mark.parametrize("name", list(COURSES))
def test_a_rate_scales_a_course_to_that_mean(name: str) -> None:
    text = GOOD.replace("rate: 8", f"arrivals: {COURSES[name]}")
    plain, scaled = parse(text).spec.load, with_flags(text, rate=20).spec.load
    assert scaled.arrivals == name
    assert scaled.mean_rate == 20
    assert scaled.peak_rate == pytest.approx(20 * (plain.peak_rate or 0) / (plain.mean_rate or 1))
    assert with_flags(text.replace("arrivals: stages\n  ", ""), rate=20).spec.load == scaled
    assert with_flags(text, rate=20, concurrency=5).spec.load.max_concurrency == 5  # type: ignore[union-attr]
    with pytest.raises(BadInput, match=f"^--rate: an infinite rate leaves nothing of {name}"):
        with_flags(text, rate="inf", requests=5)


def test_stages_say_how_long_a_run_takes_and_the_warm_up_is_a_part_of_them() -> None:
    text = GOOD.replace("rate: 8", f"arrivals: {COURSES['stages']}").replace("duration: 60s", "drain: 1s")
    assert parse(text).spec.duration_ns == 50 * SECOND  # 60 s of stages, of which the default warm-up takes 10 s
    assert with_flags(text, warmup="20s").spec.duration_ns == 40 * SECOND
    assert with_flags(text, duration="15s").spec.duration_ns == 15 * SECOND
    assert with_flags(text, requests=15).spec.duration_ns is None
    with pytest.raises(BadInput, match=r"^--warmup: the warm-up is a part of the stages, which take no longer"):
        with_flags(text, warmup="60s")


def test_a_fault_inside_a_stage_is_named_with_its_place() -> None:
    stages = "stages\n  stages:\n  - {rate: 2, duration: 30s}\n  - {rate: -2, duration: 3}"
    said = complaint(GOOD.replace("rate: 8", f"arrivals: {stages}"))
    assert "w.yaml:10: load.stages[1].rate: a rate of -2 sends nothing" in said
    assert "w.yaml:10: load.stages[1].duration: 3 has no unit" in said


def test_a_rate_stretches_a_trace() -> None:
    assert with_flags(TRACE, rate=3).spec.load == Trace(rate=3)


def test_a_concurrency_alone_closes_the_loop_and_keeps_the_think_time() -> None:
    assert with_flags(GOOD, concurrency="16").spec.load == ClosedLoop(concurrency=16)
    assert with_flags(CLOSED, concurrency=16).spec.load == ClosedLoop.model_validate(
        {"concurrency": 16, "think_time": "2s"}
    )


def test_a_cap_on_requests_per_minute_is_one_of_a_closed_loop() -> None:
    assert with_flags(CLOSED, requests_per_minute="60").spec.load.model_dump()["requests_per_minute"] == 60
    assert with_flags(GOOD, concurrency=8, requests_per_minute=60).spec.load == ClosedLoop(
        concurrency=8, requests_per_minute=60
    )
    capped = CLOSED.replace("think_time: 2s", "requests_per_minute: 30")
    assert with_flags(capped, concurrency=8).spec.load == ClosedLoop(concurrency=8, requests_per_minute=30)
    assert with_flags(capped, rate=2).spec.load == Poisson(rate=2)  # the file's cap goes with its loop


def test_the_arrivals_of_an_open_loop_are_never_throttled() -> None:
    why = "caps a closed loop only, since the arrivals of an open loop wait for nobody"
    for load in ("  rate: 8\n  requests_per_minute: 60", "  arrivals: constant\n  requests_per_minute: 60\n  rate: 8"):
        said = complaint(GOOD.replace("  rate: 8", load))
        assert why in said
        assert said.startswith("w.yaml:8: load.requests_per_minute: ")
    with pytest.raises(BadInput, match=f"^--requests-per-minute: {why}"):
        with_flags(GOOD, requests_per_minute=60)
    with pytest.raises(BadInput, match=f"^--requests-per-minute: {why}"):
        with_flags(CLOSED, rate=3, concurrency=4, requests_per_minute=60)


@pytest.mark.parametrize("text", [GOOD, CLOSED])
def test_a_rate_with_a_concurrency_is_an_open_loop_with_a_cap(text: str) -> None:
    expected = Poisson(rate=20, max_concurrency=16)
    assert with_flags(text, rate=20, concurrency=16).spec.load == expected
    assert with_flags(text, concurrency=16, rate=20).spec.load == expected


def test_all_at_once_takes_a_count_and_drops_the_warm_up_of_the_file() -> None:
    loaded = with_flags(GOOD + "  warmup: 5s", rate="inf", requests=100)
    assert isinstance(loaded.spec.load, Poisson)
    assert math.isinf(loaded.spec.load.rate)
    assert (loaded.spec.run.requests, loaded.spec.run.warmup) == (100, Warmup())


@pytest.mark.parametrize(
    ("flags", "requests", "duration_ns"),
    [
        ({"requests": "50"}, 50, None),
        ({"duration": "5s"}, None, 5 * SECOND),
        ({"duration": "5s", "requests": 50}, 50, 5 * SECOND),
        ({}, None, 60 * SECOND),
    ],
)
def test_requests_and_duration_of_flags_replace_each_other(
    flags: dict[str, Any], requests: int | None, duration_ns: int | None
) -> None:
    run = with_flags(GOOD, **flags).spec.run
    assert (run.requests, run.duration) == (requests, duration_ns)


def test_a_chat_takes_no_token_ids_and_without_an_endpoint_another_one_is_taken() -> None:
    with pytest.raises(BadInput, match="a chat takes no token ids"):
        with_flags(GOOD.replace("source: synthetic", "source: synthetic\n  tokens: ids"), endpoint="chat")
    assert (
        with_flags(GOOD.replace("source: synthetic", "source: synthetic\n  tokens: ids")).spec.request.endpoint is None
    )


def test_one_seed_sets_all_four() -> None:
    seeds = with_flags(GOOD, seed="7").spec.run.seeds
    assert (seeds.arrivals, seeds.prompts, seeds.lengths, seeds.order) == (7, 7, 7, 7)


def test_other_flags_set_their_keys() -> None:
    spec = with_flags(
        GOOD,
        input_tokens="normal(480, 240)",
        output_tokens="64",
        warmup="20",
        slo="ttft=200ms,tpot=50ms",
        attainment=0.9,
        gate=True,
        endpoint="completions",
        headers={"X-A": "b"},
        extra_body={"top_k": 3},
        rate=None,
    ).spec
    assert spec.request.headers == {"X-A": "b"}
    assert spec.request.extra_body == {"top_k": 3}
    assert spec.request.endpoint == "completions"
    assert spec.slo.limits == ("ttft=200ms,tpot=50ms",)
    assert (spec.slo.attainment, spec.slo.gate) == (0.9, True)
    assert spec.run.warmup == Warmup(requests=20)
    assert spec.load == Poisson(rate=8)


def test_a_data_flag_starts_at_the_callers_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert with_flags(TRACE, data="other.csv").dump()["prompts"]["path"] == str(tmp_path / "other.csv")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"rate": "fast"}, "--rate: 'fast' is no rate"),
        ({"rate": "inf"}, "--rate: all requests at once never end by time"),
        ({"rate": "inf", "requests": 5, "warmup": "3s"}, "--warmup: all requests at once"),
        ({"concurrency": "0"}, "--concurrency: must be at least 1, not 0"),
        ({"duration": "15"}, "--duration: 15 has no unit; write 15s or 15ms"),
        ({"input_tokens": "uniform(1"}, "--input-tokens: 'uniform(1' is no length"),
        ({"seed": -1}, "--seed: must be at least 0, not -1"),
        ({"endpoint": "x"}, "--endpoint: must be 'chat', 'completions' or 'generate', not 'x'"),
        ({"slo": "ttft200"}, "--slo: 'ttft200' is no limit"),
        ({"extra_body": "x"}, "--extra-body: needs a JSON object"),
    ],
)
def test_a_mistake_in_a_flag_names_the_flag(flags: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput, match=re.escape(sentence)) as caught:
        with_flags(GOOD, **flags)
    assert "w.yaml" not in str(caught.value)


def test_flags_leave_the_loaded_file_as_it_was() -> None:
    loaded = parse(GOOD)
    changed = apply(loaded, {"rate": 99, "seed": 3})
    assert loaded.spec.load == Poisson(rate=8)
    assert loaded.text == changed.text == GOOD
    assert changed.overrides == {"rate": 99, "seed": 3}


def test_values_of_header_flags_stay_out_of_results() -> None:
    loaded = parse(GOOD + "request: {headers: {X-Public: a}}")
    changed = apply(loaded, {"headers": {"Authorization": "Bearer s3cret"}})
    assert changed.spec.request.headers["Authorization"] == "Bearer s3cret"
    assert changed.dump()["request"]["headers"] == {"X-Public": "a", "Authorization": HIDDEN}
    assert "s3cret" not in json.dumps([changed.dump(), dict(changed.overrides)])


def test_a_dump_reads_back_as_the_same_workload() -> None:
    loaded = with_flags(GOOD, seed=5, slo="ttft=1s")
    again = parse(json.dumps(loaded.dump()))
    assert again.spec == loaded.spec


def test_a_workload_is_found_as_a_path_then_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "chat.yaml").write_text(GOOD)
    assert load_workload("chat.yaml").name == "chat"
    assert load_workload("chat").spec.about
    monkeypatch.chdir(tmp_path)
    mine = load_workload("chat.yaml")
    assert mine.spec.about == ""
    assert (mine.name, mine.folder) == ("chat", tmp_path)
    assert load_workload("chat").spec.about


def test_flags_may_mend_what_does_not_go_together_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(GOOD.replace("rate: 8", "rate: inf"))
    with pytest.raises(BadInput, match=r"w\.yaml:7: load\.rate: all requests at once"):
        load_workload(str(path))
    assert load_workload(str(path), {"requests": 5}).spec.run.requests == 5
    with pytest.raises(BadInput, match=r"w\.yaml:7: load\.rate: all requests at once"):
        load_workload(str(path), {"seed": 5})


@pytest.mark.parametrize("name", ["nosuch", "nosuch.yaml", "../chat", "."])
def test_a_workload_that_is_nowhere_says_where_the_packaged_ones_are(name: str) -> None:
    with pytest.raises(BadInput, match=r"nor packaged.*; give a path, or a name that `bench list` shows"):
        load_workload(name)


def test_a_workload_that_is_nearly_named_is_guessed() -> None:
    with pytest.raises(BadInput, match=r"there is no workload 'chat-session', .* \(did you mean chat-sessions\?\)"):
        load_workload("chat-session")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="the workload file cannot be read"):
        load_workload(str(tmp_path / "w.yaml"))


def test_the_schema_knows_what_is_registered_and_forbids_the_rest() -> None:
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["required"] == ["version", "load"]
    assert [part["required"] for part in schema["oneOf"]] == [["prompts"], ["classes"]]
    text = json.dumps(schema)
    for name in ("synthetic", "azure", "poisson", "constant", "trace", "closed", "fixed", "lognormal"):
        assert f'"const": "{name}"' in text
    open_objects = [
        name
        for name, part in schema["$defs"].items()
        if part.get("type") == "object" and "properties" in part and part.get("additionalProperties") is not False
    ]
    assert open_objects == []


def test_every_flag_can_be_given() -> None:
    """A table of one good value each, so that a flag added without one is noticed."""
    values = {
        "rate": 3, "concurrency": 3, "requests": 3, "duration": "3s", "warmup": 3, "drain": "3s", "input_tokens": 3,
        "lengths": "D(3,3)",
        "output_tokens": 3, "endpoint": "chat", "temperature": 0.5, "top_p": 0.5, "force_output_length": False,
        "connections": "fresh", "attainment": 0.5, "gate": True, "seed": 3, "slo": ["ttft=3s"], "headers": {"a": "b"},
        "extra_body": {"a": 1}, "data": "x.csv", "requests_per_minute": 60, "cache": "cold",
        "set": {"run.drain": "3s"},
    }  # fmt: skip
    assert set(values) == set(FLAGS)
    texts = {"data": TRACE, "requests_per_minute": CLOSED}
    for name, value in values.items():
        text = texts.get(name, GOOD)
        assert with_flags(text, **{name: value}).spec != parse(text).spec or name == "endpoint"

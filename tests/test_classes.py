"""A mix of classes: who comes how often, that no two share words or lengths, how it ends, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servemark.harness.errors import BadInput
from servemark.harness.plan.classes import ClassSection, Mix, Mixed, seeds_of
from servemark.harness.plan.schedule import Planned, Schedule, plan
from servemark.harness.plan.sessions import Sessions
from servemark.harness.plan.sources import Given, Prepared, PromptSource, Seeds
from servemark.harness.plan.spec import apply, parse_workload
from servemark.harness.plan.tokens import estimate
from servemark.harness.types import Answer, Record, Request, Turn

VOCABULARY = estimate("chat", "no server")
SEEDS = Seeds(1, 2, 3, 4)
GIVEN = Given(SEEDS, VOCABULARY, Path())
WORKLOAD = """\
version: 1
classes:
  chat:
    weight: 3
    prompts: {source: synthetic, input_tokens: "uniform(50, 90)", output_tokens: "uniform(1, 30)"}
  rag:
    prompts: {source: synthetic, input_tokens: "uniform(50, 90)", output_tokens: "uniform(1, 30)"}
load: {arrivals: constant, rate: 100}
run: {duration: 5s, warmup: 2s, seeds: {prompts: 1}}
"""


class Talks(Prepared):
    """Sessions of so many turns; finite where a size is given."""

    def __init__(self, turns: int, size: int | None = None) -> None:
        self._turns = turns
        self.size = size
        self.notes = ("says something",)
        self.most_tokens = 100 * turns

    def lengths(self, index: int) -> tuple[int, int]:
        return 40 + index, 5

    def request(self, index: int) -> Request:
        return Request(index, f"talk {index}", 40 + index, 5, prefixes=(("greeting", 30),))

    def turns(self, index: int) -> int:
        return self._turns

    def next_turn(self, index: int, before: Request, answer: Answer) -> Turn | None:
        return Turn(replace(before, prompt=f"turn {before.turn + 1} of talk {index} after {answer.text}"), 7)


class Made(PromptSource):
    """A source of a test's own."""

    known: ClassVar[dict[str, Prepared]] = {}
    source: str = "made"
    name: str

    def prepare(self, given: Given) -> Prepared:
        return self.known[self.name]


def mixed(weights: Sequence[float], sources: Sequence[Prepared]) -> Mixed:
    members = {}
    for place, (weight, source) in enumerate(zip(weights, sources, strict=True)):
        Made.known[f"c{place}"] = source
        members[f"c{place}"] = ClassSection.model_construct(weight=weight, prompts=Made(name=f"c{place}"), slo=None)
    made = Mix.model_construct(members=members).prepare(GIVEN)
    assert isinstance(made, Mixed)
    return made


def schedule(text: str = WORKLOAD, folder: Path | None = None, **flags: Any) -> Schedule:
    return plan(apply(parse_workload(text, "w.yaml", folder), flags), VOCABULARY)


def words(items: list[Planned], name: str) -> list[str]:
    return [str(each.request.prompt) for each in items if each.request.class_ == name]


def test_classes_come_by_their_weights() -> None:
    counts = Counter(each.request.class_ for each in schedule())
    assert set(counts) == {"chat", "rag"}
    # 700 requests, 3 of 4: 525 with a standard deviation of sqrt(700 * 3/4 * 1/4) = 11.5.
    assert abs(counts["chat"] - 525) < 5 * 11.5


@settings(max_examples=30)
@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=6))
def test_any_weights_are_met(weights: list[float]) -> None:
    mix = mixed(weights, [Talks(1) for _ in weights])
    counts = Counter(mix.request(index).class_ for index in range(2000))
    for place, weight in enumerate(weights):
        share = weight / sum(weights)
        assert abs(counts[f"c{place}"] - 2000 * share) <= 1 + 5.5 * (2000 * share * (1 - share)) ** 0.5


def test_an_item_of_the_mix_is_the_next_one_of_its_class_whatever_is_asked_first() -> None:
    forwards, backwards = (mixed([2, 1], [Talks(1), Talks(1)]) for _ in range(2))
    ahead = [forwards.request(index) for index in range(200)]
    assert [backwards.request(index) for index in reversed(range(200))] == ahead[::-1]
    for name in ("c0", "c1"):
        ranks = [each.prompt for each in ahead if each.class_ == name]
        assert ranks == [f"talk {rank}" for rank in range(len(ranks))]
    assert [each.index for each in ahead] == list(range(200))


def test_the_same_seeds_make_the_same_mix_and_another_order_another_one() -> None:
    def told(**flags: Any) -> list[tuple[str, str]]:
        return [(each.request.class_, str(each.request.prompt)) for each in schedule(**flags)]

    assert told(seed=1) == told(seed=1)
    assert [name for name, _ in told(seed=1)] != [name for name, _ in told(seed=2)]


def test_classes_that_are_written_alike_share_neither_words_nor_lengths() -> None:
    items = list(schedule())
    chat, rag = words(items, "chat"), words(items, "rag")
    assert not set(chat) & set(rag)
    lengths = [
        [each.request.asked_prompt_tokens for each in items if each.request.class_ == name][:100]
        for name in ("chat", "rag")
    ]
    assert lengths[0] != lengths[1]


def test_a_class_keeps_its_own_whatever_the_others_are() -> None:
    """Its seeds follow from its name, so its i-th prompt is the same in another mix."""
    alone = words(list(schedule(WORKLOAD.replace("rag:", "other:"))), "chat")
    beside = words(list(schedule()), "chat")
    assert alone == beside
    heavier = words(list(schedule(WORKLOAD.replace("weight: 3", "weight: 9"))), "chat")
    assert heavier[: len(beside)] == beside


def test_seeds_are_derived_from_the_runs_and_the_name() -> None:
    one, other = seeds_of(SEEDS, "chat"), seeds_of(SEEDS, "rag")
    drawn = [*_numbers(one), *_numbers(other), *_numbers(seeds_of(replace(SEEDS, prompts=9), "chat"))[1:2]]
    assert len(set(drawn)) == 9
    assert all(0 <= seed < 2**63 for seed in drawn)
    assert seeds_of(SEEDS, "chat") == one
    assert seeds_of(replace(SEEDS, salt=5), "chat") == replace(one, salt=5)


def _numbers(seeds: Seeds) -> list[int]:
    return [seeds.arrivals, seeds.prompts, seeds.lengths, seeds.order]


def test_the_first_class_that_runs_out_ends_the_mix_and_is_named() -> None:
    mix = mixed([1, 1], [Talks(1, size=7), Talks(1)])
    held = [index for index in range(1000) if mix.holds(index)]
    assert held == list(range(len(held)))
    classes = [mix.request(index).class_ for index in held]
    assert classes.count("c0") == 7
    assert mix.size == len(held)
    assert mix.notes[-1] == "class c0 ran out after 7 of its items: the load ends"
    assert not mix.holds(len(held) + 5)


def test_a_file_that_ends_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("\n".join(f"line {i} of the text" for i in range(9)))
    text = WORKLOAD.replace('synthetic, input_tokens: "uniform(50, 90)",', "text, path: lines.txt,", 1)
    made = schedule(text, tmp_path)
    items = list(made)
    assert len(words(items, "chat")) == 9
    assert "class chat ran out after 9 of its items: the load ends" in made.source.notes
    assert parse_workload(text, folder=tmp_path).spec.source.finite
    looped = schedule(text.replace("path: lines.txt", "path: lines.txt, loop: true"), tmp_path)
    assert len(list(looped)) == 700


def test_sessions_are_one_item_of_their_class() -> None:
    mix = mixed([1, 1], [Talks(3), Talks(1)])
    made = Schedule(parse_workload(WORKLOAD).spec, mix, VOCABULARY, SEEDS)
    items = list(islice(made, 40))
    talk = next(each for each in items if each.request.class_ == "c0")
    assert (talk.turns, talk.request.session_id) == (3, f"s{talk.item}")
    assert {each.turns for each in items if each.request.class_ == "c1"} == {1}
    sessions = Sessions(mix, made.sharing)
    sessions.began(talk)
    done = Record(talk.index, "c0", talk.request.session_id, 0, "", 0, "measured", 0, done_ns=100)
    found = sessions.after(done, "yes")
    assert found is not None
    assert (found.due_ns, found.planned.request.class_, found.planned.index) == (107, "c0", talk.index + 1)
    assert found.planned.request.prompt == "turn 1 of talk 0 after yes"
    assert found.planned.request.prefixes == talk.request.prefixes == (("c0 greeting", 30),)


def test_beginnings_of_two_classes_are_not_the_same_for_being_called_alike() -> None:
    made = schedule(WORKLOAD.replace("input_tokens:", "shared_prefix: {tokens: 40}, input_tokens:"))
    begun = {each.request.class_: {name for name, _ in each.request.prefixes} for each in islice(made, 100)}
    assert {name: len(names) for name, names in begun.items()} == {"chat": 1, "rag": 1}
    assert not begun["chat"] & begun["rag"]


def test_what_classes_say_of_themselves_is_put_together() -> None:
    mix = mixed([1, 1], [Talks(3), Talks(1)])
    assert mix.notes == ("class c0: says something", "class c1: says something")
    assert mix.most_tokens == 300
    one, other = (Talks(1), Talks(1))
    one.data_digest, other.most_tokens = "abc", None
    mix = mixed([1, 1], [one, other])
    assert (mix.data_digest, mix.most_tokens) == ("abc", None)


def test_a_trace_among_the_classes_gives_its_lengths_and_the_result_says_so(tmp_path: Path) -> None:
    rows = "".join(f"2023-11-16 18:17:{second:02}.0000000,40,5\n" for second in range(20))
    (tmp_path / "t.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows)
    lengths = 'synthetic, input_tokens: "uniform(50, 90)", output_tokens: "uniform(1, 30)"'
    made = schedule(WORKLOAD.replace(lengths, "azure, path: t.csv", 1), tmp_path)
    items = [each.request for each in made if each.request.class_ == "chat"]
    assert {(each.asked_prompt_tokens, each.asked_output_tokens) for each in items} == {(40, 5)}
    assert "class chat: the recorded times are not used" in made.source.notes


def test_a_warm_up_of_the_cache_sends_what_each_class_repeats() -> None:
    text = WORKLOAD.replace('"uniform(1, 30)"}', '"uniform(1, 30)", distinct: 2}', 1)
    made = schedule(text)
    assert not made.spec.source.unique
    repeated = list(made.spec.source.repeats(made.source))
    assert [each.class_ for each in repeated] == ["chat", "chat"]
    assert {str(each.prompt) for each in repeated} == set(words(list(made), "chat"))


def test_memory_for_a_mix_is_a_few_bytes_an_item() -> None:
    mix = mixed([1, 1], [Talks(1), Talks(1)])
    mix.holds(20_000)
    held = mix._classes.itemsize * len(mix._classes) + mix._ranks.itemsize * len(mix._ranks)
    assert held == 9 * 20_001


CHAT = "    weight: 3\n"
MISTAKES = [
    (CHAT, "    weight: 0\n", "w.yaml:4: classes.chat.weight: must be above 0, not 0"),
    (CHAT, "    wieght: 3\n", "w.yaml:4: classes.chat.wieght: there is no such key; did you mean `weight`?"),
    (CHAT, "    slo: {gate: true}\n", "w.yaml:4: classes.chat.slo.gate: there is no such key here; it belongs to slo"),
    (CHAT, "    slo: {limits: ttft}\n", "w.yaml:4: classes.chat.slo.limits: 'ttft' is no limit"),
    ("  rag:", "  rag one:", "w.yaml:2: classes: 'rag one' names no class; take a letter"),
    ("  rag:\n", "  rag:\n    wight: 1\n", "w.yaml:7: classes.rag.wight: there is no such key; did you mean `weight`?"),
    ("synthetic, in", "sinthetic, in", "w.yaml:5: classes.chat.prompts.source: there is no prompt source 'sinthetic'"),
    ("classes:", "prompts: {source: synthetic, lengths: '5/5'}\nclasses:", "prompts and classes both say what is sent"),
    ("arrivals: constant, rate: 100", "arrivals: trace", "w.yaml:8: load.arrivals: a mix of classes has no recorded"),
    ("{source: synthetic, in", "{source: synthetic, tokens: ids, in", "w.yaml:2: classes: some classes send text and"),
    ("warmup: 2s", "warmup: 2s, cache: warm", "every prompt of the source classes is a new one"),
    (
        WORKLOAD[WORKLOAD.index("classes:") : WORKLOAD.index("load:")],
        "",
        "nothing is sent; add `prompts:` (what is sent), or `classes:` for a mix",
    ),
]


@pytest.mark.parametrize(("old", "new", "sentence"), MISTAKES, ids=[new or "none" for _, new, _ in MISTAKES])
def test_a_mistake_is_one_sentence(old: str, new: str, sentence: str) -> None:
    assert old in WORKLOAD
    with pytest.raises(BadInput) as error:
        parse_workload(WORKLOAD.replace(old, new, 1), "w.yaml")
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_a_class_whose_data_is_missing_is_named(tmp_path: Path) -> None:
    text = WORKLOAD.replace('synthetic, input_tokens: "uniform(50, 90)",', "text, path: no.txt,", 1)
    with pytest.raises(BadInput, match=r"^class chat: .*no\.txt"):
        schedule(text, tmp_path)


@pytest.mark.parametrize(
    ("flag", "value", "key"),
    [("input_tokens", "5", "input_tokens"), ("lengths", "D(1,2)", "lengths"), ("data", "x.csv", "path")],
)
def test_a_flag_for_prompts_does_not_say_whose(flag: str, value: str, key: str) -> None:
    with pytest.raises(BadInput) as error:
        schedule(**{flag: value})
    assert f"say whose: --set classes.chat.prompts.{key}=..." in str(error.value)


def test_a_dump_reads_back_as_the_same_mix() -> None:
    loaded = parse_workload(WORKLOAD.replace(CHAT, CHAT + "    slo: {limits: ttft=1s, attainment: 0.9}\n"))
    again = parse_workload(WORKLOAD)
    again.raw["classes"] = loaded.dump()["classes"]
    assert apply(again, {}).spec == loaded.spec


def test_an_slo_of_a_flag_is_that_of_all_classes() -> None:
    loaded = parse_workload(WORKLOAD.replace(CHAT, CHAT + "    slo: {limits: ttft=1s, attainment: 0.9}\n"))
    spec = apply(loaded, {"slo": "tpot=50ms"}).spec
    assert spec.slo.limits == ("tpot=50ms",)
    assert spec.classes is not None
    assert spec.classes["chat"].slo is None

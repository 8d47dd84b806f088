"""Data sets of prompts: the published formats are read as they are, and what is sent is what the rows say."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, processors, trainers

from servemark.harness.errors import BadInput
from servemark.harness.plan.schedule import plan
from servemark.harness.plan.sources import Given, Prepared, Seeds
from servemark.harness.plan.spec import parse_workload
from servemark.harness.plan.tokens import estimate, from_file
from servemark.harness.plan.tokens import words as vocabulary_words
from servemark.harness.plan.vocabulary import Vocabulary
from servemark.harness.types import Answer, Message, Request
from servemark.workloads.datasets.beginnings import LEAST_CHARACTERS, Beginnings, shared_beginnings
from servemark.workloads.datasets.rows import open_json, open_text
from servemark.workloads.datasets.survey import UNKNOWN_OUTPUT_TOKENS

SEEDS = Seeds(arrivals=1, prompts=2, lengths=3, order=4)
MS = 1_000_000

HUMANEVAL = [
    {
        "task_id": f"HumanEval/{i}",
        "prompt": f"def f{i}(x):\n    'Adds {i}.'\n",
        "canonical_solution": "    return x\n",
    }
    for i in range(4)
]
GSM8K = [{"question": f"What is {i} and {i}?", "answer": f"{i} and {i} is {2 * i}.\n#### {2 * i}"} for i in range(5)]
MT_BENCH = [
    {"question_id": 81 + i, "category": ["writing", "math"][i % 2], "turns": [f"Say {i}.", f"Say it again, {i}."]}
    for i in range(4)
]
SPEC_BENCH = [*MT_BENCH, {"question_id": 200, "category": "qa", "turns": ["Who was it?"], "reference": ["He"]}]
SHAREGPT = [
    {
        "id": "a",
        "conversations": [
            {"from": "human", "value": "Hello, who are you?"},
            {"from": "gpt", "value": "An assistant, I think."},
            {"from": "human", "value": "Are you sure?"},
            {"from": "gpt", "value": "Yes."},
        ],
    },
    {"id": "b", "conversations": [{"from": "user", "value": "Good day."}, {"from": "assistant", "value": "Hm."}]},
]


def words(text: str) -> int:
    return len(text.split())


COUNTED = replace(estimate("completions", ""), fixed_tokens=9, exact=True, origin="file", note="", count=words)
"""Counts a token for each word; the endpoint adds seven to every prompt."""
GUESSED = estimate("chat", "")


@pytest.fixture
def source(tmp_path: Path) -> Callable[..., Prepared]:
    """A source of rows (or of raw bytes) with its keys, made ready."""

    def make(name: str, rows: Any, seeds: Seeds = SEEDS, vocabulary: Vocabulary = COUNTED, **keys: Any) -> Prepared:
        data = rows if isinstance(rows, bytes) else "".join(json.dumps(row) + "\n" for row in rows).encode()
        (tmp_path / "data").write_bytes(data)
        section = {"source": name, "path": "data", **keys}
        loaded = parse_workload(json.dumps({"version": 1, "prompts": section, "load": {"rate": 1}}), folder=tmp_path)
        return loaded.spec.prompts.prepare(Given(seeds, vocabulary, tmp_path))

    return make


def sent(prepared: Prepared, count: int | None = None) -> list[Request]:
    return [prepared.request(index) for index in range(prepared.size or count or 0)]


def session(prepared: Prepared, index: int, answer: str = "So.") -> list[Request]:
    """All turns of an item, each answered alike."""
    requests = [prepared.request(index)]
    while len(requests) < prepared.turns(index):
        turn = prepared.next_turn(index, requests[-1], Answer(answer))
        assert turn is not None
        requests.append(replace(turn.request, turn=len(requests)))
    return requests


Make = Callable[..., Prepared]


def test_humaneval_asks_for_the_length_of_the_canonical_solution(source: Make) -> None:
    requests = sent(source("humaneval", HUMANEVAL))
    assert [request.prompt for request in requests] == [row["prompt"] for row in HUMANEVAL]
    assert {request.asked_output_tokens for request in requests} == {2}


def test_gsm8k_asks_for_the_length_of_the_worked_answer(source: Make) -> None:
    requests = sent(source("gsm8k", GSM8K))
    assert requests[3].prompt == "What is 3 and 3?"
    assert requests[3].asked_output_tokens == words(GSM8K[3]["answer"]) == 7
    assert requests[3].asked_prompt_tokens == 7 + 5


def test_a_gzipped_file_is_read_as_it_is_published(source: Make) -> None:
    plain = "".join(json.dumps(row) + "\n" for row in HUMANEVAL).encode()
    packed = gzip.compress(plain)
    prepared = source("humaneval", packed)
    assert [each.prompt for each in sent(prepared)] == [row["prompt"] for row in HUMANEVAL]
    assert prepared.data_digest == sha256(packed).hexdigest()


def test_json_lines_and_a_json_array_are_the_same_data(source: Make) -> None:
    lines = sent(source("sharegpt", SHAREGPT, turns="all"))
    pretty = b"\xef\xbb\xbf\n" + json.dumps(SHAREGPT, indent=2).encode()
    assert sent(source("sharegpt", pretty, turns="all")) == lines


def test_sharegpt_sends_the_first_message_as_vllm_does(source: Make) -> None:
    first, second = sent(source("sharegpt", SHAREGPT))
    assert (first.prompt, first.asked_output_tokens) == ("Hello, who are you?", words("An assistant, I think."))
    assert (second.prompt, second.asked_output_tokens) == ("Good day.", 1)


def test_a_session_holds_what_the_server_answered_and_not_what_was_recorded(source: Make) -> None:
    prepared = source("sharegpt", SHAREGPT, turns="all")
    assert [prepared.turns(item) for item in range(2)] == [2, 1]
    first, second = session(prepared, 0, answer="A parrot.")
    assert first.history == ()
    assert second.history == (Message("user", "Hello, who are you?"), Message("assistant", "A parrot."))
    assert (second.prompt, second.asked_output_tokens) == ("Are you sure?", 1)
    assert second.asked_prompt_tokens is None, "nobody knows what the template makes of a conversation"


def test_the_last_turn_can_follow_on_the_recorded_ones(source: Make) -> None:
    first, _ = sent(source("sharegpt", SHAREGPT, turns="last"))
    assert first.prompt == "Are you sure?"
    assert first.history == (Message("user", "Hello, who are you?"), Message("assistant", "An assistant, I think."))


def test_sessions_can_be_cut_short(source: Make) -> None:
    prepared = source("mt_bench", MT_BENCH, max_turns=1)
    assert {prepared.turns(item) for item in range(4)} == {1}


def test_users_think_before_later_turns(source: Make) -> None:
    prepared = source("mt_bench", MT_BENCH, think_time="uniform(10ms, 20ms)")
    pauses = []
    for item in range(4):
        turn = prepared.next_turn(item, prepared.request(item), Answer("So."))
        assert turn is not None
        pauses.append(turn.think_ns)
    assert all(10 * MS <= pause <= 20 * MS for pause in pauses)
    assert len(set(pauses)) == 4


@pytest.mark.parametrize("name", ["mt_bench", "spec_bench"])
def test_the_benches_ask_two_turns_and_know_no_lengths(source: Make, name: str) -> None:
    prepared = source(name, SPEC_BENCH)
    assert [prepared.turns(item) for item in range(5)] == [2, 2, 2, 2, 1]
    assert [request.prompt for request in session(prepared, 1)] == ["Say 1.", "Say it again, 1."]
    assert sent(prepared)[4].asked_output_tokens == UNKNOWN_OUTPUT_TOKENS
    assert f"5 of 5 rows tell no length of an answer: {UNKNOWN_OUTPUT_TOKENS} tokens asked" in prepared.notes
    assert {request.class_ for request in sent(prepared)} == {"default"}


def test_categories_can_be_classes(source: Make) -> None:
    requests = sent(source("spec_bench", SPEC_BENCH, class_by="category"))
    assert [request.class_ for request in requests] == ["writing", "math", "writing", "math", "qa"]


def test_a_field_of_countless_values_is_no_class(source: Make) -> None:
    rows = [{"prompt": "Go on.", "id": f"row {i}"} for i in range(200)]
    with pytest.raises(BadInput, match="class_by gives more than 32 classes; name a field of fewer values"):
        source("jsonl", rows, class_by="id")


MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "How "}, {"type": "text", "text": "far?"}]},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
    {"role": "tool", "content": "9 km"},
    {"role": "assistant", "content": "Nine kilometres."},
    {"role": "user", "content": "And"},
    {"role": "user", "content": "back?"},
]


def test_messages_of_the_openai_format_become_a_session(source: Make) -> None:
    first, second, third = session(source("jsonl", [{"messages": MESSAGES}], columns={"messages": "messages"}), 0)
    assert (first.history, first.prompt, first.role) == ((Message("system", "Be brief."),), "How far?", "user")
    assert (second.prompt, second.role, second.asked_output_tokens) == ("9 km", "tool", 2)
    assert third.prompt == "And\n\nback?"
    assert third.asked_output_tokens == UNKNOWN_OUTPUT_TOKENS
    assert [message.role for message in third.history] == ["system", "user", "assistant", "tool", "assistant"]


def test_fields_are_named_by_the_workload(source: Make) -> None:
    row = {
        "task": {"text": "Sum up.", "inputs": ["A long text.", ""]},
        "told": "Short.",
        "length": 77,
        "kind": "short",
        "rules": "No jokes.",
    }
    columns = {"prompt": ["task.text", "task.inputs.0", "task.inputs.1"], "output_tokens": "length", "system": "rules"}
    (request,) = sent(source("jsonl", [row], columns=columns, class_by="kind"))
    assert request.prompt == "Sum up.\n\nA long text."
    assert request.history == (Message("system", "No jokes."),)
    assert (request.asked_output_tokens, request.class_) == (77, "short")


def test_a_prompt_may_be_a_list_of_turns_with_their_lengths(source: Make) -> None:
    rows = [{"prompt": ["One?", "Two?"], "n": [3, 4]}, {"prompt": ["One?", "Two?"], "n": 5}]
    prepared = source("jsonl", rows, columns={"prompt": "prompt", "output_tokens": "n"})
    lengths = [[each.asked_output_tokens for each in session(prepared, item)] for item in range(2)]
    assert lengths == [[3, 4], [5, 5]]


TEXT = b"Shall I compare thee\r\nto a day?\n\nThou art\nmore lovely.\n   \n\n"


@pytest.mark.parametrize(
    ("unit", "prompts"),
    [
        ("line", ["Shall I compare thee", "to a day?", "Thou art", "more lovely."]),
        ("paragraph", ["Shall I compare thee\nto a day?", "Thou art\nmore lovely."]),
        ("file", ["Shall I compare thee\nto a day?\n\nThou art\nmore lovely.\n   "]),
    ],
)
def test_a_text_is_cut_into_units(source: Make, unit: str, prompts: list[str]) -> None:
    assert [request.prompt for request in sent(source("text", TEXT, unit=unit))] == prompts


@settings(max_examples=40)
@given(wanted=st.integers(9, 300), index=st.integers(0, 10_000))
def test_lines_are_put_together_to_the_asked_length(tmp_path_factory: Any, wanted: int, index: int) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "lines").write_text("\n".join(f"line {i} has these few words" for i in range(30)))
    text = f"version: 1\nprompts: {{source: text, path: lines, input_tokens: {wanted}}}\nload: {{rate: 1}}"
    spec = parse_workload(text, folder=folder).spec
    assert not spec.prompts.unique, "lines come again"
    request = spec.prompts.prepare(Given(SEEDS, COUNTED, folder)).request(index)
    assert request.asked_prompt_tokens == wanted == 7 + words(str(request.prompt))


def test_prompts_that_begin_with_the_same_line_say_so(source: Make) -> None:
    prepared = source("text", b"one two three\nfour five six\n", input_tokens=40)
    for request in sent(prepared, 8):
        first = str(request.prompt).split("\n")[0]
        assert request.prefixes == ((f"line {int(first == 'four five six')}", prepared.request(0).prefixes[0][1]),)


def test_a_text_takes_units_or_lengths(source: Make) -> None:
    with pytest.raises(BadInput, match="with input_tokens prompts are put together anew; leave out loop, unit"):
        source("text", TEXT, input_tokens=40, unit="line", loop=True)


# Which rows are sent


def test_bad_rows_are_counted_and_named(source: Make) -> None:
    good, rows = [json.dumps(row) for row in GSM8K], []
    rows = [good[0], "{broken", good[1], "[1]", '{"question": "Why?"}', '{"question": " ", "answer": "x"}', good[2]]
    prepared = source("gsm8k", "\n".join(rows).encode())
    assert [request.prompt for request in sent(prepared)] == [row["question"] for row in GSM8K[:3]]
    assert prepared.notes == (
        "4 of 7 rows left out as unreadable: line 2 is no JSON; line 4 is no JSON object; line 5 has no field "
        "`answer`; and 1 more",
    )


@pytest.mark.parametrize(
    ("keys", "kept", "note"),
    [
        ({"min_input_tokens": 10}, ["b", "c"], "1 of 3 rows left out: the first prompt is below 10 tokens"),
        ({"max_input_tokens": 17}, ["a", "b"], "1 of 3 rows left out: the longest prompt is above 17 tokens"),
        ({"max_output_tokens": 3}, ["a", "c"], "1 of 3 rows left out: the longest answer is above 3 tokens"),
    ],
)
def test_rows_beyond_a_limit_are_left_out_and_counted(
    source: Make, keys: dict[str, int], kept: list[str], note: str
) -> None:
    lengths = (("a", 1, 3), ("b", 10, 4), ("c", 11, 1))
    rows = [{"question": " ".join([name] * asked), "answer": "y " * told} for name, asked, told in lengths]
    prepared = source("gsm8k", rows, **keys)
    assert [str(request.prompt)[0] for request in sent(prepared)] == kept
    assert prepared.notes == (note,)


def test_the_longest_prompt_of_a_session_holds_its_answers(source: Make) -> None:
    rows = [{"messages": [{"role": "user", "content": "one two"}, {"role": "assistant", "content": "three"}] * 2}]
    columns = {"messages": "messages"}
    assert source("jsonl", rows, columns=columns, max_input_tokens=7 + 5).size == 1
    with pytest.raises(BadInput, match=r"no row is left \(1 of 1 row left out: the longest prompt is above 11 tokens"):
        source("jsonl", rows, columns=columns, max_input_tokens=7 + 4)


def test_rows_can_be_taken_in_another_order(source: Make) -> None:
    rows = [{"question": f"{i}?", "answer": "x"} for i in range(50)]
    plain, mixed = sent(source("gsm8k", rows)), sent(source("gsm8k", rows, shuffle=True))
    assert [request.prompt for request in plain] == [f"{i}?" for i in range(50)]
    assert mixed != plain
    assert sorted(str(each.prompt) for each in mixed) == sorted(str(each.prompt) for each in plain)
    assert sent(source("gsm8k", rows, shuffle=True)) == mixed
    assert sent(source("gsm8k", rows, replace(SEEDS, order=5), shuffle=True)) != mixed


def test_a_data_set_ends_unless_it_is_to_begin_again(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("".join(json.dumps(row) + "\n" for row in GSM8K))
    text = "version: 1\nprompts: {source: gsm8k, path: data%s}\nload: {rate: 100}\nrun: {requests: 12, warmup: 0}"
    once = plan(parse_workload(text % "", folder=tmp_path), COUNTED)
    assert once.spec.prompts.finite
    assert once.spec.prompts.unique
    assert len(list(once)) == 5
    again = plan(parse_workload(text % ", loop: true, shuffle: true", folder=tmp_path), COUNTED)
    assert not again.spec.prompts.finite
    assert not again.spec.prompts.unique
    prompts = [planned.request.prompt for planned in again]
    assert len(prompts) == 12
    assert set(prompts[:5]) == set(prompts[5:10])
    assert prompts[:5] != prompts[5:10], "each pass has an order of its own"
    assert "the prompts come again after 5" in again.source.notes
    assert {each.prompt for each in again.spec.prompts.repeats(again.source)} == set(prompts[:5])


@settings(max_examples=25)
@given(count=st.integers(1, 40), shuffle=st.booleans(), seed=st.integers(0, 2**32))
def test_each_pass_holds_every_row_once(tmp_path_factory: Any, count: int, shuffle: bool, seed: int) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "rows").write_text("".join(f"prompt {i}\n" for i in range(count)))
    keys = f"source: text, path: rows, loop: true, shuffle: {str(shuffle).lower()}"
    spec = parse_workload(f"version: 1\nprompts: {{{keys}}}\nload: {{rate: 1}}", folder=folder).spec
    prepared = spec.prompts.prepare(Given(replace(SEEDS, order=seed), GUESSED, folder))
    for lap in range(3):
        prompts = {prepared.request(index).prompt for index in range(lap * count, (lap + 1) * count)}
        assert len(prompts) == count


# Lengths


def test_lengths_are_estimates_without_a_tokenizer_and_nothing_is_judged(source: Make) -> None:
    prepared = source("gsm8k", [{"question": "How many?", "answer": "a" * 40}], vocabulary=GUESSED)
    (request,) = sent(prepared)
    assert request.asked_prompt_tokens is None
    assert request.asked_output_tokens == 10
    assert prepared.notes == ("lengths are estimates, a token for each 4 bytes; --tokenizer counts them",)


@pytest.mark.parametrize("text", ["How many?\n", " How many?"])
def test_where_a_template_may_cut_white_space_no_length_is_promised(source: Make, text: str) -> None:
    (request,) = sent(source("gsm8k", [{"question": text, "answer": "x"}]))
    assert request.asked_prompt_tokens is None
    assert request.prompt == text


def test_a_tokenizer_file_counts_as_the_server_does(source: Make, tmp_path: Path) -> None:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    corpus = [" ".join(vocabulary_words()), *(row["question"] + row["answer"] for row in GSM8K)]
    trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=["<s>"], show_progress=False)
    tokenizer.train_from_iterator(corpus * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    vocabulary = from_file(tmp_path / "tokenizer.json", "completions")
    assert vocabulary.exact
    for row, request in zip(GSM8K, sent(source("gsm8k", GSM8K, vocabulary=vocabulary)), strict=True):
        assert request.asked_prompt_tokens == len(tokenizer.encode(request.prompt).ids)
        assert request.asked_output_tokens == len(tokenizer.encode(row["answer"]).ids) - 1, "no BOS in an answer"


def test_a_distribution_replaces_the_recorded_lengths(source: Make) -> None:
    requests = sent(source("gsm8k", GSM8K, output_tokens="uniform(50, 60)"))
    lengths = [request.asked_output_tokens for request in requests]
    assert all(50 <= (length or 0) <= 60 for length in lengths)
    assert len(set(lengths)) > 1
    with pytest.raises(BadInput, match="max_output_tokens is about the recorded answers, which output_tokens replaces"):
        source("gsm8k", GSM8K, output_tokens=5, max_output_tokens=5)


# Prefix caches


def test_a_salt_stands_before_all_that_is_sent(source: Make) -> None:
    salted = replace(SEEDS, salt=99)
    (plain,) = sent(source("gsm8k", GSM8K[:1]))
    (request,) = sent(source("gsm8k", GSM8K[:1], salted))
    assert str(request.prompt).endswith(str(plain.prompt))
    assert str(request.prompt) != plain.prompt
    assert request.asked_prompt_tokens == 7 + words(str(request.prompt))
    (told,) = sent(source("jsonl", [{"prompt": "Go.", "s": "Be brief."}], salted, columns={"system": "s"}))
    assert told.history[0].content.endswith(" Be brief.")
    assert told.prompt == "Go."


def test_what_many_prompts_begin_with_is_declared(source: Make) -> None:
    begin = "Translate this sentence: "
    rows = [{"question": f"{begin}{word}", "answer": "x"} for word in ("yes", "no", "maybe")]
    requests = sent(source("gsm8k", [*rows, {"question": "Why?", "answer": "x"}]))
    assert {request.prefixes for request in requests[:3]} == {((begin, words(begin)),)}
    assert requests[3].prefixes == ()


def test_a_system_message_of_all_rows_is_a_shared_beginning(source: Make) -> None:
    rows = [{"prompt": f"{i}?", "s": "You answer in one word, always."} for i in range(3)]
    prefixes = {request.prefixes for request in sent(source("jsonl", rows, columns={"system": "s"}))}
    assert len(prefixes) == 1
    ((_, tokens),) = prefixes.pop()
    assert words("You answer in one word, always.") <= tokens <= words("You answer in one word, always.") + 7


@given(st.lists(st.text("ab", min_size=0, max_size=24), min_size=2, max_size=30))
def test_two_texts_share_exactly_the_longest_beginning_that_is_declared_for_both(texts: list[str]) -> None:
    beginnings = Beginnings(texts, len)
    for one in texts:
        for other in texts:
            common = len(os.path.commonprefix([one, other]))  # noqa: RUF071 (these are no paths)
            shared = set(beginnings.of(one, 0)) & set(beginnings.of(other, 0))
            if one is not other and common >= LEAST_CHARACTERS:
                assert max(tokens for _, tokens in shared) == common
            elif one is not other:
                assert not shared


def test_rare_beginnings_are_not_looked_for() -> None:
    texts = [f"{i:06} is a number" for i in range(1000)]
    assert shared_beginnings(texts) == []
    assert shared_beginnings([*texts, *(f"Translate {i}" for i in range(20))])[0].startswith("Translate ")


# Files


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("sharegpt", MT_BENCH, r"no row is one of the source sharegpt \(line 1 has no field `conversations`\); "
            "the file looks like one for prompts.source: mt_bench or spec_bench"),
        ("mt_bench", SHAREGPT, "the file looks like one for prompts.source: sharegpt"),
        ("gsm8k", HUMANEVAL, "the file looks like one for prompts.source: humaneval or jsonl"),
        ("humaneval", GSM8K, "the file looks like one for prompts.source: gsm8k"),
        ("jsonl", b"\xff\xfe\x00\x01", "line 1 is no JSON.; see that prompts.source and the file belong together"),
        ("jsonl", b"Once upon a time\n", "line 1 is no JSON.; the file looks like one for prompts.source: text"),
        ("jsonl", [{"text": "x"}], "line 1 has no field `prompt`.; see that prompts.source and the file belong"),
        ("gsm8k", b"", "the file holds no rows; see that it is the whole file"),
        ("sharegpt", b'[{"conversations": [', "this is no JSON array .*; fetch the file again, or repair it"),
        ("gsm8k", gzip.compress(b"x" * 1000)[:-12], "the gzipped file is broken .*; fetch it again"),
        ("text", b"caf\xe9\n", "line 1 is no UTF-8 text; convert the file"),
        ("text", b"\n \n", "the file holds no rows"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_the_source_that_fits(source: Make, name: str, data: Any, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        source(name, data)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"conversations": "x"}, "has no list of messages"),
        ({"conversations": [{"from": "gpt", "value": "x"}]}, "has no message of a user"),
        ({"conversations": [{"from": "mother", "value": "x"}]}, "has a message of an unknown speaker, 'mother'"),
        ({"conversations": ["x"]}, "has a message that is no JSON object"),
        ({"conversations": [{"from": "human", "value": 5}]}, "has a message that is no text"),
        ({"conversations": [{"from": "human", "value": "  "}]}, "has an empty message"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(source: Make, row: dict[str, Any], reason: str) -> None:
    assert source("sharegpt", [row, SHAREGPT[1]]).notes == (f"1 of 2 rows left out as unreadable: line 1 {reason}",)


def test_a_file_that_is_not_there_is_said_where_to_find(tmp_path: Path) -> None:
    loaded = parse_workload("version: 1\nprompts: {source: humaneval, path: no.gz}\nload: {rate: 1}", folder=tmp_path)
    sentence = (
        r"no\.gz: the data cannot be read \(No such file or directory\); set prompts\.path in the workload file, "
    )
    with pytest.raises(
        BadInput, match=sentence + r"or --data; it is published at https://github\.com/openai/human-eval"
    ):
        loaded.spec.prompts.prepare(Given(SEEDS, GUESSED, tmp_path))


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ("{prompt: a, messages: b}", "prompt and messages both say what is sent; keep one"),
        ("{answer: a, output_tokens: b}", "answer and output_tokens both say how long the answer is; keep one"),
        ("{messages: a, answer: b}", "messages hold their answers; leave answer out"),
        ("{prompt: []}", "prompt names no field; name one"),
        ("{prompt: 5}", "prompts.columns.prompt: needs a text or a list of texts, not 5"),
        ("{promt: a}", "prompts.columns.promt: there is no such key; did you mean `prompt`?"),
    ],
)
def test_columns_that_contradict_each_other_are_refused(columns: str, sentence: str) -> None:
    with pytest.raises(BadInput, match=re.escape(sentence)):
        parse_workload(f"version: 1\nprompts: {{source: jsonl, path: x, columns: {columns}}}\nload: {{rate: 1}}")


def test_the_source_that_was_named_is_not_proposed(source: Make) -> None:
    with pytest.raises(BadInput, match=r"has no field `kind`\); see that prompts\.source and the file belong together"):
        source("jsonl", [{"prompt": "Why?"}], class_by="kind")


def test_texts_are_not_sent_as_ids() -> None:
    with pytest.raises(BadInput, match=r"prompts\.tokens: must be 'text', not 'ids'"):
        parse_workload("version: 1\nprompts: {source: gsm8k, path: x, tokens: ids}\nload: {rate: 1}")


@given(st.lists(st.dictionaries(st.text(max_size=4), st.text(max_size=30), max_size=3), min_size=1, max_size=20))
def test_rows_are_found_again_whatever_they_hold(tmp_path_factory: Any, rows: list[dict[str, str]]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    for text in (
        "\n".join(json.dumps(row) for row in rows),
        "\r\n\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows),
        json.dumps(rows, indent=1),
        json.dumps(rows, ensure_ascii=False, separators=(",", ":")),
    ):
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        found = open_json(path, "")
        assert [found.object(row) for row in range(len(found))] == rows


def test_only_places_of_rows_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "long"
    path.write_bytes(b"x" * 1000 + b"\n" + b"y" * 10 + b"\n")
    rows = open_text(path, "line", "")
    rows.keep([1])
    assert (len(rows), rows.text(0), rows.place(0)) == (1, "y" * 10, "line 2")


REAL = Path(os.environ.get("SERVEMARK_DATA", "/nowhere")) / "prompts"


@pytest.mark.skipif(not REAL.is_dir(), reason="SERVEMARK_DATA names no folder with the published files")
@pytest.mark.parametrize(
    ("name", "file", "rows", "turns"),
    [
        ("humaneval", "HumanEval.jsonl.gz", 164, 164),
        ("gsm8k", "gsm8k_test.jsonl", 1319, 1319),
        ("mt_bench", "mt_bench_question.jsonl", 80, 160),
        ("spec_bench", "spec_bench_question.jsonl", 480, 560),
        ("sharegpt", "fastchat_dummy_conversation.json", 500, 500),
    ],
)
def test_the_published_files_are_read_whole(name: str, file: str, rows: int, turns: int) -> None:
    loaded = parse_workload(f"version: 1\nprompts: {{source: {name}, path: {REAL / file}}}\nload: {{rate: 1}}")
    prepared = loaded.spec.prompts.prepare(Given(SEEDS, COUNTED, REAL))
    assert prepared.size == rows
    assert sum(map(prepared.turns, range(rows))) == turns
    assert not any("left out" in note for note in prepared.notes)
    assert all(request.prompt and request.asked_output_tokens for request in sent(prepared))

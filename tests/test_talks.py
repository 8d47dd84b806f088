"""Made-up sessions: turns, think times, tools, system messages, what a later prompt holds, and where sessions end."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servemark.adapters.openai import OpenAIAdapter
from servemark.adapters.sim.launch import LocalServer, launch
from servemark.adapters.sim.options import SimOptions
from servemark.adapters.sim.tokenizer import Tokenizer
from servemark.harness.errors import BadInput, TargetUnusable
from servemark.harness.plan.schedule import plan
from servemark.harness.plan.sources import Given, Prepared, Seeds
from servemark.harness.plan.spec import parse_workload
from servemark.harness.plan.tokens import LEAST_TEXT, learn
from servemark.harness.plan.vocabulary import Vocabulary
from servemark.harness.server import target
from servemark.harness.types import Answer, HttpRequest, Message, Options, Request, Turn
from servemark.results.recover import load
from servemark.workloads.sessions import Sessions
from tests.commands import TOLERANT, bench, check, run_json

MS, SECOND = 1_000_000, 1_000_000_000
TOKENIZER = Tokenizer(128_000)


def chat_tokens(*messages: tuple[str, str]) -> int:
    return len(TOKENIZER.chat_ids(messages))


def _chat() -> Vocabulary:
    """The built-in target's, with what a system message adds, as `learn_vocabulary` asks for it."""
    found = learn(TOKENIZER.ids, lambda text: TOKENIZER.chat_ids([("user", text)]), "server")
    both = chat_tokens(("system", LEAST_TEXT), ("user", LEAST_TEXT))
    return replace(found, system_tokens=both - found.fixed_tokens)


CHAT = _chat()
SEEDS = Seeds(0, 1, 2, 3)
PLAIN: dict[str, Any] = {"turns": 3, "input_tokens": 60, "next_input_tokens": 20, "output_tokens": 10}
TOOLS = {"calls": "uniform(1, 3)", "call_tokens": 6, "result_tokens": "uniform(30, 40)", "time": "exponential(300ms)"}


def source(seeds: Seeds = SEEDS, **fields: Any) -> Prepared:
    return Sessions.model_validate(PLAIN | fields).prepare(Given(seeds, CHAT, Path()))


def talk(prepared: Prepared, item: int, counted: bool = True) -> Iterator[tuple[Request, Turn]]:
    """The requests of a session, each with what follows its answer, which is as long as was asked."""
    request = prepared.request(item)
    while True:
        answer = answer_to(request)
        if counted:
            prompt = chat_tokens(*((each.role, each.content) for each in _said(request)))
            answer = Answer(answer.text, prompt, request.asked_output_tokens)
        turn = prepared.next_turn(item, request, answer)
        yield request, turn or Turn(request, -1)
        if turn is None:
            return
        request = turn.request


def answer_to(request: Request) -> Answer:
    """So many words, the turn's number one of them."""
    return Answer(" ".join([str(request.turn), *["word"] * ((request.asked_output_tokens or 0) - 1)]))


def _said(request: Request) -> tuple[Message, ...]:
    return (*request.history, Message(request.role, str(request.prompt)))


def requests(prepared: Prepared, item: int, **fields: Any) -> list[Request]:
    return [request for request, _ in talk(prepared, item, **fields)]


# --- conversations


def test_a_session_is_a_user_and_the_servers_own_answers() -> None:
    first, second, third = requests(source(output_tokens=3), 7)
    assert [each.turn for each in (first, second, third)] == [0, 1, 2]
    assert first.history == ()
    assert second.history == (Message("user", str(first.prompt)), Message("assistant", "0 word word"))
    assert third.history == (*second.history, Message("user", str(second.prompt)), Message("assistant", "1 word word"))
    assert len({first.prompt, second.prompt, third.prompt}) == 3


def test_an_empty_answer_is_an_answer() -> None:
    prepared = source()
    turn = prepared.next_turn(0, prepared.request(0), Answer(""))
    assert turn is not None
    assert turn.request.history[-1] == Message("assistant", "")


def test_messages_have_the_asked_lengths() -> None:
    prepared = source(input_tokens="uniform(40, 90)", next_input_tokens="uniform(5, 50)", turns=20)
    firsts, later = [], []
    for item in range(20):
        first, *rest = requests(prepared, item)
        assert chat_tokens(("user", str(first.prompt))) == first.asked_prompt_tokens
        firsts.append(first.asked_prompt_tokens or 0)
        assert [each.asked_prompt_tokens for each in rest] == [None] * 19  # what the server answers is not known
        later += [len(TOKENIZER.ids(str(each.prompt))) for each in rest]
    assert min(firsts) >= 40
    assert max(firsts) <= 90
    assert {5, 50} <= set(later) <= set(range(5, 51))
    assert fmean(later) == pytest.approx(27.5, abs=5 * math.sqrt((46**2 - 1) / 12 / len(later)))


def test_the_number_of_turns_follows_its_distribution() -> None:
    """Geometric with mean 4: P(n) = 3/4 ** (n - 1) / 4."""
    prepared = source(turns="geometric(4)")
    counts = Counter(prepared.turns(item) for item in range(4000))
    for turns in range(1, 6):
        share = 0.75 ** (turns - 1) / 4
        assert counts[turns] / 4000 == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / 4000))
    assert all(len(requests(prepared, item)) == prepared.turns(item) for item in range(30))


def test_think_times_follow_their_distribution() -> None:
    prepared = source(turns=11, think_time="lognormal(5s, p95=30s)")
    pauses = [turn.think_ns / SECOND for item in range(200) for _, turn in talk(prepared, item) if turn.think_ns >= 0]
    assert len(pauses) == len(set(pauses)) == 2000
    sigma = math.log(30 / 5) / 1.6448536269514722
    logs = [math.log(pause / 5) for pause in pauses]
    assert fmean(logs) == pytest.approx(0, abs=5 * sigma / math.sqrt(2000))
    assert fmean(each**2 for each in logs) == pytest.approx(sigma**2, abs=5 * sigma**2 * math.sqrt(2 / 2000))
    assert sum(pause > 30 for pause in pauses) / 2000 == pytest.approx(0.05, abs=5 * math.sqrt(0.05 * 0.95 / 2000))


def test_without_a_think_time_the_next_message_follows_at_once() -> None:
    assert {turn.think_ns for _, turn in talk(source(), 0)} == {0, -1}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**40), st.randoms())
def test_all_but_the_answers_is_the_same_whenever_it_is_asked_for(item: int, order: Any) -> None:
    fields = {"turns": 4, "tools": TOOLS, "think_time": "exponential(2s)", "output_tokens": "uniform(5, 50)"}
    told = list(talk(source(**fields), item))
    again, places = source(**fields), list(range(len(told) - 1))
    order.shuffle(places)
    for place in [*places, *places]:
        before, following = told[place]
        assert again.next_turn(item, before, answer_to(before)) == following
    assert again.turns(item) == len(told)


def test_seeds_change_what_they_are_for() -> None:
    fields = {"turns": 2, "think_time": "exponential(2s)", "input_tokens": "uniform(30, 3000)"}

    def seen(seeds: Seeds) -> tuple[Any, ...]:
        (first, turn), _ = talk(source(seeds, **fields), 0)
        return first.asked_prompt_tokens, str(first.prompt)[:40], turn.think_ns

    plain = seen(Seeds(0, 1, 2, 3))
    for place, seeds in enumerate((Seeds(0, 1, 9, 3), Seeds(0, 9, 2, 3), Seeds(9, 1, 2, 3))):
        assert [a == b for a, b in zip(plain, seen(seeds), strict=True)] == [at != place for at in range(3)]
    assert seen(Seeds(0, 1, 2, 3, 5))[1] != plain[1]  # a salt


# --- tools


def test_an_agent_calls_tools_on_its_way_to_an_answer() -> None:
    """User turn, k results of tools, and the answer to them; k is drawn anew for each of the user's messages."""
    prepared = source(turns=2, tools=TOOLS | {"role": "tool"}, think_time="10s")
    calls = Counter[int]()
    for item in range(100):
        turns = list(talk(prepared, item))
        assert len(turns) == prepared.turns(item)
        roles = "".join(request.role[0] for request, _ in turns)
        match = re.fullmatch(r"u(t{1,3})u(t{1,3})", roles)
        assert match, roles
        calls.update((len(match[1]), len(match[2])))
        for place, (request, following) in enumerate(turns):
            next_ = roles[place + 1 : place + 2]
            assert request.asked_output_tokens == (6 if next_ == "t" else 10)  # an answer that calls is short
            if next_ == "t":
                assert 30 <= len(TOKENIZER.ids(str(following.request.prompt))) <= 40
                assert 0 < following.think_ns < 10 * SECOND  # the tool's time, not the user's
            elif next_:
                assert following.think_ns == 10 * SECOND
    for number in (1, 2, 3):
        assert calls[number] / 200 == pytest.approx(1 / 3, abs=5 * math.sqrt(2 / 9 / 200))


def test_the_results_of_tools_go_into_the_history_as_what_they_are() -> None:
    last = requests(source(turns=1, tools=TOOLS | {"calls": 2, "role": "tool"}), 0)[-1]
    assert [each.role for each in last.history] == ["user", "assistant", "tool", "assistant"]
    assert last.role == "tool"
    as_user = requests(source(turns=1, tools=TOOLS | {"calls": 2}), 0)[-1]
    assert [each.role for each in _said(as_user)] == ["user", "assistant", "user", "assistant", "user"]


def test_tools_may_be_called_after_some_messages_only() -> None:
    prepared = source(turns=1, tools=TOOLS | {"calls": 1, "share": 0.3})
    called = [prepared.turns(item) == 2 for item in range(3000)]
    assert sum(called) / 3000 == pytest.approx(0.3, abs=5 * math.sqrt(0.3 * 0.7 / 3000))


def test_the_time_of_a_tool_follows_its_distribution() -> None:
    prepared = source(turns=1, tools=TOOLS | {"calls": 4})
    times = [turn.think_ns / MS for item in range(500) for _, turn in talk(prepared, item) if turn.think_ns >= 0]
    assert len(times) == 2000
    assert fmean(times) == pytest.approx(300, abs=5 * 300 / math.sqrt(2000))


# --- system messages


@pytest.mark.parametrize("shared", [{"tokens": 35}, {"pool": 3, "overlap": 0.5, "zipf": 1}, {"overlap": 0.01}])
def test_a_system_message_is_a_part_of_the_first_prompt(shared: dict[str, Any]) -> None:
    prepared = source(input_tokens="uniform(60, 120)", system_prompt=shared)
    for item in range(30):
        first, second, _ = requests(prepared, item)
        (system,) = first.history
        assert system.role == "system"
        messages = [("system", system.content), ("user", str(first.prompt))]
        assert chat_tokens(*messages) == first.asked_prompt_tokens == prepared.lengths(item)[0]
        assert second.history[0] == system
        assert second.prefixes == first.prefixes  # another replica may have it from another session


def test_sessions_agree_for_as_long_as_they_say() -> None:
    prepared = source(input_tokens="uniform(80, 120)", system_prompt={"pool": 3, "tokens": "uniform(25, 60)"})
    made = [prepared.request(item) for item in range(30)]
    seen = [TOKENIZER.chat_ids([(each.role, each.content) for each in _said(request)]) for request in made]
    for place, one in enumerate(made):
        for other in range(place):
            same = one.prefixes[0] == made[other].prefixes[0]
            pairs = zip(seen[place], seen[other], strict=False)
            alike = next(at for at, (a, b) in enumerate(pairs) if a != b)
            least = one.prefixes[0][1] if same else 5  # BOS, the frame of a system message, its first word
            assert least <= alike <= least + 2


def test_only_a_share_of_the_sessions_may_have_one() -> None:
    prepared = source(system_prompt={"tokens": 30, "share": 0.5})
    with_one = [bool(prepared.request(item).history) for item in range(1000)]
    assert sum(with_one) / 1000 == pytest.approx(0.5, abs=0.08)


def test_a_warm_up_sends_every_system_message_once() -> None:
    text = workload("system_prompt: {pool: 4, tokens: 30}", run="requests: 40, cache: warm")
    made = plan(parse_workload(text), CHAT)
    warm = list(made.spec.source.repeats(made.source))
    assert len({request.history for request in warm}) == 4
    assert {each.request.history for each in made} <= {request.history for request in warm}
    with pytest.raises(BadInput, match="there is nothing to warm"):
        parse_workload(workload(run="requests: 40, cache: warm"))


class Says(OpenAIAdapter):
    """A server whose every answer to a request of one token is given."""

    def __init__(self, status: int, body: bytes) -> None:
        self.control = SimpleNamespace(ask=lambda request, timeout: self._asked(request, status, body))
        self.asked: list[Any] = []

    def _asked(self, request: HttpRequest, status: int, body: bytes) -> tuple[int, bytes]:
        self.asked.append(json.loads(request.body)["messages"])
        return status, body

    def learnt(self, has_system: bool, monkeypatch: pytest.MonkeyPatch) -> Vocabulary:
        """With lengths that a tokenizer counts, 10 of them a chat's own."""
        monkeypatch.setattr(target, "vocabulary_for", lambda *_: replace(CHAT, system_tokens=None))
        server: Any = SimpleNamespace(adapter=self, control=self.control, model="m", url="http://a", ask=None)
        return target.learn_vocabulary(server, Options(model="m"), None, has_system)


def test_what_a_system_message_costs_is_asked_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = b'data: {"id":"a","choices":[],"usage":{"prompt_tokens":27,"completion_tokens":1}}\n\ndata: [DONE]\n\n'
    server = Says(200, usage)
    assert server.learnt(False, monkeypatch).system_tokens is None
    assert server.asked == []
    assert server.learnt(True, monkeypatch).system_tokens == 27 - CHAT.fixed_tokens
    assert [[each["role"] for each in messages] for messages in server.asked] == [["system", "user"]]


def test_a_server_that_takes_no_system_message_is_told_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TargetUnusable, match="answers 400 to a system message: 'System role not supported'"):
        Says(400, b"System role not supported").learnt(True, monkeypatch)


def test_without_an_answer_a_system_message_is_taken_to_cost_what_a_users_does() -> None:
    fields = PLAIN | {"system_prompt": {"tokens": 40}}
    unasked = replace(CHAT, system_tokens=None)
    prepared = Sessions.model_validate(fields).prepare(Given(SEEDS, unasked, Path()))
    request = prepared.request(0)
    counted = chat_tokens(("system", request.history[0].content), ("user", str(request.prompt)))
    assert counted - (request.asked_prompt_tokens or 0) == (CHAT.system_tokens or 0) - CHAT.fixed_tokens


# --- where a session ends


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("tools", [None, TOOLS])
def test_a_session_ends_before_its_context_is_full(counted: bool, tools: Any) -> None:
    """By the server's counts; by what was asked where it tells none."""
    prepared = source(turns=50, tools=tools, max_context=400)
    assert prepared.most_tokens == 400
    for item in range(20):
        made = requests(prepared, item, counted=counted)
        takes = [
            chat_tokens(*((each.role, each.content) for each in _said(request))) + (request.asked_output_tokens or 0)
            for request in made
        ]
        assert max(takes) <= 400
        # It ends when the next message does not fit any more. Where nobody counts, each turn keeps a template's room.
        unused = 0 if counted else len(made) * CHAT.fixed_tokens
        assert max(takes) + (20 if tools is None else 40) + CHAT.fixed_tokens + 10 + unused > 400
        assert 2 < len(made) < prepared.turns(item)


def test_the_longest_session_is_known_where_all_its_lengths_are() -> None:
    """3 turns: 60 + 10, and twice 20 + 10 and what a template adds, of which the first prompt's is the most."""
    assert source().most_tokens == 60 + 10 + 2 * (20 + 10 + CHAT.fixed_tokens)
    assert source(turns="geometric(3)").most_tokens is None
    assert source(turns="geometric(3)", max_context=500).most_tokens == 500
    loop = 3 * (6 + 40 + CHAT.fixed_tokens)
    assert source(tools=TOOLS).most_tokens == 60 + 10 + loop + 2 * (20 + 10 + loop + CHAT.fixed_tokens)


@pytest.mark.parametrize(
    ("fields", "takes"),
    [
        ({"max_context": 69}, "take 70;"),
        ({"max_context": 300, "input_tokens": "normal(60, 5)"}, "take any number of;"),
        ({"max_context": 70, "tools": TOOLS | {"call_tokens": 11}}, "take 71;"),
    ],
)
def test_a_session_that_may_not_begin_is_refused(fields: dict[str, Any], takes: str) -> None:
    with pytest.raises(BadInput, match=takes):
        source(**fields)
    source(**(fields | {"max_context": 71, "input_tokens": 60}))


def test_a_session_of_token_ids_is_refused() -> None:
    with pytest.raises(BadInput, match=r"prompts.tokens: must be 'text'"):
        parse_workload(workload("tokens: ids"))


def test_every_example_of_the_page_is_a_workload_that_can_be_planned() -> None:
    page = (Path(__file__).parents[1] / "docs" / "sessions.md").read_text(encoding="utf-8")
    examples = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        made = plan(parse_workload(example), CHAT)
        assert made.source.notes == ()
        assert max(made.source.turns(item) for item in range(20)) > 1


# --- whole runs, against the built-in target


def workload(more: str = "", load: str = "concurrency: 4", run: str = "requests: 40") -> str:
    return f"""version: 1
prompts:
  source: sessions
  turns: 4
  input_tokens: uniform(60, 120)
  next_input_tokens: uniform(10, 30)
  output_tokens: uniform(4, 12)
  think_time: exponential(20ms)
  {more}
load: {{{load}}}
run: {{warmup: 0, {run}}}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with launch(SimOptions(max_model_len=8192, enable_prompt_tokens_details=True, speed=4.0)) as one:
        yield one


@pytest.mark.parametrize("load_", ["concurrency: 4", "arrivals: constant, rate: 20"])
@pytest.mark.parametrize(
    "more",
    [
        "",
        "system_prompt: {pool: 2, tokens: 48}",
        "tools: {calls: 1, call_tokens: 5, result_tokens: 20, time: 10ms, role: tool}",
    ],
)
def test_sessions_run_in_both_loops(server: LocalServer, tmp_path: Path, load_: str, more: str) -> None:
    file, out = tmp_path / "w.yaml", tmp_path / "out"
    file.write_text(workload(more, load_, "requests: 40, cache: cold"))
    words = ("run", "--target", "sim", "--url", server.url, "--workload", str(file), "--quiet", *TOLERANT)
    said = bench(*words, "--out", str(out))
    assert said.code == 0, said.err + said.out
    found = run_json(out)
    each = 8 if "tools" in more else 4
    turns = {group["by"]["turn"]: group["metrics"]["ttft"]["n"] for group in found["groups"] if "turn" in group["by"]}
    assert turns == dict.fromkeys(range(each), 40 // each)
    assert (found["summary"]["requests"], found["summary"]["requests_failed"]) == (40, 0)
    assert found["metrics"]["prompt_drift"]["n"] == 40 // each  # of first prompts, which are known before
    assert found["metrics"]["prompt_drift"]["min"] == found["metrics"]["prompt_drift"]["max"] == 0
    assert found["metrics"]["output_drift"]["max"] == 0
    assert check(found, "prefix_cache") == "pass"
    assert found["cache"]["observed_hit_rate"] == pytest.approx(found["cache"]["expected_hit_rate"], abs=0.03)
    records = load(out).records()
    by = {(record.session_id, record.turn): record for record in records}
    for record in records:
        if record.turn:
            before = by[record.session_id, record.turn - 1]
            assert record.intended_ns >= (before.done_ns or 0)
            assert (record.prompt_tokens or 0) > (before.prompt_tokens or 0) + (before.output_tokens or 0)

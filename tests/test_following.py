"""Sessions as they are planned: who is who, what a later turn holds, what a cache would find, and when they end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.adapters.vllm import ADAPTER
from servemark.adapters.vllm_offline import ADAPTER as OFFLINE
from servemark.harness.errors import BadInput
from servemark.harness.load.messages import Job, SessionOver
from servemark.harness.plan.cache_rate import Sent, Sharing, implied
from servemark.harness.plan.encoding import Jobs
from servemark.harness.plan.planning import connections_ahead
from servemark.harness.plan.schedule import Planned, Schedule, resolve_seeds
from servemark.harness.plan.sessions import Sessions
from servemark.harness.plan.sources import Given
from servemark.harness.plan.spec import apply, parse_workload
from servemark.harness.plan.tokens import estimate
from servemark.harness.server.control import Control
from servemark.harness.server.target import Target
from servemark.harness.types import Answer, Message, Options, Record, Request, ServerFacts, Turn
from tests.talking import MS, Talk

VOCABULARY = estimate("chat", "no server")
SECOND = 1_000_000_000
WORKLOAD = """\
version: 1
prompts: {source: synthetic, input_tokens: 40, output_tokens: 5}
load: {arrivals: constant, rate: 10}
run: {duration: 5s, warmup: 2s, seeds: {prompts: 1}}
"""


def schedule(turns: Callable[[int], int] = lambda item: 3, talk: type[Talk] = Talk, **flags: Any) -> Schedule:
    return made_of(turns, talk, {}, flags)


def made_of(turns: Callable[[int], int], talk: type[Talk], fields: dict[str, Any], flags: dict[str, Any]) -> Schedule:
    loaded = apply(parse_workload(WORKLOAD), flags)
    seeds = resolve_seeds(loaded.spec.run.seeds)
    source = talk(Given(seeds, VOCABULARY, loaded.folder), turns, **fields)
    return Schedule(loaded.spec, source, VOCABULARY, seeds)


# --- who is who


@given(st.lists(st.integers(1, 5), min_size=1, max_size=30))
def test_indexes_are_those_of_all_turns_before(numbers: list[int]) -> None:
    made = schedule(lambda item: numbers[item % len(numbers)])
    planned = list(islice(made, 40))
    counts = [numbers[item % len(numbers)] for item in range(40)]
    assert [each.index for each in planned] == [sum(counts[:item]) for item in range(40)]
    assert [each.request.index for each in planned] == [each.index for each in planned]
    assert [each.request.session_id for each in planned] == [
        f"s{item}" if count > 1 else None for item, count in enumerate(counts)
    ]
    assert (made.count, made.index) == (40, sum(counts))


def test_items_of_one_turn_are_requests_as_ever() -> None:
    planned = list(islice(schedule(lambda item: 1), 20))
    assert [(each.index, each.request.session_id, each.turns) for each in planned] == [(i, None, 1) for i in range(20)]


def test_no_session_begins_once_those_that_have_make_the_requests_asked_for() -> None:
    made = schedule(requests=10)
    counted = [each for each in made if each.phase == "measured"]
    assert len(counted) == 4  # 3 + 3 + 3 are too few
    assert made.planned_in_window == 4
    closed = schedule(concurrency=2, requests=10, warmup=4)
    # Sessions 0 and 1 begin at requests 0 and 3, before the fourth; 2 to 5 make 12.
    assert [each.phase for each in closed] == ["warmup"] * 2 + ["measured"] * 4


def test_an_open_loops_arrivals_are_items() -> None:
    planned = list(schedule())
    assert [each.offset_ns for each in planned] == [i * SECOND // 10 for i in range(70)]
    assert [each.phase for each in planned] == ["warmup"] * 20 + ["measured"] * 50


def test_the_number_of_turns_is_part_of_the_hash() -> None:
    hashes = set()
    for turns in (lambda item: 3, lambda item: 4, lambda item: 1):
        made = schedule(turns)
        (_,) = islice(made, 1)
        hashes.add(made.hash_hex)
    assert len(hashes) == 3


def test_connections_stand_ready_for_all_turns() -> None:
    """Two seconds' worth of requests, which ten sessions a second make several of."""
    for turns, ahead in ((lambda item: 1, 20), (lambda item: 4, 80), (lambda item: 1 + 6 * (item % 2), 80)):
        made = schedule(turns)
        assert connections_ahead(made.spec, made.source) == ahead


# --- what follows an answer


def record(of: Request, **fields: Any) -> Record:
    times = {"intended_ns": 0, "sent_ns": 1, "first_token_ns": 2, "first_answer_ns": 2, "done_ns": 1000}
    counts = {"prompt_tokens": 40, "output_tokens": 5}
    known = {"url": "http://a", "worker": 0, "phase": "measured", **times, **counts, **fields}
    return Record(of.index, of.class_, of.session_id, of.turn, **known)


@pytest.fixture
def target() -> Iterator[Target]:
    with Control("http://127.0.0.1:9") as control:
        yield Target(ADAPTER, control.url, (), control, ServerFacts(), "m")


def jobs_of(made: Schedule, target: Target) -> Jobs:
    return Jobs(made, target, Options(model="m"), "run-1")


def body(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(job.payload.partition(b"\r\n\r\n")[2])
    return found


def test_a_conversation_holds_the_servers_real_answers(target: Target) -> None:
    made = schedule(requests=7, warmup=0)
    jobs = jobs_of(made, target)
    first = list(jobs)
    assert [(job.index, job.session_id, job.turn, job.turns, job.more) for job in first] == [
        (3 * item, f"s{item}", 0, 3, True) for item in range(3)
    ]
    second = jobs.follow(record_of(first[1], done_ns=7 * SECOND), "Indeed?")
    assert isinstance(second, Job)
    assert (second.index, second.session_id, second.turn, second.more) == (4, "s1", 1, True)
    assert second.due_ns == 7 * SECOND + 50 * MS
    assert second.offset_ns is None
    assert b"X-Request-Id: run-1-4\r\n" in second.payload
    third = jobs.follow(record_of(second), "No.")
    assert isinstance(third, Job)
    assert (third.index, third.turn, third.more) == (5, 2, False)
    said = body(third)["messages"]
    assert [each["role"] for each in said] == ["user", "assistant", "user", "assistant", "user"]
    assert [each["content"] for each in said if each["role"] == "assistant"] == ["Indeed?", "No."]
    assert said[:1] == body(first[1])["messages"]
    assert said[:3] == body(second)["messages"]
    assert jobs.follow(record_of(third), None) is None  # the last turn: nothing is awaited


def record_of(job: Job, **fields: Any) -> Record:
    return record(Request(job.index, "", None, None, session_id=job.session_id, turn=job.turn), **fields)


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        ({"error": "http_status"}, None),
        ({"error": "gave_up"}, None),
        ({"error": "abandoned", "done_ns": None}, None),
        ({}, None),  # an answer that was too long to be kept
    ],
)
def test_a_turn_without_an_answer_ends_its_session(target: Target, fields: dict[str, Any], answer: str | None) -> None:
    jobs = jobs_of(schedule(requests=7, warmup=0), target)
    first = list(jobs)
    assert jobs.follow(record_of(first[0], **fields), answer) == SessionOver("s0")
    assert jobs.follow(record_of(first[0], **fields), answer) is None
    assert isinstance(jobs.follow(record_of(first[1]), "Yes."), Job)


def test_a_source_may_end_a_session_early(target: Target) -> None:
    made = made_of(lambda item: 9, Talk, {"last": 1}, {"requests": 7, "warmup": 0})
    jobs = jobs_of(made, target)
    (first,) = jobs
    second = jobs.follow(record_of(first), "Yes.")
    assert isinstance(second, Job)
    assert jobs.follow(record_of(second), "Yes.") == SessionOver("s0")


def test_a_single_request_is_followed_by_nothing(target: Target) -> None:
    jobs = jobs_of(schedule(lambda item: 1, requests=2, warmup=0), target)
    for job in jobs:
        assert (job.more, job.turns, job.session_id) == (False, 1, None)
        assert jobs.follow(record_of(job), None) is None


def test_only_live_sessions_are_remembered() -> None:
    made = schedule()
    sessions = Sessions(made.source, made.sharing)
    for planned in islice(made, 60):
        sessions.began(planned)
        newest = planned.request
        while sessions.awaits(record(newest)):
            following = sessions.after(record(newest), "Yes.")
            assert following is not None
            newest = following.planned.request
        assert newest.turn == 2
        assert len(sessions) == 0


class Classy(Talk):
    """A source that gives turns numbers and classes of its own; the session's are taken."""

    def request(self, index: int) -> Request:
        return replace(super().request(index), class_="chat")


def test_a_session_is_of_one_class(target: Target) -> None:
    jobs = jobs_of(schedule(talk=Classy, requests=3, warmup=0), target)
    (first,) = jobs
    second = jobs.follow(record_of(first), "Yes.")
    assert isinstance(second, Job)
    assert (first.class_, second.class_) == ("chat", "chat")


def test_the_hash_names_the_items_that_were_sent(target: Target) -> None:
    """However many turns they had: those hold answers, which no plan has."""
    long, short = schedule(requests=90, warmup=0), schedule(requests=12, warmup=0)
    jobs = jobs_of(long, target)
    list(jobs)
    list(jobs_of(short, target))
    assert jobs.hash_at(4) == (short.hash_hex, 4)


def test_a_batch_has_no_sessions(target: Target) -> None:
    with pytest.raises(BadInput, match="target vllm-offline runs the whole load as one batch, but a session's later"):
        jobs_of(schedule(requests=3), replace(target, adapter=OFFLINE))


# --- what a prefix cache would find


class Spoken:
    """A server's side of conversations, token by token: each text is so many tokens of its own."""

    def __init__(self) -> None:
        self.caches: list[list[str]] = []
        self.found: list[int] = []

    def answer(self, conversation: list[str], name: str, tokens: int) -> list[str]:
        best = 0
        for cached in self.caches:
            same = 0
            for ours, theirs in zip(conversation, cached, strict=False):
                if ours != theirs:
                    break
                same += 1
            best = max(best, same)
        self.found.append(min(best, len(conversation) - 1))
        answered = [f"{name}/{i}" for i in range(tokens)]
        self.caches.append((conversation + answered)[:-1])  # the last token is never computed with
        return answered


@dataclass
class Conversation:
    """What the server has of one, token by token, as the client sends it; `generated` may begin with reasoning."""

    newest: Request
    tokens: list[str]
    prompt: int = 0
    answered: int = 0
    reasoned: int = 0

    def ended(self) -> Record:
        output, reasoning = self.answered + self.reasoned, self.reasoned or None
        return record(self.newest, prompt_tokens=self.prompt, output_tokens=output, reasoning_tokens=reasoning)

    def remembered(self) -> list[str]:
        """Reasoning is not sent again, so the answer comes to stand elsewhere, computed anew."""
        if not self.reasoned:
            return self.tokens
        return self.tokens[: self.prompt] + [f"again {token}" for token in self.tokens[self.prompt + self.reasoned :]]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(2, 9), st.integers(1, 9), st.integers(0, 2)), max_size=24))
def test_the_implied_rate_of_conversations_is_that_of_comparing_token_by_token(
    steps: list[tuple[int, int, int, int]],
) -> None:
    """Sessions take turns in any order; some answers are reasoned."""
    sharing, server = Sharing(), Spoken()
    sessions = Sessions(Growing(), sharing)
    sent: list[tuple[int, int]] = []
    live: dict[int, Conversation] = {}
    for number, words, answered, reasoned in steps:
        if number not in live:
            first = Request(100 * number, f"{number}:0", None, None, session_id=f"s{number}")
            sharing.note(f"prompt {number}".encode(), index=first.index)
            sessions.began(Planned(first.index, None, first, None, number, 99))
            talk = live[number] = Conversation(first, [])
        else:
            talk = live[number]
            following = sessions.after(talk.ended(), f"answer {talk.newest.turn}")
            assert following is not None
            talk.newest, talk.tokens = following.planned.request, talk.remembered()
        name = f"{number}:{talk.newest.turn}"
        talk.tokens += [f"{name}/{i}" for i in range(words)]
        talk.prompt, talk.answered, talk.reasoned = len(talk.tokens), answered, reasoned
        sent.append((talk.newest.index, talk.prompt))
        talk.tokens = talk.tokens + server.answer(talk.tokens, f"a{name}", answered + reasoned)
    got = implied((Sent("http://a", tokens, sharing.of(index)) for index, tokens in sent), sharing.held)
    assert got.ideal == sum(server.found)


class Growing(Talk):
    def __init__(self) -> None:
        pass

    def next_turn(self, index: int, before: Request, answer: Answer) -> Turn:
        history = (*before.history, Message("user", str(before.prompt)), Message("assistant", answer.text))
        return Turn(Request(0, f"{index}:{before.turn + 1}", None, None, history=history))


def test_a_turn_that_does_not_go_on_from_the_last_one_promises_nothing() -> None:
    """A source may cut old messages; how many tokens are left of the beginning nobody knows."""

    class Forgetful(Growing):
        def next_turn(self, index: int, before: Request, answer: Answer) -> Turn:
            return Turn(replace(super().next_turn(index, before, answer).request, history=()))

    for source, found in ((Growing(), 40 + 5 - 1), (Forgetful(), 0)):
        sharing = Sharing()
        sessions = Sessions(source, sharing)
        first = Request(0, "0:0", None, None, session_id="s0")
        sharing.note(b"first prompt", index=0)
        sessions.began(Planned(0, None, first, None, 0, 99))
        assert sessions.after(record(first), "Yes.") is not None
        sent = [Sent("http://a", tokens, sharing.of(index)) for index, tokens in ((0, 40), (1, 90))]
        assert implied(sent, sharing.held).ideal == found


def test_turns_of_one_conversation_at_two_replicas_find_nothing() -> None:
    sharing = Sharing()
    sharing.note(b"first prompt", index=0)
    sharing.note_turn(1, 0, 44, b"then this")
    sent = [Sent(url, 90, sharing.of(index)) for index, url in enumerate(("http://a", "http://b"))]
    assert implied(sent, sharing.held).ideal == 0


def test_a_turn_that_comes_back_to_a_replica_finds_what_an_earlier_one_left_there() -> None:
    """Over two replicas by turns: each turn finds what the one before the last has left of it."""
    sharing = Sharing()
    sharing.note(b"first prompt", index=0)
    for index, kept in ((1, 30), (2, 50), (3, 80), (4, 120)):
        sharing.note_turn(index, index - 1, kept, b"turn %d" % index)
    urls = ("http://a", "http://b", "http://a", "http://b", "http://a")
    sent = [Sent(url, 200, sharing.of(index)) for index, url in enumerate(urls)]
    assert implied(sent, sharing.held).ideal == 0 + 0 + 30 + 50 + 80
    assert implied([Sent("http://a", each.tokens, each.prefixes) for each in sent], sharing.held).ideal == 280


@given(st.permutations(range(8)))
def test_requests_may_be_noted_in_any_order(order: list[int]) -> None:
    in_order, in_another = Sharing(3), Sharing(3)
    for index in range(8):
        in_order.note(bytes([index]) * 8, (("pool", index),) * (index % 3), index)
    for index in order:
        in_another.note(bytes([index]) * 8, (("pool", index),) * (index % 3), index)
    assert [in_order.of(index) for index in range(9)] == [in_another.of(index) for index in range(9)]

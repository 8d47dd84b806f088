"""The prefix cache of a run: cold or warm as asked, and the hit rate that its prompts imply beside the observed one."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.adapters.sim.launch import LocalServer, launch
from servemark.adapters.sim.options import SimOptions
from servemark.harness.errors import BadInput
from servemark.harness.plan.cache_rate import WHOLE, Prefixes, Sent, Sharing, content_of, implied, usable
from servemark.harness.plan.cache_salt import SALT_PIECES, salt_text, salted
from servemark.harness.plan.schedule import Schedule, plan, resolve_seeds
from servemark.harness.plan.sources import Given, PromptMaker, Seeds
from servemark.harness.plan.spec import apply, parse_workload
from servemark.harness.plan.tokens import estimate, learn
from servemark.harness.plan.vocabulary import Composer
from servemark.harness.server.caching import CacheState, Reset, ServerCache, WarmUp, judged, made_cold, server_cache
from servemark.harness.server.control import Control
from servemark.harness.server.target import Replica
from servemark.harness.types import HttpRequest, Record
from servemark.harness.verdict.hits import hit_rate
from servemark.harness.verdict.validity import Check
from servemark.results.recover import load
from tests.answering import Asked, answering
from tests.commands import TOLERANT, Said, bench, check, run_json, started, told, wait_until
from tests.frames import answer, frame
from tests.test_validity import check as judged_by
from tests.test_validity import readings, sound

# --- the arithmetic, against token lists compared one by one


@st.composite
def runs(draw: st.DrawFn) -> tuple[int, int, list[tuple[str, list[str], Prefixes]], list[tuple[str, int]]]:
    """Template tokens, block size, the different prompts as tokens and as prefixes, and (address, which) in order.

    A prompt is the template, some of a document (or none), some of a conversation over all of that document (or none),
    and words of its own. No two of these parts have a token in common.
    """
    template, size = draw(st.integers(0, 5)), draw(st.integers(1, 30))
    document, talk, own = (draw(st.integers(1, 12)) for _ in range(3))
    prompts = []
    for index in range(draw(st.integers(1, 6))):
        which, who = draw(st.integers(0, 1)), draw(st.integers(0, 1))
        read = draw(st.integers(0, document))
        heard = draw(st.integers(0, talk)) if read == document else 0
        tokens = [f"t{i}" for i in range(template)] + [f"d{which}.{i}" for i in range(read)]
        declared: Prefixes = ((f"d{which}", len(tokens)),) if read else ()
        if heard:
            tokens += [f"c{which}.{who}.{i}" for i in range(heard)]
            declared += ((f"c{which}.{who}", len(tokens)),)
        tokens += [f"o{index}.{i}" for i in range(draw(st.integers(1, own)))]
        prompts.append((f"p{index}", tokens, declared))
    order = st.tuples(st.sampled_from(("http://a", "http://b")), st.integers(0, len(prompts) - 1))
    return template, size, prompts, draw(st.lists(order, min_size=1, max_size=20))


def longest_seen(tokens: Sequence[str], earlier: Sequence[Sequence[str]]) -> int:
    """Token by token, with every earlier prompt."""
    best = 0
    for other in earlier:
        same = 0
        while same < min(len(tokens), len(other)) and tokens[same] == other[same]:
            same += 1
        best = max(best, same)
    return best


@given(runs(), st.integers(0, 4), st.data())
def test_the_implied_rate_is_that_of_comparing_token_by_token(
    run: tuple[int, int, list[tuple[str, list[str], Prefixes]], list[tuple[str, int]]], warm: int, data: st.DataObject
) -> None:
    template, block, prompts, order = run
    counts = [data.draw(st.booleans()) for _ in order]
    sharing = Sharing(template)
    caches: dict[str, list[list[str]]] = {url: [[f"t{i}" for i in range(template)]] for url in ("http://a", "http://b")}
    for name, tokens, declared in islice(prompts, warm):  # a warm-up, to one of the addresses only
        sharing.note_warmed("http://a", content_of(name), declared)
        caches["http://a"].append(tokens)
    sent, tokens_in_all, ideal, in_blocks = [], 0, 0, 0
    for place, ((url, which), counted) in enumerate(zip(order, counts, strict=True)):
        name, tokens, declared = prompts[which]
        sharing.note(content_of(name), declared)
        sent.append(Sent(url, len(tokens), sharing.of(place), counted))
        if counted:
            found = min(longest_seen(tokens, caches[url]), len(tokens) - 1)
            tokens_in_all, ideal, in_blocks = (
                tokens_in_all + len(tokens),
                ideal + found,
                in_blocks + found // block * block,
            )
        caches[url].append(tokens)
    got = implied(sent, sharing.held, block)
    assert (got.tokens, got.ideal, got.in_blocks) == (tokens_in_all, ideal, in_blocks)


@pytest.mark.parametrize(
    ("found", "tokens", "block", "spared"),
    [
        (0, 100, 1, 0),
        (100, 100, 1, 99),  # the last token is computed always
        (64, 100, 16, 64),
        (63, 100, 16, 48),
        (64, 64, 16, 48),  # so that a prompt of whole blocks misses its last one
        (15, 100, 16, 0),
        (1, 1, 1, 0),
    ],
)
def test_what_is_found_and_what_it_spares(found: int, tokens: int, block: int, spared: int) -> None:
    assert usable(found, tokens, block) == spared


def test_a_run_of_nothing_has_no_rate() -> None:
    assert implied([], Sharing().held).rate(0) is None


def test_prompts_of_which_nothing_is_known_are_like_no_others() -> None:
    sharing = Sharing(3)
    assert sharing.of(7) != sharing.of(8)
    got = implied([Sent("http://a", 100, sharing.of(index)) for index in (7, 8)], sharing.held)
    assert got.rate(got.ideal) == 6 / 200  # the template


# --- what is planned


REPEATING = """\
version: 1
prompts: {source: synthetic, input_tokens: "uniform(60, 90)", output_tokens: 4, distinct: 3}
load: {concurrency: 2}
run: {requests: 12, warmup: 0, seeds: {prompts: 1}}
"""
VOCABULARY = estimate("chat", "no server")


def schedule(text: str = REPEATING, salt: bool = False, **flags: Any) -> Schedule:
    return plan(apply(parse_workload(text), flags), VOCABULARY, salt)


def test_repeats_are_found_in_what_was_planned() -> None:
    made = schedule()
    planned = list(made)
    assert [made.sharing.of(i) == made.sharing.of(i % 3) for i in range(12)] == [True] * 12
    assert len({made.sharing.of(i) for i in range(12)}) == 3
    assert made.sharing.of(0)[-1] == (
        ("content", int.from_bytes(content_of(planned[0].request.prompt)[:8], "little")),
        WHOLE,
    )


def test_a_warm_up_sends_each_repeated_prompt_once() -> None:
    made = schedule()
    prompts = [item.request.prompt for item in made]
    repeats = list(made.spec.prompts.repeats(made.source))
    assert [request.prompt for request in repeats] == prompts[:3]
    assert list(schedule(REPEATING.replace(", distinct: 3", "")).spec.prompts.repeats(made.source)) == []


# --- the salt


def test_a_salt_changes_every_prompt_and_neither_lengths_nor_repeats() -> None:
    plain, other = list(schedule()), list(schedule(salt=True))
    assert [a.request.asked_prompt_tokens for a in plain] == [b.request.asked_prompt_tokens for b in other]
    assert not {a.request.prompt for a in plain} & {b.request.prompt for b in other}
    assert [b.request.prompt for b in other] == [other[i % 3].request.prompt for i in range(12)]


def test_a_salted_run_is_repeated_by_giving_its_salt() -> None:
    first = schedule(salt=True)
    requests, salt = list(first), first.seeds.salt
    assert salt is not None
    again = schedule(REPEATING.replace("prompts: 1", f"prompts: 1, salt: {salt}"))
    assert list(again) == requests
    assert again.hash_hex == first.hash_hex != schedule(salt=True).hash_hex
    assert resolve_seeds(again.spec.run.seeds, salt=True).salt == salt  # the given one goes before a drawn one


def test_no_salt_is_the_seed_itself() -> None:
    assert (salted(5, None), Seeds(0, 5, 0, 0).salt) == (5, None)
    assert len({salted(seed, salt) for seed in range(20) for salt in range(20)}) == 400


def word_tokens(text: str) -> list[int]:
    """A tokenizer of words with the blank before them, two tokens for those of more than six letters."""
    ids: list[int] = []
    for word in text.split():
        ids += [hash(word) % 50_000] * (1 + (len(word) > 6))
    return ids


def test_a_text_that_is_not_made_up_gets_the_salt_in_front_and_counted() -> None:
    vocabulary = learn(word_tokens, word_tokens, "server")
    text = "Once upon a midnight dreary"
    for salt in (1, 2, 2**63 - 1):
        seeds = Seeds(0, 1, 2, 3, salt)
        request = PromptMaker(Given(seeds, vocabulary, Path()), "text").of_text(9, text, len(word_tokens(text)), 4)
        assert isinstance(request.prompt, str)
        assert request.prompt.endswith(f" {text}")
        assert request.asked_prompt_tokens == len(word_tokens(request.prompt))
        assert (request.index, request.asked_output_tokens) == (9, 4)
        assert len(salt_text(vocabulary, salt)[0].split()) == 1 + SALT_PIECES
    assert len({salt_text(vocabulary, salt)[0] for salt in range(200)}) == 200
    plain = PromptMaker(Given(replace(seeds, salt=None), vocabulary, Path()), "text").of_text(9, text, 5, 4)
    assert (plain.prompt, plain.asked_prompt_tokens) == (text, 5)


def test_salted_prompts_differ_from_their_first_words_on() -> None:
    """So that they share no block of a cache with those of another salt."""
    composer = Composer(VOCABULARY)
    starts = {" ".join(composer.text(salted(1, salt), 0, 100).split()[:6]) for salt in range(300)}
    assert len(starts) == 300


# --- what is asked for


@pytest.mark.parametrize(
    ("text", "flags", "sentence"),
    [
        (
            REPEATING.replace(", distinct: 3", ""),
            {"cache": "warm"},
            "--cache: there is nothing to warm: every prompt of",
        ),
        (
            REPEATING.replace(", distinct: 3", "").replace("warmup: 0", "warmup: 0, cache: warm"),
            {},
            r":4: run\.cache: there",
        ),
        (REPEATING, {"cache": "hot"}, "--cache: must be 'cold', 'warm' or 'as_is', not 'hot'"),
    ],
)
def test_a_protocol_that_makes_no_sense_is_refused(text: str, flags: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        apply(parse_workload(text), flags)


def test_the_cache_is_left_as_it_is_unless_something_is_said() -> None:
    assert parse_workload(REPEATING).spec.run.cache == "as_is"
    assert apply(parse_workload(REPEATING), {"cache": "warm"}).spec.run.cache == "warm"


# --- emptying a server's cache


@pytest.mark.parametrize(
    ("status", "body", "done", "busy"),
    [
        (200, b"", True, False),  # vLLM before it told
        (200, b'{"success":true}', True, False),
        (200, b'{"success":false}', False, True),  # vLLM while it holds requests
        (200, b"Cache flushed.\nPlease check backend logs for more details.", True, False),  # SGLang
        (400, b"Cache flushed.\nPlease check backend logs for more details.", False, True),  # SGLang while busy
        (409, b"", False, True),
        (404, b'{"detail":"Not Found"}', False, False),  # vLLM outside its development mode
        (401, b"", False, False),
        (500, b"", False, False),
        (200, b"[" * 100_000, True, False),
    ],
)
def test_what_servers_answer_when_they_are_asked_to_empty_it(status: int, body: bytes, done: bool, busy: bool) -> None:
    assert judged(status, body) == (done, busy)


RESET = HttpRequest("POST", "/reset_prefix_cache")


def emptied(urls: Sequence[str], reset: HttpRequest | None = RESET, patience_s: float = 10.0) -> CacheState:
    """By a target of these addresses."""
    controls = [Control(url) for url in urls]
    replicas = [Replica(control.url, control, SimpleNamespace(settings={})) for control in controls]  # type: ignore[arg-type]
    target: Any = SimpleNamespace(
        adapter=SimpleNamespace(cache_reset=reset),
        replicas=replicas,
        facts=SimpleNamespace(settings={"block_size": "16"}),
    )
    try:
        return made_cold(target, patience_s)
    finally:
        for control in controls:
            control.close()


def test_a_busy_server_is_asked_again() -> None:
    answers = iter([(200, b'{"success":false}'), (400, b"busy"), (200, b'{"success":true}')])
    asked: list[Asked] = []

    def answer_(request: Asked) -> tuple[int, bytes]:
        asked.append(request)
        return next(answers)

    with answering(answer_) as url:
        state = emptied([url])
    assert [(one.method, one.path) for one in asked] == [("POST", "/reset_prefix_cache")] * 3
    assert state.resets == (Reset(url, "POST /reset_prefix_cache", 200, '{"success":true}', True, 3),)
    assert (state.protocol, state.how, state.server.block_tokens) == ("cold", "emptied", 16)
    assert state.said == "cold: emptied by POST /reset_prefix_cache"


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (404, b'{"detail":"Not Found"}', "answers 404 to POST /reset_prefix_cache"),
        (200, b'{"success":false}', 'answers 200 to POST /reset_prefix_cache and did nothing: {"success":false}'),
    ],
)
def test_prompts_are_salted_where_one_of_the_servers_will_not(status: int, body: bytes, said: str) -> None:
    with answering(lambda _: (200, b"")) as willing, answering(lambda _: (status, body)) as refusing:
        state = emptied([willing, refusing], patience_s=0.0)
    assert state.how == "salted"
    assert [reset.done for reset in state.resets] == [True, False]
    assert state.said == f"cold: prompts are salted, since the server {said}"


def test_prompts_are_salted_where_nobody_can_be_asked_or_nobody_answers() -> None:
    state = emptied(["http://127.0.0.1:9"], reset=None)
    assert (state.how, state.resets) == ("salted", ())
    assert state.said == "cold: prompts are salted, since this kind of server cannot be asked to empty it"
    state = emptied(["http://127.0.0.1:9"])
    assert (state.how, state.resets[0].status, state.resets[0].done) == ("salted", None, False)
    assert "the server refuses connections" in state.said


@pytest.mark.parametrize(
    ("settings", "known"),
    [
        ({}, ServerCache()),
        (
            {"block_size": "16", "enable_prefix_caching": "True", "kv_cache_size_tokens": "1048576"},
            ServerCache(16, True, 1_048_576),
        ),
        ({"block_size": "None", "enable_prefix_caching": "False"}, ServerCache(None, False, None)),
        ({"page_size": 1, "disable_radix_cache": True}, ServerCache(1, False, None)),
        ({"block_size": "9" * 5000, "page_size": -1}, ServerCache()),
        (
            {"page_size": 64, "disable_radix_cache": False, "max_total_num_tokens": 20_000},
            ServerCache(64, True, 20_000),
        ),
    ],
)
def test_what_settings_tell_of_the_cache(settings: dict[str, Any], known: ServerCache) -> None:
    assert server_cache(settings) == known


# --- observed beside implied


def shared_by(records: Sequence[Record], distinct: int) -> Sharing:
    """As if the prompts of these requests had been so many in turn."""
    sharing = Sharing()
    for record in records:
        sharing.note(content_of(f"prompt {record.request_id % distinct}"))
    return sharing


def test_by_the_responses_the_measured_requests_count() -> None:
    """Of ten prompts of 100 tokens, four different ones, the first five are warm-up; the other five are all repeats."""
    records = [
        answer(i, i * 100.0, phase="warmup" if i < 5 else "measured", cached_tokens=96 if i >= 4 else 0)
        for i in range(10)
    ]
    found = hit_rate(frame(*records), (), shared_by(records, 4), block=16)
    assert (found.observed, found.source) == (0.96, "responses")
    assert (found.expected, found.ideal) == (0.96, 0.99)


def test_by_the_servers_counters_all_requests_count() -> None:
    """Six of the ten are repeats."""
    records = [answer(i, i * 100.0, phase="warmup" if i < 5 else "measured") for i in range(10)]
    server = readings(4, prompt_tokens=lambda i: 1e6 + 250.0 * i, prompt_tokens_cached=lambda i: 1e3 + 150.0 * i)
    found = hit_rate(frame(*records), server, shared_by(records, 4))
    assert (found.observed, found.source) == (0.6, "counters")
    assert found.expected == pytest.approx(6 * 99 / 1000)


def test_where_nobody_tells_there_is_still_what_the_workload_implies() -> None:
    records = [answer(i, i * 100.0) for i in range(4)]
    found = hit_rate(frame(*records), (), shared_by(records, 2))
    assert (found.observed, found.source, found.ideal) == (None, None, 2 * 99 / 400)


def test_what_was_never_sent_leaves_nothing_behind() -> None:
    records = [answer(0, 0.0), answer(1, 100.0)]
    unsent = [replace(records[0], sent_ns=None, error="connect"), records[1]]
    assert hit_rate(frame(*records), (), shared_by(records, 1)).ideal == 99 / 200
    assert hit_rate(frame(*unsent), (), shared_by(records, 1)).ideal == 0


# --- the verdict


COLD = CacheState("cold", "emptied", (Reset("u", "POST /r", 200, "", True),))
WARM = CacheState("warm", "warmed", warm_up=WarmUp(10, 1000, 10, 0, 0.5), server=ServerCache(16, True, 10_000))


def verdict(cached: int, distinct: int | None, cache: CacheState) -> Check:
    """Of 150 requests with prompts of 100 tokens, 30 of them warm-up, each with so many tokens from the cache."""
    records = [replace(record, prompt_tokens=100, cached_tokens=cached) for record in sound()]
    sharing = shared_by(records, distinct or len(records))
    if cache.protocol == "warm":
        for index in range(distinct or 0):
            sharing.note_warmed("http://a", content_of(f"prompt {index}"))
    return judged_by("prefix_cache", records, sharing=sharing, cache=cache, prompts_unique=distinct is None)


@pytest.mark.parametrize(
    ("cached", "distinct", "cache", "severity"),
    [
        (0, None, COLD, "pass"),
        (16, None, COLD, "invalid"),
        (16, None, CacheState(), "invalid"),
        (96, 10, COLD, "pass"),  # repeats are the workload's own
        (96, 10, CacheState(), "pass"),
        (96, 60, COLD, "invalid"),  # 30 of the 120 measured prompts came for the first time, and were hit
        (96, 60, CacheState(), "warning"),  # nobody asked for another state of the cache
        (0, 10, COLD, "pass"),  # a server need not cache
        (96, 10, WARM, "pass"),
        (90, 10, WARM, "pass"),
        (80, 10, WARM, "warning"),
        (0, 10, WARM, "warning"),
    ],
)
def test_hits_are_held_against_what_the_workload_implies(
    cached: int, distinct: int | None, cache: CacheState, severity: str
) -> None:
    found = verdict(cached, distinct, cache)
    assert (found.severity, found.value) == (severity, cached / 100)


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"server": ServerCache(16, False)}, "runs without prefix caching"),
        (
            {"warm_up": WarmUp(10, 1000, 10, 4, 0.5, "http_status: 503")},
            "4 of 10 requests of the warm-up failed: http_status",
        ),
        ({"server": ServerCache(16, True, 640)}, "take 1000 tokens and the KV memory holds 640"),
        ({}, "See that the server caches prefixes"),
    ],
)
def test_a_warm_run_that_was_not_warm_says_why(changes: dict[str, Any], remedy: str) -> None:
    assert remedy in verdict(0, 10, replace(WARM, **changes)).remedy


# --- whole runs, against the built-in target


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with launch(SimOptions(max_model_len=8192)) as one:
        yield one


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


ONE_BY_ONE = ("--concurrency", "1", "--output-tokens", "2", "--warmup", "0", "--requests", "12", "--quiet", *TOLERANT)


def workload(tokens: int, distinct: int | None = None) -> str:
    repeats = "" if distinct is None else f", distinct: {distinct}"
    Path("w.yaml").write_text(
        f"version: 1\nprompts: {{source: synthetic, input_tokens: {tokens}, output_tokens: 2{repeats}}}\n"
        "load: {concurrency: 1}\n"
    )
    return "w.yaml"


def run(
    server: LocalServer, name: str, *words: str, target: str = "sim", seed: str = "5"
) -> tuple[Said, dict[str, Any]]:
    said = bench(
        "run",
        "--target",
        target,
        "--url",
        server.url,
        "--workload",
        "w.yaml",
        *ONE_BY_ONE,
        "--seed",
        seed,
        "--out",
        name,
        *words,
    )
    return said, run_json(Path(name))


def test_the_same_prompts_again_are_measured_cold_by_emptying_the_cache(server: LocalServer) -> None:
    workload(480)
    codes, hashes = [], set()
    for name, words in (("a", ()), ("b", ()), ("c", ("--cache", "cold"))):
        said, found = run(server, name, *words)
        codes.append((said.code, check(found, "prefix_cache")))
        hashes.add(found["schedule"]["hash"])
    assert codes == [(0, "pass"), (4, "invalid"), (0, "pass")]
    assert len(hashes) == 1
    assert found["cache"]["how"] == "emptied"
    assert found["cache"]["resets"][0]["status"] == 200
    assert found["cache"]["observed_hit_rate"] == found["cache"]["expected_hit_rate"] == 0


def test_a_server_that_cannot_be_asked_gets_salted_prompts(server: LocalServer) -> None:
    """Through its OpenAI endpoint nothing is known of how to empty it; the salt that was drawn repeats the run."""
    workload(480, distinct=4)
    words = ("--metrics-url", server.url)
    run(server, "a", *words, target="openai", seed="6")
    _, found = run(server, "b", *words, "--cache", "cold", target="openai", seed="6")
    assert check(found, "prefix_cache") == "pass"
    assert (found["cache"]["protocol"], found["cache"]["how"], found["cache"]["resets"]) == ("cold", "salted", [])
    seeds = found["schedule"]["seeds"]
    Path("w.yaml").write_text(Path("w.yaml").read_text() + f"run: {{seeds: {{salt: {seeds['salt']}}}}}\n")
    _, again = run(server, "c", target="openai", seed="6")
    assert again["schedule"]["hash"] == found["schedule"]["hash"]
    assert {record.prompt_tokens for record in load(Path("c")).records()} == {480}


def test_hits_are_those_that_a_cold_and_a_warm_cache_imply(server: LocalServer) -> None:
    """12 prompts of 4,000 tokens, 4 of them different: of 250 blocks all but the one with the last token are found."""
    workload(4000, distinct=4)
    found = {}
    for name in ("cold", "warm"):
        said, found[name] = run(server, name, "--cache", name)
        assert said.code == 0, said.err
        assert found[name]["cache"]["source"] == "counters"
    repeat = 249 * 16 / 4000
    for name, share in (("cold", repeat * 8 / 12), ("warm", repeat)):
        cache = found[name]["cache"]
        assert cache["expected_hit_rate"] == pytest.approx(share)
        assert cache["observed_hit_rate"] == pytest.approx(share)
    warm_up = found["warm"]["cache"]["warm_up"]
    assert (warm_up["prompts"], warm_up["requests"], warm_up["failed"], warm_up["prompt_tokens"]) == (4, 4, 0, 16_000)
    assert found["warm"]["schedule"]["hash"] == found["cold"]["schedule"]["hash"]
    assert found["warm"]["summary"]["requests"] == 12  # nothing of the warm-up is in the result
    assert found["warm"]["metrics"]["ttft"]["mean"] < found["cold"]["metrics"]["ttft"]["mean"]


def test_the_summary_says_what_was_done_and_what_came_of_it(server: LocalServer) -> None:
    workload(480, distinct=4)
    run(server, "w", "--cache", "warm", seed="7")
    told_ = bench("show", "w").out
    assert "warm: 4 requests were sent before the load" in told_
    assert "96.7 % by the server's counters; the workload implies 96.7 %" in told_


def test_each_of_several_servers_is_emptied_and_warmed(server: LocalServer) -> None:
    workload(480, distinct=4)
    with launch(SimOptions(max_model_len=8192)) as other:
        _, found = run(server, "w", "--cache", "warm", "--url", other.url, seed="8")
        assert (found["cache"]["warm_up"]["prompts"], found["cache"]["warm_up"]["requests"]) == (4, 8)
        assert (
            found["cache"]["observed_hit_rate"] == found["cache"]["expected_hit_rate"] == pytest.approx(29 * 16 / 480)
        )
        _, found = run(server, "c", "--cache", "cold", "--url", other.url, seed="8")
        assert [reset["url"] for reset in found["cache"]["resets"]] == [server.url, other.url]
        # Taken in turn, each server gets each of its prompts for the first time once.
        assert found["cache"]["observed_hit_rate"] == found["cache"]["expected_hit_rate"]


def test_a_warm_up_that_nobody_answers_ends_the_command() -> None:
    workload(480, distinct=4)
    with launch(SimOptions(fault="http500:1", max_model_len=8192)) as broken:
        words = ("--target", "sim", "--url", broken.url, "--workload", "w.yaml", *ONE_BY_ONE, "--cache", "warm")
        said = bench("run", *words, "--out", "w")
    assert said.code == 3
    assert f"{broken.url} answered no request of the warm-up (http_status: " in said.err
    assert not Path("w").exists()


def test_a_warm_up_can_be_stopped() -> None:
    workload(480, distinct=10_000)
    with launch(SimOptions(speed=0.05, max_model_len=8192)) as slow:
        words = ("--target", "sim", "--url", slow.url, "--workload", "w.yaml", *ONE_BY_ONE, "--cache", "warm")
        with started("run", *words, "--out", "w") as process:
            wait_until(lambda: told(slow.url, "running") >= 1, "the warm-up has begun")
            process.signal(signal.SIGINT)
            said = process.end()
    assert (said.code, said.err.strip()) == (2, "bench: interrupted; nothing was measured")
    assert not Path("w").exists()


def test_a_check_touches_no_cache(server: LocalServer) -> None:
    workload(480, distinct=4)
    run(server, "w", "--cache", "warm", seed="9")
    for protocol, says in (("cold", "cold: POST /reset_prefix_cache before the load"), ("warm", "warm: each prompt")):
        assert (
            says
            in bench("check", "--target", "sim", "--url", server.url, "--workload", "w.yaml", "--cache", protocol).out
        )
    _, found = run(server, "again", seed="9")
    assert found["cache"]["observed_hit_rate"] == pytest.approx(29 * 16 / 480)

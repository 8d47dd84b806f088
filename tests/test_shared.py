"""Shared beginnings: who begins with which, how far prompts agree, and what a cache is expected to find of them."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servemark.adapters.sim.launch import LocalServer, launch
from servemark.adapters.sim.options import SimOptions
from servemark.adapters.sim.tokenizer import Tokenizer
from servemark.dashboards.terminal import summary_text
from servemark.harness.errors import BadInput
from servemark.harness.figures.groups import by_cache, groups
from servemark.harness.plan.cache_rate import Sent, implied
from servemark.harness.plan.schedule import Schedule, plan
from servemark.harness.plan.shared import MOST_MEMBERS, OWN_TOKENS, Popularity
from servemark.harness.plan.sources import Given, Seeds
from servemark.harness.plan.spec import parse_workload
from servemark.harness.plan.tokens import learn
from servemark.harness.types import Request
from servemark.workloads.synthetic import Synthetic
from tests.commands import TOLERANT, bench, check, run_json
from tests.frames import answer, failed, frame

TOKENIZER = Tokenizer(128_000)
CHAT = learn(TOKENIZER.ids, lambda text: TOKENIZER.chat_ids([("user", text)]), "server")
"""The built-in target's own, of one token a word; a chat has 4 tokens before a text and 4 behind it."""

SEEDS = Seeds(0, 1, 2, 3)
SHARED = {"pool": 5, "overlap": 0.6}


def source(shared: dict[str, Any], input_tokens: Any = 100, seeds: Seeds = SEEDS, **more: Any) -> Any:
    fields = {"input_tokens": input_tokens, "output_tokens": 4, "shared_prefix": shared, **more}
    return Synthetic.model_validate(fields).prepare(Given(seeds, CHAT, Path()))


def requests(prepared: Any, count: int) -> list[Request]:
    return [prepared.request(index) for index in range(count)]


def ids(request: Request) -> Sequence[int]:
    """As the server sees the prompt."""
    if isinstance(request.prompt, tuple):
        return request.prompt
    return TOKENIZER.chat_ids([("user", request.prompt)])


def alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens, from the first one on, are the same."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


# --- popularity


@given(st.integers(1, 60), st.sampled_from([0, 0.5, 1, 1.2, 2, 7.5, 20]))
def test_members_come_as_often_as_zipfs_law_says(size: int, exponent: float) -> None:
    """Of a fine grid of quantiles each takes its share of the law, to one point of the grid at either end."""
    grid = 20_000
    popularity = Popularity(size, exponent)
    drawn = Counter(popularity.draw((place + 0.5) / grid) for place in range(grid))
    weights = [Fraction(1) / Fraction(math.pow(rank, exponent)) for rank in range(1, size + 1)]
    for member, weight in enumerate(weights):
        assert abs(drawn[member] / grid - float(weight / sum(weights))) <= 1 / grid


def test_the_law_holds_for_what_prompts_draw() -> None:
    """20,000 prompts over 4 beginnings by 1/k: 12/25, 6/25, 4/25 and 3/25 of them, to five standard deviations."""
    prepared = source({"pool": 4, "overlap": 0.5, "zipf": 1})
    drawn = Counter(prepared._pool.of(index, 100).member for index in range(20_000))
    for member, share in enumerate((12 / 25, 6 / 25, 4 / 25, 3 / 25)):
        assert drawn[member] / 20_000 == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / 20_000))


@pytest.mark.parametrize("exponent", [0, 1e-9, 1, 20])
@pytest.mark.parametrize("size", [1, 7, MOST_MEMBERS])
def test_no_quantile_leads_out_of_the_pool(size: int, exponent: float) -> None:
    popularity = Popularity(size, exponent)
    assert popularity.draw(5e-324) == 0
    assert 0 <= popularity.draw(1.0) < size  # what is just below 1 is rounded to it


# --- prompts


def test_a_shared_beginning_is_a_part_of_the_prompts_length() -> None:
    for request in requests(source(SHARED, "uniform(60, 200)"), 50):
        assert len(ids(request)) == request.asked_prompt_tokens
        assert request.prefixes[0][1] == round(0.6 * len(ids(request)))


@pytest.mark.parametrize("tokens", ["text", "ids"])
@pytest.mark.parametrize("shared", [{"pool": 4, "overlap": 0.6, "zipf": 1}, {"pool": 4, "tokens": "uniform(30, 70)"}])
def test_prompts_agree_for_as_long_as_they_say_and_no_longer(shared: dict[str, Any], tokens: str) -> None:
    made = requests(source(shared, "uniform(90, 150)", tokens=tokens), 40)
    template = 0 if tokens == "ids" else CHAT.shared_prefix_tokens
    for place, one in enumerate(made):
        for other in made[:place]:
            (name, mine), (named, theirs) = one.prefixes[0], other.prefixes[0]
            least = min(mine, theirs) if name == named else template
            # The next word may be the same by chance.
            assert least <= alike(ids(one), ids(other)) <= least + 2


def test_every_beginning_of_a_pool_has_one_length() -> None:
    lengths: dict[str, set[int]] = {}
    for request in requests(source({"pool": 6, "tokens": "uniform(20, 60)"}), 60):
        lengths.setdefault(request.prefixes[0][0], set()).add(request.prefixes[0][1])
    assert len(lengths) == 6
    assert all(len(each) == 1 for each in lengths.values())
    assert len(set.union(*lengths.values())) > 1


def test_only_a_share_of_the_prompts_may_begin_alike() -> None:
    found = [bool(request.prefixes) for request in requests(source({"overlap": 0.5, "share": 0.25}), 2000)]
    assert sum(found) / 2000 == pytest.approx(0.25, abs=5 * math.sqrt(0.25 * 0.75 / 2000))
    assert not all(a == b for a, b in pairwise(found))


def test_a_prompt_is_the_same_whenever_it_is_asked_for() -> None:
    shared = {"pool": 9, "tokens": "uniform(10, 90)", "zipf": 1, "share": 0.8}
    made = requests(source(shared, "uniform(80, 200)"), 30)
    assert [source(shared, "uniform(80, 200)").request(index) for index in reversed(range(30))] == made[::-1]


def test_other_seeds_have_other_beginnings() -> None:
    """Also those of another class of the same run, whose words are others."""
    one, other = (source({"overlap": 0.6}, seeds=Seeds(0, prompts, 2, 3)).request(0) for prompts in (1, 2))
    assert alike(ids(one), ids(other)) <= CHAT.shared_prefix_tokens + 1
    assert one.prefixes != other.prefixes
    salted = source({"overlap": 0.6}, seeds=Seeds(0, 1, 2, 3, 9)).request(0)
    assert alike(ids(one), ids(salted)) <= CHAT.shared_prefix_tokens + 1


def test_a_prompt_that_is_too_short_has_a_part_of_its_beginning() -> None:
    prepared = source({"tokens": 80}, "uniform(60, 139)")
    made = requests(prepared, 1000)
    tail = len(TOKENIZER.chat_ids([("user", "the the")])) - CHAT.shared_prefix_tokens
    for request in made:
        assert request.prefixes[0][1] == min(80, len(ids(request)) - tail - OWN_TOKENS)
    cut = sum(request.prefixes[0][1] < 80 for request in made)
    assert 0 < cut < 1000
    assert prepared.notes == (f"{cut} of the first 1000 prompts are too short for the whole of their shared beginning",)
    assert source({"tokens": 80}, 100).notes == ()
    assert len({request.prompt for request in made}) == 1000


def test_prompts_that_repeat_have_the_beginning_of_what_they_repeat() -> None:
    prepared = source(SHARED, distinct=3)
    made = requests(prepared, 9)
    assert [request.prompt for request in made] == [request.prompt for request in made[:3]] * 3
    assert [request.prefixes for request in made] == [request.prefixes for request in made[:3]] * 3


@pytest.mark.parametrize(
    ("shared", "input_tokens", "sentence"),
    [
        ("{pool: 3}", 100, "w.yaml:2: prompts.shared_prefix: a shared beginning takes exactly one of tokens and"),
        ("{tokens: 5, overlap: 0.5}", 100, "prompts.shared_prefix: a shared beginning takes exactly one of"),
        ("{overlap: 1.0}", 100, "prompts.shared_prefix.overlap: must be below 1"),
        ("{overlap: 0.5, share: 0}", 100, "prompts.shared_prefix.share: must be above 0"),
        ("{overlap: 0.5, pool: 2000000}", 100, "prompts.shared_prefix.pool: must be at most 1e+06"),
        ("{overlap: 0.5, zipf: -1}", 100, "prompts.shared_prefix.zipf: must be at least 0"),
        ("{overlap: 0.5, pol: 2}", 100, "prompts.shared_prefix.pol: there is no such key; did you mean `pool`?"),
    ],
)
def test_a_pool_that_makes_no_sense_is_refused(shared: str, input_tokens: int, sentence: str) -> None:
    with pytest.raises(BadInput, match=re.escape(sentence)):
        parse_workload(workload(shared, input_tokens), "w.yaml")


def test_a_beginning_that_no_prompt_has_room_for_is_refused() -> None:
    with pytest.raises(
        BadInput, match=r"prompts.shared_prefix: no prompt is long enough: .* take 314 tokens, .* at most 300"
    ):
        source({"tokens": "uniform(301, 400)"}, "uniform(200, 300)")


# --- what a cache is expected to find


def workload(
    shared: str = "{pool: 8, overlap: 0.6, zipf: 1}", input_tokens: Any = 400, run: str = "requests: 60"
) -> str:
    return (
        f"version: 1\nprompts: {{source: synthetic, input_tokens: {input_tokens}, output_tokens: 2, "
        f"shared_prefix: {shared}}}\n"
        f"load: {{concurrency: 1}}\nrun: {{warmup: 0, {run}}}\n"
    )


def implied_rates(made: Schedule, block: int = 1) -> tuple[float, float]:
    """What the run's own arithmetic expects, ideal and in blocks; and token by token, of prompts compared in pairs."""
    planned = list(made)
    sent = [Sent("http://a", len(ids(each.request)), made.sharing.of(each.index)) for each in planned]
    expected = implied(sent, made.sharing.held, block)
    seen: list[Sequence[int]] = []
    found = 0
    for each in planned:
        prompt = ids(each.request)
        best = max((alike(prompt, other) for other in seen), default=CHAT.shared_prefix_tokens)
        found += max(0, min(best, len(prompt) - 1)) // block * block
        seen.append(prompt)
    return expected.in_blocks / expected.tokens, found / expected.tokens


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 30),
    st.sampled_from(["overlap: 0.3", "overlap: 0.85", "tokens: 100", "tokens: 'uniform(20, 150)'"]),
    st.sampled_from([0, 0.7, 2]),
    st.sampled_from([0.4, 1]),
    st.integers(0, 5),
)
def test_what_is_expected_is_what_comparing_the_prompts_gives(
    pool: int, length: str, zipf: float, share: float, seed: int
) -> None:
    shared = f"{{pool: {pool}, {length}, zipf: {zipf}, share: {share}}}"
    text = workload(shared, "'uniform(170, 260)'", f"requests: 50, seeds: {{order: {seed}, prompts: {seed}}}")
    for block in (1, 16):
        expected, compared = implied_rates(plan(parse_workload(text), CHAT), block)
        # Own words that are alike by chance are hardly ever as many as two of a prompt, nor end a block.
        assert expected == pytest.approx(compared, abs=0.002)
        assert expected <= compared


def test_the_rate_of_many_prompts_is_that_of_the_law() -> None:
    """n prompts from K beginnings miss each one that they have once: o * (1 - sum(1 - (1 - p)^n) / n)."""
    count, size, overlap = 400, 30, 0.5
    law = [1 / rank / sum(1 / each for each in range(1, size + 1)) for rank in range(1, size + 1)]
    wanted = overlap * (1 - sum(1 - (1 - p) ** count for p in law) / count)
    rates = []
    for seed in range(5):
        run = f"requests: {count}, seeds: {{order: {seed}, prompts: 1}}"
        rates.append(
            implied_rates(
                plan(parse_workload(workload(f"{{pool: {size}, overlap: {overlap}, zipf: 1}}", 100, run)), CHAT)
            )[0]
        )
    assert sum(rates) / 5 == pytest.approx(wanted, abs=0.01)


def test_a_warm_up_leaves_every_beginning_whole() -> None:
    """After it no prompt is the first of its beginning."""
    made = plan(parse_workload(workload("{pool: 7, tokens: 'uniform(50, 150)'}", "'uniform(200, 300)'")), CHAT)
    warm = list(made.spec.source.repeats(made.source))
    assert len(warm) == len({request.prefixes for request in warm}) == 7
    for each in made:
        mine = ids(each.request)
        best = max(alike(mine, ids(other)) for other in warm)
        assert best >= each.request.prefixes[0][1]


def test_a_warm_up_of_prompts_of_any_length_goes_as_far_as_hardly_one_of_them() -> None:
    made = plan(parse_workload(workload("{pool: 3, overlap: 0.5}", "'lognormal(200, p95=400)'")), CHAT)
    for request in made.spec.source.repeats(made.source):
        assert request.prefixes[0][1] == round(0.5 * made.spec.source.input_tokens.draw(0.999))  # type: ignore[attr-defined]


def test_no_prompt_of_a_warm_up_is_longer_than_those_of_the_load() -> None:
    """Lengths of beginnings that hardly any prompt has room for would not fit the server's context."""
    made = plan(parse_workload(workload("{pool: 50, tokens: 'lognormal(200, p95=2000)'}", "'uniform(200, 300)'")), CHAT)
    lengths = [len(ids(request)) for request in made.spec.source.repeats(made.source)]
    assert len(lengths) == 50
    assert max(lengths) == 300


def test_only_prompts_that_share_nothing_are_unique() -> None:
    """It decides what hits mean for the verdict, and whether there is anything to warm."""
    assert not parse_workload(workload()).spec.source.unique
    plain = workload().replace(", shared_prefix: {pool: 8, overlap: 0.6, zipf: 1}", "")
    assert parse_workload(plain).spec.source.unique
    assert parse_workload(workload(run="requests: 9, cache: warm")).spec.run.cache == "warm"


def test_the_example_of_the_page_is_a_workload() -> None:
    page = (Path(__file__).parents[1] / "docs" / "cache.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert implied_rates(plan(parse_workload(example), CHAT), 16)[0] == pytest.approx(0.55, abs=0.01)


# --- TTFT with and without


def hit(index: int, ttft_ms: float, cached: int | None, **more: Any) -> Any:
    return answer(index, 10.0 * index, (ttft_ms, ttft_ms + 10), cached_tokens=cached, prompt_tokens=160, **more)


def test_requests_are_grouped_by_whether_their_prompt_was_cached() -> None:
    built = frame(
        hit(0, 80, 0),
        hit(1, 20, 96),
        hit(2, 90, None),
        hit(3, 30, 16),
        hit(4, 70, 15),
        failed(5, 60, cached_tokens=None),
    )
    # None of a told run stands for 0, and a template alone is no hit.
    assert by_cache(built) == ["miss", "hit", "miss", "hit", "miss", None]
    found = {each["by"]["cached"]: each["metrics"]["ttft"] for each in groups(built) if "cached" in each["by"]}
    assert {label: (entry["n"], entry["p50"]) for label, entry in found.items()} == {"hit": (2, 20), "miss": (3, 80)}


def test_nothing_is_grouped_where_no_response_tells_or_all_are_alike() -> None:
    untold = frame(hit(0, 80, None), hit(1, 20, None))
    assert by_cache(untold) == [None, None]
    for built in (untold, frame(hit(0, 80, 96), hit(1, 20, 96))):
        assert not [each for each in groups(built) if "cached" in each["by"]]


def test_the_summary_shows_ttft_with_and_without() -> None:
    built = frame(hit(0, 80, 0), hit(1, 20, 96), hit(2, 90, 0))
    text = summary_text({"groups": groups(built)})
    assert re.search(r"TTFT p50 +20.0 ms where the prompt was cached \(1 request\), 80.0 ms where not \(2\)", text)
    assert "where the prompt was cached" not in summary_text({"groups": groups(frame(hit(0, 80, 0), hit(1, 20, 0)))})
    hostile = [{"by": {"cached": "hit"}, "metrics": {"ttft": {"n": "<b>", "p50": "\x1b[2J"}}}]
    assert "\x1b" not in summary_text({"groups": hostile})


# --- against the built-in target


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with launch(SimOptions(max_model_len=8192, enable_prompt_tokens_details=True)) as one:
        yield one


@pytest.mark.parametrize("cache", ["cold", "warm"])
def test_a_server_with_a_cache_hits_what_the_pool_implies(server: LocalServer, tmp_path: Path, cache: str) -> None:
    """One after the other, so that every prompt finds all those before it: what is observed is what is expected."""
    file, out = tmp_path / "w.yaml", tmp_path / "out"
    file.write_text(workload("{pool: 8, overlap: 0.6, zipf: 1}", 2000, f"requests: 30, cache: {cache}"))
    words = ("run", "--target", "sim", "--url", server.url, "--workload", str(file), "--quiet", *TOLERANT)
    said = bench(*words, "--out", str(out))
    assert said.code == 0, said.err
    found = run_json(out)
    told = found["cache"]
    assert check(found, "prefix_cache") == "pass"
    assert told["observed_hit_rate"] == pytest.approx(told["expected_hit_rate"], abs=1e-9)
    planned = [each.request.prefixes[0][0] for each in plan(parse_workload(file.read_text()), CHAT)]
    first = 0 if cache == "warm" else len(set(planned))
    assert told["observed_hit_rate"] == pytest.approx(1200 / 2000 * (30 - first) / 30)
    with_and_without = {each["by"]["cached"] for each in found["groups"] if "cached" in each["by"]}
    assert with_and_without == (set() if cache == "warm" else {"hit", "miss"})
    assert json.dumps(found["groups"])

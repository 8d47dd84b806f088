"""How sure a share is: against sums of binomials and a textbook's Markov chain, not against the code's own formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.harness.figures.slo import Slo, by_class, parse_slo
from servemark.harness.figures.stats import samples_needed
from servemark.harness.figures.view import view_of
from servemark.harness.search.claims import certified_by, claim_of, requests_for
from servemark.harness.search.points import Claim, Outcome, Series, pooled
from servemark.harness.search.proportion import inflation, interval, needed, spelled_out, stretches
from servemark.harness.search.strain import clumping, strain
from tests.frames import answer, failed, frame

SERIES = st.lists(st.integers(0, 1), max_size=60)


def at_least(k: int, n: int, p: float) -> float:
    """P(X >= k) of binomial(n, p), term by term."""
    return math.fsum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_the_interval_ends_where_the_binomial_tails_are_two_and_a_half_percent(case: tuple[int, int]) -> None:
    n, good = case
    low, high = interval(good, n)
    assert 0 <= low <= good / n <= high <= 1
    if good:
        assert at_least(good, n, low) == pytest.approx(0.025, rel=1e-6)
    if good < n:
        assert 1 - at_least(good + 1, n, high) == pytest.approx(0.025, rel=1e-6)


def test_nothing_is_known_of_no_request() -> None:
    assert interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("attainment", "n"), [(0.5, 7), (0.9, 44), (0.95, 90), (0.99, 459), (0.999, 4603)])
def test_so_many_requests_without_a_miss_prove_an_attainment(attainment: float, n: int) -> None:
    assert needed(attainment) == n == samples_needed(attainment * 100, over=0)
    assert attainment**n <= 0.01 < attainment ** (n - 1)
    assert interval(n, n)[0] > attainment


def test_independent_requests_are_worth_what_they_are() -> None:
    rng = np.random.default_rng(1)
    found = [inflation([(rng.random(2_000) < 0.9).astype(int).tolist()]) for _ in range(20)]
    assert 1 <= np.mean(found) < 1.25


def test_a_chain_that_stays_as_it_is_is_worth_less_by_its_textbook_factor() -> None:
    """A two-state Markov chain whose correlation falls by r a step: the factor is (1 + r) / (1 - r)."""
    rng, r, share = np.random.default_rng(2), 0.8, 0.7
    state, chain = 1, []
    for draw in rng.random(200_000):
        stays = r + (1 - r) * (share if state else 1 - share)
        state = state if draw < stays else 1 - state
        chain.append(state)
    assert inflation([chain]) == pytest.approx((1 + r) / (1 - r), rel=0.1)


def test_runs_that_disagree_are_worth_less_than_runs_that_agree() -> None:
    rng = np.random.default_rng(3)
    alike = [(rng.random(300) < 0.9).astype(int).tolist() for _ in range(3)]
    apart = [(rng.random(300) < share).astype(int).tolist() for share in (0.8, 0.9, 1.0)]
    assert inflation(apart) > 3 * inflation(alike)


@pytest.mark.parametrize("runs", [[], [[]], [[1]], [[1] * 50], [[0] * 50, [0]], [[1, 0, 1]]])
def test_where_nothing_varies_no_correlation_is_seen(runs: list[list[int]]) -> None:
    assert inflation(runs) == 1.0


@given(st.lists(SERIES, max_size=4))
def test_an_effective_sample_is_one_request_to_all_of_them(runs: list[list[int]]) -> None:
    total = sum(map(len, runs))
    assert 1 <= inflation(runs) <= max(1, total)


@given(SERIES)
def test_stretches_spell_the_series(series: list[int]) -> None:
    assert spelled_out(stretches(series)) == series


def test_stretches_begin_with_good_ones() -> None:
    assert stretches([0, 0, 1]) == [0, 2, 1]
    assert stretches([1, 1, 0]) == [2, 1]


# --- points


def run(*stretches: int, held: bool = True, clumping: float = 1.0, **classes: tuple[int, ...]) -> Outcome:
    own = {name: Series(each) for name, each in classes.items()}
    return Outcome(1.0, Series(stretches, clumping), held, classes=own)


def point(claim: Claim, *outcomes: Outcome) -> tuple[bool, str]:
    found = pooled(1.0, outcomes, claim)
    return found.passes, found.state


def test_a_point_is_proved_by_its_interval_and_passes_by_its_share() -> None:
    claim = Claim(0.99)
    assert point(claim, run(459)) == (True, "meets")
    assert point(claim, run(300)) == (True, "uncertain")
    assert point(claim, run(454, 5)) == (False, "uncertain")
    assert point(claim, run(*(8, 1) * 51)) == (False, "misses")
    assert point(claim, run(408, 51)) == (False, "uncertain")  # it may have been one accident
    assert pooled(1.0, [run(100), run(98, 2)], claim).share.good == 198


def test_misses_that_come_together_prove_less() -> None:
    together, apart = run(500, 40, 460), run(*(24, 1) * 40)
    ends = [pooled(1.0, [each], Claim(0.95)) for each in (together, apart)]
    assert ends[0].share.good == ends[1].share.good == 960
    assert ends[0].share.low < 0.9 < ends[1].share.low


def test_clumps_below_the_limit_make_even_a_run_without_a_miss_worth_less() -> None:
    assert point(Claim(0.99), run(459, clumping=3.0)) == (True, "uncertain")
    three = [run(459, clumping=3.0)] * 3
    assert point(Claim(0.99), *three) == (True, "meets")
    assert pooled(1.0, three, Claim(0.99)).share.effective == 459


def test_a_queue_that_only_grew_is_a_miss_whatever_the_share_is() -> None:
    grew = run(459, held=False)
    assert point(Claim(0.99), grew) == (False, "uncertain")
    assert point(Claim(0.99), grew, grew, grew) == (False, "misses")
    assert point(Claim(0.99), grew, run(459), run(459)) == (True, "uncertain")
    assert point(Claim(0.99), grew, run(459)) == (False, "uncertain")  # half of them do not do


def test_limits_on_the_run_alone_go_by_runs() -> None:
    claim, met, missed = Claim(None, 3), run(90, 10), run(90, 10, held=False)
    assert point(claim, met) == (True, "uncertain")
    assert point(claim, met, met, met) == (True, "meets")
    assert point(claim, missed, missed, missed) == (False, "misses")
    assert point(claim, met, missed, met) == (True, "uncertain")


def test_of_a_mix_each_class_has_to_meet_its_own_share() -> None:
    claim = Claim(0.9, classes={"rag": 0.99})
    assert point(claim, run(1_000, rag=(459,))) == (True, "meets")
    assert point(claim, run(1_000, rag=(100,))) == (True, "uncertain")
    assert point(claim, run(1_000, rag=(9, 1) * 10)) == (False, "misses")
    assert point(claim, run(*(4, 1) * 100, rag=(459,))) == (False, "misses")
    assert point(Claim(None, classes={"rag": 0.99}), run(*(4, 1) * 100, rag=(459,))) == (True, "meets")
    assert point(claim, run(1_000)) == (True, "uncertain")  # of which no request was one of the class


# --- strain


def test_strain_is_the_largest_share_of_a_limit_that_a_request_used_up() -> None:
    chunks = [(100, 400), (250, 400), (50, 1_200)]
    answers = frame(*(answer(i, 10.0 * i, each) for i, each in enumerate(chunks)))
    slo = parse_slo("ttft=200ms,e2e=1s")
    assert strain(slo, view_of(answers, slo=slo)).tolist() == pytest.approx([0.5, 1.25, 1.2])
    faster = parse_slo("tps_user=2tok/s")  # 0.3 s, 0.15 s and 1.15 s after the first of two tokens
    assert strain(faster, view_of(answers, slo=faster)).tolist() == pytest.approx([0.6, 0.3, 2.3])


def test_a_failed_request_is_as_strained_as_can_be_and_a_single_token_has_no_gaps_to_be_late() -> None:
    answers = frame(answer(0, 0.0, (100,)), failed(1, 10.0), answer(2, 20.0, (300, 301)))
    slo = parse_slo("ttft=200ms,tpot=10ms")
    view = view_of(answers, slo=slo)
    found = strain(slo, view)
    assert found.tolist() == [0.5, math.inf, 1.5]
    assert (found <= 1).tolist() == slo.passes(view).tolist()


def test_of_a_mix_each_request_is_held_to_the_limits_of_its_class() -> None:
    answers = frame(answer(0, 0.0, (100,), class_="chat"), answer(1, 10.0, (100,), class_="rag"))
    slo = by_class(parse_slo("ttft=200ms"), {"chat": None, "rag": parse_slo("ttft=80ms")})
    assert strain(slo, view_of(answers, slo=slo)).tolist() == [0.5, 1.25]


# --- claims


def claim(text: str, attainment: float | None = None, **own: str) -> Claim:
    classes = {name: parse_slo(each, 0.5 if name == "lax" else None) for name, each in own.items()}
    return claim_of(by_class(parse_slo(text, attainment), classes), 3)


def test_a_claim_is_what_a_run_is_judged_by() -> None:
    assert claim("ttft=1s") == Claim(0.99)
    assert claim("ttft=1s", 0.9) == Claim(0.9)
    assert claim("ttft:p99=1s") == Claim(None)
    assert claim("ttft:p99=1s", rag="ttft=1s") == Claim(0.99, classes={"rag": 0.99})
    assert claim("ttft=1s", 0.9, rag="e2e=1s") == Claim(0.9, classes={"rag": 0.9})
    assert claim("ttft=1s", lax="e2e=1s") == Claim(None, classes={"lax": 0.5})  # as only a class says what it needs


def test_a_class_that_comes_rarely_takes_more_requests() -> None:
    slo = by_class(parse_slo("ttft=1s"), {"often": None, "rare": parse_slo("ttft=2s,ttft:p90=1s")})
    shares = {"often": 0.9, "rare": 0.1}
    assert requests_for(claim_of(slo, 3), slo, shares) == 4_590
    assert certified_by(slo, shares) == 10 * samples_needed(90)
    assert requests_for(Claim(None), Slo(()), {}) == 64


def test_clumping_is_seen_in_the_tenth_that_came_nearest() -> None:
    rng = np.random.default_rng(4)
    waves = np.sin(np.arange(1_000) / 40) + 0.1 * rng.random(1_000)
    assert clumping(waves) > 10
    assert clumping(rng.permutation(waves)) < 2
    assert clumping(np.full(100, 0.3)) == clumping(np.empty(0)) == 1.0

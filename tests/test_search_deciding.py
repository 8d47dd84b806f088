"""The procedure of a search on made-up servers, whose every answer is known: no socket, no clock, no run."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servemark.harness.search.deciding import TRIES, Answer, Measure, decide, points_of
from servemark.harness.search.loads import Axis
from servemark.harness.search.points import Claim, Outcome, Series

N = 1_377
CLAIM = Claim(0.99, 3)
Server = Callable[[float, int], Outcome]
"""(load, number of the run) -> what came of it."""


def serve(share: Callable[[float], float], n: int = N, seed: int | None = None) -> Server:
    """Requests that are independent of each other, or, without a seed, as good as the share says."""

    def run(load: float, number: int) -> Outcome:
        rng = random.Random(f"{seed} {load} {number}")
        good = round(share(load) * n) if seed is None else sum(rng.random() < share(load) for _ in range(n))
        return Outcome(load, Series(_spread(good, n)))

    return run


def _spread(good: int, n: int) -> tuple[int, ...]:
    """Misses at even distances."""
    bad = n - good
    if not bad:
        return (n,)
    edges = [round(i * good / bad) for i in range(bad + 1)]
    return tuple(length for low, high in pairwise(edges) for length in (high - low, 1))


def search(axis: Axis, server: Server, claim: Claim = CLAIM) -> tuple[Answer, list[Outcome], list[Measure]]:
    outcomes: list[Outcome] = []
    steps: list[Measure] = []
    while isinstance(step := decide(axis, claim, outcomes), Measure):
        assert len(steps) < most_runs(axis, claim), "it does not end"
        assert axis.low <= step.load <= axis.high
        steps.append(step)
        outcomes.append(server(step.load, sum(each.load == step.load for each in outcomes)))
    return step, outcomes, steps


def most_runs(axis: Axis, claim: Claim) -> int:
    """Neighbours lie at least half a precision apart, and each load has its runs and its failures of the client."""
    if axis.by == "concurrency":
        loads = axis.high - axis.low + 1
    else:
        loads = 2 + math.log(axis.high / axis.low) / math.log(math.sqrt(1 + axis.precision) * 0.9994)
    return math.ceil(loads) * (claim.runs + TRIES)


def sharp(threshold: float) -> Callable[[float], float]:
    return lambda load: 1.0 if load <= threshold else 0.5


@settings(max_examples=40)
@given(st.floats(1.0, 63.9), st.sampled_from([0.005, 0.02, 0.05, 0.3]), st.booleans())
def test_a_sharp_threshold_lies_inside_the_bracket(threshold: float, precision: float, down: bool) -> None:
    axis = Axis("rate", 64 if down else 1, 1 if down else 64, precision)
    answer, outcomes, _ = search(axis, serve(sharp(threshold)))
    assert answer.kind == "found"
    assert answer.load is not None
    assert answer.failing is not None
    assert answer.load <= threshold < answer.failing
    assert answer.failing / answer.load <= 1 + precision + 1e-9
    assert (answer.proved, answer.refuted) == (answer.load, answer.failing)
    assert answer.odd == answer.split == ()
    runs = {load: point.runs for load, point in points_of(outcomes, CLAIM).items()}
    assert runs.pop(answer.load) == runs.pop(answer.failing) == CLAIM.runs
    assert set(runs.values()) <= {1}


@settings(max_examples=30)
@given(st.integers(1, 63), st.booleans())
def test_in_flight_the_bracket_ends_at_neighbours(threshold: int, down: bool) -> None:
    axis = Axis("concurrency", 64 if down else 1, 1 if down else 64, 0.005)
    answer, outcomes, _ = search(axis, serve(sharp(threshold)))
    assert (answer.load, answer.failing) == (threshold, threshold + 1)
    assert all(outcome.load == int(outcome.load) for outcome in outcomes)


def test_it_doubles_then_takes_the_geometric_middle_then_repeats_in_turn() -> None:
    _, _, steps = search(Axis("rate", 1, 64, 0.05), serve(sharp(7.5)))
    assert [(step.load, step.why) for step in steps] == [
        (1, "bracket"), (2, "bracket"), (4, "bracket"), (8, "bracket"),
        (5.657, "bisect"), (6.727, "bisect"), (7.336, "bisect"), (7.661, "bisect"),
        (7.336, "confirm"), (7.661, "confirm"), (7.336, "confirm"), (7.661, "confirm"),
    ]  # fmt: skip


def test_downwards_it_halves() -> None:
    _, _, steps = search(Axis("rate", 64, 1, 1.0), serve(sharp(9)))
    assert [step.load for step in steps if step.why == "bracket"] == [64, 32, 16, 8]


def test_even_the_lowest_load_misses_it_and_that_is_confirmed() -> None:
    for axis in (Axis("rate", 2, 64), Axis("rate", 64, 2)):
        answer, outcomes, _ = search(axis, serve(lambda load: 0.5))
        assert (answer.kind, answer.load, answer.failing, answer.refuted) == ("below", None, 2, 2)
        assert sum(outcome.load == 2 for outcome in outcomes) == CLAIM.runs


def test_the_highest_load_still_meets_it_and_that_is_confirmed() -> None:
    for axis in (Axis("rate", 2, 50), Axis("rate", 50, 2)):
        answer, outcomes, _ = search(axis, serve(lambda load: 1.0))
        assert (answer.kind, answer.load, answer.failing, answer.proved) == ("above", 50, None, 50)
        assert sum(outcome.load == 50 for outcome in outcomes) == CLAIM.runs


def test_one_load_alone_is_a_range_too() -> None:
    assert search(Axis("rate", 3, 3), serve(lambda load: 1.0))[0].kind == "above"
    assert search(Axis("rate", 3, 3), serve(lambda load: 0.1))[0].kind == "below"


def test_a_bump_is_named() -> None:
    """Good at 4 and bad at 2: the answer is the highest load, and what misses below it stands beside it."""
    outcomes = [serve(lambda load: 1.0)(4, 0), serve(lambda load: 0.9)(2, 0), serve(lambda load: 0.1)(4.1, 0)]
    assert decide(Axis("rate", 1, 64), CLAIM, outcomes) == Measure(4, "confirm")
    outcomes += [serve(lambda load: 1.0)(4, 1)] * 2 + [serve(lambda load: 0.1)(4.1, 1)] * 2
    assert decide(Axis("rate", 1, 64), CLAIM, outcomes) == Measure(2, "confirm")  # the miss below is no accident
    outcomes += [serve(lambda load: 0.9)(2, 1)] * 2
    answer = decide(Axis("rate", 1, 64), CLAIM, outcomes)
    assert isinstance(answer, Answer)
    assert (answer.kind, answer.load, answer.odd) == ("found", 4, (2,))


def test_an_end_that_was_lucky_once_moves_the_bracket() -> None:
    """7.336 passes by chance in its first run and fails in the others: the answer lies below it."""

    def server(load: float, number: int) -> Outcome:
        lucky = load > 7 and load < 7.5 and number == 0
        return serve(sharp(math.inf if lucky else 6.9))(load, number)

    answer, _, _ = search(Axis("rate", 1, 64), server)
    assert (answer.load, answer.failing) == (6.727, 7.025)
    assert answer.split == (7.025, 7.336)


def test_a_bump_on_the_way_up_is_taken_for_the_threshold() -> None:
    """Nobody looks beyond a miss that is confirmed: what the search claims it has seen."""
    answer, _, _ = search(Axis("rate", 1, 64), serve(lambda load: 0.9 if 1.5 < load < 2.5 or load > 20 else 1.0))
    assert answer.load is not None
    assert answer.failing is not None
    assert answer.load <= 1.5 < answer.failing


def test_an_end_that_was_unlucky_once_moves_it_up() -> None:
    def server(load: float, number: int) -> Outcome:
        return serve(lambda at: 0.98 if at == 8 and number == 0 else 1.0 if at <= 11.5 else 0.2)(load, number)

    answer, _, _ = search(Axis("rate", 1, 64), server)
    assert answer.load is not None
    assert answer.failing is not None
    assert answer.load <= 11.5 < answer.failing
    assert answer.odd == ()
    assert answer.split == (8,)


def logistic(critical: float, steepness: float = 30.0) -> Callable[[float], float]:
    """0.99 at the critical load, falling from 1 to 0 around a little more than it."""
    middle = math.log(critical) + math.log(99) / steepness
    return lambda load: 1 / (1 + math.exp(min(500.0, steepness * (math.log(load) - middle))))


@settings(max_examples=40)
@given(st.floats(2.0, 40.0), st.integers(0, 2**32))
def test_a_noisy_response_is_bracketed_by_what_is_proved(critical: float, seed: int) -> None:
    """At 95 % a side may be wrong in one case of forty; by a tenth of the load it never is."""
    answer, _, _ = search(Axis("rate", 1, 64, 0.05), serve(logistic(critical), seed=seed))
    assert answer.kind == "found"
    assert answer.load is not None
    assert critical / 1.15 < answer.load < critical * 1.15
    assert answer.proved is None or answer.proved <= answer.load
    assert answer.refuted is None or answer.refuted > answer.load
    assert answer.proved is None or answer.proved < critical * 1.1
    assert answer.refuted is None or answer.refuted > critical / 1.1


def test_what_is_proved_is_right_as_often_as_is_said() -> None:
    wrong = total = 0
    for seed in range(100):
        critical = 5 + 0.01 * seed
        answer, _, _ = search(Axis("rate", 1, 64, 0.05), serve(logistic(critical), seed=seed))
        total += 2
        wrong += (answer.proved or 0) > critical
        wrong += (answer.refuted or math.inf) < critical
    assert wrong / total < 0.05


VERDICTS = st.sampled_from(["good", "bad", "grew", "void"])


@settings(max_examples=200)
@given(st.lists(VERDICTS, min_size=1, max_size=80), st.booleans(), st.sampled_from(["rate", "concurrency"]))
def test_whatever_the_runs_say_it_ends_and_says_what_they_said(verdicts: list[str], down: bool, by: str) -> None:
    """A server that answers at random: the number of runs is bounded, and the answer is in the runs."""
    axis = Axis(by, 64 if down else 1, 1 if down else 64, 0.05)  # type: ignore[arg-type]
    left = iter(verdicts * 100)

    def server(load: float, number: int) -> Outcome:
        said = next(left)
        if said == "void":
            return Outcome(load, Series((200,)), void=True)
        return Outcome(load, Series((0, 200) if said == "bad" else (459,)), held=said != "grew")

    answer, outcomes, _ = search(axis, server)
    points = points_of(outcomes, CLAIM)
    passing = [load for load, point in points.items() if point.passes]
    assert answer.load == (max(passing) if passing else None)
    assert answer.odd == tuple(x for x, p in points.items() if not p.passes and passing and x < max(passing))
    for load in (answer.load, answer.failing, *answer.odd):
        if load in points:
            lost = sum(outcome.void for outcome in outcomes if outcome.load == load)
            assert points[load].runs == CLAIM.runs or lost >= TRIES
    if answer.proved is not None:
        assert answer.load is not None
        assert answer.proved <= answer.load
        assert points[answer.proved].state == "meets"
    if answer.refuted is not None:
        assert answer.refuted > (answer.load or 0)
        assert points[answer.refuted].state == "misses"


@settings(max_examples=50)
@given(st.floats(1.5, 60.0), st.integers(0, 1_000), st.randoms())
def test_it_goes_by_the_runs_that_are_there_and_not_by_their_order(
    critical: float, seed: int, shuffle: random.Random
) -> None:
    """So a search that was stopped after any run goes on as it would have gone on."""
    axis, server = Axis("rate", 1, 64, 0.1), serve(logistic(critical), n=200, seed=seed)
    answer, outcomes, steps = search(axis, server)
    for count in range(len(outcomes)):
        some = outcomes[:count]
        shuffle.shuffle(some)
        again = decide(axis, CLAIM, some)
        assert isinstance(again, Measure)
        assert again == steps[count]
    assert decide(axis, CLAIM, outcomes) == answer


def test_a_finer_precision_goes_on_from_the_same_runs() -> None:
    server = serve(sharp(7.5))
    _, outcomes, _ = search(Axis("rate", 1, 64, 0.2), server)
    step = decide(Axis("rate", 1, 64, 0.02), CLAIM, outcomes)
    assert isinstance(step, Measure)
    assert step.why == "bisect"


# --- a client that is not up to it


def void_above(limit: float, threshold: float = math.inf) -> Server:
    return lambda load, number: Outcome(load, void=True) if load > limit else serve(sharp(threshold))(load, number)


def test_a_client_at_its_limit_is_said_and_is_no_answer_about_the_server() -> None:
    answer, outcomes, _ = search(Axis("rate", 1, 64), void_above(20))
    assert answer.kind == "client"
    assert answer.load is not None
    assert answer.failing is not None
    assert answer.load <= 20 < answer.failing
    assert answer.refuted is None
    for load in {outcome.load for outcome in outcomes if outcome.void}:
        assert sum(outcome.load == load for outcome in outcomes) == TRIES


def test_a_client_that_is_up_to_what_matters_does_not_matter() -> None:
    answer, _, _ = search(Axis("rate", 64, 1), void_above(20, 7.5))
    assert answer.kind == "found"
    assert answer.refuted == answer.failing


def test_one_hiccup_of_the_client_is_made_good() -> None:
    def server(load: float, number: int) -> Outcome:
        return Outcome(load, Series((0, 5)), void=True) if number == 0 else serve(sharp(7.5))(load, number)

    answer, _, steps = search(Axis("rate", 1, 64), server)
    assert (answer.kind, answer.load, answer.failing) == ("found", 7.336, 7.661)
    assert [step.why for step in steps[:2]] == ["bracket", "again"]


def test_a_client_that_can_do_nothing_leaves_no_answer() -> None:
    answer, outcomes, _ = search(Axis("rate", 1, 64), void_above(0))
    assert (answer.kind, answer.load, answer.failing, len(outcomes)) == ("void", None, 1, TRIES)


# --- proofs beside the bracket


def test_where_the_bracket_proves_nothing_its_neighbours_are_asked() -> None:
    """Just above and just below the target at the ends, plainly good and bad further out."""

    def share(load: float) -> float:
        return {5.657: 0.9995, 6.727: 0.997, 7.336: 0.991, 7.661: 0.989}.get(load, 1.0 if load < 7 else 0.8)

    answer, _, steps = search(Axis("rate", 1, 64), serve(share, n=459))
    assert (answer.load, answer.failing) == (7.336, 7.661)
    assert (answer.proved, answer.refuted) == (6.727, 8)
    assert [step.load for step in steps if step.why == "prove"] == [6.727]


def test_a_sample_that_can_prove_nothing_is_not_repeated_for_ever() -> None:
    """Thirty requests a run are too few for 0.99 even without a miss."""
    answer, _, steps = search(Axis("rate", 1, 64), serve(sharp(7.5), n=30))
    assert (answer.load, answer.proved) == (7.336, None)
    assert "prove" not in {step.why for step in steps}


# --- loads


@pytest.mark.parametrize("by", ["rate", "concurrency"])
@given(low=st.floats(1.0, 1e5), ratio=st.floats(1.0, 100.0), precision=st.sampled_from([0.005, 0.05, 1.0]))
def test_what_lies_between_lies_between(by: str, low: float, ratio: float, precision: float) -> None:
    axis = Axis(by, 1, 1e7, precision)  # type: ignore[arg-type]
    ends = [float(f"{each:.4g}") if by == "rate" else float(round(each)) for each in (low, low * ratio)]
    middle = axis.between(*ends)
    if middle is None:
        assert ends[1] <= ends[0] * (1 + precision) * (1 + 1e-8) or ends[1] - ends[0] <= 1
    else:
        assert ends[0] < middle < ends[1]


def test_steps_end_at_the_ends_of_the_range() -> None:
    axis = Axis("rate", 3, 10)
    assert (axis.above(3), axis.above(6), axis.above(10)) == (6, 10, None)
    assert (axis.below(10), axis.below(5), axis.below(3)) == (5, 3, None)
    assert Axis("concurrency", 3, 1).below(3) == 2

"""What clients do of their own accord is a pure function of seed and index, and tells nothing of anything else."""

from __future__ import annotations

import math
from itertools import combinations, islice
from pathlib import Path

import numpy as np
import pytest

from servemark.adapters.vllm import ADAPTER
from servemark.harness.errors import BadInput
from servemark.harness.plan.arrivals import ARRIVALS, Bursts, OpenLoop
from servemark.harness.plan.encoding import Jobs
from servemark.harness.plan.habits import Habits
from servemark.harness.plan.schedule import plan
from servemark.harness.plan.spec import Workload, parse_workload
from servemark.harness.plan.tokens import vocabulary_for
from servemark.harness.server.control import Control
from servemark.harness.server.target import Target
from servemark.harness.types import Options, ServerFacts

SECOND = 1_000_000_000
TEXT = """
version: 1
prompts: {source: synthetic, input_tokens: "uniform(100, 100000)", output_tokens: "uniform(100, 100000)"}
load: {concurrency: 2, think_time: exponential(3s)}
request: {give_up: {share: 0.2, after: "uniform(1s, 5s)"}}
run: {requests: 50, warmup: 0}
"""


def workload(text: str = TEXT) -> Workload:
    return parse_workload(text).spec


def test_as_many_give_up_as_are_asked_for_and_wait_as_the_distribution_says() -> None:
    n, habits = 20_000, Habits(workload(), seed=3)
    waits = [habits.give_up_ns(index) for index in range(n)]
    given = np.array([wait for wait in waits if wait is not None]) / SECOND
    assert len(given) / n == pytest.approx(0.2, abs=5 * math.sqrt(0.16 / n))
    assert given.mean() == pytest.approx(3, abs=5 * (4 / math.sqrt(12)) / math.sqrt(len(given)))
    assert (given.min() >= 1, given.max() <= 5) == (True, True)


def test_who_gives_up_hangs_on_the_seed_and_the_index_alone() -> None:
    again = [[each.give_up_ns(index) for index in range(500)] for each in (Habits(workload(), k) for k in (1, 1, 2))]
    assert again[0] == again[1] != again[2]
    assert Habits(workload(), 1).give_up_ns(321) == again[0][321]


def test_a_larger_share_adds_clients_and_moves_none() -> None:
    both = (Habits(workload(TEXT.replace("0.2", share)), 1) for share in ("0.1", "0.4"))
    few, many = ([each.give_up_ns(index) for index in range(2000)] for each in both)
    assert all(more == less for less, more in zip(few, many, strict=True) if less is not None)
    assert sum(wait is not None for wait in many) > 3 * sum(wait is not None for wait in few)


def test_nobody_thinks_or_gives_up_unless_it_is_said() -> None:
    plain = Habits(workload(TEXT.replace(", think_time: exponential(3s)", "").replace("give_up", "extra_body")), 1)
    assert {plain.think_ns(index) for index in range(50)} == {0}
    assert {plain.give_up_ns(index) for index in range(50)} == {None}


def test_no_two_kinds_of_draws_go_together() -> None:
    """All with the same seed: gaps of every kind of process, lengths, think times, who gives up, and when."""
    n, seed = 20_000, 5
    spec = workload(TEXT.replace("share: 0.2", "share: 1"))
    habits = Habits(spec, seed)
    drawn = {
        "think": [habits.think_ns(k) for k in range(n)],
        "after": [habits.give_up_ns(k) or 0 for k in range(n)],
        "gives up": _shares(seed, n),
    }
    for name, keys in (("poisson", {}), ("gamma", {"cv": 1.0}), ("weibull", {"cv": 0.9})):
        load = ARRIVALS[name].model_validate({"rate": 10, **keys})
        assert isinstance(load, OpenLoop)
        drawn[name] = np.diff(list(islice(load.offsets_ns(seed), n + 1))).tolist()
    bursts = Bursts.model_validate({"on": "5s", "off": "5s", "on_rate": 5, "lengths": "exponential"})
    drawn["phases"] = [piece.duration_ns for piece in islice(bursts.pieces(seed), n)]
    source = plan(parse_workload(_seeded(seed)), _vocabulary()).source
    drawn["input"], drawn["output"] = map(list, zip(*(source.lengths(k) for k in range(n)), strict=True))
    ranks = {name: np.argsort(np.argsort(values)) for name, values in drawn.items()}
    # gamma and weibull are never in one load, and draw from the same stream.
    pairs = [pair for pair in combinations(ranks, 2) if pair != ("gamma", "weibull")]
    for one, other in pairs:
        assert abs(np.corrcoef(ranks[one], ranks[other])[0, 1]) < 5 / math.sqrt(n), (one, other)


def _shares(seed: int, n: int) -> list[float]:
    """What decides whether the client of each request gives up: the least share at which it does, to 1 %."""
    habits = [Habits(workload(TEXT.replace("share: 0.2", f"share: {k / 100}")), seed) for k in range(10, 100, 10)]
    return [sum(each.give_up_ns(index) is None for each in habits) for index in range(n)]


def _seeded(seed: int) -> str:
    return TEXT.replace("warmup: 0", f"warmup: 0, seeds: {{lengths: {seed}, arrivals: {seed}, prompts: {seed}}}")


def _vocabulary():  # type: ignore[no-untyped-def]
    with Control("http://127.0.0.1:9") as control:
        target = Target(ADAPTER, control.url, (), control, ServerFacts(), "m")
        return vocabulary_for("chat", "m", None, target.ask, None, None)


def test_the_requests_that_are_sent_carry_them(tmp_path: Path) -> None:
    text = _seeded(4).replace("uniform(100, 100000)", "20")
    with Control("http://127.0.0.1:9") as control:
        target = Target(ADAPTER, control.url, (), control, ServerFacts(), "m")
        jobs = list(Jobs(plan(parse_workload(text), _vocabulary()), target, Options("m"), "run"))
    habits = Habits(workload(text), 4)
    assert [job.think_ns for job in jobs] == [habits.think_ns(k) for k in range(50)]
    assert [job.give_up_ns for job in jobs] == [habits.give_up_ns(k) for k in range(50)]
    assert 0 < sum(job.give_up_ns is not None for job in jobs) < 50


@pytest.mark.parametrize(
    ("give_up", "said"),
    [
        ("{share: 0, after: 2s}", "must be above 0"),
        ("{share: 1.5, after: 2s}", "must be at most 1"),
        ("{share: 0.1, after: 0s}", "a client that waits no time asks nothing"),
        ("{share: 0.1, after: 2}", "2 has no unit"),
        ("{share: 0.1}", "is missing; add `after:`"),
        ("{share: 0.1, after: 2s, unless: never}", "must be 'first_token' or 'end'"),
        ("{share: 0.1, after: 2s, until: end}", "there is no such key"),
    ],
)
def test_a_habit_that_makes_no_sense_is_refused_with_its_line(give_up: str, said: str) -> None:
    text = TEXT.replace('{share: 0.2, after: "uniform(1s, 5s)"}', give_up)
    with pytest.raises(BadInput, match=r"workload.yaml:5: request\.give_up") as refused:
        workload(text)
    assert said in str(refused.value)

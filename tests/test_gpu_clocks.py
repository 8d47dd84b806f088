"""Another machine's clock is known to within what is said of it, however the network treats the two directions."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.harness.clock import MS, SECOND
from servemark.harness.gpu.clocks import DRIFT_PPM, RemoteClock, RoundTrip, best

OFFSETS = st.integers(-(10**16), 10**16)
WAYS = st.integers(0, 500 * MS)
Ways = tuple[int, int, int]


def trip(sent_ns: int, offset_ns: int, there_ns: int, work_ns: int, back_ns: int, drift: float = 0.0) -> RoundTrip:
    """What happens when the other clock is ours plus an offset, and a drift since our 0."""

    def theirs(ours_ns: int) -> int:
        return ours_ns + offset_ns + round(ours_ns * drift)

    asked, answered = sent_ns + there_ns, sent_ns + there_ns + work_ns
    return RoundTrip(sent_ns, theirs(asked), theirs(answered), answered + back_ns)


@given(OFFSETS, st.lists(st.tuples(WAYS, WAYS, WAYS), min_size=1, max_size=12))
def test_the_true_offset_lies_within_what_is_stated(offset_ns: int, ways: Sequence[Ways]) -> None:
    trips = [trip(number * SECOND, offset_ns, *each) for number, each in enumerate(ways)]
    found = best(trips)
    assert found is not None
    assert abs(found.offset_ns - offset_ns) <= found.uncertainty_ns
    shortest = min(ways, key=lambda way: way[0] + way[2])
    assert found.uncertainty_ns <= (shortest[0] + shortest[2]) // 2 + sum(shortest) * DRIFT_PPM // 10**6 + 1


@given(
    OFFSETS,
    st.floats(-DRIFT_PPM * 0.9e-6, DRIFT_PPM * 0.9e-6),
    st.lists(st.tuples(WAYS, WAYS, WAYS), min_size=2, max_size=40),
    st.integers(1, 30),
)
def test_a_drifting_clocks_stamps_come_out_within_what_is_stated(
    offset_ns: int, drift: float, ways: Sequence[Ways], every_s: int
) -> None:
    clock = RemoteClock()
    for number, each in enumerate(ways):
        one = trip(number * every_s * SECOND, offset_ns, *each, drift=drift)
        clock.learn(one)
        sampled_ns = one.sent_ns  # on our clock; the exporter stamps with its own
        ours = clock.ours(sampled_ns + offset_ns + round(sampled_ns * drift))
        assert ours is not None
        stated_ns = clock.facts()["uncertainty_ms"] * MS
        assert abs(ours - sampled_ns) <= stated_ns + 3
    assert clock.jumps == 0


def test_how_long_the_exporter_took_costs_no_more_than_the_drift_meanwhile() -> None:
    slow, quick = trip(0, 77, MS, 3 * SECOND, MS).offset(), trip(0, 77, MS, 0, MS).offset()
    assert slow.offset_ns == quick.offset_ns == 77
    assert quick.uncertainty_ns == MS + 400 + 1  # 200 ppm of 2 ms
    assert slow.uncertainty_ns == MS + 600_400 + 1


def test_the_drift_of_a_run_is_found_between_its_ends() -> None:
    clock = RemoteClock()
    clock.learn(*(trip(n, 10**12, 10_000, 0, 10_000, drift=50e-6) for n in range(8)))
    clock.learn(*(trip(600 * SECOND + n, 10**12, 10_000, 0, 10_000, drift=50e-6) for n in range(8)))
    facts = clock.facts()
    assert facts["drift_ppm"] == pytest.approx(50, abs=0.1)
    assert facts["drift_uncertainty_ppm"] == pytest.approx(2 * 10_005 / 600e9 * 1e6)  # 10 us, and 200 ppm of 20 us
    assert facts["trips"] == 16
    assert facts["offset_s"] == pytest.approx(1000.03)


def test_a_worse_trip_does_not_replace_a_better_one_until_that_has_aged() -> None:
    clock = RemoteClock()
    clock.learn(trip(0, 5, MS, 0, MS))
    good = clock.now
    clock.learn(trip(SECOND, 5, 50 * MS, 0, 50 * MS))
    assert clock.now == good
    # 50 ms are worth more than 1 ms once 200 ppm have run for long enough: 49 ms / 200e-6 = 245 s.
    clock.learn(trip(244 * SECOND, 5, 50 * MS, 0, 50 * MS))
    assert clock.now == good
    clock.learn(trip(246 * SECOND, 5, 50 * MS, 0, 50 * MS))
    assert clock.now != good


def test_a_clock_that_starts_again_is_noticed_and_followed() -> None:
    clock = RemoteClock()
    clock.learn(trip(0, 10**15, MS, 0, MS))
    clock.learn(trip(10 * SECOND, -(10**9), 20 * MS, 0, 20 * MS))
    assert clock.jumps == 1
    ours = clock.ours(12 * SECOND - 10**9)
    assert ours is not None
    assert abs(ours - 12 * SECOND) <= 21 * MS


@pytest.mark.parametrize("absurd", [RoundTrip(0, 100, 50, 10), RoundTrip(0, 0, SECOND, 5 * MS)])
def test_stamps_that_make_no_sense_teach_nothing(absurd: RoundTrip) -> None:
    clock = RemoteClock()
    clock.learn(absurd)
    assert not absurd.sane
    assert clock.now is None
    assert clock.ours(5) is None
    assert clock.facts() == {"offset_s": None, "trips": 1}

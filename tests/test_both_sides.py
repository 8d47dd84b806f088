"""The client's and the server's latencies over the same requests, with arithmetic done by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from servemark.harness.figures.both_sides import Side, both_sides, stages
from servemark.harness.types import ServerSample
from tests.frames import answer, at, failed, frame

# Sent 10 ms late; first tokens 90 and 190 ms after that, 5 tokens each, 20 and 30 ms apart.
FIRST = answer(0, 0, (100, 120, 140, 160, 180), (1,) * 5, sent=10)
SECOND = answer(1, 1000, (200, 230, 260, 290, 320), (1,) * 5, sent=10)


def told(from_ms: float, to_ms: float, **means: tuple[float, int]) -> list[ServerSample]:
    """Readings at two moments, between which these means in ms of so many values came."""
    end = {}
    for name, (ms, count) in means.items():
        end |= {f"{name}_sum": 5.0 + ms * count / 1000, f"{name}_count": 100.0 + count}
    start = {name: 5.0 if name.endswith("_sum") else 100.0 for name in end}
    return [ServerSample(at(from_ms), start), ServerSample(at(to_ms), end)]


def test_means_from_sending_beside_the_servers() -> None:
    samples = told(-50, 5000, ttft=(120, 2), itl=(24, 8), tpot=(24, 2), e2e=(225, 2))
    found = both_sides(frame(FIRST, SECOND), samples)
    # TTFT (90 + 190) / 2; E2E (170 + 310) / 2; gaps (4 * 20 + 4 * 30) / 8; TPOT (20 + 30) / 2.
    expected = {"ttft": (140, 2, 120), "e2e": (240, 2, 225), "itl": (25, 8, 24), "tpot": (25, 2, 24)}
    assert set(found) == set(expected)
    for name, (client_ms, count, server_ms) in expected.items():
        sides = found[name]
        assert (sides.client, sides.server) == (
            Side(pytest.approx(client_ms), count),
            Side(pytest.approx(server_ms), count),
        )
        assert sides.outside_ms == pytest.approx(client_ms - server_ms)
    assert found["ttft"].basis == "ttft_sent"
    assert found["itl"].basis == "itl"


def test_only_requests_that_the_server_counted_between_its_readings_are_taken() -> None:
    """The first reading comes after the first request, the last one while the second still gets tokens."""
    found = both_sides(frame(FIRST, SECOND), told(500, 1250, ttft=(150, 1), e2e=(300, 1)))
    assert found["ttft"].client == Side(pytest.approx(190), 1)
    assert "e2e" not in found


def test_a_request_that_broke_after_its_first_token_has_a_ttft_and_no_e2e() -> None:
    broken = replace(SECOND, error="incomplete")
    found = both_sides(frame(FIRST, broken, failed(2, 2000)), told(-50, 5000, ttft=(120, 2), e2e=(100, 1)))
    assert found["ttft"].client == Side(pytest.approx(140), 2)
    assert found["e2e"].client == Side(pytest.approx(170), 1)


def test_gaps_are_taken_per_chunk_where_the_server_counted_as_many_steps_as_chunks() -> None:
    """Speculative decoding: 9 tokens in 5 chunks, and the server counts the 4 steps after the first."""
    drafted = answer(0, 0, (100, 120, 140, 160, 180), (1, 2, 2, 2, 2), sent=10)
    per_step = both_sides(frame(drafted), told(-50, 5000, itl=(20, 4)))["itl"]
    assert (per_step.basis, per_step.client) == ("icl", Side(pytest.approx(20), 4))
    # Several steps to a chunk: the server counts each of the 8 tokens after the first.
    per_token = both_sides(frame(drafted), told(-50, 5000, itl=(10, 8)))["itl"]
    assert (per_token.basis, per_token.client) == ("itl", Side(pytest.approx(10), 8))


def test_what_one_side_does_not_know_is_not_set_beside_the_other() -> None:
    samples = told(-50, 5000, ttft=(120, 2))
    assert both_sides(frame(FIRST), samples[:1]) == {}
    assert both_sides(frame(FIRST), []) == {}
    assert both_sides(frame(), samples) == {}
    assert both_sides(frame(failed(0, 0)), samples) == {}
    assert set(both_sides(frame(FIRST), samples)) == {"ttft"}


def test_a_server_that_started_anew_has_no_means() -> None:
    samples = [*told(-50, 2000, ttft=(120, 2)), ServerSample(at(3000), {"ttft_sum": 0.1, "ttft_count": 1.0})]
    assert both_sides(frame(FIRST, SECOND), samples) == {}


def test_stages_of_a_request_as_the_server_tells_them() -> None:
    found = stages(told(-50, 5000, queue_time=(12, 2), decode_time=(100, 2), ttft=(120, 2)))
    assert found == {"queue_time": Side(pytest.approx(12), 2), "decode_time": Side(pytest.approx(100), 2)}

"""What the live view is told while a run goes on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from servemark.dashboards.live import line
from servemark.dashboards.progress import Tally
from servemark.harness.load.messages import Status
from servemark.harness.types import Record

MS, SECOND = 1_000_000, 1_000_000_000
START = 5 * SECOND
GOOD = Record(
    request_id=0,
    class_="default",
    session_id=None,
    turn=0,
    url="http://h",
    worker=0,
    phase="measured",
    intended_ns=START,
    sent_ns=START + MS,
    first_token_ns=START + 40 * MS,
    chunk_ns=(START + 40 * MS, START + 60 * MS, START + 100 * MS),
    chunk_tokens=(1, 1, 2),
    output_tokens=4,
    reads=3,
)


def tally(total_s: float | None = 60.0, requests: int | None = None, warmup_s: float = 10.0) -> Tally:
    made = Tally(total_s, requests, warmup_s)
    made.started(START)
    return made


def test_who_gave_up_has_not_failed_and_is_not_waited_for() -> None:
    made = tally(requests=3)
    for error in (None, "gave_up", "reset"):
        made.record(replace(GOOD, error=error))
    found = made.progress(START + SECOND)
    assert (found.done, found.gave_up, found.failed, found.errors) == (1, 1, 1, {"reset": 1})
    assert found.ended == 3
    assert "gave up 1" in line(found)


def status(at_ns: int, reads: int, sent: int = 9, in_flight: int = 4) -> Status:
    return Status(at_ns, sent, in_flight, sent - in_flight, reads)


def test_before_the_start_nothing_is_known() -> None:
    progress = Tally(60.0, None, 10.0).progress(START)
    assert (progress.elapsed_s, progress.sent, progress.done, progress.failed) == (0.0, 0, 0, 0)
    assert (progress.ttft_ms, progress.itl_ms, progress.tokens_per_s) == (None, None, None)


@pytest.mark.parametrize(
    ("at_s", "phase"), [(-1, "warmup"), (0, "warmup"), (9.9, "warmup"), (10, "measured"), (60, "draining")]
)
def test_phases_go_by_time(at_s: float, phase: str) -> None:
    assert tally().progress(START + round(at_s * SECOND)).phase == phase


def test_a_run_without_a_length_in_time_is_never_draining() -> None:
    assert tally(None, 100, 0.0).progress(START + 3600 * SECOND).phase == "measured"


def test_a_last_session_that_goes_on_makes_the_run_longer_and_not_over() -> None:
    made = tally(None, 10, 0.0)
    made.status(status(START, 0, sent=9))
    assert made.progress(START).total_requests == 10
    made.status(status(START + SECOND, 0, sent=13))
    assert made.progress(START).total_requests == 13


def test_a_run_that_is_being_stopped_says_so() -> None:
    made = tally()
    made.stopping()
    assert made.progress(START + SECOND).phase == "stopping"


def test_medians_are_of_successes_and_failures_are_counted_by_kind() -> None:
    made = tally()
    made.record(GOOD)
    made.record(replace(GOOD, error="reset", first_token_ns=START + 900 * MS))
    made.record(replace(GOOD, error="reset"))
    made.record(replace(GOOD, error="empty"))
    progress = made.progress(START + SECOND)
    assert (progress.done, progress.failed) == (1, 3)
    assert progress.errors == {"reset": 2, "empty": 1}
    assert progress.ttft_ms == 40
    assert progress.itl_ms == 20  # gaps of 20 ms and, for two tokens, of 40 ms


def test_a_chunk_of_unknown_size_is_taken_for_one_token() -> None:
    made = tally()
    made.record(replace(GOOD, chunk_tokens=(None, None, None), output_tokens=None))
    assert made.progress(START).itl_ms == 30


def test_tokens_a_second_count_what_is_still_in_flight() -> None:
    """Reads of the last two seconds, times the tokens that a read of a finished request held: 4 in 3 reads."""
    made = tally()
    made.status(status(START, reads=0))
    assert made.progress(START).tokens_per_s is None
    made.status(status(START + SECOND, reads=300))
    assert made.progress(START).tokens_per_s == 300
    made.record(GOOD)
    assert made.progress(START).tokens_per_s == pytest.approx(400)


def test_tokens_a_second_are_of_late() -> None:
    made = tally()
    for second in range(10):
        made.status(status(START + second * SECOND, reads=0 if second < 5 else 60 * (second - 4)))
    assert made.progress(START).tokens_per_s == 60
    for second in range(10, 14):
        made.status(status(START + second * SECOND, reads=300))
    assert made.progress(START).tokens_per_s == 0


def test_a_request_with_very_many_chunks_costs_no_more_than_one_with_few() -> None:
    made = tally()
    stamps = tuple(START + k * MS for k in range(50_000))
    made.record(replace(GOOD, chunk_ns=stamps, chunk_tokens=(1,) * 50_000))
    assert len(made._gap_ms) <= 10
    assert made.progress(START).itl_ms == 1

"""Reads become chunks: all that one read brought is one chunk, however the body was framed."""

from __future__ import annotations

import pytest

from servemark.adapters.vllm import ADAPTER
from servemark.harness.load.reading import Reading, believable
from servemark.harness.load.sse import SseParser
from servemark.harness.types import Outcome, Usage
from tests.scripted_server import event


def reading() -> Reading:
    return Reading(SseParser(), ADAPTER.decoder("chat"))


def test_each_read_with_tokens_is_a_chunk() -> None:
    it = reading()
    for k in range(1, 4):
        it.read(100 * k, event("w", k))
    assert (it.chunk_ns, it.chunk_tokens, it.reads, it.coalesced) == ([100, 200, 300], [1, 1, 1], 3, 0)


def usage(count: int) -> bytes:
    return b'data: {"choices":[{"delta":{"content":"w"}}],"usage":{"completion_tokens":%d}}\n\n' % count


@pytest.mark.parametrize("count", [2**31, 2**63, 10**400])
def test_a_count_that_no_result_could_hold_is_an_error(count: int) -> None:
    it = reading()
    it.read(7, usage(count))
    assert (it.chunk_tokens, it.error) == ([], "the server tells of more than 2,147,483,647 tokens in an event")


@pytest.mark.parametrize("count", [-1, 2**31])
def test_usage_that_no_result_could_hold_is_an_error_in_its_place(count: int) -> None:
    for told in (Usage(count, 1), Usage(1, count), Usage(1, 1, count), Usage(1, 1, None, count)):
        outcome = believable(Outcome(told, "stop"))
        assert (outcome.usage, outcome.error, outcome.finish_reason) == (Usage(), "protocol", "stop")
    kept = Outcome(Usage(0, 2**31 - 1, None, 0))
    assert believable(kept) is kept
    assert believable(Outcome(Usage(count), error="server_error", error_detail="died")).error_detail == "died"


def test_json_that_is_nested_too_deeply_fails_its_request_only() -> None:
    it = reading()
    it.read(7, b'data: {"choices":[],"id":' + b"[" * 100_000 + b"\n\n")
    assert it.error is not None


def test_events_of_one_read_are_one_chunk_and_one_coalesced_read() -> None:
    """In one body or in several: the server's framing must not change what was measured."""
    together, apart = reading(), reading()
    together.read(7, b"".join(event("w", k) for k in range(1, 6)))
    for k in range(1, 6):
        apart.read(7, event("w", k))
    for it in (together, apart):
        assert (it.chunk_ns, it.chunk_tokens, it.reads, it.coalesced) == ([7], [5], 1, 1)


def test_a_role_only_event_beside_a_token_is_no_coalesced_read() -> None:
    it = reading()
    role = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}],"usage":{"completion_tokens":0}}\n\n'
    it.read(7, role + event("w", 1))
    assert (it.chunk_tokens, it.coalesced) == ([1], 0)


def test_an_event_split_over_two_reads_belongs_to_the_second() -> None:
    it, whole = reading(), event("w", 1)
    it.read(1, whole[:20])
    assert it.first_token_ns is None
    it.read(2, whole[20:])
    assert (it.first_token_ns, it.reads) == (2, 2)

"""The decoder of OpenAI streams where counts are partial: a number is given when it is known, and never guessed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from servemark.adapters.base import error_text
from servemark.adapters.openai_chunks import ChunkDecoder
from servemark.harness.types import Delta


def chunk(content: str | None, counted: int | None = None, ids: list[int] | None = None, **more: Any) -> bytes:
    delta = {} if content is None else {"content": content}
    event: dict[str, Any] = {"id": "c", "choices": [{"index": 0, "delta": delta | more, "token_ids": ids}]}
    if counted is not None:
        event["usage"] = {"prompt_tokens": 3, "completion_tokens": counted}
    return json.dumps(event).encode()


def fed(*events: bytes) -> tuple[ChunkDecoder, list[Delta]]:
    decoder = ChunkDecoder()
    return decoder, [decoder.feed(event) for event in events]


def sizes(*events: bytes) -> list[int | None]:
    return [delta.tokens for delta in fed(*events)[1]]


def test_a_count_after_uncounted_text_is_not_put_on_one_chunk_but_counts_from_there_on() -> None:
    assert sizes(chunk("a"), chunk("b"), chunk("c", 3), chunk("d", 4), chunk("e", 6)) == [None, None, None, 1, 2]


def test_a_usage_that_stands_still_until_the_end_says_nothing_of_the_last_chunk() -> None:
    assert sizes(chunk("a", 0), chunk("b", 0), chunk("c", 9)) == [None, None, None]


def test_token_ids_count_where_usage_does_not_and_both_go_together() -> None:
    assert sizes(chunk("a", ids=[7]), chunk("bc", ids=[8, 9]), chunk("d", 4, ids=[10])) == [1, 2, 1]


def test_token_ids_of_some_chunks_only_are_no_count_of_the_answer() -> None:
    decoder, _ = fed(chunk("a", ids=[7]), chunk("b"), b"[DONE]")
    usage = decoder.finish(clean=True).usage
    assert (usage.output_tokens, usage.source) == (None, "none")


def test_a_usage_that_shrinks_carries_no_negative_count() -> None:
    assert sizes(chunk("a", 3), chunk("b", 2)) == [3, None]


def test_tokens_without_text_belong_to_the_part_they_stand_in() -> None:
    _, deltas = fed(
        chunk(None, 1),  # a marker that opens the reasoning
        chunk(None, 2, reasoning="Hm"),
        chunk("", 3),
        chunk("So", 4),
        chunk(None, 5),
        chunk("", 6),
    )
    assert [delta.carries for delta in deltas] == [True] * 6
    assert [delta.answer for delta in deltas] == [False, False, False, True, True, True]


def test_the_first_error_is_the_one_that_is_told() -> None:
    decoder, deltas = fed(b'{"error":"first"}', b'{"error":{"message":"second"}}', b"[DONE]")
    assert [delta.error for delta in deltas] == ["first", "second", None]
    outcome = decoder.finish(clean=True)
    assert (outcome.error, outcome.error_detail) == ("server_error", "first")


def test_a_long_error_is_cut() -> None:
    decoder, _ = fed(json.dumps({"error": "x" * 100_000}).encode())
    assert len(decoder.finish(clean=True).error_detail or "") == 500


def test_a_choice_less_event_of_no_tokens_is_fine() -> None:
    """Some gateways open with a content filter's result."""
    assert fed(b'{"choices":[],"prompt_filter_results":[]}')[1] == [Delta()]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ({"message": "no", "type": "BadRequestError", "code": 400}, "400 BadRequestError: no"),
        ({"message": "no", "type": None, "code": None}, "no"),
        ({"code": 7}, "7: no message"),
        ({}, "no message"),
        ("text", "text"),
        (["a"], "['a']"),
    ],
)
def test_an_errors_text(error: object, text: str) -> None:
    assert error_text(error) == text

"""Records of made-up answers, in milliseconds from a start that is far from zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from servemark.harness.clock import MS
from servemark.harness.figures.frame import Frame
from servemark.harness.types import Record

START_NS = 7_000_000_000_123


def at(ms: float) -> int:
    return START_NS + round(ms * MS)


def answer(
    index: int = 0,
    intended: float = 0.0,
    chunks: Sequence[float] = (50.0, 60.0, 70.0),
    tokens: Sequence[int | None] | None = None,
    sent: float = 0.0,
    **changes: Any,
) -> Record:
    """A response whose chunks come `chunks` ms after the intended time; `sent` is ms after it too."""
    counts = tuple(tokens) if tokens is not None else (1,) * len(chunks)
    stamps = tuple(at(intended + each) for each in chunks)
    fields: dict[str, Any] = {
        "request_id": index,
        "class_": "default",
        "session_id": None,
        "turn": 0,
        "url": "http://a",
        "worker": 0,
        "phase": "measured",
        "intended_ns": at(intended),
        "sent_ns": at(intended + sent),
        "first_token_ns": stamps[0] if stamps else None,
        "first_answer_ns": stamps[0] if stamps else None,
        "last_token_ns": stamps[-1] if stamps else None,
        "done_ns": stamps[-1] + MS if stamps else at(intended + 1000),
        "chunk_ns": stamps,
        "chunk_tokens": counts,
        "prompt_tokens": 100,
        "output_tokens": sum(count or 0 for count in counts),
        "token_source": "usage",
        "reads": len(stamps),
    }
    return Record(**(fields | changes))


def failed(index: int = 0, intended: float = 0.0, error: str = "reset", **changes: Any) -> Record:
    return answer(index, intended, (), (), error=error, output_tokens=None, prompt_tokens=None, **changes)


def frame(*records: Record) -> Frame:
    return Frame.from_records(records)

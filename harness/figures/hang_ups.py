"""Clients that gave up, beside what the server did about it: aborted their requests, or went on for nobody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from servemark.harness.clock import SECOND
from servemark.harness.figures.chunks import counted
from servemark.harness.figures.frame import MISSING, Frame
from servemark.harness.server.samples import growth
from servemark.harness.types import ServerSample

_CUT = ("gave_up", "timeout_first_event", "timeout_gap", "timeout_total", "abandoned")
"""Requests that the client ended."""


@dataclass(frozen=True, slots=True)
class HangUps:
    """Of the whole run. `clients` gave up; `cut` requests were sent and then ended by the client for any reason.

    `aborted` is the server's own count, `unwanted_tokens` what it generated beyond what anybody received, and
    `missing_tokens` what the cut requests had still asked for; None where it cannot be told.
    """

    clients: int
    measured: int
    waited_s: float
    """Median wait."""
    cut: int
    aborted: int | None
    unwanted_tokens: int | None
    missing_tokens: int | None

    @property
    def unwanted_share(self) -> float | None:
        """0: the server stopped at once; 1: it generated every answer to its end."""
        if self.unwanted_tokens is None or not self.missing_tokens:
            return None
        return self.unwanted_tokens / self.missing_tokens

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def hang_ups(frame: Frame, samples: Sequence[ServerSample]) -> HangUps | None:
    """None where nobody gave up. `samples` are of the whole deployment."""
    gone = frame.gave_up
    if not gone.any():
        return None
    waited = (frame["done_ns"] - frame["intended_ns"])[gone] / SECOND
    cut = np.isin(frame["error"].astype(str), _CUT) & (frame["sent_ns"] != MISSING)
    aborted = growth(samples, "requests_aborted")
    unwanted, missing = _tokens(frame, cut, samples)
    return HangUps(
        clients=int(gone.sum()),
        measured=int((gone & frame.measured).sum()),
        waited_s=float(np.median(waited)),
        cut=int(cut.sum()),
        aborted=None if aborted is None else round(aborted),
        unwanted_tokens=unwanted,
        missing_tokens=missing,
    )


def _tokens(frame: Frame, cut: Any, samples: Sequence[ServerSample]) -> tuple[int | None, int | None]:
    """(generated and received by nobody, asked of the cut requests and not received), where both can be told."""
    generated = growth(samples, "generation_tokens")
    asked, whole = frame.floats("asked_output_tokens")[cut], frame.floats("output_tokens")
    if generated is None or np.isnan(asked).any() or np.isnan(whole[frame.ok]).any():
        return None, None
    tokens, known = counted(frame)
    # Of a stream without counts each chunk is taken for a token: that errs on the server's side.
    received = np.bincount(frame.chunk_rows, np.where(known[frame.chunk_rows], tokens, 1), len(frame))
    received = np.where(frame.ok, whole, received)
    return max(0, round(generated - received.sum())), round(np.maximum(asked - received[cut], 0).sum())

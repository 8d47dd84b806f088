"""Speculative decoding: how many tokens a step gives a request, and how many are computed for each that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from servemark.harness.efficiency.readings import grown
from servemark.harness.figures.frame import Window
from servemark.harness.types import ServerSample


@dataclass(frozen=True, slots=True)
class Speculation:
    """`tokens_per_step` that a request is given; `verified` positions computed for each token given."""

    tokens_per_step: float = 1.0
    verified: float = 1.0
    accepted: float | None = None
    """Share of the drafted tokens."""

    @property
    def on(self) -> bool:
        return self.accepted is not None


def speculation(samples: Sequence[ServerSample], window: Window) -> Speculation:
    """A step checks a draft and gives the tokens accepted and one more; without counters nothing is drafted."""
    drafts, drafted, accepted = (
        grown(samples, name, window) for name in ("spec_drafts", "spec_draft_tokens", "spec_accepted_tokens")
    )
    if not drafts or not drafted or accepted is None:
        return Speculation()
    return Speculation((drafts + accepted) / drafts, (drafts + drafted) / (drafts + accepted), accepted / drafted)

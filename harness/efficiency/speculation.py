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
        """All of it is known."""
        return self.accepted is not None

    @property
    def drafts(self) -> bool:
        return self.on or self.tokens_per_step > 1


def speculation(samples: Sequence[ServerSample], window: Window) -> Speculation:
    """A step gives a request one token and the drafted ones that are accepted; without counters nothing is drafted.

    Not every step has a draft (none is found, or the batch is too large), which shows in tokens that no draft gave.
    SGLang counts its drafts alone, one for each request and step; what was checked in vain is not known then.
    """
    drafts, drafted, accepted = (
        grown(samples, name, window) for name in ("spec_drafts", "spec_draft_tokens", "spec_accepted_tokens")
    )
    if not drafts:
        return Speculation()
    decoded = _decoded(samples, window)
    if not drafted or accepted is None:
        return Speculation(max(1.0, decoded / drafts))
    given = max(drafts + accepted, decoded)
    return Speculation(given / (given - accepted), (given - accepted + drafted) / given, accepted / drafted)


def _decoded(samples: Sequence[ServerSample], window: Window) -> float:
    """Output tokens by the server's count, less the first one of each answer, which comes with its prompt."""
    tokens, first = (grown(samples, name, window) for name in ("generation_tokens", "ttft_count"))
    return 0.0 if tokens is None or first is None else tokens - first

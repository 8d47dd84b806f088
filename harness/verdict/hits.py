"""How many prompt tokens came from the prefix cache, beside how many the workload implies for the same requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from servemark.harness.figures.frame import MISSING, Frame, Mask
from servemark.harness.plan.cache_rate import Sent, Sharing, implied
from servemark.harness.server.samples import growth
from servemark.harness.types import ServerSample

Source = Literal["responses", "counters"]
_COUNTERS = (("prompt_tokens_cached", "prompt_tokens"), ("prefix_hits", "prefix_queries"))


@dataclass(frozen=True, slots=True)
class HitRate:
    """Shares of prompt tokens; None where nobody tells.

    `expected` is what a cache with this server's blocks would have that keeps everything, `ideal` one that keeps it to
    the token. By the responses all are of the measured requests, by the server's counters of all requests.
    """

    observed: float | None = None
    source: Source | None = None
    expected: float | None = None
    ideal: float | None = None

    def facts(self) -> dict[str, Any]:
        """For the result."""
        named = asdict(self)
        return {f"{name}_hit_rate": named[name] for name in ("observed", "expected", "ideal")} | {"source": self.source}


def hit_rate(frame: Frame, server: Sequence[ServerSample], sharing: Sharing, block: int | None = None) -> HitRate:
    observed, source = _observed(frame, server)
    counted = np.ones(len(frame), dtype=np.bool_) if source == "counters" else frame.measured
    found = implied(_sent(frame, sharing, counted), sharing.held, block or 1)
    return HitRate(observed, source, found.rate(found.in_blocks), found.rate(found.ideal))


def _observed(frame: Frame, server: Sequence[ServerSample]) -> tuple[float | None, Source | None]:
    """By the responses, or else by the server's counters."""
    rows = frame.measured & (frame["prompt_tokens"] > 0)
    told = rows & (frame["cached_tokens"] != MISSING)
    if told.any():
        # Some servers leave the field out where it is 0.
        return float(frame["cached_tokens"][told].sum() / frame["prompt_tokens"][rows].sum()), "responses"
    for hits, total in _COUNTERS:
        part, whole = growth(server, hits), growth(server, total)
        if part is not None and whole:
            return part / whole, "counters"
    return None, None


def _sent(frame: Frame, sharing: Sharing, counted: Mask) -> Iterator[Sent]:
    """The requests that were sent, in order; their length as the server counts it, else as it was asked."""
    lengths = np.where(frame["prompt_tokens"] > 0, frame["prompt_tokens"], frame["asked_prompt_tokens"])
    rows = np.flatnonzero((frame["sent_ns"] != MISSING) & (lengths > 0))
    columns = (frame["url"], frame["request_id"], lengths, counted)
    for url, index, tokens, counts in zip(*(column[rows].tolist() for column in columns), strict=True):
        yield Sent(url, tokens, sharing.of(index), counts)

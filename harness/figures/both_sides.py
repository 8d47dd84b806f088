"""The same latencies as the client stamped them and as the server counts them, over the same requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from servemark.harness.figures.frame import Floats, Frame, Mask
from servemark.harness.server.samples import mean_of
from servemark.harness.types import ServerSample

STAGES = ("queue_time", "prefill_time", "decode_time")
"""Parts of a request's time that some servers tell."""


@dataclass(frozen=True, slots=True)
class Side:
    """A mean in ms, and of how many values: requests, or gaps for ITL."""

    ms: float
    n: int


@dataclass(frozen=True, slots=True)
class BothSides:
    """One latency; `basis` says what the client's is, counted from sending."""

    client: Side
    server: Side
    basis: str

    @property
    def outside_ms(self) -> float:
        """What passes outside the server's own count; negative where the server counts more."""
        return self.client.ms - self.server.ms


def both_sides(frame: Frame, samples: Sequence[ServerSample]) -> dict[str, BothSides]:
    """By name (ttft, itl, tpot, e2e), those that both sides have. `samples` are of the whole deployment.

    The server's means are over what it counted between the first reading and the last, so the client's are over the
    requests whose tokens came in that time, whatever their phase.
    """
    return dict(_found(frame, samples)) if len(samples) > 1 and len(frame) else {}


def stages(samples: Sequence[ServerSample]) -> dict[str, Side]:
    """What the server says of the stages of a request, over all that it finished between its readings."""
    found = {name: mean_of(samples, name) for name in STAGES}
    return {name: Side(mean[0] * 1000, mean[1]) for name, mean in found.items() if mean is not None}


def _found(frame: Frame, samples: Sequence[ServerSample]) -> Iterator[tuple[str, BothSides]]:
    begun = _inside(frame, "first_token_ns", samples)
    ended = begun & _inside(frame, "last_token_ns", samples)
    ttft, e2e = (frame.ms_between("sent_ns", f"{which}_token_ns") for which in ("first", "last"))
    for name, values, basis in (
        ("ttft", ttft[begun], "ttft_sent"),
        ("tpot", _tpot(frame)[ended & frame.ok], "tpot_n1"),
        ("e2e", e2e[ended & frame.ok], "e2e_sent"),
    ):
        client, server = _mean(values), _told(samples, name)
        if client is not None and server is not None:
            yield name, BothSides(client, server, basis)
    server = _told(samples, "itl")
    if server is not None and (gaps := _gaps(frame, ended, server.n)) is not None:
        yield "itl", BothSides(gaps[0], server, gaps[1])


def _inside(frame: Frame, stamp: str, samples: Sequence[ServerSample]) -> Mask:
    inside: Mask = (frame[stamp] >= samples[0].at_ns) & (frame[stamp] <= samples[-1].at_ns)
    return inside


def _told(samples: Sequence[ServerSample], name: str) -> Side | None:
    mean = mean_of(samples, name)
    return None if mean is None else Side(mean[0] * 1000, mean[1])


def _mean(values: Floats) -> Side | None:
    known = values[~np.isnan(values)]
    return Side(float(known.mean()), len(known)) if len(known) else None


def _tpot(frame: Frame) -> Floats:
    following = frame.floats("output_tokens") - 1
    return frame.ms_between("first_token_ns", "last_token_ns") / np.where(following > 0, following, np.nan)


def _gaps(frame: Frame, rows: Mask, counted: int) -> tuple[Side, str] | None:
    """The client's mean gap between tokens or between chunks, whichever there are as many of as the server counted.

    A server counts the steps that gave a request tokens: with speculative decoding fewer than tokens, and with
    several steps to a chunk more than chunks.
    """
    span, tokens = frame.ms_between("first_token_ns", "last_token_ns"), frame.floats("output_tokens") - 1
    used = rows & (frame.counts > 1)
    by_chunk, by_token = used, used & (tokens > 0)
    found = [
        (Side(float(span[which].sum() / n), int(n)), basis)
        for which, n, basis in (
            (by_token, tokens[by_token].sum(), "itl"),
            (by_chunk, (frame.counts[by_chunk] - 1).sum(), "icl"),
        )
        if n > 0
    ]
    return min(found, key=lambda side: abs(side[0].n - counted), default=None)

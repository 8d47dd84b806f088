"""Failures on demand: which requests fail, and how, drawn by seed. None unless `--fault` asks for them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from servemark.harness.errors import BadInput

KINDS: Final = {
    "http500": "status 500 with an error body, before anything is computed",
    "http503": "status 503 with an error body, as an overloaded server gives",
    "reset": "the connection is broken before any byte of the response",
    "cut": "the connection is broken in the middle of the stream",
    "error_event": "an error event inside the 200 stream, or what the server does instead",
    "no_end": "the stream ends cleanly but early: no finish reason, no usage, no end marker",
    "empty": "a clean 200 stream that holds its end marker and no token",
    "garbage": "an event that is no JSON, then the stream goes on",
    "stall": "the stream falls silent for `--stall-s` and then catches up",
}
AT_ONCE: Final = frozenset({"http500", "http503", "reset"})
_LATEST_TOKEN = 8


@dataclass(frozen=True, slots=True)
class Fault:
    kind: str
    after_tokens: int
    """It happens when the stream would send the token after this many."""


@dataclass(frozen=True, slots=True)
class FaultPlan:
    shares: tuple[tuple[str, float], ...] = ()
    seed: int = 0

    @classmethod
    def parse(cls, text: str, seed: int) -> FaultPlan:
        """`kind:share[,kind:share...]`, for example `cut:0.05,http500:0.01`; shares are of all requests."""
        shares = tuple(_share(part.strip()) for part in text.split(",") if part.strip())
        if sum(share for _, share in shares) > 1 + 1e-9:
            raise BadInput(f"--fault: the shares of {text!r} add up to more than 1")
        return cls(shares, seed)

    def draw(self, ordinal: int) -> Fault | None:
        """The fate of the request that arrived as number `ordinal`."""
        if not self.shares:
            return None
        rng = random.Random(hash((self.seed, ordinal)))  # noqa: S311
        point = rng.random()
        for kind, share in self.shares:
            if point < share:
                return Fault(kind, 0 if kind == "empty" else rng.randint(1, _LATEST_TOKEN))
            point -= share
        return None


def _share(part: str) -> tuple[str, float]:
    kind, _, number = part.partition(":")
    if kind not in KINDS:
        raise BadInput(f"--fault: there is no fault {kind!r}; there are: {', '.join(KINDS)}")
    try:
        share = float(number)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise BadInput(f"--fault: {part!r} wants a share between 0 and 1, such as {kind}:0.05")
    return kind, share

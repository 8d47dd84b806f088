"""A word to whoever watches, on stderr, beside what a command prints."""

from __future__ import annotations

import contextlib
import sys

from servemark.harness.plaintext import harmless


def aside(text: str) -> None:
    """Whoever read it may have gone; that changes nothing."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(harmless(text), file=sys.stderr, flush=True)

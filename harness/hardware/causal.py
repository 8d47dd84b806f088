"""What causal attention looks at: all tokens before, or those in a window."""

from __future__ import annotations

from typing import Any


def capped(tokens: Any, window: int | None) -> Any:
    """No more than the window; numpy arrays too."""
    if window is None:
        return tokens
    return min(tokens, window) if isinstance(tokens, int | float) else tokens.clip(max=window)


def pairs(start: Any, new: Any, window: int | None) -> Any:
    """(query, key) pairs of causal attention of `new` tokens after `start`, each with itself and what it looks at."""
    return _triangle(start + new, window) - _triangle(start, window)


def _triangle(tokens: Any, window: int | None) -> Any:
    """The sum over p from 1 to `tokens` of min(p, window)."""
    within = capped(tokens, window)
    return within * (within + 1) / 2 + (tokens - within) * within

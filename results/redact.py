"""Keeps secrets out of everything that is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

MARK = "[redacted]"
SHORTEST = 4  # a shorter one is no secret, and replacing it everywhere would make nonsense of the text
OUR_WORDS = frozenset({"phase", "stamp", "error"})
"""Keys of a record whose values are words of ours: no server writes there, and a reader knows no others."""


class Redactor:
    """Replaces secrets in the text values of JSON; numbers and keys stay as they are."""

    def __init__(self, secrets: Sequence[str]) -> None:
        # Longest first: one secret may be part of another ("Bearer abc" and "abc").
        self._secrets = sorted({s for s in secrets if len(s) >= SHORTEST}, key=len, reverse=True)
        self._encoded = [msgspec.json.encode(s)[1:-1] for s in self._secrets]

    def line(self, encoded: bytes) -> bytes:
        """The same JSON without secrets; costs one search per secret where there is none."""
        if not any(secret in encoded for secret in self._encoded):
            return encoded
        return msgspec.json.encode(self._clean(msgspec.json.decode(encoded)))

    json = line

    def text(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, MARK)
        return text

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self._clean(item) for item in value]
        if isinstance(value, dict):
            return {key: item if key in OUR_WORDS else self._clean(item) for key, item in value.items()}
        return value

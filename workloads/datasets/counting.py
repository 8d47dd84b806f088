"""Tokens of texts that were not made up: exact by a tokenizer file, else estimated."""

from __future__ import annotations

from servemark.harness.plan.vocabulary import FIRST_WORD, LAST_PIECE, Vocabulary

BYTES_PER_TOKEN = 4
"""Of UTF-8, in an estimate: what English takes in common vocabularies. Code takes fewer."""

ESTIMATED = f"lengths are estimates, a token for each {BYTES_PER_TOKEN} bytes; --tokenizer counts them"


def at_most(text: str) -> int:
    """No tokenizer makes more of a text: a token for each byte, and one for what some put before it."""
    return 1 + len(text.encode(errors="replace"))


class TextCounter:
    """Counts texts by a vocabulary's tokenizer, where it has one."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._count = vocabulary.count
        self.estimates = self._count is None
        self._exact = vocabulary.exact and not self.estimates
        filler = 2 if self._count is None else self._count(FIRST_WORD + LAST_PIECE)
        self.overhead = max(0, vocabulary.fixed_tokens - filler)
        """What the endpoint adds to a prompt: the chat template, BOS."""
        self.lead = min(self.overhead, vocabulary.shared_prefix_tokens)
        """Of that, what stands before the prompt."""

    def of(self, text: str) -> int:
        """Of the text by itself."""
        if self._count is not None:
            return self._count(text)
        size = len(text) if text.isascii() else len(text.encode(errors="replace"))
        return -(-size // BYTES_PER_TOKEN)

    def asked(self, text: str) -> int | None:
        """What the server will count for a prompt of one message, where that is certain.

        White space at the ends may be cut off by a chat template, or merge with it.
        """
        if not self._exact or text != text.strip():
            return None
        return self.overhead + self.of(text)

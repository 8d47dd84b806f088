"""A salt makes a run's prompts unlike those of all earlier runs, while its own repeats stay repeats."""

from __future__ import annotations

from servemark.harness.plan.draws import random_bytes, uniform
from servemark.harness.plan.vocabulary import FIRST_WORD, Vocabulary

SALT_PIECES = 8
"""Of 64 pieces or more each, so that two salts are alike with a chance of at most 2^-48."""


def salted(seed: int, salt: int | None) -> int:
    """The seed of made-up prompts with the salt mixed in."""
    return seed if salt is None else int.from_bytes(random_bytes(seed, b"salt", salt, 8), "little")


def salt_text(vocabulary: Vocabulary, salt: int) -> tuple[str, int]:
    """What stands in front of a text that is not made up, and how many tokens it adds (its first word is one)."""
    chosen = [int(uniform(salt, b"salt", i) * len(vocabulary.pieces)) for i in range(SALT_PIECES)]
    text = FIRST_WORD + "".join(vocabulary.pieces[i] for i in chosen) + " "
    return text, 1 + sum(vocabulary.costs[i] for i in chosen)

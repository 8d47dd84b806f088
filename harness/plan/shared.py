"""Beginnings that prompts share: a pool of system prompts or documents, some of them more popular than others.

Which of them prompt i begins with is a pure function of the seeds and i, so a run can say what a cache should find.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Annotated, NamedTuple

from pydantic import Field, model_validator

from servemark.harness.errors import BadInput
from servemark.harness.plan.draws import uniform
from servemark.harness.plan.lengths import Lengths, LengthsField
from servemark.harness.plan.sources import Given
from servemark.harness.plan.strict import Strict
from servemark.harness.plan.vocabulary import Segment, Vocabulary

MOST_MEMBERS = 1_000_000
OWN_TOKENS = 8
"""At least so many of a prompt's words are its own: eight of 64 words or more, so that no two prompts are alike."""
SAMPLE = 1000
"""Prompts that are looked at for what is said of them all."""
_STREAM = b"shared"


class SharedPrefix(Strict):
    """A pool of beginnings, and who begins with which."""

    pool: Annotated[int, Field(ge=1, le=MOST_MEMBERS)] = Field(
        default=1, description="how many different beginnings there are"
    )
    tokens: LengthsField | None = Field(
        default=None, description="length of a beginning, drawn once for each of the pool; part of the prompt's length"
    )
    overlap: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="in place of tokens: share of each prompt that is the beginning, as 0.6"
    )
    zipf: Annotated[float, Field(ge=0, le=20)] = Field(
        default=0.0, description="popularity: the k-th beginning comes in proportion to 1 / k^zipf; 0: all alike"
    )
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="share of the prompts that have such a beginning"
    )

    @model_validator(mode="after")
    def _one_length(self) -> SharedPrefix:
        if (self.tokens is None) == (self.overlap is None):
            raise ValueError("a shared beginning takes exactly one of tokens and overlap (a share such as 0.6)")
        return self


class Popularity:
    """Zipf's law over 0 to `size` - 1, the most popular first: P(k) is in proportion to 1 / (k + 1) ** `exponent`."""

    def __init__(self, size: int, exponent: float) -> None:
        self._last = size - 1
        self._sums = array("d", accumulate(k**-exponent for k in range(1, size + 1))) if exponent else None

    def draw(self, u: float) -> int:
        """The member at quantile `u`, 0 < u < 1."""
        if self._sums is None:
            return min(int(u * (self._last + 1)), self._last)
        return min(bisect_right(self._sums, u * self._sums[-1]), self._last)


class Beginning(NamedTuple):
    """The first `tokens` tokens of a prompt, those that a template puts there included."""

    member: int
    tokens: int
    name: str
    """The same for all that begin alike."""

    @property
    def segment(self) -> Segment:
        return Segment(self.member, self.tokens, _STREAM)

    @property
    def prefixes(self) -> tuple[tuple[str, int], ...]:
        return ((self.name, self.tokens),)


class Pool:
    """The beginnings of one run; all lengths are ready. `key` is their place in the workload file."""

    def __init__(self, params: SharedPrefix, given: Given, tail: int, inputs: Lengths, key: str) -> None:
        """`tail` tokens stand at every prompt's end; `inputs` are the lengths of whole prompts. Raises BadInput."""
        self._params = params
        self._seeds = given.seeds
        self._popularity = Popularity(params.pool, params.zipf)
        self._longest_prompt = inputs.draw(0.999) if inputs.most is None else inputs.most
        self.own_tokens = tail + OWN_TOKENS
        """What a prompt has at least behind its beginning."""
        least = 1 if params.tokens is None else params.tokens.least
        if inputs.most is not None and inputs.most < least + self.own_tokens:
            raise BadInput(
                f"{key}: no prompt is long enough: the shortest beginning and what has to follow it take "
                f"{least + self.own_tokens} tokens, and input_tokens, which is the whole prompt, gives at most "
                f"{inputs.most}; raise it, or shorten the beginning"
            )

    def of(self, index: int, input_tokens: int) -> Beginning | None:
        """What prompt `index` of so many tokens begins with; None where it has nothing that others have."""
        member = self._member(index)
        if member is None:
            return None
        tokens = min(self.wanted(member, input_tokens), input_tokens - self.own_tokens)
        return self._beginning(member, tokens) if tokens > 0 else None

    def _member(self, index: int) -> int | None:
        if uniform(self._seeds.order, b"shared.share", index) >= self._params.share:
            return None
        return self._popularity.draw(uniform(self._seeds.order, b"shared.member", index))

    def wanted(self, member: int, input_tokens: int) -> int:
        """How long the beginning is to be; a prompt may be too short for it."""
        if self._params.tokens is None:
            return round((self._params.overlap or 0) * input_tokens)
        return self._params.tokens.draw(uniform(self._seeds.lengths, b"shared.tokens", member))

    def members(self) -> Iterator[Beginning]:
        """Each once, as long as prompts have it, the most popular first."""
        for member in range(self._params.pool):
            tokens = min(self.wanted(member, self._longest_prompt), self._longest_prompt - self.own_tokens)
            yield self._beginning(member, max(1, tokens))

    def warming(self) -> Iterator[tuple[Beginning, Segment]]:
        """Each once with a few words behind it, so that all of it comes to stand in a prompt."""
        for begun in self.members():
            yield begun, Segment(begun.member, self.own_tokens, b"warm")

    def _beginning(self, member: int, tokens: int) -> Beginning:
        return Beginning(member, tokens, f"shared {self._seeds.prompts} {member}")

    def notes(self, input_tokens: Iterable[int]) -> tuple[str, ...]:
        """How the first prompts, of so many tokens each, differ from what is asked."""
        lengths = list(input_tokens)
        short = sum(self._is_cut(index, tokens) for index, tokens in enumerate(lengths))
        if not short:
            return ()
        return (f"{short} of the first {len(lengths)} prompts are too short for the whole of their shared beginning",)

    def _is_cut(self, index: int, input_tokens: int) -> bool:
        member = self._member(index)
        return member is not None and self.wanted(member, input_tokens) > input_tokens - self.own_tokens


def tail_tokens(vocabulary: Vocabulary) -> int:
    """What stands at the end of every text prompt: its last word, and what a template puts behind it."""
    return max(0, vocabulary.fixed_tokens - vocabulary.shared_prefix_tokens)

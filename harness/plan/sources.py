"""Prompt sources: where the prompts, their lengths and recorded times come from.

A new one is a module of `servemark.workloads`, or of any package that names it under the entry-point group
`servemark.sources`, holding a `PromptSource` decorated with `@SOURCES.register(name)`. No list is edited.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from servemark.harness.errors import BadInput
from servemark.harness.plan.cache_salt import salt_text, salted
from servemark.harness.plan.lengths import together, with_data
from servemark.harness.plan.strict import Strict
from servemark.harness.plan.vocabulary import Composer, Segment, Vocabulary
from servemark.harness.registry import Registry
from servemark.harness.types import Answer, Request, Turn

ENTRY_POINTS = "servemark.sources"
PACKAGED = "servemark.workloads"


@dataclass(frozen=True, slots=True)
class Seeds:
    """One seed per dimension, all of them known: a run is repeated by giving them again."""

    arrivals: int
    prompts: int
    lengths: int
    order: int
    salt: int | None = None
    """Makes all prompts others than those of runs without it, or with another."""


@dataclass(frozen=True, slots=True)
class Given:
    """What a source is made ready with. `folder` is where relative data paths start."""

    seeds: Seeds
    vocabulary: Vocabulary
    folder: Path


class Prepared:
    """A source that has read its data; inherit it for the defaults. All that it says of item i is a pure function of i.

    An item is a request, or a session: a conversation whose later turns hold the server's real answers.
    """

    size: int | None = None
    """How many items it has; None: endless."""
    data_digest: str | None = None
    """SHA-256 of the data file."""
    notes: tuple[str, ...] = ()
    """How what is sent differs from the data, for the result."""
    most_tokens: int | None = None
    """No request asks for more input and output tokens together; None: not known."""

    def holds(self, index: int) -> bool:
        """Whether there is an item of this number; asked before anything else is asked of it."""
        return self.size is None or index < self.size

    def lengths(self, index: int) -> tuple[int | None, int | None]:
        """Input and output tokens as asked of the first request, before the least that a prompt can have."""
        raise NotImplementedError

    def request(self, index: int) -> Request:
        """The item's first, or only, request."""
        raise NotImplementedError

    def offset_ns(self, index: int) -> int:
        """When item i was recorded, from the start of the slice; ascending."""
        raise NotImplementedError("this source has no recorded times")

    def turns(self, index: int) -> int:
        """How many requests item i makes, one after the answer to the other, if every one is answered."""
        return 1

    def next_turn(self, index: int, before: Request, answer: Answer) -> Turn | None:
        """What follows the answer to `before`; None ends the session early."""
        return None


class PromptSource(Strict):
    """What a source's section `prompts` of the workload file holds."""

    finite: ClassVar[bool] = False
    timed: ClassVar[bool] = False
    """Whether items have recorded times, for `arrivals: trace`."""

    source: str
    tokens: Literal["text", "ids"] = Field(
        default="text",
        description="send text, or token ids, which need endpoint completions and a server that takes them",
    )

    @property
    def unique(self) -> bool:
        """No prompt comes twice, so that a prefix cache has nothing to hit."""
        return True

    @property
    def has_system(self) -> bool:
        """Its first prompts hold a system message, whose cost in the template has to be known for exact lengths."""
        return False

    def prepare(self, given: Given) -> Prepared:
        """Reads the data. Raises BadInput."""
        raise NotImplementedError

    def repeats(self, prepared: Prepared) -> Iterator[Request]:
        """Each prompt, or beginning of prompts, that comes more than once: what a warm-up of the cache sends."""
        return iter(())


SOURCES: Registry[type[PromptSource]] = Registry("prompt source")


def made_ready(source: PromptSource, given: Given) -> Prepared:
    """The source with its data read, that of its lengths included. Raises BadInput."""
    source, lengths = with_data(source, given.folder)
    prepared = source.prepare(given)
    if any(each.digest for each in lengths):
        prepared.data_digest = together([prepared.data_digest, *(each.digest for each in lengths)])
        prepared.notes = (*prepared.notes, *(note for each in lengths for note in each.notes))
    return prepared


class PromptMaker:
    """Random prompts of exact lengths, as text or ids, unless they are shorter than a prompt can be."""

    def __init__(self, given: Given, tokens: Literal["text", "ids"]) -> None:
        self._composer = Composer(given.vocabulary)
        self._seed = salted(given.seeds.prompts, given.seeds.salt)
        self._front = ("", 0) if given.seeds.salt is None else salt_text(given.vocabulary, given.seeds.salt)
        self._as_ids = tokens == "ids"
        self.least = 1 if self._as_ids else self._composer.least_text

    def request(self, index: int, content: int, input_tokens: int, output_tokens: int) -> Request:
        """Request `index`; equal `content` and lengths make equal prompts."""
        return self.of_segments(index, (Segment(content, max(self.least, input_tokens)),), output_tokens)

    def of_segments(
        self,
        index: int,
        segments: Sequence[Segment],
        output_tokens: int | None,
        prefixes: tuple[tuple[str, int], ...] = (),
    ) -> Request:
        """Request `index`, whose prompt starts like all others that have the same first segments.

        `prefixes` are the beginnings that the source shares between prompts, for the cache's arithmetic.
        """
        asked = max(self.least, sum(part.tokens for part in segments))
        compose = self._composer.ids_of_segments if self._as_ids else self._composer.of_segments
        return Request(index, compose(self._seed, segments), asked, output_tokens, prefixes=prefixes)

    def message(self, content: int, tokens: int, stream: bytes = b"messages") -> str:
        """The text of a message of a conversation: `tokens` by itself, without what a template adds."""
        return self._composer.message(self._seed, Segment(content, tokens, stream))

    def of_text(self, index: int, text: str, input_tokens: int | None, output_tokens: int | None) -> Request:
        """A text of the source's own, which is counted as `input_tokens` (None: not known); a salt stands in front."""
        front, tokens = self._front
        return Request(index, front + text, None if input_tokens is None else input_tokens + tokens, output_tokens)

    def check_least(self, key: str, most_input_tokens: int | None) -> None:
        """Refuses lengths that no prompt of this vocabulary can have. Raises BadInput."""
        if most_input_tokens is not None and most_input_tokens < self.least:
            raise BadInput(
                f"{key}: {most_input_tokens} tokens are asked, but what the server adds and two words "
                f"take {self.least}; ask for at least {self.least}, or use endpoint completions"
            )


@cache
def discover() -> None:
    """Imports every module that may register a source. Raises BadInput where one cannot be imported."""
    package = importlib.import_module(PACKAGED)
    names = [f"{PACKAGED}.{module.name}" for module in pkgutil.iter_modules(package.__path__)]
    for name in names:
        importlib.import_module(name)
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        try:
            entry.load()
        except (ImportError, AttributeError) as error:
            raise BadInput(
                f"the prompt source {entry.name!r} of an installed package cannot be loaded ({error}); "
                f"repair or remove the package that gives {entry.value}"
            ) from error

"""A mix of classes: one arrival process feeds them all, and each has prompts, lengths and objectives of its own."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Annotated, Literal

from pydantic import Field

from servemark.harness.errors import BadInput
from servemark.harness.plan.draws import random_bytes, uniform
from servemark.harness.plan.lengths import together
from servemark.harness.plan.lengths.weighted import Weight, Weights
from servemark.harness.plan.sections import ClassSlo
from servemark.harness.plan.sources import SOURCES, Given, Prepared, PromptSource, Seeds, made_ready
from servemark.harness.plan.strict import Registered, Strict
from servemark.harness.types import Answer, Request, Turn

MOST = 32
"""As many as results have rows for."""
_UNTIMED = "the recorded times are not used"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")

PromptsField = Annotated[PromptSource, Registered(SOURCES, "source")]


class ClassSection(Strict):
    """One kind of request in a mix."""

    weight: Weight = Field(default=1.0, description="how often it comes, in proportion to the weights of the others")
    prompts: PromptsField = Field(description="what is sent")
    slo: ClassSlo | None = Field(
        default=None, description="what its answers should meet; null: what the file's slo says"
    )


def check_names(classes: Mapping[str, ClassSection]) -> None:
    """Raises ValueError."""
    if not 1 <= len(classes) <= MOST:
        raise ValueError(f"{len(classes)} classes cannot be mixed; name 1 to {MOST}")
    for name in classes:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name[:60]!r} names no class; take a letter, then letters, digits, - and _, as in long-chat"
            )


class Mix(PromptSource):
    """The classes of a workload as one source."""

    source: Literal["classes"] = "classes"
    members: dict[str, ClassSection]

    def _each(self) -> Iterator[PromptSource]:
        return (member.prompts for member in self.members.values())

    @property
    def finite(self) -> bool:  # type: ignore[override]
        """The first class that runs out ends the mix."""
        return any(source.finite for source in self._each())

    @property
    def unique(self) -> bool:
        return all(source.unique for source in self._each())

    @property
    def has_system(self) -> bool:
        return any(source.has_system for source in self._each())

    def prepare(self, given: Given) -> Prepared:
        return Mixed(self.members, given)

    def repeats(self, prepared: Prepared) -> Iterator[Request]:
        assert isinstance(prepared, Mixed)
        for name, source in zip(self.members, self._each(), strict=True):
            for request in source.repeats(prepared.of_class(name)):
                yield named(request, name)


def seeds_of(seeds: Seeds, name: str) -> Seeds:
    """Those of a class, so that no two draw the same words or lengths; a salt is the run's."""
    stream = b"class " + name.encode()
    kept = {each.name: getattr(seeds, each.name) for each in fields(seeds)}
    own = {
        key: int.from_bytes(random_bytes(seed, stream, 0, 8), "little") >> 1
        for key, seed in kept.items()
        if key != "salt"
    }
    return Seeds(**{**kept, **own})


class Mixed(Prepared):
    """Item i is of a class drawn by weight, and is the next item of that class."""

    def __init__(self, members: Mapping[str, ClassSection], given: Given) -> None:
        self._names = tuple(members)
        self._sources = tuple(_ready(name, member.prompts, given) for name, member in members.items())
        self._weights = Weights(member.weight for member in members.values())
        self._seed = given.seeds.order
        # Of each item its class and its number there, as far as they are known: nine bytes an item.
        self._classes, self._ranks = array("B"), array("Q")
        self._next = [0] * len(self._names)
        self.data_digest = together(source.data_digest for source in self._sources)
        self.notes = tuple(
            f"class {name}: {note}"
            for (name, member), source in zip(members.items(), self._sources, strict=True)
            for note in (*source.notes, *([_UNTIMED] if member.prompts.timed else []))
        )
        longest = [source.most_tokens for source in self._sources]
        self.most_tokens = None if None in longest else max(filter(None, longest), default=None)

    def of_class(self, name: str) -> Prepared:
        """The source of one class."""
        return self._sources[self._names.index(name)]

    def holds(self, index: int) -> bool:
        self._know(index)
        return index < len(self._classes)

    def _know(self, index: int) -> None:
        """Draws the classes of all items up to this one, unless a class runs out before it."""
        while len(self._classes) <= index and self.size is None:
            item = len(self._classes)
            drawn = self._weights.choose(uniform(self._seed, b"class", item))
            rank = self._next[drawn]
            if not self._sources[drawn].holds(rank):
                self.size = item
                self.notes = (
                    *self.notes,
                    f"class {self._names[drawn]} ran out after {rank} of its items: the load ends",
                )
                return
            self._classes.append(drawn)
            self._ranks.append(rank)
            self._next[drawn] = rank + 1

    def _at(self, index: int) -> tuple[Prepared, int]:
        """The source that item `index` is of, and its number there."""
        self._know(index)
        return self._sources[self._classes[index]], self._ranks[index]

    def lengths(self, index: int) -> tuple[int | None, int | None]:
        source, rank = self._at(index)
        return source.lengths(rank)

    def request(self, index: int) -> Request:
        source, rank = self._at(index)
        return replace(named(source.request(rank), self._names[self._classes[index]]), index=index)

    def turns(self, index: int) -> int:
        source, rank = self._at(index)
        return source.turns(rank)

    def next_turn(self, index: int, before: Request, answer: Answer) -> Turn | None:
        source, rank = self._at(index)
        name = self._names[self._classes[index]]
        turn = source.next_turn(rank, _unnamed(before, name), answer)
        return None if turn is None else replace(turn, request=named(turn.request, name))


def named(request: Request, class_: str) -> Request:
    """As one of its class: beginnings of two classes are called alike by chance only, as their words differ."""
    return replace(request, class_=class_, prefixes=tuple((f"{class_} {each}", n) for each, n in request.prefixes))


def _unnamed(request: Request, class_: str) -> Request:
    """As its source made it."""
    names = tuple((each.removeprefix(f"{class_} "), tokens) for each, tokens in request.prefixes)
    return replace(request, class_="default", prefixes=names)


def _ready(name: str, source: PromptSource, given: Given) -> Prepared:
    """Raises BadInput, which names the class."""
    try:
        return made_ready(source, replace(given, seeds=seeds_of(given.seeds, name)))
    except BadInput as error:
        raise BadInput(f"class {name}: {error}") from error

"""A mixture of distributions: short questions among long documents, say."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field

from servemark.harness.plan.lengths.base import LENGTHS, Lengths, together
from servemark.harness.plan.lengths.field import SHORT
from servemark.harness.plan.lengths.shorthand import spell_out
from servemark.harness.plan.lengths.weighted import Some, Weight, Weights
from servemark.harness.plan.strict import Registered, Strict

ComponentField = Annotated[Lengths, Registered(LENGTHS, "distribution", spell_out, SHORT, without=("mixture",))]


class Component(Strict):
    """One of the distributions that are mixed."""

    weight: Weight = Field(default=1.0, description="how often, in proportion to the weights of the others")
    tokens: ComponentField = Field(description="the lengths: any distribution but a mixture")


@LENGTHS.register("mixture")
class Mixture(Lengths):
    """Each draw is from one of the components, chosen by weight."""

    distribution: Literal["mixture"] = "mixture"
    components: Annotated[tuple[Component, ...], *Some] = Field(description="a list of {weight, tokens}")

    def ready(self, folder: Path) -> Self:
        parts = (part.model_copy(update={"tokens": part.tokens.ready(folder)}) for part in self.components)
        return self.model_copy(update={"components": tuple(parts)})

    def draw(self, u: float) -> int:
        chosen = self._weights.choose(u)
        return self.components[chosen].tokens.draw(self._weights.inside(chosen, u))

    @cached_property
    def _weights(self) -> Weights:
        return Weights(part.weight for part in self.components)

    def _parts(self) -> Iterator[Lengths]:
        return (part.tokens for part in self.components)

    @property
    def least(self) -> int:
        return min(part.least for part in self._parts())

    @property
    def most(self) -> int | None:
        longest = [part.most for part in self._parts()]
        return None if None in longest else max(filter(None, longest))

    @property
    def digest(self) -> str | None:
        return together(part.digest for part in self._parts())

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(note for part in self._parts() for note in part.notes)

"""Which format each weight of a model has, and what that comes to by role."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from servemark.harness.hardware.architecture import Architecture, Role, Weight
from servemark.harness.hardware.model import Part
from servemark.harness.hardware.modules import Modules
from servemark.harness.hardware.quantisation import WeightFormat

LAYERS: frozenset[Role] = frozenset({"attention", "mlp", "shared", "expert"})
LINEAR: frozenset[Role] = LAYERS | {"head"}
"""Embeddings, norms and routers stay as they are, whatever the file says: servers keep them so."""


@dataclass(frozen=True, slots=True)
class Rule:
    """`targets` None: every matrix that the quantisation reaches."""

    format: WeightFormat
    targets: Modules | None = None


@dataclass(frozen=True, slots=True)
class Quantisation:
    """The first rule that fits gives a matrix its format; what is excluded, or fits none, is `plain`."""

    plain: WeightFormat
    rules: tuple[Rule, ...] = ()
    excluded: Modules | None = None
    roles: frozenset[Role] = LAYERS
    kv: str | None = None

    def formats(self, architecture: Architecture) -> tuple[WeightFormat, ...]:
        """Of each weight of the architecture, in its order."""
        return tuple(self._format(weight) for weight in architecture.weights)

    def _format(self, weight: Weight) -> WeightFormat:
        if weight.columns == 1 or weight.role not in self.roles or not self.rules:
            return self.plain
        if self.excluded is not None and weight.name in self.excluded:
            return self.plain
        fitting = (rule.format for rule in self.rules if rule.targets is None or weight.name in rule.targets)
        return next(fitting, self.plain)

    def instead(self, form: WeightFormat) -> Quantisation:
        """What if all matrices of the layers had this format."""
        if form.plain:
            return Quantisation(form, kv=self.kv)
        return Quantisation(self.plain, (Rule(form),), kv=self.kv)


def is_like(asked: WeightFormat, own: WeightFormat) -> bool:
    """fp8 is also fp8-block."""
    return (asked.bits, asked.compute) == (own.bits, own.compute) and own.name.startswith(asked.name)


def main_format(architecture: Architecture, formats: Sequence[WeightFormat], plain: WeightFormat) -> WeightFormat:
    """That of the most weights which do not have the plain one; the plain one where all do."""
    elements = {plain: 0}
    for weight, form in zip(architecture.weights, formats, strict=True):
        elements[form] = elements.get(form, 0) + (0 if form == plain else weight.elements)
    return max(elements, key=lambda form: elements[form])


def parts_of(architecture: Architecture, formats: Sequence[WeightFormat], plain: WeightFormat) -> tuple[Part, ...]:
    found: dict[tuple[Role, WeightFormat], Part] = {}

    def add(role: Role, form: WeightFormat, elements: int, size: float) -> None:
        part = found.get((role, form)) or Part(role, 0, 0.0, form.compute)
        found[role, form] = replace(part, elements=part.elements + elements, bytes=part.bytes + size)

    for weight, form in zip(architecture.weights, formats, strict=True):
        biases = weight.count * weight.bias
        add(weight.role, form, weight.elements - biases, form.bytes(weight))
        if biases:
            add(weight.role, plain, biases, biases * plain.bits / 8)
    return tuple(found.values())

"""What a step of an engine moves and computes: the one place where bytes and FLOPs are worked out.

Counted are the weights that a step needs, once for the whole batch, and the KV cache that it reads and writes.
Activations are taken to stay on the chip, and what GPUs send each other is not modelled. Unless a name says otherwise,
bytes and FLOPs are those of all GPUs of a server together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil
from typing import Any

from servemark.harness.hardware.amounts import Flops, Step, Work
from servemark.harness.hardware.architecture import Attention, Role
from servemark.harness.hardware.causal import capped, pairs
from servemark.harness.hardware.layout import Layout
from servemark.harness.hardware.model import Model, Part

__all__ = ["SCORES", "Arithmetic", "Flops", "Reach", "Step", "Work", "capped", "pairs"]

SCORES = "bf16"
"""The dtype in which queries meet keys, whatever the weights and the KV cache are kept in."""


@dataclass(frozen=True, slots=True)
class Reach:
    """All layers that look back equally far. `kv_bytes` are of one token, copies on several ranks counted."""

    window: int | None
    kv_bytes: float
    flops_per_pair: float
    prefill_flops_per_pair: float


@dataclass(frozen=True)
class Arithmetic:
    """A model on one server's GPUs. A context, a start and a count may be numpy arrays."""

    model: Model
    layout: Layout = field(default_factory=Layout)

    # -- weights

    @cached_property
    def resident_bytes(self) -> float:
        """Weights on the fullest GPU: of the stage with most layers, and one that has the embedding or the head."""
        tensor, data = self.layout.tensor, self.layout.data
        body = _bytes(self._body) / tensor + _bytes(self._experts) / (tensor * data if self.layout.expert else tensor)
        ends = [_bytes(self._parts({role})) for role in ("embedding", "head")]
        return body * self._fullest_stage + (sum(ends) if self.layout.pipeline == 1 else max(ends)) / tensor

    @cached_property
    def dense_bytes(self) -> float:
        """What each data rank reads of the weights in a step whatever its tokens: all but experts.

        Of an input embedding only the rows of the step's tokens are read, which is nothing; a tied one is the head.
        """
        return _bytes(self._body) + _bytes(self._head)

    @cached_property
    def expert_bytes(self) -> float:
        """All experts of all layers, once."""
        return _bytes(self._experts)

    def weights_read(self, tokens: float, ranks: int | None = None) -> float:
        """In a step with so many tokens on `ranks` data ranks (all that can have one), shared out evenly."""
        ranks = self._busy(tokens) if ranks is None else ranks
        return ranks * self.dense_bytes + self._experts_read(tokens, ranks)

    def chosen_share(self, tokens: float) -> float:
        """Share of a layer's experts that so many tokens are expected to need, each choosing k of E at random."""
        shape = self.model.architecture
        return 1.0 if not shape.experts else 1 - (1 - shape.experts_per_token / shape.experts) ** tokens

    def _experts_read(self, tokens: float, ranks: int) -> float:
        if not self.expert_bytes:
            return 0.0
        if self.layout.expert:
            return self.expert_bytes * self.chosen_share(tokens)
        return self.expert_bytes * self.chosen_share(tokens / ranks) * ranks

    # -- KV cache

    def kv_read(self, context: Any) -> Any:
        """For one request's step after so many cached tokens."""
        return sum(reach.kv_bytes * capped(context, reach.window) for reach in self.reaches)

    def kv_read_over(self, context: Any, steps: Any) -> Any:
        """For one request's next `steps` steps of a token each, the first of them after so many cached tokens."""
        return sum(reach.kv_bytes * pairs(context - 1, steps, reach.window) for reach in self.reaches)

    @cached_property
    def kv_written(self) -> float:
        """For each new token."""
        return sum(reach.kv_bytes for reach in self.reaches)

    def kv_resident(self, context: Any) -> Any:
        """What a request with so many tokens holds on the fullest GPU that has any of it."""
        return self.kv_read(context) / self.layout.tensor * self._fullest_stage

    @cached_property
    def reaches(self) -> tuple[Reach, ...]:
        groups: dict[int | None, list[Attention]] = defaultdict(list)
        for layer in self.model.architecture.attention:
            groups[layer.window].append(layer)
        return tuple(self._reach(window, layers) for window, layers in groups.items())

    def _reach(self, window: int | None, layers: Collection[Attention]) -> Reach:
        """A head is on each rank that has a query head for it: with fewer KV heads than ranks there are copies."""
        tensor = self.layout.tensor
        kept = sum(layer.kv_elements * max(1, tensor / layer.kv_heads) for layer in layers)
        pair = sum(layer.flops_per_pair for layer in layers)
        prefill = sum(layer.prefill_flops_per_pair or layer.flops_per_pair for layer in layers)
        return Reach(window, kept * self.model.kv_element_bytes, pair, prefill)

    # -- FLOPs

    @cached_property
    def token_flops(self) -> Flops:
        """For each computed token, without the head and attention scores."""
        return (Work(0, self._body_flops) + Work(0, self._expert_flops)).flops

    @cached_property
    def head_flops(self) -> Flops:
        """For each position that gives a token."""
        return _flops(self._head)

    def pair_flops(self, start: Any, new: Any, prefill: bool = False) -> Any:
        """Attention scores of `new` tokens after `start`; `prefill`: as a prompt is computed, not token by token."""
        total: Any = 0.0
        for reach in self.reaches:
            each = reach.prefill_flops_per_pair if prefill else reach.flops_per_pair
            total = total + each * pairs(start, new, reach.window)
        return total

    @cached_property
    def _body_flops(self) -> Flops:
        return _flops(self._body)

    @cached_property
    def _expert_flops(self) -> Flops:
        shape = self.model.architecture
        return _flops(self._experts, shape.experts_per_token / shape.experts if shape.experts else 1)

    # -- steps

    def decode(self, batch: float, context: float) -> Step:
        """One token for each of so many requests, after `context` tokens each."""
        kv = batch * (self.kv_read(context) + self.kv_written)
        scores = batch * self.pair_flops(context, 1)
        return self._weights_once(batch, self._busy(batch)) + self._tokens(batch, batch, kv, scores)

    def prefill(self, prompt: float, cached: float = 0) -> Step:
        """A prompt of one request in one step, of which `cached` tokens are in the KV cache; its first token."""
        new = prompt - cached
        scores = self.pair_flops(cached, new, prefill=True)
        return self._weights_once(new, 1) + self._tokens(new, 1, self._prompt_kv(new, cached), scores)

    def generation(self, batch: float, prompt: float, output: float, cached: float = 0) -> Step:
        """All steps of so many requests that share them: each takes `output`, the first of them with its prompt."""
        new, later = prompt - cached, output - 1
        kv = self._prompt_kv(new, cached) + self.kv_read_over(prompt, later) + later * self.kv_written
        scores = self.pair_flops(cached, new, prefill=True) + self.pair_flops(prompt, later)
        tokens = self._tokens(batch * (new + later), batch * output, batch * kv, batch * scores)
        return self._weights_once(batch, self._busy(batch)) * output + tokens

    def per_gpu(self, step: Step) -> Work:
        """What each GPU that takes part does, added up over the stages of a pipeline, which wait for each other."""
        gpus = self.layout.tensor * step.ranks
        experts = self.layout.tensor * self.layout.data if self.layout.expert else gpus
        return step.rest * (1 / gpus) + step.experts * (1 / experts)

    def _weights_once(self, tokens: float, ranks: int) -> Step:
        return Step(Work(ranks * self.dense_bytes), Work(self._experts_read(tokens, ranks)), ranks)

    def _tokens(self, computed: float, sampled: float, kv: float, scores: float) -> Step:
        rest = Work(kv, {SCORES: scores}) + Work(0, self._body_flops) * computed + Work(0, self.head_flops) * sampled
        return Step(rest, Work(0, self._expert_flops) * computed)

    def _prompt_kv(self, new: float, cached: float) -> float:
        return float(self.kv_read(cached) + new * self.kv_written)

    # -- the layout

    def _busy(self, requests: float) -> int:
        """Data ranks that have a request, where there are so many in a step."""
        return max(1, min(self.layout.data, ceil(requests)))

    @cached_property
    def _fullest_stage(self) -> float:
        layers = len(self.model.architecture.attention)
        return ceil(layers / self.layout.pipeline) / layers

    def _parts(self, roles: Collection[Role]) -> tuple[Part, ...]:
        return tuple(part for part in self.model.parts if part.role in roles)

    @property
    def _head(self) -> tuple[Part, ...]:
        return self._parts({"embedding"} if self.model.architecture.tied_embeddings else {"head"})

    @property
    def _experts(self) -> tuple[Part, ...]:
        return self._parts({"expert"})

    @property
    def _body(self) -> tuple[Part, ...]:
        return self._parts({"norm", "attention", "mlp", "shared", "router"})


def _bytes(parts: Collection[Part]) -> float:
    return sum(part.bytes for part in parts)


def _flops(parts: Collection[Part], share: float = 1) -> Flops:
    """A multiplication and an addition for each weight."""
    total: dict[str, float] = defaultdict(float)
    for part in parts:
        total[part.compute] += 2 * part.elements * share
    return dict(total)

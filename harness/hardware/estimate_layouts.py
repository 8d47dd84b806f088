"""Layouts that are asked for, what engines say to them, and the fewest tensor ranks that hold a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from servemark.harness.hardware.devices import Gpu
from servemark.harness.hardware.layout import Layout
from servemark.harness.hardware.limits import UTILISATION, Memory, memory
from servemark.harness.hardware.model import Model
from servemark.harness.hardware.work import Arithmetic

MOST_RANKS = 64
"""No further is looked for tensor ranks that hold a model; NVLink domains end there or before."""


def layouts(
    tensor: Sequence[int], pipeline: Sequence[int], data: Sequence[int], expert: bool, replicas: int
) -> Iterator[Layout]:
    """Each with each."""
    for tp, pp, dp in product(tensor, pipeline, data):
        yield Layout(tp, pp, dp, expert, replicas)


def check(model: Model, layout: Layout) -> None:
    """Raises ValueError with a sentence where no engine would start."""
    heads = query_heads(model)
    if any(each % layout.tensor for each in heads):
        raise ValueError(
            f"--tp {layout.tensor}: {model.name} has {' and '.join(map(str, heads))} attention heads, which that many "
            f"ranks cannot share evenly; vLLM, SGLang and TensorRT-LLM refuse to start so; take "
            f"{_listed(tensor_ranks(model))}, or more --pp"
        )
    layers = len(model.architecture.attention)
    if layout.pipeline > layers:
        raise ValueError(f"--pp {layout.pipeline}: {model.name} has {layers} layers, and a rank takes one at least")
    if layout.expert and not model.architecture.experts:
        raise ValueError(f"--ep: {model.name} has no experts to be spread; leave it out")


def query_heads(model: Model) -> tuple[int, ...]:
    """The different numbers of them that its layers have."""
    return tuple(sorted({layer.query_heads for layer in model.architecture.attention if layer.query_heads}))


def tensor_ranks(model: Model) -> tuple[int, ...]:
    """Numbers of tensor ranks that share all heads evenly; powers of 2 where heads are not known."""
    heads = query_heads(model)
    ranks = range(1, MOST_RANKS + 1)
    return tuple(n for n in ranks if not any(each % n for each in heads) and (heads or n & (n - 1) == 0))


def notes(model: Model, layout: Layout) -> Iterator[str]:
    """What is allowed, and costs something."""
    kv = sorted({layer.kv_heads for layer in model.architecture.attention})
    short = [heads for heads in kv if heads < layout.tensor]
    if short and kv != [1]:
        copies = layout.tensor / min(short)
        yield (
            f"tensor parallel {layout.tensor}: {model.name} has {min(short)} KV heads, so each is kept on "
            f"{copies:g} ranks: TP beyond {min(short)} gains no room for the KV cache"
        )
    elif short:
        yield (
            f"tensor parallel {layout.tensor}: all heads of {model.name} share one KV head or latent, which each rank "
            "keeps whole: only data parallel ranks gain room for the KV cache"
        )
    layers = len(model.architecture.attention)
    if layers % layout.pipeline:
        yield f"pipeline {layout.pipeline}: {layers} layers are not shared out evenly; the fullest stage counts"


@dataclass(frozen=True, slots=True)
class Engine:
    """The share of a GPU's memory that it takes, and what it keeps of that beside weights and KV cache, in bytes.

    Without `reserve` that is the usual guess, for activations and the rest.
    """

    utilisation: float = UTILISATION
    reserve: float | None = None

    def room(self, arithmetic: Arithmetic, gpu: Gpu, context: int) -> Memory:
        """Memory of each GPU, where the KV cache of at least one request of so many tokens is wanted."""
        wanted = float(arithmetic.kv_resident(context))
        if self.reserve is None:
            return memory(arithmetic, gpu, self.utilisation, kv_bytes=wanted)
        return memory(arithmetic, gpu, self.utilisation, self.reserve, wanted, overhead=0.0)

    def least_tensor(self, model: Model, layout: Layout, gpu: Gpu, batch: int, context: int) -> int | None:
        """The fewest tensor ranks, the rest of the layout as it is, that hold a batch; None where no number does."""
        for ranks in tensor_ranks(model):
            arithmetic = Arithmetic(model, replace(layout, tensor=ranks))
            if self.room(arithmetic, gpu, context).largest_batch(context) >= batch:
                return ranks
        return None


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:-1])) + f" or {numbers[-1]}" if len(numbers) > 1 else str(numbers[0])

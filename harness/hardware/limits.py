"""What the hardware allows at best: floors of latency, room in memory, a bound of throughput, the roofline."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor
from typing import Literal

from servemark.harness.hardware.devices import Gpu
from servemark.harness.hardware.work import SCORES, Arithmetic, Work

GB = 1_000_000_000

Resource = Literal["bandwidth", "compute"]


@dataclass(frozen=True, slots=True)
class Bound:
    """The least time that moving the bytes and doing the arithmetic take, when they overlap in full."""

    bandwidth_s: float
    compute_s: float

    @property
    def seconds(self) -> float:
        return max(self.bandwidth_s, self.compute_s)

    @property
    def binding(self) -> Resource:
        return "bandwidth" if self.bandwidth_s >= self.compute_s else "compute"


def bound(work: Work, gpu: Gpu) -> Bound:
    """Of what one GPU has to do."""
    compute_s = sum(flops / gpu.flops_per_s(dtype) for dtype, flops in work.flops.items())
    return Bound(work.bytes / gpu.bytes_per_s, compute_s)


def tpot_floor(arithmetic: Arithmetic, gpu: Gpu, batch: float, context: float) -> Bound:
    """A decode step of `batch` requests on one server, each after `context` tokens.

    Tensor ranks share the work of a step. The stages of a pipeline work on a part of the batch each, and a token
    passes all of them in turn.
    """
    return bound(arithmetic.per_gpu(arithmetic.decode(in_one_pass(arithmetic, batch), context)), gpu)


def ttft_floor(arithmetic: Arithmetic, gpu: Gpu, prompt: float, cached: float = 0) -> Bound:
    """A prompt that finds the server idle: its arithmetic, or reading the weights if that takes longer.

    With a pipeline, parts of a prompt may follow one another through the stages; its last token passes all of them.
    """
    whole = bound(arithmetic.per_gpu(arithmetic.prefill(prompt, cached)), gpu)
    stages = arithmetic.layout.pipeline
    if stages == 1:
        return whole
    last = bound(arithmetic.per_gpu(arithmetic.prefill(prompt, prompt - 1)), gpu)
    return Bound(max(whole.bandwidth_s / stages, last.bandwidth_s), max(whole.compute_s / stages, last.compute_s))


def in_one_pass(arithmetic: Arithmetic, batch: float) -> float:
    """How many of a server's requests take a step together; with a pipeline the others are in its other stages."""
    return max(min(batch, arithmetic.layout.data), batch / arithmetic.layout.pipeline)


# -- memory

UTILISATION = 0.9
STEP_TOKENS = 8192
HIDDEN_VECTORS = 16
OVERHEAD_BYTES = 1.0 * GB


def activation_bytes(arithmetic: Arithmetic, step_tokens: int = STEP_TOKENS) -> float:
    """A rough figure: sixteen 16-bit vectors of the hidden size for each token of the largest step."""
    return HIDDEN_VECTORS * 2.0 * arithmetic.model.architecture.hidden * step_tokens


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one GPU, the fullest. `capacity` is all it has, `usable` the share of it that the engine may take."""

    capacity: float
    usable: float
    weights: float
    activations: float
    overhead: float
    kv_needed: float
    arithmetic: Arithmetic

    @property
    def kv_room(self) -> float:
        """What is left for the KV cache; below 0 where not even the weights fit."""
        return self.usable - self.weights - self.activations - self.overhead

    @property
    def fits(self) -> bool:
        return self.short_by == 0

    @property
    def short_by(self) -> float:
        """What is missing for the KV cache that is needed, 0 where it fits. An empty cache serves nobody."""
        needed = self.kv_needed or self.arithmetic.kv_resident(1)
        return max(0.0, needed - self.kv_room)

    def largest_batch(self, context: float) -> int:
        """Requests of so many tokens each whose KV cache one server holds, data ranks together."""
        each = float(self.arithmetic.kv_resident(context))
        return max(0, floor(self.kv_room / each)) * self.arithmetic.layout.data


def memory(
    arithmetic: Arithmetic,
    gpu: Gpu,
    utilisation: float = UTILISATION,
    activations: float | None = None,
    kv_bytes: float | None = None,
    overhead: float = OVERHEAD_BYTES,
) -> Memory:
    """`activations`, `overhead` and the KV cache that is to fit (`kv_bytes`) are bytes of each GPU."""
    capacity = gpu.memory_bytes
    return Memory(
        capacity=capacity,
        usable=capacity * utilisation,
        weights=arithmetic.resident_bytes,
        activations=activation_bytes(arithmetic) if activations is None else activations,
        overhead=overhead,
        kv_needed=kv_bytes or 0.0,
        arithmetic=arithmetic,
    )


def gpus_needed(total_bytes: float, gpu: Gpu, utilisation: float = 1.0) -> int:
    """GPUs whose memories together hold so much, evenly spread."""
    return ceil(total_bytes / (gpu.memory_bytes * utilisation))


# -- throughput


def throughput_bound(
    arithmetic: Arithmetic, gpu: Gpu, batch: float, prompt: float, output: float, cached: float = 0
) -> float:
    """Output tokens/s of all replicas, where each server keeps `batch` requests running all the time.

    A request takes `output` steps, of which the first comes with its prompt; prompts are computed in steps that the
    other requests take too, so they read no weights of their own.
    """
    cycle = arithmetic.generation(in_one_pass(arithmetic, batch), prompt, output, cached)
    return batch * output / bound(arithmetic.per_gpu(cycle), gpu).seconds * arithmetic.layout.replicas


# -- roofline


@dataclass(frozen=True, slots=True)
class Ceiling:
    """One GPU's dense peak in a dtype. Below `ridge` FLOP per byte the bandwidth binds, above it the arithmetic."""

    dtype: str
    flops_per_s: float
    ridge: float


@dataclass(frozen=True, slots=True)
class Roofline:
    """Of one GPU; the ceilings are of the dtypes that the model multiplies in."""

    bytes_per_s: float
    ceilings: tuple[Ceiling, ...]


def roofline(arithmetic: Arithmetic, gpu: Gpu) -> Roofline:
    dtypes = dict.fromkeys((*arithmetic.token_flops, *arithmetic.head_flops, SCORES))
    peaks = {dtype: gpu.flops_per_s(dtype) for dtype in dtypes}
    ceilings = (Ceiling(dtype, peak, peak / gpu.bytes_per_s) for dtype, peak in peaks.items())
    return Roofline(gpu.bytes_per_s, tuple(ceilings))


def intensity(work: Work) -> float:
    """FLOP per byte."""
    return sum(work.flops.values()) / work.bytes

"""How long one step of the engine takes: a roofline over bytes moved and arithmetic done, plus a fixed overhead.

    time = max(bytes / (bandwidth * efficiency), flops / (peak * efficiency)) + overhead

Bytes and FLOPs are those of harness/hardware/work.py, for one GPU: of the weights what the step's tokens need, once,
whatever the batch; of the KV cache what was there before the step, read, and what is new, written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from servemark.harness.hardware.device import Gpu
from servemark.harness.hardware.work import SCORES, Arithmetic, Reach, pairs


@dataclass(frozen=True, slots=True)
class Device:
    """Achievable speed of one GPU: its peaks times the share of them that a good engine reaches."""

    bytes_per_s: float
    flops_per_s: Callable[[str], float]
    """By dtype."""
    overhead_ns: int = 0

    @classmethod
    def of(
        cls, gpu: Gpu, bandwidth_efficiency: float = 1.0, compute_efficiency: float = 1.0, overhead_ns: int = 0
    ) -> Device:
        return cls(
            bytes_per_s=gpu.bytes_per_s * bandwidth_efficiency,
            flops_per_s=lambda dtype: gpu.flops_per_s(dtype) * compute_efficiency,
            overhead_ns=overhead_ns,
        )


@dataclass(slots=True)
class Near:
    """What a step reads and computes in the layers of one window."""

    window: int
    read: int = 0
    pairs: float = 0
    prompt_pairs: float = 0

    def add(self, start: int, new: int) -> None:
        self.read += min(start, self.window)
        if new == 1:  # the usual case, in a hurry
            self.pairs += min(start + 1, self.window)
            return
        added = pairs(start, new, self.window)
        self.pairs += added
        self.prompt_pairs += added


@dataclass(slots=True)
class StepWork:
    """What one step has to do, summed over its requests; `read` and the pairs are of layers that look all the way back.

    `prompt_pairs` are those of the pairs that are computed as prompts are: of requests with several tokens.
    """

    near: tuple[Near, ...] = ()
    requests: int = 0
    tokens: int = 0
    sampled: int = 0
    read: int = 0
    pairs: float = 0
    prompt_pairs: float = 0

    def add(self, start: int, new: int, samples: bool) -> None:
        """`new` tokens of one request after `start` computed ones; `samples`: its next token comes out."""
        end = start + new
        self.requests += 1
        self.tokens += new
        self.sampled += samples
        self.read += start
        added = (end * (end + 1) - start * (start + 1)) // 2
        self.pairs += added
        if new > 1:
            self.prompt_pairs += added
        for layers in self.near:
            layers.add(start, new)


@dataclass(frozen=True, slots=True)
class PairPrice:
    pair: float
    prompt_more: float
    """What a pair of a prompt costs beyond that."""

    def of(self, work: StepWork | Near) -> float:
        return self.pair * work.pairs + self.prompt_more * work.prompt_pairs


@dataclass(frozen=True, slots=True)
class Prices:
    """What arithmetic costs one GPU, in FLOP or in seconds; `near` in the order of a work's windows."""

    token: float
    sample: float
    far: PairPrice
    near: tuple[PairPrice, ...]

    @classmethod
    def of(cls, arithmetic: Arithmetic, far: Reach, near: Sequence[Reach], one: Callable[[str], float]) -> Prices:
        """`one` is the price of a FLOP in a dtype."""

        def price(flops: Mapping[str, float]) -> float:
            return sum(done * one(dtype) for dtype, done in flops.items()) / arithmetic.layout.tensor

        def pair(reach: Reach) -> PairPrice:
            more = reach.prefill_flops_per_pair - reach.flops_per_pair
            return PairPrice(price({SCORES: reach.flops_per_pair}), price({SCORES: more}))

        return cls(price(arithmetic.token_flops), price(arithmetic.head_flops), pair(far), tuple(map(pair, near)))

    def sum(self, work: StepWork) -> float:
        total = self.token * work.tokens + self.sample * work.sampled + self.far.of(work)
        for price, layers in zip(self.near, work.near, strict=True):
            total += price.of(layers)
        return total


@dataclass(frozen=True, slots=True)
class Outlay:
    """Of a step, on each GPU: bytes, FLOPs, and how long the memory and the arithmetic take."""

    read: float
    written: float
    flops: float
    bandwidth_ns: float
    compute_ns: float

    def duration_ns(self, overhead_ns: int) -> int:
        return round(max(self.bandwidth_ns, self.compute_ns)) + overhead_ns


class StepTime:
    """On a server whose GPUs are all tensor ranks. What a unit of each kind of work costs is worked out once."""

    def __init__(self, arithmetic: Arithmetic, device: Device) -> None:
        reaches = {reach.window: reach for reach in arithmetic.reaches}
        far, near = reaches.pop(None, Reach(None, 0, 0, 0)), tuple(reaches.values())
        self.device = device
        self._arithmetic = arithmetic
        self._gpus = arithmetic.layout.tensor
        self._dense_bytes = 0.0 if arithmetic.expert_bytes else arithmetic.dense_bytes
        self._written = arithmetic.kv_written / self._gpus
        self._windows = tuple(reach.window for reach in near if reach.window is not None)
        self._far_bytes, self._near_bytes = far.kv_bytes, tuple(reach.kv_bytes for reach in near)
        self._flops = Prices.of(arithmetic, far, near, lambda dtype: 1.0)
        self._seconds = Prices.of(arithmetic, far, near, lambda dtype: 1 / device.flops_per_s(dtype))

    def work(self) -> StepWork:
        """Of a step that nothing is in yet."""
        return StepWork(tuple(map(Near, self._windows)) if self._windows else ())

    def outlay(self, work: StepWork) -> Outlay:
        tokens, read = work.tokens, self._far_bytes * work.read
        read += self._dense_bytes or self._arithmetic.weights_read(tokens, 1)
        for each, layers in zip(self._near_bytes, work.near, strict=True):
            read += each * layers.read
        read, written = read / self._gpus, self._written * tokens
        bandwidth_ns = 1e9 * (read + written) / self.device.bytes_per_s
        return Outlay(read, written, self._flops.sum(work), bandwidth_ns, 1e9 * self._seconds.sum(work))

    def duration_ns(self, work: StepWork) -> int:
        return self.outlay(work).duration_ns(self.device.overhead_ns)

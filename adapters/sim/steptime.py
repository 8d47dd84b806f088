"""How long one step of the engine takes: a roofline over bytes moved and arithmetic done, plus a fixed overhead.

    bytes = weights + kv * sum over requests of the context at the step's end
    flops = 2 * body * new tokens + 2 * vocab * hidden * sampled tokens + 4 * layers * heads * head_dim * pairs
    pairs = sum over requests of the (query, key) pairs of causal attention = (end(end+1) - start(start+1)) / 2
    time  = max(bytes / (bandwidth * efficiency), flops / (peak * efficiency)) + overhead

The weights are read once a step, whatever the batch. Each request's context is read once a step, new tokens
included. The same form serves decode (end = start + 1) and a prefill chunk, cached prefix or not.
"""

from __future__ import annotations

from dataclasses import dataclass

from servemark.adapters.sim.figures import GB, GpuFigures, ModelFigures


@dataclass(frozen=True, slots=True)
class ModelCost:
    """What a model moves and computes, in bytes and FLOP; per GPU where the weights are split over several."""

    weight_bytes: float
    kv_bytes_per_token: float
    flops_per_token: float
    flops_per_sample: float
    flops_per_pair: float

    @classmethod
    def of(cls, model: ModelFigures, gpus: int = 1) -> ModelCost:
        """KV heads are replicated, not split further, once there are more GPUs than KV heads."""
        return cls(
            weight_bytes=model.weight_bytes / gpus,
            kv_bytes_per_token=model.kv_bytes_per_token / min(gpus, model.kv_heads),
            flops_per_token=2 * model.body_params / gpus,
            flops_per_sample=2 * model.embedding_params / gpus,
            flops_per_pair=4 * model.layers * model.heads * model.head_dim / gpus,
        )


@dataclass(frozen=True, slots=True)
class Device:
    """Achievable speed of one GPU: its peaks times the share of them that a good engine reaches."""

    bytes_per_s: float
    flops_per_s: float
    overhead_ns: int = 0

    @classmethod
    def of(
        cls,
        gpu: GpuFigures,
        bandwidth_efficiency: float = 1.0,
        compute_efficiency: float = 1.0,
        overhead_ns: int = 0,
    ) -> Device:
        return cls(
            bytes_per_s=gpu.bandwidth_gb_s * GB * bandwidth_efficiency,
            flops_per_s=gpu.dense_tflops * 1e12 * compute_efficiency,
            overhead_ns=overhead_ns,
        )


@dataclass(slots=True)
class StepWork:
    """What one step has to do, summed over its requests."""

    requests: int = 0
    tokens: int = 0
    sampled: int = 0
    context: int = 0
    pairs: int = 0

    def add(self, start: int, new: int, samples: bool) -> None:
        """`new` tokens of one request after `start` computed ones; `samples`: its next token comes out."""
        end = start + new
        self.requests += 1
        self.tokens += new
        self.sampled += samples
        self.context += end
        self.pairs += (end * (end + 1) - start * (start + 1)) // 2


@dataclass(frozen=True, slots=True)
class StepTime:
    cost: ModelCost
    device: Device

    def bytes_moved(self, work: StepWork) -> float:
        return self.cost.weight_bytes + self.cost.kv_bytes_per_token * work.context

    def flops(self, work: StepWork) -> float:
        cost = self.cost
        return (
            cost.flops_per_token * work.tokens + cost.flops_per_sample * work.sampled + cost.flops_per_pair * work.pairs
        )

    def bandwidth_ns(self, work: StepWork) -> float:
        return 1e9 * self.bytes_moved(work) / self.device.bytes_per_s

    def compute_ns(self, work: StepWork) -> float:
        return 1e9 * self.flops(work) / self.device.flops_per_s

    def duration_ns(self, work: StepWork) -> int:
        return round(max(self.bandwidth_ns(work), self.compute_ns(work))) + self.device.overhead_ns

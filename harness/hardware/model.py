"""A model as it is served: its architecture, the format of each of its weights, and of its KV cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from servemark.harness.hardware.architecture import Architecture, Role


@dataclass(frozen=True, slots=True)
class Part:
    """The weights of one role and one format, all layers together.

    `bytes` hold their scales too. `compute` is the dtype of the multiplication (bf16, fp8, int8, fp4), which a
    weight-only format leaves at 16 bit.
    """

    role: Role
    elements: int
    bytes: float
    compute: str


@dataclass(frozen=True, slots=True)
class Model:
    """`weights` names the format of most weights that are quantised, if any, and `kv` that of the KV cache."""

    name: str
    architecture: Architecture
    parts: tuple[Part, ...]
    weights: str
    kv: str
    kv_element_bytes: float
    source: str
    """Where its config.json was found."""
    left_out: tuple[str, ...] = ()
    """What it has and is not counted, as its eyes, in a sentence each."""

    @property
    def params(self) -> int:
        return self.architecture.params

    @property
    def active_params(self) -> int:
        return self.architecture.active_params

    @property
    def weight_bytes(self) -> float:
        """Resident, all of it once."""
        return sum(part.bytes for part in self.parts)

    @property
    def kv_bytes_per_token(self) -> float:
        """What a further token takes in all layers, while no window is full."""
        return self.kv_element_bytes * sum(layer.kv_elements for layer in self.architecture.attention)

    def facts(self) -> dict[str, Any]:
        """For a result."""
        return {
            "name": self.name,
            "source": self.source,
            "params": self.params,
            "active_params": self.active_params,
            "weights": self.weights,
            "weight_bytes": self.weight_bytes,
            "kv": self.kv,
            "kv_bytes_per_token": self.kv_bytes_per_token,
            "max_context": self.architecture.max_context,
            "left_out": list(self.left_out),
        }

    def kv_bytes(self, context: int) -> float:
        """What one request with so many tokens holds; a layer with a window keeps no more than the window."""
        kept = (layer.kv_elements * min(context, layer.window or context) for layer in self.architecture.attention)
        return self.kv_element_bytes * sum(kept)

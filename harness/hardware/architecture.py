"""What a decoder-only transformer is made of: its weights, module by module, and what each layer's attention keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["embedding", "head", "norm", "attention", "mlp", "shared", "expert", "router"]
"""`shared` are experts that every token uses, `expert` those of which a router chooses a few."""


@dataclass(frozen=True, slots=True)
class Weight:
    """A matrix of `rows` outputs by `columns` inputs (a vector has one column), `count` times, with `bias` elements.

    `name` is the module's in the checkpoint, as model.layers.3.self_attn.q_proj; it is what a quantisation excludes.
    """

    name: str
    role: Role
    rows: int
    columns: int = 1
    count: int = 1
    bias: int = 0

    @property
    def elements(self) -> int:
        return self.count * (self.rows * self.columns + self.bias)


@dataclass(frozen=True, slots=True)
class Attention:
    """What the attention of one layer keeps of a token, and computes for a pair of a query and a key.

    `kv_elements` are kept per token, over `kv_heads` heads that ranks can share out: 1 for a latent (MLA), which every
    rank keeps whole. `window` is how many tokens it looks back at, None for all. FLOPs are of all query heads;
    `prefill_flops_per_pair` where a prompt is computed in another form than a token (MLA, not absorbed).
    """

    kv_elements: int
    kv_heads: int
    flops_per_pair: int
    window: int | None = None
    prefill_flops_per_pair: int | None = None
    query_heads: int = 0
    """Which tensor ranks share out evenly; 0 where it is not said."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """`attention` has one entry for each layer. `experts` and `experts_per_token` are 0 where there are none."""

    kind: str
    hidden: int
    vocab: int
    weights: tuple[Weight, ...]
    attention: tuple[Attention, ...]
    tied_embeddings: bool
    experts: int = 0
    experts_per_token: int = 0
    max_context: int | None = None

    @property
    def params(self) -> int:
        return sum(weight.elements for weight in self.weights)

    @property
    def active_params(self) -> int:
        """What a token is multiplied with: the chosen experts and all else, the head too, but no input embedding.

        A tied embedding is the head.
        """
        total = 0.0
        for weight in self.weights:
            if weight.role == "embedding" and not self.tied_embeddings:
                continue
            total += weight.elements * (self.experts_per_token / self.experts if weight.role == "expert" else 1)
        return round(total)

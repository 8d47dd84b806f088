"""DeepSeek: attention over one latent for all heads (MLA), and fine-grained experts beside shared ones."""

from __future__ import annotations

from dataclasses import dataclass

from servemark.harness.hardware.architecture import Architecture, Attention, Weight
from servemark.harness.hardware.families.base import family
from servemark.harness.hardware.families.bricks import Layer, experts, mlp, norm, router, stack
from servemark.harness.hardware.families.fields import Fields


@dataclass(frozen=True, slots=True)
class Latent:
    """Sizes of MLA: of the latents that queries and keys are squeezed into, and of the parts of a head."""

    heads: int
    query_rank: int | None
    rank: int
    plain: int
    rope: int
    value: int

    def attention(self) -> Attention:
        """Decoding multiplies with the latent itself; a prompt is cheaper with its keys and values unpacked."""
        return Attention(
            kv_elements=self.rank + self.rope,
            kv_heads=1,
            flops_per_pair=2 * self.heads * (2 * self.rank + self.rope),
            prefill_flops_per_pair=2 * self.heads * (self.plain + self.rope + self.value),
            query_heads=self.heads,
        )

    def weights(self, at: str, hidden: int, bias: bool) -> tuple[Weight, ...]:
        return (
            *self._queries(at, hidden, bias),
            _matrix(f"{at}kv_a_proj_with_mqa", self.rank + self.rope, hidden, bias),
            norm(f"{at}kv_a_layernorm", self.rank),
            _matrix(f"{at}kv_b_proj", self.heads * (self.plain + self.value), self.rank),
            _matrix(f"{at}o_proj", hidden, self.heads * self.value, bias),
        )

    def _queries(self, at: str, hidden: int, bias: bool) -> tuple[Weight, ...]:
        size = self.heads * (self.plain + self.rope)
        if self.query_rank is None:
            return (_matrix(f"{at}q_proj", size, hidden),)
        return (
            _matrix(f"{at}q_a_proj", self.query_rank, hidden, bias),
            norm(f"{at}q_a_layernorm", self.query_rank),
            _matrix(f"{at}q_b_proj", size, self.query_rank),
        )


def _matrix(name: str, rows: int, columns: int, bias: bool = False) -> Weight:
    return Weight(name, "attention", rows, columns, bias=rows if bias else 0)


def latent_of(fields: Fields) -> Latent:
    return Latent(
        heads=fields.count("num_attention_heads"),
        query_rank=fields.maybe("q_lora_rank"),
        rank=fields.count("kv_lora_rank"),
        plain=fields.count("qk_nope_head_dim"),
        rope=fields.count("qk_rope_head_dim"),
        value=fields.count("v_head_dim"),
    )


@family("deepseek_v2", "deepseek_v3", "kimi_k2")
def deepseek(fields: Fields) -> Architecture:
    """Layers that only draft further tokens (MTP, `num_nextn_predict_layers`) are not counted."""
    hidden, latent = fields.count("hidden_size"), latent_of(fields)
    count, width = fields.count("n_routed_experts"), fields.count("moe_intermediate_size")
    shared = fields.count("n_shared_experts", default=0, least=0)
    first = fields.count("first_k_dense_replace", default=0, least=0)
    every = fields.count("moe_layer_freq", default=1)
    corrected = count if fields.text("topk_method") == "noaux_tc" else 0
    bias = fields.flag("attention_bias", False)

    def feed(at: str, place: int) -> tuple[Weight, ...]:
        if place < first or place % every:
            return mlp(at, hidden, fields.count("intermediate_size"))
        own = (router(f"{at}gate", hidden, count, bias=corrected), *experts(at, hidden, width, count))
        return (*own, *mlp(f"{at}shared_experts.", hidden, shared * width, "shared")) if shared else own

    def layer(place: int) -> Layer:
        at = f"model.layers.{place}."
        norms = (norm(f"{at}input_layernorm", hidden), norm(f"{at}post_attention_layernorm", hidden))
        own = (*latent.weights(f"{at}self_attn.", hidden, bias), *feed(f"{at}mlp.", place), *norms)
        return Layer(own, latent.attention())

    return stack(fields, layer, routed=(count, fields.count("num_experts_per_tok")))

"""Mixtures of experts with ordinary attention: Mixtral, Qwen, GLM, MiniMax, gpt-oss, Llama 4."""

from __future__ import annotations

from collections.abc import Callable

from servemark.harness.hardware.architecture import Architecture, Weight
from servemark.harness.hardware.families.base import family
from servemark.harness.hardware.families.bricks import (
    Heads,
    Layer,
    experts,
    heads_of,
    mlp,
    norm,
    router,
    stack,
    windows,
)
from servemark.harness.hardware.families.dense import BEFORE, Style, attention_weights, everywhere, qwen_windows
from servemark.harness.hardware.families.fields import Fields

PER_TOKEN = ("num_experts_per_tok", "experts_per_token")


def mixture(
    fields: Fields,
    style: Style,
    heads: Heads,
    sizes: tuple[int | None, ...],
    feed: Callable[[str, int], tuple[Weight, ...]],
    routed: tuple[int, int],
) -> Architecture:
    """`feed` gives what a layer has instead of an MLP, from its path and its place."""
    hidden = fields.count("hidden_size")

    def layer(place: int) -> Layer:
        at = f"model.layers.{place}."
        norms = (norm(at + name, hidden) for name in style.norms)
        own = (*attention_weights(at, hidden, heads, style), *feed(at, place), *norms)
        return Layer(own, heads.attention(sizes[place]))

    return stack(fields, layer, routed=routed)


@family("mixtral")
def mixtral(fields: Fields) -> Architecture:
    hidden, width = fields.count("hidden_size"), fields.count("intermediate_size")
    count = fields.count("num_local_experts")

    def feed(at: str, place: int) -> tuple[Weight, ...]:
        at += "block_sparse_moe."
        return (router(f"{at}gate", hidden, count), *experts(at, hidden, width, count))

    sizes = everywhere(fields, fields.maybe("sliding_window"))
    return mixture(fields, Style(), heads_of(fields), sizes, feed, (count, fields.count(*PER_TOKEN)))


@family("qwen3_moe", "qwen3_vl_moe_text")
def qwen3_moe(fields: Fields) -> Architecture:
    heads = heads_of(fields)
    bias = fields.flag("attention_bias", False)
    style = Style(bias, bias, head_norms=(heads.size, heads.size))
    return _qwen_moe(fields, heads, style, shared=None)


@family("qwen2_moe")
def qwen2_moe(fields: Fields) -> Architecture:
    """One shared expert, with a gate of its own."""
    return _qwen_moe(fields, heads_of(fields), Style(bias=True), fields.count("shared_expert_intermediate_size"))


def _qwen_moe(fields: Fields, heads: Heads, style: Style, shared: int | None) -> Architecture:
    hidden = fields.count("hidden_size")
    count, width = fields.count("num_experts"), fields.count("moe_intermediate_size")
    step = fields.count("decoder_sparse_step", default=1)
    plain = set(fields.counts("mlp_only_layers"))

    def feed(at: str, place: int) -> tuple[Weight, ...]:
        at += "mlp."
        if place in plain or (place + 1) % step:
            return mlp(at, hidden, fields.count("intermediate_size"))
        own = (router(f"{at}gate", hidden, count), *experts(at, hidden, width, count))
        if shared is None:
            return own
        return (
            *own,
            *mlp(f"{at}shared_expert.", hidden, shared, "shared"),
            router(f"{at}shared_expert_gate", hidden, 1),
        )

    return mixture(fields, style, heads, qwen_windows(fields), feed, (count, fields.count(*PER_TOKEN)))


@family("glm4_moe")
def glm4_moe(fields: Fields) -> Architecture:
    """As DeepSeek's experts, under ordinary attention. Layers that only draft further tokens are not counted."""
    hidden, heads = fields.count("hidden_size"), heads_of(fields)
    count, width = fields.count("n_routed_experts"), fields.count("moe_intermediate_size")
    shared = fields.count("n_shared_experts", default=0, least=0)
    first = fields.count("first_k_dense_replace", default=0, least=0)

    def feed(at: str, place: int) -> tuple[Weight, ...]:
        at += "mlp."
        if place < first:
            return mlp(at, hidden, fields.count("intermediate_size"))
        own = (router(f"{at}gate", hidden, count, bias=count), *experts(at, hidden, width, count))
        return (*own, *mlp(f"{at}shared_experts.", hidden, shared * width, "shared")) if shared else own

    norms = (heads.size, heads.size) if fields.flag("use_qk_norm", False) else None
    style = Style(fields.flag("attention_bias", False), head_norms=norms)
    return mixture(fields, style, heads, everywhere(fields, None), feed, (count, fields.count(*PER_TOKEN)))


@family("minimax_m2")
def minimax_m2(fields: Fields) -> Architecture:
    """Its norms are over all queries and all keys at once; the router has a correction for each expert."""
    hidden, width = fields.count("hidden_size"), fields.count("intermediate_size")
    heads, count = heads_of(fields), fields.count("num_local_experts")

    def feed(at: str, place: int) -> tuple[Weight, ...]:
        at += "block_sparse_moe."
        return (router(f"{at}gate", hidden, count, bias=count), *experts(at, hidden, width, count))

    norms = (heads.query * heads.size, heads.kv * heads.size) if fields.flag("use_qk_norm", True) else None
    sizes = everywhere(fields, fields.maybe("sliding_window"))
    return mixture(fields, Style(head_norms=norms), heads, sizes, feed, (count, fields.count(*PER_TOKEN)))


@family("gpt_oss")
def gpt_oss(fields: Fields) -> Architecture:
    """Biases everywhere, a sink for each head, and every other layer looks back at few tokens."""
    hidden, width = fields.count("hidden_size"), fields.count("intermediate_size")
    heads, count = heads_of(fields, size=64), fields.count("num_local_experts", "num_experts")

    def feed(at: str, place: int) -> tuple[Weight, ...]:
        sinks = Weight(f"{at}self_attn.sinks", "attention", heads.query)
        at += "mlp."
        return (
            sinks,
            router(f"{at}router", hidden, count, bias=count),
            *experts(at, hidden, width, count, bias=True),
        )

    bias = fields.flag("attention_bias", True)
    sizes = windows(fields, fields.count("sliding_window", default=128), lambda place: place % 2 == 0)
    return mixture(fields, Style(bias, bias), heads, sizes, feed, (count, fields.count(*PER_TOKEN)))


@family("llama4", "llama4_text")
def llama4(fields: Fields) -> Architecture:
    """One shared expert beside the routed; three of four layers see only their chunk of the context."""
    hidden, heads = fields.count("hidden_size"), heads_of(fields, size=128)
    count, width = fields.count("num_local_experts"), fields.count("intermediate_size")
    step = fields.count("interleave_moe_layer_step", default=1)
    sparse = set(fields.counts("moe_layers"))

    def feed(at: str, place: int) -> tuple[Weight, ...]:
        at += "feed_forward."
        if place not in sparse if sparse else (place + 1) % step:
            return mlp(at, hidden, fields.count("intermediate_size_mlp"))
        own = (router(f"{at}router", hidden, count), *experts(at, hidden, width, count))
        return (*own, *mlp(f"{at}shared_expert.", hidden, width, "shared"))

    chunk = fields.maybe("attention_chunk_size") if fields.has("attention_chunk_size") else 8192
    sizes = windows(fields, chunk, lambda place: (place + 1) % 4 != 0)
    bias = fields.flag("attention_bias", False)
    routed = (count, fields.count("num_experts_per_tok", default=1))
    return mixture(fields, Style(bias, bias, norms=BEFORE), heads, sizes, feed, routed)

"""The Llama family and its many relatives: one gated MLP in each layer, norms before attention and MLP."""

from __future__ import annotations

from dataclasses import dataclass

from servemark.harness.hardware.architecture import Architecture, Weight
from servemark.harness.hardware.families.base import family
from servemark.harness.hardware.families.bricks import (
    Heads,
    Layer,
    heads_of,
    mlp,
    norm,
    projections,
    stack,
    windows,
)
from servemark.harness.hardware.families.fields import Fields

BEFORE = ("input_layernorm", "post_attention_layernorm")


@dataclass(frozen=True, slots=True)
class Style:
    """Where relatives differ. `head_norms` is the size of the norms of queries and keys, where there are any."""

    bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    head_norms: tuple[int, int] | None = None
    norms: tuple[str, ...] = BEFORE


def attention_weights(at: str, hidden: int, heads: Heads, style: Style) -> tuple[Weight, ...]:
    """With the norms of queries and keys."""
    weights = projections(f"{at}self_attn.", hidden, heads, style.bias, style.out_bias)
    if style.head_norms is not None:
        queries, keys = style.head_norms
        weights += (norm(f"{at}self_attn.q_norm", queries), norm(f"{at}self_attn.k_norm", keys))
    return weights


def dense(
    fields: Fields,
    style: Style,
    heads: Heads,
    sizes: tuple[int | None, ...],
    tied: bool = False,
    vocab: int | None = None,
) -> Architecture:
    """`sizes` are the windows of the layers; `tied` and `vocab` the class's, where the file says nothing."""
    hidden, width = fields.count("hidden_size"), fields.count("intermediate_size")

    def layer(place: int) -> Layer:
        at = f"model.layers.{place}."
        return Layer(
            (
                *attention_weights(at, hidden, heads, style),
                *mlp(f"{at}mlp.", hidden, width, bias=style.mlp_bias),
                *(norm(at + name, hidden) for name in style.norms),
            ),
            heads.attention(sizes[place]),
        )

    return stack(fields, layer, tied=tied, vocab=vocab)


def everywhere(fields: Fields, size: int | None) -> tuple[int | None, ...]:
    return windows(fields, size, lambda place: True)


@family("llama", "granite")
def llama(fields: Fields) -> Architecture:
    bias = fields.flag("attention_bias", False)
    style = Style(bias, bias, fields.flag("mlp_bias", False))
    return dense(fields, style, heads_of(fields), everywhere(fields, None))


@family("mistral")
def mistral(fields: Fields) -> Architecture:
    """Its class has a window of 4,096 where the file does not speak of one; null is none."""
    size = fields.maybe("sliding_window") if fields.has("sliding_window") else 4096
    return dense(fields, Style(), heads_of(fields), everywhere(fields, size))


def qwen_windows(fields: Fields) -> tuple[int | None, ...]:
    """A window is only meant where `use_sliding_window` says so, and then from some layer on."""
    size = fields.maybe("sliding_window") if fields.flag("use_sliding_window", False) else None
    first = fields.count("max_window_layers", default=0, least=0)
    return windows(fields, size, lambda place: place >= first)


@family("qwen2", "qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text")
def qwen2(fields: Fields) -> Architecture:
    """Queries, keys and values have a bias that no field tells of."""
    return dense(fields, Style(bias=True), heads_of(fields), qwen_windows(fields))


@family("qwen3", "qwen3_vl_text")
def qwen3(fields: Fields) -> Architecture:
    heads = heads_of(fields, size=128)
    bias = fields.flag("attention_bias", False)
    style = Style(bias, bias, head_norms=(heads.size, heads.size))
    return dense(fields, style, heads, qwen_windows(fields))


@family("olmo2")
def olmo2(fields: Fields) -> Architecture:
    """Norms after attention and MLP, and over all queries and all keys at once."""
    heads = heads_of(fields)
    bias = fields.flag("attention_bias", False)
    after = ("post_attention_layernorm", "post_feedforward_layernorm")
    norms = (heads.query * heads.size, heads.kv * heads.size)
    return dense(fields, Style(bias, bias, head_norms=norms, norms=after), heads, everywhere(fields, None))


@family("phi3")
def phi3(fields: Fields) -> Architecture:
    """Its checkpoint has queries, keys and values in one matrix; that is as many weights."""
    return dense(fields, Style(), heads_of(fields), everywhere(fields, fields.maybe("sliding_window")))


@family("cohere")
def cohere(fields: Fields) -> Architecture:
    """Attention and MLP side by side behind one norm; a norm of each head's own in the larger one."""
    heads = heads_of(fields)
    own = (heads.query * heads.size, heads.kv * heads.size) if fields.flag("use_qk_norm", False) else None
    bias = fields.flag("attention_bias", False)
    style = Style(bias, bias, head_norms=own, norms=BEFORE[:1])
    return dense(fields, style, heads, everywhere(fields, None), tied=True)


@family("glm4")
def glm4(fields: Fields) -> Architecture:
    """Four norms to a layer, and a bias on queries, keys and values alone."""
    bias = fields.flag("attention_bias", False)
    norms = (*BEFORE, "post_self_attn_layernorm", "post_mlp_layernorm")
    return dense(fields, Style(bias, norms=norms), heads_of(fields), everywhere(fields, None))

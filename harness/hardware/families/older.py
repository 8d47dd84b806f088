"""Transformers from before Llama: an MLP that is not gated, biases, LayerNorm, and positions as weights."""

from __future__ import annotations

from servemark.harness.hardware.architecture import Architecture, Weight
from servemark.harness.hardware.families.base import family
from servemark.harness.hardware.families.bricks import Heads, Layer, heads_of, norm, plain_mlp, projections, stack
from servemark.harness.hardware.families.bricks import windows as windows_of
from servemark.harness.hardware.families.fields import Fields


def biased(fields: Fields, heads: Heads, width: int, bias: bool, ends: tuple[Weight, ...], tied: bool) -> Architecture:
    hidden = fields.count("hidden_size")
    sizes = windows_of(fields, fields.maybe("sliding_window"), lambda place: True)

    def layer(place: int) -> Layer:
        at = f"model.layers.{place}."
        attention = projections(f"{at}self_attn.", hidden, heads, bias, bias)
        norms = (norm(f"{at}input_layernorm", hidden, True), norm(f"{at}post_attention_layernorm", hidden, True))
        own = (*attention, *plain_mlp(f"{at}mlp.up_proj", f"{at}mlp.down_proj", hidden, width, bias), *norms)
        return Layer(own, heads.attention(sizes[place]))

    return stack(fields, layer, tied=tied, ends=ends)


@family("gpt2")
def gpt2(fields: Fields) -> Architecture:
    """It has names of its own for the fields."""
    hidden, positions = fields.count("n_embd"), fields.count("n_positions", default=1024)
    named = Fields(
        {
            **fields.values,
            "hidden_size": hidden,
            "num_hidden_layers": fields.count("n_layer"),
            "num_attention_heads": fields.count("n_head"),
            "max_position_embeddings": positions,
        },
        fields.where,
    )
    ends = (norm("model.norm", hidden, True), Weight("model.embed_positions", "embedding", positions, hidden))
    width = fields.count("n_inner", default=4 * hidden)
    return biased(named, heads_of(named), width, True, ends, tied=True)


@family("opt")
def opt(fields: Fields) -> Architecture:
    """Two positions more than it says, which pad."""
    hidden, positions = fields.count("hidden_size"), fields.count("max_position_embeddings") + 2
    if fields.count("word_embed_proj_dim", default=hidden) != hidden or not fields.flag("do_layer_norm_before", True):
        raise ValueError(f"{fields.where}: this OPT has embeddings of another width than its layers; not known here")
    ends = (norm("model.norm", hidden, True), Weight("model.embed_positions", "embedding", positions, hidden))
    width = fields.count("ffn_dim", default=4 * hidden)
    return biased(fields, heads_of(fields), width, fields.flag("enable_bias", True), ends, tied=True)


@family("gpt_neox")
def gpt_neox(fields: Fields) -> Architecture:
    hidden, width = fields.count("hidden_size"), fields.count("intermediate_size")
    ends = (norm("model.norm", hidden, True),)
    return biased(fields, heads_of(fields), width, fields.flag("attention_bias", True), ends, tied=False)


@family("starcoder2")
def starcoder2(fields: Fields) -> Architecture:
    hidden, width = fields.count("hidden_size"), fields.count("intermediate_size")
    ends = (norm("model.norm", hidden, True),)
    return biased(fields, heads_of(fields), width, fields.flag("use_bias", True), ends, tied=True)

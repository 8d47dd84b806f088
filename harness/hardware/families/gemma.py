"""Gemma: tied embeddings, heads of their own size, and since Gemma 2 windows and four norms in each layer."""

from __future__ import annotations

from servemark.harness.hardware.architecture import Architecture
from servemark.harness.hardware.families.base import family
from servemark.harness.hardware.families.bricks import heads_of, windows
from servemark.harness.hardware.families.dense import BEFORE, Style, dense, everywhere
from servemark.harness.hardware.families.fields import Fields

FOUR = (*BEFORE, "pre_feedforward_layernorm", "post_feedforward_layernorm")


@family("gemma")
def gemma(fields: Fields) -> Architecture:
    return dense(fields, Style(), heads_of(fields, size=256), everywhere(fields, None), tied=True)


@family("gemma2")
def gemma2(fields: Fields) -> Architecture:
    """Every other layer slides, the first does."""
    sizes = windows(fields, fields.count("sliding_window", default=4096), lambda place: place % 2 == 0)
    return dense(fields, Style(norms=FOUR), heads_of(fields, size=256), sizes, tied=True)


@family("gemma3", "gemma3_text")
def gemma3(fields: Fields) -> Architecture:
    """All layers slide but every sixth. The files of those that see leave much to the class: its figures are here."""
    heads = heads_of(fields, query=8, kv=4, size=256)
    every = fields.count("sliding_window_pattern", "_sliding_window_pattern", default=6)
    sizes = windows(fields, fields.count("sliding_window", default=4096), lambda place: (place + 1) % every != 0)
    style = Style(head_norms=(heads.size, heads.size), norms=FOUR)
    return dense(fields, style, heads, sizes, tied=True, vocab=262_208)

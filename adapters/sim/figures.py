"""Figures of models and GPUs: what is read from figures.toml and what follows from it by arithmetic."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from servemark.harness.errors import BadInput

GB = 1_000_000_000
BYTES_PER_ELEMENT = 2  # bf16 weights and KV cache


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """A dense decoder-only transformer, by the fields of its config.json."""

    name: str
    hf_id: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied_embeddings: bool
    qk_norm: bool
    max_context: int
    source: str

    @property
    def embedding_params(self) -> int:
        return self.vocab * self.hidden

    @property
    def body_params(self) -> int:
        """All layers and norms: everything but the input embedding and the language-model head."""
        attention = self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads)
        mlp = 3 * self.hidden * self.intermediate
        norms = 2 * self.hidden + (2 * self.head_dim if self.qk_norm else 0)
        return self.layers * (attention + mlp + norms) + self.hidden

    @property
    def params(self) -> int:
        return self.body_params + self.embedding_params * (1 if self.tied_embeddings else 2)

    @property
    def weight_bytes(self) -> int:
        return self.params * BYTES_PER_ELEMENT

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of one token in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * BYTES_PER_ELEMENT


@dataclass(frozen=True, slots=True)
class GpuFigures:
    """A GPU's published peaks: dense 16-bit TFLOP/s, GB/s and GB, all decimal."""

    name: str
    title: str
    dense_tflops: float
    bandwidth_gb_s: float
    memory_gb: float
    source: str


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("figures.toml").read_text(encoding="utf-8"))


def model_names() -> tuple[str, ...]:
    return tuple(_table()["models"])


def gpu_names() -> tuple[str, ...]:
    return tuple(_table()["gpus"])


def model_figures(name: str) -> ModelFigures:
    return ModelFigures(name=name, **_entry("models", "--model", name))


def gpu_figures(name: str) -> GpuFigures:
    return GpuFigures(name=name, **_entry("gpus", "--gpu", name))


def _entry(table: str, flag: str, name: str) -> dict[str, Any]:
    entries: dict[str, dict[str, Any]] = _table()[table]
    if name not in entries:
        raise BadInput(f"{flag}: the simulator has no figures of {name!r}; it knows: {', '.join(entries)}")
    return entries[name]

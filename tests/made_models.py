"""Models put together by hand for tests of the arithmetic, with round numbers where a test wants them."""

from __future__ import annotations

from dataclasses import replace

from servemark.harness.hardware.architecture import Architecture, Attention, Role, Weight
from servemark.harness.hardware.device import Gpu, Peak
from servemark.harness.hardware.model import Model, Part


def model(
    elements: dict[Role, int],
    attention: tuple[Attention, ...],
    *,
    element_bytes: float = 2,
    kv_element_bytes: float = 2,
    compute: str = "bf16",
    tied: bool = False,
    experts: int = 0,
    chosen: int = 0,
    hidden: int = 4096,
) -> Model:
    """Each role is one matrix; `elements` are those of all layers."""
    architecture = Architecture(
        kind="made",
        hidden=hidden,
        vocab=1000,
        weights=tuple(Weight(role, role, count) for role, count in elements.items()),
        attention=attention,
        tied_embeddings=tied,
        experts=experts,
        experts_per_token=chosen,
        max_context=131072,
    )
    parts = tuple(Part(role, count, count * element_bytes, compute) for role, count in elements.items())
    return Model("made", architecture, parts, "made", "made", kv_element_bytes, "made")


def gqa(heads: int, kv_heads: int, head_dim: int, window: int | None = None) -> Attention:
    return Attention(2 * kv_heads * head_dim, kv_heads, 4 * heads * head_dim, window)


def llama_8b(**more: float) -> Model:
    """Llama-3.1-8B, from its published fields."""
    layers, hidden, mlp, vocab = 32, 4096, 14336, 128256
    elements: dict[Role, int] = {
        "embedding": vocab * hidden,
        "head": vocab * hidden,
        "norm": (2 * layers + 1) * hidden,
        "attention": layers * hidden * 128 * (2 * 32 + 2 * 8),
        "mlp": layers * 3 * hidden * mlp,
    }
    return model(elements, (gqa(32, 8, 128),) * layers, **more)  # type: ignore[arg-type]


def round_model(params: float, element_bytes: float = 2, compute: str = "bf16", kv_bytes_per_token: int = 0) -> Model:
    """A textbook's: so many parameters, all of them read in each step."""
    attention = (Attention(kv_bytes_per_token // 2, 1, 0),)
    return model({"mlp": round(params)}, attention, element_bytes=element_bytes, compute=compute)


def gpu(bandwidth_gb_s: float = 3350, bf16_tflops: float = 989, memory_gb: float = 80, **tflops: float) -> Gpu:
    """H100 SXM by default; other peaks by dtype."""
    peaks = {dtype: Peak(dtype, peak) for dtype, peak in {"bf16": bf16_tflops, **tflops}.items()}
    return Gpu("made", "made", peaks, bandwidth_gb_s, memory_gb)


def served(one: Model, weights_bytes: float, compute: str, kv_element_bytes: float = 2) -> Model:
    """In other formats: all weights at so many bytes each."""
    parts = tuple(replace(part, bytes=part.elements * weights_bytes, compute=compute) for part in one.parts)
    return replace(one, parts=parts, kv_element_bytes=kv_element_bytes)

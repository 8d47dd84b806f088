"""What families are put together from: attention, MLPs, experts, norms, and layers between two embeddings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from servemark.harness.hardware.architecture import Architecture, Attention, Role, Weight
from servemark.harness.hardware.families.fields import MOST_LAYERS, Fields

FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"


@dataclass(frozen=True, slots=True)
class Heads:
    """Of queries, of keys and values, and the size of each."""

    query: int
    kv: int
    size: int

    def attention(self, window: int | None = None) -> Attention:
        """A query with a key, and its weight with a value: two multiplications and two additions per element."""
        kept, pair = 2 * self.kv * self.size, 4 * self.query * self.size
        return Attention(kept, self.kv, pair, window, query_heads=self.query)


@dataclass(frozen=True, slots=True)
class Layer:
    weights: tuple[Weight, ...]
    attention: Attention


def heads_of(fields: Fields, query: int | None = None, kv: int | None = None, size: int | None = None) -> Heads:
    """The arguments are what the class has where the file says nothing; a head's size is independent of the rest."""
    queries = fields.count("num_attention_heads", default=query)
    keys = fields.count("num_key_value_heads", default=kv or queries)
    if queries % keys:
        raise ValueError(f"{fields.where}: {queries} attention heads cannot share {keys} key-value heads evenly")
    own = fields.maybe("head_dim") or size
    return Heads(queries, keys, own or _divided(fields, queries))


def _divided(fields: Fields, heads: int) -> int:
    hidden = fields.count("hidden_size")
    if hidden % heads:
        raise ValueError(f"{fields.where} lacks head_dim, and hidden_size {hidden} is no multiple of {heads} heads")
    return hidden // heads


def projections(at: str, hidden: int, heads: Heads, bias: bool = False, out_bias: bool = False) -> tuple[Weight, ...]:
    """Of queries, keys, values, and out of them; `at` is the path of the module, with its dot."""
    queries, keys = heads.query * heads.size, heads.kv * heads.size
    return (
        Weight(f"{at}q_proj", "attention", queries, hidden, bias=queries if bias else 0),
        Weight(f"{at}k_proj", "attention", keys, hidden, bias=keys if bias else 0),
        Weight(f"{at}v_proj", "attention", keys, hidden, bias=keys if bias else 0),
        Weight(f"{at}o_proj", "attention", hidden, queries, bias=hidden if out_bias else 0),
    )


def mlp(at: str, hidden: int, width: int, role: Role = "mlp", count: int = 1, bias: bool = False) -> tuple[Weight, ...]:
    """Gated, as nearly all are: two matrices in, one out."""
    return (
        Weight(f"{at}gate_proj", role, width, hidden, count, width if bias else 0),
        Weight(f"{at}up_proj", role, width, hidden, count, width if bias else 0),
        Weight(f"{at}down_proj", role, hidden, width, count, hidden if bias else 0),
    )


def plain_mlp(up: str, down: str, hidden: int, width: int, bias: bool = True) -> tuple[Weight, ...]:
    return (
        Weight(up, "mlp", width, hidden, bias=width if bias else 0),
        Weight(down, "mlp", hidden, width, bias=hidden if bias else 0),
    )


def experts(at: str, hidden: int, width: int, count: int, bias: bool = False) -> tuple[Weight, ...]:
    """All have the shape, and so the name, of the first."""
    return mlp(f"{at}experts.0.", hidden, width, "expert", count, bias)


def router(name: str, hidden: int, count: int, bias: int = 0) -> Weight:
    return Weight(name, "router", count, hidden, bias=bias)


def norm(name: str, size: int, bias: bool = False) -> Weight:
    return Weight(name, "norm", size, bias=size if bias else 0)


def stack(
    fields: Fields,
    layer: Callable[[int], Layer],
    *,
    tied: bool = False,
    routed: tuple[int, int] = (0, 0),
    ends: tuple[Weight, ...] | None = None,
    vocab: int | None = None,
) -> Architecture:
    """Layers between the embeddings. `tied`: whether the class ties them where the file says nothing.

    `routed` is the number of experts and how many a token uses; `ends` are what is outside of layers and embeddings, a
    norm if left out; `vocab` is the class's.
    """
    hidden = fields.count("hidden_size")
    rows = fields.count("vocab_size", default=vocab)
    together = fields.flag("tie_word_embeddings", tied)
    count, used = routed
    if used > count:
        raise ValueError(f"{fields.where}: a token uses {used} experts, and there are {count}")
    layers = [layer(place) for place in range(layers_of(fields))]
    weights = [Weight("model.embed_tokens", "embedding", rows, hidden)]
    weights += [weight for each in layers for weight in each.weights]
    weights += (norm("model.norm", hidden),) if ends is None else ends
    if not together:
        weights.append(Weight("lm_head", "head", rows, hidden))
    return Architecture(
        kind=fields.text("model_type") or "",
        hidden=hidden,
        vocab=rows,
        weights=tuple(weights),
        attention=tuple(each.attention for each in layers),
        tied_embeddings=together,
        experts=count,
        experts_per_token=used,
        max_context=fields.maybe("model_max_length", "max_position_embeddings"),
    )


def layers_of(fields: Fields) -> int:
    return fields.count("num_hidden_layers", most=MOST_LAYERS)


def windows(fields: Fields, size: int | None, slides: Callable[[int], bool]) -> tuple[int | None, ...]:
    """How far each layer looks back: as `layer_types` has it, else where it `slides`."""
    count = layers_of(fields)
    kinds = fields.texts("layer_types")
    if size is None:
        return (None,) * count
    if not kinds:
        return tuple(size if slides(place) else None for place in range(count))
    if len(kinds) != count:
        raise ValueError(f"{fields.where}: layer_types has {len(kinds)} entries for {count} layers")
    return tuple(_window(fields, kind, size) for kind in kinds)


def _window(fields: Fields, kind: str, size: int) -> int | None:
    if kind == FULL:
        return None
    if kind in (SLIDING, CHUNKED):
        return size
    raise ValueError(f"{fields.where}: layer_types has {kind[:40]!r}; known are {FULL}, {SLIDING} and {CHUNKED}")

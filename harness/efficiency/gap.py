"""Why what was modelled and what was measured differ: a sentence for each cause, with its figure, where it has one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from servemark.harness.efficiency.modelled import Modelled
from servemark.harness.efficiency.speculation import Speculation
from servemark.harness.efficiency.steps import Steps
from servemark.harness.figures.percent import share as percent
from servemark.harness.hardware.limits import HIDDEN_VECTORS
from servemark.harness.hardware.work import Arithmetic
from servemark.harness.registry import Registry

QUERY_BLOCK = 128
"""Queries that an attention kernel holds while it goes through all keys: FlashAttention's blocks are of 64 to 128."""

NOT_MODELLED = "Not in the model:"
NEAR = 0.02
"""Closer than that nothing is to be explained."""
NARROW_BITS = 9
"""Eight bits and their scales: below that a format is hardly mistaken for a wider one."""
EXPORTER_S = 30
"""dcgm-exporter's own period of collecting, where nobody set another."""
LONG_S = 600

UNSEEN = 1.05
"""More than so many times the tokens that clients saw: below that it may be the counter, which is interpolated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """`total` is the window as one bin. Measured shares are means over the GPUs; None where not told."""

    arithmetic: Arithmetic
    total: Modelled
    steps: Steps | None
    speculation: Speculation = field(default_factory=Speculation)
    bytes_per_s: float
    driver_bytes_per_s: float | None = None
    """The peak that the driver has of the memory's clock and bus, of which its shares are."""
    measured_mbu: float | None = None
    memory_clock_share: float | None = None
    """The memory's mean clock, of the highest."""
    cached_told: bool = True
    """Somebody says how many of the prompts' tokens were cached."""
    levels: tuple[float, ...] = ()
    """Of each GPU that serves, its measured share."""
    source: str = ""
    """Who read the GPUs."""
    preemptions: float | None = None
    generated: float | None = None
    """Output tokens by the server's count."""
    unknown_prompts: int = 0

    @property
    def seconds(self) -> float:
        return float(self.total.seconds[0])

    @property
    def modelled_bytes(self) -> float:
        return float(self.total.bytes[0])

    @property
    def measured_bytes(self) -> float | None:
        if self.measured_mbu is None:
            return None
        return self.measured_mbu * self.bytes_per_s * self.seconds * self.arithmetic.layout.gpus

    def share(self, moved: float) -> str:
        """Of the modelled bytes, in words."""
        return f"{moved / 1e9 / self.seconds:.3g} GB/s, {percent(moved / self.modelled_bytes)} of the modelled bytes"


Side = Literal["more", "less", "either"]


@dataclass(frozen=True, slots=True)
class Cause:
    """`side` says which way it moves what was measured from what was modelled."""

    side: Side
    sentence: Callable[[Gap], str | None]


CAUSES: Registry[Cause] = Registry("cause")


def cause(name: str, side: Side) -> Callable[[Callable[[Gap], str | None]], Callable[[Gap], str | None]]:
    """Registers a cause: a function that gives a sentence, or None where it has no figure."""

    def add(sentence: Callable[[Gap], str | None]) -> Callable[[Gap], str | None]:
        CAUSES.register(name)(Cause(side, sentence))
        return sentence

    return add


def explained(gap: Gap) -> list[str]:
    """How far the two are apart, then what moves them apart that way. Nothing without any modelled bytes.

    Without a measured figure it is what the model leaves out, under a heading.
    """
    if not gap.modelled_bytes > 0:
        return []
    if gap.measured_bytes is None:
        left_out = _of(gap, "more")
        return [NOT_MODELLED, *left_out] if left_out else []
    ratio = gap.measured_bytes / gap.modelled_bytes
    near = abs(ratio - 1) < NEAR
    sides: tuple[Side, ...] = () if near else ("more", "either") if ratio > 1 else ("less", "either")
    return [f"The GPUs moved {ratio:.2f} times the modelled bytes.", *_of(gap, *sides)]


def _of(gap: Gap, *sides: Side) -> list[str]:
    found = (each.sentence(gap) for _, each in CAUSES.items() if each.side in sides)
    return [sentence for sentence in found if sentence is not None]


@cause("peak", "either")
def peak(gap: Gap) -> str | None:
    """Published figures are rounded, and some are for a lower clock."""
    if gap.driver_bytes_per_s is None or gap.measured_mbu is None:
        return None
    more = gap.driver_bytes_per_s / gap.bytes_per_s - 1
    if abs(more) < 0.01:
        return None
    return (
        f"By its clock and bus the memory's peak is {gap.driver_bytes_per_s / 1e9:,.0f} GB/s, {more:+.1%} against the "
        "published one; what the GPU measures is a share of the former."
    )


@cause("activations", "more")
def activations(gap: Gap) -> str | None:
    """Modelled as staying on the chip."""
    shape = gap.arithmetic.model.architecture
    tokens = float(gap.total.computed[0]) + float(gap.total.decoded[0]) * gap.speculation.verified
    moved = HIDDEN_VECTORS * 2.0 * shape.hidden * len(shape.attention) * tokens
    return (
        f"Activations are not modelled: if each layer moves some {HIDDEN_VECTORS} vectors of the hidden size "
        f"for each of the {tokens:,.0f} tokens computed, that is about {gap.share(moved)}."
    )


@cause("rereads", "more")
def rereads(gap: Gap) -> str | None:
    """A long prompt's keys and values are read again for each block of its queries, as far as the cache misses them."""
    moved = float(gap.total.prompt_kv_met[0]) / QUERY_BLOCK
    if moved <= 0:
        return None
    return (
        "Attention reads a prompt's KV again for each block of queries, where no cache has it: in blocks "
        f"of {QUERY_BLOCK} at most {gap.share(moved)}."
    )


@cause("drafts", "more")
def drafts(gap: Gap) -> str | None:
    """The model that drafts moves bytes too."""
    if not gap.speculation.on:
        return None
    checked = gap.speculation.verified
    return f"What drafts tokens is not modelled; {checked:.2f} tokens were checked for each that was given."


@cause("preempted", "more")
def preempted(gap: Gap) -> str | None:
    """Computed twice."""
    if not gap.preemptions:
        return None
    total = gap.total
    context = float(total.contexts[0] / total.decoded[0]) if total.decoded[0] > 0 else 0.0
    known = float(total.computed[0] + total.decoded[0])
    if known <= 0:
        return None
    again = gap.preemptions * context / known
    return (
        f"{gap.preemptions:.0f} preemptions: what those requests had was computed again, about {percent(again)} of the "
        "tokens that clients know of."
    )


@cause("unseen", "more")
def unseen(gap: Gap) -> str | None:
    """Tokens of aborted requests, and of other clients."""
    seen = float(gap.total.decoded[0] + gap.total.begun[0])
    if gap.generated is None or not seen or gap.generated < UNSEEN * seen:
        return None
    return (
        f"The server made {gap.generated:,.0f} tokens in the window, of which {seen:,.0f} came to these clients; those "
        "of aborted and of others' requests are not modelled."
    )


@cause("prompts", "more")
def prompts(gap: Gap) -> str | None:
    """Nobody told how long they were."""
    if not gap.unknown_prompts:
        return None
    return (
        f"Of {gap.unknown_prompts} requests the prompt's length is not known: neither it nor its KV cache is modelled."
    )


@cause("experts", "less")
def experts(gap: Gap) -> str | None:
    """Routers do not draw at random."""
    if not gap.arithmetic.expert_bytes or gap.steps is None or not float(gap.total.steps[0]) > 0:
        return None
    batch = float(gap.total.decoded[0]) * gap.speculation.verified / float(gap.total.steps[0])
    chosen = gap.arithmetic.chosen_share(max(1.0, batch))
    return (
        f"A step of {batch:.3g} tokens is taken to read {percent(chosen)} of the experts, as a random choice would; "
        "real routers prefer some, and then fewer are read."
    )


@cause("steps", "either")
def steps(gap: Gap) -> str | None:
    """All of the weights' bytes hang on them."""
    if gap.steps is None or gap.steps.agreed:
        return None
    share = float(gap.total.weights[0]) / gap.modelled_bytes
    return (
        f"The number of steps is approximate ({gap.steps.note}), and {percent(share)} of the modelled bytes hang on it."
    )


@cause("cached", "less")
def cached(gap: Gap) -> str | None:
    """What a cache had was not computed again, nor written."""
    if gap.cached_told or not float(gap.total.computed[0]) > 0:
        return None
    written = float(gap.total.computed[0]) * gap.arithmetic.kv_written
    return (
        f"Nobody tells how many of the {gap.total.computed[0]:,.0f} prompt tokens were cached, so all are taken as "
        f"computed: writing their KV is {percent(written / gap.modelled_bytes)} of the modelled bytes."
    )


@cause("formats", "less")
def formats(gap: Gap) -> str | None:
    """A server may run with others than the config.json has."""
    model = gap.arithmetic.model
    wide = [
        f"{what} as {named} ({percent(float(moved[0]) / gap.modelled_bytes)} of the modelled bytes)"
        for what, named, bits, moved in (
            ("weights", model.weights, 8 * model.weight_bytes / model.params, gap.total.weights),
            ("the KV cache", model.kv, 8 * model.kv_element_bytes, gap.total.kv_read),
        )
        if bits > NARROW_BITS
    ]
    return f"Taken are {' and '.join(wide)}; a narrower --dtype or --kv-dtype moves fewer." if wide else None


@cause("averaged", "less")
def averaged(gap: Gap) -> str | None:
    """A mean over more than the window has idle time in it."""
    if "dcgm" not in gap.source or gap.seconds >= LONG_S:
        return None
    return (
        f"dcgm-exporter tells means, of {EXPORTER_S} s where nobody set it otherwise: in a window of "
        f"{gap.seconds:.3g} s they hold time before it."
    )


@cause("apart", "less")
def apart(gap: Gap) -> str | None:
    """A GPU that was read and does not serve draws the mean down."""
    if len(gap.levels) < 2 or min(gap.levels) >= max(gap.levels) / 2:
        return None
    return (
        f"The GPUs differ: one moved {percent(min(gap.levels))} of its peak, another {percent(max(gap.levels))}. One "
        "that was read may not be the server's; name those with --gpu-index."
    )


@cause("clocks", "more")
def clocks(gap: Gap) -> str | None:
    """What the GPU tells is a share of the peak at the clock that it has."""
    share = gap.memory_clock_share
    if gap.measured_mbu is None or share is None or share >= 0.98:
        return None
    return (
        f"The memory clock was {percent(share)} of its highest: what was measured is a share of a peak that is as low."
    )

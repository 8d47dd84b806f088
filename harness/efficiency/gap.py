"""Why what was modelled and what was measured differ: a sentence for each cause, with its figure, where it has one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from servemark.harness.efficiency.modelled import Modelled
from servemark.harness.efficiency.speculation import Speculation
from servemark.harness.efficiency.steps import Steps
from servemark.harness.hardware.limits import HIDDEN_VECTORS
from servemark.harness.hardware.work import Arithmetic
from servemark.harness.registry import Registry

QUERY_BLOCK = 128
"""Queries that an attention kernel holds while it goes through all keys: FlashAttention's blocks are of 64 to 128."""

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
    sm_active: float | None = None
    utilisation: float | None = None
    sm_clock_share: float | None = None
    """The SMs' mean clock, of the highest."""
    memory_clock_share: float | None = None
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
        return f"{moved / 1e9 / self.seconds:.3g} GB/s, {moved / self.modelled_bytes:.1%} of the modelled bytes"


CAUSES: Registry[Callable[[Gap], str | None]] = Registry("cause")


def cause(name: str) -> Callable[[Callable[[Gap], str | None]], Callable[[Gap], str | None]]:
    """Registers a cause: a function that gives a sentence, or None where it has no figure."""
    return CAUSES.register(name)


def explained(gap: Gap) -> list[str]:
    """How far the two are apart, then what may lie behind it. Nothing without any modelled bytes."""
    if not gap.modelled_bytes > 0:
        return []
    return [sentence for _, found in CAUSES.items() if (sentence := found(gap)) is not None]


@cause("difference")
def difference(gap: Gap) -> str | None:
    """How much more, or less, was measured."""
    if gap.measured_bytes is None:
        return None
    ratio = gap.measured_bytes / gap.modelled_bytes
    return f"The GPUs moved {ratio:.2f} times the modelled bytes."


@cause("peak")
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


@cause("activations")
def activations(gap: Gap) -> str | None:
    """Modelled as staying on the chip."""
    shape = gap.arithmetic.model.architecture
    tokens = float(gap.total.computed[0]) + float(gap.total.decoded[0]) * gap.speculation.verified
    moved = HIDDEN_VECTORS * 2.0 * shape.hidden * len(shape.attention) * tokens
    return (
        f"Activations are not modelled: if each layer moves some {HIDDEN_VECTORS} vectors of the hidden size "
        f"for each of the {tokens:,.0f} tokens computed, that is about {gap.share(moved)}."
    )


@cause("rereads")
def rereads(gap: Gap) -> str | None:
    """A long prompt's keys and values are read again for each block of its queries, as far as the cache misses them."""
    moved = float(gap.total.prompt_kv_met[0]) / QUERY_BLOCK
    if moved <= 0:
        return None
    return (
        "Attention reads a prompt's KV again for each block of queries, where no cache has it: in blocks "
        f"of {QUERY_BLOCK} at most {gap.share(moved)}."
    )


@cause("drafts")
def drafts(gap: Gap) -> str | None:
    """The model that drafts moves bytes too."""
    if not gap.speculation.on:
        return None
    checked = gap.speculation.verified
    return f"What drafts tokens is not modelled; {checked:.2f} tokens were checked for each that was given."


@cause("preempted")
def preempted(gap: Gap) -> str | None:
    """Computed twice."""
    if not gap.preemptions:
        return None
    total = gap.total
    context = float(total.contexts[0] / total.decoded[0]) if total.decoded[0] > 0 else 0.0
    again = gap.preemptions * context / float(total.computed[0] + total.decoded[0])
    return (
        f"{gap.preemptions:.0f} preemptions: what those requests had was computed again, about {again:.0%} of the "
        "tokens that clients know of."
    )


@cause("unseen")
def unseen(gap: Gap) -> str | None:
    """Tokens of aborted requests, and of other clients."""
    seen = float(gap.total.decoded[0] + gap.total.begun[0])
    if gap.generated is None or not seen or gap.generated < UNSEEN * seen:
        return None
    return (
        f"The server made {gap.generated:,.0f} tokens in the window, of which {seen:,.0f} came to these clients; those "
        "of aborted and of others' requests are not modelled."
    )


@cause("prompts")
def prompts(gap: Gap) -> str | None:
    """Nobody told how long they were."""
    if not gap.unknown_prompts:
        return None
    return (
        f"Of {gap.unknown_prompts} requests the prompt's length is not known: neither it nor its KV cache is modelled."
    )


@cause("experts")
def experts(gap: Gap) -> str | None:
    """Routers do not draw at random."""
    if not gap.arithmetic.expert_bytes or gap.steps is None or not float(gap.total.steps[0]) > 0:
        return None
    batch = float(gap.total.decoded[0]) * gap.speculation.verified / float(gap.total.steps[0])
    chosen = gap.arithmetic.chosen_share(max(1.0, batch))
    return (
        f"A step of {batch:.3g} tokens is taken to read {chosen:.0%} of the experts, as a random choice would; real "
        "routers prefer some, and then fewer are read."
    )


@cause("steps")
def steps(gap: Gap) -> str | None:
    """All of the weights' bytes hang on them."""
    if gap.steps is None or gap.steps.agreed:
        return None
    share = float(gap.total.weights[0]) / gap.modelled_bytes
    return f"The number of steps is approximate ({gap.steps.note}), and {share:.0%} of the modelled bytes hang on it."


@cause("idle")
def idle(gap: Gap) -> str | None:
    """Lowers both, but says where the rest of the time went."""
    if gap.utilisation is not None and gap.utilisation < 0.95:
        return f"No kernel ran for {1 - gap.utilisation:.0%} of the time: the GPUs waited for work or for the host."
    if gap.sm_active is not None and gap.sm_active < 0.8:
        return f"The SMs had work for {gap.sm_active:.0%} of the time only: gaps between kernels take the rest."
    return None


@cause("clocks")
def clocks(gap: Gap) -> str | None:
    """A peak is one at the highest clock."""
    for name, share, peak in (("memory", gap.memory_clock_share, "bandwidth"), ("SM", gap.sm_clock_share, "FLOPs")):
        if share is not None and share < 0.98:
            return f"The {name} clock was {share:.0%} of its highest, and so is the {peak} that could be reached."
    return None

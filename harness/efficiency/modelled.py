"""Bytes and FLOPs of a run, from what its clients saw and the model's arithmetic, in bins of time.

The weights are read once a step; each decoded token reads the KV cache before it; a prompt's cached part is read, and
its other tokens are computed and written. What the GPUs did for nobody who is on record is not in here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from servemark.harness.clock import SECOND
from servemark.harness.efficiency.seen import Decoded, Prefilled, Seen
from servemark.harness.efficiency.speculation import Speculation
from servemark.harness.efficiency.steps import Steps
from servemark.harness.figures.frame import Floats, Ints, Window
from servemark.harness.hardware.limits import STEP_TOKENS
from servemark.harness.hardware.work import SCORES, Arithmetic, Work, pairs

LEAST_BIN_S = 1.0
MOST_BINS = 240


@dataclass(frozen=True, slots=True, eq=False)
class Modelled:
    """Per bin of time. Bytes are those of all GPUs; `steps` and `weights` are nan where steps are not known.

    `decode_flops` are of the tokens that were given, `verified_flops` also of drafted ones that were not.
    """

    edges_ns: Ints
    steps: Floats
    prefill_steps: Floats
    decoded: Floats
    contexts: Floats
    """Cached tokens before each decoded token, added up."""
    begun: Floats
    """Requests that were given their first token."""
    prompts: Floats
    computed: Floats
    """Prompt tokens that were not cached."""
    weights: Floats
    kv_read: Floats
    kv_written: Floats
    prompt_kv_read: Floats
    prompt_kv_met: Floats
    """KV bytes that the prompts' queries meet, each query by itself; kernels read them for many queries at once."""
    decode_flops: Mapping[str, Floats]
    prefill_flops: Mapping[str, Floats]
    verified: float

    @property
    def seconds(self) -> Floats:
        return np.diff(self.edges_ns) / SECOND

    @property
    def bytes(self) -> Floats:
        return self.weights + self.kv_read + self.kv_written + self.prompt_kv_read

    @property
    def flops(self) -> Mapping[str, Floats]:
        return _added(self.decode_flops, self.prefill_flops)

    @property
    def verified_flops(self) -> Mapping[str, Floats]:
        return _added({dtype: flops * self.verified for dtype, flops in self.decode_flops.items()}, self.prefill_flops)

    def total(self) -> Modelled:
        """As one bin."""
        found: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in found.items():
            if isinstance(value, Mapping):
                found[name] = {dtype: flops.sum(keepdims=True) for dtype, flops in value.items()}
            elif isinstance(value, np.ndarray) and name != "edges_ns":
                found[name] = value.sum(keepdims=True)
        return Modelled(**found | {"edges_ns": self.edges_ns[[0, -1]]})


@dataclass(frozen=True)
class Modeller:
    """One run's records and the arithmetic of what it was made on."""

    arithmetic: Arithmetic
    seen: Seen
    steps: Steps | None
    speculation: Speculation

    def over(self, edges_ns: Ints) -> Modelled:
        """Work is put where the stamps of its chunks are."""
        bins = len(edges_ns) - 1
        decoded, prefilled = self.seen.decoded, self.seen.prefilled
        at, begun = _bins(decoded.stamps, edges_ns), _bins(prefilled.stamps, edges_ns)
        decoded, at = decoded.where(at >= 0), at[at >= 0]
        prefilled, begun = prefilled.where(begun >= 0), begun[begun >= 0]
        tokens = _per_bin(at, decoded.tokens, bins)
        computed = _per_bin(begun, prefilled.new, bins)
        steps = np.full(bins, np.nan) if self.steps is None else self.steps.between(edges_ns)
        prefill_steps = np.minimum(
            self._prefill_steps(prefilled, begun, bins, edges_ns), np.nan_to_num(steps, nan=np.inf)
        )
        each, verified = self.arithmetic, self.speculation.verified
        return Modelled(
            edges_ns=edges_ns,
            steps=steps,
            prefill_steps=prefill_steps,
            decoded=tokens,
            contexts=_per_bin(at, decoded.tokens * (decoded.contexts + (decoded.tokens - 1) / 2), bins),
            begun=_per_bin(begun, np.ones(len(begun)), bins),
            prompts=_per_bin(begun, prefilled.prompts, bins),
            computed=computed,
            weights=self._weights(steps, prefill_steps, tokens * verified, computed),
            kv_read=_per_bin(at, self.kv_reads(decoded), bins),
            kv_written=(tokens * verified + computed) * each.kv_written,
            prompt_kv_read=_per_bin(begun, _prompt_reads(each, prefilled), bins),
            prompt_kv_met=_per_bin(begun, _met(each, prefilled), bins),
            decode_flops=self._decode_flops(tokens, _per_bin(at, _scores(each, decoded), bins)),
            prefill_flops=self._prefill_flops(prefilled, begun, bins),
            verified=verified,
        )

    def kv_reads(self, decoded: Decoded) -> Floats:
        """A step that gives a request several tokens reads its cache once."""
        reads: Floats = self.arithmetic.kv_read_over(decoded.contexts, decoded.tokens)
        return reads / self.speculation.tokens_per_step

    def _weights(self, steps: Floats, prefill_steps: Floats, decoded: Floats, computed: Floats) -> Floats:
        """Steps with a prompt need more of the experts than others, so the two are told apart."""
        if self.steps is None:
            return np.full(len(steps), np.nan)
        rows = zip(steps.tolist(), prefill_steps.tolist(), decoded.tolist(), computed.tolist(), strict=True)
        return np.array([self._weights_of(*row) for row in rows])

    def _weights_of(self, steps: float, prefill_steps: float, decoded: float, computed: float) -> float:
        if steps <= 0:
            return 0.0
        ranks = None if self.steps is None else self.steps.ranks
        batch = decoded / steps
        read = (steps - prefill_steps) * self.arithmetic.weights_read(max(1.0, batch), ranks)
        if prefill_steps > 0:
            read += prefill_steps * self.arithmetic.weights_read(max(1.0, batch + computed / prefill_steps), ranks)
        return read

    def _prefill_steps(self, prefilled: Prefilled, begun: Ints, bins: int, edges_ns: Ints) -> Floats:
        """First tokens that came together are of one step: those nearer to each other than half a mean step."""
        if not len(prefilled.stamps):
            return np.zeros(bins)
        total = 0.0 if self.steps is None else float(self.steps.between(edges_ns[[0, -1]])[0])
        apart = (edges_ns[-1] - edges_ns[0]) / total / 2 if total > 0 else 0.0
        order = np.argsort(prefilled.stamps, kind="stable")
        starts = np.concatenate(([True], np.diff(prefilled.stamps[order]) > apart))
        return _per_bin(begun[order], starts.astype(np.float64), bins)

    def _decode_flops(self, tokens: Floats, scores: Floats) -> dict[str, Floats]:
        each = (Work(0, self.arithmetic.token_flops) + Work(0, self.arithmetic.head_flops)).flops
        return _added({dtype: flops * tokens for dtype, flops in each.items()}, {SCORES: scores})

    def _prefill_flops(self, prefilled: Prefilled, begun: Ints, bins: int) -> dict[str, Floats]:
        new, first = _per_bin(begun, prefilled.new, bins), _per_bin(begun, np.ones(len(begun)), bins)
        scores = self.arithmetic.pair_flops(prefilled.cached, prefilled.new, prefill=True)
        body = {dtype: flops * new for dtype, flops in self.arithmetic.token_flops.items()}
        head = {dtype: flops * first for dtype, flops in self.arithmetic.head_flops.items()}
        return _added(_added(body, head), {SCORES: _per_bin(begun, scores, bins)})


def edges_of(window: Window, fine: int = 1) -> Ints:
    """Bins of a second at least, and no more than 240 of them; `fine` splits each."""
    bins = int(min(MOST_BINS, max(1, window.seconds // LEAST_BIN_S))) * fine
    return np.linspace(window.start_ns, window.end_ns, bins + 1).astype(np.int64)


def _scores(arithmetic: Arithmetic, decoded: Decoded) -> Floats:
    scores: Floats = arithmetic.pair_flops(decoded.contexts, decoded.tokens)
    return scores


def _prompt_reads(arithmetic: Arithmetic, prefilled: Prefilled) -> Floats:
    """The cached part; and what was computed before, for each further piece of a prompt that is longer than a step."""
    reads: Floats = np.array(arithmetic.kv_read(prefilled.cached), dtype=np.float64)
    pieces = np.ceil(prefilled.new / STEP_TOKENS)
    for piece in range(1, int(pieces.max(initial=1))):
        more = pieces > piece
        reads[more] += arithmetic.kv_read(prefilled.cached[more] + piece * STEP_TOKENS)
    return reads


def _met(arithmetic: Arithmetic, prefilled: Prefilled) -> Floats:
    each = (reach.kv_bytes * pairs(prefilled.cached, prefilled.new, reach.window) for reach in arithmetic.reaches)
    return sum(each, np.zeros(len(prefilled.rows)))


def _bins(stamps: Ints, edges_ns: Ints) -> Ints:
    """The bin of each stamp, -1 outside."""
    found = np.searchsorted(edges_ns, stamps, side="right") - 1
    return np.where((found >= 0) & (found < len(edges_ns) - 1), found, -1)


def _per_bin(at: Ints, values: Floats, bins: int) -> Floats:
    return np.bincount(at, weights=values, minlength=bins)[:bins].astype(np.float64)


def _added(one: Mapping[str, Floats], other: Mapping[str, Floats]) -> dict[str, Floats]:
    nothing = np.zeros(1)
    return {dtype: one.get(dtype, nothing) + other.get(dtype, nothing) for dtype in {**one, **other}}

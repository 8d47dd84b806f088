"""Decode and prefill apart, where the records allow it, and else a sentence that says why they do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from servemark.harness.clock import SECOND
from servemark.harness.efficiency.load import Load
from servemark.harness.efficiency.modelled import Modelled, Modeller
from servemark.harness.efficiency.seen import Decoded
from servemark.harness.efficiency.spans import quiet, to_last_step, within
from servemark.harness.efficiency.steps import SEVERAL, chain
from servemark.harness.efficiency.timeline import possible
from servemark.harness.figures.chunks import chunk_gaps, token_gaps
from servemark.harness.figures.frame import MISSING, Floats, Frame, Ints, Window
from servemark.harness.figures.percent import share as percent
from servemark.harness.hardware.devices import Gpu
from servemark.harness.hardware.utilisation import mbu, mfu
from servemark.harness.hardware.work import SCORES, Work

LEAST_SHARE = 0.05
"""Of the window that must be free of prompts, to speak of decode by itself."""
LEAST_STEPS = 20
MOST_PREFILL = 0.3
"""Of the steps with a prompt in them, for the median gap to be one of a step without."""
TOGETHER = 4
"""Steps that are taken to have the same batch."""

_QUEUES = (
    "TTFT holds waiting as well as prefill as soon as two requests are in flight at once; prefill alone shows in a run "
    "with a concurrency of 1."
)


@dataclass(frozen=True, slots=True)
class Phases:
    """Each is {"mbu", "mfu", "how", ...} or a sentence why it is not known."""

    decode: dict[str, Any] | str
    prefill: dict[str, Any] | str

    def to_json(self) -> dict[str, Any]:
        return {"decode": self.decode, "prefill": self.prefill}


def phases(frame: Frame, window: Window, modeller: Modeller, total: Modelled, load: Load, gpu: Gpu) -> Phases:
    decode, prefill = _decode(frame, window, modeller, total, load, gpu), _prefill(frame, window, modeller, gpu)
    return Phases(_believable(decode), _believable(prefill))


def _believable(found: dict[str, Any] | str) -> dict[str, Any] | str:
    if isinstance(found, str) or (possible(found["mbu"]) is not None and possible(found["mfu"]) is not None):
        return found
    return (
        f"MBU comes out as {percent(found['mbu'])} and MFU as {percent(found['mfu'])}, which cannot be: the GPU, "
        "the model or its format is not the one that was named."
    )


# -- decode


def _decode(
    frame: Frame, window: Window, modeller: Modeller, total: Modelled, load: Load, gpu: Gpu
) -> dict[str, Any] | str:
    return _between_prompts(frame, window, modeller, gpu) or _by_gaps(frame, window, modeller, total, load, gpu)


def _between_prompts(frame: Frame, window: Window, modeller: Modeller, gpu: Gpu) -> dict[str, Any] | None:
    """The times in which a server only decoded: none of its requests was between being sent and its first token."""
    layout = modeller.arithmetic.layout
    urls = sorted(set(frame["url"].tolist()))
    if layout.replicas != len(urls) or layout.pipeline > 1:
        return None  # which server, or which part of a batch, computes a prompt is not known
    by_token = modeller.steps is not None and modeller.steps.by_token
    seconds, work, steps, tokens = 0.0, Work(), 0.0, 0.0
    for url in urls:
        stamps, held = chain(frame.take(frame["url"] == url))
        several = by_token and float(held.mean()) >= SEVERAL
        spans = to_last_step(quiet(frame, frame["url"] == url, window), stamps, several)
        inside = within(stamps, spans)
        decoded = modeller.seen.decoded
        decoded = decoded.where((frame["url"] == url)[decoded.rows])
        decoded = decoded.where(within(decoded.stamps, spans))
        if not inside.any():
            continue
        taken = (held if by_token else np.ones(len(held)))[inside]
        count = float(taken.sum())
        seconds += sum(end - start for start, end in spans) / SECOND
        steps, tokens = steps + count, tokens + float(decoded.tokens.sum())
        weights = _weights(modeller, stamps[inside], taken, decoded)
        work = work + _decode_work(modeller, weights, decoded.tokens, decoded.contexts)
    if steps < LEAST_STEPS or seconds < LEAST_SHARE * window.seconds * len(urls):
        return None
    note = "times in which no prompt was in flight"
    return _shares(work, seconds, layout.gpus_per_server, gpu) | {
        "how": "between prompts",
        "seconds": seconds,
        "batch": tokens / steps,
        "note": note,
    }


def _weights(modeller: Modeller, stamps: Ints, taken: Floats, decoded: Decoded) -> float:
    """Bytes that steps read: `taken` of them up to each stamp. Of experts a larger one reads more, by ever less.

    A few steps go together, since a step's chunks come before and after the one that stands for it.
    """
    block = np.arange(len(stamps)) // TOGETHER
    place = block[np.minimum(np.searchsorted(stamps, decoded.stamps), len(stamps) - 1)]
    taken = np.bincount(block, taken).astype(np.float64)
    tokens = np.bincount(place, decoded.tokens, len(taken)) * modeller.speculation.verified / taken
    batches, each = np.unique(np.round(np.maximum(tokens, 1.0), 3), return_inverse=True)
    times = np.bincount(each, taken)
    rows = zip(batches.tolist(), times.tolist(), strict=True)
    return float(sum(count * modeller.arithmetic.weights_read(batch) for batch, count in rows))


def _decode_work(modeller: Modeller, weights: float, tokens: Floats, contexts: Floats) -> Work:
    each, spec = modeller.arithmetic, modeller.speculation
    count = float(tokens.sum())
    kv = float(np.sum(each.kv_read_over(contexts, tokens))) / spec.tokens_per_step + count * each.kv_written
    scores = Work(0, {SCORES: float(np.sum(each.pair_flops(contexts, tokens)))})
    return Work(weights + kv) + (Work(0, each.token_flops) + Work(0, each.head_flops)) * count + scores


def _by_gaps(
    frame: Frame, window: Window, modeller: Modeller, total: Modelled, load: Load, gpu: Gpu
) -> dict[str, Any] | str:
    """The median gap between chunks as the time of a step, where most steps have no prompt in them."""
    layout, steps = modeller.arithmetic.layout, float(total.steps[0])
    if not total.decoded[0] > 0:
        return "No token came after the first one of an answer: nothing was decoded."
    if load.batch is None or load.context is None or not steps > 0:
        return "Prompts were in flight all the time, and no steps are known: decode cannot be told apart."
    share = float(total.prefill_steps[0]) / steps
    if share > MOST_PREFILL:
        return f"{percent(share)} of the steps had a prompt in them: hardly any step only decoded."
    by_token = modeller.steps is not None and modeller.steps.by_token
    gaps = (token_gaps if by_token else chunk_gaps)(frame.take(frame.ok)).values
    if not len(gaps) or np.median(gaps) <= 0 or layout.pipeline > 1:  # 0 where answers come in heaps
        return "No gaps between the chunks of answers are known that would be those of a step."
    step_s, batch = float(np.median(gaps)) / 1000, load.batch
    tokens = batch * modeller.speculation.tokens_per_step
    weights = modeller.arithmetic.weights_read(max(1.0, tokens * modeller.speculation.verified))
    work = Work(weights) + _decode_work(modeller, 0.0, np.ones(1), np.full(1, load.context)) * tokens
    return _shares(work, step_s, layout.gpus_per_server, gpu) | {
        "how": "icl",
        "seconds": None,
        "batch": batch,
        "note": f"a step of the mean batch in the median gap between chunks, {step_s * 1000:.3g} ms",
    }


# -- prefill


def _prefill(frame: Frame, window: Window, modeller: Modeller, gpu: Gpu) -> dict[str, Any] | str:
    prefilled = modeller.seen.prefilled
    prefilled = prefilled.where(window.holds(prefilled.stamps))
    if not len(prefilled.rows):
        return "No request began to answer in the window."
    if not alone(frame):
        return _QUEUES
    rows = prefilled.rows
    seconds = float((frame["first_token_ns"][rows] - frame["sent_ns"][rows]).sum()) / SECOND
    if seconds <= 0:
        return "No time passed between sending and the first token."
    steps = zip(prefilled.prompts.tolist(), prefilled.cached.tolist(), strict=True)
    work = sum((modeller.arithmetic.prefill(*each).work for each in steps), Work())
    return _shares(work, seconds, modeller.arithmetic.layout.gpus_per_server, gpu) | {
        "how": "TTFT from sending, one request at a time",
        "seconds": seconds,
        "note": "TTFT holds the server's front end too",
    }


def alone(frame: Frame) -> bool:
    """No server ever had two requests at once."""
    for url in set(frame["url"].tolist()):
        rows = (frame["url"] == url) & (frame["sent_ns"] != MISSING)
        order = np.argsort(frame["sent_ns"][rows], kind="stable")
        sent, done = frame["sent_ns"][rows][order], frame["done_ns"][rows][order]
        if np.any(done[:-1] == MISSING) or np.any(sent[1:] < done[:-1]):
            return False
    return True


def _shares(work: Work, seconds: float, gpus: int, gpu: Gpu) -> dict[str, Any]:
    return {
        "mbu": mbu(work.bytes, seconds, gpus, gpu.bytes_per_s),
        "mfu": mfu(work.flops, seconds, gpus, gpu.flops_per_s),
    }

"""Decode and prefill apart, where the records allow it, and else a sentence that says why they do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from servemark.harness.clock import SECOND
from servemark.harness.efficiency.load import Load
from servemark.harness.efficiency.modelled import Modelled, Modeller
from servemark.harness.efficiency.steps import chain
from servemark.harness.efficiency.timeline import possible
from servemark.harness.figures.chunks import chunk_gaps
from servemark.harness.figures.frame import MISSING, Floats, Frame, Ints, Mask, Window
from servemark.harness.hardware.devices import Gpu
from servemark.harness.hardware.utilisation import mbu, mfu
from servemark.harness.hardware.work import SCORES, Work

LEAST_SHARE = 0.05
"""Of the window that must be free of prompts, to speak of decode by itself."""
LEAST_STEPS = 20
MOST_PREFILL = 0.3
"""Of the steps with a prompt in them, for the median gap to be one of a step without."""

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
        f"MBU comes out as {found['mbu']:.0%} and MFU as {found['mfu']:.0%}, which cannot be: the GPU, the model or "
        "its format is not the one that was named."
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
    seconds, work, steps, tokens = 0.0, Work(), 0, 0.0
    for url in urls:
        stamps = chain(frame.take(frame["url"] == url))
        spans = _to_last_step(quiet(frame, frame["url"] == url, window), stamps)
        inside = _inside(stamps, spans)
        decoded = modeller.seen.decoded
        decoded = decoded.where((frame["url"] == url)[decoded.rows])
        decoded = decoded.where(_inside(decoded.stamps, spans))
        count = int(inside.sum())
        if count == 0:
            continue
        seconds += sum(end - start for start, end in spans) / SECOND
        steps, tokens = steps + count, tokens + float(decoded.tokens.sum())
        work = work + _decode_work(modeller, count, decoded.tokens, decoded.contexts)
    if steps < LEAST_STEPS or seconds < LEAST_SHARE * window.seconds * len(urls):
        return None
    note = "times in which no prompt was in flight"
    return _shares(work, seconds, layout.gpus_per_server, gpu) | {
        "how": "between prompts",
        "seconds": seconds,
        "batch": tokens / steps,
        "note": note,
    }


def _decode_work(modeller: Modeller, steps: float, tokens: Floats, contexts: Floats) -> Work:
    each, spec = modeller.arithmetic, modeller.speculation
    count = float(tokens.sum())
    batch = max(1.0, count * spec.verified / steps)
    kv = float(np.sum(each.kv_read_over(contexts, tokens))) / spec.tokens_per_step + count * each.kv_written
    weights = steps * each.weights_read(batch)
    scores = Work(0, {SCORES: float(np.sum(each.pair_flops(contexts, tokens)))})
    return Work(weights + kv) + (Work(0, each.token_flops) + Work(0, each.head_flops)) * count + scores


def quiet(frame: Frame, rows: Mask, window: Window) -> list[tuple[int, int]]:
    """Spans of the window in which one of these requests decodes and none of them is before its first token."""
    sent, first, last = (frame[name][rows] for name in ("sent_ns", "first_token_ns", "last_token_ns"))
    ended = np.where(first != MISSING, first, frame["done_ns"][rows])
    began = (sent != MISSING) & (ended != MISSING)
    busy, decodes = _union(sent[began], ended[began]), _union(first[first != MISSING], last[first != MISSING])
    spans = [(max(a, window.start_ns), min(b, window.end_ns)) for a, b in decodes]
    return [span for span in _without(spans, busy) if span[1] > span[0]]


def _to_last_step(spans: Sequence[tuple[int, int]], stamps: Ints) -> list[tuple[int, int]]:
    """A span ends where a prompt comes, in the midst of a step: what is after the last whole one is left out."""
    if not len(stamps):
        return []
    ends = [int(stamps[max(0, int(np.searchsorted(stamps, end, side="right")) - 1)]) for _, end in spans]
    return [(start, last) for (start, _), last in zip(spans, ends, strict=True) if last > start]


def _union(starts: Ints, ends: Ints) -> list[tuple[int, int]]:
    """Intervals that touch, as one."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(zip(starts.tolist(), ends.tolist(), strict=True)):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def _without(spans: Sequence[tuple[int, int]], taken: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """What is left of the spans; both are in order and do not overlap."""
    left, place = [], 0
    for start, end in spans:
        while place < len(taken) and taken[place][1] <= start:
            place += 1
        here = place
        while here < len(taken) and taken[here][0] < end:
            if taken[here][0] > start:
                left.append((start, taken[here][0]))
            start, here = max(start, taken[here][1]), here + 1
        if start < end:
            left.append((start, end))
    return left


def _inside(stamps: Ints, spans: Sequence[tuple[int, int]]) -> Mask:
    """After the start of a span, as the chunk of a step that began in it, and not after its end."""
    if not spans:
        return np.zeros(len(stamps), dtype=np.bool_)
    starts, ends = (np.array(each, dtype=np.int64) for each in zip(*spans, strict=True))
    place = np.searchsorted(starts, stamps, side="left") - 1
    found: Mask = (place >= 0) & (stamps <= ends[np.maximum(place, 0)])
    return found


def _by_gaps(
    frame: Frame, window: Window, modeller: Modeller, total: Modelled, load: Load, gpu: Gpu
) -> dict[str, Any] | str:
    """The median gap between chunks as the time of a step, where most steps have no prompt in them."""
    layout, steps = modeller.arithmetic.layout, float(total.steps[0])
    if load.batch is None or load.context is None or not steps > 0:
        return "Prompts were in flight all the time, and no steps are known: decode cannot be told apart."
    share = float(total.prefill_steps[0]) / steps
    if share > MOST_PREFILL:
        return f"{share:.0%} of the steps had a prompt in them: hardly any step only decoded."
    gaps = chunk_gaps(frame.take(frame.ok)).values
    if not len(gaps) or layout.pipeline > 1:
        return "No gaps between the chunks of answers are known that would be those of a step."
    step_s, batch = float(np.median(gaps)) / 1000, load.batch
    work = _decode_work(modeller, 1, np.full(1, batch), np.full(1, load.context))
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

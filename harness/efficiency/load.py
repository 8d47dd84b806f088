"""The load of a run in the means that floors and bounds ask for: batch, context, prompt, output."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from servemark.harness.clock import SECOND
from servemark.harness.efficiency.modelled import Modelled
from servemark.harness.efficiency.seen import Prefilled
from servemark.harness.efficiency.speculation import Speculation
from servemark.harness.figures.frame import MISSING, Frame, Window
from servemark.harness.hardware.layout import Layout


@dataclass(frozen=True, slots=True)
class Load:
    """`batch` is the requests of one server that decode at a time, `running` those of all servers.

    `sharing` are those that take a step together, of which some take it with their prompt.
    `context` is what is cached before a decoded token; prompts and outputs are those of requests that began to answer
    in the window. None where nothing was decoded, or began.
    """

    batch: float | None
    sharing: float | None
    running: float | None
    context: float | None
    prompt: float | None
    cached: float | None
    output: float | None
    requests: int
    middle: tuple[float, float] | None = None
    """Prompt and cached tokens of the request that is in the middle by what there was to compute."""


def load_of(
    frame: Frame, window: Window, total: Modelled, prefilled: Prefilled, layout: Layout, spec: Speculation
) -> Load:
    """`total` is the window as one bin."""
    begun = prefilled.where(window.holds(prefilled.stamps))
    outputs = frame["output_tokens"][begun.rows]
    decoding = _decoding(frame, window)
    steps, decoded = float(total.steps[0]), float(total.decoded[0])
    given, first = decoded / spec.tokens_per_step, float(total.begun[0])
    if steps > 0:
        batch, sharing = given / steps * layout.pipeline, (given + first) / steps * layout.pipeline
    else:
        batch, sharing = decoding / layout.replicas, None
    return Load(
        batch=batch if decoded > 0 else None,
        sharing=sharing if given + first > 0 else None,
        running=decoding or None,
        context=float(total.contexts[0]) / decoded if decoded > 0 else None,
        prompt=_mean(begun.prompts),
        cached=_mean(begun.cached),
        output=_mean(outputs[outputs != MISSING].astype(np.float64)),
        requests=len(begun.rows),
        middle=_middle(begun),
    )


def _middle(begun: Prefilled) -> tuple[float, float] | None:
    if not len(begun.rows):
        return None
    row = int(np.argsort(begun.new, kind="stable")[(len(begun.rows) - 1) // 2])
    return float(begun.prompts[row]), float(begun.cached[row])


def _decoding(frame: Frame, window: Window) -> float:
    """Requests between their first and their last token, on average over the window."""
    rows = frame.counts > 0
    first, last = frame["first_token_ns"][rows], frame["last_token_ns"][rows]
    inside = np.minimum(last, window.end_ns) - np.maximum(first, window.start_ns)
    return float(np.maximum(inside, 0).sum()) / SECOND / window.seconds if window.seconds > 0 else 0.0


def _mean(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float | None:
    return float(values.mean()) if len(values) else None

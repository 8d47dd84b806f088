"""Parts of a run by themselves: by class, by turn, by input length. A new kind is one decorated function.

It gives each row of the frame a label, or None for no group. Labels sort as they are: numbers as numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from servemark.harness.figures.frame import MISSING, Frame, Window
from servemark.harness.figures.slo import Slo
from servemark.harness.figures.summary import summarize
from servemark.harness.figures.view import Origin
from servemark.harness.registry import Registry

Labels = Callable[[Frame], Sequence[Any]]
"""Frame -> one label per row."""

GROUPS: Registry[Labels] = Registry("kind of group")
MAX_GROUPS = 32
HIT_SHARE = 0.1
"""From this part of a prompt on it was found in the prefix cache: a chat template alone is less."""


@GROUPS.register("class")
def by_class(frame: Frame) -> Sequence[Hashable]:
    labels: list[Hashable] = frame["class_"].tolist()
    return labels


@GROUPS.register("url")
def by_url(frame: Frame) -> Sequence[Hashable]:
    labels: list[Hashable] = frame["url"].tolist()
    return labels


@GROUPS.register("turn")
def by_turn(frame: Frame) -> Sequence[Hashable]:
    labels: list[Hashable] = frame["turn"].tolist()
    return labels


@GROUPS.register("input_tokens_up_to")
def by_input_length(frame: Frame) -> Sequence[Hashable]:
    """By powers of two: 1,024 stands for prompts of 513 to 1,024 tokens as the server counts them, else as asked."""
    told, asked = frame["prompt_tokens"], frame["asked_prompt_tokens"]
    tokens = np.where(told > 0, told, asked)
    return [None if each == MISSING else 1 << (max(1, each) - 1).bit_length() for each in tokens.tolist()]


@GROUPS.register("cached")
def by_cache(frame: Frame) -> Sequence[Hashable]:
    """`hit` where a tenth of the prompt or more came from the prefix cache, by the response; nothing if none tells."""
    cached, tokens = frame["cached_tokens"], frame["prompt_tokens"]
    told = cached != MISSING
    # Some servers leave the field out where it is 0.
    share = np.where(told, cached, 0) / np.maximum(tokens, 1)
    labels = np.where(share >= HIT_SHARE, "hit", "miss")
    return [label if known and told.any() else None for label, known in zip(labels.tolist(), tokens > 0, strict=True)]


def groups(
    frame: Frame,
    window: Window | None = None,
    slo: Slo | None = None,
    *,
    origin: Origin = "intended",
    names: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """`[{by: {class: "rag"}, metrics}]` for each group of each kind, where there is more than one of them.

    Rates are the group's own part, over the window of the whole run. At most 32 groups a kind, the largest.
    """
    window, whole = window or frame.steady_window(), frame.whole_window()
    found = []
    for kind, labels_of in GROUPS.items():
        labels = labels_of(frame)
        for label in _largest(frame, labels):
            part = frame.take(np.fromiter((each == label for each in labels), np.bool_, len(frame)))
            metrics = summarize(part, window, slo, whole=whole, origin=origin, names=names)
            found.append({"by": {kind: label}, "metrics": metrics})
    return found


def _largest(frame: Frame, labels: Sequence[Any]) -> list[Any]:
    """The labels of measured requests, in order; none where all requests have the same."""
    measured = (label for label, counts in zip(labels, frame.measured.tolist(), strict=True) if counts)
    sizes = Counter(label for label in measured if label is not None)
    return sorted(label for label, _ in sizes.most_common(MAX_GROUPS)) if len(sizes) > 1 else []

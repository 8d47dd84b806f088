"""How near each request came to the limits of the SLO, and how much the ones that came nearest lie together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from servemark.harness.figures.metrics import METRICS
from servemark.harness.figures.slo import Limit, Slo
from servemark.harness.figures.view import View
from servemark.harness.search.proportion import inflation

if TYPE_CHECKING:
    from servemark.harness.figures.frame import Floats, Frame, Mask

NEAREST = 0.1


def strain(slo: Slo, view: View) -> Floats:
    """Of each request the largest share of a limit that it used up; above 1 it missed one.

    Infinite for a request that failed, or has no value.
    """
    import numpy as np

    found = np.where(view.frame.ok, 0.0, np.inf)
    for limit, rows in _limits(slo, view.frame):
        found = np.where(rows & view.frame.ok, np.maximum(found, _used_up(limit, view)), found)
    return found


def _limits(slo: Slo, frame: Frame) -> Iterator[tuple[Limit, Mask]]:
    """Each limit on requests with the rows that it holds for."""
    import numpy as np

    for name in dict.fromkeys(frame["class_"].tolist()):
        for limit in slo.of_class(name).per_request:
            yield limit, np.asarray(frame["class_"] == name, dtype=np.bool_)


def _used_up(limit: Limit, view: View) -> Floats:
    import numpy as np

    values = METRICS[limit.metric].compute(view)
    with np.errstate(divide="ignore", invalid="ignore"):
        used = limit.value / values if METRICS[limit.metric].better == "higher" else values / limit.value
    vacuous = np.isnan(values) & limit.rows(view)
    return np.where(vacuous, 0.0, np.where(np.isnan(used), np.inf, used))


def clumping(strained: Floats) -> float:
    """The inflation of the tenth of a run's requests that came nearest to a limit.

    Misses that are rare do not show how much they come together; these, which wait in the same queues, do.
    """
    import numpy as np

    if not len(strained):
        return 1.0
    edge = np.sort(strained)[int((1 - NEAREST) * len(strained))]
    return inflation([(strained >= edge).astype(int).tolist()])

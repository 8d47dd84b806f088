"""When requests are sent: arrival processes, pure functions from a seed to absolute offsets, and the closed loop.

A new arrival process is a decorated class with an `arrivals` literal and `offsets_ns`, in a module of this folder.
Nothing here sleeps or reads a clock.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from servemark.harness.plan.arrivals.base import ARRIVALS, SECOND, Load, OpenLoop, Timeline

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

from servemark.harness.plan.arrivals.closed import ClosedLoop  # noqa: E402
from servemark.harness.plan.arrivals.steady import Constant, Gamma, Poisson, Weibull  # noqa: E402
from servemark.harness.plan.arrivals.trace import Trace  # noqa: E402
from servemark.harness.plan.arrivals.varying import Bursts, Daily, Stages  # noqa: E402

__all__ = [
    "ARRIVALS",
    "SECOND",
    "Bursts",
    "ClosedLoop",
    "Constant",
    "Daily",
    "Gamma",
    "Load",
    "OpenLoop",
    "Poisson",
    "Stages",
    "Timeline",
    "Trace",
    "Weibull",
]

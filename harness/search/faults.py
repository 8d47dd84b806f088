"""What an INVALID run says of a load: that it is too much, that this client is not up to it, or nothing at all."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Literal

OF_THE_LOAD = frozenset({"overloaded", "error_share"})
"""Expected in a search: the queue only grew, or requests failed (each of which misses the SLO anyway)."""
OF_THE_CLIENT = frozenset(
    {
        "client_lag",
        "late_turns",
        "late_jobs",
        "loop_stalls",
        "client_cpu",
        "coalesced_reads",
        "wall_step",
        "generator_lost",
        "requests_sent",
        "schedule_finished",
    }
)
"""Such a run is no pass and no fail, whatever its figures are."""
_UNSENT = frozenset({"requests_sent", "schedule_finished"})
"""Under a cap in flight the server decides when a request may leave, and so whether it does."""
WAITED_OUT = frozenset({"timeout_first_event", "timeout_gap", "timeout_total", "abandoned", "gave_up"})


@dataclass(frozen=True, slots=True)
class Judged:
    """`counts`, `void` (the client's fault) or `stop` (the search cannot go on); `held`: the load was not too high."""

    state: Literal["counts", "void", "stop"]
    held: bool = True
    codes: tuple[str, ...] = ()


def judged(invalid: Iterable[str], capped: bool, failures: Set[str]) -> Judged:
    """From the codes that make a run INVALID, whether it had a cap in flight, and the kinds of its failed requests."""
    codes = tuple(invalid)
    of_the_load = OF_THE_LOAD | (_UNSENT if capped else frozenset())
    if failures and failures <= WAITED_OUT:
        of_the_load |= {"no_success"}
    strange = tuple(code for code in codes if code not in of_the_load | OF_THE_CLIENT)
    if strange:
        return Judged("stop", codes=strange)
    of_the_client = tuple(code for code in codes if code not in of_the_load)
    if of_the_client:
        return Judged("void", codes=of_the_client)
    return Judged("counts", held=not set(codes) - {"error_share"}, codes=codes)

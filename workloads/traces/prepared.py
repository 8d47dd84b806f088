"""A trace made ready: recorded times and lengths, made-up prompts."""

from __future__ import annotations

from servemark.harness.plan.sources import Prepared, PromptMaker
from servemark.harness.types import Request
from servemark.workloads.traces.selection import Chosen

MADE_UP = "random words stand in for the prompts, which the trace does not hold"


class PreparedTrace(Prepared):
    """Requests of the chosen rows. Every prompt is new, in each pass through the slice too."""

    def __init__(
        self, maker: PromptMaker, chosen: Chosen, digest: str, differences: tuple[str, ...] = (MADE_UP,)
    ) -> None:
        self.chosen = chosen
        self.maker = maker
        self.size: int | None = chosen.size
        self.data_digest: str | None = digest
        self.notes = (*chosen.notes, *differences)
        self.most_tokens: int | None = int((chosen.input_tokens + chosen.output_tokens).max())

    def lengths(self, index: int) -> tuple[int | None, int | None]:
        return self.asked(self.chosen.place(index)[1])

    def asked(self, place: int) -> tuple[int, int]:
        return int(self.chosen.input_tokens[place]), int(self.chosen.output_tokens[place])

    def request(self, index: int) -> Request:
        return self.maker.request(index, index, *self.asked(self.chosen.place(index)[1]))

    def offset_ns(self, index: int) -> int:
        lap, place = self.chosen.place(index)
        return lap * self.chosen.pass_ns + int(self.chosen.at_ns[place])

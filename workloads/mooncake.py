"""Replay of the Mooncake traces: recorded times and lengths, and prompts that share prefix blocks as the recorded ones.

The files (kvcache-ai/Mooncake, Apache-2.0; Qin et al., FAST 2025) are JSON Lines with `timestamp` in ms,
`input_length`, `output_length` and `hash_ids`, one for each block of 512 tokens of the prompt: equal ids are equal
tokens behind equal blocks. Requests of a conversation trace share their stamps, which come about every 3 s.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
from pydantic import Field

from servemark.harness.errors import BadInput
from servemark.harness.plan.data_files import lines
from servemark.harness.plan.draws import uniforms
from servemark.harness.plan.sources import SOURCES, Given, Prepared, PromptMaker, Seeds
from servemark.harness.plan.strict import Count
from servemark.harness.types import Request
from servemark.workloads.traces.blocks import BlockTable, SharedBlocks
from servemark.workloads.traces.files import opened
from servemark.workloads.traces.section import TraceSource
from servemark.workloads.traces.selection import Chosen
from servemark.workloads.traces.table import Table

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MS = 1_000_000


class _Row(msgspec.Struct):
    timestamp: int | float
    input_length: int
    output_length: int
    hash_ids: list[int] = []


@SOURCES.register("mooncake")
class Mooncake(TraceSource):
    """Lengths, times and shared blocks of a Mooncake trace file."""

    marks = ("timestamp", "input_length", "output_length", "hash_ids")

    source: Literal["mooncake"] = "mooncake"
    block_tokens: Count = Field(default=512, description="tokens of a prompt that one of its `hash_ids` stands for")
    spread: bool = Field(
        default=False,
        description="give the requests that share a stamp random times up to the next one (seed `arrivals`)",
    )

    @property
    def unique(self) -> bool:
        return False

    def read(self, path: Path, given: Given) -> Table:
        table, decode = BlockTable(path), msgspec.json.Decoder(_Row).decode
        with opened(path) as file:
            for number, line in lines(file):
                if number == 1 or not table.there:
                    self._check(path, number, line)
                try:
                    self._add(table, decode(line))
                except (ValueError, RecursionError) as error:
                    table.bad.add(f"line {number}:", error)
        if self.spread:
            table.notes.append("requests with one stamp are spread at random up to the next stamp")
        return table

    def _check(self, path: Path, number: int, line: bytes) -> None:
        """The first row tells whether this is the format at all."""
        text = line.decode("utf-8", "replace")
        if not all(mark in text for mark in self.marks[:3]):
            raise BadInput(
                f"{path}:{number}: JSON Lines with {', '.join(self.marks)} are needed; "
                f"found {text[:100]!r}{self.guess(text)}"
            )

    def _add(self, table: BlockTable, row: _Row) -> None:
        blocks, rest = divmod(row.input_length, self.block_tokens)
        given = len(row.hash_ids)
        if given and given not in (blocks, blocks + (rest > 0)):
            raise ValueError(
                f"{given} hash_ids for {row.input_length} tokens: that are no blocks of {self.block_tokens}; "
                "set prompts.block_tokens"
            )
        if given and not 0 <= min(row.hash_ids) <= max(row.hash_ids) < 1 << 64:
            raise ValueError("an id of a block is out of bounds")
        table.add(round(row.timestamp * MS), row.input_length, row.output_length)
        table.add_blocks(row.hash_ids)

    def made(self, given: Given, maker: PromptMaker, table: Table, chosen: Chosen) -> Prepared:
        assert isinstance(table, BlockTable)
        vocabulary = given.vocabulary
        closing = 0 if self.tokens == "ids" else vocabulary.fixed_tokens - vocabulary.shared_prefix_tokens
        return SharedBlocks(maker, chosen, table, self.block_tokens, max(0, closing))

    def repeats(self, prepared: Prepared) -> Iterator[Request]:
        assert isinstance(prepared, SharedBlocks)
        return prepared.beginnings()

    def spread_ns(self, at_ns: npt.NDArray[np.int64], seeds: Seeds) -> npt.NDArray[np.int64]:
        return spread_out(at_ns, seeds.arrivals) if self.spread and len(at_ns) else at_ns


def spread_out(at_ns: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """Each time moved to a random place before the next other one; those of the last stamp, as far as one stamp lasts
    in the mean. Ascending times stay ascending."""
    import numpy as np

    stamps, which = np.unique(at_ns, return_inverse=True)
    lasts_ns = np.diff(stamps)
    mean_ns = round(float(lasts_ns.mean())) if len(lasts_ns) else 0
    room_ns = np.append(lasts_ns, mean_ns)[which]
    drawn = uniforms(seed, b"mooncake.spread", 0, len(at_ns))
    return np.sort(at_ns + (drawn * room_ns).astype(np.int64))

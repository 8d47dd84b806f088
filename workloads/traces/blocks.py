"""Prompts that share prefix blocks: what is cached of one is a beginning of another."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from servemark.harness.plan.data_files import digest_of
from servemark.harness.plan.sources import PromptMaker
from servemark.harness.plan.vocabulary import Segment
from servemark.harness.types import Request
from servemark.workloads.traces.prepared import PreparedTrace
from servemark.workloads.traces.selection import Chosen
from servemark.workloads.traces.table import Table

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SHARED = "random words stand in for the prompts; those with equal blocks begin with equal words"


class BlockTable(Table):
    """Rows with the ids of their prompts' blocks; 4 more bytes for each block, 8 where ids are large."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._ids = array("I")
        self._ends = array("Q")

    def add_blocks(self, ids: Sequence[int]) -> None:
        """Those of the row that was added last."""
        try:
            found = array(self._ids.typecode, ids)
        except OverflowError:
            self._ids = array("Q", self._ids)
            found = array("Q", ids)
        self._ids.extend(found)
        self._ends.append(len(self._ids))

    def blocks(self, row: int) -> slice:
        return slice(self._ends[row - 1] if row else 0, self._ends[row])

    def ids(self, row: int) -> array[int]:
        return self._ids[self.blocks(row)]

    def partings(self) -> npt.NDArray[np.bool_]:
        """For each block of each row whether rows part behind it: what must be told of what they share.

        Of blocks that always come together the last one tells all. That needs each id to stand behind the same blocks
        everywhere, as the hash of a prefix does; where one does not, all are told.
        """
        import numpy as np

        if not len(self._ids):
            return np.zeros(0, np.bool_)
        ids, ends = self._dense(), np.frombuffer(self._ends, np.uint64).astype(np.int64)
        behind = np.empty_like(ids)
        behind[1:] = ids[:-1]
        behind[np.append(0, ends[ends < len(ids)])] = -1
        always = np.empty(int(ids.max()) + 1, ids.dtype)
        always[ids] = behind
        if not np.array_equal(always[ids], behind):
            return np.ones(len(ids), np.bool_)
        times = np.bincount(ids).astype(ids.dtype)[ids]
        then = behind  # the same memory: there may be tens of millions
        then[:-1] = times[1:]
        then[ends[ends > 0] - 1] = 0
        found: npt.NDArray[np.bool_] = (times > 1) & (times > then)
        return found

    def _dense(self) -> npt.NDArray[np.int32]:
        """The ids, numbered anew where they are far apart."""
        import numpy as np

        ids = np.frombuffer(self._ids, np.uint32 if self._ids.itemsize == 4 else np.uint64)
        if int(ids.max()) >= 4 * len(ids):
            ids = np.unique(ids, return_inverse=True)[1]
        return ids.astype(np.int32)


class SharedBlocks(PreparedTrace):
    """Requests whose prompts begin alike where the trace's did. A later pass has blocks of its own."""

    def __init__(self, maker: PromptMaker, chosen: Chosen, table: BlockTable, block: int, closing: int) -> None:
        super().__init__(maker, chosen, digest_of(table.path), (SHARED,))
        self._table = table
        self._block = block
        # A text's last block ends with what stands at the end of every prompt, where a longer prompt goes on.
        self._closing = closing
        self._partings = table.partings()

    def request(self, index: int) -> Request:
        lap, place = self.chosen.place(index)
        row = int(self.chosen.rows[place])
        input_tokens, output_tokens = self.asked(place)
        return self._made(index, lap, row, len(self._table.ids(row)), input_tokens, output_tokens)

    def beginnings(self) -> Iterator[Request]:
        """The longest beginnings that come more than once, each as a prompt, for each pass."""
        found = self._repeated()
        for lap in range(self.chosen.passes):
            for row, blocks, input_tokens in found:
                yield self._made(0, lap, row, blocks, min(input_tokens, blocks * self._block), 1)

    def _made(self, index: int, lap: int, row: int, blocks: int, input_tokens: int, output_tokens: int) -> Request:
        """The first blocks of a row, and what goes beyond them as new words."""
        ids, stream = self._table.ids(row)[:blocks], b"blocks %d" % lap if lap else b"blocks"
        counts = [min(self._block, input_tokens - start) for start in range(0, input_tokens, self._block)]
        parts = [Segment(each, tokens, stream) for each, tokens in zip(ids, counts, strict=False)]
        if beyond := input_tokens - sum(part.tokens for part in parts):
            parts.append(Segment(index, beyond))
        return self.maker.of_segments(index, parts, output_tokens, tuple(self._told(lap, row, ids, input_tokens)))

    def _told(self, lap: int, row: int, ids: Sequence[int], input_tokens: int) -> Iterator[tuple[str, int]]:
        """A name for the blocks up to each parting, and how many tokens those are."""
        partings = self._partings[self._table.blocks(row)]
        chain = hash((lap,))
        for number, (each, parting) in enumerate(zip(ids, partings, strict=False), 1):
            chain = hash((chain, each))
            if parting and (number - 1) * self._block < input_tokens:
                yield f"blocks {chain:x}", max(0, min(number * self._block, input_tokens - self._closing))

    def _repeated(self) -> list[tuple[int, int, int]]:
        """A row, how many of its blocks and its tokens, for each beginning that no longer repeated one goes on from."""
        times: dict[int, int] = {}
        rows = [(int(self.chosen.rows[place]), self.asked(place)[0]) for place in range(len(self.chosen.rows))]
        for row, tokens in rows:
            for chain in self._chains(row, tokens):
                times[chain] = times.get(chain, 0) + 1
        found: dict[int, tuple[int, int, int]] = {}
        gone_on: set[int] = set()
        for row, tokens in rows:
            repeated = [chain for chain in self._chains(row, tokens) if times[chain] > 1]
            gone_on.update(repeated[:-1])
            if repeated:
                found.setdefault(repeated[-1], (row, len(repeated), tokens))
        return [each for chain, each in found.items() if chain not in gone_on]

    def _chains(self, row: int, tokens: int) -> Iterator[int]:
        """A name for each beginning of a row that ends with a block."""
        chain = 0
        for number, each in enumerate(self._table.ids(row)):
            if number * self._block >= tokens:
                return
            chain = hash((chain, each))
            yield chain

"""Paged KV memory: a pool of fixed-size blocks with a prefix cache over the freed ones.

A full block is known by the hash of its tokens and of all before it. A freed block keeps its content until it is
given out again; the least recently freed goes first, and a request frees its last block first, so that shared
beginnings live longest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


def extend_hashes(hashes: list[int], tokens: Sequence[int], block_size: int, salt: int = 0) -> None:
    """Adds to `hashes`, which holds those of the first full blocks of `tokens`, the ones that are missing.

    Tokens with another salt are other tokens.
    """
    parent = hashes[-1] if hashes else salt
    for start in range(len(hashes) * block_size, len(tokens) - block_size + 1, block_size):
        parent = hash((parent, tuple(tokens[start : start + block_size])))
        hashes.append(parent)


class BlockPool:
    def __init__(self, total: int, caching: bool = True) -> None:
        self.total = total
        self.caching = caching
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(total))
        self._users: dict[int, int] = {}
        self._hash_of: dict[int, int] = {}
        self._block_of: dict[int, int] = {}

    @property
    def free(self) -> int:
        return len(self._free)

    @property
    def used(self) -> int:
        return self.total - len(self._free)

    def cached_prefix(self, hashes: Sequence[int]) -> list[int]:
        """Blocks that hold the longest known beginning. They are not yet taken."""
        blocks = []
        for hash_ in hashes:
            block = self._block_of.get(hash_)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def idle(self, blocks: Sequence[int]) -> int:
        """How many of these are free: taking them uses up that many free blocks."""
        return sum(block in self._free for block in blocks)

    def take_cached(self, blocks: Sequence[int]) -> None:
        for block in blocks:
            self._free.pop(block, None)
            self._users[block] = self._users.get(block, 0) + 1

    def take(self, count: int) -> list[int]:
        """New blocks, whatever they held before. The caller has checked `free`."""
        blocks = []
        for _ in range(count):
            block, _nothing = self._free.popitem(last=False)
            self._forget(block)
            self._users[block] = 1
            blocks.append(block)
        return blocks

    def remember(self, block: int, hash_: int) -> None:
        """This block is full, and its content can be shared. The first block of a content stays the known one."""
        if self.caching and hash_ not in self._block_of:
            self._block_of[hash_] = block
            self._hash_of[block] = hash_

    def release(self, blocks: Sequence[int]) -> None:
        for block in reversed(blocks):
            self._users[block] -= 1
            if not self._users[block]:
                del self._users[block]
                self._free[block] = None

    def forget_all(self) -> bool:
        """Empties the prefix cache; refused (False) while any block is in use."""
        if self._users:
            return False
        self._hash_of.clear()
        self._block_of.clear()
        return True

    def _forget(self, block: int) -> None:
        hash_ = self._hash_of.pop(block, None)
        if hash_ is not None:
            del self._block_of[hash_]

"""Randomness without state: the draw of index i is a pure function of (seed, stream, i).

A keyed hash is the counter-based generator, so draws neither depend on their order nor on a library's version.
"""

from __future__ import annotations

import struct
from hashlib import blake2b, shake_128
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_PAIR = struct.Struct("<QQ")
_BELOW_ONE = 1 - 2.0**-53


def _key(seed: int, index: int) -> bytes:
    return _PAIR.pack(seed & 0xFFFFFFFFFFFFFFFF, index)


def uniform(seed: int, stream: bytes, index: int) -> float:
    """A uniform number inside (0, 1), never 0 or 1. `stream` (at most 16 bytes) separates what is drawn."""
    word = int.from_bytes(blake2b(_key(seed, index), digest_size=8, person=stream).digest(), "little")
    return min(((word >> 11) + 0.5) * 2.0**-53, _BELOW_ONE)  # the very last one would be rounded up to 1


def uniforms(seed: int, stream: bytes, block: int, count: int) -> npt.NDArray[np.float64]:
    """`count` uniform numbers inside (0, 1) at once, for whoever needs very many of them."""
    import numpy as np

    words = np.frombuffer(random_bytes(seed, stream, block, 8 * count), dtype="<u8")
    numbers: npt.NDArray[np.float64] = ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return numbers


def random_bytes(seed: int, stream: bytes, index: int, count: int) -> bytes:
    """`count` random bytes."""
    return shake_128(stream + _key(seed, index)).digest(count)

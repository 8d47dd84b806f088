"""A toy tokenizer: deterministic, reversible for nobody, and additive over words.

Text is cut into words with the white space before them; a word is one token per 8 characters begun. Ids are a stable
hash of the characters, so the ids of `text + " word"` are those of `text` and of `" word"`. A chat costs 1 token,
and 4 for each message, and 3 that ask for the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain
from zlib import crc32

CHARS_PER_TOKEN = 8
SPECIAL_IDS = 16
BOS, EOS, START, HEADER_END, END = range(5)
_ROLES = {"system": 8, "user": 9, "assistant": 10, "tool": 11, "developer": 12}
_OTHER_ROLE = 13
_PIECES = re.compile(r"\s*\S+|\s+\Z")
_MEMO_LIMIT = 200_000


class Tokenizer:
    def __init__(self, vocab: int) -> None:
        self.vocab = vocab
        self._memo: dict[str, tuple[int, ...]] = {}

    def ids(self, text: str) -> list[int]:
        if len(self._memo) > _MEMO_LIMIT:
            self._memo.clear()
        return list(chain.from_iterable(map(self._piece_ids, _PIECES.findall(text))))

    def chat_ids(self, messages: Iterable[tuple[str, str]]) -> list[int]:
        """Ids of (role, content) pairs with the template around them."""
        ids = [BOS]
        for role, content in messages:
            ids += (START, _ROLES.get(role, _OTHER_ROLE), HEADER_END)
            ids += self.ids(content)
            ids.append(END)
        ids += (START, _ROLES["assistant"], HEADER_END)
        return ids

    def _piece_ids(self, piece: str) -> tuple[int, ...]:
        known = self._memo.get(piece)
        if known is None:
            first = len(piece) - len(piece.lstrip()) + CHARS_PER_TOKEN
            parts = [piece[:first]]
            parts += [piece[at : at + CHARS_PER_TOKEN] for at in range(first, len(piece), CHARS_PER_TOKEN)]
            known = tuple(map(self._id, parts))
            self._memo[piece] = known
        return known

    def _id(self, part: str) -> int:
        return SPECIAL_IDS + crc32(part.encode("utf-8", "surrogatepass")) % (self.vocab - SPECIAL_IDS)

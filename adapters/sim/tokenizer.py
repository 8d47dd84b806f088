"""A toy tokenizer: deterministic, reversible for nobody, and additive over words.

Text is cut into words with the white space before them; a word is one token per 8 characters begun. Ids are a stable
hash of the characters, so the ids of `text + " word"` are those of `text` and of `" word"`. A chat costs 1 token,
and 4 for each message, and 3 that ask for the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final
from zlib import crc32

CHARS_PER_TOKEN = 8
SPECIAL_IDS = 16
BOS, EOS, START, HEADER_END, END = range(5)
_ROLES = {"system": 8, "user": 9, "assistant": 10, "tool": 11, "developer": 12}
_OTHER_ROLE = 13
# How a template, which is text, writes the special tokens.
_SPECIAL_TEXTS: Final = {
    BOS: "<s>",
    EOS: "</s>",
    START: "<|start|>",
    HEADER_END: "<|message|>",
    END: "<|end|>",
    **{id_: f"<|{role}|>" for role, id_ in _ROLES.items()},
    _OTHER_ROLE: "<|other|>",
}
EOS_TEXT: Final = _SPECIAL_TEXTS[EOS]
_SPECIAL_IDS_OF: Final = {text: id_ for id_, text in _SPECIAL_TEXTS.items()}
_SPECIAL: Final = re.compile(f"({'|'.join(map(re.escape, _SPECIAL_IDS_OF))})")
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

    def chat_text(self, messages: Iterable[tuple[str, str]]) -> str:
        """The template's text, of which `tokens` gives the ids that `chat_ids` gives."""
        start, end = _SPECIAL_TEXTS[START], _SPECIAL_TEXTS[HEADER_END]
        turns = [
            f"{start}{_SPECIAL_TEXTS[_ROLES.get(role, _OTHER_ROLE)]}{end}{content}{_SPECIAL_TEXTS[END]}"
            for role, content in messages
        ]
        return f"{_SPECIAL_TEXTS[BOS]}{''.join(turns)}{start}{_SPECIAL_TEXTS[_ROLES['assistant']]}{end}"

    def tokens(self, text: str) -> Iterator[tuple[int, str]]:
        """Id and text of each token; special tokens are known by their texts."""
        for part in _SPECIAL.split(text):
            special = _SPECIAL_IDS_OF.get(part)
            if special is not None:
                yield special, part
            else:
                for piece in _PIECES.findall(part):
                    yield from zip(self._piece_ids(piece), _parts(piece), strict=True)

    def _piece_ids(self, piece: str) -> tuple[int, ...]:
        known = self._memo.get(piece)
        if known is None:
            known = tuple(map(self._id, _parts(piece)))
            self._memo[piece] = known
        return known

    def _id(self, part: str) -> int:
        return SPECIAL_IDS + crc32(part.encode("utf-8", "surrogatepass")) % (self.vocab - SPECIAL_IDS)


def _parts(piece: str) -> list[str]:
    """What of a piece is one token each."""
    first = len(piece) - len(piece.lstrip()) + CHARS_PER_TOKEN
    rest = [piece[at : at + CHARS_PER_TOKEN] for at in range(first, len(piece), CHARS_PER_TOKEN)]
    return [piece[:first], *rest]

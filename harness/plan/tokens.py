"""How a server's `Vocabulary` is learnt: from its tokenizer in four short calls, from a tokenizer file, or guessed.

One text holds every candidate word between separators; split at the separator's ids it tells each word's cost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from servemark.harness.errors import BadInput
from servemark.harness.plan.sources import PACKAGED
from servemark.harness.plan.vocabulary import FIRST_WORD, LAST_PIECE, Composer, Origin, Vocabulary
from servemark.harness.types import Endpoint, HttpRequest, Tokenization

Ask = Callable[[HttpRequest], tuple[int, bytes]]
"""Sends a request and gives (status, body). Raises OSError where no answer comes."""

Ids = Callable[[str], Sequence[int]]
"""The token ids that the server sees for a text."""

SEPARATOR = LAST_PIECE
LEAST_TEXT = FIRST_WORD + LAST_PIECE
"""The shortest prompt that a `Composer` makes."""

ENOUGH_PIECES = 64
"""So many words of one token each are random enough: 16 of them, a usual cache block, are 96 bits."""
VERIFY_TOKENS = 256

GUESSED_CHAT_TOKENS = 10
"""Template, BOS, first and last word of a chat where nothing can be asked; templates of common models take 5 to 40."""
GUESSED_IDS = range(300, 3000)
"""Ordinary ids in every common vocabulary: above special tokens and bytes, below the size of small ones."""


class NotLearnt(ValueError):
    """The tokenizer cannot be asked, or its answers do not add up; the text says why."""


@cache
def words() -> tuple[str, ...]:
    """Candidate words; none starts with the separator's word, so its ids mark the gaps only."""
    text = (resources.files(PACKAGED) / "words.txt").read_text(encoding="ascii")
    return tuple(word for word in text.split() if not word.startswith(FIRST_WORD))


def vocabulary_for(
    endpoint: Endpoint,
    model: str = "",
    tokenization: Tokenization | None = None,
    ask: Ask | None = None,
    tokenizer_file: Path | None = None,
    least_chat_tokens: int | None = None,
) -> Vocabulary:
    """The best vocabulary that can be had: of a named file, else of the server, else an estimate with a `note`.

    `least_chat_tokens` is what the server counts for a chat of `LEAST_TEXT`: for a tokenizer that does not know the
    template. Raises BadInput for a file that cannot be used.
    """
    if tokenizer_file is not None:
        return from_file(tokenizer_file, endpoint, least_chat_tokens)
    if tokenization is None or ask is None:
        return estimate(endpoint, "this server has no tokenizer to ask")
    try:
        return from_server(tokenization, model, endpoint, ask, least_chat_tokens)
    except NotLearnt as error:
        return estimate(endpoint, f"the server's tokenizer is of no use: {error}")


def from_server(
    tokenization: Tokenization, model: str, endpoint: Endpoint, ask: Ask, least_chat_tokens: int | None = None
) -> Vocabulary:
    """The vocabulary of a running server, template overhead included. Raises NotLearnt.

    `least_chat_tokens` is for a server that cannot tokenize a chat; see `vocabulary_for`.
    """

    def ids_by(make: Callable[[str, str], HttpRequest]) -> Ids:
        def ids(text: str) -> Sequence[int]:
            try:
                return tokenization.parse(*ask(make(model, text)))
            except (OSError, ValueError) as error:
                raise NotLearnt(str(error)) from error

        return ids

    of_text = ids_by(tokenization.of_text)
    if endpoint != "chat" or tokenization.of_chat is None:
        vocabulary = learn(of_text, of_text, "server")
        return vocabulary if endpoint != "chat" else with_template(vocabulary, least_chat_tokens)
    return learn(of_text, ids_by(tokenization.of_chat), "server")


def from_file(path: Path, endpoint: Endpoint, least_chat_tokens: int | None = None) -> Vocabulary:
    """The vocabulary of a `tokenizer.json`; see `vocabulary_for` for chats. Raises BadInput."""
    tokenizer = open_tokenizer(path)

    def of_text(text: str) -> Sequence[int]:
        ids: list[int] = tokenizer.encode(text).ids
        return ids

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    try:
        vocabulary = replace(learn(of_text, of_text, "file"), count=count)
    except NotLearnt as error:
        raise BadInput(f"{path}: {error}; use the server's own tokenizer, or token ids") from error
    return vocabulary if endpoint != "chat" else with_template(vocabulary, least_chat_tokens)


def with_template(vocabulary: Vocabulary, least_chat_tokens: int | None) -> Vocabulary:
    """For a chat, by a tokenizer that counts text alone; None where nobody counted a chat."""
    if least_chat_tokens is not None:
        return replace(vocabulary, fixed_tokens=least_chat_tokens)
    note = f"the {vocabulary.origin}'s tokenizer does not know what the chat template adds"
    return replace(vocabulary, fixed_tokens=GUESSED_CHAT_TOKENS, exact=False, note=note)


@cache
def open_tokenizer(path: Path) -> Any:
    """Of a `tokenizer.json`. Raises BadInput."""
    import tokenizers  # here, because only some runs need it

    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 (the package raises bare Exception)
        raise BadInput(f"{path}: this is no tokenizer.json ({error}); give the file of the served model") from None


def estimate(endpoint: Endpoint, note: str) -> Vocabulary:
    """Where no tokenizer can be asked: one token a word, which the short common words nearly keep to."""
    return Vocabulary(
        pieces=tuple(f" {word}" for word in words() if len(word) <= 6),
        costs=(1,) * sum(len(word) <= 6 for word in words()),
        fixed_tokens=GUESSED_CHAT_TOKENS if endpoint == "chat" else 3,
        ids=tuple(GUESSED_IDS),
        exact=False,
        origin="estimate",
        note=note,
    )


def learn(of_text: Ids, of_prompt: Ids, origin: Origin) -> Vocabulary:
    """The vocabulary of a tokenizer; `of_prompt` counts what the endpoint adds too. Raises NotLearnt."""
    probe = FIRST_WORD + SEPARATOR * 8
    in_text = of_text(probe)
    separator, trailing = _separator(in_text)
    lead = len(in_text) - 8 * len(separator) - trailing
    found = _words_ids(of_text, separator, lead, words())
    chosen = _choose(found)
    in_prompt = in_text if of_prompt is of_text else of_prompt(probe)
    ordinary = sorted({token for _, ids in chosen for token in ids})
    vocabulary = Vocabulary(
        pieces=tuple(f" {word}" for word, _ in chosen),
        costs=tuple(len(ids) for _, ids in chosen),
        # Of the eight repeats the last one is the text's last piece.
        fixed_tokens=len(in_prompt) - 7 * len(separator),
        ids=tuple(ordinary),
        exact=True,
        origin=origin,
    )
    return _verified(vocabulary, of_prompt, in_prompt)


def _separator(ids: Sequence[int]) -> tuple[tuple[int, ...], int]:
    """The ids of the word repeated eight times at the end, and how many special ids follow it."""
    for trailing in range(3):
        body = tuple(ids[: len(ids) - trailing])
        for size in range(1, len(body) // 8 + 1):
            if body[-size:] * 8 == body[-8 * size :]:
                return body[-size:], trailing
    raise NotLearnt("a repeated word is not counted alike each time")


def _words_ids(
    of_text: Ids, separator: tuple[int, ...], lead: int, candidates: Sequence[str]
) -> list[tuple[str, tuple[int, ...]]]:
    """Each word's ids, learnt in one call; in smaller ones where that fails."""
    text = FIRST_WORD + "".join(f" {word}{SEPARATOR}" for word in candidates)
    try:
        parts = _split(of_text(text)[lead:], separator)
        if len(parts) == len(candidates) and all(parts):
            return list(zip(candidates, parts, strict=True))
        problem = "words cannot be told apart in its answer"
    except NotLearnt as error:
        problem = str(error)
    if len(candidates) <= 2 * ENOUGH_PIECES:
        raise NotLearnt(problem)
    # A server may limit the length of what it is asked: a smaller list is enough.
    return _words_ids(of_text, separator, lead, candidates[::2])


def _split(ids: Sequence[int], separator: tuple[int, ...]) -> list[tuple[int, ...]]:
    """What stands before each occurrence of the separator; what follows the last one is dropped."""
    parts: list[tuple[int, ...]] = []
    start = position = 0
    size = len(separator)
    while position <= len(ids) - size:
        if tuple(ids[position : position + size]) == separator:
            parts.append(tuple(ids[start:position]))
            position += size
            start = position
        else:
            position += 1
    return parts


def _choose(found: list[tuple[str, tuple[int, ...]]]) -> list[tuple[str, tuple[int, ...]]]:
    """The words of one token, if there are enough; else the cheapest, cheap ones first."""
    single = [item for item in found if len(item[1]) == 1]
    if len(single) >= ENOUGH_PIECES:
        return single
    return sorted(found, key=lambda item: len(item[1]))[: 4 * ENOUGH_PIECES]


def _verified(vocabulary: Vocabulary, of_prompt: Ids, probe: Sequence[int]) -> Vocabulary:
    """Checks one composed prompt, and sees how far it agrees with another prompt from the start."""
    asked = vocabulary.fixed_tokens + VERIFY_TOKENS
    ids = of_prompt(Composer(vocabulary).text(0, 0, asked))
    shared = next((at for at, (one, other) in enumerate(zip(ids, probe, strict=False)) if one != other), 0)
    vocabulary = replace(vocabulary, shared_prefix_tokens=shared)
    if len(ids) == asked:
        return vocabulary
    return replace(vocabulary, exact=False, note=f"a prompt made for {asked} tokens is counted as {len(ids)}")

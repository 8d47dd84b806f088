"""How many of its prompt tokens a run would take from an ideal prefix cache, by what its prompts begin with.

Pure arithmetic: the cache is endless and instant, so what one prompt leaves behind the next one finds.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from servemark.harness.types import Message

Prefix = tuple[Hashable, int]
"""A name for a sequence of tokens, and how many of them, from its first on, a prompt starts with."""

Prefixes = tuple[Prefix, ...]

WHOLE = sys.maxsize
"""As many tokens as the prompt has."""

_TURNS_BACK = 64


@dataclass(frozen=True, slots=True)
class Sent:
    """A prompt that was sent: where to, how long it is, what it begins with. `counts` where it is in the rate."""

    url: str
    tokens: int
    prefixes: Prefixes
    counts: bool = True


@dataclass(frozen=True, slots=True)
class Implied:
    """`ideal` counts to the token, `in_blocks` in whole blocks of the server's, both of `tokens` prompt tokens."""

    tokens: int = 0
    ideal: int = 0
    in_blocks: int = 0

    def rate(self, hits: int) -> float | None:
        return hits / self.tokens if self.tokens else None


class IdealCache:
    """Keeps the beginning of every prompt that it has seen."""

    def __init__(self, seen: Iterable[Prefixes] = ()) -> None:
        self._longest: dict[Hashable, int] = {}
        for prefixes in seen:
            self.keep(prefixes)

    def found(self, prefixes: Prefixes) -> int:
        """How many tokens, from the first on, an earlier prompt had too."""
        return max((min(tokens, self._longest.get(name, 0)) for name, tokens in prefixes), default=0)

    def keep(self, prefixes: Prefixes) -> None:
        for name, tokens in prefixes:
            if tokens > self._longest.get(name, 0):
                self._longest[name] = tokens


def usable(found: int, tokens: int, block: int = 1) -> int:
    """Of the tokens found those that spare work: the last one is computed always, and caches may hold whole blocks."""
    return max(0, min(found, tokens - 1)) // block * block


def implied(sent: Iterable[Sent], held: Callable[[str], Iterable[Prefixes]], block: int = 1) -> Implied:
    """What prompts, in the order of sending, find of earlier ones, and of what the cache at an address `held`."""
    caches: dict[str, IdealCache] = {}
    tokens = ideal = in_blocks = 0
    for each in sent:
        cache = caches.get(each.url)
        if cache is None:
            cache = caches[each.url] = IdealCache(held(each.url))
        if each.counts:
            found = cache.found(each.prefixes)
            tokens += each.tokens
            ideal += usable(found, each.tokens)
            in_blocks += usable(found, each.tokens, block)
        cache.keep(each.prefixes)
    return Implied(tokens, ideal, in_blocks)


def content_of(prompt: str | tuple[int, ...], history: Sequence[Message] = ()) -> bytes:
    """A digest that equal prompts share, the messages before them included."""
    digest = sha256()
    for each in history:
        said = each.content.encode()
        digest.update(f"{each.role} {len(said)} ".encode() + said)
    digest.update(prompt.encode() if isinstance(prompt, str) else struct.pack(f"<{len(prompt)}q", *prompt))
    return digest.digest()


class Sharing:
    """What each planned prompt begins with. The schedule notes it as it plans; it is asked when the run is over.

    Requests are named by their index and noted in any order: the later turns of a session are, as they come.

    `template_tokens` are those with which every prompt starts, a chat template's say: whoever spoke to the server
    before has left them in its cache. Repeats are told by 64 bits of a prompt's digest: of a million prompts two are
    taken for one with a chance of 1 in 37 million.
    """

    def __init__(self, template_tokens: int = 0) -> None:
        self._template: Prefixes = (("template", template_tokens),)
        self._warmed: dict[str, list[Prefixes]] = {}
        self._rows = array("I")  # by index: the place in the columns below, from 1 on; 0 where nothing was noted
        self._contents = array("Q")
        self._declared = _Compact()
        self._before = array("I")  # of a later turn: the index of the one before, from 1 on; else 0
        self._kept = array("I")  # and how much of what that one left it begins with
        self._turns = False

    def note(self, content: bytes, declared: Prefixes = (), index: int | None = None) -> None:
        """A planned prompt (the next one, else that of an index) by its digest; `declared` are its source's beginnings
        that others have too."""
        place = len(self._rows) if index is None else index
        if place >= len(self._rows):
            self._rows.frombytes(bytes(self._rows.itemsize * (place + 1 - len(self._rows))))
        self._declared.append(declared)
        self._contents.append(_short(content))
        self._before.append(0)
        self._kept.append(0)
        self._rows[place] = len(self._contents)

    def note_turn(self, index: int, before: int, kept: int, content: bytes, declared: Prefixes = ()) -> None:
        """A turn that begins with what request `before` left in the cache: its prompt and answer, or less of them."""
        self._turns = True
        self.note(content, declared, index)
        self._before[-1], self._kept[-1] = before + 1, min(kept, 2**32 - 1)

    def note_warmed(self, url: str, content: bytes, declared: Prefixes = ()) -> None:
        named = tuple((_name(name), tokens) for name, tokens in declared)
        self._warmed.setdefault(url, []).append(self._prefixes(_short(content), named))

    def held(self, url: str) -> Iterator[Prefixes]:
        """What the cache at an address has from before the run."""
        yield self._template
        yield from self._warmed.get(url, ())

    def of(self, index: int) -> Prefixes:
        """Of planned request `index`; one that was never noted is like no other."""
        row = self._row(index)
        turns = self._turns_until(index) if self._turns else ()
        if row < 0:
            return self._prefixes(("request", index), tuple(turns))
        return self._prefixes(self._contents[row], (*self._declared[row], *turns))

    def _row(self, index: int) -> int:
        """The place in the columns; -1 where nothing was noted."""
        return self._rows[index] - 1 if 0 <= index < len(self._rows) else -1

    def _turns_until(self, index: int) -> Iterator[Prefix]:
        """A turn leaves all of itself, and begins with what each one before it left: another replica may have only
        an earlier one of them."""
        yield ("after", index), WHOLE
        row = self._row(index)
        for _ in range(_TURNS_BACK):
            if row < 0 or not self._before[row]:
                return
            before = self._before[row] - 1
            yield ("after", before), self._kept[row]
            row = self._row(before)

    def _prefixes(self, content: Hashable, declared: Prefixes) -> Prefixes:
        return (*self._template, *declared, (("content", content), WHOLE))


class _Compact:
    """The declared beginnings of noted prompts, in 12 bytes each: a trace may have millions of them.

    Names are told by 64 bits of a digest, as prompts are.
    """

    def __init__(self) -> None:
        self._names, self._tokens, self._ends = array("Q"), array("I"), array("Q")

    def append(self, declared: Prefixes) -> None:
        for name, tokens in declared:
            self._names.append(_name(name))
            self._tokens.append(min(tokens, 2**32 - 1))
        self._ends.append(len(self._names))

    def __getitem__(self, index: int) -> Prefixes:
        own = slice(self._ends[index - 1] if index else 0, self._ends[index])
        return tuple(zip(self._names[own], self._tokens[own], strict=True))


def _name(name: Hashable) -> int:
    return _short(sha256(repr(name).encode()).digest())


def _short(content: bytes) -> int:
    return int.from_bytes(content[:8], "little")

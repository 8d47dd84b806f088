"""Named things: arrival processes, length distributions, prompt sources, metrics, verdict checks, panels.

A new one is one decorated function or class. Names are what users write in YAML and read in results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """Insertion-ordered name -> thing; `kind` is the word for an error sentence ("arrival process")."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._things: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        def add(thing: T) -> T:
            if name in self._things:
                raise ValueError(f"two things are registered as {self.kind} {name!r}")
            self._things[name] = thing
            return thing

        return add

    def __getitem__(self, name: str) -> T:
        try:
            return self._things[name]
        except KeyError:
            raise KeyError(f"there is no {self.kind} {name!r}; there are: {', '.join(self._things)}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._things

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)

    def items(self) -> list[tuple[str, T]]:
        return list(self._things.items())

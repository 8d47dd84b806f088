"""Fields of a config.json, which anybody may have written: each is asked for by name, type and size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from servemark.harness.plaintext import one_line

MOST = 10**8
MOST_LAYERS = 1_000
_MOST_NAMES = 100_000


@dataclass(frozen=True, slots=True)
class Fields:
    """`where` names the part in sentences. A field that is null is one that is not there. Raises ValueError."""

    values: Mapping[str, Any]
    where: str = "config.json"

    def count(self, *names: str, default: int | None = None, least: int = 1, most: int = MOST) -> int:
        """The first of the names that is there."""
        found = self.maybe(*names, least=least, most=most)
        if found is not None:
            return found
        if default is None:
            raise ValueError(f"{self.where} lacks {' or '.join(names)}")
        return default

    def maybe(self, *names: str, least: int = 1, most: int = MOST) -> int | None:
        for name in names:
            value = self.values.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ValueError(f"{self._shown(name)}, and no whole number from {least} to {most:,}")
            return value
        return None

    def flag(self, name: str, default: bool) -> bool:
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise ValueError(f"{self._shown(name)}, and neither true nor false")
        return value

    def text(self, name: str) -> str | None:
        value = self.values.get(name)
        if value is None or isinstance(value, str):
            return value
        raise ValueError(f"{self._shown(name)}, and no text")

    def texts(self, *names: str) -> tuple[str, ...]:
        """A list of texts; empty where there is none."""
        for name in names:
            value = self.values.get(name)
            if value is None:
                continue
            if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
                raise ValueError(f"{self._shown(name)}, and no list of texts")
            if len(value) > _MOST_NAMES:
                raise ValueError(f"{self.where}: {name} has more than {_MOST_NAMES:,} entries")
            return tuple(value)
        return ()

    def counts(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers from 0 on; empty where there is none."""
        value = self.values.get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or len(value) > _MOST_NAMES:
            raise ValueError(f"{self._shown(name)}, and no list of whole numbers")
        whole = all(isinstance(each, int) and not isinstance(each, bool) and 0 <= each <= MOST for each in value)
        if not whole:
            raise ValueError(f"{self._shown(name)}, and no list of whole numbers")
        return tuple(value)

    def part(self, name: str) -> Fields | None:
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise ValueError(f"{self._shown(name)}, and no object")
        return Fields(value, f"{name} of {self.where}")

    def has(self, name: str) -> bool:
        """Also where it is null."""
        return name in self.values

    def _shown(self, name: str) -> str:
        value = self.values[name]
        shown = "nested" if isinstance(value, Mapping | list) else one_line(_short(value), 60)
        return f"{self.where}: {name} is {shown}"


def _short(value: object) -> str:
    """A number of a million digits is not printed to be cut."""
    if isinstance(value, int) and abs(value) > 10**18:
        return "a huge number"
    return repr(value[:60]) if isinstance(value, str) else repr(value)

"""The dialects by name. A module here is one: it has DIALECT, a `Dialect`; a dash in the name is an underscore here."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from servemark.adapters.sim.dialect import Dialect


def names() -> tuple[str, ...]:
    return tuple(sorted(module.name.replace("_", "-") for module in iter_modules(__path__)))


def dialect(name: str) -> type[Dialect]:
    found: type[Dialect] = import_module(f"{__name__}.{name.replace('-', '_')}").DIALECT
    return found

"""Adapters by name: a module `servemark.adapters.<name>` with ADAPTER, or another package's entry point.

A dash in the name is an underscore in the module's.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
from typing import TYPE_CHECKING, cast

from servemark.harness.errors import BadInput
from servemark.harness.types import Adapter

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

PACKAGE = "servemark.adapters"
GROUP = "servemark.adapters"
_DEFINES_ADAPTER = re.compile(r"^ADAPTER\b", re.MULTILINE)


def adapter_names() -> list[str]:
    """Sorted. Modules are looked into as text, not imported, so that listing them costs little."""
    return sorted({*_built_in_names(), *_entry_points()})


def load_adapter(name: str) -> Adapter:
    """BadInput, listing the adapters there are, where none has this name."""
    module = name.replace("-", "_")
    if module.isidentifier() and name == module.replace("_", "-") and _is_adapter(module):
        return cast(Adapter, importlib.import_module(f"{PACKAGE}.{module}").ADAPTER)
    entry = _entry_points().get(name)
    if entry is None:
        raise BadInput(f"there is no target {name!r}; there are: {', '.join(adapter_names())}")
    return _load_entry(entry)


def _built_in_names() -> list[str]:
    package = importlib.import_module(PACKAGE)
    names = [module.name for module in pkgutil.iter_modules(package.__path__) if _is_adapter(module.name)]
    return [name.replace("_", "-") for name in names]


def _is_adapter(name: str) -> bool:
    """A shared module such as `base` stands beside the adapters and is none."""
    spec = importlib.util.find_spec(f"{PACKAGE}.{name}")
    get_source = getattr(spec.loader, "get_source", None) if spec else None
    source = get_source(f"{PACKAGE}.{name}") if get_source else None
    return bool(source and _DEFINES_ADAPTER.search(source))


def _entry_points() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # 20 ms that a built-in target need not pay

    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _load_entry(entry: EntryPoint) -> Adapter:
    try:
        loaded = entry.load()
    except (ImportError, AttributeError) as error:
        raise BadInput(f"target {entry.name!r} ({entry.value}) cannot be loaded: {error}") from error
    return cast(Adapter, getattr(loaded, "ADAPTER", loaded))

"""Families of architectures: what a config.json says, made into weights and attention, layer by layer.

A new one is a function with `@family(model_type, ...)` in a module of this folder: it is found by its name.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from servemark.harness.hardware.families.base import FAMILIES, architecture_of
from servemark.harness.hardware.families.fields import Fields

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["FAMILIES", "Fields", "architecture_of"]

"""Finds a device: by its name here, or by the product name that the GPU itself gives."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from servemark.harness.errors import BadInput
from servemark.harness.hardware.device import Gpu, Peak
from servemark.harness.hardware.device_file import packaged, read

__all__ = ["Gpu", "Peak", "gpu", "gpus", "plain", "recognise"]

MEMORY_WITHIN = 0.15
"""Drivers take published GB for GiB (7 % more), less what they keep; what is further off is a slice, or another GPU."""
_VENDORS = re.compile(r"^(?:(?:nvidia|tesla|amd|instinct|intel|habana|google)-)+")


def gpus(files: Sequence[Path] = ()) -> tuple[Gpu, ...]:
    """All that are known; of equal names the one of the last file. Raises BadInput."""
    found = {each.name: each for each in packaged()}
    for path in files:
        found |= {each.name: each for each in read(path)}
    return tuple(found.values())


def gpu(name: str, files: Sequence[Path] = ()) -> Gpu:
    """By its name here, or by a product name. Raises BadInput, which names what is near."""
    known = {each.name: each for each in gpus(files)}
    wanted = plain(name)
    found = next((each for each in known.values() if plain(each.name) == wanted), None) or recognise(name, None, files)
    if found is not None:
        return found
    begins = [each for each in known if each.startswith(wanted)] if wanted else []
    near = begins or get_close_matches(wanted, list(known), 3)
    guess = f"did you mean {', '.join(near)}? " if near else ""
    raise BadInput(f"--gpu: there is no GPU {name!r}; {guess}`bench list gpus` shows all, --gpu-file adds more")


def recognise(product_name: str, memory_bytes: int | None = None, files: Sequence[Path] = ()) -> Gpu | None:
    """The device of an NVML or DCGM product name; None for one that is not in the table, as a slice of a GPU (MIG).

    Where several share the name, the one whose memory is nearest; None where that decides nothing. A user's file goes
    before the packaged one.
    """
    wanted = _product(product_name)
    for known in (*(read(path) for path in reversed(files)), packaged()):
        found = [each for each in known if wanted in map(_product, each.nvml_names)]
        if found:
            return _nearest(found, memory_bytes)
    return None


def _nearest(found: Sequence[Gpu], memory_bytes: int | None) -> Gpu | None:
    if memory_bytes is None:
        return found[0] if len(found) == 1 else None
    off = [abs(memory_bytes / each.memory_bytes - 1) for each in found]
    least = min(off)
    return found[off.index(least)] if least <= MEMORY_WITHIN and off.count(least) == 1 else None


def plain(text: str) -> str:
    """`H100 SXM` and `h100_sxm` are `h100-sxm`."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def _product(name: str) -> str:
    """Without the vendor, which older drivers leave out; Kubernetes writes dashes for spaces."""
    return _VENDORS.sub("", plain(name))

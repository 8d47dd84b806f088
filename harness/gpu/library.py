"""NVML itself: whether it is here, and which of its errors mean that a GPU is gone."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
NO_LIBRARY = f"there is no NVIDIA driver here ({LIBRARY} cannot be loaded), so no GPU was read"

# By number, since the names grow with NVML: not initialised, driver not loaded, GPU lost, reset required, no such GPU.
_GONE = frozenset({1, 9, 15, 16, 28})


class Unread(Exception):
    """Why there is nothing to read, as one sentence."""


def library_there() -> bool:
    """Cheap, also where it is not: the run waits for it. Only loads it; NVML wakes up in the sampler's process."""
    if sys.platform == "win32":
        return True  # elsewhere its place is not so simple
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True


def opened() -> Any:
    """The module `pynvml`, initialised. Raises Unread."""
    try:
        import pynvml
    except ImportError:
        raise Unread("nvidia-ml-py is not installed, so no GPU was read: install it") from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise Unread(_no_init(pynvml, error)) from error
    return pynvml


def _no_init(nvml: Any, error: Any) -> str:
    if error.value == nvml.NVML_ERROR_LIBRARY_NOT_FOUND:
        return NO_LIBRARY
    if error.value == nvml.NVML_ERROR_DRIVER_NOT_LOADED:
        return "the NVIDIA driver is not loaded, so no GPU was read"
    if error.value == nvml.NVML_ERROR_NO_PERMISSION:
        return "NVML refuses this user (no permission for /dev/nvidiactl?), so no GPU was read"
    return f"NVML does not start ({said(error)}), so no GPU was read"


def gone(error: Any) -> bool:
    """The GPU, or all of NVML, will not come back in this run."""
    return error.value in _GONE


def said(error: Any) -> str:
    """NVML's own words, as part of a sentence."""
    return " ".join(word if word.isupper() else word.lower() for word in str(error).rstrip(".").split())


def asked(nvml: Any, name: str, *arguments: Any) -> Any:
    """What a call of NVML gives, or None where it has no answer: for facts that nothing hangs on."""
    try:
        return getattr(nvml, name)(*arguments)
    except (nvml.NVMLError, AttributeError):
        return None

"""The machine and the software that made a run, for whoever compares two of them."""

from __future__ import annotations

import contextlib
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

LIBRARIES = ("servemark", "httptools", "uvloop", "msgspec", "numpy", "pyarrow", "tokenizers")


def host_facts() -> dict[str, Any]:
    """Of this machine; None where unknown. No host or user name: results are passed around."""
    return {
        "os": _os_name(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "cpu_model": _field("/proc/cpuinfo", "model name") or platform.processor() or None,
        "cores": os.cpu_count(),
        "cores_usable": _usable_cores(),
        "cpu_quota": _cpu_quota(),
        "memory_bytes": _memory_bytes(),
        "clock_source": _line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "load_average": _load_average(),
    }


def versions() -> dict[str, str]:
    """Of servemark and of the libraries that touch the numbers; those that are not installed are left out."""
    found = {}
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _os_name() -> str:
    with contextlib.suppress(OSError):
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    if platform.system() == "Darwin":
        return f"macOS {platform.mac_ver()[0]}"
    return platform.system()


def _usable_cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _cpu_quota() -> float | None:
    """Cores that the container may use, where cgroup v2 limits them."""
    quota, _, period = (_line("/sys/fs/cgroup/cpu.max") or "").partition(" ")
    return round(int(quota) / int(period), 2) if quota.isdigit() and period.isdigit() else None


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _load_average() -> float | None:
    """Over the last minute: what else the machine was doing when the run began."""
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def _line(path: str) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return Path(path).read_text().strip() or None
    return None


def _field(path: str, name: str) -> str | None:
    for line in (_line(path) or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None

"""The folder of a group of runs: its index, written whole or not at all, and one command at a time at work in it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from servemark.harness.errors import BadInput, ResultUnusable
from servemark.results import schema

try:
    import fcntl
except ImportError:  # no advisory locks here
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
LARGEST_INDEX = 64 * 1024 * 1024


class Versioned(Protocol):
    """An index says of which format it is."""

    schema_version: int


I = TypeVar("I", bound=Versioned)  # noqa: E741


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_index(path: Path, kind: type[I]) -> I:
    """Raises ResultUnusable where it makes no sense."""
    try:
        if path.stat().st_size > LARGEST_INDEX:
            raise ResultUnusable(f"{path}: is too large to be an index of ours")
        index = msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise ResultUnusable(f"{path}: cannot be read ({error.strerror})") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ResultUnusable(f"{path}: is no index of ours ({error})") from error
    if index.schema_version > schema.SCHEMA_VERSION:
        raise ResultUnusable(f"{path}: is of format {index.schema_version}; update servemark to read it")
    return index


def write_index(path: Path, index: Versioned) -> None:
    """Raises ResultUnusable where it cannot be written."""
    temp = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temp.write_bytes(msgspec.json.format(msgspec.json.encode(index), indent=2) + b"\n")
        os.replace(temp, path)
    except OSError as error:
        raise ResultUnusable(f"{path}: the index could not be written ({error.strerror})") from error


@contextlib.contextmanager
def held(root: Path, command: str) -> Iterator[None]:
    """BadInput where another one is at work in this folder; `command` is what to call it."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / LOCK).open("w")
    except OSError as error:
        raise BadInput(f"{root}: cannot be written ({error.strerror}); give another --out") from error
    with lock:
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise BadInput(f"{root}: another `{command}` is at work here; wait for its end") from None
        yield


def make_room(folder: Path) -> int:
    """Frees the folder of a run, and says how many tries went before: what they left is moved aside and kept."""
    tries = 0
    while (aside := folder.with_name(f"{folder.name}.earlier-{tries + 1}")).exists():
        tries += 1
    if folder.is_dir() and any(folder.iterdir()):
        folder.rename(aside)
        tries += 1
    return tries


def against(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The checks that make a run INVALID and were not waived."""
    checks = schema.items(run, "verdict", "checks")
    return [check for check in checks if check.get("severity") == "invalid" and not check.get("waived")]


def said(check: Mapping[str, Any]) -> str:
    return f"{schema.text(check.get('code'), 60)}: {schema.text(check.get('message'), 400)}"

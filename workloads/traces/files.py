"""The file of a trace, and where its columns stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

from servemark.harness.errors import BadInput
from servemark.harness.plan import data_files

_FOUND = 100
NAME_IT = "set prompts.path in the workload file, or --data"


def opened(path: Path) -> AbstractContextManager[IO[bytes]]:
    """The bytes of a file, unpacked. Raises BadInput, also for what goes wrong while they are read."""
    if path.is_dir():
        raise BadInput(f"{path}: this is a folder; name a file, or set prompts.source to servegen")
    return data_files.opened(path, "trace", NAME_IT)


def places(path: Path, header: Sequence[str], wanted: Sequence[str], guess: Callable[[str], str]) -> list[int]:
    """Where the wanted columns stand. Raises BadInput, which says what there is and, by `guess`, which source fits."""
    first = ",".join(header)
    if any(name not in header for name in wanted):
        raise BadInput(
            f"{path}:1: the columns {', '.join(wanted)} are needed; found {first[:_FOUND] or 'nothing'}{guess(first)}"
        )
    return [header.index(name) for name in wanted]

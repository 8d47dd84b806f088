"""Reads a saved run, whole or cut short. Files are looked at with suspicion: they may be anybody's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from servemark.harness.errors import ResultUnusable
from servemark.harness.types import GpuSample, Record, ServerSample
from servemark.results import schema
from servemark.results.tables import (
    Journal,
    gpu_table,
    request_table,
    server_table,
    to_frame,
    to_gpu_samples,
    to_records,
    to_samples,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from servemark.harness.figures.frame import Frame

LARGEST_JSON = 64 * 1024 * 1024
MOST_ROWS = 50_000_000
LARGEST_TABLE = 64 * 1024**3


@dataclass(frozen=True, slots=True)
class LoadedRun:
    """A run read from disk. `run` is run.json, or what was known at the start of a run cut short."""

    folder: Path
    run: dict[str, Any]
    finished: bool

    def table(self) -> pa.Table:
        """The rows of requests.parquet, from the journal where the run did not finish."""
        if self.finished:
            return _read_table(self.folder / schema.REQUESTS, required=True)
        return request_table(self._journal(schema.JOURNAL).records(), str(self.run.get("id", "")))

    def records(self) -> Iterator[Record]:
        """The requests, in the order in which they ended."""
        if not self.finished:
            return self._journal(schema.JOURNAL).records()
        return _converted(self.folder / schema.REQUESTS, self.table())

    def frame(self) -> Frame:
        """The requests as columns, in order of intended time."""
        table = self.table()
        try:
            return to_frame(table)
        except ValueError as error:
            raise ResultUnusable(f"{self.folder}: its requests make no sense ({error})") from error

    def server_table(self) -> pa.Table | None:
        """The readings of the server's metrics, or None where it was not scraped."""
        if not self.finished:
            samples = list(self._journal(schema.SERVER_JOURNAL).samples())
            return server_table(samples, str(self.run.get("id", ""))) if samples else None
        path = self.folder / schema.SERVER
        return _read_table(path, required=False) if path.is_file() else None

    def server_samples(self) -> list[ServerSample]:
        table = self.server_table()
        return [] if table is None else to_samples(table)

    def gpu_table(self) -> pa.Table | None:
        """The readings of GPUs, or None where none were read."""
        if not self.finished:
            samples = list(self._journal(schema.GPU_JOURNAL).gpu_samples())
            return gpu_table(samples, str(self.run.get("id", ""))) if samples else None
        path = self.folder / schema.GPU
        return _read_table(path, required=False) if path.is_file() else None

    def gpu_samples(self) -> list[GpuSample]:
        table = self.gpu_table()
        try:
            return [] if table is None else list(to_gpu_samples(table))
        except msgspec.ValidationError as error:
            raise ResultUnusable(f"{self.folder / schema.GPU}: holds a row that is no reading ({error})") from error

    def _journal(self, name: str) -> Journal:
        return Journal(self.folder / name)


def load(folder: Path) -> LoadedRun:
    """Reads the run in `folder` (its run.json may be named too), finished or not. Raises ResultUnusable."""
    folder = folder.parent if folder.name == schema.RUN_JSON else folder
    if not folder.is_dir():
        raise ResultUnusable(f"{folder}: there is no such run. `ls runs` shows the runs made here")
    if (folder / schema.RUN_JSON).is_file():
        return LoadedRun(folder, _read_run(folder / schema.RUN_JSON), finished=True)
    return recover(folder)


def recover(folder: Path) -> LoadedRun:
    """Reads a run that has a journal and no run.json: it was killed, or is still going on."""
    if not (folder / schema.JOURNAL).is_file():
        raise ResultUnusable(
            f"{folder}: holds no run (neither {schema.RUN_JSON} nor {schema.JOURNAL}). Name a run's folder"
        )
    partial = folder / schema.PARTIAL
    known = _read_run(partial) if partial.is_file() else {"schema_version": 1, "id": folder.resolve().name}
    run = {"summary": {}, "metrics": {}, "groups": [], **known, "verdict": unfinished(_still_written(folder))}
    return LoadedRun(folder, schema.ordered(run), finished=False)


def unfinished(still_written: bool) -> dict[str, Any]:
    """The verdict of a run that has not ended."""
    if still_written:
        message, remedy = (
            "the run is still going on: these are the requests that have ended so far",
            "wait for its end",
        )
    else:
        message = "the run was killed before its end: these are the requests that had ended by then"
        remedy = "run it again, and let it end (Ctrl-C drains and writes everything)"
    check = {
        "code": "unfinished",
        "severity": "invalid",
        "value": None,
        "threshold": None,
        "message": message,
        "remedy": remedy,
        "waived": False,
    }
    return {"valid": False, "checks": [check]}


def _still_written(folder: Path) -> bool:
    try:
        import fcntl
    except ImportError:
        return False
    with (folder / schema.JOURNAL).open("rb") as journal:
        try:
            fcntl.flock(journal, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _read_run(path: Path) -> dict[str, Any]:
    try:
        size = path.stat().st_size
        if size > LARGEST_JSON:
            raise ResultUnusable(f"{path}: {size / 1e6:.0f} MB is no run of ours (64 MB at most)")
        found = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise ResultUnusable(f"{path}: cannot be read ({error.strerror})") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ResultUnusable(f"{path}: is no run of ours: not JSON ({error})") from error
    version = found.get("schema_version") if isinstance(found, dict) else None
    if not isinstance(found, dict) or type(version) is not int or version < 1:
        raise ResultUnusable(f"{path}: is no run of ours: it has no schema_version")
    if version > schema.SCHEMA_VERSION:
        raise ResultUnusable(
            f"{path}: is of format {version}, and this servemark reads up to {schema.SCHEMA_VERSION}. "
            "Update servemark to read it"
        )
    return found


def _read_table(path: Path, required: bool) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise ResultUnusable(f"{path}: is missing, so the requests of this run cannot be read")
    try:
        with pq.ParquetFile(path) as file:
            _bounded(path, file.metadata)
            table = file.read()
    except OSError as error:
        raise ResultUnusable(f"{path}: cannot be read ({error})") from error
    except (pa.ArrowException, ValueError) as error:
        raise ResultUnusable(f"{path}: is no Parquet file of ours ({error})") from error
    if required:
        return _with_columns(path, table)
    if "at_ns" not in table.column_names:
        raise ResultUnusable(f"{path}: is no file of ours: it has no column at_ns")
    return table


def _bounded(path: Path, metadata: Any) -> None:
    size = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    if metadata.num_rows > MOST_ROWS or size > LARGEST_TABLE:
        raise ResultUnusable(
            f"{path}: says that it holds {metadata.num_rows} rows and {size} bytes: too much for a run"
        )


def _with_columns(path: Path, table: pa.Table) -> pa.Table:
    """Columns of the format have the format's types; ones it does not know are let be, and younger ones may be absent.

    A file may be older than a column of its format, which then is null throughout.
    """
    import pyarrow as pa

    for field in schema.arrow_schema(""):
        found = table.schema.get_field_index(field.name)
        if found < 0 and field.nullable:
            table = table.append_column(field, pa.nulls(len(table), field.type))
        elif found < 0 or table.schema.field(found).type != field.type:
            raise ResultUnusable(f"{path}: is no file of ours: column {field.name} is missing or not {field.type}")
    return table


def _converted(path: Path, table: pa.Table) -> Iterator[Record]:
    try:
        yield from to_records(table)
    except msgspec.ValidationError as error:
        raise ResultUnusable(f"{path}: holds a row that is no request ({error})") from error

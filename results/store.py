"""Writes a run as it goes: a journal while it runs, Parquet and run.json when it closes."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from servemark.harness.clock import SECOND, now_ns
from servemark.harness.errors import BadInput, ResultUnusable
from servemark.harness.types import GpuSample, Record, ServerSample
from servemark.results import schema
from servemark.results.redact import Redactor

if TYPE_CHECKING:
    from servemark.harness.figures.frame import Frame

try:
    import fcntl
except ImportError:  # no advisory locks here: a run that is still going on looks like one that was killed
    fcntl = None  # type: ignore[assignment]

FLUSH_AFTER_NS = SECOND // 2


def new_run_id(target: str, workload: str, at: datetime | None = None) -> str:
    """`20261120-184512-vllm-chat`, in UTC so that names sort by time."""
    stamp = (at or datetime.now(UTC)).astimezone(UTC).strftime("%Y%m%d-%H%M%S")
    return "-".join([stamp, _slug(target), _slug(workload)])


def new_folder(run_id: str, out: Path | None = None, root: Path | None = None) -> Path:
    """Makes the run's folder: `out`, or `root/run_id` (root: ./runs) with a number if it is taken."""
    if out is not None:
        return _make_empty(out)
    base = (root or Path("runs")) / run_id
    for number in range(1, 1000):
        folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise BadInput(_no_folder(folder, error)) from error
        return folder
    raise BadInput(f"{base}: a thousand runs have this name already. Give another folder with --out")


def _make_empty(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(_no_folder(folder, error)) from error
    refuse_taken(folder)
    return folder


def refuse_taken(folder: Path) -> None:
    """BadInput where something is in the folder already; one that is not there yet is free."""
    try:
        taken = next(folder.iterdir(), None)
    except FileNotFoundError:
        return
    except OSError as error:
        raise BadInput(_no_folder(folder, error)) from error
    if taken is not None:
        raise BadInput(
            f"{folder}: is not empty ({taken.name} is in it). Give --out a new folder: no run is overwritten"
        )


def _no_folder(folder: Path, error: OSError) -> str:
    return f"{folder}: cannot be made into a folder for the run ({error.strerror}). Give another one with --out"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-.")[:40] or "run"


class _Journal:
    """An append-only file of JSON lines. Bytes that could not be written stay in memory for the next try."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        self._pending = bytearray()

    def add(self, line: bytes) -> None:
        self._pending += line
        self._pending += b"\n"

    def flush(self) -> None:
        if not self._pending:
            return
        if self._fd < 0:
            self.open()
        # Unbuffered: after a short write exactly the rest is kept, and no line is torn or doubled.
        while self._pending:
            del self._pending[: os.write(self._fd, self._pending)]

    def open(self) -> None:
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        if fcntl is not None:
            # Held until the process ends: tells a reader that this run is still going on.
            with contextlib.suppress(OSError):
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class RunStore:
    """The Sink of a run in `folder` (empty, see `new_folder`).

    `known` is what run.json will hold that is known at the start; a killed run is read with it. Strings of
    `redact` (four characters or more) are replaced in everything that is written. Every method that writes
    raises ResultUnusable when it cannot; what is on disk stays, and a later call tries again.
    """

    def __init__(self, folder: Path, known: Mapping[str, Any], redact: Sequence[str] = ()) -> None:
        self.folder = folder
        self._redact = Redactor(redact)
        self._encoder = msgspec.json.Encoder(enc_hook=_plain)
        self._known = {
            "schema_version": schema.SCHEMA_VERSION,
            "id": folder.resolve().name,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            **known,
        }
        self._records = _Journal(folder / schema.JOURNAL)
        self._samples = _Journal(folder / schema.SERVER_JOURNAL)
        self._gpu_samples = _Journal(folder / schema.GPU_JOURNAL)
        self._flushed_ns = now_ns()
        self.recorded = 0
        self._guarded(self._begin)

    @property
    def run_id(self) -> str:
        return str(self._known["id"])

    def _begin(self) -> None:
        self._write_json(schema.PARTIAL, self._known)
        self._records.open()

    def record(self, record: Record) -> None:
        self._records.add(self._redact.line(self._encoder.encode(record)))
        self.recorded += 1
        self.flush_due(now_ns())

    def server_sample(self, sample: ServerSample) -> None:
        self._samples.add(self._redact.line(self._encoder.encode(sample)))
        self.flush_due(now_ns())

    def gpu_sample(self, sample: GpuSample) -> None:
        self._gpu_samples.add(self._redact.line(self._encoder.encode(sample)))
        self.flush_due(now_ns())

    def flush_due(self, at_ns: int) -> None:
        """Flushes if half a second has passed since the last time; call it while nothing is recorded too."""
        if at_ns - self._flushed_ns >= FLUSH_AFTER_NS:
            self._flushed_ns = at_ns
            self.flush()

    def flush(self) -> None:
        self._guarded(self._flush)

    def _flush(self) -> None:
        self._records.flush()
        self._samples.flush()
        self._gpu_samples.flush()

    def frame(self) -> Frame:
        """What has been recorded, as columns."""
        from servemark.results.tables import Journal, request_table, to_frame

        self.flush()
        return to_frame(request_table(Journal(self._records.path).records(), self.run_id))

    def server_samples(self) -> list[ServerSample]:
        """The readings of the server's metrics so far."""
        from servemark.results.tables import Journal

        self.flush()
        return list(Journal(self._samples.path).samples())

    def gpu_samples(self) -> list[GpuSample]:
        """The readings of GPUs so far."""
        from servemark.results.tables import Journal

        self.flush()
        return list(Journal(self._gpu_samples.path).gpu_samples())

    def close(self, run: Mapping[str, Any]) -> Path:
        """Writes the Parquet files, then run.json (`known` and `run` together), then removes the journals."""
        self.flush()
        from servemark.results.tables import write_gpu, write_requests, write_server

        self._guarded(
            lambda: self._atomic(schema.REQUESTS, lambda temp: write_requests(self.folder, temp, self.run_id))
        )
        if self._samples.path.exists():
            self._guarded(
                lambda: self._atomic(schema.SERVER, lambda temp: write_server(self.folder, temp, self.run_id))
            )
        if self._gpu_samples.path.exists():
            self._guarded(lambda: self._atomic(schema.GPU, lambda temp: write_gpu(self.folder, temp, self.run_id)))
        whole = schema.ordered({**self._known, **run})
        self._guarded(lambda: self._write_json(schema.RUN_JSON, whole))
        self.abandon()
        for name in (schema.JOURNAL, schema.SERVER_JOURNAL, schema.GPU_JOURNAL, schema.PARTIAL):
            # The run is whole by now; a leftover is ignored by the reader.
            with contextlib.suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)
        return self.folder / schema.RUN_JSON

    def abandon(self) -> None:
        """Lets go of the files, after a last try to write what ended since the last flush; it can be recovered."""
        with contextlib.suppress(OSError):
            self._flush()
        self._records.close()
        self._samples.close()
        self._gpu_samples.close()

    def _write_json(self, name: str, value: Mapping[str, Any]) -> None:
        try:
            encoded = self._encoder.encode(value)
        except UnicodeEncodeError:  # a file's name may be bytes that are no text
            encoded = self._encoder.encode(_printable(value))
        body = msgspec.json.format(self._redact.json(encoded), indent=2)
        self._atomic(name, lambda temp: temp.write_bytes(body + b"\n"))

    def _atomic(self, name: str, write: Callable[[Path], object]) -> None:
        """Under its final name a file is there whole or not at all."""
        temp = self.folder / f".{name}.tmp"
        try:
            write(temp)
            _sync(temp)
            os.replace(temp, self.folder / name)
            _sync(self.folder)
        finally:
            with contextlib.suppress(OSError):
                temp.unlink(missing_ok=True)

    def _guarded(self, step: Callable[[], object]) -> None:
        try:
            step()
        except OSError as error:
            raise ResultUnusable(_cannot_write(self.folder, error)) from error


def _cannot_write(folder: Path, error: OSError) -> str:
    reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
    return (
        f"{folder}: the run could not be written: {reason}. What was written stays there; "
        f"make room and read it with `bench show {folder}`"
    )


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _printable(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {_printable(key): _printable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(item) for item in value]
    return value


def _plain(value: object) -> object:
    """Numpy's scalars and arrays, paths and the like as plain JSON, without importing numpy."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"a {type(value).__name__} has no place in a run's result")

"""Journals to Parquet, tables and frames, in batches: a long run need not fit into memory as objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from servemark.harness.gpu.fields import GPU_FIELDS
from servemark.harness.types import GpuSample, Record, ServerSample
from servemark.results import schema

if TYPE_CHECKING:
    import pyarrow as pa

    from servemark.harness.figures.frame import Frame

BATCH = 2_000
LONGEST_LINE = 64 * 1024 * 1024


class Journal:
    """The readable lines of a journal; `skipped` counts the others (the last one may be torn by a kill)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.skipped = 0

    def records(self) -> Iterator[Record]:
        return self._read(msgspec.json.Decoder(Record))

    def samples(self) -> Iterator[ServerSample]:
        return self._read(msgspec.json.Decoder(ServerSample))

    def gpu_samples(self) -> Iterator[GpuSample]:
        return self._read(msgspec.json.Decoder(GpuSample))

    def _read(self, decoder: Any) -> Iterator[Any]:
        self.skipped = 0
        if not self.path.is_file():
            return
        with self.path.open("rb") as lines:
            while line := lines.readline(LONGEST_LINE):
                try:
                    yield decoder.decode(line)
                except (msgspec.DecodeError, RecursionError):
                    self.skipped += 1


def batches(records: Iterable[Record], table_schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Record batches of the request table."""
    import pyarrow as pa

    remaining = iter(records)
    while rows := list(islice(remaining, BATCH)):
        arrays = [
            pa.array([getattr(row, column.source) for row in rows], field.type)
            for column, field in zip(schema.COLUMNS, table_schema, strict=True)
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=table_schema)


def request_table(records: Iterable[Record], run_id: str = "") -> pa.Table:
    """The table of requests.parquet, in memory."""
    import pyarrow as pa

    table_schema = schema.arrow_schema(run_id)
    return pa.Table.from_batches(batches(records, table_schema), table_schema)


def server_table(samples: Sequence[ServerSample], run_id: str = "") -> pa.Table:
    """The table of server.parquet, in memory; a name that a reading lacks is null there."""
    import pyarrow as pa

    names = list(dict.fromkeys(name for sample in samples for name in sample.values))
    columns: list[list[Any]] = [[sample.at_ns for sample in samples], [sample.url for sample in samples]]
    columns += [[sample.values.get(name) for sample in samples] for name in names]
    table_schema = schema.server_schema(names, run_id)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, table_schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=table_schema)


def gpu_table(samples: Sequence[GpuSample], run_id: str = "") -> pa.Table:
    """The table of gpu.parquet, in memory; a field that a reading lacks is null there."""
    import pyarrow as pa

    told = {name for sample in samples for name in sample.values}
    names = [name for name in GPU_FIELDS if name in told] + sorted(told - GPU_FIELDS.keys())
    columns: list[list[Any]] = [[sample.at_ns for sample in samples], [sample.gpu for sample in samples]]
    columns += [[sample.values.get(name) for sample in samples] for name in names]
    table_schema = schema.gpu_schema(names, run_id)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, table_schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=table_schema)


def write_requests(folder: Path, path: Path, run_id: str) -> None:
    """The journal in `folder` as Parquet at `path`."""
    import pyarrow.parquet as pq

    table_schema = schema.arrow_schema(run_id)
    lists = [c.name for c in schema.COLUMNS if c.kind.startswith("list")]
    with pq.ParquetWriter(
        path,
        table_schema,
        compression="zstd",
        use_dictionary=[c.name for c in schema.COLUMNS if c.kind == "string"],
        # Stamps rise in small steps: stored as differences they take about a quarter of the room.
        column_encoding={f"{name}.list.element": "DELTA_BINARY_PACKED" for name in lists},
    ) as writer:
        for batch in batches(Journal(folder / schema.JOURNAL).records(), table_schema):
            writer.write_batch(batch)


def write_server(folder: Path, path: Path, run_id: str) -> None:
    """The server's journal in `folder` as Parquet at `path`."""
    import pyarrow.parquet as pq

    samples = list(Journal(folder / schema.SERVER_JOURNAL).samples())
    pq.write_table(server_table(samples, run_id), path, compression="zstd")


def write_gpu(folder: Path, path: Path, run_id: str) -> None:
    """The GPUs' journal in `folder` as Parquet at `path`."""
    import pyarrow.parquet as pq

    samples = list(Journal(folder / schema.GPU_JOURNAL).gpu_samples())
    pq.write_table(gpu_table(samples, run_id), path, compression="zstd")


def to_records(table: pa.Table) -> Iterator[Record]:
    """The rows of a request table as records."""
    sources = {column.name: column.source for column in schema.COLUMNS if column.name in table.column_names}
    for batch in table.to_batches(max_chunksize=BATCH):
        for row in batch.to_pylist():
            fields = {source: row[name] for name, source in sources.items()}
            fields["chunk_ns"] = tuple(fields.get("chunk_ns") or ())
            fields["chunk_tokens"] = tuple(fields.get("chunk_tokens") or ())
            yield msgspec.convert(fields, Record)


def to_frame(table: pa.Table) -> Frame:
    """The rows of a request table as the columns that the metrics are computed from."""
    from servemark.harness.figures.frame import MISSING, UNKNOWN, Frame

    columns: dict[str, Any] = {}
    for column in schema.COLUMNS:
        values = table.column(column.name)
        if column.kind == "int64":
            columns[column.source] = values.fill_null(MISSING).to_numpy()
        elif column.kind == "string":
            columns[column.source] = values.to_pylist()
    stamps, tokens = (table.column(name).combine_chunks() for name in ("chunk_ns", "chunk_tokens"))
    return Frame.from_columns(
        columns,
        (stamps.values.to_numpy(), stamps.offsets.to_numpy()),
        (tokens.values.fill_null(UNKNOWN).to_numpy(), tokens.offsets.to_numpy()),
    )


def to_samples(table: pa.Table) -> list[ServerSample]:
    """The rows of a server table as samples; one written before replicas were told apart has no `url`."""
    return [
        ServerSample(row.pop("at_ns"), url=row.pop("url", None), values={k: v for k, v in row.items() if v is not None})
        for row in table.to_pylist()
    ]


def to_gpu_samples(table: pa.Table) -> Iterator[GpuSample]:
    """The rows of a GPU table as samples. Raises msgspec's ValidationError for a row that is none."""
    for batch in table.to_batches(max_chunksize=BATCH):
        for row in batch.to_pylist():
            at_ns, gpu = row.pop("at_ns"), row.pop("gpu", None)
            values = {name: value for name, value in row.items() if value is not None and value == value}
            yield msgspec.convert({"at_ns": at_ns, "gpu": gpu, "values": values}, GpuSample)

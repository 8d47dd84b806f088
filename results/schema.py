"""The durable format of a run: file names, columns, and how the format came to be.

A run is a folder. `run.json` is there only when everything else is: a folder without it did not finish.

    run.json         what was run, on what, the figures and the verdict
    requests.parquet one row per request, in the order in which they ended
    server.parquet   one row per reading of the server's metrics, when it was scraped
    gpu.parquet      one row per reading of a GPU, where GPUs were read
    engine.log       what the engine said, where it was launched for the run
    partial.json     while it runs: what was known at the start
    records.jsonl    while it runs: one finished request per line
    server.jsonl     while it runs: one reading of the server's metrics per line
    gpu.jsonl        while it runs: one reading of a GPU per line

History of `schema_version`:
    1   the first one.

A reader takes its own version and older ones. New keys and columns do not raise the version; a key or column
that goes or changes its meaning does. docs/results.md says what each key and column means.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1

RUN_JSON = "run.json"
REQUESTS = "requests.parquet"
SERVER = "server.parquet"
GPU = "gpu.parquet"
PARTIAL = "partial.json"
JOURNAL = "records.jsonl"
SERVER_JOURNAL = "server.jsonl"
GPU_JOURNAL = "gpu.jsonl"
PAGE = "report.html"
ENGINE_LOG = "engine.log"

Kind = Literal["int64", "string", "list<int64>", "list<int32>"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of requests.parquet; `field` is the name of the field in `Record`, where it differs."""

    name: str
    kind: Kind
    required: bool = False
    field: str = ""

    @property
    def source(self) -> str:
        return self.field or self.name


COLUMNS: tuple[Column, ...] = (
    Column("request_id", "int64", required=True),
    Column("class", "string", required=True, field="class_"),
    Column("session_id", "string"),
    Column("turn", "int64", required=True),
    Column("url", "string", required=True),
    Column("worker", "int64", required=True),
    Column("phase", "string", required=True),
    Column("intended_ns", "int64", required=True),
    Column("ready_ns", "int64"),
    Column("sent_ns", "int64"),
    Column("connect_started_ns", "int64"),
    Column("connect_ns", "int64"),
    Column("first_byte_ns", "int64"),
    Column("first_token_ns", "int64"),
    Column("first_answer_ns", "int64"),
    Column("last_token_ns", "int64"),
    Column("done_ns", "int64"),
    Column("chunk_ns", "list<int64>", required=True),
    Column("chunk_tokens", "list<int32>", required=True),
    Column("asked_prompt_tokens", "int64"),
    Column("asked_output_tokens", "int64"),
    Column("prompt_tokens", "int64"),
    Column("output_tokens", "int64"),
    Column("reasoning_tokens", "int64"),
    Column("cached_tokens", "int64"),
    Column("token_source", "string", required=True),
    Column("finish_reason", "string"),
    Column("http_status", "int64"),
    Column("error", "string"),
    Column("error_detail", "string"),
    Column("server_request_id", "string"),
    Column("reads", "int64", required=True),
    Column("coalesced_reads", "int64", required=True),
    Column("resends", "int64", required=True),
    Column("stamp", "string", required=True),
)

KEYS: tuple[str, ...] = (
    "schema_version",
    "id",
    "created",
    "simulated",
    "verdict",
    "summary",
    "metrics",
    "groups",
    "slo",
    "workload",
    "schedule",
    "cache",
    "target",
    "server",
    "hardware",
    "clock",
    "worker",
    "host",
    "versions",
)
"""Top-level keys of run.json, in the order in which they are written."""


def arrow_schema(run_id: str) -> pa.Schema:
    """The schema of requests.parquet, with the format's version and the run's id in its metadata."""
    import pyarrow as pa

    kinds = {
        "int64": pa.int64(),
        "string": pa.string(),
        "list<int64>": pa.list_(pa.int64()),
        "list<int32>": pa.list_(pa.int32()),
    }
    fields = [pa.field(c.name, kinds[c.kind], nullable=not c.required) for c in COLUMNS]
    return pa.schema(fields, metadata=file_metadata(run_id))


def server_schema(names: Sequence[str], run_id: str) -> pa.Schema:
    """The schema of server.parquet: `at_ns`, the replica's `url`, and a float column per name of a server metric."""
    import pyarrow as pa

    fields = [pa.field("at_ns", pa.int64(), nullable=False), pa.field("url", pa.string())]
    fields += [pa.field(name, pa.float64()) for name in names]
    return pa.schema(fields, metadata=file_metadata(run_id))


def gpu_schema(names: Sequence[str], run_id: str) -> pa.Schema:
    """The schema of gpu.parquet: `at_ns`, the GPU, and a float column per field that any reading holds."""
    import pyarrow as pa

    fields = [pa.field("at_ns", pa.int64(), nullable=False), pa.field("gpu", pa.string(), nullable=False)]
    fields += [pa.field(name, pa.float64()) for name in names]
    return pa.schema(fields, metadata=file_metadata(run_id))


def file_metadata(run_id: str) -> dict[str, str]:
    return {"servemark.schema_version": str(SCHEMA_VERSION), "servemark.run_id": run_id}


def ordered(run: Mapping[str, Any]) -> dict[str, Any]:
    """The same keys in the format's order, unknown ones last."""
    known = {key: run[key] for key in KEYS if key in run}
    return known | {key: value for key, value in run.items() if key not in known}


def part(run: object, *path: str) -> dict[str, Any]:
    """The mapping at `path`, or an empty one: readers survive a key that is missing or of another type."""
    here = run
    for key in path:
        here = here.get(key) if isinstance(here, Mapping) else None
    return dict(here) if isinstance(here, Mapping) else {}


def items(run: object, *path: str) -> list[dict[str, Any]]:
    """The mappings of the list at `path`; whatever else is there is left out."""
    here = part(run, *path[:-1]).get(path[-1])
    return [dict(item) for item in here if isinstance(item, Mapping)] if isinstance(here, list | tuple) else []


def number(value: object) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def text(value: object, limit: int = 2_000) -> str:
    """Text for a person: no control characters (an escape code would steer the terminal), and not endless."""
    if value is None:
        return ""
    found = str(value)
    found = "".join(c if c.isprintable() else " " for c in found[: limit + 1])
    return found if len(found) <= limit else found[: limit - 1] + "…"

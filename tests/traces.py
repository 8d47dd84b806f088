"""Small traces in the form of the published ones, and sources made ready from them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from servemark.harness.plan.sources import SOURCES, Given, Prepared, PromptSource, Seeds, discover
from servemark.harness.plan.tokens import estimate

SECOND = 1_000_000_000
SEEDS = Seeds(0, 1, 2, 3)
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
BURSTGPT = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"


def source_of(name: str, path: Path, **params: Any) -> PromptSource:
    discover()
    return SOURCES[name].model_validate({"source": name, "path": str(path), **params})


def prepared(name: str, path: Path, seeds: Seeds = SEEDS, **params: Any) -> Prepared:
    return source_of(name, path, **params).prepare(Given(seeds, estimate("completions", ""), path.parent))


def rows_of(source: Prepared) -> list[tuple[float, int | None, int | None]]:
    """Offset in seconds, input and output tokens of all items."""
    assert source.size is not None
    return [(source.offset_ns(i) / SECOND, *source.lengths(i)) for i in range(source.size)]


def offsets_of(source: Prepared) -> list[int]:
    assert source.size is not None
    return [source.offset_ns(i) for i in range(source.size)]


def azure_file(folder: Path, times_s: Iterable[float], inputs: Sequence[int] = ()) -> Path:
    """One row at each time (below a day), with an input of 100, 101, ... tokens unless they are given."""
    path = folder / "azure.csv"
    lines = []
    for i, at in enumerate(times_s):
        minutes, seconds = divmod(at, 60)
        stamp = f"2024-05-10 {int(minutes) // 60:02d}:{int(minutes) % 60:02d}:{seconds:010.7f}"
        lines.append(f"{stamp},{inputs[i] if inputs else 100 + i},{i % 7 + 1}\r\n")
    path.write_text(AZURE + "".join(lines), newline="")
    return path


def mooncake_file(folder: Path, rows: Iterable[tuple[int, int, int, Sequence[int]]]) -> Path:
    """Rows of (timestamp in ms, input, output, ids)."""
    path = folder / "mooncake.jsonl"
    names = ("timestamp", "input_length", "output_length", "hash_ids")
    path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    return path


def servegen_client(folder: Path, number: int, trace: str, lengths: dict[str, dict[str, str]]) -> None:
    (folder / f"chunk-{number}-trace.csv").write_text(trace)
    (folder / f"chunk-{number}-dataset.json").write_text(json.dumps(lengths))

"""Runs the command as a user does, and reads what it leaves on disk as anybody can."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(sys.executable).with_name("bench")
LIMIT_S = 180.0

# What a machine that is shared with the server, and with others, may do to a run: no test of a server judges by it.
OF_THE_MACHINE = (
    "client_cpu",
    "client_lag",
    "coalesced_reads",
    "late_jobs",
    "loop_stalls",
    "overloaded",
    "requests_sent",
    "wall_step",
)


@dataclass
class Done:
    """A command that has ended, and the run in `folder` if it left one."""

    code: int
    said: str
    folder: Path

    @cached_property
    def run(self) -> dict[str, Any]:
        assert (self.folder / "run.json").exists(), f"no run was written; bench ended with {self.code}:\n{self.said}"
        run: dict[str, Any] = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
        return run

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        return self._table("requests.parquet")

    @cached_property
    def readings(self) -> list[dict[str, Any]]:
        """Of the server as a whole."""
        return [row for row in self._table("server.parquet") if row.get("url") is None]

    def _table(self, name: str) -> list[dict[str, Any]]:
        import pyarrow.parquet as pq

        rows: list[dict[str, Any]] = pq.read_table(self.folder / name).to_pylist()
        return rows

    def check(self, code: str) -> dict[str, Any]:
        return next(check for check in self.run["verdict"]["checks"] if check["code"] == code)

    def invalid(self) -> set[str]:
        """Reasons that make it INVALID."""
        checks = self.run["verdict"]["checks"]
        return {check["code"] for check in checks if check["severity"] == "invalid" and not check["waived"]}

    def moved(self, name: str) -> float:
        """How far a counter of the server went from the first reading to the last."""
        return float(self.readings[-1][name] - self.readings[0][name])


def command(target: str, url: str, folder: Path, *flags: str) -> list[str]:
    allowed = [word for code in OF_THE_MACHINE for word in ("--allow", code)]
    return [str(BENCH), "run", "--target", target, "--url", url, "--out", str(folder), "--quiet", *allowed, *flags]


def bench(target: str, url: str, folder: Path, *flags: str) -> Done:
    """`bench run` against a server, to its end."""
    return finished(command(target, url, folder, *flags), folder)


def finished(words: Sequence[str], folder: Path) -> Done:
    done = subprocess.run(words, cwd=folder.parent, capture_output=True, text=True, timeout=LIMIT_S)
    return Done(done.returncode, done.stdout + done.stderr, folder)


def checked(target: str, url: str, folder: Path, *flags: str) -> Done:
    """`bench check` of a server, called in `folder`."""
    return finished([str(BENCH), "check", "--target", target, "--url", url, *flags], folder / "none")


# Load that is there for longer than any test looks at it, and no more than the server carries.
LONG = ("--concurrency", "3", "--duration", "120s", "--warmup", "0s", "--drain", "20s")


@contextlib.contextmanager
def in_the_middle(words: Sequence[str], folder: Path, count: int = 6) -> Iterator[subprocess.Popen[str]]:
    """A run of which so many requests have been written down."""
    running = subprocess.Popen(words, cwd=folder.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with running:
        deadline = time.monotonic() + 60
        journal = folder / "records.jsonl"
        while not journal.exists() or journal.read_bytes().count(b"\n") < count:
            if running.poll() is not None or time.monotonic() > deadline:
                running.kill()
                pytest.fail(f"no {count} requests ended within 60 s: {running.communicate()[0]}")
            time.sleep(0.2)
        yield running


def ended(running: subprocess.Popen[str], folder: Path) -> Done:
    """Ends by itself, soon."""
    said = running.communicate(timeout=60)[0]
    return Done(running.returncode, said, folder)


def in_order(row: dict[str, Any]) -> None:
    """The stamps of a request that succeeded."""
    steps = ("intended_ns", "sent_ns", "first_byte_ns", "first_token_ns", "last_token_ns", "done_ns")
    stamps = [row[step] for step in steps]
    assert stamps == sorted(stamps)
    assert (row["chunk_ns"][0], row["chunk_ns"][-1]) == (row["first_token_ns"], row["last_token_ns"])
    assert row["first_answer_ns"] == row["first_token_ns"]

"""Runs the command as a user does, and reads what it leaves on disk as anybody can."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

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
        return self._table("server.parquet")

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


def command(url: str, folder: Path, *flags: str) -> list[str]:
    allowed = [word for code in OF_THE_MACHINE for word in ("--allow", code)]
    return [str(BENCH), "run", "--target", "vllm", "--url", url, "--out", str(folder), "--quiet", *allowed, *flags]


def bench(url: str, folder: Path, *flags: str) -> Done:
    """`bench run` against a vLLM, to its end."""
    return finished(command(url, folder, *flags), folder)


def finished(words: Sequence[str], folder: Path) -> Done:
    done = subprocess.run(words, cwd=folder.parent, capture_output=True, text=True, timeout=LIMIT_S)
    return Done(done.returncode, done.stdout + done.stderr, folder)

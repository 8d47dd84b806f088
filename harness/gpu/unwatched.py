"""A run whose GPUs are not sampled, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Unwatched:
    """A GpuWatch that watches nothing; `why` is a sentence."""

    why: str

    def begin(self) -> None: ...

    async def run(self) -> None: ...

    def end(self) -> None: ...

    def facts(self) -> dict[str, Any]:
        return {"source": None, "samples": 0, "gpus": [], "notes": [self.why], "missing": {}}

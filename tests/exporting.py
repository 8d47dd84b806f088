"""`bench gpu-exporter`'s server in a thread of this process, over any GPUs."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from servemark.harness.clock import now_ns
from servemark.harness.gpu.exporter import Gpus, server
from servemark.harness.types import GpuSample


class Steady:
    """GPUs that tell the same at every reading; counts how often they are read."""

    def __init__(self, **gpus: dict[str, float]) -> None:
        self.reads = 0
        self._gpus = gpus or {"GPU-a": {"power": 300.0, "utilisation": 0.5}}

    def read(self) -> list[GpuSample]:
        self.reads += 1
        return [GpuSample(now_ns(), gpu, values) for gpu, values in self._gpus.items()]

    def facts(self) -> dict[str, Any]:
        gpus = [{"gpu": gpu, "index": index, "name": "NVIDIA H100"} for index, gpu in enumerate(self._gpus)]
        return {"source": "nvml", "period_s": 0.1, "gpus": gpus, "notes": [], "missing": {"throttle": "not here"}}


@contextlib.contextmanager
def exporting(gpus: Gpus, period_s: float = 0.1) -> Iterator[str]:
    """Its base URL on 127.0.0.1 while the block runs."""
    started, there = threading.Event(), list[str]()
    loop = asyncio.new_event_loop()
    pages = server(gpus, period_s)

    async def start() -> None:
        host, port = await pages.start("127.0.0.1", 0)
        there.append(f"http://{host}:{port}")
        started.set()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(start())
        loop.run_forever()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert started.wait(20)
        yield there[0]
    finally:
        asyncio.run_coroutine_threadsafe(_ended(pages), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _ended(pages: Any) -> None:
    await pages.close()
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)

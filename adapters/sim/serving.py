"""Runs the simulated server until it is told to stop: signals, the parent's end, the ready line."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from servemark.adapters.sim.faults import KINDS
from servemark.adapters.sim.options import SimOptions, option_table
from servemark.adapters.sim.server import SimServer
from servemark.harness.errors import BadInput, BenchError
from servemark.harness.hardware.devices import gpus
from servemark.harness.hardware.known import known_models

READY: Final = "listening "
"""The one line on standard output is this word and the URL."""


def serve(**options: Any) -> None:
    """Serves until SIGTERM or SIGINT. The options are those of `option_table`; BadInput where one is wrong."""
    server = SimServer(SimOptions(**options))
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(server))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where there is one (not on Windows)."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _serve(server: SimServer) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for signal_ in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_, stop.set)
    if server.options.die_with_parent:
        loop.add_reader(0, _stop_at_end_of_input, stop)
    listener = await _listen(server)
    tasks = [asyncio.create_task(server.sim.driver.run()), asyncio.create_task(server.close_idle_connections())]
    for task in tasks:
        task.add_done_callback(lambda _: stop.set())
    host, port = listener.sockets[0].getsockname()[:2]
    print(f"{READY}http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)  # a collection must not hold a step
    await stop.wait()
    listener.close()
    for connection in list(server.connections):
        connection.cut(reset=False)
    failed = [task for task in tasks if task.done() and not task.cancelled()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in failed:
        task.result()


async def _listen(server: SimServer) -> asyncio.Server:
    host, port = server.options.host, server.options.port
    try:
        return await asyncio.get_running_loop().create_server(server.connection, host, port, backlog=4096)
    except OSError as error:
        why = error.strerror or str(error)
        raise BadInput(f"--port {port}: cannot listen on {host}:{port}: {why}; --port 0 takes a free one") from None


def _stop_at_end_of_input(stop: asyncio.Event) -> None:
    if not os.read(0, 4096):
        asyncio.get_running_loop().remove_reader(0)
        stop.set()


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(
        prog="python -m servemark.adapters.sim",
        description="A simulated LLM server over the figures of a model and a GPU.",
        epilog=f"Models: {', '.join(known_models())}. GPUs: {', '.join(each.name for each in gpus())}. "
        f"Faults: {', '.join(KINDS)}.",
    )
    for option in option_table():
        if option.type is bool:
            arguments.add_argument(option.flag, action="store_true", help=option.help)
        else:
            text = f"{option.help} (default: {option.default})" if option.default != "" else option.help
            arguments.add_argument(option.flag, type=option.type, default=option.default, help=text)
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    try:
        serve(**vars(parser().parse_args(words)))
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0

"""Starts a server under test, waits until it is ready, and ends it and its whole process tree afterwards."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servemark.harness.clock import SECOND, now_ns
from servemark.harness.errors import BadInput, TargetUnusable
from servemark.harness.launch.kept import End, Kept
from servemark.harness.launch.words import secret_values, secrets_in, settled, shown, shown_environment
from servemark.harness.server.address import Headers
from servemark.harness.server.control import Control, NotReady, discover
from servemark.harness.types import Adapter, Launcher

HOST = "127.0.0.1"
WAIT_S = 600.0
"""How long a launched engine may load where nothing else is asked for."""
_COMMAND_WAIT_S = 60.0
_LAST_LINES = 5
_PYTHON = re.compile(r"python[\d.]*$")
_FIND_MODULE = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"

OnWait = Callable[[float, str], None]
"""Gets the seconds so far and the last line of the log, a few times a second."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What is to be started. `folder` is where relative paths among the words begin; `log` keeps its output."""

    words: tuple[str, ...]
    folder: Path = field(default_factory=Path.cwd)
    environment: Mapping[str, str] = field(default_factory=dict)
    wait_s: float = WAIT_S
    log: Path | None = None


@dataclass(frozen=True, slots=True)
class Engine:
    """A server that was started here and is ready. `command` holds no secret; `secrets` are those that it hides.

    `words` are those behind --launch, `visible_gpus` is what CUDA_VISIBLE_DEVICES says to it.
    """

    name: str
    process: Kept
    url: str
    command: str
    version: str | None
    ready_after_s: float
    environment: Mapping[str, str]
    secrets: tuple[str, ...]
    words: tuple[str, ...] = ()
    visible_gpus: str | None = None

    def facts(self) -> dict[str, Any]:
        """For the run's result."""
        return {
            "command": self.command,
            "version": self.version,
            "ready_after_s": round(self.ready_after_s, 3),
            "environment": self.environment,
        }

    def last_words(self) -> str | None:
        """How it ended, and the end of its log; None while it runs."""
        end = self.process.end
        if end is None:
            return None
        said = " | ".join(self.process.tail(_LAST_LINES))
        return f"{end}; the end of its log: {said}" if said else f"{end} and said nothing."

    def refuse_ended(self) -> None:
        """TargetUnusable where it has ended."""
        if (end := self.process.end) is not None:
            raise TargetUnusable(_with_log(f"{self.name} {end} before the load", self.process))

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """An engine that has ended is why it cannot be asked any more, and its log says more than that."""
        try:
            yield
        except TargetUnusable:
            self.refuse_ended()
            raise


@contextlib.contextmanager
def launched(adapter: Adapter, launch: Launch, headers: Headers, on_wait: OnWait) -> Iterator[Engine]:
    """The engine, ready; it ends with the block. Raises BadInput, or TargetUnusable with the end of its log."""
    launcher = launcher_of(adapter)
    port = _free_port()
    argv = tuple(launcher.command(settled(launch.words, launch.folder), HOST, port))
    environment = {"PYTHONUNBUFFERED": "1", **launcher.environment, **os.environ, **launch.environment}
    refuse_missing(argv, environment)
    # An adapter may have put words into one argument, in which no flag is seen.
    among_words = (*secrets_in(launch.words), *secrets_in(argv))
    secrets = (*among_words, *secret_values(environment), *secret_values(dict(headers)))
    began_ns = now_ns()
    process = _started(argv, environment, secrets, launch.log)
    try:
        with Control(adapter.base_url(f"http://{HOST}:{port}"), headers) as control:
            version = _ready(adapter, process, control, launch.wait_s, on_wait)
        ready_after_s = (now_ns() - began_ns) / SECOND
        yield Engine(
            name=adapter.name,
            process=process,
            url=f"http://{HOST}:{port}",
            command=shown(argv, among_words),
            version=version or asked_version(launcher, environment, secrets),
            ready_after_s=ready_after_s,
            environment=shown_environment(launch.environment),
            secrets=secrets,
            words=settled(launch.words, launch.folder),
            visible_gpus=environment.get("CUDA_VISIBLE_DEVICES"),
        )
    finally:
        process.stop()


def launcher_of(adapter: Adapter) -> Launcher:
    """BadInput where this kind of server cannot be started."""
    if adapter.launcher is None:
        raise BadInput(f"target {adapter.name} cannot be started by --launch; start it and give its --url")
    return adapter.launcher


def refuse_missing(argv: Sequence[str], environment: Mapping[str, str]) -> None:
    """TargetUnusable, naming what is missing, where the program (or the module that Python is to run) is not there."""
    program = shutil.which(argv[0], path=environment.get("PATH"))
    if program is None:
        raise TargetUnusable(f"{argv[0]} is not installed, or not on the PATH; install it, or activate its environment")
    if not _PYTHON.match(Path(argv[0]).name) or "-m" not in argv[1:3] or argv[-1] == "-m":
        return
    module = argv[argv.index("-m") + 1].partition(".")[0]
    if not _has_module(program, module, environment):
        raise TargetUnusable(f"{module} is not installed for {program}; install it there, or activate its environment")


def _has_module(program: str, module: str, environment: Mapping[str, str]) -> bool:
    try:
        return not subprocess.run(  # noqa: S603
            [program, "-c", _FIND_MODULE, module],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=dict(environment), cwd="/", timeout=_COMMAND_WAIT_S, check=False,
        ).returncode  # fmt: skip
    except subprocess.TimeoutExpired:  # its start will tell
        return True


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


def _started(argv: Sequence[str], environment: Mapping[str, str], secrets: Sequence[str], log: Path | None) -> Kept:
    try:
        return Kept(argv, environment, secrets, log)
    except OSError as error:
        raise TargetUnusable(f"{argv[0]} could not be started: {error}") from error


def _ready(adapter: Adapter, process: Kept, control: Control, wait_s: float, on_wait: OnWait) -> str | None:
    """Waits; the version that the server tells."""
    began_ns = now_ns()

    def pause(seconds: float) -> None:
        end = process.wait(seconds)
        if end is not None:
            raise TargetUnusable(_with_log(f"{adapter.name} {end} before it was ready", process))
        on_wait((now_ns() - began_ns) / SECOND, next(iter(process.tail(1)), ""))

    on_wait(0.0, "")
    try:
        facts = discover(adapter, control, wait_s, pause)
    except NotReady as error:
        said = f"{adapter.name} was not ready within {wait_s:g} s; give it longer with --wait"
        raise TargetUnusable(_with_log(said, process)) from error
    return facts.version


def asked_version(launcher: Launcher, environment: Mapping[str, str], secrets: Sequence[str]) -> str | None:
    """What the launcher's version command prints: its first line with a number in it."""
    if not launcher.version:
        return None
    try:
        process = Kept(launcher.version, environment, secrets)
    except OSError:
        return None
    try:
        end = process.wait(_COMMAND_WAIT_S)
        lines = process.tail(40) if end == End(0) else []
    finally:
        process.hurry()
        process.stop()
    return next((line.strip() for line in lines if re.search(r"\d", line)), None)


def _with_log(said: str, process: Kept) -> str:
    lines = process.tail()
    return "\n  ".join([f"{said}; the end of its log:", *lines]) if lines else f"{said}; it said nothing"

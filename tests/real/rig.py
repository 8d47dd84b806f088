"""What every real server of these tests needs: a folder to install into, a free port, a start and an end.

A module beside this one sets up one kind of server: it has `install()` and `serve(log, *flags) -> RealServer`, and is
listed in `kinds.py`.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HOME_VARIABLE = "SERVEMARK_RIGS"
KEEPER = Path(__file__).with_name("keeper.py")
READY_LIMIT_S = 300.0
INSTALL_LIMIT_S = 1800.0
END_LIMIT_S = 30.0
_TAIL_LINES = 30

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class RigFailed(Exception):
    """A server could not be set up or started; the text holds the end of its log."""


def home() -> Path:
    """The folder that keeps installed servers and models between runs."""
    return Path(os.environ.get(HOME_VARIABLE) or "~/.cache/servemark-rigs").expanduser().absolute()


@contextlib.contextmanager
def setting_up() -> Iterator[Path]:
    """`home()`, which no other process sets up meanwhile."""
    folder = home()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


@contextlib.contextmanager
def made_whole(path: Path) -> Iterator[Path]:
    """A place to write to that becomes `path` only when the block ends well, so that half a set-up is never taken."""
    part = path.with_name(path.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    yield part
    part.rename(path)


def run_step(command: Sequence[str | Path], log: Path) -> None:
    """One step of a set-up. RigFailed, with the end of its output, where it fails."""
    with log.open("ab") as output:
        output.write(f"\n$ {' '.join(map(str, command))}\n".encode())
        output.flush()
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=INSTALL_LIMIT_S
            )
        except subprocess.TimeoutExpired:
            raise RigFailed(f"{command[0]} took more than {INSTALL_LIMIT_S:g} s\n{tail(log)}") from None
    if done.returncode:
        words = " ".join(map(str, command))
        raise RigFailed(f"a step of the set-up ended with {done.returncode}: {words}\n{tail(log)}")


def tail(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    return f"--- the end of {log}:\n" + "\n".join(lines[-_TAIL_LINES:])


def pip(python: str | Path = sys.executable) -> list[str | Path]:
    """The start of a pip command for this Python, as pip is configured here."""
    return [python, "-m", "pip", "--disable-pip-version-check", "--no-input"]


def system_packages(wanted: Sequence[str], what_for: str, log: Path) -> None:
    """From the system's package manager: by apt-get where this user may install. RigFailed, saying what is missing."""
    names = " ".join(wanted)
    if os.geteuid() or shutil.which("apt-get") is None:
        raise RigFailed(f"{what_for} needs {names} (names of Debian's packages); install them and run this again")
    run_step(["apt-get", "update", "-q"], log)
    run_step(["apt-get", "install", "-y", "-q", "--no-install-recommends", *wanted], log)


def clean_environment(*prefixes: str) -> dict[str, str]:
    """This process's, less what could change how a server or its Python runs."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", *prefixes))}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


@dataclass(slots=True)
class RealServer:
    """A server that was started here. It ends with `stop`, `kill`, or with this process."""

    url: str
    log: Path
    _keeper: subprocess.Popen[bytes]
    metrics_url: str | None = None
    """Where its metrics are, if not at a path of `url`."""
    litter: str = ""
    """A pattern of files that it leaves outside its folder when it is killed."""

    @property
    def alive(self) -> bool:
        return self._keeper.poll() is None

    def wait_ready(self, path: str, limit_s: float = READY_LIMIT_S) -> None:
        """Until `path` answers 200. RigFailed where the server ends before, or takes longer."""
        deadline = time.monotonic() + limit_s
        while not self._answers(path):
            if not self.alive:
                self.stop()
                raise RigFailed(f"the server ended before it was ready\n{tail(self.log)}")
            if time.monotonic() > deadline:
                self.stop()
                raise RigFailed(f"the server was not ready within {limit_s:g} s\n{tail(self.log)}")
            time.sleep(0.5)

    def _answers(self, path: str) -> bool:
        try:
            with _direct.open(self.url + path, timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> None:
        """Asks it to end, and makes its whole process tree end when it does not."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        try:
            self._keeper.wait(END_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.kill()

        self._sweep()

    def kill(self) -> None:
        """At once, as a crash or the kernel would."""
        if self.alive:
            os.killpg(self._keeper.pid, signal.SIGKILL)
        self._keeper.wait()
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        self._sweep()

    def _sweep(self) -> None:
        for path in glob.glob(self.litter):
            os.unlink(path)


def start(
    command: Sequence[str | Path],
    url: str,
    log: Path,
    cwd: Path,
    env: Mapping[str, str],
    *,
    metrics_url: str | None = None,
    litter: str = "",
) -> RealServer:
    """Starts a server in a process group of its own, on the last core; its output goes to `log`. It is not ready yet.

    `cwd` must not be a checkout of this project, whose folders would shadow the server's own packages.
    """
    with log.open("ab") as output:
        keeper = subprocess.Popen(
            [sys.executable, "-I", KEEPER, *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            cwd=cwd,
            env=env,
            start_new_session=True,
        )
    return RealServer(url, log, keeper, metrics_url, litter)

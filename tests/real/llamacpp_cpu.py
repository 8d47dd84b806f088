"""A real llama.cpp server on CPU, built from the sources that llama-cpp-python's package holds, with the tiny Llama.

By hand, until Ctrl-C: `PYTHONPATH=tests .venv/bin/python -m real llamacpp 8000`
"""

from __future__ import annotations

import shutil
from pathlib import Path

from real import vllm_cpu
from real.rig import (
    RealServer,
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

SOURCES = "0.3.36"  # of llama-cpp-python, which has llama.cpp's among its own
MODEL = "tiny"
CONTEXT_TOKENS = 4096  # of one request; the server takes SLOTS at a time
SLOTS = 4

# The server alone, in one file; no web page, and nothing that its build would fetch.
_BUILD = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DGGML_LLAMAFILE=OFF",
    "-DGGML_OPENMP=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_SERVER=ON",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_TOOLS=ON",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
)
_CONVERTER = Path(__file__).with_name("tiny_gguf.py")
# What the converter consists of.
_KEPT = ("convert_hf_to_gguf.py", "conversion", "gguf-py", "LICENSE")


def place() -> Path:
    return home() / f"llamacpp-{SOURCES}"


def model_file() -> Path:
    return place() / f"{vllm_cpu.model_folder().name}.gguf"


def install() -> None:
    """Sets up what is missing: 5 to 10 minutes on 2 cores the first time, nothing after that. Raises RigFailed."""
    vllm_cpu.install()  # makes the model, and has what converts it
    with setting_up() as folder:
        log = folder / "install.log"
        if not place().exists():
            print(f"\nbuilding llama.cpp's server into {place()}: 5 to 10 minutes; log: {log}", flush=True)
            _build(folder / "llamacpp-build", log)
        if not model_file().exists():
            with made_whole(model_file()) as part:
                run_step([vllm_cpu.python(), _CONVERTER, place(), vllm_cpu.model_folder(), part], log)


def _build(work: Path, log: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    tools = _tools(work, log)
    sources = _sources(work, log)
    run_step([*tools, "-S", sources, "-B", work / "out", *_BUILD], log)
    run_step([*tools, "--build", work / "out", "--target", "llama-server", "--parallel", "2"], log)
    with made_whole(place()) as part:
        part.mkdir()
        shutil.copy2(work / "out" / "bin" / "llama-server", part)
        for name in _KEPT:
            (shutil.copytree if (sources / name).is_dir() else shutil.copy2)(sources / name, part / name)
    shutil.rmtree(work)


def _tools(work: Path, log: Path) -> list[str | Path]:
    """How to call CMake; the compiler and make are the system's."""
    if not all(map(shutil.which, ("c++", "make"))):
        system_packages(("g++", "make"), "building llama.cpp", log)
    if found := shutil.which("cmake"):
        return [found]
    run_step([*pip(), "install", "--target", work / "cmake", "cmake"], log)
    return [work / "cmake" / "cmake" / "data" / "bin" / "cmake"]


def _sources(work: Path, log: Path) -> Path:
    """llama.cpp's, unpacked."""
    wanted = ("--no-deps", "--no-binary", "llama-cpp-python", f"llama-cpp-python=={SOURCES}")
    run_step([*pip(), "download", "--dest", work, *wanted], log)
    [archive] = work.glob("llama_cpp_python-*.tar.gz")
    inside = f"{archive.name.removesuffix('.tar.gz')}/vendor/llama.cpp"
    run_step(["tar", "-xzf", archive, "-C", work, inside], log)
    return work / inside


def serve(log: Path, *flags: str, port: int | None = None) -> RealServer:
    """A running server, ready for requests; `flags` are more of `llama-server`. Raises RigFailed."""
    port = port or free_port()
    command: list[str | Path] = [place() / "llama-server", "--model", model_file(), "--alias", MODEL]
    command += ["--host", "127.0.0.1", "--port", str(port), "--metrics", "--no-webui", "--offline"]
    command += ["--parallel", str(SLOTS), "--ctx-size", str(SLOTS * CONTEXT_TOKENS), "--threads", "1", *flags]
    server = start(command, f"http://127.0.0.1:{port}", log, cwd=home(), env=clean_environment("LLAMA_", "GGML_"))
    server.wait_ready("/health")
    return server

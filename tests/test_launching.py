"""A server that `--launch` starts: it is waited for, told apart from its failures, recorded, and never left behind."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from servemark.adapters.sim import SimAdapter
from servemark.dashboards.starting import StartView
from servemark.harness.errors import BadInput, TargetUnusable
from servemark.harness.launch import keeper
from servemark.harness.launch.kept import End, Kept
from servemark.harness.launch.launching import Engine, asked_version, refuse_missing
from servemark.harness.launch.words import HIDDEN, is_secret_name, secrets_in, settled, shown, split
from servemark.harness.types import Launcher
from servemark.results.recover import load
from tests.commands import TOLERANT, Process, Said, alive, bench, check, journal, run_json, started, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

SIM = "llama-3.1-8b --speed 20"
REQUESTS = ("--concurrency", "2", "--input-tokens", "64", "--output-tokens", "8", "--warmup", "0")
QUICK = (*REQUESTS, "--requests", "12", "--quiet", *TOLERANT)
LONG = (*REQUESTS, "--duration", "300s", "--quiet")  # far longer than any test waits
KEY = "k-5ca1ab1e-77"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def launch(*words: str, target: str = "sim", engine: str = SIM) -> Said:
    return bench("run", "--target", target, "--launch", engine, *words)


def sentence(said: Said) -> str:
    """What a user is told, the lines of a log behind it."""
    assert "Traceback" not in said.err
    assert said.err.count("bench: ") == 1, said.err
    return said.err[said.err.index("bench: ") :]


def gone(pids: Sequence[int]) -> bool:
    return not any(alive(pid) for pid in pids)


def tree(process: Process) -> list[int]:
    """Every process below a bench."""
    return keeper.tree_of(process.pid)


def engine_pid(process: Process) -> int:
    """What the keeper of a bench keeps."""
    (found,) = [pid for pid in tree(process) if b"keeper.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    (child,) = Path(f"/proc/{found}/task/{found}/children").read_text().split()
    return int(child)


def stub(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """The target sim, started by a script of the test's: "$@" is what would start it, $W the words behind --launch."""

    class Scripted(SimAdapter):
        @staticmethod
        def _command(words: Sequence[str], host: str, port: int) -> Sequence[str]:
            sim = (sys.executable, "-P", "-m", "servemark.adapters.sim", "--host", host, "--port", str(port))
            return ("sh", "-c", f"W=$1; shift; {script}", "sh", " ".join(words), *sim)

        launcher = Launcher(_command)

    monkeypatch.setattr("servemark.harness.prepare.load_adapter", lambda name: Scripted())


def on_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, script: str) -> None:
    """A program of this name, the only one of it that is found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


# --- a run


def test_a_launched_server_is_measured_recorded_and_ended(tmp_path: Path) -> None:
    said = launch(*QUICK, "--out", "r")
    assert said.code == 0, said.err
    launched = run_json(Path("r"))["target"]["launch"]
    words = shlex.split(launched["command"])
    assert words[words.index("--model") :][:4] == ["--model", "llama-3.1-8b", "--speed", "20"]
    assert run_json(Path("r"))["target"]["url"].endswith(f":{words[-1]}")
    assert launched["version"] == run_json(Path("r"))["target"]["version"]
    assert launched["ready_after_s"] > 0
    assert Path("r", launched["log"]).read_text() == f"listening http://127.0.0.1:{words[-1]}\n"
    assert check(run_json(Path("r")), "engine_died") == "pass"
    assert launched["command"].split()[-1] in bench("show", "r").out
    page = Path("r/report.html").read_text().split("<script", 1)[0]
    assert "launch command" in page
    assert f"--port {words[-1]}" in page


def test_check_launches_too() -> None:
    said = bench("check", "--target", "sim", "--launch", SIM)
    assert said.code == 0
    assert "--speed 20" in said.out
    assert "was ready after" in said.out


def test_the_engine_runs_elsewhere_and_its_paths_stay_the_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout of this project would shadow an engine's packages, were it its working folder."""
    Path("weights").mkdir()
    stub(monkeypatch, 'echo "in $PWD with $W"; exec "$@"')
    said = launch(*QUICK, "--out", "r", engine="./weights --speed 20")
    assert said.code == 0, said.err
    first = Path("r/engine.log").read_text().splitlines()[0]
    assert first.endswith(f" with {tmp_path}/weights --speed 20")
    folder = Path(first.split()[1])
    assert folder != tmp_path
    assert not folder.exists()


def test_secrets_among_the_flags_are_in_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "from-the-environment")
    stub(monkeypatch, 'echo "args $W, key $SOME_API_KEY"; exec "$@"')
    said = launch(*QUICK, "--out", "r", engine=f"tiny --api-key {KEY}")
    assert said.code == 0, said.err
    assert "args tiny --api-key [redacted], key [redacted]" in Path("r/engine.log").read_text()
    for path in Path("r").iterdir():
        assert KEY.encode() not in path.read_bytes(), path
        assert b"from-the-environment" not in path.read_bytes(), path


# --- a start that fails


def test_an_engine_that_ends_at_once_is_told_with_its_log_and_leaves_no_run() -> None:
    said = launch(*QUICK, engine="llama-3.1-8b --no-such-flag")
    assert said.code == 3
    assert sentence(said).startswith("bench: sim ended with exit status 2 before it was ready; the end of its log:\n")
    assert "unrecognized arguments: --no-such-flag" in said.err
    assert not Path("runs").exists()


def test_an_engine_that_does_not_become_ready_is_told_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(monkeypatch, f"echo loading; echo $$ > {tmp_path}/pid; exec sleep 1000")
    said = launch(*QUICK, "--wait", "1s")
    assert said.code == 3
    assert "sim was not ready within 1 s; give it longer with --wait; the end of its log:\n  loading" in sentence(said)
    assert gone([int((tmp_path / "pid").read_text())])
    assert not Path("runs").exists()


def test_a_program_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = launch(*QUICK, target="vllm", engine="some/model")
    assert said.code == 3
    assert sentence(said) == (
        "bench: vllm is not installed, or not on the PATH; install it, or activate its environment\n"
    )


def test_a_module_that_is_not_installed_is_named() -> None:
    with pytest.raises(TargetUnusable, match=r"^no_such_engine is not installed for .*python"):
        refuse_missing((sys.executable, "-m", "no_such_engine.serve", "x"), os.environ)
    refuse_missing((sys.executable, "-P", "-m", "json.tool"), os.environ)
    refuse_missing(("sh", "-m", "model.gguf"), os.environ)  # another program's -m


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--launch", SIM, "--url", "http://127.0.0.1:9"), "--launch starts a server and --url names one that runs"),
        (("--launch", " "), "--launch: is empty"),
        (("--launch", "model 'x"), "cannot be split into words"),
    ],
)
def test_what_makes_no_sense_is_bad_input(words: tuple[str, ...], said: str) -> None:
    found = bench("run", "--target", "sim", *words)
    assert found.code == 2
    assert said in sentence(found)


def test_a_target_that_cannot_be_launched_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoLauncher(SimAdapter):
        launcher = None

    monkeypatch.setattr("servemark.harness.prepare.load_adapter", lambda name: NoLauncher())
    found = launch()
    assert found.code == 2
    assert "target sim cannot be started by --launch; start it and give its --url" in sentence(found)


# --- ends


def test_an_engine_that_dies_ends_the_run_at_once_and_keeps_its_records(tmp_path: Path) -> None:
    with started("run", "--target", "sim", "--launch", SIM, "--out", "r", *LONG) as process:
        wait_until(lambda: len(journal(Path("r"))) >= 4, "requests have ended")
        os.kill(engine_pid(process), signal.SIGKILL)
        said = process.end()
    assert said.code == 4
    assert "Traceback" not in said.err
    run = run_json(Path("r"))
    assert run["worker"]["stop_reason"] == "server_lost"
    (died,) = [each for each in run["verdict"]["checks"] if each["code"] == "engine_died"]
    assert died["severity"] == "invalid"
    assert died["message"].startswith("The engine was ended by signal 9 (SIGKILL); the end of its log: listening http")
    assert run["summary"]["requests_ok"] >= 4
    assert len(list(load(Path("r")).records())) == run["summary"]["requests"]
    assert "engine_died" in bench("show", "r").out


def test_kill_9_of_bench_leaves_no_process(tmp_path: Path) -> None:
    with started("run", "--target", "sim", "--launch", SIM, "--out", "r", *LONG) as process:
        wait_until(lambda: len(journal(Path("r"))) >= 4, "requests have ended")
        processes = tree(process)
        process.signal(signal.SIGKILL)
        process.end()
    assert len(processes) == 3  # the worker, the keeper, the engine
    wait_until(lambda: gone(processes), "all of them have ended")
    assert Path("r/engine.log").read_text().startswith("listening")


def test_an_interrupt_while_the_engine_loads_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_path(monkeypatch, tmp_path, "vllm", "echo loading; sleep 1000 & wait")
    with started("run", "--target", "vllm", "--launch", "some/model") as process:
        wait_until(lambda: len(tree(process)) == 3, "the engine has started its own process")
        processes = tree(process)
        process.signal(signal.SIGINT)
        said = process.end()
    assert said.code == 2
    assert sentence(said) == "bench: interrupted; nothing was measured\n"
    assert gone(processes)
    assert not Path("runs").exists()


TREE = textwrap.dedent("""\
    import os, signal, subprocess, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # One child that ignores TERM in a session of its own, and one whose parent is gone.
    stubborn = ["sh", "-c", "trap '' TERM HUP; while :; do sleep 1; done"]
    one = subprocess.Popen(stubborn, start_new_session=True)
    two = subprocess.run(["sh", "-c", "setsid sleep 1000 & exit"])
    print("ready", one.pid, flush=True)
    time.sleep(1000)
    """)


CHATTER = """
import os, sys
for _ in range(4):
    if not os.fork():
        break
print("ready", flush=True)
while True:
    os.write(1, b"more and more\\n" * 4000)
"""


def test_a_tree_that_never_stops_writing_is_heard_and_ended() -> None:
    process = Kept([sys.executable, "-c", CHATTER], os.environ)
    try:
        wait_until(lambda: process.tail(1) == ["more and more"], "it has written much")
        processes = keeper.tree_of(process._keeper.pid)
        process.hurry()
    finally:
        process.stop()
    assert gone(processes)


def test_a_zero_byte_is_told_as_a_mistake() -> None:
    with pytest.raises(BadInput, match="--launch: holds a zero byte"):
        split("model \0")


def test_a_tree_that_does_not_want_to_end_ends_whole() -> None:
    process = Kept([sys.executable, "-c", TREE], os.environ)
    try:
        wait_until(lambda: process.tail(1) and process.tail(1)[0].startswith("ready"), "the tree stands")
        processes = keeper.tree_of(process._keeper.pid)
        assert len(processes) >= 4
        process.hurry()
    finally:
        process.stop()
    assert gone(processes)
    assert process.end == End(-9)


def test_it_ends_with_the_process_that_started_it_even_if_that_is_killed(tmp_path: Path) -> None:
    holder = (
        "import os, sys, time; from servemark.harness.launch.kept import Kept;"
        f"k = Kept([sys.executable, '-c', {TREE!r}],"
        " os.environ, patience_s=0.5);\n"
        "while not k.tail(1): time.sleep(0.02)\n"
        "print('there', flush=True); time.sleep(1000)"
    )
    process = subprocess.Popen([sys.executable, "-P", "-c", holder], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "there\n"
        processes = keeper.tree_of(process.pid)
        assert len(processes) >= 5  # the keeper too
        process.kill()
    wait_until(lambda: gone(processes), "the whole tree has ended")


def test_a_program_is_asked_to_end_before_it_is_made_to(tmp_path: Path) -> None:
    script = f"trap 'echo bye > {tmp_path}/bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    process = Kept(["sh", "-c", script], os.environ)
    wait_until(lambda: process.tail() == ["up"], "it listens")
    process.stop()
    assert process.end == End(0)
    assert (tmp_path / "bye").exists()


def test_a_killed_keeper_takes_the_program_along() -> None:
    process = Kept(["sleep", "1000"], os.environ)
    assert process.pid is not None
    os.kill(process._keeper.pid, signal.SIGKILL)
    assert process.wait(60) == End(None)
    wait_until(lambda: gone([process.pid or 0]), "the program has ended")
    process.stop()
    assert not process._folder.exists()


def test_ends_are_told_as_people_say_them() -> None:
    assert [str(End(code)) for code in (0, 3, -9, -11, None)] == [
        "ended with exit status 0",
        "ended with exit status 3",
        "was ended by signal 9 (SIGKILL)",
        "was ended by signal 11 (SIGSEGV)",
        "ended",
    ]


def test_a_program_that_is_no_program_is_an_error() -> None:
    with pytest.raises(OSError, match="No such file"):
        Kept(["/no/such/program"], os.environ)


def test_an_engine_that_ended_before_the_load_is_why_it_cannot_be_asked() -> None:
    process = Kept(["sh", "-c", "echo out of memory; exit 1"], os.environ)
    engine = Engine("vllm", process, "http://127.0.0.1:9", "vllm serve", None, 1.0, {}, ())
    try:
        assert process.wait(60) == End(1)
        said = "vllm ended with exit status 1 before the load; the end of its log:\n  out of memory"
        with pytest.raises(TargetUnusable) as caught, engine.explaining():
            raise TargetUnusable("it refuses connections")
        assert str(caught.value) == said
        assert engine.last_words() == "ended with exit status 1; the end of its log: out of memory"
    finally:
        process.stop()


@pytest.mark.parametrize(
    ("script", "version"),
    [
        ("echo some warning; echo 0.32.0+cpu", "0.32.0+cpu"),
        ("echo 'version: 4567 (ab12)' >&2", "version: 4567 (ab12)"),
        ("echo 1.2; exit 1", None),
        ("echo none", None),
    ],
)
def test_the_version_command_is_read(script: str, version: str | None) -> None:
    launcher = Launcher(lambda words, host, port: (), version=("sh", "-c", script))
    assert asked_version(launcher, os.environ, ()) == version


# --- words


def test_words_are_split_as_a_shell_does_and_nothing_is_run() -> None:
    assert split("""m/x --a '{"k": 1}' "$(touch x)" ; ls""") == ("m/x", "--a", '{"k": 1}', "$(touch x)", ";", "ls")
    with pytest.raises(BadInput, match="cannot be split"):
        split('"open')


def test_paths_are_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "models/llama").mkdir(parents=True)
    (tmp_path / "template.jinja").touch()
    (tmp_path / "tiny").mkdir()
    given = ("models/llama", "org/other", "--chat-template", "template.jinja", "--served-model-name", "tiny")
    here = str(tmp_path)
    assert settled(given, tmp_path) == (
        f"{here}/models/llama", "org/other", "--chat-template", f"{here}/template.jinja", "--served-model-name", "tiny"
    )  # fmt: skip
    assert settled(("~/m", "./new", "../up", "--x=./y", "--x=8", "/abs", "x" * 5000), tmp_path) == (
        "/home/me/m", f"{here}/new", str(tmp_path.parent / "up"), f"--x={here}/y", "--x=8", "/abs", "x" * 5000
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "secrets"),
    [
        (("--api-key", KEY), (KEY,)),
        (("--api-key", "first-key", "second-key", "--port", "8000"), ("first-key", "second-key")),
        ((f"--hf-token={KEY}",), (KEY,)),
        (("-hft", KEY), (KEY,)),
        (("--ssl-keyfile-password", KEY), (KEY,)),
        (("--store", f"redis://user:{KEY}@host/0"), (f"user:{KEY}",)),
        (("--worker-env", f"HF_TOKEN={KEY}", "TOKENIZERS_PARALLELISM=false"), (KEY,)),
        (("--max-num-batched-tokens", "8192", "--tokenizer", "some/tokenizer", "--api-key-file", "keys.txt"), ()),
    ],
)
def test_secrets_are_known_by_their_flags(words: tuple[str, ...], secrets: tuple[str, ...]) -> None:
    assert secrets_in(words) == secrets
    assert not any(secret in shown(words) for secret in secrets)
    assert (HIDDEN in shown(words)) == bool(secrets)


def test_names_of_secrets() -> None:
    assert all(map(is_secret_name, ("HF_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "Authorization")))
    assert not any(map(is_secret_name, ("TOKENIZERS_PARALLELISM", "CUDA_VISIBLE_DEVICES", "--max-tokens", "KEYBOARD")))


# --- the log


def test_a_log_holds_whole_lines_without_secrets_wherever_it_is_cut(tmp_path: Path) -> None:
    with closing(keeper.Log(str(tmp_path / "a"), ["secret-one", "secret-one-longer"])) as log:
        for piece in (b"start secr", b"et-one-longer\nload 10%\r", b"load 20%\rkey=secret-", b"one", b" end"):
            log.write(piece)
        assert (tmp_path / "a").read_bytes() == b"start [redacted]\nload 10%\rload 20%\r"
    assert (tmp_path / "a").read_bytes().endswith(b"key=[redacted] end")


def test_each_later_log_begins_with_the_start(tmp_path: Path) -> None:
    with closing(keeper.Log(str(tmp_path / "a"), [])) as log:
        log.write(b"loading\n")
        log.move(str(tmp_path / "b"))
        log.write(b"one\n")
        log.move(str(tmp_path / "c"))
        log.write(b"two\n")
        log.move(str(tmp_path / "no/such/folder"))
        log.write(b"three\n")
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"a": "loading\n", "b": "loading\none\n", "c": "loading\ntwo\nthree\n"}


def test_a_log_that_grows_too_long_keeps_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "LARGEST_LOG", 1000)
    monkeypatch.setattr(keeper, "KEPT_OF_LOG", 100)
    with closing(keeper.Log(str(tmp_path / "a"), [])) as log:
        for number in range(500):
            log.write(b"line %03d\n" % number)
    lines = (tmp_path / "a").read_text().splitlines()
    assert lines[0].startswith("[the beginning was left out")
    assert lines[-1] == "line 499"
    assert (tmp_path / "a").stat().st_size < 1200


def test_what_is_shown_of_a_log_is_safe_for_a_terminal(tmp_path: Path) -> None:
    process = Kept(["printf", r"\033[31mred\033[0m\n\n  \007bell\n%s", "x" * 500], os.environ)
    try:
        assert process.wait(60) == End(0)
        first, second, third = process.tail()
        assert (first, second) == ("red", "   bell")
        assert len(third) == 200
    finally:
        process.stop()


# --- what people see


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_start_is_told_now_and_then_or_moves_on_a_terminal() -> None:
    log, terminal = io.StringIO(), Terminal()
    for stream in (log, terminal):
        view = StartView("vllm", stream=stream)
        for second in range(31):
            view(float(second), f"line {second}")
        view.done()
    assert log.getvalue() == "".join(f"starting vllm  0:{s:02}  line {s}\n" for s in (0, 15, 30))
    assert terminal.getvalue().count("\r") == 32
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_a_quiet_start_says_nothing() -> None:
    stream = io.StringIO()
    view = StartView("vllm", quiet=True, stream=stream)
    view(1.0, "line")
    view.done()
    assert stream.getvalue() == ""


def test_the_keeper_imports_nothing_of_ours() -> None:
    """It runs without the package, and starts in the time that a bare interpreter takes."""
    code = (
        f"import runpy, sys; runpy.run_path({keeper.__file__!r}); print([m for m in sys.modules if 'servemark' in m])"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []

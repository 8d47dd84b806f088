"""The command as users type it: what it answers, its exit codes, and what it never writes down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from servemark.adapters.base import prometheus
from servemark.adapters.sim import SimAdapter
from servemark.adapters.sim.launch import LocalServer, launch
from servemark.adapters.sim.options import SimOptions
from servemark.harness.verdict.validity import CHECKS
from servemark.results.recover import load
from tests.answering import Asked, answering
from tests.commands import BENCH, TOLERANT, Said, bench, check, run_json, told

ALWAYS_QUICK = ("--concurrency", "2", "--input-tokens", "64", "--output-tokens", "8", "--warmup", "0")
QUICK = (*ALWAYS_QUICK, "--requests", "12", *TOLERANT)
KEY = "sk-7f3e9a51c0ffee"
TENANT = "tenant-4711-secret"


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with launch(SimOptions(speed=20, max_model_len=4096)) as one:
        yield one


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def run(server: LocalServer, *words: str) -> Said:
    return bench("run", "--target", "sim", "--url", server.url, *words)


def served(server: LocalServer) -> float:
    """How many requests for tokens the server has had."""
    return told(server.url, "prompt_tokens")


# --- a run and what it leaves


def test_a_run_prints_clean_json_and_leaves_a_whole_folder(server: LocalServer) -> None:
    said = run(server, *QUICK, "--out", "r", "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out) == run_json(Path("r"))
    assert sorted(path.name for path in Path("r").iterdir()) == [
        "report.html",
        "requests.parquet",
        "run.json",
        "server.parquet",
    ]
    assert len(list(load(Path("r")).records())) == 12


def test_a_simulated_run_says_so_everywhere(server: LocalServer) -> None:
    said = run(server, *QUICK, "--out", "r")
    assert "SIMULATED" in said.out
    assert "SIMULATED" in bench("show", "r").out
    assert run_json(Path("r"))["simulated"] is True
    assert run_json(Path("r"))["target"]["simulated"] is True
    page = Path("r/report.html").read_text().split("<script", 1)[0]
    assert "simulated" in page.lower()


def test_a_quiet_run_is_one_line(server: LocalServer) -> None:
    said = run(server, *QUICK, "--quiet")
    [folder] = Path("runs").iterdir()
    assert said == Said(0, f"VALID  {folder}\n", "")


def test_a_missed_gate_is_1_and_without_gate_it_informs(server: LocalServer) -> None:
    missed = ("--slo", "ttft=1us", "--quiet")
    assert run(server, *QUICK, *missed, "--gate", "--out", "a").code == 1
    assert run(server, *QUICK, *missed, "--out", "b").code == 0
    assert run_json(Path("a"))["slo"]["met"] is False
    assert run_json(Path("b"))["slo"]["met"] is False


def test_an_invalid_run_is_4_even_where_a_gate_is_missed_too(server: LocalServer) -> None:
    too_few_for_p99 = ("--slo", "ttft:p99=1us", "--gate", "--quiet", "--out", "r")
    said = run(server, *QUICK, *too_few_for_p99)
    assert said.code == 4
    assert said.out == "INVALID  r  sample_size, SLO missed\n"
    assert check(run_json(Path("r")), "sample_size") == "invalid"


def test_a_waived_check_is_recorded(server: LocalServer) -> None:
    said = run(server, *QUICK, "--slo", "ttft:p99=1us", "--allow", "sample_size", "--quiet", "--out", "r")
    assert said.code == 0
    waived = {each["code"] for each in run_json(Path("r"))["verdict"]["checks"] if each["waived"]}
    assert waived == {"sample_size", *TOLERANT[1::2]}


def test_the_built_in_target_needs_no_address() -> None:
    said = bench("run", "--target", "sim", *ALWAYS_QUICK, *TOLERANT, "--requests", "4", "--quiet", "--out", "r")
    assert said.code == 0, said.err
    assert run_json(Path("r"))["target"]["url"].startswith("http://127.0.0.1:")


def test_vllms_flags_mean_what_they_mean_there(server: LocalServer) -> None:
    words = "--request-rate 100 --max-concurrency 2 --num-prompts 10 --goodput ttft:2000 tpot:500 --num-warmups 3"
    said = run(server, *words.split(), *ALWAYS_QUICK[2:6], *TOLERANT, "--quiet", "--out", "r")
    assert said.code in (0, 4), said.err  # an open loop's rate is more than a busy machine can promise
    found = run_json(Path("r"))
    resolved = found["workload"]["resolved"]
    assert resolved["load"]["max_concurrency"] == 2
    assert resolved["load"]["arrivals"] == "poisson"
    assert found["slo"]["limits"] == ["ttft=2000ms", "tpot=500ms"]
    phases = [record.phase for record in load(Path("r")).records()]
    assert (phases.count("warmup"), phases.count("measured")) == (3, 10)
    assert most_in_flight(Path("r")) <= 2


def most_in_flight(folder: Path) -> int:
    steps = [(record.sent_ns or 0, 1) for record in load(folder).records()]
    steps += [(record.done_ns or 0, -1) for record in load(folder).records()]
    level = most = 0
    for _, step in sorted(steps):
        level += step
        most = max(most, level)
    return most


def test_flags_go_over_a_workload_file_found_beside_the_caller(
    server: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("mine.yaml").write_text(
        "version: 1\nprompts: {source: synthetic, input_tokens: 50, output_tokens: 5}\n"
        "load: {concurrency: 1}\nrun: {requests: 5, warmup: 0}\n"
    )
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    said = run(server, "--workload", "../mine.yaml", "--output-tokens", "7", "--seed", "5", *TOLERANT, "--quiet")
    assert said.code == 0, said.err
    [folder] = Path("runs").iterdir()
    found = run_json(folder)
    assert found["workload"]["text"] == Path("../mine.yaml").read_text()
    assert found["workload"]["overrides"] == {"output_tokens": "7", "seed": "5"}
    assert {record.output_tokens for record in load(folder).records()} == {7}
    assert {record.prompt_tokens for record in load(folder).records()} == {50}


def test_files_of_the_folder_it_is_called_from_are_not_run(server: LocalServer) -> None:
    for name in ("asyncio", "uvloop", "servemark", "harness", "numpy"):
        Path(f"{name}.py").write_text("raise SystemExit('a stranger ran')")
    said = bench("run", "--target", "sim", *ALWAYS_QUICK, *TOLERANT, "--requests", "2", "--quiet", "--out", "r")
    assert said == Said(0, "VALID  r\n", "")


def test_same_seeds_give_the_same_requests(server: LocalServer) -> None:
    for name, seed in (("a", "7"), ("b", "7"), ("c", "8")):
        said = run(server, *QUICK, "--seed", seed, "--quiet", "--out", name)
        assert said.code == (4 if name == "b" else 0)  # asked again, its prompts are in the prefix cache
    hashes = {name: run_json(Path(name))["schedule"]["hash"] for name in "abc"}
    assert hashes["a"] == hashes["b"] != hashes["c"]
    assert run_json(Path("a"))["schedule"]["requests"] == 12
    assert check(run_json(Path("b")), "prefix_cache") == "invalid"


# --- bad input: a sentence, 2, and nothing written


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--target", "nope"], "there is no target 'nope'; there are: "),
        (["--workload", "nope"], "there is no workload 'nope'"),
        (["--workload", "."], "there is no workload '.'"),
        (["--rate", "0"], "--rate"),
        (["--rate", "nan"], "--rate"),
        (["--rate", "-1"], "--rate"),
        (["--concurrency", "0"], "--concurrency: must be at least 1"),
        (["--concurrency", "99999999"], "files must be open at once"),
        (["--requests", "0"], "--requests: must be at least 1"),
        (["--duration", "5"], "--duration: 5 has no unit"),
        (["--duration", "0s"], "--duration"),
        (["--warmup", "soon"], "--warmup"),
        (["--seed", "x"], "--seed"),
        (["--scrape", "0s"], "--scrape: 0s is too often; give 100ms or more"),
        (["--scrape", "often"], "--scrape: 'often' is no duration"),
        (["--wait", "nan"], "--wait: 'nan' is no duration"),
        (["--extra-body", "[1]"], "--extra-body: needs a JSON object"),
        (["--extra-body", "{"], "--extra-body: needs a JSON object"),
        (["--extra-body", '{"a": NaN}'], "--extra-body: needs a JSON object"),
        (["--extra-body", "[" * 50_000], "--extra-body: needs a JSON object"),
        (["--header", "X"], "--header is neither"),
        (["--header", "Content-Length: 3"], "the header Content-Length is set by the client itself"),
        (["--api-key-env", "NO_SUCH_VARIABLE"], "NO_SUCH_VARIABLE (--api-key-env) is not set or is empty"),
        (["--slo", "speed=3"], "--slo: 'speed' in 'speed=3' is no metric"),
        (["--slo", "ttft=200ms", "--goodput", "ttft:200"], "--goodput and --slo say the same thing"),
        (["--goodput", "ttft"], "--goodput"),
        (["tpot:50"], "'tpot:50' is no flag"),
        (["--workload", "batch", "--gate"], "--gate needs a limit to hold"),
        (["--allow", "nothing"], "--allow nothing: there is no such check"),
        (["--tokenizer", "missing.json"], "missing.json: this is no tokenizer.json"),
        (["--data", "missing.csv"], "--data: the source synthetic reads no data file; leave it out"),
        (["--url", "127.0.0.1:8000"], "--url"),
        (["--url", "http://user:word@127.0.0.1:8000"], "--url holds credentials"),
        (["--no-such-flag"], "No such option"),
        (["--target"], "requires an argument"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_bad_input_is_a_sentence_and_2_and_leaves_nothing(server: LocalServer, words: list[str], part: str) -> None:
    before = served(server)
    said = bench("run", "--target", "sim", "--url", server.url, *words)
    assert said.code == 2
    assert said.out == ""
    assert said.err.startswith("bench: ")
    assert part in said.err
    assert len(said.err) < 500
    assert list(Path().iterdir()) == []
    assert served(server) == before


def test_a_missing_target_names_the_flag() -> None:
    said = bench("run")
    assert said.code == 2
    assert "'--target'" in said.err


def test_an_error_in_a_workload_names_its_file_and_line(server: LocalServer) -> None:
    Path("w.yaml").write_text("version: 1\nprompts:\n  source: synthetic\n  input_tokens: many\nload: {rate: 1}\n")
    said = run(server, "--workload", "w.yaml")
    assert said.code == 2
    assert "w.yaml:4" in said.err
    assert "many" in said.err


def test_a_slo_in_a_file_that_is_no_limit_names_the_file(server: LocalServer) -> None:
    Path("w.yaml").write_text(
        "version: 1\nprompts: {source: synthetic, input_tokens: 9, output_tokens: 9}\n"
        "load: {rate: 1}\nrun: {duration: 5s}\nslo: {limits: speed=3}\n"
    )
    said = run(server, "--workload", "w.yaml")
    assert said.code == 2
    assert "w.yaml" in said.err
    assert "speed" in said.err


def test_no_run_is_overwritten_and_the_server_is_not_even_asked() -> None:
    Path("r").mkdir()
    Path("r/notes.txt").write_text("mine")
    said = bench("run", "--target", "vllm", "--url", "http://127.0.0.1:9", "--out", "r")
    assert said.code == 2
    assert "is not empty (notes.txt is in it)" in said.err
    assert Path("r/notes.txt").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_a_sentence(server: LocalServer) -> None:
    Path("file").write_text("")
    said = run(server, *QUICK, "--out", "file/r")
    assert said.code == 2
    assert "cannot be made into a folder" in said.err


def test_a_proxy_is_refused_and_not_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:3128")
    said = bench("run", "--target", "vllm", "--url", "http://192.0.2.1:8000")
    assert said.code == 2
    assert "HTTP_PROXY in the environment puts a proxy before 192.0.2.1" in said.err
    assert "NO_PROXY" in said.err


# --- unusable targets: a sentence, 3, no load


def test_a_server_of_another_kind_is_3(server: LocalServer) -> None:
    said = bench("run", "--target", "vllm", "--url", server.url, "--out", "r")
    assert said.code == 3
    assert "is a server of the kind sim" in said.err
    assert "give --target sim" in said.err
    assert not Path("r").exists()


def test_a_server_that_is_not_there_is_3() -> None:
    said = bench("run", "--target", "vllm", "--url", "http://127.0.0.1:9")
    assert said.code == 3
    assert "http://127.0.0.1:9 refuses connections" in said.err


def test_a_model_that_is_not_served_is_3(server: LocalServer) -> None:
    said = run(server, "--model", "gpt-9")
    assert said.code == 3
    assert "--model 'gpt-9' is not served here; there are: llama-3.1-8b" in said.err


def test_a_prompt_longer_than_the_context_is_3_before_any_load(server: LocalServer) -> None:
    before = served(server)
    said = run(server, *QUICK, "--input-tokens", "5000")
    assert said.code == 3
    assert "the longest request takes 5008 tokens" in said.err
    assert "a context of 4096" in said.err
    assert served(server) == before
    assert list(Path().iterdir()) == []


# --- secrets


class Gossip:
    """A server that repeats the credentials it is given wherever it can: in its version and in its error texts."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self._lock = threading.Lock()

    def __call__(self, asked: Asked) -> tuple[int, bytes]:
        with self._lock:
            self.asked.append(asked)
            count = len(self.asked)
        said = f"{asked.headers.get('Authorization')} of {asked.headers.get('X-Tenant')}"
        if asked.path == "/v1/models":
            card = {"id": "tiny", "object": "model", "owned_by": "vllm", "max_model_len": 4096}
            return 200, json.dumps({"object": "list", "data": [card]}).encode()
        if asked.path == "/version":
            return 200, json.dumps({"version": f"0.1 {said}"}).encode()
        if asked.path == "/health":
            return 200, b""
        if not asked.path.startswith("/v1/"):
            return 404, said.encode()
        if count % 2:
            return 401, json.dumps({"error": {"message": f"no access for {said}"}}).encode()
        error = json.dumps({"error": {"message": f"engine died for {said}"}})
        return 200, f"data: {error}\n\ndata: [DONE]\n\n".encode()


def test_secrets_reach_the_server_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_TEST_KEY", KEY)
    gossip = Gossip()
    secrets = ("--api-key-env", "BENCH_TEST_KEY", "--header", f"X-Tenant: {TENANT}")
    with answering(gossip) as url:
        words = ("--target", "vllm", "--url", url, *secrets, *ALWAYS_QUICK)
        checked = bench("check", *words)
        ran = bench("run", *words, "--requests", "6", "--out", "r")
    assert ran.code == 4, ran.err
    for asked in gossip.asked:
        assert asked.headers["Authorization"] == f"Bearer {KEY}"
        assert asked.headers["X-Tenant"] == TENANT
    assert sum(asked.path == "/v1/chat/completions" for asked in gossip.asked) >= 6
    written = {path.name: path.read_bytes() for path in Path("r").iterdir()}
    written["rows"] = repr(load(Path("r")).table().to_pylist()).encode()
    printed = "".join(said.out + said.err for said in (ran, bench("show", "r"), bench("show", "r", "--json")))
    assert b"engine died for" in written["rows"]
    for name, content in {**written, "printed": printed.encode(), "checked": repr(checked).encode()}.items():
        for secret in (KEY, TENANT):
            assert secret.encode() not in content, name


def test_a_refusal_that_quotes_the_key_is_told_without_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BENCH_TEST_KEY", KEY)
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text(TOKENIZER)
    words = ("--api-key-env", "BENCH_TEST_KEY", "--header", f"X-Tenant: {TENANT}", "--tokenizer", str(tokenizer))
    gossip = Gossip()
    with answering(lambda asked: (403, f"not you, {KEY}".encode()) if asked.method == "POST" else gossip(asked)) as url:
        said = bench("run", "--target", "vllm", "--url", url, *words)
    assert said.code == 3
    assert "not you, [redacted]" in said.err
    assert KEY not in said.err


TOKENIZER = json.dumps(
    {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "[UNK]": 2}, "unk_token": "[UNK]"},
    }
)


# --- the other commands


def test_list_names_every_target_workload_metric_and_check() -> None:
    said = bench("list")
    assert said.code == 0
    words = said.out.split()
    for name in ("sim", "vllm", "chat", "rag", "code", "summarize", "batch", "ttft", "itl", "goodput", *CHECKS):
        assert name in words


def test_show_and_report_by_folder_by_id_and_by_file(server: LocalServer) -> None:
    run(server, *QUICK, "--quiet")
    [folder] = Path("runs").iterdir()
    shown = bench("show", str(folder))
    assert shown.code == 0
    assert "VALID" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 100
    assert bench("show", folder.name) == shown
    assert bench("show", str(folder / "run.json")) == shown
    assert json.loads(bench("show", "--json", folder.name).out) == run_json(folder)
    assert bench("report", folder.name, "--out", "page.html") == Said(0, "page.html\n", "")
    assert Path("page.html").read_text() == (folder / "report.html").read_text()


def test_without_a_name_the_newest_run_is_shown(server: LocalServer) -> None:
    for name in ("old", "new"):
        run(server, *QUICK, "--quiet", "--out", f"runs/{name}")
    assert bench("show") == bench("show", "runs/new")
    os.utime("runs/new/run.json", (1, 1))
    assert bench("show") == bench("show", "runs/old")


@pytest.mark.parametrize("command", ["show", "report"])
def test_without_a_run_there_is_nothing_to_show(command: str) -> None:
    said = bench(command)
    assert said.code == 2
    assert said.err.startswith("bench: there is no run in")


@pytest.mark.parametrize("command", ["show", "report"])
def test_what_is_no_run_is_a_sentence(command: str) -> None:
    Path("empty").mkdir()
    for name, part in (("nowhere", "there is no such run"), ("empty", "holds no run")):
        said = bench(command, name)
        assert said.code == 2
        assert said.err.startswith(f"bench: {name}: {part}")


def test_a_page_that_cannot_be_written_is_a_sentence(server: LocalServer) -> None:
    run(server, *QUICK, "--quiet", "--out", "r")
    said = bench("report", "r", "--out", "missing/page.html")
    assert said.code == 2
    assert "missing/page.html: the page could not be written" in said.err


def test_schema_is_json_schema() -> None:
    said = bench("schema")
    assert said.code == 0
    found = json.loads(said.out)
    assert found["$schema"].endswith("2020-12/schema")
    assert {"prompts", "load", "request", "run", "slo"} <= set(found["properties"])


def test_check_says_what_a_run_would_meet_and_sends_no_load(server: LocalServer) -> None:
    before = served(server)
    said = bench("check", "--target", "sim", "--url", server.url)
    assert said.code == 0
    subjects = [line.split()[1] for line in said.out.splitlines()]
    about_the_server = ["workload", "server", "model", "metrics", "arithmetic", "hardware", "gpu"]
    about_the_run = [*about_the_server, "prompts", "longest"]
    assert subjects == ["cores", "files", "clock", "stamps", *about_the_run]
    assert "SIMULATED" in said.out
    assert f"{server.url}/metrics" in said.out
    assert served(server) == before


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (["--target", "vllm", "--url", "http://127.0.0.1:9"], 3, "refuses connections"),
        (["--target", "nope"], 2, "there is no target"),
        (["--target", "sim", "--rate", "0"], 2, "--rate"),
    ],
)
def test_check_ends_with_what_rules_a_run_out(words: list[str], code: int, part: str) -> None:
    said = bench("check", *words)
    assert said.code == code
    last = said.out.splitlines()[-1]
    assert last.startswith("no ")
    assert part in last


def test_check_fails_where_a_run_would_for_want_of_files() -> None:
    said = bench("check", "--target", "sim", "--concurrency", "99999999")
    assert said.code == 2
    assert "files must be open at once" in said.out


# --- the server's own metrics


def test_the_servers_metrics_stand_beside_the_clients_stamps(server: LocalServer) -> None:
    """A client sees a first token no sooner than the server counts it, and both count the same tokens."""
    assert run(server, *QUICK, "--quiet", "--scrape", "100ms", "--out", "r").code == 0
    found = run_json(Path("r"))["server"]
    assert found["period_s"] == 0.1
    (source,) = found["sources"]
    assert (source["metrics"], source["failures"]) == (f"{server.url}/metrics", 0)
    assert source["samples"] == len(load(Path("r")).server_samples()) >= 3
    for name in ("ttft", "e2e"):
        both = found["both_sides"][name]
        assert both["client_n"] == both["server_n"] == 12
        assert both["outside_ms"] == pytest.approx(both["client_ms"] - both["server_ms"])
        assert both["outside_ms"] > 0
    assert found["both_sides"]["itl"]["server_n"] == 12 * 7
    assert set(found["stages"]) == {"queue_time", "prefill_time", "decode_time"}


def test_metrics_from_another_place(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """They stand elsewhere, and the key of the server does not go there."""
    monkeypatch.setenv("SECRET_KEY", KEY)
    seen: list[str | None] = []

    def told(asked: Asked) -> tuple[int, bytes]:
        seen.append(asked.headers.get("Authorization"))
        return 200, b"vllm:num_requests_running 41\n"

    there = server.url.replace("127.0.0.1", "localhost")
    with answering(told) as metrics:
        words = ("--api-key-env", "SECRET_KEY", "--metrics-url", f"{metrics}/m", "--url", there)
        assert bench("check", "--target", "sim", *words).code == 0
        assert bench("run", "--target", "sim", *words, *QUICK, "--quiet", "--out", "r").code == 0
    found = run_json(Path("r"))["server"]
    assert found["max"] == {"running": 41}
    assert [source["metrics"] for source in found["sources"]] == [f"{metrics}/m"]
    assert set(seen) == {None}
    assert not any(KEY.encode() in path.read_bytes() for path in Path("r").iterdir())


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_named_place_without_metrics_is_3_and_no_load_is_sent(server: LocalServer, command: str) -> None:
    before = served(server)
    said = bench(command, "--target", "sim", "--url", server.url, "--metrics-url", f"{server.url}/health")
    assert said.code == 3
    assert f"--metrics-url {server.url}/health tells no metric that is known" in said.out + said.err
    assert served(server) == before
    assert not Path("runs").exists()


def test_a_server_that_tells_no_metrics_can_be_measured_and_the_run_says_so(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SimAdapter, "metrics", (prometheus("/nothing", {}),))
    said = run(server, *QUICK, "--out", "r")
    assert said.code == 0
    assert f"none told at {server.url}/nothing" in said.out
    assert f"none told at {server.url}/nothing" in Path("r/report.html").read_text()
    found = run_json(Path("r"))["server"]
    assert (found["sources"], found["absent"]) == ([], [f"{server.url}/nothing"])
    assert not Path("r/server.parquet").exists()
    checked = bench("check", "--target", "sim", "--url", server.url)
    assert checked.code == 0
    assert f"the server tells none of its own at {server.url}/nothing; name the place" in checked.out


@pytest.mark.parametrize("words", [[], ["sim"]])
def test_without_a_command_there_is_help(words: list[str]) -> None:
    said = bench(*words)
    assert said.code == 2
    assert "Usage: bench" in said.out + said.err


def test_output_is_told_in_the_characters_that_the_terminal_has(server: LocalServer) -> None:
    run(server, *QUICK, "--quiet", "--out", "r")
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    said = subprocess.run([*BENCH, "show", "r"], capture_output=True, env=ascii_only, timeout=60)
    assert said.returncode == 0
    assert said.stderr == b""
    assert said.stdout.decode("ascii").count("\n") > 20


def test_a_workload_whose_name_is_no_text_can_be_run(server: LocalServer) -> None:
    name = os.fsdecode(b"w\xff.yaml")
    try:
        Path(name).write_text(
            "version: 1\nprompts: {source: synthetic, input_tokens: 20, output_tokens: 2}\n"
            "load: {concurrency: 1}\nrun: {requests: 2, warmup: 0}\n"
        )
    except OSError:
        pytest.skip("this file system takes no such name")
    assert run(server, "--workload", name, *TOLERANT, "--quiet", "--out", "r").code == 0
    assert "\\udcff" in run_json(Path("r"))["workload"]["path"]


# --- quick to start

HEAVY = {"numpy", "scipy", "pandas", "pyarrow", "plotly", "pydantic", "tokenizers", "httpx", "rich", "jinja2", "yaml"}


@pytest.mark.parametrize(
    ("module", "banned"),
    [
        ("servemark.harness.cli", HEAVY),
        ("servemark.harness.load.worker", HEAVY | {"click", "importlib.metadata"}),
    ],
)
def test_imports_that_take_long_are_left_until_they_are_needed(module: str, banned: set[str]) -> None:
    script = f"import sys, {module}; print(' '.join(sys.modules))"
    found = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    assert not banned & set(found.stdout.split())

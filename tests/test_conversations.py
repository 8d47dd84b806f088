"""Conversations from the workload to the files: real answers in the history, every turn a record, whatever happens."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from servemark.adapters.sim.dialects import names
from servemark.adapters.sim.launch import LocalServer, launch
from servemark.adapters.sim.options import SimOptions
from servemark.adapters.vllm import ADAPTER
from servemark.harness.load.fleet import Fleet
from servemark.harness.load.messages import Address, Plan, Timeouts
from servemark.harness.plan.encoding import Jobs
from servemark.harness.plan.schedule import Schedule, resolve_seeds
from servemark.harness.plan.sources import Given
from servemark.harness.plan.spec import parse_workload
from servemark.harness.plan.tokens import estimate
from servemark.harness.server.control import Control
from servemark.harness.server.discovery import load_adapter
from servemark.harness.server.target import Target
from servemark.harness.types import Endpoint, Message, Options, Record, ServerFacts
from servemark.workloads.synthetic import Synthetic
from tests import talking
from tests.commands import TOLERANT, bench, check, journal, run_json, started, wait_until
from tests.scripted_server import DONE, END, HEAD, Peer, chunk, event, serving
from tests.simulated import read, simulated
from tests.talking import MS, Talk

VOCABULARY = estimate("chat", "no server")
ROUTES: tuple[tuple[str, Endpoint], ...] = tuple(
    (dialect, endpoint) for dialect in names() for endpoint in load_adapter(dialect).endpoints
)


# --- the servers' dialects


@pytest.mark.parametrize(("dialect", "endpoint"), ROUTES)
async def test_every_dialect_is_told_the_whole_conversation(dialect: str, endpoint: Endpoint) -> None:
    """Each prompt begins with the last one and its answer, token for token, as far as the template lets it."""
    history: tuple[Message, ...] = ()
    async with simulated(dialect=dialect, eos_mean_tokens=500) as one:
        for turn in range(4):
            prompt = f"And this is what I ask in turn {turn} of our talk"
            reading = await read(one, dialect, endpoint, prompt, 12, history=history)
            assert reading.outcome.error is None
            assert reading.outcome.usage.prompt_tokens == len(one.engine[-1].prompt)
            assert len(reading.text.split()) == 12
            history += (Message("user", prompt), Message("assistant", reading.text))
        answers = one.server.sim.answers
        for before, after in pairwise(one.engine):
            said = answers.ids_of(before.answer_start, 12)
            assert after.prompt[: len(before.prompt) + 12] == [*before.prompt, *said]
            assert len(after.prompt) > len(before.prompt) + 12


@pytest.mark.parametrize("dialect", [name for name in names() if "chat" in load_adapter(name).endpoints])
async def test_every_chat_dialect_takes_the_result_of_a_tool(dialect: str) -> None:
    history = (Message("system", "Be brief."), Message("user", "Look."), Message("assistant", "I look."))
    async with simulated(dialect=dialect) as one:
        alone = await read(one, dialect, "chat", "Go on.", 5, history=history)
        with_tool = await read(one, dialect, "chat", "Go on.", 5, history=(*history, Message("tool", "It is blue.")))
    assert alone.outcome.error is with_tool.outcome.error is None
    assert (with_tool.outcome.usage.prompt_tokens or 0) > (alone.outcome.usage.prompt_tokens or 0)


# --- the history


async def test_the_history_holds_what_the_server_really_said() -> None:
    """Every answer is another; a server that notes what it is sent finds its own words there."""
    heard: list[list[dict[str, str]]] = []

    async def answering(peer: Peer) -> None:
        messages = json.loads(peer.body)["messages"]
        heard.append(messages)
        text = f"answer {len(heard)} to {messages[-1]['content'][:20]}"
        await peer.send(HEAD, *(chunk(event(piece, k + 1)) for k, piece in enumerate(text.split(" ", 1))))
        await peer.send(chunk(event("!", 3, "stop")), chunk(DONE), END)
        said[messages[0]["content"]].append(text.replace(" ", "", 1) + "!")

    said: dict[str, list[str]] = defaultdict(list)
    text = "version: 1\nprompts: {source: synthetic, input_tokens: 40, output_tokens: 3}\nload: {concurrency: 3}\n"
    loaded = parse_workload(text + "run: {requests: 24, warmup: 0}\n")
    seeds = resolve_seeds(loaded.spec.run.seeds)
    source = Talk(Given(seeds, VOCABULARY, loaded.folder), lambda item: 4, 10 * MS, 3)
    records: list[Record] = []
    async with serving({"v1/chat/completions": answering}) as port:
        with Control(f"http://127.0.0.1:{port}") as control:
            target = Target(ADAPTER, control.url, (), control, ServerFacts(), "m")
            jobs = Jobs(Schedule(loaded.spec, source, VOCABULARY, seeds), target, Options(model="m"), "run")
            address = Address(control.url, "127.0.0.1", port, False)
            fleet = Fleet(
                Plan(0, (address,), "vllm", "sse", "chat", Timeouts(), concurrency=3, measured_requests=24),
                iter(jobs),
                on_record=records.append,
                on_status=lambda status: None,
                on_started=lambda begun: None,
                follow=jobs.follow,
            )
            report = await fleet.run()
    assert report is not None
    assert (report.issued, report.later_turns) == (24, 18)
    assert len(heard) == 24
    assert len(said) == 6  # conversations, by their first message
    for messages in heard:
        answers = [each["content"] for each in messages if each["role"] == "assistant"]
        assert answers == said[messages[0]["content"]][: len(answers)]
    assert sorted(record.request_id for record in records) == list(range(24))
    assert {record.error for record in records} == {None}


# --- whole runs


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with launch(SimOptions()) as one:
        yield one


@pytest.fixture
def talks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workload's prompts become the first words of conversations of four turns."""

    def prepare(self: Synthetic, given: Given) -> Talk:
        return Talk(given, lambda item: 4 if item % 3 else 1, 60 * MS, output_tokens=12, input_tokens=64)

    monkeypatch.setattr(Synthetic, "prepare", prepare)


def run(server: LocalServer, folder: Path, *words: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    said = bench("run", "--target", "sim", "--url", server.url, "--out", str(folder), "--quiet", *TOLERANT, *words)
    assert said.code == 0, said.out + said.err
    return run_json(folder), pq.read_table(folder / "requests.parquet").to_pylist()


def by_session(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["session_id"] is not None:
            found[row["session_id"]].append(row)
    return {name: sorted(turns, key=lambda row: row["turn"]) for name, turns in found.items()}


def index_of(item: int) -> int:
    """Of an item's first request: items 0, 3, 6 ... are single requests, the others have four turns."""
    return sum(4 if each % 3 else 1 for each in range(item))


@pytest.mark.parametrize(
    "words",
    [
        ("--rate", "12", "--duration", "3s", "--warmup", "1s"),
        ("--rate", "12", "--concurrency", "6", "--duration", "3s", "--warmup", "1s"),
        ("--concurrency", "4", "--duration", "3s", "--warmup", "1s"),
    ],
    ids=["open", "capped", "closed"],
)
def test_a_run_of_conversations_is_sound(
    talks: None, server: LocalServer, tmp_path: Path, words: tuple[str, ...]
) -> None:
    result, rows = run(server, tmp_path / "run", *words)
    assert result["verdict"]["valid"]
    assert {row["error"] for row in rows} == {None}
    sessions = by_session(rows)
    assert len(sessions) > 5
    for name, turns in sessions.items():
        item = int(name[1:])
        assert [row["turn"] for row in turns] == list(range(len(turns)))  # cut at the end of the run, nowhere else
        assert [row["request_id"] for row in turns] == [index_of(item) + turn for turn in range(len(turns))]
        for before, after in pairwise(turns):
            assert after["intended_ns"] == before["done_ns"] + 60 * MS
            assert after["prompt_tokens"] >= before["prompt_tokens"] + before["output_tokens"] + 64
    assert len({row["request_id"] for row in rows}) == len(rows)
    assert result["schedule"]["requests"] == sum(row["turn"] == 0 for row in rows)
    assert result["worker"]["later_turns"] == sum(row["turn"] > 0 for row in rows)


def test_what_the_cache_gave_is_what_the_conversations_imply(talks: None, server: LocalServer, tmp_path: Path) -> None:
    """To the token: each turn finds the one before it, answer included, in whole blocks."""
    result, rows = run(server, tmp_path / "run", "--rate", "10", "--duration", "2s", "--warmup", "0s")
    assert any(row["turn"] == 3 for row in rows)
    cache = result["cache"]
    assert cache["observed_hit_rate"] == pytest.approx(cache["expected_hit_rate"])
    assert cache["expected_hit_rate"] > 0.4
    assert check(result, "prefix_cache") == "pass"
    assert check(result, "requests_sent") == "pass"


def test_a_counted_run_lets_its_last_sessions_end(talks: None, server: LocalServer, tmp_path: Path) -> None:
    for words in (("--rate", "40"), ("--concurrency", "3")):
        folder = tmp_path / words[0].strip("-")
        result, rows = run(server, folder, *words, "--requests", "20", "--warmup", "0", "--allow", "short_run")
        # 1 + 4 + 4, 1 + 4 + 4 and 1 + 4 make 23, and without the last four 19.
        assert len(rows) == 23
        assert result["schedule"]["requests"] == 8
        assert result["summary"]["requests_ok"] == 23


def test_a_context_that_is_full_ends_the_session_and_is_data(talks: None, tmp_path: Path) -> None:
    with launch(SimOptions(max_model_len=300)) as short:
        words = ("--concurrency", "2", "--requests", "30", "--warmup", "0", "--allow", "error_share")
        result, rows = run(short, tmp_path / "run", *words)
    sessions = by_session(rows)
    assert all([row["error"] for row in turns] == [None, None, None, "http_status"] for turns in sessions.values())
    assert all("maximum context length" in turns[-1]["error_detail"] for turns in sessions.values())
    assert result["schedule"]["requests"] == len(sessions) + sum(row["session_id"] is None for row in rows)


# --- a source of another package, in a command of its own

SOURCE = '''
"""Conversations, from a package of its own."""

from typing import Literal

from talking import MS, Talk

from servemark.harness.plan.sources import SOURCES, Given, PromptSource
from servemark.harness.plan.strict import Count


@SOURCES.register("talk")
class TalkSource(PromptSource):
    source: Literal["talk"] = "talk"
    turns: Count
    think_ms: int
    output_tokens: Count

    def prepare(self, given: Given) -> Talk:
        return Talk(given, lambda item: self.turns, self.think_ms * MS, self.output_tokens)
'''


@pytest.fixture
def workload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workload whose source a command finds in another package; sessions go on for longer than any test waits."""
    site = tmp_path / "site"
    facts = site / "talk_source-1.dist-info"
    facts.mkdir(parents=True)
    shutil.copy(str(talking.__file__), site / "talking.py")
    (site / "talk_source.py").write_text(SOURCE)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: talk-source\nVersion: 1\n")
    (facts / "entry_points.txt").write_text("[servemark.sources]\ntalk = talk_source\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(site), os.environ.get("PYTHONPATH", ""))))
    path = tmp_path / "talk.yaml"
    path.write_text(
        "version: 1\nprompts: {source: talk, turns: 1000, think_ms: 50, output_tokens: 8}\n"
        "load: {concurrency: 4}\nrun: {duration: 300s, warmup: 0s}\n"
    )
    return path


def begun(server: LocalServer, workload: Path, folder: Path, *words: str) -> tuple[str, ...]:
    given = ("--target", "sim", "--url", server.url, "--workload", str(workload), "--out", str(folder), "--quiet")
    return ("run", *given, *TOLERANT, *words)


def has_turns(folder: Path) -> bool:
    return sum(row["turn"] > 0 for row in journal(folder)) >= 8


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@LINUX
@pytest.mark.parametrize("load", [(), ("--rate", "4")], ids=["closed", "open"])
def test_an_interrupt_in_the_middle_of_sessions_keeps_every_finished_turn(
    server: LocalServer, workload: Path, tmp_path: Path, load: tuple[str, ...]
) -> None:
    folder = tmp_path / "run"
    with started(*begun(server, workload, folder, *load)) as process:
        wait_until(lambda: has_turns(folder), "some turns have ended")
        before = {row["request_id"] for row in journal(folder)}
        process.signal(signal.SIGINT)
        said = process.end()
    assert said.code == 4, said.err
    assert "Traceback" not in said.err
    rows = pq.read_table(folder / "requests.parquet").to_pylist()
    assert before <= {row["request_id"] for row in rows}
    assert run_json(folder)["worker"]["stop_reason"] == "interrupted"


@LINUX
def test_a_generator_that_is_killed_in_the_middle_of_sessions_leaves_its_records(
    server: LocalServer, workload: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with started(*begun(server, workload, folder)) as process:
        wait_until(lambda: has_turns(folder), "some turns have ended")
        before = {row["request_id"] for row in journal(folder)}
        os.kill(process.children()["worker"], signal.SIGKILL)
        said = process.end()
    assert said.code == 4, said.err
    result = run_json(folder)
    assert check(result, "generator_lost") == "invalid"
    rows = pq.read_table(folder / "requests.parquet").to_pylist()
    assert before <= {row["request_id"] for row in rows}
    assert result["schedule"]["requests"] == 4


@LINUX
def test_a_server_that_dies_in_the_middle_of_sessions_ends_the_run_soon(workload: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with launch(SimOptions()) as doomed, started(*begun(doomed, workload, folder)) as process:
        wait_until(lambda: has_turns(folder), "some turns have ended")
        doomed.stop()
        said = process.end()
    assert said.code == 4, said.err
    result = run_json(folder)
    assert check(result, "server_lost") == "invalid"
    assert result["summary"]["failed_connect"] > 0

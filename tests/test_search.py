"""`bench search`: what it asks for, what it makes of a run, that it goes on where it stopped, and what people see."""

from __future__ import annotations

import fcntl
import json
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from servemark.dashboards.search import money, sentence, table_text
from servemark.dashboards.search_page import render_search
from servemark.harness.errors import BadInput, ResultUnusable
from servemark.harness.figures.slo import parse_slo
from servemark.harness.plan.spec import Workload, parse_workload
from servemark.harness.prepare import Asked
from servemark.harness.search import hunt
from servemark.harness.search.cost import economics
from servemark.harness.search.deciding import Answer, decide, points_of
from servemark.harness.search.faults import OF_THE_CLIENT, OF_THE_LOAD, judged
from servemark.harness.search.loads import Axis
from servemark.harness.search.opening import open_search
from servemark.harness.search.wanted import Wanted, wanted
from servemark.harness.verdict.validity import CHECKS
from servemark.results.search import SEARCH_JSON, Entry, Index, Part, SearchShelf
from tests.commands import TOLERANT, Said, bench, journal, run_json, started, wait_until

OPEN = "version: 1\nprompts: {source: synthetic, input_tokens: 64, output_tokens: 8}\nload: {rate: 2}\n"
CLOSED = OPEN.replace("rate: 2", "concurrency: 2")
DEFAULTS: dict[str, Any] = {
    "from": "1",
    "to": "64",
    "precision": "5%",
    "confirm": 3,
    "point_time": "2m",
    "cool_down": "5s",
}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def spec(text: str = OPEN) -> Workload:
    return parse_workload(text).spec


def plan(text: str = OPEN, slo: str = "ttft=200ms", attainment: float | None = None, **given: Any) -> Wanted:
    return wanted({**DEFAULTS, **given}, spec(text), parse_slo(slo, attainment))


# --- what is asked for


def test_the_workloads_own_kind_of_load_is_searched() -> None:
    assert (plan(OPEN).axis.by, plan(CLOSED).axis.by) == ("rate", "concurrency")
    assert plan(OPEN, by="concurrency").axis == Axis("concurrency", 1, 64, 0.05)
    assert plan(CLOSED, by="rate", precision="0.1").axis == Axis("rate", 1, 64, 0.1)


def test_a_point_is_as_long_as_its_claim_takes() -> None:
    at_8 = plan().length.flags(plan().axis, 8)
    assert at_8 == {"requests": 459, "duration": "2m"}  # 0.99 to the 459th is just below 0.01
    assert plan(attainment=0.9).length.requests == 44
    assert plan().length.flags(plan().axis, 32)["requests"] == 32 * 30  # so that a queue has the time to grow
    closed = plan(CLOSED)
    assert closed.length.flags(closed.axis, 64)["requests"] == 64 * 10
    assert plan(requests="1000").length.requests == 1_000
    assert plan(requests="100").length.requests == 459
    assert plan(slo="ttft:p99=500ms", point_time="20m").length.requests == 662
    assert plan(slo="ttft:p99=500ms", point_time="20m").claim.attainment is None
    assert plan(duration="45s").length.flags(plan().axis, 8) == {"duration": "45s", "requests": None}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rate": "3"}, "--rate is what is searched; give its range with --from and --to"),
        ({"by": "concurrency", "concurrency": "3"}, "--concurrency is what is searched"),
        ({"by": "concurrency", "rate": "3"}, "--rate has no place in a search by concurrency"),
        ({"by": "concurrency", "from": "1.5"}, "--from: 1.5 requests in flight cannot be"),
        ({"to": "inf"}, "--to: all requests at once are no rate that could be doubled"),
        ({"from": "0"}, "--from: a rate of 0 sends nothing"),
        ({"to": "much"}, "--to: 'much' is no rate"),
        ({"precision": "0.1%"}, "--precision: '0.1%' is no share from 0.5% to 100%"),
        ({"precision": "five"}, "--precision: 'five' is no share"),
        ({"requests": "0"}, "--requests: needs a whole number of requests, not '0'"),
        ({"point_time": "0s"}, "--point-time: no time is too short"),
        ({"point_time": "20"}, "--point-time: 20 has no unit"),
        ({"gate": True}, "--gate of a search needs a load to hold; give it with --at-least"),
        ({"at_least": "x"}, "--at-least: 'x' is no rate"),
        ({"gpu_price": 2.5}, "--gpu-price is for one GPU; say how many there are with --gpus"),
        ({"gpu_price": -1.0, "gpus": 1}, "--gpu-price: -1 dollars an hour is no price"),
        ({"prices": "p.yaml"}, "--prices is for one GPU; say how many there are with --gpus"),
        ({"prices": "p.yaml", "gpus": 1}, "--prices: the file has prices by kinds of GPU; name yours with --gpu"),
        ({"prices": "p.yaml", "gpus": 1, "gpu": "h1000"}, "--gpu: there is no GPU 'h1000'"),
        ({"prices": "p.yaml", "gpus": 1, "gpu": "l4"}, "p.yaml: the file of prices cannot be read"),
        ({"slo": "ttft:p99=1s"}, "--point-time: at 1 req/s about 120 requests come in that time"),
        ({"slo": "ttft:p99=1s", "duration": "60s"}, "--duration: at 1 req/s about 60 requests"),
        ({"attainment": 1.0}, "no sample proves that all requests meet the SLO"),
    ],
)
def test_a_mistake_is_told(given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as caught:
        plan(**given)
    assert str(caught.value).startswith(said)


def test_a_search_without_objectives_is_none() -> None:
    Path("w.yaml").write_text(OPEN)
    found = bench("search", "--target", "sim", "--workload", "w.yaml")
    assert (found.code, found.err.startswith("bench: a search needs objectives; give them with --slo")) == (2, True)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--target", "nobody"), "there is no target 'nobody'"),
        (("--target", "sim", "--allow", "nothing"), "--allow nothing: there is no such check"),
        (("--target", "sim", "--to", "1e9", "--by", "concurrency", "--from", "2e9"), "--concurrency"),
        (("--target", "sim", "--set", "load.rate=3"), "--set: load.rate is what is searched; leave it out"),
        (("--target", "openai", "--launch", "x"), "target openai cannot be started by --launch"),
    ],
)
def test_what_the_rest_of_bench_knows_is_told_before_anything_runs(words: tuple[str, ...], said: str) -> None:
    found = bench("search", "--workload", "chat", *words)
    assert found.code == 2
    assert said in found.err
    assert not Path("runs").exists()


def test_a_server_that_is_not_there_leaves_nothing() -> None:
    found = bench("search", "--target", "sim", "--url", "http://127.0.0.1:9", "--workload", "chat", "--quiet")
    assert found.code == 3
    assert "refuses connections" in found.err
    assert list(Path("runs").iterdir()) == []


# --- what an INVALID run says


def test_every_check_of_the_verdict_has_its_place() -> None:
    assert set(CHECKS) >= OF_THE_CLIENT | OF_THE_LOAD | {"no_success"}
    assert not OF_THE_CLIENT & OF_THE_LOAD


@pytest.mark.parametrize(
    ("codes", "capped", "failures", "state", "held"),
    [
        ((), False, set(), "counts", True),
        (("overloaded",), False, set(), "counts", False),
        (("error_share",), False, {"http_status"}, "counts", True),
        (("no_success", "error_share"), False, {"timeout_total", "abandoned"}, "counts", False),
        (("no_success", "error_share"), False, {"http_status"}, "stop", True),
        (("client_lag",), False, set(), "void", True),
        (("client_lag", "overloaded"), False, set(), "void", True),
        (("requests_sent",), False, set(), "void", True),
        (("requests_sent", "schedule_finished"), True, set(), "counts", False),
        (("prefix_cache", "client_lag"), False, set(), "stop", True),
        (("engine_died",), False, set(), "stop", True),
        (("a_check_of_another_package",), False, set(), "stop", True),
    ],
)
def test_reasons_lie_with_the_load_the_client_or_neither(
    codes: tuple[str, ...], capped: bool, failures: set[str], state: str, held: bool
) -> None:
    found = judged(codes, capped, failures)
    assert (found.state, found.held) == (state, held)


# --- money


def test_two_dollars_an_hour_at_a_hundred_tokens_a_second() -> None:
    found = economics(goodput=2.0, output_tps=100.0, gpus=1, price=2.0)
    assert found["usd_per_million_output_tokens"] == pytest.approx(5.5556, abs=1e-4)
    assert found["goodput_requests_per_usd"] == 2.0 * 3600 / 2.0
    eight = economics(goodput=2.0, output_tps=100.0, gpus=8, price=2.0)
    assert eight["usd_per_million_output_tokens"] == pytest.approx(8 * 5.5556, abs=1e-3)
    assert (eight["goodput_per_gpu"], eight["output_tps_per_gpu"], eight["usd_per_hour"]) == (0.25, 12.5, 16.0)


def test_a_price_may_come_from_a_file_of_prices() -> None:
    Path("p.yaml").write_text("gpus: {h100-sxm: 2.5}")
    assert plan(gpus=8, gpu="H100 SXM", prices="p.yaml").price == 2.5
    assert plan(gpus=8, gpu="H100 SXM", prices="p.yaml", gpu_price=3.0).price == 3.0
    with pytest.raises(BadInput, match=r"--prices: p\.yaml has no price of l4; add it, or give --gpu-price"):
        plan(gpus=1, gpu="l4", prices="p.yaml")


def test_nothing_is_said_of_money_that_was_not_asked() -> None:
    assert economics(2.0, 100.0, None, None) == {}
    assert "usd_per_hour" not in economics(2.0, 100.0, 1, None)
    assert economics(None, None, 1, 2.0)["usd_per_million_output_tokens"] is None


# --- the search around its runs, which are made up here


class World:
    """Stands for server, client and clock: says of each run what became of it, and leaves what a run leaves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **what: Any) -> None:
        self.what, self.made, self.rests = what, [], 0
        monkeypatch.setattr(hunt, "measure", self.measure)
        monkeypatch.setattr(hunt, "of_run", self.of_run)
        monkeypatch.setattr(hunt, "rested", self.rested)

    def rested(self, *_: object) -> None:
        self.rests += 1

    def measure(self, asked: Asked, engine: object) -> Any:
        assert asked.out is not None
        assert not asked.out.exists()
        asked.out.mkdir(parents=True)
        for name in ("requests.parquet", "run.json"):
            (asked.out / name).write_text("{}")
        self.made.append(asked)
        interrupted = self.what.get("interrupt") == len(self.made)
        worker = {"stop_reason": "interrupted" if interrupted else "finished"}
        return SimpleNamespace(run={"worker": worker}, folder=asked.out)

    def of_run(self, entry: Entry, folder: Path) -> Entry:
        late = entry.load > self.what.get("client", 1e9)
        state, reason = ("void", "client_lag: late") if late else ("counts", "")
        stretches = [459] if entry.load <= self.what.get("server", 1e9) else [5, 1] * 76
        return msgspec.structs.replace(
            entry, state=state, reason=reason, requests=Part(stretches, 1.0), folder=entry.id
        )


def search_of(**given: Any) -> hunt.Search:
    wants = {**DEFAULTS, "confirm": 2, **given}
    flags = {"slo": "ttft=200ms", **{name: given[name] for name in ("seed", "set") if name in given}}
    return open_search(
        Asked("vllm", "chat", urls=("http://127.0.0.1:9",), flags=flags, quiet=True, out=Path("s")), wants
    )


def carried_out(**given: Any) -> hunt.Search:
    found = search_of(**given)
    found.carry_out()
    return found


def test_every_run_is_another_sample_and_is_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, server=7.5)
    found = carried_out(set={"run.drain": "3s"})
    assert found.exit_code == 0
    assert found.index.answer is not None
    assert (found.index.answer["load"], found.index.answer["failing"]) == (7.336, 7.661)
    assert len({asked.flags["seed"] for asked in world.made}) == len(world.made) == 10
    for asked in world.made:
        assert asked.flags["set"] == {"run.drain": "3s", "run.seeds.salt": asked.flags["seed"]}
    assert [asked.flags["rate"] for asked in world.made[:4]] == [1, 2, 4, 8]
    assert world.rests == 9  # between two runs, not before the first
    seeded = [asked.flags["seed"] for asked in world.made]
    shutil.rmtree("s")
    carried_out(seed="5")
    shutil.rmtree("s")
    carried_out(seed="5")
    first, second = world.made[10:20], world.made[20:]
    assert [a.flags["seed"] for a in first] == [a.flags["seed"] for a in second] != seeded


def test_what_was_stopped_goes_on_as_if_it_had_not_been(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, server=7.5, interrupt=6)
    first = carried_out()
    assert (first.interrupted, first.exit_code) == (True, 4)
    assert [entry.state for entry in first.index.runs] == ["counts"] * 5 + ["interrupted"]
    second = carried_out()
    assert [entry.load for entry in second.index.runs] == [1, 2, 4, 8, 5.657, 6.727, 7.336, 7.661, 7.336, 7.661]
    assert len(world.made) == 11
    assert Path("s/rate=6.727.earlier-1").exists()
    assert second.index.created == first.index.created

    finer = carried_out(precision="2%", confirm=3)  # the runs that are there still count
    assert finer.index.runs[:10] == second.index.runs
    assert finer.index.runs[10].load == 7.497


def test_a_client_that_fails_is_tried_twice_and_again_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, client=3, server=7.5)
    first = carried_out(to="8", precision="100%", at_least="2")
    assert first.index.answer is not None
    assert (first.index.answer["kind"], first.exit_code) == ("client", 0)
    assert [entry.id for entry in first.index.runs][2:4] == ["rate=4", "rate=4_r2"]
    assert carried_out(to="8", precision="100%", at_least="4").exit_code == 4  # it may be, or not
    count = len(world.made)
    world.what["client"] = 1e9
    assert len(carried_out(to="8", precision="100%").index.runs) == count
    retried = carried_out(to="8", precision="100%", retry_invalid=True)
    assert retried.index.answer is not None
    assert retried.index.answer["load"] == 4
    assert Path("s/rate=4.earlier-1").exists()


def test_a_run_is_not_put_where_another_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of two runs is gone: its place is taken, and not the second one's."""
    World(monkeypatch, server=7.5)
    carried_out()
    Path("s/rate=7.336/run.json").unlink()
    again = carried_out()
    ids = [entry.id for entry in again.index.runs]
    assert len(set(ids)) == len(ids) == 10
    assert {"rate=7.336", "rate=7.336_r2"} <= set(ids)
    assert not Path("s/rate=7.336_r2.earlier-1").exists()


@pytest.mark.parametrize(
    ("least", "server", "code"), [("7", 7.5, 0), ("7.5", 7.5, 1), ("1", 0.5, 1), ("64", 100, 0), ("0.1", 0.5, 1)]
)
def test_at_least_is_held_against_the_answer(
    monkeypatch: pytest.MonkeyPatch, least: str, server: float, code: int
) -> None:
    World(monkeypatch, server=server)
    assert carried_out(at_least=least, gate=True).exit_code == code


def test_a_client_that_can_do_nothing_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    World(monkeypatch, client=0.5)
    assert carried_out().exit_code == 4


def test_a_signal_before_anything_was_measured_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    World(monkeypatch)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(hunt, "measure", stopped)
    found = carried_out()
    assert (found.interrupted, found.exit_code, found.index.runs) == (True, 4, [])
    assert not Path("s").exists()


# --- whole searches, against the built-in target


CHEAP = (
    *("--target", "sim", "--workload", "chat", "--input-tokens", "64", "--output-tokens", "60", "--warmup", "0"),
    *("--launch", "llama-3.1-8b --max-num-seqs 1 --speed 5", "--by", "concurrency", "--to", "4", "--confirm", "2"),
    *("--attainment", "0.5", "--slo", "ttft=40ms", "--gpus", "2", "--gpu-price", "2.5", "--cool-down", "0s", *TOLERANT),
)


def search(*words: str) -> Said:
    return bench("search", *CHEAP, *words)


def index(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / SEARCH_JSON).read_text())
    return found


def test_a_server_of_one_slot_meets_a_ttft_for_one_user_and_goes_on_where_it_stopped() -> None:
    """A second user waits for the whole answer of the first, about 66 ms."""
    said = search()
    assert said.code == 0, said.err
    assert "1 in flight meets ttft=40ms for 50 % of requests" in said.out
    assert "2 + 2 runs at the bracket" in said.out
    (root,) = Path("runs").iterdir()
    assert root.name.startswith("search-sim-chat-")
    found = index(root)
    assert [(run["id"], run["why"], run["state"]) for run in found["runs"]] == [
        ("concurrency=1", "bracket", "counts"),
        ("concurrency=2", "bracket", "counts"),
        ("concurrency=1_r2", "confirm", "counts"),
        ("concurrency=2_r2", "confirm", "counts"),
    ]
    assert (root / "engine.start.log").read_text().count("listening") == 1  # one engine for all points
    runs = {run["id"]: run_json(root / run["id"]) for run in found["runs"]}
    seeds = {tuple(run["schedule"]["seeds"].values()) for run in runs.values()}
    assert len(seeds) == 4  # arrivals, lengths and prompts of its own for each
    for entry in found["runs"]:
        good, measured = runs[entry["id"]]["slo"]["good"], runs[entry["id"]]["slo"]["measured"]
        stretches = entry["requests"]["stretches"]
        assert (sum(stretches[::2]), sum(stretches)) == (good, measured)
        assert measured >= 10 * entry["load"]
    tps = sum(runs[name]["summary"]["output_tps"] for name in ("concurrency=1", "concurrency=1_r2")) / 2
    price = 2 * 2.5 / 3600 / tps * 1e6
    assert found["economics"]["usd_per_million_output_tokens"] == pytest.approx(price)
    page = (root / "search.html").read_text().split("<script", 1)[0]
    assert 'href="concurrency%3D1/report.html"' in page
    assert "SIMULATED" in page

    again = search("--json", "--at-least", "2")  # nothing is measured, and the answer is too little
    assert again.code == 1
    assert again.err == ""
    assert json.loads(again.out)["runs"] == found["runs"]

    (root / "concurrency=2_r2" / "run.json").unlink()  # as a kill leaves it
    third = search("--quiet", "--at-least", "1")
    assert third.code == 0, third.err
    assert third.err == ""
    assert len(third.out.splitlines()) == 2  # the answer, and what it costs
    kept = index(root)["runs"]
    assert kept[:3] == found["runs"][:3]
    assert kept[3]["seed"] != found["runs"][3]["seed"]
    assert (root / "concurrency=2_r2.earlier-1").exists()

    other = search("--output-tokens", "61", "--out", str(root))
    assert other.code == 2
    assert "holds a search with another target, workload or load" in other.err


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_an_interrupt_ends_the_run_and_the_search_which_can_go_on() -> None:
    words = ("search", *CHEAP, "--duration", "300s", "--drain", "1s", "--out", "s")
    with started(*words) as process:
        wait_until(lambda: len(journal(Path("s/concurrency=1"))) >= 4, "some requests have ended")
        process.signal(signal.SIGINT)
        said = process.end()
    assert said.code == 4, said.err
    assert "interrupted; the same command goes on with it" in said.out
    assert [run["state"] for run in index(Path("s"))["runs"]] == ["interrupted"]
    fresh = Index(name="s", digest=index(Path("s"))["digest"], seed=1, created="")
    found = SearchShelf(Path("s")).opened(fresh)
    assert (found.runs, found.begun, found.seed) == ([], 1, index(Path("s"))["seed"])


def test_a_run_that_is_invalid_for_another_reason_ends_the_search() -> None:
    """A server that answers every request with an error would do so at any load."""
    Path("w.yaml").write_text(
        "version: 1\nprompts: {source: synthetic, input_tokens: 64, output_tokens: 8}\nload: {concurrency: 1}\n"
    )
    said = bench(
        "search", "--target", "sim", "--launch", "llama-3.1-8b --speed 20 --fault http500:1", "--workload", "w.yaml",
        "--slo", "ttft=1s", "--attainment", "0.5", "--warmup", "0", "--out", "s", *TOLERANT,
    )  # fmt: skip
    assert said.code == 4
    assert "the run at 1 in flight is INVALID: no_success: None of" in said.out
    assert index(Path("s"))["answer"] is None
    assert index(Path("s"))["runs"][0]["state"] == "stopped"


def test_two_at_once_do_not_write_over_each_other() -> None:
    Path("s").mkdir()
    with open("s/.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = search("--out", "s")
    assert said.code == 2
    assert "another `bench search` is at work here" in said.err
    shutil.rmtree("s")


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"name": 3}', "nonsense"])
def test_an_index_that_is_none_is_a_sentence(body: str) -> None:
    Path(SEARCH_JSON).write_text(body)
    with pytest.raises(ResultUnusable, match="is no index of ours"):
        SearchShelf(Path()).opened(Index(name="n", digest="d", seed=1, created=""))


def test_an_index_of_a_later_format_is_a_sentence() -> None:
    shelf = SearchShelf(Path())
    shelf.save(Index(schema_version=99, name="n", digest="d", seed=1, created=""))
    with pytest.raises(ResultUnusable, match="is of format 99; update servemark"):
        shelf.opened(Index(name="n", digest="d", seed=1, created=""))


# --- what people see


def made_up(*runs: Entry, **asked: Any) -> dict[str, Any]:
    """An index as a search leaves it, of runs that nobody made."""
    from dataclasses import asdict

    by = {"from": asked.pop("start", "1"), "to": asked.pop("to", "64")}
    search = plan(slo=asked.pop("slo", "ttft=500ms,tpot=50ms"), **by, **asked)
    found = Index(name="<i>n</i>", digest="d", seed=1, created="2026-11-21T10:00:00+00:00", runs=list(runs))
    found.asked = {**search.facts(), "slo": "ttft=500ms,tpot=50ms"}
    found.points = [asdict(point) for point in points_of(found.outcomes(), search.claim).values()]
    step = decide(search.axis, search.claim, found.outcomes())
    found.answer = asdict(step) if isinstance(step, Answer) else None
    return found.to_json()


def runs(load: float, *stretches: int, count: int = 3, **facts: Any) -> list[Entry]:
    return [
        Entry(id=f"rate={load:g}_r{i}", load=load, repeat=i, why="confirm", seed=i, state="counts",
              requests=Part(list(stretches), 1.0), **facts)
        for i in range(1, count + 1)
    ]  # fmt: skip


def test_the_answer_is_one_sentence() -> None:
    found = made_up(
        *runs(7, 458, 1), *runs(7.2, *(150, 1) * 3), *runs(7.5, 30, 1, *(30, 1) * 13), *runs(8, *(5, 1) * 76), start="7"
    )
    assert sentence(found) == (
        "7.2 req/s meets ttft=500ms,tpot=50ms for 99 % of requests "
        "(95 % interval 7 to 7.5; 3 + 3 runs at the bracket, 1,359 and 1,302 requests)."
    )


def test_an_open_interval_is_said() -> None:
    found = made_up(*runs(7.2, 30), *runs(7.5, 20, 10), start="7.2")
    assert "(at 95 % less than 7.5, and no load is proved to meet it;" in sentence(found)
    found = made_up(*runs(7.2, 459), *runs(7.5, 29, 1), start="7.2")
    assert "(at 95 % 7.2 or more, and no load is proved to miss it;" in sentence(found)


def test_the_other_answers_are_sentences_too() -> None:
    below = sentence(made_up(*runs(1, 9, 1, 9, 1)))
    assert below.startswith(
        "Even 1 req/s, the lowest load asked, misses ttft=500ms,tpot=50ms for 99 % of requests: 90.0 %"
    )
    above = sentence(made_up(*runs(64, 459)))
    assert above.startswith("64 req/s, the highest load asked, still meets")
    void = [
        Entry(id=f"r{i}", load=2, repeat=i, why="again", seed=i, state="void", reason="client_lag: late")
        for i in (1, 2)
    ]
    assert sentence(made_up(*runs(1, 459), *void, start="1", precision="100%")).startswith(
        "At least 1 req/s meets ttft=500ms,tpot=50ms for 99 % of requests; at 2 req/s this client, and not the server, "
        "is the limit (client_lag: late)."
    )
    assert sentence(made_up(*void, start="2")).startswith("Nothing can be said: this client was not up to 2 req/s")
    assert sentence(made_up()) == "There is no answer yet."


def test_noise_and_bumps_stand_beside_the_answer() -> None:
    lucky = [*runs(7.5, 459, count=1), *runs(7.5, *(5, 1) * 4, count=2)]
    for place, entry in enumerate(lucky):
        entry.id = f"rate=7.5_{place}"
    said = sentence(made_up(*runs(2, 9, 1), *runs(7.2, 459), *lucky, *runs(7.4, 3, 1), start="7"))
    assert "Not monotone: below it, 2 (90.0 %) missed it." in said
    assert "Runs of one load disagree at 7.5." in said


def test_where_sessions_arrive_the_rate_is_theirs() -> None:
    assert sentence(made_up(*runs(64, 459, sessions=True))).startswith("64 sessions/s, the highest load asked, still")


def test_a_class_that_holds_the_others_back_is_named() -> None:
    mix = {"rag": Part([9, 1], 1.0), "chat": Part([10], 1.0)}
    found = made_up(*runs(1, 19, 1, classes=mix))
    found["asked"]["classes"] = {"rag": 0.99, "chat": 0.99}
    found["points"][0]["classes"] = {"rag": found["points"][0]["share"], "chat": {"good": 10, "requests": 10}}
    assert "At 1 req/s class rag misses it (95.0 %)." in sentence(found)
    assert "chat" not in sentence(found)
    assert [line.split()[0] for line in table_text(found).splitlines()] == ["load", "1", "rag", "chat"]


def test_the_table_and_the_page_hold_every_point_and_nothing_that_is_code() -> None:
    bad = {"reason": "<script>alert(1)</script>", "folder": "javascript:alert(1)"}
    found = made_up(*runs(7.2, 459, folder="a"), *runs(7.5, 5, 1, 9, **bad), start="7.2")
    found["asked"]["slo"] = "<b>slo</b>\x1b[31m"
    found["workload"] = {"text": "</script><b>"}
    found["economics"] = economics(7.1, 900.0, 1, 2.5)
    table = table_text(found)
    assert [line.split()[0] for line in table.splitlines()] == ["load", "7.2", "7.5"]
    assert all(word in table for word in ("MEETS", "1,377", "100 %"))
    assert "$0.772 per 1M output tokens" in money(found)
    page = render_search(found)
    shown, _, script = page.partition('<script type="application/json"')
    assert not any(code in shown for code in ("<script>alert", "<b>slo", "<i>n", 'href="javascript:', "\x1b"))
    assert "7.5" in script.partition("</script>")[0]
    assert "1 MEETS" in " ".join(shown.split())
    assert "error_y" in script


def test_a_mix_is_searched_by_what_each_class_asks() -> None:
    """One slot: whoever comes second waits; the class `patient` does not mind, and `hasty` does."""
    Path("mix.yaml").write_text(
        "version: 1\nload: {concurrency: 1}\nrun: {warmup: 0}\nslo: {attainment: 0.5}\nclasses:\n"
        "  patient: {prompts: {source: synthetic, input_tokens: 64, output_tokens: 60}, slo: {limits: ttft=10s}}\n"
        "  hasty: {prompts: {source: synthetic, input_tokens: 64, output_tokens: 60}, slo: {limits: ttft=40ms}}\n"
    )
    said = bench(
        *("search", "--target", "sim", "--launch", "llama-3.1-8b --max-num-seqs 1 --speed 5", "--workload", "mix.yaml"),
        *("--to", "2", "--confirm", "1", "--cool-down", "0s", "--out", "s", *TOLERANT),
    )
    assert said.code == 0, said.err
    found = index(Path("s"))
    assert (found["answer"]["load"], found["answer"]["failing"]) == (1, 2)
    assert "At 2 in flight class hasty misses it" in said.out
    assert "patient: ttft=10s; hasty: ttft=40ms for 50 % of requests" in said.out
    two = found["points"][1]
    assert two["share"]["requests"] == sum(two["classes"][name]["requests"] for name in ("patient", "hasty"))
    assert two["classes"]["patient"]["good"] == two["classes"]["patient"]["requests"]

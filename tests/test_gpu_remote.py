"""GPUs on another host: what an exporter tells arrives as samples on our clock, and what goes wrong is said."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from answering import Answer, Asked, answering
from exporting import Steady, exporting
from fake_nvml import Case, FakeGpu, installed

from servemark.harness.clock import MS, SECOND, now_ns
from servemark.harness.errors import BadInput, TargetUnusable
from servemark.harness.gpu.dcgm import DCGM
from servemark.harness.gpu.exposition import answered, write
from servemark.harness.gpu.fields import GPU_FIELDS
from servemark.harness.gpu.merged import Merger, merged_watch
from servemark.harness.gpu.nvml import Reader
from servemark.harness.gpu.remote import RemoteWatch, remote_watch
from servemark.harness.gpu.watch import GpuWatch
from servemark.harness.server.scrape import Access
from servemark.harness.types import GpuSample

TRANSCRIPTS = Path(__file__).parent / "transcripts"
DEFAULT = (TRANSCRIPTS / "dcgm-4.8-default.txt").read_bytes()
A100 = "GPU-5f3b1c2e-8d40-4a7e-9a61-0c2f6b7d1e01"
OTHER = "GPU-5f3b1c2e-8d40-4a7e-9a61-0c2f6b7d1e02"
NOBODY = Access(())


@pytest.fixture(autouse=True)
def quick_dcgm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dcgm-exporter is asked every second at most; no test waits for that."""
    from servemark.harness.gpu import remote

    assert DCGM.slowest_s == 1.0
    quick = type(DCGM)(DCGM.name, DCGM.title, DCGM.is_its, DCGM.read, slowest_s=0.02)
    monkeypatch.setattr(remote, "EXPORTERS", (remote.OURS, quick))


def carried_out(watch: GpuWatch, seconds: float = 0.5) -> dict[str, Any]:
    """A run's worth of it: begun, run for so long, ended; its facts."""

    async def run() -> None:
        running = asyncio.create_task(watch.run())
        await asyncio.wait({running}, timeout=seconds)
        running.cancel()
        results = await asyncio.gather(running, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError), results

    watch.begin()
    asyncio.run(run())
    watch.end()
    return watch.facts()


def serves(body: bytes | Callable[[], bytes]) -> Answer:
    return lambda asked: (200, body() if callable(body) else body) if asked.path == "/metrics" else (404, b"")


def exposed(values: dict[str, dict[str, float]], skew_ns: int = 0, age_ns: int = 0, **facts: Any) -> bytes:
    """An exporter's answer whose clock is ours and `skew_ns`, and whose reading is so old."""
    at_ns = now_ns() + skew_ns
    samples = [GpuSample(at_ns - age_ns, gpu, told) for gpu, told in values.items()]
    gpus = [{"gpu": gpu, "index": index} for index, gpu in enumerate(values)]
    text = "".join(write(samples, {"gpus": gpus, **facts}, at_ns, "1"))
    return (text + answered(now_ns() + skew_ns)).encode()


@pytest.fixture
def nobody() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"http://127.0.0.1:{port}"


# From end to end


def test_a_fake_nvml_behind_the_exporter_arrives_as_samples() -> None:
    got: list[GpuSample] = []
    with installed(Case((FakeGpu(throttle=4),))):
        reader = Reader(0.1)
        with exporting(reader, 0.1) as url:
            facts = carried_out(remote_watch([url], 0.1, got.append, NOBODY), 1.0)
        reader.close()
    assert {sample.gpu for sample in got} == {FakeGpu().uuid}
    assert {"utilisation", "power", "energy", "throttle", "dram_active"} <= {name for s in got for name in s.values}
    assert all(sample.values.get("power") == 655.0 for sample in got)
    assert any(sample.values.get("dram_active") == pytest.approx(0.625) for sample in got)
    assert facts["source"] == "gpu-exporter"
    assert facts["samples"] == len(got) >= 5
    (gpu,) = facts["gpus"]
    assert (gpu["name"], gpu["gpm"], gpu["driver"]) == ("NVIDIA H100 80GB HBM3", True, "570.86.15")
    assert gpu["memory_bytes"] == 81_559 * 1024**2
    assert "nvlink" not in " ".join(facts["notes"])
    (place,) = facts["exporters"]
    assert (place["exporter"], place["failures"], place["url"]) == ("gpu-exporter", 0, f"{url}/metrics")


def test_samples_are_no_copies_of_each_other_and_lie_in_the_time_they_were_asked_for() -> None:
    got: list[GpuSample] = []
    before_ns = now_ns()
    with exporting(Steady(), 0.1) as url:
        facts = carried_out(remote_watch([url], 0.1, got.append, NOBODY), 0.6)
    stamps = [sample.at_ns for sample in got]
    assert len(set(stamps)) == len(stamps)
    slack_ns = facts["clocks"][0]["uncertainty_ms"] * MS
    assert before_ns - slack_ns <= min(stamps) <= max(stamps) <= now_ns() + slack_ns
    assert facts["clocks"][0]["offset_s"] == pytest.approx(0, abs=0.05)


# Clocks


@pytest.mark.parametrize("skew_s", [-86_400.5, 0.0, 3.25, 10_000_000.0])
def test_an_exporters_stamps_come_onto_our_clock_within_what_is_stated(skew_s: float) -> None:
    skew_ns = round(skew_s * SECOND)
    if skew_ns < 0:
        skew_ns = max(skew_ns, -now_ns() + SECOND)  # a monotonic clock is not negative
    got: list[GpuSample] = []
    taken: list[int] = []

    def body() -> bytes:
        taken.append(now_ns() - 40 * MS)
        return exposed({"GPU-a": {"power": 1.0}}, skew_ns, age_ns=40 * MS)

    with answering(serves(body)) as url:
        facts = carried_out(remote_watch([url], 0.05, got.append, NOBODY), 0.3)
    (clock,) = facts["clocks"]
    assert clock["offset_s"] == pytest.approx(skew_ns / SECOND, abs=clock["uncertainty_ms"] / 1000 + 1e-6)
    assert clock["trips"] >= 1 + 2 * 8
    room_ns = clock["uncertainty_ms"] * MS + 5 * MS  # between now_ns() in the test and in the text
    for sample in got:
        assert min(abs(sample.at_ns - each) for each in taken) <= room_ns


def test_when_a_gpu_was_lost_is_said_on_our_clock() -> None:
    lost = {"at_ns": now_ns() + 5000 * SECOND, "after_s": 3.0, "why": "GPU is lost"}
    with answering(
        serves(lambda: exposed({"GPU-b": {"power": 1.0}}, 5000 * SECOND, gpus=[{"gpu": "GPU-a", "lost": lost}]))
    ) as url:
        facts = carried_out(remote_watch([url], 0.1, lambda sample: None, NOBODY), 0.1)
    (described,) = [gpu for gpu in facts["gpus"] if gpu["gpu"] == "GPU-a"]
    assert described["lost"]["at_ns"] == pytest.approx(lost["at_ns"] - 5000 * SECOND, abs=100 * MS)
    assert described["lost"]["why"] == "GPU is lost"


# A dcgm-exporter


def test_a_dcgm_exporters_gpus() -> None:
    got: list[GpuSample] = []
    with answering(serves(DEFAULT)) as url:
        facts = carried_out(remote_watch([url], 0.05, got.append, NOBODY), 0.3)
    assert facts["source"] == "dcgm"
    assert {gpu["gpu"] for gpu in facts["gpus"]} == {A100, OTHER}
    assert "DCGM_FI_PROF_SM_ACTIVE" in facts["missing"]["sm_active"]
    assert facts["clocks"][0]["offset_s"] is None
    assert "middle of the request" in facts["clocks"][0]["why"]
    # The same text all the time is two samples of each GPU, at the two ends, however often it was asked for.
    assert [sample.gpu for sample in got] == [A100, OTHER, A100, OTHER]
    assert facts["exporters"][0]["readings"] > 4
    (note,) = facts["notes"]
    assert "told the same values all the time" in note
    assert "-c" in note


def test_how_often_a_dcgm_exporter_has_news_is_found_and_said() -> None:
    got: list[GpuSample] = []
    began_ns = now_ns()

    def body() -> bytes:
        collected = (now_ns() - began_ns) // (200 * MS)  # it collects every 200 ms, and is asked every 20 ms
        return f'DCGM_FI_DEV_POWER_USAGE{{gpu="0",UUID="GPU-a"}} {collected}\n'.encode()

    with answering(serves(body)) as url:
        facts = carried_out(remote_watch([url], 0.02, got.append, NOBODY), 1.5)
    place = facts["exporters"][0]
    assert place["news_every_s"] == pytest.approx(0.2, rel=0.3)
    assert facts["period_s"] == place["news_every_s"]
    assert place["readings"] > 2 * len(got)
    assert any("had new values every 0.2 s only" in note for note in facts["notes"])
    new = [sample.values["power"] for sample in got[:-1]]
    assert new == sorted(set(new))


# What goes wrong


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((404, b""), r"answers 404"),
        ((200, b"<html>hello</html>"), r"is no exporter of GPUs that is known: .*no Prometheus sample"),
        ((200, b""), r"is no exporter of GPUs that is known: .*not one sample"),
        ((200, b"vllm:num_requests_running 3\n"), r"neither of bench gpu-exporter nor dcgm-exporter"),
        ((200, b'DCGM_FI_DEV_XID_ERRORS{gpu="0",UUID="GPU-x"} 0\n'), r"nothing of a GPU that is known"),
        ((200, b"servemark_gpu_exporter_info 1\n"), r"asked_at_ns"),
    ],
)
def test_an_address_that_cannot_be_read_is_a_sentence_before_the_run(answer: tuple[int, bytes], said: str) -> None:
    with answering(lambda asked: answer) as url, pytest.raises(TargetUnusable, match=said) as caught:
        remote_watch([f"{url}/m"], 0.2, lambda sample: None, NOBODY)
    assert str(caught.value).startswith(f"--gpu-metrics {url}/m ")
    assert caught.value.exit_code == 3


def test_where_nobody_is_the_flag_is_named(nobody: str) -> None:
    said = r"^--gpu-metrics .* refuses connections; is `bench gpu-exporter` \(or a .* --gpu-metrics right\?$"
    with pytest.raises(TargetUnusable, match=said):
        remote_watch([nobody], 0.2, lambda sample: None, NOBODY)


@pytest.mark.parametrize("url", ["gpu-host:9433", "ftp://h", "http://user:pw@h", "http://"])
def test_what_is_no_address_is_bad_input(url: str) -> None:
    with pytest.raises(BadInput, match=r"^--gpu-metrics ") as caught:
        remote_watch([url], 0.2, lambda sample: None, NOBODY)
    assert "pw" not in str(caught.value)


def test_an_address_that_is_named_twice_is_bad_input() -> None:
    with pytest.raises(BadInput, match="twice"):
        remote_watch(["http://127.0.0.1:1", "http://127.0.0.1:1/metrics"], 0.2, lambda sample: None, NOBODY)


def test_readings_that_fail_cost_samples_and_are_counted() -> None:
    got: list[GpuSample] = []
    asked = 0

    def flaky(request: Asked) -> tuple[int, bytes]:
        nonlocal asked
        asked += 1
        bad = [(500, b""), (200, b"<html>"), (200, exposed({"GPU-a": {"power": 1.0}})[:-40])]
        return bad[asked % 3] if asked % 2 == 0 else (200, exposed({"GPU-a": {"power": float(asked)}}))

    with answering(flaky) as url:
        facts = carried_out(remote_watch([url], 0.03, got.append, NOBODY), 0.5)
    place = facts["exporters"][0]
    assert place["failures"] >= 5
    assert place["last_failure"]
    assert len(got) == facts["samples"] >= 5
    assert any(f"failed {place['failures']} of" in note for note in facts["notes"])


def test_an_exporter_that_is_gone_is_never_fatal() -> None:
    got: list[GpuSample] = []
    with answering(serves(lambda: exposed({"GPU-a": {"power": 1.0}}))) as url:
        watch = remote_watch([url], 0.05, got.append, NOBODY)
        watch.begin()
    facts = carried_out(watch, 0.3)
    assert len(got) == 1
    assert facts["exporters"][0]["failures"] >= 3
    assert "refuses connections" in facts["notes"][0]
    assert facts["gpus"][0]["gpu"] == "GPU-a"


def test_a_clock_that_makes_no_sense_costs_the_reading() -> None:
    body = exposed({"GPU-a": {"power": 1.0}})
    absurd = body.replace(b"servemark_gpu_answered_at_ns ", b"servemark_gpu_answered_at_ns 9", 1)
    absurd = absurd.split(b"# HELP servemark_gpu_answered")[0] + b"servemark_gpu_answered_at_ns 9e17\n"
    with answering(serves(absurd)) as url, pytest.raises(TargetUnusable, match="clock ran further"):
        remote_watch([url], 0.05, lambda sample: None, NOBODY)


async def test_a_sink_that_fails_is_not_hidden() -> None:
    def fail(sample: GpuSample) -> None:
        raise OSError("disk full")

    with answering(serves(lambda: exposed({"GPU-a": {"power": 1.0}}))) as url:
        watch = await asyncio.to_thread(remote_watch, [url], 0.05, fail, NOBODY)
        with pytest.raises(OSError, match="disk full"):
            await asyncio.wait_for(watch.run(), 20)


def test_a_slow_exporter_holds_up_no_other() -> None:
    got: list[GpuSample] = []
    asked = 0

    def slow(request: Asked) -> tuple[int, bytes]:
        nonlocal asked
        asked += 1
        if asked > 12:  # after what is asked before the run
            import time

            time.sleep(0.4)
        return 200, exposed({"GPU-slow": {"power": 1.0}})

    with answering(slow) as one, answering(serves(lambda: exposed({"GPU-quick": {"power": 1.0}}))) as two:
        watch = remote_watch([one, two], 0.05, got.append, NOBODY)
        carried_out(watch, 1.0)
    quick = [sample for sample in got if sample.gpu == "GPU-quick"]
    assert len(quick) >= 10
    assert len([sample for sample in got if sample.gpu == "GPU-slow"]) < len(quick)


# Keys, and which GPUs


def test_a_key_goes_to_the_servers_own_host_only() -> None:
    seen: list[str | None] = []

    def told(asked: Asked) -> tuple[int, bytes]:
        seen.append(asked.headers.get("Authorization"))
        return 200, exposed({"GPU-a": {"power": 1.0}})

    key = (("Authorization", "Bearer k"),)
    with answering(told) as url:
        remote_watch([url], 0.1, lambda sample: None, Access(("http://127.0.0.1:8000",), key))
        remote_watch([url], 0.1, lambda sample: None, Access(("http://127.0.0.2:8000",), key))
    assert seen == ["Bearer k", None]


@pytest.mark.parametrize(("chosen", "there"), [(("1",), {OTHER}), ((A100.lower(),), {A100}), ((), {A100, OTHER})])
def test_gpus_can_be_chosen_by_index_or_uuid(chosen: Sequence[str], there: set[str]) -> None:
    got: list[GpuSample] = []
    with answering(serves(DEFAULT)) as url:
        facts = carried_out(remote_watch([url], 0.05, got.append, NOBODY, chosen), 0.1)
    assert {sample.gpu for sample in got} == there == {gpu["gpu"] for gpu in facts["gpus"]}


def test_the_instances_of_a_chosen_gpu_come_with_it() -> None:
    got: list[GpuSample] = []
    with answering(serves((TRANSCRIPTS / "dcgm-mig.txt").read_bytes())) as url:
        carried_out(remote_watch([url], 0.05, got.append, NOBODY, ["0"]), 0.1)
    assert len({sample.gpu for sample in got}) == 3


def test_all_of_a_choice_that_is_nowhere_is_said() -> None:
    with answering(serves(DEFAULT)) as url:
        facts = carried_out(remote_watch([url], 0.05, lambda sample: None, NOBODY, ["7"]), 0.1)
    assert facts["gpus"] == []
    assert any("7" in note and A100 in note for note in facts["notes"])


# Two accounts of one GPU


def test_what_one_exporter_lacks_comes_from_the_other() -> None:
    got: list[GpuSample] = []
    ours = {A100: {"power": 300.0, "utilisation": 0.5}}
    with answering(serves(DEFAULT)) as dcgm, answering(serves(lambda: exposed(ours))) as own:
        facts = carried_out(remote_watch([dcgm, own], 0.05, got.append, NOBODY), 0.5)
    of_it = [sample for sample in got if sample.gpu == A100]
    assert {sample.values["power"] for sample in of_it if "power" in sample.values} == {300.0}
    assert any(sample.values.get("dram_active") == 0.612345 for sample in of_it)
    described = {gpu["gpu"]: gpu for gpu in facts["gpus"]}
    by_url = described[A100]["sources"]
    assert by_url[f"{own}/metrics"] == ["power", "utilisation"]
    assert "dram_active" in by_url[f"{dcgm}/metrics"]
    assert "power" not in by_url[f"{dcgm}/metrics"]
    assert "power" in described[OTHER]["sources"][f"{dcgm}/metrics"]
    assert described[A100]["name"] == "NVIDIA A100-SXM4-80GB"
    assert facts["source"] == "gpu-exporter + dcgm"
    assert "dram_active" not in facts["missing"]


class Scripted:
    """A GpuWatch that hands on what it is told to."""

    def __init__(self, hand: Callable[[GpuSample], None], source: str, samples: Sequence[GpuSample], **facts: Any):
        self._hand, self._samples = hand, samples
        self._facts = {"source": source, "period_s": 1.0, "samples": 9, "gpus": [], "notes": [], "missing": {}, **facts}
        self.ended = 0

    def begin(self) -> None: ...

    async def run(self) -> None:
        for sample in self._samples:
            self._hand(sample)
            await asyncio.sleep(0)
        await asyncio.Event().wait()

    def end(self) -> None:
        self.ended += 1

    def facts(self) -> dict[str, Any]:
        return self._facts


def sample(at_ns: int, gpu: str = "GPU-a", **values: float) -> GpuSample:
    return GpuSample(at_ns, gpu, values)


def scripted(source: str, *samples: GpuSample, **facts: Any) -> Callable[[Callable[[GpuSample], None]], GpuWatch]:
    return lambda hand: Scripted(hand, source, samples, **facts)


def test_nvml_is_believed_and_dcgm_adds_what_it_lacks() -> None:
    got: list[GpuSample] = []
    nvml = scripted(
        "nvml",
        *(sample(at, power=100.0 + at, energy=5.0) for at in range(5)),
        gpus=[{"gpu": "GPU-a", "index": 0, "name": "NVIDIA A100", "driver": None}],
        missing={"dram_active": "no GPM", "nvlink_rx": "no NVLink"},
        notes=["of nvml"],
    )
    dcgm = scripted(
        "dcgm",
        *(sample(10 + at, power=1.0, dram_active=0.5) for at in range(2)),
        sample(20, "GPU-b", power=7.0),
        gpus=[{"gpu": "GPU-a", "index": 0, "driver": "550"}, {"gpu": "GPU-b", "index": 1}],
        missing={"nvlink_rx": "not on"},
        notes=["of dcgm"],
        clocks=["c"],
    )
    facts = carried_out(merged_watch(nvml, dcgm, got.append), 0.2)
    assert [each.values for each in got if each.gpu == "GPU-a" and each.at_ns >= 10] == [{"dram_active": 0.5}] * 2
    assert len([each for each in got if "power" in each.values and each.gpu == "GPU-a"]) == 5
    assert [each.values for each in got if each.gpu == "GPU-b"] == [{"power": 7.0}]
    assert (facts["source"], facts["samples"], facts["period_s"]) == ("nvml + dcgm", len(got), 1.0)
    first, second = facts["gpus"]
    assert first["sources"] == {"nvml": ["energy", "power"], "dcgm": ["dram_active"]}
    assert (first["name"], first["driver"]) == ("NVIDIA A100", "550")
    assert second["sources"] == {"dcgm": ["power"]}
    assert facts["missing"]["nvlink_rx"] == "no NVLink; not on"
    assert facts["notes"] == ["of nvml", "of dcgm"]
    assert facts["clocks"] == ["c"]


def test_a_field_that_one_gpu_of_two_has_is_still_missing_of_the_other() -> None:
    nvml = scripted("nvml", sample(1, power=1.0), gpus=[{"gpu": "GPU-a"}], missing={"dram_active": "no GPM"})
    dcgm = scripted("dcgm", sample(2, "GPU-b", dram_active=0.5), gpus=[{"gpu": "GPU-b"}])
    facts = carried_out(merged_watch(nvml, dcgm, lambda sample: None), 0.1)
    assert facts["missing"] == {"dram_active": "no GPM"}


def test_without_gpus_here_it_is_the_others_account_alone() -> None:
    got: list[GpuSample] = []
    none = scripted("nvml", notes=["there is no NVIDIA driver here"])
    dcgm = scripted("dcgm", sample(1, power=7.0), gpus=[{"gpu": "GPU-a"}])
    facts = carried_out(merged_watch(none, dcgm, got.append), 0.1)
    assert [each.values for each in got] == [{"power": 7.0}]
    assert (facts["source"], facts["notes"]) == ("dcgm", [])


def test_samples_that_waited_for_a_better_account_are_not_lost_when_it_never_comes() -> None:
    got: list[GpuSample] = []
    silent = scripted("nvml", gpus=[{"gpu": "GPU-a"}])
    dcgm = scripted("dcgm", *(sample(at, power=7.0) for at in range(3)), gpus=[{"gpu": "GPU-a"}])
    watch = merged_watch(silent, dcgm, got.append)
    facts = carried_out(watch, 0.1)
    assert [each.at_ns for each in got] == [0, 1, 2]
    assert facts["samples"] == 3


def test_no_more_is_held_back_than_there_is_room_for() -> None:
    got: list[GpuSample] = []
    merger = Merger(got.append, ["a", "b"])
    merger.expect(0, {"GPU-a"})
    for at_ns in range(2500):
        merger.take(1, sample(at_ns, power=1.0))
    assert len(got) >= 1500
    merger.release()
    assert [each.at_ns for each in got] == list(range(2500))


def test_every_field_passes_through_unchanged() -> None:
    everything = dict.fromkeys(GPU_FIELDS, 0.25)
    got: list[GpuSample] = []
    with answering(serves(lambda: exposed({"GPU-a": everything}))) as url:
        carried_out(remote_watch([url], 0.1, got.append, NOBODY), 0.1)
    assert got
    assert all(each.values == everything for each in got)


@pytest.fixture
def watch() -> Iterator[RemoteWatch]:
    with answering(serves(DEFAULT)) as url:
        made = remote_watch([url], 0.1, lambda sample: None, NOBODY)
        assert isinstance(made, RemoteWatch)
        yield made


def test_ending_twice_or_without_a_beginning_is_harmless(watch: RemoteWatch) -> None:
    watch.end()
    watch.end()
    assert watch.facts()["gpus"]

"""NVML is read rightly, in our units, and what it does not tell is said: on the real pynvml over a fake library."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.harness.clock import SECOND, now_ns
from servemark.harness.gpu import gpm, library, readings
from servemark.harness.gpu.fields import GPU_FIELDS
from servemark.harness.gpu.nvml import Reader
from servemark.harness.gpu.reasons import HARMFUL, REASONS, harmful, mask, reasons
from servemark.harness.types import GpuSample
from tests.fake_nvml import DRIVER_NOT_LOADED, MIB, NO_PERMISSION, Case, FakeGpu, installed

A100 = FakeGpu(uuid="GPU-a100", name="NVIDIA A100-SXM4-80GB", gpm="absent")
KIB_PER_S = 50_000_000  # 51.2 GB/s over NVLink
OF_GPM = set(gpm.METRICS)


def facts(case: Case, rounds: int = 3, gap_s: float = 0.2, chosen: tuple[str, ...] = ()) -> dict[str, Any]:
    return run(case, rounds, gap_s, chosen)[1]


def run(
    case: Case, rounds: int = 3, gap_s: float = 0.2, chosen: tuple[str, ...] = ()
) -> tuple[list[list[GpuSample]], dict[str, Any]]:
    """So many readings, and the facts after the last one."""
    with installed(case):
        reader = Reader(gap_s, chosen)
        found = []
        for place in range(rounds):
            if place:
                time.sleep(gap_s)
            found.append(reader.read())
        told = reader.facts()
        reader.close()
        return found, told


def test_every_field_of_a_hopper_is_told_in_our_units() -> None:
    before_ns = now_ns()
    (first, second), told = run(Case(), rounds=2)
    values = second[0].values
    assert set(values) == set(GPU_FIELDS)
    energy = values.pop("energy")
    assert values == {
        "utilisation": 0.97,
        "memory_busy": 0.45,
        "memory_used": 70_000 * MIB,
        "power": 655.0,
        "sm_clock": 1755.0,
        "memory_clock": 2619.0,
        "temperature": 64.0,
        "throttle": 0.0,
        "pcie_tx": 100 * MIB,
        "pcie_rx": 200 * MIB,
        "nvlink_rx": 3000 * MIB,
        "nvlink_tx": 4000 * MIB,
        "dram_active": 0.625,
        "sm_active": 0.8,
        "sm_occupancy": 0.4,
        "tensor_active": 0.3,
    }
    assert set(first[0].values) == set(GPU_FIELDS) - OF_GPM  # a mean needs a sample before it
    seconds = (second[0].at_ns - first[0].at_ns) / SECOND
    assert (energy - first[0].values["energy"]) / seconds == pytest.approx(612.0, rel=0.05)
    assert before_ns < first[0].at_ns < second[0].at_ns < now_ns()
    assert (told["missing"], told["notes"], told["samples"]) == ({}, [], 2)


def test_the_facts_say_what_was_read() -> None:
    told = facts(Case(), rounds=2)
    (gpu,) = told["gpus"]
    assert gpu["gpm"] is True
    assert gpu["peak_bytes_per_s"] == pytest.approx(2 * 2619e6 * 5120 / 8)  # 3.35 TB/s
    assert {name: gpu[name] for name in ("index", "name", "memory_bytes", "driver", "cuda", "mig", "lost")} == {
        "index": 0,
        "name": "NVIDIA H100 80GB HBM3",
        "memory_bytes": 81_559 * MIB,
        "driver": "570.86.15",
        "cuda": "12.8",
        "mig": False,
        "lost": None,
    }
    assert (gpu["power_limit_w"], gpu["power_reads"]) == (700.0, "instant")


def test_gpm_has_a_floor_under_its_period() -> None:
    """Two samples closer than NVML allows tell nonsense: a faster reading leaves GPM's fields out, not the others."""
    found, told = run(Case(), rounds=6, gap_s=0.1)
    assert told["gpm_period_s"] == 0.2
    with_gpm = [set(sample.values) >= OF_GPM for (sample,) in found]
    assert with_gpm == [False, False, True, False, True, False]
    assert all("power" in sample.values for (sample,) in found)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("absent", "has no GPM"),
        ("old", "sample of it fails (function not found)"),
        ("lying", "sample of it fails (unknown error)"),
        ("refused", "sample of it fails (insufficient permissions)"),
    ],
)
def test_without_gpm_the_rest_is_read_and_why_is_said(kind: str, why: str) -> None:
    found, told = run(Case((FakeGpu(gpm=kind),)))
    assert set(found[-1][0].values) == set(GPU_FIELDS) - OF_GPM
    assert told["gpus"][0]["gpm"] is False
    assert all(why in told["missing"][name] for name in OF_GPM)


def test_zeros_are_no_bandwidth_while_kernels_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox may say yes to GPM and count nothing; a run's MBU of 0 would be a lie."""
    monkeypatch.setattr(gpm, "_DOUBTS", 2)
    found, told = run(Case((FakeGpu(gpm="zeros"),)), rounds=4)
    assert not any(OF_GPM & set(sample.values) for (sample,) in found)
    assert "nothing but zeros" in told["missing"]["dram_active"]
    assert told["gpus"][0]["gpm"] is False


def test_zeros_of_an_idle_gpu_are_zeros() -> None:
    found, told = run(Case((FakeGpu(gpm="zeros", utilisation=0),)), rounds=2)
    assert found[1][0].values["dram_active"] == 0.0
    assert told["gpus"][0]["gpm"] is None  # nothing is proven yet


def test_each_metric_of_gpm_has_its_own_word() -> None:
    """-9 stands for one that the fake refuses."""
    gpu = FakeGpu(gpm_values={"60": -9, "61": -9, "10": 140.0, "5": float("nan")})
    found, told = run(Case((gpu,)), rounds=2)
    assert OF_GPM - set(found[1][0].values) == {"nvlink_rx", "nvlink_tx", "dram_active", "tensor_active"}
    assert "(not supported)" in told["missing"]["nvlink_rx"]
    assert told["missing"]["dram_active"] == told["missing"]["tensor_active"] == "GPM told a value that cannot be"


def test_nvlink_without_gpm_is_of_all_links() -> None:
    gpu = FakeGpu(gpm="absent", fields={"138": [3, KIB_PER_S], "139": [3, 2 * KIB_PER_S]})
    found, _ = run(Case((gpu,)))
    assert found[-1][0].values["nvlink_tx"] == pytest.approx(KIB_PER_S * 1024, rel=0.05)
    assert found[-1][0].values["nvlink_rx"] == pytest.approx(2 * KIB_PER_S * 1024, rel=0.05)


def test_pcie_without_gpm_is_a_counter_that_may_wrap() -> None:
    """15.75 GB/s at most (PCIe 4, 8 lanes): within 0.2 s 32 bits wrap at most once, within 0.4 s nobody knows."""
    gpu = FakeGpu(gpm="absent", fields={"197": [1, 14e9], "198": [3, 1e9]})
    found, told = run(Case((gpu,)), rounds=6)
    for (sample,) in found[1:]:
        assert sample.values["pcie_tx"] == pytest.approx(14e9, rel=0.05)
        assert sample.values["pcie_rx"] == pytest.approx(1e9, rel=0.05)
    assert "pcie_tx" not in told["missing"]
    slow, told = run(Case((gpu,)), rounds=2, gap_s=0.4)
    assert "pcie_tx" not in slow[1][0].values
    assert "may wrap more than once" in told["missing"]["pcie_tx"]


@given(st.integers(0, 2**34), st.integers(0, 2**31))
def test_a_counter_of_32_bits_gives_what_moved(start: int, moved: int) -> None:
    rate = readings.Rate("x", 1, 1.0, most_per_s=2**31 + 1.0)
    told: Iterator[int] = iter((start % 2**32, (start + moved) % 2**32))
    stamps: Iterator[int] = iter((7 * SECOND, 8 * SECOND))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(readings, "field_value", lambda *_: (float(next(told)), 1))
        patched.setattr(readings, "now_ns", lambda: next(stamps))
        assert rate(None, None) == {}
        assert rate(None, None) == {"x": float(moved)}


def test_power_is_the_instantaneous_one_where_there_is_one() -> None:
    found, told = run(Case((FakeGpu(instant_mw=None),)), rounds=1)
    assert found[0][0].values["power"] == 612.0
    assert "averages" in told["gpus"][0]["power_reads"]


def test_what_a_gpu_does_not_tell_is_left_out_and_said() -> None:
    calls = ("nvmlDeviceGetPowerUsage", "nvmlDeviceGetTotalEnergyConsumption")
    found, told = run(Case((FakeGpu(instant_mw=None, missing=calls),)), rounds=1)
    assert {"power", "energy"} & set(found[0][0].values) == set()
    assert told["missing"]["power"] == told["missing"]["energy"]
    assert told["missing"]["energy"] == "NVML does not tell it of this GPU (not supported)"


def test_an_old_driver_tells_used_memory_its_way() -> None:
    found, _ = run(Case((FakeGpu(memory_v2=False),)), rounds=1)
    assert found[0][0].values["memory_used"] == 71_000 * MIB


def test_a_lost_gpu_ends_and_the_others_go_on() -> None:
    lost = FakeGpu(uuid="GPU-lost", lost_after=4)
    found, told = run(Case((lost, A100)), rounds=4, gap_s=0.05)
    assert [[sample.gpu for sample in samples] for samples in found] == [
        ["GPU-lost", "GPU-a100"],
        ["GPU-lost", "GPU-a100"],
        ["GPU-a100"],
        ["GPU-a100"],
    ]
    gpu = told["gpus"][0]["lost"]
    assert gpu["why"] == "GPU is lost"
    assert 0.09 < gpu["after_s"] < 0.5
    assert told["notes"] == [f"GPU 0 was lost {gpu['after_s']:.1f} s after its sampling began (GPU is lost)"]
    assert told["gpus"][1]["lost"] is None


def test_a_gpu_that_cannot_be_opened_is_a_note() -> None:
    broken = FakeGpu(uuid="GPU-broken", missing=("nvmlDeviceGetUUID",))
    found, told = run(Case((broken, A100)), rounds=1)
    assert [sample.gpu for sample in found[0]] == ["GPU-a100"]
    assert told["notes"] == ["GPU 0 cannot be read (not supported)"]


def test_what_differs_between_gpus_names_them() -> None:
    told = facts(Case((FakeGpu(), A100, FakeGpu(uuid="GPU-b", gpm="absent"))), rounds=2)
    assert told["missing"]["dram_active"] == "GPU 1, GPU 2: this GPU has no GPM (it takes Hopper or newer)"


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ((), ["GPU-aaaa0000-0000-4000-8000-000000000000", "GPU-a100"]),
        (("1",), ["GPU-a100"]),
        (("gpu-A100",), ["GPU-a100"]),
        (("GPU-aaaa",), ["GPU-aaaa0000-0000-4000-8000-000000000000"]),
        (("1", "0", "1"), ["GPU-aaaa0000-0000-4000-8000-000000000000", "GPU-a100"]),
    ],
)
def test_gpus_are_chosen_by_index_and_uuid(chosen: tuple[str, ...], expected: list[str]) -> None:
    found, told = run(Case((FakeGpu(), A100)), rounds=1, chosen=chosen)
    assert [sample.gpu for sample in found[0]] == expected
    assert [gpu["gpu"] for gpu in told["gpus"]] == expected
    assert told["notes"] == []


@pytest.mark.parametrize(("name", "why"), [("7", "there is none"), ("GPU-a", "several have that beginning")])
def test_a_gpu_that_is_not_there_is_a_note_and_no_other_is_read(name: str, why: str) -> None:
    found, told = run(Case((FakeGpu(), A100)), rounds=1, chosen=(name,))
    assert found == [[]]
    assert why in told["notes"][0]
    assert "1 (GPU-a100)" in told["notes"][0]


def test_under_mig_each_figure_is_of_what_it_is_told_of() -> None:
    found, told = run(Case((FakeGpu(mig=(3, 5)),)), rounds=2)
    whole, one, two = found[1]
    assert (one.gpu, two.gpu) == (
        "MIG-3aaaa0000-0000-4000-8000-000000000000",
        "MIG-5aaaa0000-0000-4000-8000-000000000000",
    )
    assert {"utilisation", "memory_busy", "dram_active"} & set(whole.values) == set()
    assert {"power", "energy", "temperature", "throttle"} <= set(whole.values)
    assert set(one.values) == {"memory_used"} | OF_GPM
    assert [gpu.get("part_of") for gpu in told["gpus"]] == [None, whole.gpu, whole.gpu]
    assert [gpu["index"] for gpu in told["gpus"]] == [0, "0:0", "0:1"]
    assert "MIG is on" in told["missing"]["utilisation"]
    assert told["notes"] == [
        "GPU 0 is split by MIG: memory and GPM are of its instances, power and clocks of the whole"
    ]


def test_a_gpu_chosen_brings_its_mig_instances_and_an_instance_comes_alone() -> None:
    case = Case((FakeGpu(mig=(3, 5)), A100))
    assert len(run(case, rounds=1, chosen=("0",))[0][0]) == 3
    (only,) = run(case, rounds=1, chosen=("MIG-5aaaa",))[0][0]
    assert only.gpu.startswith("MIG-5")


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (DRIVER_NOT_LOADED, "the NVIDIA driver is not loaded, so no GPU was read"),
        (NO_PERMISSION, "NVML refuses this user (no permission for /dev/nvidiactl?), so no GPU was read"),
        (999, "NVML does not start (unknown error), so no GPU was read"),
    ],
)
def test_nvml_that_does_not_start_is_one_sentence(code: int, sentence: str) -> None:
    found, told = run(Case(init=code), rounds=1)
    assert found == [[]]
    assert (told["notes"], told["gpus"], told["samples"]) == ([sentence], [], 0)


def test_a_driver_without_gpus_says_so() -> None:
    assert facts(Case(()), rounds=1)["notes"] == ["the NVIDIA driver is here and finds no GPU"]


@pytest.mark.skipif(library.library_there(), reason="this machine has a driver")
def test_without_a_driver_there_is_one_sentence() -> None:
    reader = Reader(0.2)
    assert reader.read() == []
    assert reader.facts()["notes"] == [library.NO_LIBRARY]
    reader.close()


def test_buffers_are_given_back() -> None:
    with installed(Case((FakeGpu(), FakeGpu(uuid="GPU-b")))) as fake:
        reader = Reader(0.2)
        reader.read()
        reader.close()
        reader.close()
        assert (fake.calls["nvmlGpmSampleAlloc"], fake.freed, fake.calls["nvmlShutdown"]) == (4, 4, 1)


def test_throttle_reasons_are_nvmls() -> None:
    import pynvml

    names = {
        "idle": "nvmlClocksEventReasonGpuIdle",
        "clocks_setting": "nvmlClocksEventReasonApplicationsClocksSetting",
        "sw_power_cap": "nvmlClocksEventReasonSwPowerCap",
        "hw_slowdown": "nvmlClocksEventReasonHwSlowdown",
        "sync_boost": "nvmlClocksEventReasonSyncBoost",
        "sw_thermal": "nvmlClocksEventReasonSwThermalSlowdown",
        "hw_thermal": "nvmlClocksEventReasonHwThermalSlowdown",
        "hw_power_brake": "nvmlClocksEventReasonHwPowerBrakeSlowdown",
        "display_clock": "nvmlClocksEventReasonDisplayClockSetting",
        "board_limit": "nvmlClocksThrottleReasonBoardLimit",
        "reliability": "nvmlClocksThrottleReasonReliability",
    }
    known = {name: getattr(pynvml, theirs) for name, theirs in names.items() if hasattr(pynvml, theirs)}
    assert len(known) >= 9  # the last two are younger than the oldest nvidia-ml-py that is allowed
    assert known.items() <= {reason.name: reason.bit for reason in REASONS}.items()
    assert pynvml.nvmlClocksThrottleReasonAll == sum(known.values())


def test_harmless_reasons_are_told_from_harmful_ones() -> None:
    assert not harmful(0x1 | 0x2 | 0x10 | 0x100)
    assert all(harmful(bit) for bit in (0x4, 0x8, 0x20, 0x40, 0x80))
    assert [reason.name for reason in reasons(0x48)] == ["hw_slowdown", "hw_thermal"]
    assert mask("hardware", "thermal", "power", "harmless") == 0x7FF
    assert mask("hardware") | mask("thermal", "power") == HARMFUL


PAGE = (Path(__file__).parents[1] / "docs" / "gpu.md").read_text()


def test_the_docs_name_each_throttle_reason() -> None:
    rows = re.findall(r"^\| (0x\w+) \| `(\w+)` \| (\w+) \| (.+) \|$", PAGE, re.M)
    assert rows == [(hex(each.bit), each.name, each.kind, each.words) for each in REASONS]


def test_the_docs_name_each_field_with_its_unit() -> None:
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (\S+) \| (?:NVML|GPM)", PAGE, re.M)
    told = {name: unit for names, unit in rows for name in re.findall(r"\w+", names)}
    assert told == {name: field.unit or "bits" for name, field in GPU_FIELDS.items()}

"""A dcgm-exporter's text becomes our fields in our units, and what it does not tell is no zero."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.harness.gpu.answers import Answer
from servemark.harness.gpu.dcgm import COUNTERS, DCGM, is_dcgm, read
from servemark.harness.gpu.fields import GPU_FIELDS
from servemark.harness.server.prometheus import parse_metrics

TRANSCRIPTS = Path(__file__).parent / "transcripts"
A100 = "GPU-5f3b1c2e-8d40-4a7e-9a61-0c2f6b7d1e01"
OTHER = "GPU-5f3b1c2e-8d40-4a7e-9a61-0c2f6b7d1e02"
H100 = "GPU-a9d0c4f7-1b22-4c33-8d44-5e55f6660001"
SPLIT = "GPU-c4a1d7e0-2233-4455-8866-778899aabb00"


def told(name: str) -> Answer:
    return read(parse_metrics((TRANSCRIPTS / name).read_bytes()))


def values(answer: Answer) -> dict[str, dict[str, float]]:
    return {reading.gpu: dict(reading.values) for reading in answer.readings}


def line(name: str, value: object, **labels: str) -> str:
    inside = ",".join(f'{key}="{text}"' for key, text in ({"gpu": "0", "UUID": "GPU-x"} | labels).items())
    return f"{name}{{{inside}}} {value}\n"


def of(text: str) -> dict[str, dict[str, float]]:
    return values(read(parse_metrics(text)))


def test_the_counters_that_are_on_by_default_in_our_units() -> None:
    answer = told("dcgm-4.8-default.txt")
    assert values(answer)[A100] == {
        "utilisation": 0.97,
        "memory_busy": 0.46,
        "memory_used": 73011 * 1024**2,
        "power": 331.845,
        "energy": pytest.approx(28_462_915.380),
        "sm_clock": 1410,
        "memory_clock": 1593,
        "temperature": 61,
        "pcie_rx": 97_863_601,
        "pcie_tx": 33_011_804,
        "dram_active": 0.612345,
        "tensor_active": 0.284103,
    }
    assert values(answer)[OTHER]["dram_active"] == 0.65
    assert answer.asked_ns is None
    assert [reading.at_ns for reading in answer.readings] == [None, None]


def test_what_the_default_leaves_out_is_named_with_the_counter_that_tells_it() -> None:
    missing = told("dcgm-4.8-default.txt").facts["missing"]
    assert set(missing) == {"sm_active", "sm_occupancy", "throttle", "nvlink_rx", "nvlink_tx"}
    assert "DCGM_FI_PROF_SM_ACTIVE" in missing["sm_active"]


def test_the_names_and_units_of_4_9_say_the_same() -> None:
    answer = told("dcgm-4.9-profiling.txt")
    assert values(answer) == {
        H100: {
            "utilisation": 0.98,
            "memory_busy": 0.55,
            "memory_used": 70 * 1024**3,
            "power": 612.25,
            "energy": 48_211_977,
            "sm_clock": pytest.approx(1755),
            "memory_clock": pytest.approx(2619),
            "temperature": 64,
            "throttle": 4,
            "pcie_rx": 100 * 1024**2,
            "pcie_tx": 50 * 1024**2,
            "nvlink_rx": 2900 * 1024**2,
            "nvlink_tx": 3000 * 1024**2,
            "dram_active": 0.7025,
            "sm_active": 0.8712,
            "sm_occupancy": 0.2143,
            "tensor_active": 0.331,
        }
    }
    assert answer.facts["missing"] == {}


def test_a_gpu_is_described_by_its_labels() -> None:
    first, second = told("dcgm-4.8-default.txt").facts["gpus"]
    assert first == {
        "gpu": A100,
        "index": 0,
        "name": "NVIDIA A100-SXM4-80GB",
        "host": "gpu-node-1",
        "memory_bytes": (8191 + 73011 + 718) * 1024**2,
        "driver": "550.90.07",
        "mig": False,
    }
    assert second["index"] == 1
    (newer,) = told("dcgm-4.9-profiling.txt").facts["gpus"]
    assert (newer["memory_bytes"], newer["driver"], newer["host"]) == (85_520_809_984, "580.105.08", "gpu-node-2")


def test_mig_instances_are_told_apart_and_the_boards_power_is_counted_once() -> None:
    answer = told("dcgm-mig.txt")
    found = values(answer)
    assert set(found) == {SPLIT, f"{SPLIT}/3", f"{SPLIT}/1"}
    assert found[SPLIT] == {
        "power": 212.5,
        "energy": pytest.approx(9_000_500.25),
        "sm_clock": 1410,
        "temperature": 48,
    }
    assert found[f"{SPLIT}/3"] == {"memory_used": 15968 * 1024**2, "dram_active": 0.33, "tensor_active": 0.11}
    assert found[f"{SPLIT}/1"] == {"memory_used": 30192 * 1024**2, "dram_active": 0.44, "tensor_active": 0.22}
    described = {each["gpu"]: each for each in answer.facts["gpus"]}
    assert described[SPLIT]["mig"] is True
    assert described[SPLIT]["memory_bytes"] is None
    instance = described[f"{SPLIT}/3"]
    assert (instance["index"], instance["part_of"], instance["profile"]) == ("0/3", SPLIT, "2g.20gb")
    assert instance["memory_bytes"] == (4000 + 15968) * 1024**2
    assert "split by MIG" in answer.facts["notes"][0]


def test_every_field_that_dcgm_knows_is_one_of_ours() -> None:
    assert set(COUNTERS) == set(GPU_FIELDS)


@pytest.mark.parametrize(
    "blank", ["9223372036854775792", "9223372036854775794", "140737488355328", "140737488355330.000000", "2147483632"]
)
def test_dcgms_words_for_not_told_are_no_values(blank: str) -> None:
    text = line("DCGM_FI_DEV_POWER_USAGE", 100) + line("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", blank)
    assert of(text) == {"GPU-x": {"power": 100}}


@pytest.mark.parametrize("absurd", ["NaN", "+Inf", "-Inf", "-3", "1.2", "87"])
def test_what_cannot_be_is_not_told(absurd: str) -> None:
    """87 is a percentage: for some releases that was what the name stood for."""
    text = line("DCGM_FI_DEV_POWER_USAGE", 100)
    assert of(text + line("DCGM_FI_DEV_GPU_UTIL_RATIO", absurd)) == {"GPU-x": {"power": 100}}
    assert of(text + line("DCGM_FI_PROF_DRAM_ACTIVE", absurd)) == {"GPU-x": {"power": 100}}


def test_a_counter_of_all_bytes_ever_is_no_rate() -> None:
    text = line("DCGM_FI_DEV_POWER_USAGE", 100) + line("DCGM_FI_PROF_PCIE_TX_BYTES", 9_000_000_000_000)
    assert of(text) == {"GPU-x": {"power": 100}}


def test_the_first_of_several_series_of_a_gpu_stands() -> None:
    """A GPU that several pods share is told once for each of them."""
    text = line("DCGM_FI_DEV_POWER_USAGE", 100, pod="a") + line("DCGM_FI_DEV_POWER_USAGE", 100, pod="b")
    assert of(text) == {"GPU-x": {"power": 100}}


def test_switches_links_and_processors_are_no_gpus() -> None:
    text = line("DCGM_FI_DEV_POWER_USAGE", 100) + line("DCGM_FI_DEV_POWER_USAGE", 7, UUID="", cpu="0")
    assert of(text) == {"GPU-x": {"power": 100}}


def test_a_gpu_without_a_uuid_goes_by_its_host_and_index() -> None:
    assert of('DCGM_FI_DEV_POWER_USAGE{gpu="3",Hostname="n"} 5\n') == {"n:3": {"power": 5}}


def test_other_metrics_are_none_of_its_and_no_known_field_is_an_error() -> None:
    assert not is_dcgm(parse_metrics("process_cpu_seconds_total 1\n"))
    with pytest.raises(ValueError, match="counters file"):
        read(parse_metrics(line("DCGM_FI_DEV_XID_ERRORS", 0)))


def test_labels_are_made_harmless() -> None:
    text = line("DCGM_FI_DEV_POWER_USAGE", 1, UUID="GPU-" + "x" * 5000, modelName="\x1b[2J<script>\x07", gpu="9" * 4000)
    answer = read(parse_metrics(text))
    (described,) = answer.facts["gpus"]
    assert len(described["gpu"]) <= 128
    assert len(described["index"]) <= 128
    assert "\x1b" not in described["name"]
    assert described["gpu"] == answer.readings[0].gpu


def test_more_gpus_than_there_can_be_are_refused() -> None:
    text = "".join(line("DCGM_FI_DEV_POWER_USAGE", 1, UUID=f"GPU-{number}") for number in range(1100))
    with pytest.raises(ValueError, match="more than"):
        read(parse_metrics(text))


@given(
    st.lists(
        st.tuples(
            st.sampled_from([counter.name for counters in COUNTERS.values() for counter in counters]),
            st.floats(allow_nan=True, allow_infinity=True),
            st.sampled_from(["", "0", "7", "x"]),
        ),
        min_size=1,
    )
)
def test_whatever_stands_there_becomes_possible_values_or_a_sentence(rows: list[tuple[str, float, str]]) -> None:
    text = "".join(line(name, value, GPU_I_ID=instance) for name, value, instance in rows)
    try:
        answer = DCGM.read(parse_metrics(text))
    except ValueError:
        return
    for reading in answer.readings:
        for field, value in reading.values.items():
            assert value >= 0
            assert value <= 1.05 or GPU_FIELDS[field].unit != "share"

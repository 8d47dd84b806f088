"""What a verdict makes of GPUs: sound ones pass, hot, capped, lost and silent ones do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from servemark.harness.gpu.reasons import REASONS
from servemark.harness.types import GpuSample
from servemark.harness.verdict.validity import Check, judge
from tests.frames import at
from tests.test_validity import check, evidence

FACTS: dict[str, Any] = {
    "period_s": 0.2,
    "gpus": [
        {"gpu": "GPU-a", "index": 0, "power_limit_w": 700.0, "default_power_limit_w": 700.0, "lost": None},
        {"gpu": "GPU-b", "index": 1, "power_limit_w": 500.0, "default_power_limit_w": 700.0, "lost": None},
    ],
}
BITS = {reason.name: reason.bit for reason in REASONS}


def readings(
    throttle: Callable[[int], float | None] = lambda i: 0.0,
    gpu: str = "GPU-a",
    until_ms: float = 16_000,
    every_ms: float = 200.0,
) -> tuple[GpuSample, ...]:
    """From before the run on; number 15 is the first in the window, which is 12 s long."""
    times = range(int(until_ms / every_ms))
    told = ((i, throttle(i)) for i in times)
    return tuple(
        GpuSample(at(i * every_ms), gpu, {"power": 600.0} | ({} if bits is None else {"throttle": bits}))
        for i, bits in told
    )


def judged(code: str, *gpus: tuple[GpuSample, ...], **facts: Any) -> Check:
    return check(code, gpu=tuple(sample for each in gpus for sample in each), gpu_facts=FACTS | facts)


def test_a_run_without_gpus_passes() -> None:
    assert check("gpu_throttled").message == "No GPU was read."
    assert check("gpu_lost").message == "No GPU was read, so none is known to be lost."


def test_sound_gpus_are_said_to_be_so() -> None:
    assert judged("gpu_throttled", readings()).message == "No GPU reported clocks held down by heat or power."


def test_sound_gpus_pass_without_a_warning() -> None:
    verdict = judge(evidence(gpu=(*readings(), *readings(gpu="GPU-b")), gpu_facts=FACTS))
    assert [each for each in verdict.checks if each.severity != "pass"] == []


@pytest.mark.parametrize("name", ["idle", "clocks_setting", "sync_boost", "display_clock", "reliability"])
def test_harmless_reasons_are_none(name: str) -> None:
    assert judged("gpu_throttled", readings(lambda i: BITS[name])).severity == "pass"


@pytest.mark.parametrize("name", ["hw_slowdown", "hw_thermal", "hw_power_brake", "sw_thermal"])
def test_heat_and_the_power_supply_warn_early_and_are_invalid_above_a_tenth(name: str) -> None:
    window = 60  # readings
    some = judged("gpu_throttled", readings(lambda i: BITS[name] * (i in (20, 21, 22))))
    assert (some.severity, some.value, some.threshold) == ("warning", pytest.approx(3 / window), 0.01)
    assert some.message.startswith("Heat or the power supply held the clocks of GPU 0 down for 5.0 % of the window (")
    many = judged("gpu_throttled", readings(lambda i: BITS[name] | 1 if i % 4 == 0 else 0))
    assert (many.severity, many.value, many.threshold) == ("invalid", pytest.approx(15 / window, abs=0.01), 0.1)


def test_only_the_window_counts() -> None:
    assert judged("gpu_throttled", readings(lambda i: BITS["hw_thermal"] * (i < 15))).severity == "pass"


def test_the_worst_gpu_is_named() -> None:
    found = judged("gpu_throttled", readings(), readings(lambda i: BITS["sw_thermal"] * (i == 40), gpu="GPU-b"))
    assert "GPU 1 down for 1.7 %" in found.message


def test_a_gpu_at_its_power_limit_warns_and_says_which_limit() -> None:
    own = judged("gpu_throttled", readings(lambda i: BITS["sw_power_cap"]))
    assert (own.severity, own.value, own.threshold) == ("warning", 1.0, 0.1)
    assert own.message == "GPU 0 was at its power limit of 700 W for 100 % of the window (the power limit is reached)."
    lowered = judged("gpu_throttled", readings(lambda i: BITS["sw_power_cap"], gpu="GPU-b"))
    assert "GPU 1 was at its power limit of 500 W, lowered from 700 W, for 100 %" in lowered.message
    seldom = judged("gpu_throttled", readings(lambda i: BITS["sw_power_cap"] * (i in (30, 40, 50))))
    assert seldom.severity == "pass"


def test_gpus_that_do_not_tell_are_not_judged() -> None:
    silent = judged("gpu_throttled", readings(lambda i: None))
    assert silent.message == "No GPU that was read tells whether its clocks are held down."
    mixed = judged("gpu_throttled", readings(lambda i: None), readings(lambda i: BITS["hw_thermal"], gpu="GPU-b"))
    assert mixed.severity == "invalid"


def test_a_lost_gpu_makes_the_run_invalid() -> None:
    lost = {**FACTS["gpus"][0], "lost": {"at_ns": at(9_000), "after_s": 9.0, "why": "GPU is lost"}}
    found = judged("gpu_lost", readings(until_ms=9_000), gpus=[lost, FACTS["gpus"][1]])
    assert (found.severity, found.value) == ("invalid", 1.0)
    assert found.message == "Lost in the run: GPU 0 (GPU is lost)."


def test_readings_that_end_early_warn() -> None:
    found = judged("gpu_lost", readings(until_ms=9_000), readings(gpu="GPU-b"))
    assert found.severity == "warning"
    assert found.value == pytest.approx(15.0 - 8.8, abs=0.2)
    assert "of GPU 0" in found.message
    assert judged("gpu_lost", readings(until_ms=12_000)).severity == "pass"


def test_a_slow_source_is_allowed_its_period() -> None:
    slow = readings(until_ms=16_000, every_ms=7_000)
    assert judged("gpu_lost", slow).severity == "warning"
    assert judged("gpu_lost", slow, period_s=7.0).severity == "pass"


def test_gpus_of_two_hosts_are_told_apart() -> None:
    """Each host counts from 0."""
    gpus = [{"gpu": "GPU-a", "index": 0}, {"gpu": "GPU-b", "index": 0}]
    found = judged("gpu_throttled", readings(), readings(lambda i: BITS["hw_thermal"], gpu="GPU-b"), gpus=gpus)
    assert "GPU GPU-b down for 100 %" in found.message


def test_facts_of_somebody_elses_shape_break_nothing() -> None:
    for facts in ({"gpus": None}, {"gpus": ["x", {}]}, {"gpus": [{"lost": True}], "period_s": "soon"}):
        assert judged("gpu_lost", readings(), **facts).severity == "pass"
        assert judged("gpu_throttled", readings(), **facts).severity == "pass"

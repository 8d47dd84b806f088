"""MBU and MFU: the textbook's figures, and what must hold of any."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.harness.hardware.utilisation import databricks_mbu, mbu, mfu
from tests.made_models import gpu

TWO_TB_S = 2e12


@pytest.mark.parametrize(("element_bytes", "gb_s", "share"), [(2, 1400, 0.70), (1, 700, 0.35)])
def test_7b_at_100_tokens_per_s_uses_70_percent_of_2_tb_s_and_half_of_that_in_8_bit(
    element_bytes: int, gb_s: float, share: float
) -> None:
    weights, tpot_s = 7e9 * element_bytes, 1 / 100
    assert weights / tpot_s == gb_s * 1e9
    assert databricks_mbu(weights, 0, tpot_s, TWO_TB_S) == pytest.approx(share)
    assert mbu(100 * weights, 1.0, 1, TWO_TB_S) == pytest.approx(share)


def test_the_two_conventions_part_when_requests_share_steps() -> None:
    """A batch of 4 reads the weights once a step; parameters for every token would be four times as much."""
    weights, steps = 14e9, 100
    per_step = mbu(steps * weights, 1.0, 1, TWO_TB_S)
    assert per_step == databricks_mbu(weights, 0, 1 / steps, TWO_TB_S) == pytest.approx(0.7)
    assert mbu(4 * steps * weights, 1.0, 1, TWO_TB_S) > 1, "which is no share of anything"


def test_mbu_is_of_all_gpus() -> None:
    assert mbu(8e12, 2.0, 4, TWO_TB_S) == 0.5


def test_mfu_takes_each_dtype_at_its_own_peak() -> None:
    h100 = gpu(fp8=1979)
    assert mfu({"bf16": 989e12}, 2.0, 1, h100.flops_per_s) == pytest.approx(0.5)
    assert mfu({"bf16": 989e12, "fp8": 1979e12}, 4.0, 1, h100.flops_per_s) == pytest.approx(0.5)
    assert mfu({"bf16": 989e12}, 1.0, 8, h100.flops_per_s) == pytest.approx(1 / 8)


def test_sparse_peak_would_halve_it() -> None:
    dense, sparse = gpu(bf16_tflops=989), gpu(bf16_tflops=1979)
    ratio = mfu({"bf16": 1e15}, 1, 1, sparse.flops_per_s) / mfu({"bf16": 1e15}, 1, 1, dense.flops_per_s)
    assert ratio == pytest.approx(0.5, rel=0.01)


@given(st.floats(1, 1e15), st.floats(1e-3, 1e4), st.integers(1, 1000))
def test_twice_the_gpus_or_the_time_is_half_the_share(moved: float, seconds: float, gpus: int) -> None:
    once = mbu(moved, seconds, gpus, TWO_TB_S)
    assert mbu(moved, 2 * seconds, gpus, TWO_TB_S) == pytest.approx(once / 2)
    assert mbu(moved, seconds, 2 * gpus, TWO_TB_S) == pytest.approx(once / 2)

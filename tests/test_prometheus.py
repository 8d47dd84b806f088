"""The Prometheus text format: every legal line is read, sums are right, and nothing else passes for metrics."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.harness.server.prometheus import parse_metrics

PAGE = """\
# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="m"} 1500.0
vllm:prompt_tokens_total{engine="1",model_name="m"} 250.0
vllm:prompt_tokens_created{engine="0",model_name="m"} 1.79e+09
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc{engine="1"} 0.75
vllm:request_success_total{finished_reason="stop"} 7
vllm:request_success_total{finished_reason="length"} 5
vllm:request_success_total{finished_reason="abort"} 0
# TYPE vllm:iteration_tokens_total histogram
vllm:iteration_tokens_total_bucket{le="8.0"} 3.0
vllm:iteration_tokens_total_bucket{le="+Inf"} 4.0
vllm:iteration_tokens_total_count 4.0
vllm:iteration_tokens_total_sum 27.5
"""


def test_a_counter_is_found_with_and_without_its_suffix_and_summed_over_labels() -> None:
    metrics = parse_metrics(PAGE)
    assert metrics.value("vllm:prompt_tokens") == 1750.0
    assert metrics.value("vllm:prompt_tokens_total") == 1750.0


def test_a_share_is_not_summed_over_engines_when_the_largest_is_asked_for() -> None:
    metrics = parse_metrics(PAGE)
    assert metrics.value("max(vllm:kv_cache_usage_perc)") == 0.75
    assert metrics.value("sum(vllm:kv_cache_usage_perc)") == 1.0


def test_labels_select() -> None:
    metrics = parse_metrics(PAGE)
    assert metrics.value('vllm:request_success{finished_reason="stop"}') == 7.0
    assert metrics.value('vllm:request_success_total{finished_reason="abort"}') == 0.0
    assert metrics.value('vllm:request_success{finished_reason="none such"}') is None
    assert metrics.value('vllm:request_success{finished_reason="stop",engine="0"}') is None


def test_a_histogram_whose_name_ends_in_total_is_no_counter() -> None:
    metrics = parse_metrics(PAGE)
    assert metrics.value("vllm:iteration_tokens_total_sum") == 27.5
    assert metrics.value("vllm:iteration_tokens_total_count") == 4.0
    assert metrics.value("vllm:iteration_tokens") is None


def test_the_first_name_that_is_there_counts_and_absent_ones_are_absent() -> None:
    names = {"old_or_new": ("vllm:newer", "vllm:prompt_tokens"), "none": ("vllm:nowhere",), "zero": ("vllm:zero",)}
    assert parse_metrics(PAGE + "vllm:zero 0\n").select(names) == {"old_or_new": 1750.0, "zero": 0.0}


def test_escapes_timestamps_exemplars_blanks_and_odd_numbers() -> None:
    page = (
        'a{path="C:\\\\DIR\\\\",error="no \\"x\\"\\n",brace="}{,="} 1 1395066363000\r\n'
        "\n"
        "  b  +Inf\n"
        "#no comment marker needed\n"
        'c_bucket{le="1",} 8 # {trace_id="KOO5S4vxi0o"} 0.67 1520879607.789\n'
        "d -1.5e-3\n"
        "e{} 4\n"
    )
    metrics = parse_metrics(page)
    assert metrics.labels("a") == [{"path": "C:\\DIR\\", "error": 'no "x"\n', "brace": "}{,="}]
    assert metrics.value('a{brace="}{,="}') == 1.0
    assert metrics.value("b") == math.inf
    assert metrics.value('c_bucket{le="1"}') == 8.0
    assert metrics.value("d") == -0.0015
    assert metrics.value("e") == 4.0


def test_nan_is_no_value() -> None:
    metrics = parse_metrics('a{x="1"} NaN\na{x="2"} 3\nb nan\n')
    assert metrics.value("a") == 3.0
    assert metrics.value("b") is None


@pytest.mark.parametrize(
    "body",
    [b"", b"# only a comment\n", b"<html><body>hello</body></html>", b'[{"iter": 1}]', b"a{x=1} 2", b"a one", b"a"],
)
def test_what_is_no_metrics_page_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"Prometheus|number"):
        parse_metrics(body)


def test_a_line_that_is_almost_one_is_given_up_at_once() -> None:
    labels = "  ".join(f'a{k}="1"' for k in range(200))
    with pytest.raises(ValueError, match="line 2 is no Prometheus sample"):
        parse_metrics(f"m{{{labels}}} 1\nm{{{labels}!}} 1\n")


def test_one_metric_over_another_and_over_a_number() -> None:
    metrics = parse_metrics('b{of="used"} 3\nb{of="all"} 12\nz 0\nwait_us{x=" / "} 2500000\nwait_us{x="y"} 500000\n')
    assert metrics.value('b{of="used"} / b{of="all"}') == 0.25
    assert metrics.value("wait_us / 1e6") == 3.0
    assert metrics.value('wait_us{x=" / "} / 1000') == 2500.0
    assert metrics.value("max(wait_us) / max(b)") == 2500000 / 12
    assert metrics.value("b / z") is None
    assert metrics.value("b / nowhere") is None
    assert metrics.value("nowhere / b") is None


@pytest.mark.parametrize("selector", ["", "max(a", "a)", "min(a)", "a{x}", "a b", "max(a) + 1"])
@pytest.mark.parametrize("ratio", ["{}", "a / {}", "{} / a"])
def test_a_malformed_selector_is_a_value_error(selector: str, ratio: str) -> None:
    with pytest.raises(ValueError, match="selects no metric"):
        parse_metrics("a 1\n").value(ratio.format(selector))


@pytest.mark.parametrize("selector", ["a /", "a/b", "a / b / a", "a / .", "a / 1.2.3", "1 / a"])
def test_a_malformed_ratio_is_a_value_error(selector: str) -> None:
    with pytest.raises(ValueError, match="selects no metric"):
        parse_metrics("a 1\n").value(selector)


label_text = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=12)
finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.dictionaries(label_text, finite, min_size=1, max_size=6))
def test_whatever_is_written_is_read_back(points: dict[str, float]) -> None:
    def escape(text: str) -> str:
        return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    metrics = parse_metrics("".join(f'm_total{{who="{escape(who)}"}} {value!r}\n' for who, value in points.items()))
    assert {labels["who"] for labels in metrics.labels("m")} == set(points)
    for who, value in points.items():
        assert metrics.value(f'm{{who="{escape(who)}"}}') == value


def test_a_page_of_a_real_vllm() -> None:
    """Captured from vLLM 0.32.0, without most buckets, after 2 requests with 12 tokens; values read off by eye."""
    metrics = parse_metrics((Path(__file__).parent / "transcripts" / "vllm-metrics.txt").read_bytes())
    assert metrics.value("vllm:prompt_tokens") == 15.0
    assert metrics.value("vllm:generation_tokens") == 12.0
    assert metrics.value('vllm:request_success{finished_reason="length"}') == 2.0
    assert metrics.value("vllm:iteration_tokens_total_count") == 12.0
    assert metrics.labels("vllm:cache_config_info")[0]["num_gpu_blocks"] == "8192"

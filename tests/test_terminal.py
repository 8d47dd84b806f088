"""The terminal's summary says the verdict first, fits 100 columns, and survives whatever a result holds."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from synthetic_run import CHECKS, SOURCE, check, records, run_of, samples

from servemark.dashboards import words
from servemark.dashboards.terminal import print_summary, summary_text


@pytest.fixture(scope="module")
def run() -> dict[str, Any]:
    return run_of(records(), samples())


def row(text: str, label: str) -> list[str]:
    return next(line for line in text.splitlines() if line.startswith(label)).split()


def test_verdict_first_then_the_subject(run: dict[str, Any]) -> None:
    first, second = summary_text(run).splitlines()[:2]
    assert first == " VALID   chat on vllm 0.32.0, meta-llama/Llama-3.1-8B-Instruct"
    assert second == "20261120-184512-vllm-chat"


def test_an_invalid_run_gives_each_reason_with_its_remedy_before_any_figure(run: dict[str, Any]) -> None:
    late = check("client_lag", "invalid", "requests left late", "lower --rate")
    allowed = check("errors", "invalid", "3 % failed", "look at the server", waived=True)
    shown = summary_text({**run, "verdict": {"valid": False, "checks": [*CHECKS, allowed, late]}})
    lines = shown.splitlines()
    assert lines[0].startswith(" INVALID ")
    assert lines[3:7] == [
        "invalid client_lag: requests left late",
        "        → lower --rate",
        "waived  errors: 3 % failed",
        "warning short_run: the window is 45 s, shorter than 60 s",
    ]
    assert shown.index("→ lower --rate") < shown.index("TTFT")
    assert "all planned requests were sent" not in shown  # checks that passed are for the page


def test_a_run_without_a_verdict_is_not_called_valid(run: dict[str, Any]) -> None:
    for verdict in (None, {}, {"valid": "yes"}, {"valid": 1}):
        assert summary_text({**run, "verdict": verdict}).startswith(" INVALID ")


def test_simulated_is_said_loudly_and_only_then(run: dict[str, Any]) -> None:
    assert "SIMULATED" not in summary_text(run)
    for simulated in ({"simulated": True}, {"target": {"name": "sim", "simulated": True}}):
        second = summary_text({**run, **simulated}).splitlines()[1]
        assert second == " SIMULATED   the target is a simulation: no figure here is one of a real server"


def test_latencies_are_those_of_the_result_and_uncertified_ones_are_marked(run: dict[str, Any]) -> None:
    text = summary_text(run)
    assert row(text, "    ")[:5] == ["p50", "p90", "p95", "p99", "p99.9"]
    for name, label in (("ttft", "TTFT"), ("itl", "ITL"), ("icl", "ICL"), ("tpot", "TPOT"), ("e2e", "E2E")):
        entry = run["metrics"][name]
        expected = [
            ("" if p in ("p50", *entry["certified"]) else "~") + words.figure(entry[p])
            for p in ("p50", "p90", "p95", "p99", "p99_9")
        ]
        assert row(text, label) == [label, *expected, words.figure(entry["mean"]), f"{entry['n']:,}"]
    assert "~" in row(text, "TTFT")[4]
    assert "~ too few requests to certify" in text


def test_first_answer_is_shown_only_with_reasoning(run: dict[str, Any]) -> None:
    assert "TTFA" not in summary_text(run)
    answer = {**run["metrics"]["ttfa"], "p50": 999.0}
    assert row(summary_text({**run, "metrics": {**run["metrics"], "ttfa": answer}}), "TTFA")[1] == "999"


def test_throughput_of_the_window_and_of_the_whole_run(run: dict[str, Any]) -> None:
    text, metrics = summary_text(run), run["metrics"]
    for label, name in (("output tok/s", "output_tps"), ("input tok/s", "input_tps"), ("requests/s", "rps")):
        expected = [words.figure(metrics[each]["value"]) for each in (name, f"{name}_run")]
        assert row(text, label)[-2:] == expected
    assert "steady (" in text
    assert "whole run (" in text


def test_requests_by_kind_of_failure(run: dict[str, Any]) -> None:
    text, summary = summary_text(run), run["summary"]
    assert row(text, "sent") == ["sent", "400,", "of", "which", "370", "count"]
    assert row(text, "ok") == ["ok", str(summary["requests_ok"])]
    line = " ".join(row(text, "failed"))
    for kind in ("reset", "timeout_gap", "http_status"):
        assert f"{summary[f'failed_{kind}']} {kind}" in line
    assert sum(v for k, v in summary.items() if k.startswith("failed_")) == summary["requests_failed"]
    assert "TTFT ∞" in text  # more than 1 % failed, so the adjusted p99 is infinite


def test_slo_lines(run: dict[str, Any]) -> None:
    text = summary_text(run)
    good = words.share(run["metrics"]["goodput_share"]["value"])
    assert row(text, "met     ttft=200ms")[:2] == ["met", "ttft=200ms"]
    assert "missed  ttft:p99=400ms  TTFT p99 is infinite" in text
    assert f"{good} of the requests meet every limit per request; asked for: 95.0 %" in text
    assert "Service level" not in summary_text({**run, "slo": {}, "metrics": {}})


def test_goodput_above_throughput_is_explained(run: dict[str, Any]) -> None:
    """They are of the same requests by another time, so either may be the larger."""
    rates = {"goodput": 2.0, "rps": 1.9, "goodput_tps": 80.0, "output_tps": 90.0}
    metrics = {**run["metrics"], **{name: {"value": rate} for name, rate in rates.items()}}
    said = "goodput counts requests that were due in the steady window, throughput what came in it"
    assert said in summary_text({**run, "metrics": metrics})
    assert said not in summary_text({**run, "metrics": metrics | {"goodput": {"value": 1.8}}})


def test_server_figures(run: dict[str, Any]) -> None:
    text = summary_text(run)
    assert row(text, "preemptions") == ["preemptions", "2"]
    assert row(text, "prefix cache hits")[-2:] == ["0.3", "%"]
    assert row(text, "most waiting") == ["most", "waiting", "3"]
    assert row(text, "engine steps")[2:] == ["2,450", "of", "88.0", "tokens", "each"]
    assert "Server" not in summary_text({**run, "server": {}})


def test_ttft_of_both_sides(run: dict[str, Any]) -> None:
    """The server's mean is 0.48 s / 8 = 60 ms, of which 15 in the queue and 40 of prefill."""
    text = summary_text(run)
    client = run["server"]["both_sides"]["ttft"]["client_ms"]
    assert f"{words.milliseconds(client)} from sending, 60.0 ms by the server's count: " in text
    assert f"{words.milliseconds(client - 60)} outside it" in text
    assert "queue 15.0 ms, prefill 40.0 ms" in text
    below = {**run["server"], "both_sides": {"ttft": {"client_ms": 50.0, "server_ms": 60.0, "outside_ms": -10.0}}}
    assert "60.0 ms by the server's count, 10.0 ms more" in summary_text({**run, "server": below})


def test_readings_are_spoken_of_where_they_have_gaps(run: dict[str, Any]) -> None:
    assert "readings" not in summary_text(run)
    gaps = {**run["server"], "sources": [{**SOURCE, "failures": 3, "last_failure": "answers 500"}]}
    assert "50, 3 failed (answers 500)" in summary_text({**run, "server": gaps})
    none = {"sources": [], "absent": ["http://localhost:8000/metrics"]}
    assert "none told at http://localhost:8000/metrics" in summary_text({**run, "server": none})


# What the target cannot promise


def unpromised(run: dict[str, Any], **changes: Any) -> str:
    kept = dict.fromkeys(("fixed_length", "exact_counts", "cached_tokens", "per_chunk_counts"), True)
    target = {**run["target"], "promises": {**kept, **changes.pop("promises", {})}}
    text = summary_text({**run, "target": target, **changes})
    title = "\nWhat this target cannot promise\n"
    return " ".join(text.split(title)[1].split("\n\n")[0].split()) if title in text else ""


def test_what_is_promised_is_not_spoken_of(run: dict[str, Any]) -> None:
    assert unpromised(run) == ""
    assert unpromised(run, promises={"token_id_prompts": False}) == ""


def test_lengths_that_cannot_be_forced_are_shown_beside_the_asked_ones(run: dict[str, Any]) -> None:
    got = run["metrics"]["output_tokens"]
    said = unpromised(run, promises={"fixed_length": False})
    assert f"p50 {got['p50']:,.0f} for 60, p95 {got['p95']:,.0f} for 60" in said
    exact = {**run["metrics"], "output_drift": {"n": 9, "min": 0, "max": 0}}
    assert "every one came as asked" in unpromised(run, promises={"fixed_length": False}, metrics=exact)
    unasked = {**run["metrics"], "asked_output_tokens": {"n": 0}}
    assert "where it likes" in unpromised(run, promises={"fixed_length": False}, metrics=unasked)


def test_counts_that_are_estimates(run: dict[str, Any]) -> None:
    estimates = {"counted_by_estimate": 30, "counted_by_usage": 90}
    said = unpromised(run, promises={"exact_counts": False}, summary=estimates)
    assert "token counts are an estimate in 25.0 % of the responses" in said
    assert "does not promise to be exact" in unpromised(run, promises={"exact_counts": False})


def test_chunks_that_do_not_tell_their_tokens(run: dict[str, Any]) -> None:
    def said(itl: int, icl: int) -> str:
        metrics = {**run["metrics"], "itl": {"n_requests": itl}, "icl": {"n_requests": icl}}
        return unpromised(run, promises={"per_chunk_counts": False}, metrics=metrics)

    assert "each chunk held one in this run" in said(120, 120)
    assert "ITL is of 30 of 120 responses, those with one token to a chunk. Read ICL" in said(30, 120)
    assert "ITL is not known. Read ICL" in said(0, 120)


def test_a_prefix_cache_of_which_nobody_tells(run: dict[str, Any]) -> None:
    assert unpromised(run, promises={"cached_tokens": False}) == ""  # the server's counters do
    assert "hits are not known" in unpromised(run, promises={"cached_tokens": False}, server={})


def test_where_the_files_are(run: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "run.json").touch()
    text = summary_text(run, folder=tmp_path, width=400)
    assert str(tmp_path) in text
    assert "run.json" in text
    assert "requests.parquet" not in text


@pytest.mark.parametrize("width", [60, 100, 300])
def test_it_fits(run: dict[str, Any], width: int) -> None:
    long = "a-very-long-name/" * 12
    loud = {**run, "target": {**run["target"], "model": long}, "id": long}
    loud["verdict"] = {"valid": False, "checks": [check("errors", "invalid", long * 2, long)]}
    for line in summary_text(loud, width=width).splitlines():
        assert len(line) <= min(width, 100)


def test_it_is_deterministic(run: dict[str, Any]) -> None:
    assert summary_text(run) == summary_text(run)


def test_nothing_in_a_result_steers_the_terminal_or_is_read_as_markup(run: dict[str, Any]) -> None:
    hostile = "\x1b]0;pwned\x07[red]x[/nothing]\r\n\x9b2J"
    loud = {**run, "target": {"name": hostile, "model": hostile}, "workload": {"name": hostile}, "id": hostile}
    loud["verdict"] = {"valid": False, "checks": [check(hostile, "invalid", hostile, hostile)]}
    loud["summary"] = {"requests": 1, f"failed_{hostile}": 1}
    for width in (100, 300):
        text = summary_text(loud, width=width)
        assert not {c for c in text if ord(c) < 32 and c != "\n"} | ({"\x9b"} & set(text))
        assert "[red]x[/nothing]" in text


KEYS = ("verdict", "summary", "metrics", "slo", "server", "target", "workload", "clock")
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["ttft", "p50", "n", "value", "checks", "code", "unit", "delta", "results", "limit", "ci"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(KEYS), JSON))
def test_any_json_gives_some_summary(found: dict[str, Any]) -> None:
    assert summary_text(found).startswith((" VALID ", " INVALID "))


def test_colours_only_where_the_console_has_them(run: dict[str, Any]) -> None:
    out = io.StringIO()
    print_summary(run, Console(file=out, force_terminal=True, width=120, color_system="standard", legacy_windows=False))
    assert "\x1b[" in out.getvalue()
    assert "\x1b[" not in summary_text(run)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (float("inf"), "∞"),
        (0, "0"),
        (0.01234, "0.0123"),
        (0.9999, "1.00"),
        (1.234, "1.23"),
        (9.996, "10.0"),
        (12.34, "12.3"),
        (99.96, "100"),
        (12345.6, "12,346"),
        (-3.21, "-3.21"),
    ],
)
def test_figures_have_three_digits(value: float | None, said: str) -> None:
    assert words.figure(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.985, "98.5 %"),
        (0.99999, "99.999 %"),
        (0.9999999, "99.999 %"),
        (0.0001, "0.01 %"),
    ],
)
def test_a_part_is_never_shown_as_all_or_nothing(value: float, said: str) -> None:
    assert words.share(value) == said


def test_words() -> None:
    assert [words.clock_time(s) for s in (0, 65.9, 3600, -1)] == ["0:00", "1:05", "1:00:00", "0:00"]
    assert [words.milliseconds(v) for v in (20.12, 12_000, None)] == ["20.1 ms", "12.0 s", "–"]
    assert [words.seconds(v) for v in (0.25, 43.81, 700, None)] == ["250 ms", "43.8 s", "11:40", "–"]
    assert [words.size(v) for v in (12, 2**30, 2**41)] == ["12.0 B", "1.00 GiB", "2.00 TiB"]
    assert words.name_of("e2e_per_token") == "E2E per token"
    assert words.name_of("tps_user") == "tok/s per user"
    assert words.of_unit(8.0, "req/s") == "8.00 req/s"

"""Objectives by class, and what goodput is where no limit holds for a request."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.harness.errors import BadInput
from servemark.harness.figures.groups import groups
from servemark.harness.figures.metrics import view_of
from servemark.harness.figures.objectives import weigh
from servemark.harness.figures.slo import Slo, by_class, parse_slo
from servemark.harness.figures.summary import summarize
from servemark.harness.figures.view import TPOT_DEADLINE_MS, TTFT_DEADLINE_MS
from servemark.harness.plan.spec import apply, parse_workload
from servemark.harness.prepare import slo_of
from servemark.harness.types import Record
from servemark.harness.verdict.validity import CHECKS, Evidence
from servemark.results.asked_slo import slo_of_run
from servemark.results.evaluate import objectives
from tests.frames import answer, failed, frame

TOP = parse_slo("tpot=50ms,ttft:p90=1s")


def chat(index: int, ttft: float, tpot: float = 10.0) -> Record:
    return answer(index, index * 10, (ttft, ttft + tpot, ttft + 2 * tpot), class_="chat")


def rag(index: int, ttft: float, tpot: float = 10.0) -> Record:
    return replace(chat(index, ttft, tpot), class_="rag")


def mixed(chats: str | None = "ttft=100ms", rags: str | None = "ttft=2s", top: Slo = TOP) -> Slo:
    return by_class(top, {"chat": parse_slo(chats) if chats else None, "rag": parse_slo(rags) if rags else None})


# --- what holds for whom


def test_a_class_without_limits_of_its_own_has_the_files_limits_on_requests() -> None:
    slo = mixed(rags=None)
    assert [limit.text for limit in slo.of_class("chat").limits] == ["ttft=100ms"]
    assert [limit.text for limit in slo.of_class("rag").limits] == ["tpot=50ms"]
    assert slo.of_class("unheard of").limits == TOP.limits
    assert [limit.text for limit in slo.every_limit] == ["tpot=50ms", "ttft:p90=1s", "ttft=100ms", "tpot=50ms"]


def test_an_attainment_of_a_class_goes_with_the_files_limits() -> None:
    slo = by_class(parse_slo("ttft=1s", 0.95), {"chat": Slo((), 0.8), "rag": None})
    assert [(own.attainment, own.limits[0].text) for own in slo.classes.values()] == [
        (0.8, "ttft=1s"),
        (0.95, "ttft=1s"),
    ]


def test_a_request_is_good_by_its_own_class() -> None:
    records = [
        chat(0, 90),
        chat(1, 110),
        rag(2, 110),
        rag(3, 2100),
        replace(chat(4, 50), class_="other"),
        failed(5, 60),
    ]
    slo, run = mixed(), frame(*records)
    # The last two are of no class in the SLO, so that tpot=50ms holds for them.
    assert slo.passes(view_of(run)).tolist() == [True, False, True, False, True, False]
    assert weigh(slo, view_of(run, slo=slo)).good == 3


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 300), st.integers(1, 99)), min_size=1, max_size=40))
def test_the_joint_share_is_that_of_the_classes_together(rows: list[tuple[bool, int, int]]) -> None:
    records = [(chat if is_chat else rag)(i, ttft, tpot) for i, (is_chat, ttft, tpot) in enumerate(rows)]
    slo = mixed("ttft=100ms,tpot=40ms", "ttft=200ms")
    good = [ttft <= 100 and tpot <= 40 if is_chat else ttft <= 200 for is_chat, ttft, tpot in rows]
    found = weigh(slo, view_of(frame(*records), slo=slo))
    assert (found.good, found.measured) == (sum(good), len(rows))
    assert found.good == sum(own.good or 0 for own in found.classes.values())
    for name, wanted in (("chat", True), ("rag", False)):
        own = [each for each, (is_chat, *_) in zip(good, rows, strict=True) if is_chat is wanted]
        assert found.classes[name].share == (sum(own) / len(own) if own else None)


# --- what is met


def test_a_rare_class_that_always_misses_is_not_hidden_by_the_others() -> None:
    records = [chat(i, 50) for i in range(399)] + [rag(399, 5000)]
    slo = mixed()
    found = weigh(slo, view_of(frame(*records), slo=slo))
    assert found.share == 399 / 400
    assert not found.met
    assert (found.classes["chat"].met, found.classes["rag"].met) == (True, False)
    assert found.reasons == ("class rag: 0.00% of 1 requests meet ttft=2s; 0.99 of them must",)
    json.dumps(found.to_json(), allow_nan=False)


def test_limits_on_the_run_are_those_of_a_classs_own_requests() -> None:
    records = [chat(i, 50 + i) for i in range(50)] + [rag(50 + i, 900 + i) for i in range(50)]
    slo = mixed("ttft:p90=100ms", "ttft:p90=920ms", top=parse_slo("ttft:p90=1s"))
    found = weigh(slo, view_of(frame(*records), slo=slo))
    # Nearest rank: the 45th of 50 and the 90th of 100.
    assert found.classes["chat"].limits[0].value == pytest.approx(94)
    assert found.classes["rag"].limits[0].value == pytest.approx(944)
    assert found.limits[0].value == pytest.approx(939)
    assert found.reasons == ("class rag: ttft p90 is 944 ms; the limit is 920 ms",)


def test_each_class_has_to_reach_its_own_share_and_the_mix_one_that_is_named() -> None:
    records = [chat(i, 50 if i < 95 else 500) for i in range(100)] + [rag(100 + i, 50) for i in range(100)]
    view = view_of(frame(*records))
    lenient = by_class(Slo(()), {"chat": parse_slo("ttft=100ms", 0.9), "rag": parse_slo("ttft=100ms")})
    found = weigh(lenient, view)
    assert (found.met, found.share, found.attainment) == (True, 0.975, None)
    assert [own.attainment for own in found.classes.values()] == [0.9, 0.99]
    strict = weigh(replace(lenient, attainment=0.98), view)
    assert strict.reasons == ("97.50% of 200 requests meet the limits of their classes; 0.98 of them must",)


def test_a_class_of_which_nothing_was_measured_has_not_met_its_own() -> None:
    slo = mixed()
    found = weigh(slo, view_of(frame(*(chat(i, 50) for i in range(10))), slo=slo))
    assert found.reasons == ("class rag: no request was measured",)


def test_a_class_without_any_limit_is_not_judged() -> None:
    slo = mixed("ttft=100ms", None, top=parse_slo("ttft:p90=9s"))
    found = weigh(slo, view_of(frame(chat(0, 50), chat(1, 150), rag(2, 9000)), slo=slo))
    assert (found.good, found.measured, list(found.classes)) == (1, 2, ["chat"])


# --- figures


def test_rows_by_class_are_held_to_their_own() -> None:
    records = [chat(i, 50 if i % 2 else 500) for i in range(40)] + [rag(40 + i, 500) for i in range(40)]
    slo, run = mixed(), frame(*records)
    rows = {group["by"]["class"]: group["metrics"] for group in groups(run, slo=slo) if "class" in group["by"]}
    assert {name: row["goodput_share"]["value"] for name, row in rows.items()} == {"chat": 0.5, "rag": 1.0}
    seconds = 0.79  # 80 requests, one each 10 ms; the last one is at the window's end, and so outside
    assert rows["chat"]["goodput"]["value"] == pytest.approx(20 / seconds)
    assert rows["chat"]["goodput"]["offered"] == pytest.approx(40 / seconds)
    assert rows["rag"]["goodput"]["value"] == pytest.approx(39 / seconds)
    whole = summarize(run, slo=slo)
    assert whole["goodput"]["value"] == pytest.approx(59 / seconds)
    assert whole["goodput_share"]["value"] == 60 / 80


def test_deadlines_are_those_of_the_class() -> None:
    """Tokens each 10 ms after a TTFT of 150 ms: late against 100 ms, and early against 2 s."""
    records = [chat(0, 150), rag(1, 150)]
    slo, run = mixed("ttft=100ms,tpot=20ms"), frame(*records)
    fluid = view_of(run, slo=slo).deadlines.fluidity
    assert fluid.tolist() == [pytest.approx(2 / 3), 1.0]
    entry = summarize(run, slo=slo, names=["fluidity"])["fluidity"]
    assert entry["deadlines"] == {
        "source": "slo",
        "classes": {
            "chat": {"ttft_ms": 100.0, "tpot_ms": 20.0, "source": "slo"},
            "rag": {"ttft_ms": 2000.0, "tpot_ms": TPOT_DEADLINE_MS, "source": "slo"},
        },
    }
    alike = summarize(run, slo=mixed("ttft=1s", "ttft=1s"), names=["fluidity"])["fluidity"]["deadlines"]
    assert alike == {"ttft_ms": 1000.0, "tpot_ms": TPOT_DEADLINE_MS, "source": "slo"}


def test_a_percentile_of_a_class_needs_enough_requests_of_it() -> None:
    records = [chat(i, 50) for i in range(100)] + [rag(100 + i, 50) for i in range(30)]
    slo = mixed("ttft:p90=1s", "ttft:p90=1s,itl:p90=1s", top=parse_slo("ttft:p90=1s"))
    run = frame(*records)
    evidence = Evidence(run, run.steady_window(), "open", summarize(run, slo=slo), slo=slo)
    found = CHECKS["sample_size"].judge(evidence)
    assert (found.severity, found.value, found.threshold) == ("invalid", 30, 64)
    assert found.message == "ttft p90 is asked of 30 requests of class rag; it needs 64."


# --- goodput without a limit on requests, and without a window


def test_percentiles_alone_make_no_goodput() -> None:
    slo, run = parse_slo("ttft:p90=1s"), frame(*(answer(i, i * 10) for i in range(20)))
    found = summarize(run, slo=slo)
    assert not {"goodput", "goodput_run", "goodput_tps", "goodput_share"} & set(found)
    judged = weigh(slo, view_of(run, slo=slo))
    assert (judged.met, judged.good, judged.share) == (True, None, None)


def test_where_all_is_sent_at_once_goodput_is_of_the_whole_run() -> None:
    """4 requests at one moment, 3 of them good; the last stamp is 1 ms after the token at 999 ms."""
    records = [answer(i, 0, (50, 60)) for i in range(3)] + [answer(3, 0, (500, 999))]
    found = summarize(frame(*records), slo=parse_slo("ttft=100ms"))
    assert found["goodput"]["value"] is None
    assert found["goodput_share"]["value"] == 0.75
    assert found["goodput_run"]["value"] == pytest.approx(3 / 1.0, rel=1e-6)


def test_goodput_of_the_whole_run_counts_the_warm_up() -> None:
    records = [answer(0, 0, (50, 60), phase="warmup"), answer(1, 500, (50, 60)), answer(2, 1000, (50, 999))]
    found = summarize(frame(*records), slo=parse_slo("ttft=100ms"))
    assert found["goodput_run"]["value"] == pytest.approx(3 / 2.0, rel=1e-6)


# --- from the file, and back from a result

WORKLOAD = """\
version: 1
classes:
  chat: {weight: 3, prompts: {source: synthetic, lengths: "D(50,5)"}, slo: {limits: "ttft=100ms"}}
  rag: {prompts: {source: synthetic, lengths: "D(60,5)"}, slo: {limits: "ttft=2s,ttft:p90=1s", attainment: 0.9}}
load: {rate: 10}
slo: {limits: "error_rate=1%"}
"""


def test_the_file_says_what_each_class_is_to_meet() -> None:
    slo = slo_of(parse_workload(WORKLOAD))
    assert slo is not None
    assert str(slo) == "error_rate=1%"
    assert {name: (str(own), own.attainment) for name, own in slo.classes.items()} == {
        "chat": ("ttft=100ms", None),
        "rag": ("ttft=2s,ttft:p90=1s", 0.9),
    }


def test_an_slo_of_the_command_line_is_the_only_one() -> None:
    slo = slo_of(apply(parse_workload(WORKLOAD), {"slo": "tpot=50ms", "attainment": 0.5}))
    assert slo is not None
    assert {(str(own), own.attainment) for own in slo.classes.values()} == {("tpot=50ms", 0.5)}


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("error_rate=1%", "tpot=1ms,tpot=2ms", "w.yaml: slo.limits: tpot is limited twice; keep one of them"),
        ("ttft=100ms", "tftt=100ms", "w.yaml: classes.chat.slo: 'tftt' in 'tftt=100ms' is no metric"),
        (
            "error_rate=1%",
            "tpot=1ms",
            "slo.limits: every class has limits of its own, so tpot=1ms holds for no request",
        ),
    ],
)
def test_what_is_no_slo_is_said_with_its_place(old: str, new: str, sentence: str) -> None:
    with pytest.raises(BadInput) as error:
        slo_of(parse_workload(WORKLOAD.replace(old, new), "w.yaml"))
    assert sentence in str(error.value)


def test_an_slo_of_the_command_line_stands_for_those_of_the_classes() -> None:
    asked = slo_of(apply(parse_workload(WORKLOAD), {"slo": "ttft=1s,ttft:p90=500ms"}))
    assert asked is not None
    assert not asked.apart


def test_limits_of_classes_are_enough_for_a_gate() -> None:
    text = WORKLOAD.replace('limits: "error_rate=1%"', "gate: true")
    assert slo_of(parse_workload(text)) is not None
    for own in ('slo: {limits: "ttft=100ms"}', 'slo: {limits: "ttft=2s,ttft:p90=1s", attainment: 0.9}'):
        text = text.replace(own, "slo: {attainment: 0.5}")
    with pytest.raises(BadInput, match="--gate needs a limit to hold"):
        slo_of(parse_workload(text))


def test_a_result_gives_back_the_slo_that_it_was_held_to(tmp_path: Path) -> None:
    slo, run = mixed("ttft=100ms,ttft:p90=1s", None), frame(chat(0, 50), rag(1, 50))
    written = objectives(Evidence(run, run.steady_window(), "open", slo=slo), gate=False)
    found = slo_of_run({"slo": json.loads(json.dumps(written))})
    assert found is not None
    assert (found.limits, dict(found.classes).keys()) == (slo.limits, {"chat", "rag"})
    assert [own.limits for own in found.classes.values()] == [own.limits for own in slo.classes.values()]
    assert slo_of_run({}) is None
    with pytest.raises((TypeError, ValueError)):
        slo_of_run({"slo": {"limits": ["<script>"]}})


def test_the_default_deadlines_are_those_without_an_slo() -> None:
    entry = summarize(frame(chat(0, 50)), names=["stall_time"])["stall_time"]
    assert entry["deadlines"] == {"ttft_ms": TTFT_DEADLINE_MS, "tpot_ms": TPOT_DEADLINE_MS, "source": "default"}

"""What people see of the hardware: every figure with how it is known, and no more than is known."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from browser import in_a_browser, needs_a_browser
from hardware_facts import (
    COST,
    EFFICIENCY,
    ENERGY,
    GPUS,
    LIMITS,
    gpu_samples,
    hardware,
    nothing_known,
    telemetry,
    telemetry_only,
    without_telemetry,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markupsafe import Markup
from synthetic_run import START_NS, records, run_of, samples
from test_page import HOSTILE, Elements

from servemark.dashboards import hardware as words
from servemark.dashboards import page, roofline
from servemark.dashboards.page import render
from servemark.dashboards.panels import PANELS, Card, Cards, Data, Figure, Note, Panel, Table
from servemark.dashboards.terminal import summary_text
from servemark.harness.clock import SECOND
from servemark.harness.figures.frame import Frame
from servemark.harness.types import GpuSample, Record
from servemark.results.headline import hardware_summary

NAMES = ("efficiency", "limit", "gpu", "cost")
READ = gpu_samples(START_NS)


@pytest.fixture(scope="module")
def wanted() -> list[Record]:
    return records()


@pytest.fixture(scope="module")
def run(wanted: list[Record]) -> dict[str, Any]:
    return run_of(wanted, samples())


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the plotting library, which is 5 MB to parse."""
    monkeypatch.setattr(page, "_plotly", lambda: Markup(""))


def made(name: str, found: dict[str, Any], run: Any = None, read: Any = ()) -> Panel | None:
    return PANELS[name](Data({**(run or {}), "hardware": found}, Frame.from_records([]), (), read))


def shown(name: str, found: dict[str, Any], run: Any = None, read: Any = ()) -> Panel:
    panel = made(name, found, run, read)
    assert panel is not None
    return panel


def tables(panel: Panel) -> list[list[list[str]]]:
    return [[[cell.text for cell in row] for row in each.rows] for each in panel.parts if isinstance(each, Table)]


def notes(panel: Panel) -> str:
    return "\n".join(each.text for each in panel.parts if isinstance(each, Note))


def cards(panel: Panel) -> dict[str, Card]:
    return {card.label: card for each in panel.parts if isinstance(each, Cards) for card in each.cards}


def figures(panel: Panel) -> dict[str, Figure]:
    return {each.label: each for each in panel.parts if isinstance(each, Figure)}


# --- efficiency


def test_shares_stand_side_by_side_with_how_each_is_known() -> None:
    panel = shown("efficiency", hardware())
    found = {row[0]: row[2:] for row in tables(panel)[0]}
    assert found == {
        "MBU, per step": ["46.0 %", "53.0 %", "44.0 %"],
        "MBU, Databricks' form": ["41.0 %", "–", "–"],
        "MFU": ["6.1 %", "8.0 %", "6.0 %"],
    }
    said = notes(panel)
    assert "Measured is 1.15 times the modelled traffic" in said
    assert "share of time in which the tensor cores worked, which is no count of FLOPs" in said
    assert "Prefill apart is not told: TTFT holds queueing" in said
    counted = next(table for table in tables(panel) if table[0][-1].endswith("B"))
    assert counted[0] == ["MBU, modelled", "weights once a step", "139 TB"]
    assert counted[3][-1] == "5.43 PFLOP"


def test_the_first_figures_are_cards(run: dict[str, Any]) -> None:
    found = cards(shown("efficiency", hardware(), run))
    assert [card.value + card.unit for card in found.values()][:2] == ["46.0%", "6.1%"]
    assert found["Memory bandwidth, MBU"].also == "53.0 % measured · 44.0 % by the server"
    assert found["Arithmetic, MFU"].also == "6.0 % by the server · tensor cores at work 8.0 %"
    half = run["summary"]["output_tps"] / 2
    assert float(found["Output per GPU"].value) == pytest.approx(half, rel=0.005)
    assert found["Energy per output token"].value == "0.618"
    assert found["Cost of 1M output tokens"].value == "$0.842"
    assert found["Cost of 1M output tokens"].interval == "$1.21 counting requests that met the SLO"


def test_time_of_tensor_cores_is_no_mfu() -> None:
    found = telemetry_only()
    assert "Arithmetic, MFU" not in cards(shown("efficiency", found))
    assert words.lines({"hardware": found})[0] == ("use", "MBU 53.0 % measured; tensor cores at work 8.0 %")
    assert "mfu" not in hardware_summary(found)


def test_modelled_and_measured_are_in_one_plot_with_the_window_shaded(run: dict[str, Any]) -> None:
    (drawn,) = figures(shown("efficiency", hardware(), run)).values()
    by_name = {trace["name"]: trace for trace in drawn.data}
    assert by_name["MBU, modelled"]["x"][:2] == [7.5, 12.5]
    assert by_name["MBU, modelled"]["y"][:2] == [44, 44.5]
    assert by_name["MBU, measured"]["y"][0] == 50
    assert {shape["name"] for shape in drawn.layout["shapes"]} == {"outside"}
    (unmeasured,) = figures(shown("efficiency", without_telemetry(), run)).values()
    assert [trace["name"] for trace in unmeasured.data] == ["MBU, modelled", "MFU, modelled"]


def test_more_than_all_is_marked_with_what_to_look_at() -> None:
    rows = [{**EFFICIENCY["rows"][0], "value": 1.34}]
    panel = shown("efficiency", hardware(efficiency={**EFFICIENCY, "rows": rows}))
    assert "More than 100 % cannot be" in notes(panel)
    table = next(each for each in panel.parts if isinstance(each, Table))
    assert [cell.tone for cell in table.rows[0]] == ["", "dim", "bad", "", ""]
    assert "More than" not in notes(shown("efficiency", hardware()))


def test_what_it_rests_on_is_told_with_who_said_so() -> None:
    panel = shown("efficiency", hardware())
    facts = dict(next(each for each in panel.parts if each.kind == "facts").rows)  # type: ignore[union-attr]
    assert facts["GPUs"] == "2 x NVIDIA H100 SXM 80 GB (the sampled GPUs)"
    assert facts["layout"] == "tensor 2 (flags)"
    assert facts["parameters"] == "8.03 billion"
    assert facts["weights"] == "bf16, 16.1 GB"
    assert facts["KV cache"] == "bf16, 131 kB per token"
    assert facts["engine steps"] == "about 4,100 (may leave out steps without a token)"


@pytest.mark.parametrize("found", [{}, nothing_known()])
def test_without_hardware_one_sentence_says_what_to_give(found: dict[str, Any], run: dict[str, Any]) -> None:
    panel = shown("efficiency", found, run)
    assert len(panel.parts) == 1
    assert all(flag in notes(panel) for flag in ("--gpu ", "--model-config", "--gpu-price"))
    assert ("No GPU can be read here." in notes(panel)) == bool(found)
    assert [made(name, found, run) for name in NAMES[1:]] == [None, None, None]
    text = " ".join(summary_text({**run, "hardware": found}).split())
    said = (
        "Hardware lacks no MBU or MFU: the server does not tell its model (--model-config), the kind of GPU is not "
        "known (--gpu); `bench show RUN` takes these flags too"
    )
    assert (said in text) == bool(found)
    assert ("Hardware" in text) == bool(found)


def test_what_is_not_known_is_said_beside_what_is() -> None:
    lacks = ["no cost: give a price with --gpu-price"]
    panel = shown("efficiency", {**without_telemetry(), "lacks": lacks, "cost": None})
    assert notes(panel).endswith("No cost: give a price with --gpu-price. No GPU of this machine can be read.")
    assert made("gpu", without_telemetry()) is None


# --- the limit


def test_measured_over_its_floor_and_what_binds() -> None:
    panel = shown("limit", hardware())
    assert notes(panel).startswith(
        "TPOT is 1.9x its bandwidth floor. TTFT is 5.7x its compute floor. "
        "Memory bandwidth binds it: MBU is 53% (measured) over the whole window."
    )
    assert "There is evidence for others too. Queueing: 1.3 requests waited." in notes(panel)
    floors, evidence, suggestions = tables(panel)
    assert floors[0] == ["TPOT", "bandwidth", "5.70 ms", "3.00 ms", "1.9x"]
    assert floors[2] == ["output tok/s", "at the batch that ran", "1,650", "3,130", "52.7 %"]
    assert floors[3][2:] == ["1,650", "41,000", "4.0 %"]
    assert floors[4][2:] == ["9.40", "820", "1.1 %"]
    assert [row[2:] for row in evidence] == [["53.0 %", "50.0 %"], ["1.9x", "1.5x"]]
    quantise = "Quantise the weights: half the bytes, up to half the TPOT."
    assert suggestions == [["weights / bytes", quantise, "Lin et al., AWQ, MLSys 2024", "81.0 %"]]


def test_nothing_clear_is_said_to_be_so() -> None:
    panel = shown("limit", hardware(binding={"resource": "unclear", "evidence": [], "others": []}, suggestions=[]))
    assert "No resource clearly binds this run." in notes(panel)
    assert len(tables(panel)) == 1


def test_below_the_floor_is_no_good_news() -> None:
    below = "measured below the floor, which no hardware allows"
    impossible = {**LIMITS["tpot"], "measured_s": 0.00213, "ratio": None, "note": below}
    panel = shown("limit", hardware(limits={**LIMITS, "tpot": impossible}))
    assert notes(panel).startswith("TTFT is 5.7x")
    assert "Measured below the floor, which no hardware allows." in notes(panel)
    table = next(each for each in panel.parts if isinstance(each, Table))
    assert (table.rows[0][-1].text, table.rows[0][-1].tone) == ("0.71x", "bad")


def test_the_roofline_is_the_lower_of_slope_and_peak() -> None:
    drawn = figures(shown("limit", hardware()))["Roofline"]
    by_name = {trace["name"]: trace for trace in drawn.data}
    roof = by_name["bf16 peak"]
    for x, y in zip(roof["x"], roof["y"], strict=True):
        assert y == pytest.approx(min(989, 3.35 * x), rel=1e-3)  # TFLOP/s; 3.35 TB/s times FLOP per byte
    assert roof["x"][1] == pytest.approx(989 / 3.35, rel=1e-3)
    assert max(by_name["bf16 achievable"]["y"]) == pytest.approx(0.8 * 989, rel=1e-3)
    assert (by_name["run"]["x"], by_name["run"]["y"]) == ([39.1], [60.3])
    decode = by_name["decode"]  # 2 % of 989 TFLOP/s at 49 % of 3.35 TB/s
    assert decode["y"] == [pytest.approx(19.78, rel=1e-3)]
    assert decode["x"] == [pytest.approx(19.78 / (0.49 * 3.35), rel=1e-3)]
    assert {drawn.layout[axis]["type"] for axis in ("xaxis", "yaxis")} == {"log"}


def test_of_several_peaks_a_share_is_no_place() -> None:
    both = {"bytes_per_s": 1e12, "ceilings": [{"dtype": d, "flops_per_s": 1e14} for d in ("fp8", "bf16")]}
    drawn = roofline.figure(both, {"decode": {"mbu": 0.5, "mfu": 0.1}})
    assert drawn is not None
    assert [trace["name"] for trace in drawn.data] == ["fp8 peak", "bf16 peak"]


@given(bandwidth=st.floats(1e9, 1e14), peak=st.floats(1e10, 1e17), mbu=st.floats(0.001, 1), mfu=st.floats(0.001, 1))
def test_a_possible_point_lies_under_the_roof(bandwidth: float, peak: float, mbu: float, mfu: float) -> None:
    made_up = {"bytes_per_s": bandwidth, "ceilings": [{"dtype": "bf16", "flops_per_s": peak}]}
    drawn = roofline.figure(made_up, {"decode": {"mbu": mbu, "mfu": mfu}})
    assert drawn is not None
    (x,), (y,) = drawn.data[-1]["x"], drawn.data[-1]["y"]
    assert y <= min(peak, bandwidth * x) / 1e12 * 1.01


# --- the GPUs


def test_each_gpu_in_a_row_and_in_a_colour(run: dict[str, Any]) -> None:
    panel = shown("gpu", hardware(), run, READ)
    (table,) = tables(panel)
    assert [row[0] for row in table] == ["GPU 0", "GPU 1"]
    assert table[1][2:8] == ["54.0 %", "8.0 %", "–", "97.0 %", "510 W", "1,755 MHz"]
    assert table[1][8:] == ["4.0 %", "72.7 GiB", "63.8", "22.9 kJ"]
    drawn = figures(panel)
    assert [trace["name"] for trace in drawn["DRAM bandwidth"].data] == ["GPU 0", "GPU 1"]
    assert drawn["DRAM bandwidth"].data[0]["y"][0] == 52
    assert drawn["Memory in use"].data[0]["y"][0] == pytest.approx(71e9 / 2**30, rel=1e-3)
    assert len({trace["meta"]["role"] for trace in drawn["Power"].data}) == 2
    assert "nvlink rx, nvlink tx (not supported by this driver)" in notes(panel)


def test_a_single_gpu_shows_all_its_figures(run: dict[str, Any]) -> None:
    alone = [sample for sample in READ if sample.gpu == GPUS[0]]
    drawn = figures(shown("gpu", hardware(), run, alone))
    assert [trace["name"] for trace in drawn["Cores at work"].data] == ["tensor cores", "SMs"]
    assert [trace["name"] for trace in drawn["Clocks"].data] == ["SM", "memory"]


def test_time_in_which_clocks_were_held_down_is_shaded(run: dict[str, Any]) -> None:
    for drawn in figures(shown("gpu", hardware(), run, READ)).values():
        held = [shape for shape in drawn.layout["shapes"] if shape["name"] == "held"]
        assert [(shape["x0"], shape["x1"]) for shape in held] == [(19.5, 21.5)]  # readings for the time before each
    alone = [sample for sample in READ if sample.gpu == GPUS[0]]
    shapes = [s for drawn in figures(shown("gpu", hardware(), run, alone)).values() for s in drawn.layout["shapes"]]
    assert {shape["name"] for shape in shapes} == {"outside"}


def test_utilisation_comes_with_the_warning_it_deserves(run: dict[str, Any]) -> None:
    drawn = figures(shown("gpu", hardware(), run, READ))["Utilisation as nvidia-smi shows it, any kernel"]
    assert "neither says how busy the GPU was" in drawn.note
    assert "neither says how busy the GPU was" in notes(shown("gpu", hardware(), run))


def test_a_remote_source_tells_how_its_clock_stands_and_what_went_wrong(run: dict[str, Any]) -> None:
    clocks = [
        {"url": "http://a:9433", "offset_s": -1.25, "uncertainty_ms": 0.4, "trips": 9, "drift_ppm": 12.0},
        {"url": "http://b:9400", "offset_s": None, "why": "this exporter tells no time"},
    ]
    told = telemetry(clocks=clocks, source="exporter", notes=["GPU 1 was lost at 12.3 s"])
    said = notes(shown("gpu", hardware(telemetry=told), run, READ))
    assert "http://a:9433 were brought to this machine's clock: theirs is -1.25 s off, known to 0.400 ms" in said
    assert "The clock of http://b:9400 is not known: this exporter tells no time." in said
    assert "GPU 1 was lost at 12.3 s." in said


def test_gpus_of_several_machines_are_told_apart() -> None:
    told = telemetry()
    for each in told["gpus"]:
        each["index"] = 0
    (table,) = tables(shown("gpu", hardware(telemetry=told)))
    assert [row[0] for row in table] == ["GPU 0 (GPU-0a1b2c3d-…)", "GPU 0 (GPU-4e5f6a7b-…)"]


def test_many_gpus_are_a_bounded_page(run: dict[str, Any]) -> None:
    many = [GpuSample(START_NS + t * SECOND, f"g{i}", {"power": 1.0 * i}) for t in range(3) for i in range(40)]
    drawn = figures(shown("gpu", hardware(telemetry=telemetry(gpus=[])), run, many))
    assert [len(each.data) for each in drawn.values()] == [16]


# --- cost, terminal, summary


def test_costs_say_what_they_are_shared_out_over(run: dict[str, Any]) -> None:
    panel = shown("cost", hardware(), run)
    found = {row[0]: row[1:] for row in tables(panel)[0]}
    assert found["1M output tokens at the SLO"] == ["all cost on the output of requests that met the SLO", "$1.21"]
    assert found["1,000 requests"][1] == "$0.174"
    assert found["1M input tokens"] == ["by FLOPs: an output token takes those of 1.02 input tokens", "$0.0905"]
    assert notes(panel) == "$2.50 per GPU and hour, 2 of them; price: --gpu-price."
    facts = dict(next(each for each in panel.parts if each.kind == "facts").rows)  # type: ignore[union-attr]
    assert facts["per output token"] == "0.618 J"
    assert facts["in the steady window"] == "0.0127 kWh"
    assert [each.kind for each in shown("cost", hardware(cost=None)).parts] == ["facts"]
    assert [each.kind for each in shown("cost", hardware(energy=None)).parts] == ["table", "note"]


def test_the_terminal_has_three_lines_of_it(run: dict[str, Any]) -> None:
    text = summary_text({**run, "hardware": hardware()})
    block = " ".join(text.partition("\nHardware\n")[2].partition("\n\n")[0].split())
    assert block == (
        "use MBU 46.0 % modelled, 53.0 % measured, 44.0 % by the server; MFU 6.1 % modelled, 6.0 % by the server; "
        "tensor cores at work 8.0 % limit TPOT is 1.9x its bandwidth floor; memory bandwidth binds it: MBU is 53% "
        "(measured) over the whole window cost $0.842 per 1M output tokens, $1.21 at the SLO; 0.618 J per output "
        "token, 1.62 output tok/s/W"
    )
    assert text.index("\nHardware\n") < text.index("\nServer\n")
    priced = summary_text({**run, "hardware": {"cost": {"usd_per_1m_output": 12.5}}})
    assert "cost                $12.50 per 1M output tokens\n" in priced


@pytest.mark.parametrize(
    ("target", "asked", "silent"),
    [
        ({"url": "https://api.example.com"}, {}, True),
        ({"url": "https://api.example.com"}, {"gpus": 2}, False),
        ({"url": "http://10.0.0.7:8000"}, {}, False),
        ({"url": "http://127.0.0.1:8000", "simulated": True}, {}, True),
    ],
)
def test_what_is_missing_is_said_where_somebody_may_want_it(
    run: dict[str, Any], target: dict[str, Any], asked: dict[str, Any], silent: bool
) -> None:
    found = nothing_known()
    found["deployment"]["asked"] = asked
    labels = dict(words.lines({**run, "target": target, "hardware": found}))
    assert ("lacks" not in labels) == silent
    assert "lacks" not in dict(words.lines({**run, "target": target, "hardware": hardware()}))
    for one in ({"gpu": "h100-sxm"}, {"model": "llama"}):
        found["deployment"] |= one
        assert ("lacks" not in dict(words.lines({"target": target, "hardware": found}))) == (silent or "model" in one)


def test_a_server_without_steps_is_said_to_lack_them() -> None:
    said = "No modelled MBU: the server does not count its steps, and its answers did not come in pieces"
    found = hardware(lacks=["No GPU was read: nothing here is measured", said])
    assert dict(words.lines({"hardware": found}))["lacks"] == said


def test_a_wrong_name_is_in_the_terminal_and_on_the_page_once() -> None:
    said = "MBU would be 588 %: the GPU, its number, the model or its format is not as named"
    found = hardware(doubts=[said], lacks=[said, "No cost: no price is known"])
    assert dict(words.lines({"hardware": found}))["wrong?"] == said
    panel = shown("efficiency", found)
    assert notes(panel).count("would be 588 %") == 1
    assert next(each for each in panel.parts if isinstance(each, Note)).tone == "warn"


def test_a_cost_of_gpus_that_nobody_counted_says_so(run: dict[str, Any]) -> None:
    deployment = {**hardware()["deployment"], "gpus": 1, "layout_source": "assumed: one GPU for each server"}
    found = hardware(deployment=deployment, energy=None)
    cost = dict(words.lines({"hardware": found}))["cost"]
    assert cost == "$0.842 per 1M output tokens, $1.21 at the SLO, if 1 GPU serves (assumed; say --gpus N)"
    alone = {**found, "cost": {"usd_per_1m_output": 1.01}}
    assert words.cost(alone) == "$1.01 per 1M output tokens if 1 GPU serves (assumed; say --gpus N)"
    assert notes(shown("cost", found, run)).startswith(
        "$2.50 per GPU and hour, if 1 GPU serves (assumed; say --gpus N)"
    )
    assert "say --gpus N" in cards(shown("efficiency", found, run))["Cost of 1M output tokens"].also
    assert "assumed" not in dict(words.lines({"hardware": hardware()}))["cost"]


def test_two_that_bind_alike_are_both_named() -> None:
    text = "Bandwidth 45.0 %, arithmetic 33.0 % of the time at the published peaks: neither alone."
    found = hardware(binding={**hardware()["binding"], "tie": {"resource": "compute", "text": text}})
    assert words.bound_by(found) == (
        "memory bandwidth and arithmetic bind it: bandwidth 45.0 %, arithmetic 33.0 % of the time at the published "
        "peaks: neither alone"
    )


def test_the_summary_has_what_is_known_alone() -> None:
    assert hardware_summary(hardware(), 1650.0) == {
        "mbu": 0.46,
        "mfu": 0.061,
        "mbu_measured": 0.53,
        "output_tps_per_gpu": 825.0,
        "usd_per_1m_output": COST["usd_per_1m_output"],
        "usd_per_1m_output_slo": COST["usd_per_1m_output_at_slo"],
        "joules_per_output_token": ENERGY["joules_per_output_token"],
    }
    assert hardware_summary(nothing_known(), 1650.0) == {}  # one GPU for each server is merely assumed
    named = nothing_known() | {"deployment": {"gpus": 4, "layout_source": "--gpus, as tensor parallel ranks"}}
    assert hardware_summary(named, 1650.0) == {"output_tps_per_gpu": 412.5}
    assert hardware_summary({}) == {}


@pytest.mark.parametrize(
    ("value", "said"),
    [(12.3, "$12.30"), (1, "$1.00"), (0.842, "$0.842"), (0.000174, "$0.000174"), (12345.6, "$12,346"), (None, "–")],
)
def test_dollars(value: float | None, said: str) -> None:
    assert words.dollars(value) == said


@pytest.mark.parametrize(
    ("ratio", "said"), [(1.94, "1.9x"), (1.04, "1.04x"), (12.34, "12x"), (9.96, "10x"), (None, "–")]
)
def test_ratios(ratio: float | None, said: str) -> None:
    assert words.times(ratio) == said


@pytest.mark.parametrize(
    ("value", "said"), [(3.35e12, "3.35 TB"), (131_072, "131 kB"), (999.9e9, "1.00 TB"), (12, "12.0 B")]
)
def test_decimal_prefixes(value: float, said: str) -> None:
    assert words.decimal(value, "B") == said


# --- whatever the result holds


def hostile(found: Any) -> Any:
    """The same with every text replaced, keys aside."""
    if isinstance(found, dict):
        return {key: hostile(value) for key, value in found.items()}
    if isinstance(found, list):
        return [hostile(value) for value in found]
    return HOSTILE if isinstance(found, str) else found


@pytest.mark.usefixtures("light")
def test_text_from_servers_and_files_stays_text(run: dict[str, Any], wanted: list[Record]) -> None:
    hurt = {**hostile(hardware()), "lacks": [HOSTILE]}
    hurt["efficiency"]["rows"] = [{**row, "note": HOSTILE} for row in EFFICIENCY["rows"]]
    hurt["efficiency"]["per_phase"] |= {HOSTILE: {"mbu": 0.1, "mfu": 0.2}}
    hurt["telemetry"]["clocks"] = [{"url": HOSTILE, "offset_s": 1.0}, {"url": HOSTILE, "why": HOSTILE}]
    hurt["telemetry"]["missing"] = {HOSTILE: HOSTILE}
    read = [GpuSample(each.at_ns, HOSTILE, each.values) for each in READ]
    plain = {tag for tag, _ in Elements(render({**run, "hardware": hardware()}, wanted, samples(), READ)).elements}
    found = Elements(render({**run, "hardware": hurt}, wanted, samples(), read))
    assert {tag for tag, _ in found.elements} <= plain
    assert not any(name.startswith("on") for _, attributes in found.elements for name in attributes)
    assert len(found.scripts) == 3
    assert not set(found.scripts[0]) & set("<>&\u2028\u2029")
    assert found.text.count("<script>alert(1)</script>") > 20
    loud = summary_text({**run, "hardware": hostile(hardware())})
    assert not {c for c in loud if ord(c) < 32 and c != "\n"}


def keys(found: Any) -> set[str]:
    """All keys at any depth."""
    inner = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
    return set(found if isinstance(found, dict) else ()).union(*map(keys, inner))


KEYS = sorted(keys(hardware()) | {"clocks", "url", "offset_s", "why"})
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=20,
)


@pytest.mark.usefixtures("light")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(sorted(hardware())), JSON), st.floats() | st.integers())
def test_any_json_gives_some_page_and_some_summary(found: dict[str, Any], odd: float) -> None:
    read = [GpuSample(START_NS + i * SECOND, "g", {"throttle": odd, "power": odd}) for i in range(3)]
    assert "<h1>" in render({"hardware": found}, [], [], read)
    assert summary_text({"hardware": found})
    assert all(isinstance(value, float) for value in hardware_summary(found, 1.0).values())


@pytest.mark.parametrize("found", [hardware(), without_telemetry(), telemetry_only()])
def test_axes_have_units_and_colours_are_the_styles(found: dict[str, Any], run: dict[str, Any]) -> None:
    css = (Path(page.__file__).parent / "templates" / "page.css").read_text()
    panels = [panel for name in NAMES if (panel := made(name, found, run, READ)) is not None]
    drawn = [each for panel in panels for each in figures(panel).values()]
    assert drawn
    for figure in drawn:
        for axis in (figure.layout["xaxis"], figure.layout["yaxis"]):
            assert re.search(r", (s|%|W|MHz|GiB|°C|GB/s|TFLOP/s|FLOP per byte)$", axis["title"]["text"])
        assert all(f"--{trace['meta']['role']}: #" in css for trace in figure.data)
    assert all(panel.about.endswith(".") for panel in panels)


@needs_a_browser
def test_a_browser_draws_it(run: dict[str, Any], wanted: list[Record], tmp_path: Path) -> None:
    body = render({**run, "hardware": hardware()}, wanted, samples(), READ)
    assert in_a_browser(body, tmp_path).count('class="plot-container') == len(Elements(body).figures)

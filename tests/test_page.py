"""The page is complete in itself, shows what the records say, and cannot be made to run anything else."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import in_a_browser, needs_a_browser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markupsafe import Markup
from synthetic_run import START_NS, check, records, run_of, samples

from servemark.dashboards import page, plots
from servemark.dashboards.page import render, write_page
from servemark.dashboards.panels import PANELS, Data, Figure, Note, Panel, Table
from servemark.dashboards.words import milliseconds
from servemark.harness.clock import MS, SECOND
from servemark.harness.errors import ResultUnusable
from servemark.harness.figures.frame import Frame
from servemark.harness.server.samples import combined
from servemark.harness.types import Record

HOSTILE = "</script></textarea><script>alert(1)</script><img src=x onerror=alert(2)>\"'><!-- {{7*7}} ${x} \u2028"


class Elements(HTMLParser):
    """Elements with their attributes, the text outside scripts and styles, and the scripts."""

    def __init__(self, body: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(body)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data

    def find(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def figures(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.scripts[0])
        return found


@pytest.fixture(scope="module")
def wanted() -> list[Record]:
    return records()


@pytest.fixture(scope="module")
def run(wanted: list[Record]) -> dict[str, Any]:
    return run_of(wanted, samples())


@pytest.fixture(scope="module")
def body(run: dict[str, Any], wanted: list[Record]) -> str:
    return render(run, wanted, samples())


@pytest.fixture(scope="module")
def parsed(body: str) -> Elements:
    return Elements(body)


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the plotting library, which is 5 MB to parse."""
    monkeypatch.setattr(page, "_plotly", lambda: Markup(""))


def panel(name: str, run: dict[str, Any], wanted: list[Record], scraped: Any = ()) -> Panel:
    made = PANELS[name](Data(run, Frame.from_records(wanted), scraped))
    assert made is not None
    return made


def traces(found: Panel, place: int = 0) -> dict[str, dict[str, Any]]:
    figure = [each for each in found.parts if isinstance(each, Figure)][place]
    return {trace["name"]: trace for trace in figure.data}


def rows(found: Panel) -> list[list[str]]:
    table = next(each for each in found.parts if isinstance(each, Table))
    return [[cell.text for cell in row] for row in table.rows]


# Complete in itself


def test_nothing_is_loaded_from_anywhere(parsed: Elements, body: str) -> None:
    for tag, attributes in parsed.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form", "audio", "video", "source")
        for name, value in attributes.items():
            assert name not in ("src", "srcset", "action", "data", "background", "poster", "ping"), (tag, name)
            assert not name.startswith("on"), (tag, name)
            if name == "href":
                assert (value or "").startswith("#")
    own = [(Path(page.__file__).parent / "templates" / name).read_text() for name in page.TEMPLATES]
    for source in own:
        assert not re.search(r"https?:|//[a-z]|@import|url\(|fetch\(|XMLHttpRequest|WebSocket|sendBeacon", source)
    assert len(body) < 8_000_000


def test_the_browser_is_told_to_load_nothing(parsed: Elements) -> None:
    policy = next(m["content"] for m in parsed.find("meta") if m.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in (policy or "").split(";"))
    assert rules == {
        "default-src": "'none'",
        "script-src": "'unsafe-inline'",
        "style-src": "'unsafe-inline'",
        "img-src": "data: blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    # The policy must stand before anything that it is to hold.
    assert [tag for tag, _ in parsed.elements][:4] == ["html", "head", "meta", "meta"]


def test_the_library_is_inline_and_its_upload_button_is_off(parsed: Elements) -> None:
    figures, library, own = parsed.scripts
    assert "plotly.js v" in library[:200]
    assert "showSendToCloud: false" in own
    assert 'plotlyServerURL: ""' in own
    assert "modeBarButtons: [[" in own
    assert json.loads(figures)


def test_no_webgl_which_would_need_eval(parsed: Elements) -> None:
    kinds = {trace["type"] for figure in parsed.figures.values() for trace in figure["data"]}
    assert kinds == {"scatter", "bar"}


@needs_a_browser
def test_a_browser_draws_every_figure_under_the_policy(body: str, parsed: Elements, tmp_path: Path) -> None:
    assert in_a_browser(body, tmp_path).count('class="plot-container') == len(parsed.figures) > 5


# Safe


def hostile_run(wanted: list[Record]) -> tuple[dict[str, Any], list[Record]]:
    hurt = [replace(r, error_detail=HOSTILE, class_=HOSTILE, url=HOSTILE) if r.error else r for r in wanted]
    run = run_of(hurt, samples())
    run["id"] = run["created"] = HOSTILE
    run["target"] = {"name": HOSTILE, "model": HOSTILE, "version": HOSTILE, "settings": {HOSTILE: HOSTILE}}
    run["workload"] = {"name": HOSTILE, "text": HOSTILE, "path": HOSTILE, "overrides": {HOSTILE: HOSTILE}}
    run["verdict"] = {"valid": False, "checks": [check(HOSTILE, "invalid", HOSTILE, HOSTILE, value=HOSTILE)]}
    run["groups"] = [{"by": {HOSTILE: HOSTILE}, "metrics": {}}]
    run["metrics"] = {**run["metrics"], "ttft": {**run["metrics"]["ttft"], "unit": HOSTILE[:20], "origin": HOSTILE}}
    run["slo"] = {"results": [{"limit": HOSTILE, "value": HOSTILE, "met": HOSTILE}]}
    run["host"] = run["versions"] = {HOSTILE: [HOSTILE]}
    return run, hurt


@pytest.mark.usefixtures("light")
def test_text_from_servers_and_files_stays_text(wanted: list[Record], parsed: Elements) -> None:
    run, hurt = hostile_run(wanted)
    body = render(run, hurt, samples())
    found = Elements(body)
    assert len(found.scripts) == 3
    assert "img" not in {tag for tag, _ in found.elements}
    assert not any("onerror" in attributes for _, attributes in found.elements)
    assert {tag for tag, _ in found.elements} <= {tag for tag, _ in parsed.elements} | {"ul", "li", "span", "b"}
    assert "<script>alert(1)</script><img src=x onerror=alert(2)>" in found.text
    assert "{{7*7}}" in found.text
    assert not set(found.scripts[0]) & set("<>&\u2028\u2029")
    assert found.figures


KEYS = (
    "verdict",
    "summary",
    "metrics",
    "groups",
    "slo",
    "server",
    "target",
    "workload",
    "schedule",
    "clock",
    "host",
    "id",
)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["ttft", "itl", "p50", "n", "value", "checks", "code", "ci", "by", "metrics", "results", "window_ns"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@pytest.mark.usefixtures("light")
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(KEYS), JSON))
def test_any_json_gives_some_page(found: dict[str, Any]) -> None:
    assert "<h1>" in render(found, records(12), samples(3))


@pytest.mark.usefixtures("light")
def test_a_run_without_requests_has_a_page() -> None:
    assert "No request failed." in render({}, [], [])


@pytest.mark.usefixtures("light")
def test_a_run_of_failures_only_has_a_page(wanted: list[Record]) -> None:
    unsent = [replace(r, sent_ns=None, error="connect", error_detail="refused") for r in records(5, failures=1)]
    unsent = [replace(r, done_ns=None) for r in unsent]
    found = Elements(render(run_of(unsent), unsent))
    assert "100 %" in found.text
    assert "refused (×5)" in found.text


# What people read


def test_banners(run: dict[str, Any], wanted: list[Record], parsed: Elements, light: None) -> None:
    assert "does not count" not in parsed.text
    assert "SIMULATED" not in parsed.text
    verdict = {"valid": False, "checks": [check("client_lag", "invalid", "requests left late", "lower --rate")]}
    loud = Elements(render({**run, "verdict": verdict, "simulated": True}, wanted))
    assert "INVALID: this run does not count" in loud.text
    assert "lower --rate" in loud.text
    assert "no figure here is one of a real server" in loud.text
    classes = [attributes.get("class") for tag, attributes in loud.elements if tag == "section"]
    assert classes[:2] == ["banner bad", "banner warn"]


def test_every_panel_is_there_with_a_sentence(parsed: Elements, run: dict[str, Any], wanted: list[Record]) -> None:
    shown = [attributes["id"] for attributes in parsed.find("section") if attributes.get("class") == "panel"]
    nothing_to_say = ("classes", "limit", "gpu", "cost", "groups", "promises")
    assert shown == [name for name in PANELS if name not in nothing_to_say]
    for name in shown:
        made = panel(str(name), run, wanted, samples())
        assert made.title
        assert made.about.endswith((".", "at or below a value. Dotted: p50 and p99."))


def test_axes_say_what_they_show_and_in_which_unit(parsed: Elements) -> None:
    for name, figure in parsed.figures.items():
        axes = {key: axis for key, axis in figure["layout"].items() if re.match("[xy]axis", key)}
        assert axes, name
        for axis in axes.values():
            title = axis["title"]["text"]
            assert re.search(r", (ms|s|%)$|tok/s|requests/s|in flight|^requests?", title), (name, title)


def test_colours_come_from_roles_that_the_style_knows(parsed: Elements) -> None:
    css = (Path(page.__file__).parent / "templates" / "page.css").read_text()
    dark = css[css.index("prefers-color-scheme: dark") :]
    for figure in parsed.figures.values():
        for trace in figure["data"]:
            assert f"--{trace['meta']['role']}: #" in css
            assert f"--{trace['meta']['role']}: #" in dark


def test_percentiles_are_the_results(run: dict[str, Any], wanted: list[Record]) -> None:
    found = rows(panel("percentiles", run, wanted))
    first = next(row for row in found if row[0] == "TTFT")
    entry = run["metrics"]["ttft"]
    assert [float(cell.lstrip("~")) for cell in first[2:5]] == pytest.approx(
        [entry["p50"], entry["p90"], entry["p95"]], rel=0.01
    )
    assert first[-1] == str(entry["n"])
    assert first[6].startswith("~")


def three() -> list[Record]:
    """Three requests that can be checked by hand; the last one fails."""
    first, second, third = records(3, failures=0)

    def made(base: Record, at_s: float, stamps_s: tuple[float, ...], tokens: tuple[int, ...]) -> Record:
        at = START_NS + round(at_s * SECOND)
        stamps = tuple(START_NS + round(s * SECOND) for s in stamps_s)
        return replace(
            base,
            phase="measured",
            intended_ns=at,
            sent_ns=at + 100 * MS,
            first_token_ns=stamps[0] if stamps else None,
            first_answer_ns=stamps[0] if stamps else None,
            last_token_ns=stamps[-1] if stamps else None,
            done_ns=(stamps or (at + SECOND,))[-1],
            chunk_ns=stamps,
            chunk_tokens=tokens,
            output_tokens=sum(tokens) if stamps else None,
        )

    lost = made(third, 2.0, (), ())
    return [
        made(first, 0.0, (0.5, 0.7, 0.9), (1, 1, 2)),
        made(second, 1.0, (1.5, 2.1), (1, 3)),
        replace(lost, error="reset", error_detail="gone"),
    ]


def plain(wanted: list[Record]) -> dict[str, Any]:
    return {"clock": {"started_ns": START_NS}, "metrics": {}}


def test_timeline_draws_each_stage_of_each_request() -> None:
    wanted = three()
    drawn = traces(panel("timeline", plain(wanted), wanted))
    assert drawn["waiting to be sent"]["x"] == [0.0, 0.1, None, 1.0, 1.1, None, 2.0, 2.1, None]
    assert drawn["until the first token"]["x"] == [0.1, 0.5, None, 1.1, 1.5, None]
    assert drawn["receiving tokens"]["x"] == [0.5, 0.9, None, 1.5, 2.1, None]
    assert drawn["receiving tokens"]["y"] == [0, 0, None, 1, 1, None]
    assert (drawn["failed"]["x"], drawn["failed"]["y"], drawn["failed"]["text"]) == ([3.0], [2], ["reset"])
    assert drawn[""]["customdata"] == [[0, 500.0, 900.0, 4], [1, 500.0, 1100.0, 4]]


def test_throughput_counts_every_token_once() -> None:
    wanted = three()
    drawn = traces(panel("throughput", plain(wanted), wanted))
    width = 0.1  # 3 s in at most 60 bins
    assert sum(drawn["output tok/s"]["y"]) * width == pytest.approx(8)
    assert sum(drawn["sent/s"]["y"]) * width == pytest.approx(3)
    assert sum(drawn["completed/s"]["y"]) * width == pytest.approx(2)
    flying = dict(zip(drawn["in flight"]["x"], drawn["in flight"]["y"], strict=True))
    assert {at: count for at, count in flying.items() if 0.2 < at < 0.8 or 1.0 < at < 1.09} == dict.fromkeys(
        [at for at in flying if 0.2 < at < 0.8], 1
    ) | dict.fromkeys([at for at in flying if 1.0 < at < 1.09], 0)


def test_throughput_spreads_tokens_that_chunks_do_not_tell() -> None:
    unknown = [replace(r, chunk_tokens=(None,) * len(r.chunk_tokens)) for r in three()]
    drawn = traces(panel("throughput", plain(unknown), unknown))
    assert sum(drawn["output tok/s"]["y"]) * 0.1 == pytest.approx(8, rel=1e-3)


def test_itl_over_time_shares_a_gap_among_its_tokens() -> None:
    wanted = three()
    drawn = traces(panel("itl_over_time", plain(wanted), wanted))
    at = drawn["p50"]["x"]
    found = {t: v for t, v in zip(at, drawn["p50"]["y"], strict=True) if v is not None}
    # Gaps: 200 ms for one token, 200 ms for two, 600 ms for three.
    assert sorted(found.values()) == [100, 200, 200]


def test_ttft_over_time_draws_requests_and_failures() -> None:
    wanted = three()
    drawn = traces(panel("ttft_over_time", plain(wanted), wanted))
    assert (drawn["request"]["x"], drawn["request"]["y"]) == ([0.0, 1.0], [500, 500])
    assert drawn["failed"]["x"] == [2.0]


def test_distribution_adds_up_and_its_line_ends_at_all(run: dict[str, Any], wanted: list[Record]) -> None:
    for place in range(4):
        drawn = traces(panel("distributions", run, wanted), place)
        assert drawn["at or below"]["y"][-1] == 100
        assert drawn["at or below"]["y"] == sorted(drawn["at or below"]["y"])
        assert sum(drawn["share"]["y"]) == pytest.approx(100, abs=1)


def test_errors_are_counted_by_kind_with_what_was_said() -> None:
    wanted = three()
    assert rows(panel("errors", plain(wanted), wanted)) == [["reset", "gone", "1", "33.3 %", "2.00 to 2.00 s"]]


def test_server_counters_become_rates(run: dict[str, Any], wanted: list[Record]) -> None:
    made = panel("server", run, wanted, samples())
    rates = traces(made, 2)
    assert set(rates["output"]["y"][1:]) == {470.0}
    assert traces(made, 1)["prefix cache hits"]["y"][1:3] == [0.3, 0.3]
    assert max(traces(made)["waiting"]["y"]) == run["server"]["max"]["waiting"]
    assert PANELS["server"](Data({}, Frame.from_records(wanted), ())) is None


def table(found: Panel, caption: str) -> list[list[str]]:
    (one,) = (each for each in found.parts if isinstance(each, Table) and each.caption == caption)
    return [[cell.text for cell in row] for row in one.rows]


def notes(found: Panel) -> list[str]:
    return [part.text for part in found.parts if isinstance(part, Note)]


def test_latencies_of_both_sides_with_what_each_is(run: dict[str, Any], wanted: list[Record]) -> None:
    """By the server's histograms 60 ms, of which 15 in the queue, 40 of prefill and 5 between."""
    made = panel("server", run, wanted, samples())
    both = run["server"]["both_sides"]["ttft"]
    rows = table(made, "The same latencies from both sides")
    assert [row[0] for row in rows] == ["TTFT", "↳ queue", "↳ prefill", "↳ rest"]
    assert rows[0][1] == "from here to there"  # as the adapter has it
    assert rows[0][2:4] == [milliseconds(both["client_ms"]), "60.0 ms"]
    assert [row[3] for row in rows[1:]] == ["15.0 ms", "40.0 ms", "5.00 ms"]
    assert f"The client counted {both['client_n']} first tokens and the server {both['server_n']}" in notes(made)[0]


def test_a_large_difference_comes_with_what_to_look_at(run: dict[str, Any], wanted: list[Record]) -> None:
    far = check("outside_server", "warning", "Mean TTFT lies far apart.", "Look at the network.")
    made = panel("server", {**run, "verdict": {"valid": True, "checks": [far]}}, wanted, samples())
    assert notes(made)[1:] == ["Mean TTFT lies far apart. Look at the network."]
    assert len(notes(panel("server", run, wanted, samples()))) == 1


def test_a_server_without_a_ttft_of_its_own(run: dict[str, Any], wanted: list[Record]) -> None:
    told = {**run["server"], "both_sides": {}, "stages": {"queue_time": {"ms": 15.0, "n": 8}}}
    made = panel("server", {**run, "server": told}, wanted, samples())
    assert notes(made)[0].startswith("This server tells no TTFT of its own.")
    assert [row[0] for row in table(made, "The same latencies from both sides")] == ["↳ queue"]


def test_replicas_by_their_own_metrics(wanted: list[Record]) -> None:
    """Two replicas, of which the second does three times what the first does."""
    each = [
        replace(sample, url=url, values={name: value * times for name, value in sample.values.items()})
        for sample in samples(5)
        for url, times in (("http://a", 1), ("http://b", 3))
    ]
    scraped = [*each, *(combined(each[i : i + 2]) for i in range(0, len(each), 2))]
    made = panel("server", run_of(wanted, scraped), wanted, scraped)
    rows = table(made, "Each replica by its own metrics")
    assert [row[0] for row in rows] == ["http://a", "http://b"]
    assert [row[2] for row in rows] == ["1,880", "5,640"]  # 4 s of 470 tokens a second
    assert [row[7] for row in rows] == ["60.0 ms", "60.0 ms"]
    assert set(traces(made, 3)) == {"http://a", "http://b"}
    together = traces(made)["running"]["y"]
    assert together == pytest.approx([4 * sample.values["running"] for sample in samples(5)], rel=1e-3)


def test_what_cannot_be_promised_has_a_panel(run: dict[str, Any], wanted: list[Record]) -> None:
    target = {**run["target"], "promises": {"fixed_length": False, "exact_counts": True}}
    said = rows(panel("promises", {**run, "target": target}, wanted))
    assert [row[0] for row in said] == ["output lengths"]
    assert said[0][1].startswith("Cannot be forced; got for asked, in tokens: p50 ")
    assert PANELS["promises"](Data(run, Frame.from_records(wanted), ())) is None


def test_workload_is_shown_word_for_word(run: dict[str, Any], body: str) -> None:
    from markupsafe import escape

    assert f"<pre>{escape(run['workload']['text'])}</pre>" in body
    assert run["schedule"]["hash"] in body


# Size


@pytest.mark.usefixtures("light")
def test_a_hundred_thousand_requests_still_make_a_small_page() -> None:
    count = 100_000
    rng = np.random.default_rng(5)
    at = START_NS + np.sort(rng.integers(0, 600 * SECOND, count))
    first = at + rng.integers(20 * MS, 900 * MS, count)
    stamps = (first[:, None] + np.arange(4) * 20 * MS).ravel()
    error = np.where(rng.random(count) < 0.1, "reset", None)
    frame = Frame.from_columns(
        {
            "request_id": np.arange(count),
            "intended_ns": at,
            "sent_ns": at + MS,
            "first_token_ns": first,
            "last_token_ns": first + 60 * MS,
            "done_ns": first + 61 * MS,
            "output_tokens": np.full(count, 4),
            "error": error,
            "error_detail": [f"lost {i}" if e else None for i, e in enumerate(error)],
        },
        (stamps, np.arange(count + 1) * 4),
        (np.ones(4 * count, np.int64), np.arange(count + 1) * 4),
    )
    found = Elements(render({"id": "big"}, frame, samples(2_000)))
    assert len(found.scripts[0]) < 1_000_000
    assert found.text.count("\n") < 4_000
    assert "1,500 of 100,000 requests are drawn" in found.text


def test_spread_keeps_both_ends_and_never_exceeds_its_limit() -> None:
    assert plots.spread(3, 10).tolist() == [0, 1, 2]
    assert plots.spread(0, 10).tolist() == []
    chosen = plots.spread(1_000_003, 1_500)
    assert (len(chosen), chosen[0], chosen[-1]) == (1_500, 0, 1_000_002)
    assert np.all(np.diff(chosen) > 0)


@given(st.floats(0.001, 1e6), st.integers(5, 200))
def test_time_bins_cover_the_run_and_are_few(end_s: float, most: int) -> None:
    edges = plots.time_bins(end_s, most)
    assert edges[0] == 0
    assert edges[-1] >= end_s
    assert 2 <= len(edges) <= most + 3
    assert np.allclose(np.diff(edges), edges[1])


@given(st.lists(st.tuples(st.floats(0, 9.99), st.integers(0, 50)), max_size=40))
def test_percentiles_per_bin_are_those_of_what_lies_in_it(pairs: list[tuple[float, int]]) -> None:
    edges = np.arange(0, 11.0)
    at, values = (np.array([pair[i] for pair in pairs], dtype=float) for i in (0, 1))
    (found,) = plots.percentiles_in(edges, at, values, (50,))
    for low, got in zip(edges[:-1], found, strict=True):
        inside = sorted(v for t, v in pairs if low <= t < low + 1)
        assert got == (inside[(len(inside) + 1) // 2 - 1] if inside else None)


# Writing


def test_write_page_replaces_and_leaves_nothing_else(
    run: dict[str, Any], wanted: list[Record], tmp_path: Path, light: None
) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    assert write_page(run, Frame.from_records(wanted), samples(), path) == path
    assert path.read_text().startswith("<!doctype html>")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_a_page_that_cannot_be_written_is_a_sentence(run: dict[str, Any], tmp_path: Path, light: None) -> None:
    with pytest.raises(ResultUnusable, match=r"report\.html: the page could not be written"):
        write_page(run, [], [], tmp_path / "nowhere" / "report.html")


def test_what_passed_is_folded_away_and_what_did_not_stands_open(run: dict[str, Any], wanted: list[Record]) -> None:
    given = [check("client_lag", "pass", "in time"), check("drain", "warning", "some were abandoned", "wait longer")]
    made = panel("verdict", {**run, "verdict": {"valid": True, "checks": given}}, wanted, samples())
    opened, folded = (each for each in made.parts if isinstance(each, Table))
    assert [row[1].text for row in opened.rows] == ["drain"]
    assert not opened.folded
    assert [row[1].text for row in folded.rows] == ["client_lag"]
    assert folded.folded == "1 check passed"

"""One contract for every adapter that is found by name, held against its transcripts (tests/transcripts).

A transcript is the raw body of a response and a TOML file that says what it holds. `case` names the part of the
contract that it shows; an adapter must have one for each case below.
"""

from __future__ import annotations

import contextlib
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.harness.errors import BadInput
from servemark.harness.load.sse import parser_for
from servemark.harness.server.discovery import adapter_names, load_adapter
from servemark.harness.types import Adapter, Decoder, Delta, Options, Request

TRANSCRIPTS = Path(__file__).parent / "transcripts"
STORIES = {path.stem: tomllib.loads(path.read_text()) for path in sorted(TRANSCRIPTS.glob("*.toml"))}
ADAPTERS = adapter_names()
PAIRS = [(adapter, name) for adapter in ADAPTERS for name, story in STORIES.items() if adapter in story["adapters"]]
STREAMED = [(adapter, name) for adapter, name in PAIRS if STORIES[name]["status"] == 200]
REFUSED = [(adapter, name) for adapter, name in PAIRS if STORIES[name]["status"] != 200]

EVERY_SERVER = {"success", "error-before-stream", "error-in-stream", "cut", "empty", "unknown-fields"}
CHAT_SERVERS = {"role-only", "reasoning", "multi-token", "usage-at-end", "usage-absent"}


def body_of(name: str) -> bytes:
    return (TRANSCRIPTS / f"{name}.sse").read_bytes()


def events_of(adapter: Adapter, pieces: list[bytes]) -> list[bytes]:
    parser = parser_for(adapter.framing)
    return [event for piece in pieces for event in parser.feed(piece)] + parser.finish()


def decode(adapter: Adapter, name: str) -> tuple[Decoder, list[Delta]]:
    decoder = adapter.decoder(STORIES[name]["endpoint"])
    return decoder, [decoder.feed(event) for event in events_of(adapter, [body_of(name)])]


def first(flags: list[bool]) -> int | None:
    return flags.index(True) if True in flags else None


@pytest.mark.parametrize("target", ADAPTERS)
def test_an_adapter_has_a_transcript_for_each_case(target: str) -> None:
    cases = {STORIES[name]["case"] for adapter, name in PAIRS if adapter == target}
    wanted = EVERY_SERVER | (CHAT_SERVERS if "chat" in load_adapter(target).endpoints else set())
    assert wanted - cases == set()


def test_each_transcript_belongs_to_some_adapter_and_is_told_apart_from_captured_ones() -> None:
    assert {path.stem for path in TRANSCRIPTS.glob("*.sse")} == set(STORIES)
    for name, story in STORIES.items():
        assert story["about"].startswith("Built by hand" if "-hand-" in name else "Captured from"), name


@pytest.mark.parametrize(("target", "name"), STREAMED)
def test_the_tokens_of_each_event(target: str, name: str) -> None:
    expect = STORIES[name]["expect"]
    _, deltas = decode(load_adapter(target), name)
    sizes = ["?" if delta.tokens is None else delta.tokens for delta in deltas if delta.carries]
    assert sizes == expect.get("chunk_tokens", [])
    assert first([delta.carries for delta in deltas]) == expect.get("first_token_event")
    assert first([delta.answer for delta in deltas]) == expect.get("first_answer_event")


@pytest.mark.parametrize(("target", "name"), STREAMED)
def test_a_delta_that_carries_nothing_claims_nothing(target: str, name: str) -> None:
    _, deltas = decode(load_adapter(target), name)
    for delta in deltas:
        assert delta.carries or (not delta.answer and delta.tokens is None)
        assert delta.tokens is None or delta.tokens > 0
        assert not (delta.error is not None and delta.carries)


@pytest.mark.parametrize(("target", "name"), STREAMED)
def test_the_outcome(target: str, name: str) -> None:
    story = STORIES[name]
    expect = story["expect"]
    decoder, deltas = decode(load_adapter(target), name)
    outcome = decoder.finish(story.get("clean", True))
    assert outcome.error == expect.get("error")
    assert expect.get("error_detail", "") in (outcome.error_detail or "")
    assert outcome.finish_reason == expect.get("finish_reason")
    if any(delta.error is not None for delta in deltas):
        assert outcome.error == "server_error"
    assert outcome.usage.source == expect.get("source", "none")
    for count in ("prompt_tokens", "output_tokens", "reasoning_tokens", "cached_tokens"):
        assert getattr(outcome.usage, count) == expect.get(count), count
    if "server_request_id" in expect:
        assert outcome.server_request_id == expect["server_request_id"]


@pytest.mark.parametrize(("target", "name"), STREAMED)
def test_a_success_that_was_cut_anywhere_is_no_success(target: str, name: str) -> None:
    """Every proper part of a good stream, up to the event that ends it, is incomplete when the connection breaks."""
    if STORIES[name]["expect"].get("error"):
        return
    adapter = load_adapter(target)
    events = events_of(adapter, [body_of(name)])
    done = [i for i, event in enumerate(events) if event.strip() == b"[DONE]"]
    for end in range(done[0] if done else len(events) + 1):
        decoder = adapter.decoder(STORIES[name]["endpoint"])
        for event in events[:end]:
            decoder.feed(event)
        assert decoder.finish(clean=False).error == "incomplete"


@pytest.mark.parametrize(("target", "name"), REFUSED)
def test_the_body_of_a_refusal_is_an_error_even_under_status_200(target: str, name: str) -> None:
    decoder = load_adapter(target).decoder(STORIES[name]["endpoint"])
    delta = decoder.feed(body_of(name))
    outcome = decoder.finish(clean=True)
    assert not delta.carries
    assert STORIES[name]["expect"]["error_detail"] in (delta.error or "")
    assert outcome.error == "server_error"
    assert STORIES[name]["expect"]["error_detail"] in (outcome.error_detail or "")


@pytest.mark.parametrize("target", ADAPTERS)
@given(data=st.data())
def test_any_split_of_the_bytes_gives_the_same_events(target: str, data: st.DataObject) -> None:
    adapter = load_adapter(target)
    body = body_of(data.draw(st.sampled_from([name for owner, name in STREAMED if owner == target])))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(body)), max_size=12)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert events_of(adapter, pieces) == events_of(adapter, [body])


@pytest.mark.parametrize("target", ADAPTERS)
@pytest.mark.parametrize(
    "event", [b"<html>", b"{", b"[]", b"3", b"null", b'"text"', b"{}", b'{"a":1}', b"\xff\xfe", b""]
)
def test_bytes_of_no_dialect_are_a_value_error(target: str, event: bytes) -> None:
    adapter = load_adapter(target)
    with pytest.raises(ValueError):
        adapter.decoder(adapter.endpoints[0]).feed(event)


@pytest.mark.parametrize("target", ADAPTERS)
@given(event=st.binary(max_size=40))
def test_no_bytes_break_a_decoder_otherwise(target: str, event: bytes) -> None:
    adapter = load_adapter(target)
    decoder = adapter.decoder(adapter.endpoints[0])
    with contextlib.suppress(ValueError):
        assert not decoder.feed(event).carries
    decoder.finish(clean=True)


@pytest.mark.parametrize("target", ADAPTERS)
def test_encoding_is_pure_json_and_lets_extra_fields_win(target: str) -> None:
    adapter = load_adapter(target)
    for endpoint in adapter.endpoints:
        request = Request(index=3, prompt="Hello \u2603", asked_prompt_tokens=4, asked_output_tokens=17)
        options = Options(model="m", endpoint=endpoint, extra_body={"zz_extra": {"deep": [1]}, "temperature": 0.5})
        http = adapter.encode(request, options)
        assert http == adapter.encode(request, options)
        assert http.method == "POST"
        assert http.path.startswith("/")
        body: dict[str, Any] = json.loads(http.body)
        assert body["zz_extra"] == {"deep": [1]}
        assert body["temperature"] == 0.5
        assert 17 in body.values()


@pytest.mark.parametrize("target", ADAPTERS)
def test_what_an_adapter_says_of_itself(target: str) -> None:
    adapter = load_adapter(target)
    assert adapter.name == target
    assert adapter.about
    assert adapter.default_url.startswith("http")
    assert any(probe.required for probe in adapter.probes())
    assert [endpoint for endpoint in adapter.endpoints if adapter.promises(endpoint) is None] == []


@pytest.mark.parametrize("target", ADAPTERS)
def test_token_ids_go_where_they_are_promised_and_nowhere_else(target: str) -> None:
    adapter = load_adapter(target)
    request = Request(index=0, prompt=(5, 6, 7), asked_prompt_tokens=3, asked_output_tokens=2)
    for endpoint in adapter.endpoints:
        if adapter.promises(endpoint).token_id_prompts:
            assert b"[5,6,7]" in adapter.encode(request, Options(endpoint=endpoint)).body
        else:
            with pytest.raises(BadInput, match="token ids"):
                adapter.encode(request, Options(endpoint=endpoint))


def test_an_unknown_target_is_told_with_those_there_are() -> None:
    with pytest.raises(BadInput, match=r"no target 'nosuch'.*vllm"):
        load_adapter("nosuch")
    for name in ("base", "openai_chunks", "openai-chunks", "__init__", "os.path", "../x", ""):
        with pytest.raises(BadInput, match="no target"):
            load_adapter(name)


def test_shared_modules_are_no_targets() -> None:
    assert "vllm" in ADAPTERS
    assert {"base", "openai-chunks"}.isdisjoint(ADAPTERS)

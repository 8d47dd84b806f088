"""One contract for every adapter that is found by name, held against its transcripts (tests/transcripts)."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.adapters.contract import Check, Transcript, checks, transcripts
from servemark.adapters.vllm import ADAPTER as VLLM
from servemark.harness.errors import BadInput
from servemark.harness.load.sse import parser_for
from servemark.harness.server.discovery import adapter_names, load_adapter
from servemark.harness.types import Decoder, Delta, Endpoint

TRANSCRIPTS = Path(__file__).parent / "transcripts"
ALL = list(transcripts(TRANSCRIPTS))
# An adapter of another package that is installed here is that package's to test.
ADAPTERS = [name for name in adapter_names() if type(load_adapter(name)).__module__.startswith("servemark.adapters")]
CONTRACT = [
    pytest.param(check, id=f"{name}: {check}") for name in ADAPTERS for check in checks(load_adapter(name), TRANSCRIPTS)
]


@pytest.mark.parametrize("check", CONTRACT)
def test_the_contract(check: Check) -> None:
    check()


def test_each_transcript_belongs_to_some_adapter_and_is_told_apart_from_captured_ones() -> None:
    for each in ALL:
        assert set(each.story["adapters"]) <= set(ADAPTERS), each.name
        assert each.story["about"].startswith("Built by hand" if "-hand-" in each.name else "Captured from"), each.name


@pytest.mark.parametrize("target", ADAPTERS)
@given(data=st.data())
def test_any_number_of_splits_gives_the_same_events(target: str, data: st.DataObject) -> None:
    adapter = load_adapter(target)
    body = data.draw(st.sampled_from([each.body for each in ALL if target in each.story["adapters"]]))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(body)), max_size=12)))
    whole, parts = parser_for(adapter.framing), parser_for(adapter.framing)
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    with contextlib.suppress(ValueError):  # a refusal's body is no event stream
        expected = whole.feed(body) + whole.finish()
        assert [event for piece in pieces for event in parts.feed(piece)] + parts.finish() == expected


@pytest.mark.parametrize("target", ADAPTERS)
@given(event=st.binary(max_size=40))
def test_no_bytes_break_a_decoder_otherwise(target: str, event: bytes) -> None:
    adapter = load_adapter(target)
    for endpoint in adapter.endpoints:
        decoder = adapter.decoder(endpoint)
        with contextlib.suppress(ValueError):
            assert not decoder.feed(event).carries
        decoder.finish(clean=True)


def test_an_unknown_target_is_told_with_those_there_are() -> None:
    with pytest.raises(BadInput, match=r"no target 'nosuch'.*vllm"):
        load_adapter("nosuch")
    for name in ("base", "openai_chunks", "openai-chunks", "__init__", "os.path", "../x", ""):
        with pytest.raises(BadInput, match="no target"):
            load_adapter(name)


def test_shared_modules_are_no_targets() -> None:
    assert "vllm" in ADAPTERS
    assert {"base", "contract", "openai-chunks"}.isdisjoint(ADAPTERS)


# --- the contract itself can be broken


class Careless:
    """A decoder that counts each chunk as a token and takes whatever comes for an answer."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._decoder: Decoder = VLLM.decoder(endpoint)
        self.finish = self._decoder.finish

    def feed(self, event: bytes) -> Delta:
        with contextlib.suppress(ValueError):
            self._decoder.feed(event)
        return Delta(carries=True, answer=True, tokens=1)


class CarelessAdapter(type(VLLM)):  # type: ignore[misc]
    def decoder(self, endpoint: Endpoint) -> Decoder:
        return Careless(endpoint)


def broken(adapter: object, part: str) -> bool:
    found = [check for check in checks(adapter, TRANSCRIPTS) if part in str(check)]  # type: ignore[arg-type]
    assert found
    for check in found:
        try:
            check()
        except AssertionError:
            return True
    return False


@pytest.mark.parametrize("part", ["tokens_of_each_event", "no dialect", "a_refusal_is"])
def test_a_careless_decoder_breaks_it(part: str) -> None:
    assert broken(CarelessAdapter(), part)
    assert not broken(VLLM, part)


def test_an_adapter_without_transcripts_breaks_it(tmp_path: Path) -> None:
    (check,) = (each for each in checks(VLLM, tmp_path) if "for each case" in str(each))
    with pytest.raises(AssertionError, match="no transcript of vllm shows: cut, empty"):
        check()


def test_a_wrong_story_is_told() -> None:
    good = next(each for each in ALL if each.name == "vllm-chat")
    story = {**good.story, "expect": {**good.expect, "output_tokens": 13}}
    wrong: Transcript = replace(good, story=story)
    from servemark.adapters.contract import the_outcome

    with pytest.raises(AssertionError, match="output_tokens: 12, not 13"):
        the_outcome(VLLM, wrong)

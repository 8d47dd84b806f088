"""The contract that every adapter keeps, as checks over its transcripts; for adapters of other packages too:

    @pytest.mark.parametrize("check", checks(ADAPTER, Path("transcripts")), ids=str)
    def test_the_contract(check):
        check()

A transcript is the raw body of a response (`NAME.sse`, or `NAME.ndjson`) and `NAME.toml`, which says what it holds:

    adapters = ["vllm"]           # whose dialect it is in
    about = "Captured from ..."   # or "Built by hand: ...", with the source
    case = "success"              # the part of the contract that it shows
    endpoint = "chat"
    status = 200
    clean = false                 # the connection broke after it; true where it is left out
    ends_with = "connection"      # nothing in the body marks its end

    [expect]
    chunk_tokens = [1, 1, "?"]    # tokens of each event that carries any; "?": the server does not say
    first_token_event = 1         # by number, from 0
    first_answer_event = 1
    answer = "Hi!"                # the text of a success that holds any, reasoning left out
    finish_reason = "length"
    prompt_tokens = 9             # output_tokens, reasoning_tokens, cached_tokens likewise
    source = "usage"              # who counted
    error = "server_error"        # the outcome's error, and a part of its text
    error_detail = "engine died"
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from servemark.harness.errors import BadInput
from servemark.harness.load.sse import parser_for
from servemark.harness.types import Adapter, Decoder, Delta, HttpRequest, Message, Options, Request, ServerFacts

EVERY_SERVER = frozenset({"success", "error-before-stream", "error-in-stream", "cut", "empty", "multi-token"})
CHAT_SERVERS = frozenset({"role-only", "reasoning", "usage-at-end", "usage-absent"})

NOT_ITS_DIALECT = (b"<html>", b"{", b"[]", b"3", b"null", b'"text"', b"{}", b'{"a":1}', b"\xff\xfe", b"")
_COUNTS = ("prompt_tokens", "output_tokens", "reasoning_tokens", "cached_tokens")


@dataclass(frozen=True)
class Transcript:
    name: str
    body: bytes
    story: Mapping[str, Any]

    @property
    def expect(self) -> Mapping[str, Any]:
        expect: Mapping[str, Any] = self.story.get("expect", {})
        return expect

    @property
    def streamed(self) -> bool:
        return bool(self.story["status"] == 200)


@dataclass(frozen=True)
class Check:
    """One check; calling it raises AssertionError where the adapter breaks the contract."""

    name: str
    run: Callable[[], None]

    def __call__(self) -> None:
        self.run()

    def __str__(self) -> str:
        return self.name


def transcripts(folder: Path) -> Iterator[Transcript]:
    """All that are in a folder, by name."""
    for path in sorted(folder.glob("*.toml")):
        (body,) = (file for file in folder.glob(f"{path.stem}.*") if file.suffix in (".sse", ".ndjson"))
        yield Transcript(path.stem, body.read_bytes(), tomllib.loads(path.read_text(encoding="utf-8")))


def checks(adapter: Adapter, folder: Path) -> list[Check]:
    """The whole contract for one adapter, over those transcripts in `folder` that are in its dialect."""
    own = [each for each in transcripts(folder) if adapter.name in each.story["adapters"]]
    found = [Check(each.__name__, partial(each, adapter)) for each in OF_THE_ADAPTER]
    found.append(Check("a transcript for each case", partial(each_case_has_one, adapter, own)))
    for event in NOT_ITS_DIALECT:
        found.append(Check(f"no dialect {event!r}", partial(bytes_of_no_dialect_are_a_value_error, adapter, event)))
    for transcript in own:
        for each in OF_A_STREAM if transcript.streamed else OF_A_REFUSAL:
            found.append(Check(f"{each.__name__} {transcript.name}", partial(each, adapter, transcript)))
    return found


# --- over a stream


def tokens_of_each_event(adapter: Adapter, transcript: Transcript) -> None:
    _, deltas = _decoded(adapter, transcript)
    expect = transcript.expect
    sizes = ["?" if delta.tokens is None else delta.tokens for delta in deltas if delta.carries]
    _same("chunk_tokens", sizes, expect.get("chunk_tokens", []))
    _same("first_token_event", _first(delta.carries for delta in deltas), expect.get("first_token_event"))
    _same("first_answer_event", _first(delta.answer for delta in deltas), expect.get("first_answer_event"))


def a_delta_claims_only_what_it_carries(adapter: Adapter, transcript: Transcript) -> None:
    for delta in _decoded(adapter, transcript)[1]:
        assert delta.carries or (not delta.answer and delta.tokens is None), delta
        assert delta.tokens is None or delta.tokens > 0, delta
        assert not (delta.error is not None and delta.carries), delta


def the_outcome(adapter: Adapter, transcript: Transcript) -> None:
    expect = transcript.expect
    decoder, deltas = _decoded(adapter, transcript)
    outcome = decoder.finish(transcript.story.get("clean", True))
    _same("error", outcome.error, expect.get("error"))
    assert expect.get("error_detail", "") in (outcome.error_detail or ""), outcome
    _same("finish_reason", outcome.finish_reason, expect.get("finish_reason"))
    if any(delta.error is not None for delta in deltas):
        _same("error after an error event", outcome.error, "server_error")
    _same("source", outcome.usage.source, expect.get("source", "none"))
    for count in _COUNTS:
        _same(count, getattr(outcome.usage, count), expect.get(count))
    if "server_request_id" in expect:
        _same("server_request_id", outcome.server_request_id, expect["server_request_id"])


def the_text_of_a_success(adapter: Adapter, transcript: Transcript) -> None:
    """It is what a conversation's history holds; nobody asks for it where no turn follows."""
    if transcript.expect.get("error"):
        return
    decoder, silent = (adapter.decoder(transcript.story["endpoint"]) for _ in range(2))
    decoder.answer = []
    for event in _events(adapter, [transcript.body]):
        assert decoder.feed(event) == silent.feed(event), "what an event carries depends on whether its text is wanted"
    assert decoder.finish(True) == silent.finish(True), "the outcome depends on whether the text is wanted"
    _same("answer", "".join(decoder.answer), transcript.expect.get("answer", ""))
    _same("the text that nobody asked for", silent.answer, None)


def a_part_of_a_success_is_incomplete(adapter: Adapter, transcript: Transcript) -> None:
    """Every proper part of a good stream, up to the event that ends it, where the connection breaks after it."""
    if transcript.expect.get("error"):
        return
    events = _events(adapter, [transcript.body])
    done = [at for at, event in enumerate(events) if event.strip() == b"[DONE]"]
    whole = len(events) + (transcript.story.get("ends_with") == "connection")
    for end in range(done[0] if done else whole):
        decoder = adapter.decoder(transcript.story["endpoint"])
        for event in events[:end]:
            decoder.feed(event)
        _same(f"error after {end} events", decoder.finish(clean=False).error, "incomplete")


def any_split_gives_the_same_events(adapter: Adapter, transcript: Transcript) -> None:
    """Of one cut at each place (some in a long body), and byte by byte."""
    body = transcript.body
    whole = _events(adapter, [body])
    step = max(1, len(body) // 1500)
    for cut in range(0, len(body) + 1, step):
        assert _events(adapter, [body[:cut], body[cut:]]) == whole, f"cut at byte {cut}"
    assert _events(adapter, [body[at : at + 1] for at in range(len(body))]) == whole, "byte by byte"


def line_ends_and_comments_change_nothing(adapter: Adapter, transcript: Transcript) -> None:
    if adapter.framing != "sse":
        return
    body = transcript.body.replace(b"\r\n", b"\n")
    whole = [event.rstrip() for event in _events(adapter, [body])]
    for other in (body.replace(b"\n", b"\r\n"), body.replace(b"\n\n", b"\n\n: keep-alive\n\n")):
        assert [event.rstrip() for event in _events(adapter, [other])] == whole


def unknown_fields_change_nothing(adapter: Adapter, transcript: Transcript) -> None:
    endpoint = transcript.story["endpoint"]
    plain, other = adapter.decoder(endpoint), adapter.decoder(endpoint)
    for event in _events(adapter, [transcript.body]):
        more = b'{"zz_unknown":{"deep":[1,null]},' + event.lstrip()[1:] if event.lstrip().startswith(b"{") else event
        assert _fed(plain, event) == _fed(other, more), event
    assert plain.finish(True) == other.finish(True)


OF_A_STREAM = (
    tokens_of_each_event,
    a_delta_claims_only_what_it_carries,
    the_outcome,
    the_text_of_a_success,
    a_part_of_a_success_is_incomplete,
    any_split_gives_the_same_events,
    line_ends_and_comments_change_nothing,
    unknown_fields_change_nothing,
)


# --- over a refusal


def a_refusal_is_an_error_even_under_status_200(adapter: Adapter, transcript: Transcript) -> None:
    decoder = adapter.decoder(transcript.story["endpoint"])
    body = transcript.body
    events = _events(adapter, [body]) if body.startswith(b"data:") else [body]
    detail = transcript.expect["error_detail"]
    deltas = [decoder.feed(event) for event in events]
    outcome = decoder.finish(clean=True)
    assert not any(delta.carries for delta in deltas)
    assert any(detail in (delta.error or "") for delta in deltas), deltas
    _same("error", outcome.error, "server_error")
    assert detail in (outcome.error_detail or ""), outcome


OF_A_REFUSAL = (a_refusal_is_an_error_even_under_status_200,)


# --- of the adapter itself


def each_case_has_one(adapter: Adapter, own: Sequence[Transcript]) -> None:
    wanted = EVERY_SERVER | (CHAT_SERVERS if "chat" in adapter.endpoints else frozenset())
    missing = wanted - {each.story["case"] for each in own}
    assert not missing, f"no transcript of {adapter.name} shows: {', '.join(sorted(missing))}"


def it_says_what_it_is(adapter: Adapter) -> None:
    assert adapter.name
    assert adapter.about
    assert adapter.endpoints
    assert adapter.default_url.startswith(("http://", "https://"))
    assert any(probe.required for probe in adapter.probes()), "some probe must be required, or anything is taken for it"
    for endpoint in adapter.endpoints:
        assert adapter.promises(endpoint)
    settled = adapter.settled(ServerFacts(), "m")
    assert settled.name == adapter.name


def probes_ask_and_send_no_load(adapter: Adapter) -> None:
    for probe in (*adapter.probes(), *adapter.model_probes("m")):
        assert probe.request.method in ("GET", "POST"), probe.name
        assert probe.request.path.startswith("/"), probe.name


def encoding_is_pure_json_and_extra_fields_win(adapter: Adapter) -> None:
    for endpoint in adapter.endpoints:
        request = Request(index=3, prompt="Hello \u2603", asked_prompt_tokens=4, asked_output_tokens=17)
        extra = {"zz_extra": {"deep": [1]}, "temperature": 0.5}
        http = adapter.encode(request, Options(model="m", endpoint=endpoint, extra_body=extra))
        assert http == adapter.encode(request, Options(model="m", endpoint=endpoint, extra_body=extra))
        assert http.method == "POST"
        assert http.path.startswith("/")
        body = json.loads(http.body)
        _same("an extra field", body["zz_extra"], {"deep": [1]})
        _same("a field that is given again", body["temperature"], 0.5)
        assert 17 in list(_values(body)), f"the asked output length is nowhere in {body}"


def a_conversation_is_sent_whole_and_each_turn_begins_with_the_last(adapter: Adapter) -> None:
    """Every message in order; where they are one text, the last turn's with its answer is its beginning."""
    history = (Message("system", "Be brief."), Message("user", "One?"), Message("assistant", "First answer."))
    request = Request(2, "Two?", None, 7, history=history)
    for endpoint in adapter.endpoints:
        options = Options(model="m", endpoint=endpoint)
        texts = [text for text in _values(json.loads(adapter.encode(request, options).body)) if isinstance(text, str)]
        whole = "\n".join(texts)
        places = [whole.find(said) for said in ("Be brief.", "One?", "First answer.", "Two?")]
        assert -1 not in places, f"not all of the conversation is in {texts}"
        _same("the order of the messages", places, sorted(places))
        if any("One?" in text and "Two?" in text for text in texts):
            before = Request(1, "One?", None, 7, history=history[:1])
            earlier = list(_values(json.loads(adapter.encode(before, options).body)))
            begun = [f"{text}First answer." for text in earlier if isinstance(text, str) and "One?" in text]
            assert any(text.startswith(begun[0]) for text in texts), f"{begun[0]!r} begins none of {texts}"


def the_result_of_a_tool_answers_a_call(adapter: Adapter) -> None:
    if "chat" not in adapter.endpoints:
        return
    history = (Message("user", "Look."), Message("assistant", "I look."), Message("tool", "a"))
    request = Request(2, "b", None, 7, history=history, role="tool")
    http = adapter.encode(request, Options(model="m", endpoint="chat"))
    assert http == adapter.encode(request, Options(model="m", endpoint="chat"))
    said = json.loads(http.body)["messages"]
    _same("roles", [each["role"] for each in said], ["user", "assistant", "tool", "tool"])
    _same("what the assistant said", said[1]["content"], "I look.")
    calls = [each["id"] for each in said[1]["tool_calls"]]
    _same("the calls that are answered", [each["tool_call_id"] for each in said[2:]], calls)
    assert len(set(calls)) == len(calls)


def token_ids_go_where_they_are_promised(adapter: Adapter) -> None:
    request = Request(index=0, prompt=(5, 6, 7), asked_prompt_tokens=3, asked_output_tokens=2)
    for endpoint in adapter.endpoints:
        if adapter.promises(endpoint).token_id_prompts:
            assert b"[5,6,7]" in adapter.encode(request, Options(model="m", endpoint=endpoint)).body
        else:
            assert isinstance(_refused(adapter, request, Options(model="m", endpoint=endpoint)), BadInput)
        after = Request(0, (5, 6, 7), 3, 2, history=(Message("user", "One?"), Message("assistant", "Yes.")))
        assert isinstance(_refused(adapter, after, Options(model="m", endpoint=endpoint)), BadInput)


OF_THE_ADAPTER = (
    it_says_what_it_is,
    probes_ask_and_send_no_load,
    encoding_is_pure_json_and_extra_fields_win,
    a_conversation_is_sent_whole_and_each_turn_begins_with_the_last,
    the_result_of_a_tool_answers_a_call,
    token_ids_go_where_they_are_promised,
)


def bytes_of_no_dialect_are_a_value_error(adapter: Adapter, event: bytes) -> None:
    for endpoint in adapter.endpoints:
        try:
            delta = adapter.decoder(endpoint).feed(event)
        except ValueError:
            continue
        raise AssertionError(f"{event!r} was read as {delta}")


# --- what they are made of


def _events(adapter: Adapter, pieces: Iterable[bytes]) -> list[bytes]:
    parser = parser_for(adapter.framing)
    return [event for piece in pieces for event in parser.feed(piece)] + parser.finish()


def _decoded(adapter: Adapter, transcript: Transcript) -> tuple[Decoder, list[Delta]]:
    decoder = adapter.decoder(transcript.story["endpoint"])
    return decoder, [decoder.feed(event) for event in _events(adapter, [transcript.body])]


def _fed(decoder: Decoder, event: bytes) -> Delta | None:
    try:
        return decoder.feed(event)
    except ValueError:
        return None


def _refused(adapter: Adapter, request: Request, options: Options) -> HttpRequest | BadInput:
    try:
        return adapter.encode(request, options)
    except BadInput as error:
        return error


def _first(flags: Iterable[bool]) -> int | None:
    return next((at for at, flag in enumerate(flags) if flag), None)


def _values(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        for each in value.values():
            yield from _values(each)
    elif isinstance(value, list):
        for each in value:
            yield from _values(each)
    else:
        yield value


def _same(what: str, found: object, wanted: object) -> None:
    assert found == wanted, f"{what}: {found!r}, not {wanted!r}"

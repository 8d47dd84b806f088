"""Bytes of a response into events: the same ones however the network cut the bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.harness.load.sse import EventParser, NdjsonParser, SseParser, parser_for

TWO = [b'{"a": 1}', b"[DONE]"]


def read(parser: EventParser, pieces: list[bytes]) -> tuple[list[bytes], bool]:
    """All events, and whether the bytes turned out to be no such stream."""
    events: list[bytes] = []
    try:
        for piece in pieces:
            events += parser.feed(piece)
        events += parser.finish()
    except ValueError:
        return events, True
    return events, False


def sse(data: bytes) -> list[bytes]:
    events, garbage = read(SseParser(), [data])
    assert not garbage
    return events


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b'data: {"a": 1}\n\ndata: [DONE]\n\n', TWO),
        (b'data: {"a": 1}\r\n\r\ndata: [DONE]\r\n\r\n', TWO),
        (b'data: {"a": 1}\r\rdata: [DONE]\r\r', TWO),
        (b'data: {"a": 1}\r\n\ndata: [DONE]\n\r\n', TWO),
        (b'data:{"a": 1}\n\ndata:[DONE]\n\n', TWO),
        (b'\xef\xbb\xbfdata: {"a": 1}\n\ndata: [DONE]\n\n', TWO),
        (b'\n\n\ndata: {"a": 1}\n\n\n\n\ndata: [DONE]\n\n', TWO),
        (b': ping\n\ndata: {"a": 1}\n\n:\n\ndata: [DONE]\n\n', TWO),
        (b': ping\ndata: {"a": 1}\n\nevent: end\nid: 7\ndata: [DONE]\nretry: 10\n\n', TWO),
        (b'data: {"a":\ndata:  1}\n\n', [b'{"a":\n 1}']),
        (b"data\n\n", [b""]),
        (b"data: \n\n", [b""]),
        (b"data:  x\n\n", [b" x"]),
        (b"event: ping\n\n", []),
        (b"data: a: b\n\n", [b"a: b"]),
        (b"", []),
        (b"\xef\xbb\xbf", []),
        (b"data: {}\n", [b"{}"]),  # only the blank line is missing
        (b"data: {}\r\n", [b"{}"]),
        (b"data: {", []),  # a line that was cut is no event
        (b"data: {}\n\ndata: {", [b"{}"]),
    ],
)
def test_events_of_a_stream(stream: bytes, events: list[bytes]) -> None:
    assert sse(stream) == events
    assert read(SseParser(), [stream[i : i + 1] for i in range(len(stream))]) == (events, False)


@pytest.mark.parametrize(
    "stream", [b"<html>\n<body>\n\n", b'{"error": "x"}\n\n', b"\x00\xff\x00\n\n", b"HTTP/1.1 200 OK\n\n"]
)
def test_bytes_that_are_no_event_stream_are_said_to_be_none(stream: bytes) -> None:
    with pytest.raises(ValueError, match="not an event stream"):
        SseParser().feed(stream)


def test_what_came_before_garbage_counts_and_the_garbage_stays_one() -> None:
    parser = SseParser()
    assert parser.feed(b"data: 1\n\ngarbage\n\ndata: 2\n\n") == [b"1"]
    for _ in range(2):
        with pytest.raises(ValueError, match="not an event stream: b'garbage'"):
            parser.feed(b"data: 3\n\n")
    with pytest.raises(ValueError, match="garbage"):
        parser.finish()


LINES = st.sampled_from(
    [b"data: x", b"data:y", b"data", b": note", b"", b"", b"event: e", b"id", b"nonsense", b"data: \xc3\xa9"]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
STREAMS = st.builds(
    lambda bom, lines, tail: bom + b"".join(line + end for line, end in lines) + tail,
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
    st.lists(st.tuples(LINES, ENDS), max_size=12),
    st.sampled_from([b"", b"data: cut", b"\r", b"\n"]),
)


@given(STREAMS | st.binary(max_size=40), st.data())
def test_any_split_gives_the_same_events(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert read(SseParser(), pieces) == read(SseParser(), [stream])


@given(st.lists(st.text(st.characters(blacklist_characters="\r\n"), max_size=20), max_size=6), ENDS)
def test_what_a_server_writes_is_what_is_read(payloads: list[str], end: bytes) -> None:
    wanted = [payload.encode("utf-8", "replace") for payload in payloads]
    assert sse(b"".join(b"data: " + payload + end + end for payload in wanted)) == wanted


@given(st.lists(st.sampled_from([b'{"a": 1}', b"", b"  ", b"{}\r", b"[1]"]), max_size=8), st.data())
def test_json_lines_survive_any_split(lines: list[bytes], data: st.DataObject) -> None:
    stream = b"\n".join(lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=4)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert read(NdjsonParser(), pieces) == read(NdjsonParser(), [stream])


def test_a_json_line_may_lack_its_end_but_not_its_brace() -> None:
    assert read(NdjsonParser(), [b'{"a": 1}\n{"b": 2}']) == ([b'{"a": 1}', b'{"b": 2}'], False)
    assert read(NdjsonParser(), [b'{"a": 1}\n{"b": ']) == ([b'{"a": 1}'], False)


@pytest.mark.parametrize("parser", [SseParser(), NdjsonParser()])
def test_an_event_that_never_ends_is_not_gathered_for_ever(
    parser: EventParser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("servemark.harness.load.sse.LARGEST_EVENT", 1000)
    assert parser.feed(b"data: " + b"x" * 900) == []
    with pytest.raises(ValueError, match="an event of more than"):
        parser.feed(b"x" * 100)


def test_a_framing_has_its_parser() -> None:
    assert isinstance(parser_for("sse"), SseParser)
    assert isinstance(parser_for("ndjson"), NdjsonParser)

"""Bytes of a response body -> payloads of events. No I/O; any split of the bytes gives the same events."""

from __future__ import annotations

from typing import Protocol

from servemark.harness.types import Framing

LARGEST_EVENT = 8 * 1024 * 1024
"""More than any server has to say at once; joining a longer one to what comes would hold up all others."""
_FIELDS = (b"data", b"event", b"id", b"retry", b"")  # an empty name is a comment


class EventParser(Protocol):
    def feed(self, data: bytes) -> list[bytes]:
        """Payloads of the events that these bytes complete. Raises ValueError for bytes that are no such stream."""

    def finish(self) -> list[bytes]:
        """Payloads that only lacked their last line end."""


class SseParser:
    """Server-sent events (WHATWG HTML, section 9.2): LF, CRLF or CR line ends, comments, several data lines."""

    __slots__ = ("_garbage", "_rest", "_started")

    def __init__(self) -> None:
        self._rest = b""
        self._started = False
        self._garbage: ValueError | None = None

    def feed(self, data: bytes) -> list[bytes]:
        if self._garbage is not None:
            raise self._garbage
        rest = self._rest + data if self._rest else data
        held = b""
        if b"\r" in rest:
            if rest.endswith(b"\r"):  # perhaps half of a CRLF
                rest, held = rest[:-1], b"\r"
            rest = rest.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if not self._started:
            if len(rest) < 3 and b"\xef\xbb\xbf".startswith(rest):
                self._rest = rest + held
                return []
            rest = rest.removeprefix(b"\xef\xbb\xbf")
            self._started = True
        *blocks, tail = rest.split(b"\n\n")
        self._rest = _bounded(tail + held)
        try:
            return [payload for block in blocks if (payload := _payload(block)) is not None]
        except ValueError as error:
            self._garbage = error
            return _before_garbage(blocks)

    def finish(self) -> list[bytes]:
        if self._garbage is not None:
            raise self._garbage
        tail, self._rest = self._rest, b""
        if not tail.endswith((b"\n", b"\r")):
            return []  # a line that was cut is no event
        payload = _payload(tail.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))
        return [] if payload is None else [payload]


def _before_garbage(blocks: list[bytes]) -> list[bytes]:
    """What came before it counts, whether it came with the same bytes or earlier; ValueError where nothing did."""
    payloads: list[bytes] = []
    for block in blocks:
        try:
            payload = _payload(block)
        except ValueError:
            if payloads:
                return payloads
            raise
        if payload is not None:
            payloads.append(payload)
    return payloads


def _payload(block: bytes) -> bytes | None:
    """The data of one block of lines; None for a block of comments or other fields."""
    if block.startswith(b"data: ") and b"\n" not in block:  # nearly every event of every server
        return block[6:]
    data: list[bytes] = []
    known = False
    for line in block.split(b"\n"):
        if not line:
            continue
        name, _, value = line.partition(b":")
        known = known or name in _FIELDS
        if name == b"data":
            data.append(value[1:] if value.startswith(b" ") else value)
    if not known and block.strip(b"\n"):
        raise ValueError(f"not an event stream: {block[:80]!r}")
    return b"\n".join(data) if data else None


class NdjsonParser:
    """One JSON value a line."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = _bounded(rest)
        return [stripped for line in lines if (stripped := line.strip())]

    def finish(self) -> list[bytes]:
        tail, self._rest = self._rest.strip(), b""
        return [tail] if tail.endswith(b"}") else []


def _bounded(rest: bytes) -> bytes:
    """What has come of an event that has not ended."""
    if len(rest) > LARGEST_EVENT:
        raise ValueError(f"an event of more than {LARGEST_EVENT >> 20} MiB: {rest[:80]!r}")
    return rest


def parser_for(framing: Framing) -> EventParser:
    return SseParser() if framing == "sse" else NdjsonParser()

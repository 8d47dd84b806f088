"""The seam between the engine's tokens and a server's words: one writer per answer, and the framing they share."""

from __future__ import annotations

from typing import ClassVar

from servemark.adapters.sim.connection import Headers, chunk, stream_head
from servemark.adapters.sim.engine import EngineRequest

EVENT_STREAM = "text/event-stream"
DONE = chunk(b"data: [DONE]\n\n")


def event(payload: bytes) -> bytes:
    """One server-sent event as one HTTP chunk."""
    return chunk(b"data: " + payload + b"\n\n")


class Writer:
    """Puts one answer into bytes. `stream` says whether token by token or whole.

    What it returns for a stream are whole HTTP chunks, put together ahead as far as can be: `token` is called for
    every token of every stream. Words are JSON-safe bytes; that of an EOS is empty.
    """

    head: bytes = stream_head(EVENT_STREAM)
    """The status line and headers of a stream."""
    head_at_once: ClassVar[bool] = True
    """Whether they are sent when the request is taken, or with the first token."""
    end: ClassVar[bytes] = b""
    """What ends a stream of this kind."""
    comment_after_s: float | None = None
    """The silence after which a comment line is sent, None for never."""

    def __init__(self, stream: bool) -> None:
        self.stream = stream

    def opening(self, request: EngineRequest) -> bytes:
        """What is sent in front of the first token; `request` is the engine's."""
        return b""

    def token(self, word: bytes, produced: int, token_id: int) -> bytes:
        """One token; `produced` counts it."""
        raise NotImplementedError

    def last(self, word: bytes, token_id: int, request: EngineRequest) -> bytes:
        """The last token and all that follows it, the end included."""
        raise NotImplementedError

    def failed(self) -> bytes | None:
        """How the server tells that the engine failed in the middle of a stream; None where it cuts the connection."""
        raise NotImplementedError

    def whole(self, request: EngineRequest, text: str, token_ids: list[int]) -> tuple[bytes, Headers]:
        """Body and headers of an answer that is not streamed."""
        raise NotImplementedError

"""From an exchange's reads to its record: what the bytes meant, worked out after they were stamped.

A response is read in slices, so that reading never holds the event loop for long, and before its end where it is long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from servemark.harness.load.sse import EventParser, parser_for
from servemark.harness.load.wire import Exchange
from servemark.harness.types import Adapter, Decoder, Endpoint, ErrorKind, Outcome, Phase, Record, Usage

_DETAIL_CHARS = 500
MOST_TOKENS = 2**31 - 1
"""Of one response: results hold no more, and nobody generates them."""
MOST_ANSWER_CHARS = 16 * 1024 * 1024
"""Of an answer that a conversation goes on from: no context holds more."""


class Reading:
    """What has been read of one exchange so far."""

    __slots__ = (
        "answer_chars",
        "answer_pieces",
        "chunk_ns",
        "chunk_tokens",
        "coalesced",
        "coalesced_ns",
        "decoder",
        "error",
        "events",
        "first_answer_ns",
        "first_token_ns",
        "parser",
        "reads",
        "refusal",
        "stamp_ns",
    )

    def __init__(self, parser: EventParser, decoder: Decoder) -> None:
        self.parser = parser
        self.decoder = decoder
        self.chunk_ns: list[int] = []
        self.chunk_tokens: list[int | None] = []
        self.first_token_ns: int | None = None
        self.first_answer_ns: int | None = None
        self.events = 0
        self.reads = 0
        self.answer_pieces = self.answer_chars = 0
        self.stamp_ns = 0
        self.coalesced = 0
        self.coalesced_ns = 0
        self.error: str | None = None
        self.refusal = b""

    def read(self, stamp_ns: int, body: bytes) -> None:
        """One read's bytes: all its events get its stamp, and those that carry tokens are one chunk."""
        if stamp_ns != self.stamp_ns:  # several bodies of one read share its stamp
            self.stamp_ns = stamp_ns
            self.reads += 1
        if self.error is not None:
            return
        try:
            self.take(stamp_ns, self.parser.feed(body))
        except (ValueError, RecursionError) as error:
            self.error = str(error)[:_DETAIL_CHARS]

    def take(self, stamp_ns: int, events: list[bytes]) -> None:
        feed = self.decoder.feed
        carriers = 0
        tokens: int | None = 0
        for event in events:
            self.events += 1
            delta = feed(event)
            if not delta.carries:
                continue
            carriers += 1
            tokens = None if tokens is None or delta.tokens is None else tokens + delta.tokens
            if tokens is not None and tokens > MOST_TOKENS:
                raise ValueError(f"the server tells of more than {MOST_TOKENS:,} tokens in an event")
            if delta.answer and self.first_answer_ns is None:
                self.first_answer_ns = stamp_ns
        if self.decoder.answer is not None:
            self._bound(self.decoder.answer)
        if not carriers:
            return
        if self.first_token_ns is None:
            self.first_token_ns = stamp_ns
        if self.chunk_ns and self.chunk_ns[-1] == stamp_ns:  # an earlier body of the same read
            last = self.chunk_tokens[-1]
            self.chunk_tokens[-1] = None if last is None or tokens is None else last + tokens
            carriers += 1
        else:
            self.chunk_ns.append(stamp_ns)
            self.chunk_tokens.append(tokens)
        if carriers > 1 and self.coalesced_ns != stamp_ns:
            self.coalesced_ns = stamp_ns
            self.coalesced += 1

    def _bound(self, answer: list[str]) -> None:
        """Text without end is let go; the session then has none to go on from."""
        self.answer_chars += sum(map(len, answer[self.answer_pieces :]))
        self.answer_pieces = len(answer)
        if self.answer_chars > MOST_ANSWER_CHARS:
            self.decoder.answer = None


class Reader:
    """Reads exchanges of one run."""

    def __init__(self, adapter: Adapter, endpoint: Endpoint, worker: int, urls: Sequence[str]) -> None:
        self._adapter = adapter
        self._endpoint = endpoint
        self._worker = worker
        self._urls = urls

    def consume(self, exchange: Exchange, limit: int) -> bool:
        """Reads at most `limit` pending reads; True when none are left."""
        reading = self._reading(exchange)
        pending = exchange.reads
        for stamp_ns, body in pending[:limit]:
            if exchange.status == 200:
                reading.read(stamp_ns, body)
            elif len(reading.refusal) < _DETAIL_CHARS:
                reading.refusal += body
            exchange.pending_bytes -= len(body)
        del pending[:limit]
        return not pending

    def saw_event(self, exchange: Exchange) -> bool:
        """Reads what is pending and says whether any event has come."""
        return self.so_far(exchange).events > 0

    def so_far(self, exchange: Exchange) -> Reading:
        """Reads what is pending; what has come until now."""
        self.consume(exchange, len(exchange.reads))
        return self._reading(exchange)

    def _reading(self, exchange: Exchange) -> Reading:
        if exchange.reading is None:
            decoder = self._adapter.decoder(self._endpoint)
            if exchange.job.more:
                decoder.answer = []
            exchange.reading = Reading(parser_for(self._adapter.framing), decoder)
        reading: Reading = exchange.reading
        return reading

    def answer(self, exchange: Exchange) -> str | None:
        """The text of an answer that another turn follows, once its record is made; None where it was not kept."""
        pieces = self._reading(exchange).decoder.answer
        # Half of a character that a server has cut in two could not be sent.
        return None if pieces is None else "".join(pieces).encode("utf-8", "replace").decode()

    def record(self, exchange: Exchange, phase: Phase) -> Record:
        """The record of an exchange that has ended and whose reads are all consumed."""
        reading = self._reading(exchange)
        if reading.error is None and exchange.status == 200:
            try:
                reading.take(reading.stamp_ns, reading.parser.finish())
            except (ValueError, RecursionError) as error:
                reading.error = str(error)[:_DETAIL_CHARS]
        outcome = believable(reading.decoder.finish(exchange.complete))
        kind, detail = _verdict(exchange, reading, outcome)
        usage, job = outcome.usage, exchange.job
        return Record(
            request_id=job.index,
            class_=job.class_,
            session_id=job.session_id,
            turn=job.turn,
            url=self._urls[exchange.address],
            worker=self._worker,
            phase=phase,
            intended_ns=exchange.intended_ns,
            ready_ns=exchange.ready_ns,
            sent_ns=exchange.sent_ns,
            connect_started_ns=exchange.connect_started_ns,
            connect_ns=exchange.connect_ns,
            first_byte_ns=exchange.first_byte_ns,
            first_token_ns=reading.first_token_ns,
            first_answer_ns=reading.first_answer_ns,
            last_token_ns=reading.chunk_ns[-1] if reading.chunk_ns else None,
            done_ns=exchange.done_ns,
            chunk_ns=tuple(reading.chunk_ns),
            chunk_tokens=tuple(reading.chunk_tokens),
            asked_prompt_tokens=job.asked_prompt_tokens,
            asked_output_tokens=job.asked_output_tokens,
            prompt_tokens=usage.prompt_tokens,
            output_tokens=usage.output_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            cached_tokens=usage.cached_tokens,
            token_source=usage.source,
            finish_reason=_short(outcome.finish_reason),
            http_status=exchange.status,
            error=kind,
            error_detail=detail,
            server_request_id=_short(outcome.server_request_id),
            reads=reading.reads,
            coalesced_reads=reading.coalesced,
            resends=exchange.resends,
            stamp=exchange.stamp,
        )


def believable(outcome: Outcome) -> Outcome:
    """Without counts that are none, and with an error in their place: no result could hold them."""
    usage = outcome.usage
    counts = (usage.prompt_tokens, usage.output_tokens, usage.reasoning_tokens, usage.cached_tokens)
    if all(count is None or 0 <= count <= MOST_TOKENS for count in counts):
        return outcome
    detail = outcome.error_detail or f"the server's usage holds a count below 0 or above {MOST_TOKENS:,}"
    return replace(outcome, usage=Usage(), error=outcome.error or "protocol", error_detail=detail)


def _verdict(exchange: Exchange, reading: Reading, outcome: Outcome) -> tuple[ErrorKind | None, str | None]:
    """What went wrong, the most telling first: what the server said, then what the wire saw, then what is missing."""
    if exchange.status is not None and exchange.status != 200:
        text = reading.refusal[:_DETAIL_CHARS].decode("utf-8", "replace").strip()
        return "http_status", f"HTTP {exchange.status}: {text}"
    if outcome.error == "server_error":
        return "server_error", _short(outcome.error_detail)
    if exchange.error is not None:
        return exchange.error, _short(exchange.error_detail)
    if reading.error is not None:
        return "protocol", reading.error
    if not reading.events:
        return "empty", "the response held no event"
    if outcome.error is not None:
        return outcome.error, _short(outcome.error_detail)
    if reading.first_token_ns is None:
        return "empty", "the stream ended without a token"
    return None, None


def _short(text: str | None) -> str | None:
    return None if text is None else text[:_DETAIL_CHARS]

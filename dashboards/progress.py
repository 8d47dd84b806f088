"""Counts what a run's live view shows. Cheap: it runs beside the load, in the coordinating process."""

from __future__ import annotations

from collections import Counter, deque
from statistics import median

from servemark.dashboards.live import Progress
from servemark.harness.clock import MS, SECOND
from servemark.harness.load.messages import Status
from servemark.harness.types import Record

_REMEMBERED = 2000  # requests, and gaps, whose median is shown
_GAPS_EACH = 8
_RATE_OVER_NS = 2 * SECOND


class Tally:
    """Fed with records and the generator's status; `progress` is what to show now."""

    def __init__(self, total_s: float | None, total_requests: int | None, warmup_s: float) -> None:
        self._total_s = total_s
        self._total_requests = total_requests
        self._warmup_s = warmup_s
        self._started_ns: int | None = None
        self._status: Status | None = None
        self._reads: deque[tuple[int, int]] = deque()
        self._ttft_ms: deque[float] = deque(maxlen=_REMEMBERED)
        self._gap_ms: deque[float] = deque(maxlen=_REMEMBERED)
        self._tokens = self._token_reads = self._done = self._gave_up = 0
        self._errors: Counter[str] = Counter()
        self._stopping = False

    def started(self, at_ns: int) -> None:
        self._started_ns = at_ns

    def stopping(self) -> None:
        self._stopping = True

    def record(self, record: Record) -> None:
        if record.error == "gave_up":
            self._gave_up += 1
            return
        if record.error is not None:
            self._errors[record.error] += 1
            return
        self._done += 1
        self._tokens += record.output_tokens or len(record.chunk_ns)
        self._token_reads += max(1, record.reads)
        if record.first_token_ns is not None:
            self._ttft_ms.append((record.first_token_ns - record.intended_ns) / MS)
        step = max(1, len(record.chunk_ns) // _GAPS_EACH)
        for k in range(1, len(record.chunk_ns), step):
            tokens = record.chunk_tokens[k] or 1
            self._gap_ms.append((record.chunk_ns[k] - record.chunk_ns[k - 1]) / MS / tokens)

    def status(self, status: Status) -> None:
        self._status = status
        self._reads.append((status.at_ns, status.reads))
        while self._reads[-1][0] - self._reads[0][0] > _RATE_OVER_NS and len(self._reads) > 2:
            self._reads.popleft()

    def progress(self, at_ns: int) -> Progress:
        elapsed_s = 0.0 if self._started_ns is None else max(0.0, (at_ns - self._started_ns) / SECOND)
        status = self._status
        return Progress(
            elapsed_s=elapsed_s,
            total_s=self._total_s,
            total_requests=self._total(),
            sent=status.sent if status else 0,
            in_flight=status.in_flight if status else 0,
            done=self._done,
            failed=self._errors.total(),
            gave_up=self._gave_up,
            tokens_per_s=self._rate(),
            ttft_ms=median(self._ttft_ms) if self._ttft_ms else None,
            itl_ms=median(self._gap_ms) if self._gap_ms else None,
            phase=self._phase(elapsed_s),
            errors=dict(self._errors),
        )

    def _total(self) -> int | None:
        """As many as are asked for, or as there are: the last session may go on beyond that."""
        sent = self._status.sent if self._status else 0
        return None if self._total_requests is None else max(self._total_requests, sent)

    def _phase(self, elapsed_s: float) -> str:
        if self._stopping:
            return "stopping"
        if self._total_s is not None and elapsed_s >= self._total_s:
            return "draining"
        return "warmup" if elapsed_s < self._warmup_s else "measured"

    def _rate(self) -> float | None:
        """Reads a second times the tokens a read of a finished request held: unfinished ones are not decoded yet."""
        if len(self._reads) < 2:
            return None
        (then_ns, before), (now_ns, after) = self._reads[0], self._reads[-1]
        per_read = self._tokens / self._token_reads if self._token_reads else 1.0
        return max(0.0, (after - before) * SECOND / (now_ns - then_ns) * per_read)

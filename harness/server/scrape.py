"""The server's own metrics, read now and then beside the load. A scrape that fails costs a sample, never the run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from servemark.harness.clock import SECOND, now_ns
from servemark.harness.server.address import parse_url
from servemark.harness.server.control import Control, NotReady, tls_settings
from servemark.harness.types import HttpRequest, MetricsReader, MetricsSource, ServerSample

if TYPE_CHECKING:
    import httpx


class Meter:
    """One server's metrics: where they are, and the reader that keeps what has to be kept between readings."""

    def __init__(self, url: str, source: MetricsSource) -> None:
        self.url = metrics_url(url, source)
        self.draining = source.draining
        self._read: MetricsReader = source.reader()

    def sample(self, status: int, body: bytes, at_ns: int) -> ServerSample:
        """ValueError, with the reason, where the answer holds no metric of this server."""
        if status != 200:
            raise ValueError(f"status {status} for {self.url}")
        return ServerSample(at_ns, self._read(body))


def metrics_url(url: str, source: MetricsSource) -> str:
    """The source's own port where it has one, else the server's address, and its path."""
    base = parse_url(url)
    if source.port is None:
        return base.url + source.path
    host = f"[{base.host}]" if ":" in base.host else base.host
    return f"{urlsplit(base.url).scheme}://{host}:{source.port}{source.path}"


def find_meter(url: str, sources: Iterable[MetricsSource], control: Control) -> Meter | None:
    """The first source that answers with metrics that are known; None where none does."""
    for source in sources:
        meter = Meter(url, source)
        if read_sample(meter, control) is not None:
            return meter
    return None


def read_sample(meter: Meter, control: Control) -> ServerSample | None:
    """One reading; None where the server does not answer, or has no metrics that are known."""
    try:
        status, body = control.ask(HttpRequest("GET", meter.url))
        return meter.sample(status, body, now_ns())
    except (NotReady, ValueError):
        return None


class Scraper:
    """Reads samples at a fixed period, the first at once, until `run` is cancelled. Counts what failed."""

    def __init__(
        self,
        meter: Meter,
        headers: Iterable[tuple[str, str]],
        period_s: float,
        on_sample: Callable[[ServerSample], None],
        *,
        timeout_s: float = 5.0,
        cacert: str | None = None,
        insecure: bool = False,
    ) -> None:
        self._meter = meter
        self._headers = tuple(headers)
        self._period_ns = round(period_s * SECOND)
        self._on_sample = on_sample
        self._timeout_s = timeout_s
        self._verify = tls_settings(meter.url, cacert, insecure)
        self.samples = 0
        self.failures = 0
        self.last_failure: str | None = None

    async def run(self) -> None:
        """Until cancelled. What `on_sample` raises is not caught."""
        import httpx

        async with httpx.AsyncClient(
            headers=list(self._headers), timeout=self._timeout_s, verify=self._verify, trust_env=False
        ) as client:
            due_ns = now_ns()
            while True:
                await self._scrape(client)
                # A scrape that took longer than the period skips the moments it missed.
                due_ns += self._period_ns * max(1, -(-(now_ns() - due_ns) // self._period_ns))
                await asyncio.sleep(max(0, due_ns - now_ns()) / SECOND)

    async def _scrape(self, client: httpx.AsyncClient) -> None:
        import httpx

        try:
            answer = await client.get(self._meter.url)
            sample = self._meter.sample(answer.status_code, answer.content, now_ns())
        except (httpx.TransportError, ValueError) as error:
            self.failures += 1
            self.last_failure = str(error) or type(error).__name__
            return
        self.samples += 1
        self._on_sample(sample)

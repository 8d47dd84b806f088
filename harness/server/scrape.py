"""The server's own metrics, read now and then beside the load. A scrape that fails costs a sample, never the run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from servemark.harness.clock import SECOND, now_ns
from servemark.harness.server.address import parse_url
from servemark.harness.server.control import Control, NotReady, tls_settings
from servemark.harness.server.prometheus import parse_metrics
from servemark.harness.types import Adapter, HttpRequest, ServerSample

if TYPE_CHECKING:
    import httpx


def read_sample(adapter: Adapter, control: Control) -> ServerSample | None:
    """One reading; None where the server has no metrics, does not answer, or has none that the adapter knows."""
    if adapter.metrics_path is None:
        return None
    try:
        status, body = control.ask(HttpRequest("GET", adapter.metrics_path))
        return sample_of(adapter, status, body, now_ns())
    except (NotReady, ValueError):
        return None


def sample_of(adapter: Adapter, status: int, body: bytes, at_ns: int) -> ServerSample:
    """ValueError, with the reason, where the answer holds no metric of this adapter's server."""
    if status != 200:
        raise ValueError(f"status {status} for {adapter.metrics_path}")
    values = parse_metrics(body).select(adapter.server_metrics)
    if not values:
        raise ValueError(f"no known metric in {adapter.metrics_path}")
    return ServerSample(at_ns, values)


class Scraper:
    """Reads samples at a fixed period, the first at once, until `run` is cancelled. Counts what failed."""

    def __init__(
        self,
        adapter: Adapter,
        url: str,
        headers: Iterable[tuple[str, str]],
        period_s: float,
        on_sample: Callable[[ServerSample], None],
        *,
        timeout_s: float = 5.0,
        cacert: str | None = None,
        insecure: bool = False,
    ) -> None:
        self._adapter = adapter
        self._base = parse_url(url)
        self._headers = tuple(headers)
        self._period_ns = round(period_s * SECOND)
        self._on_sample = on_sample
        self._timeout_s = timeout_s
        self._verify = tls_settings(url, cacert, insecure)
        self.samples = 0
        self.failures = 0
        self.last_failure: str | None = None

    async def run(self) -> None:
        """Returns at once where the server has no metrics. What `on_sample` raises is not caught."""
        import httpx

        if self._adapter.metrics_path is None:
            return
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
            answer = await client.get(f"{self._base.url}{self._adapter.metrics_path}")
            sample = sample_of(self._adapter, answer.status_code, answer.content, now_ns())
        except (httpx.TransportError, ValueError) as error:
            self.failures += 1
            self.last_failure = str(error) or type(error).__name__
            return
        self.samples += 1
        self._on_sample(sample)

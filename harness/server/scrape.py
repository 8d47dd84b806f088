"""The servers' own metrics, read beside the load. A reading that fails costs a sample, never the run."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from servemark.harness.clock import SECOND, now_ns
from servemark.harness.server.address import Headers, parse_url
from servemark.harness.server.control import tls_settings, what_failed
from servemark.harness.server.samples import combined
from servemark.harness.types import MetricsReader, MetricsSource, ServerSample

if TYPE_CHECKING:
    import httpx

LARGEST = 16 * 1024 * 1024
TIMEOUT_S = 5.0
LEAST_PERIOD_S = 0.1
"""A server is not to be loaded by reading its metrics."""


class Unread(Exception):
    """Why there is no reading, as what is said of the address: "answers 404"."""


@dataclass(frozen=True, slots=True)
class Access:
    """How to ask for metrics: what TLS is to trust, and the run's headers, which may hold keys."""

    servers: tuple[str, ...]
    headers: Headers = ()
    cacert: str | None = None
    insecure: bool = False

    def headers_for(self, url: str) -> Headers:
        """The run's headers go to no host but the servers' own, and not in the clear to one that speaks TLS."""
        there = parse_url(url)
        own = (parse_url(server) for server in self.servers)
        known = any(each.host == there.host and each.tls <= there.tls for each in own)
        return self.headers if known else ()

    @contextlib.asynccontextmanager
    async def client(self, urls: Sequence[str]) -> AsyncIterator[httpx.AsyncClient]:
        import httpx

        tls = next((url for url in urls if parse_url(url).tls), None)
        verify = tls_settings(tls, self.cacert, self.insecure) if tls else False
        async with httpx.AsyncClient(timeout=None, verify=verify, trust_env=False) as client:  # noqa: S113 (see fetch)
            yield client


class Meter:
    """One server's metrics: where they are, and the reader that keeps what has to be kept between readings.

    `server` is None where all of a deployment is told together. Of a source that tells everything once there may be
    one meter only, from the start of a run to its end.
    """

    def __init__(self, server: str | None, source: MetricsSource, url: str) -> None:
        self.server = server
        self.url = url
        self.source = source
        self.samples = 0
        self.failures = 0
        self.last_failure: str | None = None
        self._read: MetricsReader = source.reader()

    def sample(self, body: bytes, at_ns: int) -> ServerSample:
        """ValueError, with the reason, where the body holds no metric of this server."""
        try:
            values = {name: float(value) for name, value in self._read(body).items() if math.isfinite(value)}
        except (ArithmeticError, AttributeError, LookupError, TypeError) as error:  # of another shape than ever before
            raise ValueError(f"what stands there cannot be read ({type(error).__name__}: {error})") from error
        return ServerSample(at_ns, values, self.server)

    def facts(self) -> dict[str, Any]:
        return {
            "url": self.server,
            "metrics": self.url,
            "draining": self.source.draining,
            "samples": self.samples,
            "failures": self.failures,
            "last_failure": self.last_failure,
            "notes": dict(self.source.notes),
        }


def metrics_url(server: str, source: MetricsSource) -> str:
    """The source's own port where it has one, else the server's address, and its path."""
    base = parse_url(server)
    if source.port is None:
        return base.url + source.path
    host = f"[{base.host}]" if ":" in base.host else base.host
    return f"{'https' if base.tls else 'http'}://{host}:{source.port}{source.path}"


async def fetch(
    client: httpx.AsyncClient, url: str, headers: Headers, timeout_s: float = TIMEOUT_S, flag: str = "--metrics-url"
) -> bytes:
    """The body at an address, within `timeout_s` in all. Raises Unread, which names the flag that gave the address."""
    import httpx

    try:
        async with asyncio.timeout(timeout_s), client.stream("GET", url, headers=list(headers)) as answer:
            if answer.status_code != 200:
                raise Unread(f"answers {answer.status_code}")
            body = bytearray()
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > LARGEST:
                    raise Unread(f"answers with more than {LARGEST >> 20} MiB")
            return bytes(body)
    except TimeoutError:
        raise Unread(f"gives no whole answer within {timeout_s:g} s") from None
    except httpx.HTTPError as error:
        raise Unread(what_failed(error, parse_url(url).prefix or "/", timeout_s, flag)) from error


class Scraper:
    """Reads every meter at once, now and then, and hands on what it finds.

    One server's readings are the deployment's. Of several replicas it hands on each one's own, and their sum where
    all have answered.
    """

    def __init__(
        self,
        meters: Sequence[Meter],
        access: Access,
        period_s: float,
        on_sample: Callable[[ServerSample], None],
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.meters = tuple(meters)
        self.period_s = period_s
        self._access = access
        self._on_sample = on_sample
        self._timeout_s = timeout_s

    def begin(self, first: Sequence[ServerSample]) -> None:
        """The reading before the load; `first` are the meters' first ones.

        What was told once stands: asked again, an idle server takes its time to say that there is nothing more.
        """
        if any(meter.source.draining for meter in self.meters):
            self.hand_on(first)
        else:
            self.once()

    def once(self) -> None:
        """One reading, outside any event loop."""
        asyncio.run(self._once())

    async def _once(self) -> None:
        async with self._client() as client:
            self.hand_on(await self._readings(client))

    async def run(self) -> None:
        """A reading each period, the first at once, until cancelled. What `on_sample` raises is not caught."""
        async with self._client() as client:
            due_ns, period_ns = now_ns(), round(self.period_s * SECOND)
            while True:
                await self._scrape(client)
                # A reading that took longer than the period skips the moments it missed.
                due_ns += period_ns * max(1, -(-(now_ns() - due_ns) // period_ns))
                await asyncio.sleep(max(0, due_ns - now_ns()) / SECOND)

    def _client(self) -> contextlib.AbstractAsyncContextManager[httpx.AsyncClient]:
        return self._access.client([meter.url for meter in self.meters])

    async def _scrape(self, client: httpx.AsyncClient) -> None:
        reading = asyncio.create_task(self._readings(client))
        try:
            self.hand_on(await asyncio.shield(reading))
        except asyncio.CancelledError:
            # What a source tells once would be lost with the answer; it is waited for, and that is bounded.
            if any(meter.source.draining for meter in self.meters):
                self.hand_on(await reading)
            reading.cancel()
            raise

    async def _readings(self, client: httpx.AsyncClient) -> list[ServerSample | None]:
        return await asyncio.gather(*(self._reading(meter, client) for meter in self.meters))

    async def _reading(self, meter: Meter, client: httpx.AsyncClient) -> ServerSample | None:
        try:
            body = await fetch(client, meter.url, self._access.headers_for(meter.url), self._timeout_s)
            sample = meter.sample(body, now_ns())
        except (Unread, ValueError) as error:
            meter.failures += 1
            meter.last_failure = str(error).partition(";")[0]
            return None
        meter.samples += 1
        return sample

    def hand_on(self, readings: Sequence[ServerSample | None]) -> None:
        """One reading of each meter, None where it failed."""
        told = [sample for sample in readings if sample is not None]
        if len(self.meters) > 1:
            for sample in told:
                self._on_sample(sample)
        if told and len(told) == len(self.meters):
            self._on_sample(combined(told))

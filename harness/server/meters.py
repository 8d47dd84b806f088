"""Where a run's servers tell their metrics: at the places that their adapter knows, or where the user says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from servemark.harness.clock import now_ns
from servemark.harness.errors import BadInput, BenchError, TargetUnusable
from servemark.harness.server.address import parse_url
from servemark.harness.server.discovery import adapter_names, load_adapter
from servemark.harness.server.scrape import Access, Meter, Scraper, Unread, fetch, metrics_url
from servemark.harness.types import Adapter, MetricsSource, ServerSample

if TYPE_CHECKING:
    import httpx

FLAG = "--metrics-url"

Sources = tuple[MetricsSource, ...]
Place = tuple[str, Sources, Sources]
"""An address, what may be told there, and what else might."""


@dataclass(frozen=True, slots=True)
class Metering:
    """The meters, each with the reading that it was known by; `absent` are addresses where nothing is told."""

    access: Access
    meters: tuple[Meter, ...] = ()
    first: tuple[ServerSample, ...] = ()
    absent: tuple[str, ...] = ()

    def scraper(self, period_s: float, on_sample: Callable[[ServerSample], None]) -> Scraper | None:
        """None where there is nothing to read."""
        return Scraper(self.meters, self.access, period_s, on_sample) if self.meters else None

    def facts(self, period_s: float) -> dict[str, Any]:
        """For the result: where it was read, how often, and how often in vain."""
        return {
            "period_s": period_s,
            "sources": [meter.facts() for meter in self.meters],
            "absent": list(self.absent),
        }


def find_meters(adapter: Adapter, access: Access, named: Sequence[str] = ()) -> Metering:
    """Of each server, at the adapter's places, or at the address that `named` holds for it.

    One address for several servers is where all of them are told together. Raises BadInput for what is no address
    and TargetUnusable for one that gives no metrics.
    """
    for url in named:
        parse_url(url, FLAG)
    if len(named) not in (0, 1, len(access.servers)):
        raise BadInput(
            f"{FLAG} is given {len(named)} times and --url {len(access.servers)} times; "
            "give one for each, in the same order, or one for all together"
        )
    if named:
        return asyncio.run(_named(adapter, access, named))
    return asyncio.run(_default(adapter, access)) if adapter.metrics else Metering(access)


async def _default(adapter: Adapter, access: Access) -> Metering:
    places = [[(metrics_url(s, source), (source,), ()) for source in adapter.metrics] for s in access.servers]
    async with access.client(access.servers) as client:
        looks = await asyncio.gather(
            *(_look(server, there, access, client) for server, there in zip(access.servers, places, strict=True))
        )
    absent = [place[0] for look, there in zip(looks, places, strict=True) if isinstance(look, str) for place in there]
    return _metering(access, [look for look in looks if not isinstance(look, str)], absent)


async def _named(adapter: Adapter, access: Access, named: Sequence[str]) -> Metering:
    servers = access.servers if len(named) == len(access.servers) else (None,)
    others = _others(adapter)
    async with access.client(named) as client:
        looks = await asyncio.gather(
            *(_look(s, _places(url, adapter, others), access, client) for s, url in zip(servers, named, strict=True))
        )
    known = []
    for look in looks:
        if isinstance(look, str):
            raise TargetUnusable(f"{FLAG} {look}")
        known.append(look)
    return _metering(access, known)


def _metering(access: Access, known: Sequence[tuple[Meter, ServerSample]], absent: Sequence[str] = ()) -> Metering:
    return Metering(access, tuple(meter for meter, _ in known), tuple(first for _, first in known), tuple(absent))


def _places(url: str, adapter: Adapter, others: Sources) -> list[Place]:
    """An address without a path is followed by the paths that the adapter knows."""
    if parse_url(url).prefix:
        return [(url, adapter.metrics, others)]
    paths = dict.fromkeys(source.path for source in adapter.metrics) or {"/metrics": None}
    return [(url.rstrip("/") + path, adapter.metrics, others) for path in paths]


def _others(adapter: Adapter) -> Sources:
    """Of every other adapter: behind a generic endpoint may stand a server that is known."""
    found: list[MetricsSource] = []
    for name in adapter_names():
        if name != adapter.name:
            try:
                found += load_adapter(name).metrics
            except BenchError:  # another package's, and broken: no reason to stop here
                continue
    return tuple(found)


async def _look(
    server: str | None, places: Sequence[Place], access: Access, client: httpx.AsyncClient
) -> tuple[Meter, ServerSample] | str:
    """The meter of the first place that tells something, or why the first one tells nothing."""
    reasons = []
    for url, own, others in places:
        try:
            body = await fetch(client, url, access.headers_for(url))
        except Unread as error:
            reasons.append(f"{url} {error}")
            continue
        # Some servers tell nothing, in many words or none, before they have served anything.
        for source in (*own, *(others if body.strip() else ())):
            meter = Meter(server, source, url)
            try:
                return meter, meter.sample(body, now_ns())
            except ValueError:
                continue
        reasons.append(f"{url} tells no metric that is known; is it the address of the server's own metrics?")
    return reasons[0]

"""GPUs that are elsewhere: exporters asked over HTTP beside a run. A failed reading costs a sample, never the run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from servemark.harness.clock import SECOND, now_ns
from servemark.harness.errors import BadInput, TargetUnusable
from servemark.harness.gpu.answers import Answer, Exporter
from servemark.harness.gpu.dcgm import DCGM
from servemark.harness.gpu.exposition import OURS
from servemark.harness.gpu.merged import Merger, all_of
from servemark.harness.gpu.place import Place
from servemark.harness.gpu.watch import GpuWatch
from servemark.harness.server.address import parse_url
from servemark.harness.server.prometheus import Metrics, parse_metrics
from servemark.harness.server.scrape import TIMEOUT_S, Access, Unread, fetch
from servemark.harness.types import GpuSample

if TYPE_CHECKING:
    import httpx

FLAG = "--gpu-metrics"
EXPORTERS: tuple[Exporter, ...] = (OURS, DCGM)
"""Those that are known, the better first: it is believed where two tell the same of a GPU."""

_TRIPS = 8
"""Round trips at either end of a run, for the clock."""
_ENDS_WITHIN_S = 5.0
_LAST_WITHIN_S = 2.0


def remote_watch(
    urls: Sequence[str],
    period_s: float,
    on_sample: Callable[[GpuSample], None],
    access: Access,
    chosen: Sequence[str] = (),
) -> GpuWatch:
    """Each address is a `bench gpu-exporter` or a dcgm-exporter, known by its text; `chosen` are GPUs of each.

    Every one is asked here once: BadInput for what is no address, TargetUnusable for one that cannot be read.
    """
    addresses = [_address(url) for url in urls]
    for url in addresses:
        if addresses.count(url) > 1:
            raise BadInput(f"{FLAG} names {url} twice; leave one out")
    places = asyncio.run(_places(addresses, access, chosen))
    return RemoteWatch(places, period_s, on_sample, access)


def _address(url: str) -> str:
    """One without a path is followed by the usual one."""
    base = parse_url(url, FLAG)
    return base.url if base.prefix else f"{base.url}/metrics"


async def _places(urls: Sequence[str], access: Access, chosen: Sequence[str]) -> list[Place]:
    """In the order in which they are believed."""
    async with access.client(urls) as client:
        found = [await _place(url, access, chosen, client) for url in urls]
    return sorted(found, key=lambda place: EXPORTERS.index(place.exporter))


async def _place(url: str, access: Access, chosen: Sequence[str], client: httpx.AsyncClient) -> Place:
    try:
        sent_ns = now_ns()
        metrics = parse_metrics(await fetch(client, url, access.headers_for(url), flag=FLAG))
        got_ns = now_ns()
        place = Place(url, _exporter(metrics), chosen)
        place.learn(place.exporter.read(metrics), sent_ns, got_ns)
    except Unread as error:
        raise TargetUnusable(f"{FLAG} {url} {error}") from None
    except ValueError as error:
        raise TargetUnusable(f"{FLAG} {url} is no exporter of GPUs that is known: {error}") from None
    return place


def _exporter(metrics: Metrics) -> Exporter:
    for exporter in EXPORTERS:
        if exporter.is_its(metrics):
            return exporter
    known = " nor ".join(exporter.title for exporter in EXPORTERS)
    raise ValueError(f"its metrics are neither of {known}")


class RemoteWatch:
    """A GpuWatch of exporters; each is asked at its own pace, so that a slow one holds up no other."""

    def __init__(
        self, places: Sequence[Place], period_s: float, on_sample: Callable[[GpuSample], None], access: Access
    ) -> None:
        self._places = tuple(places)
        self._period_s = period_s
        self._access = access
        self._merger = Merger(on_sample, [place.url for place in places])
        for number, place in enumerate(self._places):
            self._merger.expect(number, place.gpus())

    def begin(self) -> None:
        """The clocks, and a first reading."""
        asyncio.run(self._both_ends(_ENDS_WITHIN_S))

    async def run(self) -> None:
        """A reading of each place every period, the first at once, until cancelled."""
        async with self._client() as client:
            await all_of(*(self._watch(number, client) for number in range(len(self._places))))

    def end(self) -> None:
        """A last reading, the clocks again, and what was still held back."""
        asyncio.run(self._both_ends(_LAST_WITHIN_S))
        self._merger.release()

    def _client(self) -> Any:
        return self._access.client([place.url for place in self._places])

    async def _both_ends(self, within_s: float) -> None:
        async with self._client() as client:
            await all_of(*(self._end_of(number, client, within_s) for number in range(len(self._places))))

    async def _end_of(self, number: int, client: httpx.AsyncClient, within_s: float) -> None:
        """One reading that counts; the trips after it teach the clock alone. Late ones are given up."""
        place = self._places[number]
        deadline_ns = now_ns() + round(within_s * SECOND)
        await self._read(number, client, within_s, again=True)
        for _ in range(_TRIPS if place.clock.trips else 0):
            left_s = (deadline_ns - now_ns()) / SECOND
            if left_s <= 0 or (asked := await self._asked(place, client, left_s)) is None:
                return
            self._learn(place, *asked)

    async def _watch(self, number: int, client: httpx.AsyncClient) -> None:
        every_s = max(self._period_s, self._places[number].exporter.slowest_s)
        due_ns, period_ns = now_ns(), round(every_s * SECOND)
        while True:
            await self._read(number, client, max(TIMEOUT_S, every_s))
            due_ns += period_ns * max(1, -(-(now_ns() - due_ns) // period_ns))
            await asyncio.sleep(max(0, due_ns - now_ns()) / SECOND)

    async def _read(self, number: int, client: httpx.AsyncClient, within_s: float, again: bool = False) -> None:
        place = self._places[number]
        if (asked := await self._asked(place, client, within_s)) is None:
            return
        try:
            samples = place.samples(*asked, again)
        except ValueError as error:
            place.failed(str(error))
            return
        for sample in samples:
            self._merger.take(number, sample)

    async def _asked(self, place: Place, client: httpx.AsyncClient, within_s: float) -> tuple[Answer, int, int] | None:
        """The answer, and when it was asked for and had on our clock; None, and counted, where there is none."""
        sent_ns = now_ns()
        try:
            body = await fetch(client, place.url, self._access.headers_for(place.url), within_s, FLAG)
            got_ns = now_ns()
            return place.exporter.read(parse_metrics(body)), sent_ns, got_ns
        except (Unread, ValueError) as error:
            place.failed(str(error))
            return None

    def _learn(self, place: Place, answer: Answer, sent_ns: int, got_ns: int) -> None:
        try:
            place.learn(answer, sent_ns, got_ns)
        except ValueError as error:
            place.failed(str(error))

    def _news_every_s(self) -> float:
        """At most so long lies between two samples of a GPU, as far as its exporter goes."""
        known: set[str] = set()
        slowest_s = self._period_s
        for place in self._places:
            if place.gpus() - known:
                known |= place.gpus()
                if place.exporter.slowest_s:
                    slowest_s = max(slowest_s, place.exporter.slowest_s, place.news_every_s or 0.0)
        return slowest_s

    def facts(self) -> dict[str, Any]:
        return {
            "source": " + ".join(dict.fromkeys(place.exporter.name for place in self._places)),
            "period_s": self._news_every_s(),
            **self._merger.facts([place.facts() for place in self._places]),
            "notes": [note for place in self._places for note in place.notes(self._period_s)],
            "clocks": [place.clock_facts() for place in self._places],
            "exporters": [place.about() for place in self._places],
        }

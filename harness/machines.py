"""What the server under test runs on: put together before a run, and watched through it.

A composition root, like the command line that calls it: what is below is handed its parts here.
"""

from __future__ import annotations

from collections.abc import Callable

from servemark.harness.clock import SECOND
from servemark.harness.gpu.merged import merged_watch
from servemark.harness.gpu.unwatched import Unwatched
from servemark.harness.gpu.watch import GpuWatch, local_watch
from servemark.harness.hardware.deployed import Deployed, deployed
from servemark.harness.hardware.told import told
from servemark.harness.prepare import Asked
from servemark.harness.server.address import is_loopback, parse_url
from servemark.harness.server.scrape import Access
from servemark.harness.server.target import Target
from servemark.harness.types import GpuSample

OnSample = Callable[[GpuSample], None]


def deployment(asked: Asked, target: Target) -> Deployed:
    """Raises BadInput where what the user says of it makes no sense."""
    words = () if target.engine is None else target.engine.words
    return deployed(asked.hardware, told(target.facts.settings, words, target.model), len(target.urls))


def gpu_watch(asked: Asked, target: Target, on_sample: OnSample) -> GpuWatch:
    """Of this machine's GPUs where the server is on it, and of the exporters that are named. Raises BadInput."""
    section = asked.hardware
    period_s = section.gpu_sample / SECOND

    def here(hand_on: OnSample) -> GpuWatch:
        return local_watch(period_s, section.gpu_index or _visible(target), hand_on)

    def elsewhere(hand_on: OnSample) -> GpuWatch:
        from servemark.harness.gpu.remote import remote_watch  # it takes a while, and most runs name no exporter

        access = Access(target.urls, target.headers, target.cacert, target.insecure)
        return remote_watch(section.gpu_metrics, period_s, hand_on, access, section.gpu_index)

    why = _why_not_here(asked, target)
    if why is not None:
        return elsewhere(on_sample) if section.gpu_metrics else Unwatched(why)
    return merged_watch(here, elsewhere, on_sample) if section.gpu_metrics else here(on_sample)


def _visible(target: Target) -> tuple[str, ...]:
    """Those that a server which was started here may use; none stands for all."""
    named = "" if target.engine is None else target.engine.visible_gpus or ""
    return tuple(each.strip() for each in named.split(",") if each.strip())


def _why_not_here(asked: Asked, target: Target) -> str | None:
    """Why the GPUs of this machine tell nothing of the run; None where they do."""
    if not asked.hardware.gpu_sample:
        return "no GPU was sampled, as was asked for"
    if target.simulated:
        return "the server is simulated: no GPU was sampled"
    strangers = [url for url in target.urls if not is_loopback(parse_url(url).host)]
    if strangers and target.engine is None and target.adapter.batch_path is None:
        return f"{strangers[0]} is another machine: start `bench gpu-exporter` there and name it with --gpu-metrics"
    return None

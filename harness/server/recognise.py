"""Which kind of server this is, by its signature: a wrong target is named before any load is sent."""

from __future__ import annotations

from collections.abc import Iterator

from servemark.harness.errors import BenchError, TargetUnusable
from servemark.harness.server.control import Control, NotReady
from servemark.harness.server.discovery import adapter_names, load_adapter
from servemark.harness.types import Adapter, ServerFacts


def refuse_other(adapter: Adapter, control: Control) -> bool:
    """TargetUnusable, naming the right target, where the server is surely of another kind.

    A server that no adapter knows for sure is left to the probes. False where it does not answer yet.
    """
    try:
        if adapter.signature is None or _has(adapter, control):
            return True
        found = next((other for other in _others(adapter) if _has(other, control)), None)
    except NotReady:
        return False
    if found is not None:
        raise TargetUnusable(
            f"{control.url} is a server of the kind {found.name} ({found.about}), not {adapter.name}; "
            f"give --target {found.name}"
        )
    return True


def refuse_anonymous(adapter: Adapter, url: str, facts: ServerFacts) -> None:
    """TargetUnusable where a server lists its models, none of them this kind's, and tells no version either.

    `facts` are what the adapter's probes found. A server without a list rules nothing out: a gateway may hide it.
    """
    if adapter.signature is not None and facts.models and facts.engine is None and facts.version is None:
        raise TargetUnusable(
            f"{url} shows no sign of being {adapter.name} ({adapter.about}): none of its models is such a server's, "
            "and it tells no version; give --target openai for another server that speaks OpenAI's API"
        )


def _others(adapter: Adapter) -> Iterator[Adapter]:
    for name in adapter_names():
        if name == adapter.name:
            continue
        try:
            yield load_adapter(name)
        except BenchError:  # another package's, and broken: no reason to stop here
            continue


def _has(adapter: Adapter, control: Control) -> bool:
    signature = adapter.signature
    return signature is not None and signature.matches(*control.ask(signature.request))

"""What comes before the load: what is asked for, the target reached and looked at, the schedule planned.

A composition root, like the command line that calls it: what is below is handed its parts here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servemark.adapters.sim.launch import launch
from servemark.harness.errors import BadInput, BenchError, TargetUnusable
from servemark.harness.figures.slo import Slo, parse_slo
from servemark.harness.plan.schedule import Schedule, plan
from servemark.harness.plan.spec import Loaded
from servemark.harness.server.address import Headers, build_headers
from servemark.harness.server.discovery import load_adapter
from servemark.harness.server.target import Target, learn_vocabulary, reach
from servemark.harness.types import Adapter, Endpoint, Options
from servemark.results.redact import Redactor


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user asks for. `flags` go over the workload file; None in them was not given."""

    target: str
    workload: str
    url: str | None = None
    model: str | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)
    api_key_env: str | None = None
    allow: tuple[str, ...] = ()
    out: Path | None = None
    wait_s: float = 0.0
    scrape_s: float = 1.0
    tokenizer: Path | None = None
    cacert: str | None = None
    insecure: bool = False
    quiet: bool = False


@contextlib.contextmanager
def reached(asked: Asked, loaded: Loaded) -> Iterator[Target]:
    """The target, looked at and ready; the built-in one is started where no address is given."""
    adapter = load_adapter(asked.target)
    headers = build_headers(asked.api_key_env, loaded.spec.request.headers)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_without(secrets_of(loaded, headers)))
        url = asked.url or adapter.default_url
        if asked.url is None and adapter.name == "sim":
            url = stack.enter_context(launch()).url
        target = reach(
            adapter,
            url,
            headers,
            asked.model,
            wait_s=asked.wait_s,
            cacert=asked.cacert,
            insecure=asked.insecure,
        )
        stack.callback(target.control.close)
        yield target


@contextlib.contextmanager
def _without(secrets: Sequence[str]) -> Iterator[None]:
    """An error's sentence may quote what the server said, and the server may say a key."""
    try:
        yield
    except BenchError as error:
        raise type(error)(Redactor(secrets).text(str(error))) from error


def slo_of(loaded: Loaded) -> Slo | None:
    """The workload's objectives; BadInput where one is no limit."""
    section = loaded.spec.slo
    if not section.limits:
        if section.gate:
            raise BadInput("--gate needs a limit to hold; give one with --slo, as --slo ttft=200ms")
        return None
    try:
        return parse_slo(section.limits, section.attainment)
    except ValueError as error:
        where = "--slo" if "slo" in loaded.overrides else f"{loaded.path}: slo.limits"
        raise BadInput(f"{where}: {error}") from None


def planned(asked: Asked, loaded: Loaded, target: Target) -> tuple[Schedule, Options]:
    """The schedule, with prompts in the server's own tokens. Raises BadInput or TargetUnusable."""
    options = loaded.spec.request.options(target.model, endpoint_for(loaded, target.adapter))
    vocabulary = learn_vocabulary(target, options, asked.tokenizer)
    schedule = plan(loaded, vocabulary)
    most, context = schedule.source.most_tokens, target.facts.context_tokens
    if most is not None and context is not None and most > context:
        raise TargetUnusable(
            f"the longest request takes {most} tokens, and {target.model} at {target.url} has a context of {context}; "
            "shorten it with --input-tokens or --output-tokens, or serve a longer context"
        )
    return schedule, options


def endpoint_for(loaded: Loaded, adapter: Adapter) -> Endpoint:
    """The asked one, else the target's first that takes the workload's prompts. Raises BadInput."""
    asked, ids = loaded.spec.request.endpoint, loaded.spec.prompts.tokens == "ids"
    has = ", ".join(adapter.endpoints)
    if asked is not None:
        if asked not in adapter.endpoints:
            raise BadInput(f"target {adapter.name} has no endpoint {asked}; it has: {has}")
        return asked
    fitting = (each for each in adapter.endpoints if not ids or adapter.promises(each).token_id_prompts)
    found = next(fitting, None)
    if found is None:
        raise BadInput(f"target {adapter.name} takes no prompts of token ids; set prompts.tokens to text")
    return found


def secrets_of(loaded: Loaded, headers: Headers) -> tuple[str, ...]:
    """Header values that did not come from the workload file, with and without their scheme word."""
    public = ((loaded.document.data.get("request") or {}).get("headers") or {}).values()
    values = [value for _, value in headers if value not in public]
    return tuple({*values, *(value.split(" ", 1)[-1] for value in values)})


def refuse_unknown_codes(allow: tuple[str, ...]) -> None:
    """Before the run, not after it. The registry is imported only where it is needed: it brings numpy."""
    if not allow:
        return
    from servemark.harness.verdict.validity import CHECKS

    for code in allow:
        if code not in CHECKS:
            raise BadInput(f"--allow {code}: there is no such check; there are: {', '.join(CHECKS)}")

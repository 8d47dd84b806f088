"""What comes before the load: what is asked for, the target reached and looked at, the schedule planned.

A composition root, like the command line that calls it: what is below is handed its parts here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from servemark.adapters.sim.launch import launch
from servemark.dashboards.starting import StartView
from servemark.harness.errors import BadInput, BenchError, TargetUnusable
from servemark.harness.figures.slo import Slo, by_class, parse_slo
from servemark.harness.hardware.section import HardwareSection
from servemark.harness.launch.launching import Engine, Launch, launched
from servemark.harness.load.balance import DEFAULT
from servemark.harness.plan.schedule import Schedule, plan
from servemark.harness.plan.sections import ClassSlo, SloSection
from servemark.harness.plan.spec import Loaded
from servemark.harness.server.address import Headers, build_headers
from servemark.harness.server.discovery import load_adapter
from servemark.harness.server.meters import Metering, find_meters
from servemark.harness.server.scrape import Access
from servemark.harness.server.target import Target, learn_vocabulary, reach_all
from servemark.harness.types import Adapter, Endpoint, Options
from servemark.results.redact import Redactor


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user asks for. `flags` go over the workload file; None in them was not given."""

    target: str
    workload: str
    urls: tuple[str, ...] = ()
    """One for each replica; none takes the target's own."""
    balance: str = DEFAULT
    launch: Launch | None = None
    """The server is to be started, and no address is given."""
    model: str | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)
    api_key_env: str | None = None
    allow: tuple[str, ...] = ()
    out: Path | None = None
    wait_s: float = 0.0
    scrape_s: float = 1.0
    metrics_urls: tuple[str, ...] = ()
    tokenizer: Path | None = None
    cacert: str | None = None
    insecure: bool = False
    quiet: bool = False
    hardware: HardwareSection = field(default_factory=HardwareSection)


@contextlib.contextmanager
def reached(asked: Asked, loaded: Loaded, engine: Engine | None = None) -> Iterator[Target]:
    """The target, looked at and ready: `engine` where it was started before, else what is asked for.

    What is started here ends with the block: a launched engine, or the built-in target where no address is given.
    """
    adapter = load_adapter(asked.target)
    refuse_pacing(adapter, loaded)
    refuse_several(adapter, asked.urls)
    headers = build_headers(asked.api_key_env, loaded.spec.request.headers)
    with contextlib.ExitStack() as stack:
        stack.enter_context(without(secrets_of(loaded, headers)))
        if engine is None and asked.launch is not None:
            engine = stack.enter_context(started(adapter, asked.launch, headers, asked.quiet))
        urls = asked.urls or (adapter.default_url,)
        if engine is not None:
            stack.enter_context(engine.explaining())
            urls = (engine.url,)
        elif not asked.urls and adapter.name == "sim":
            urls = (stack.enter_context(launch()).url,)
        target = reach_all(
            adapter,
            urls,
            headers,
            asked.model,
            asked.balance,
            wait_s=asked.wait_s,
            cacert=asked.cacert,
            insecure=asked.insecure,
        )
        stack.callback(target.close)
        yield with_engine(target, engine) if engine is not None else target


@contextlib.contextmanager
def started(adapter: Adapter, launch: Launch, headers: Headers, quiet: bool) -> Iterator[Engine]:
    """The engine, ready, with a word on stderr while it loads."""
    view = StartView(adapter.name, quiet)
    with contextlib.ExitStack() as stack:
        try:
            engine = stack.enter_context(launched(adapter, launch, headers, view))
        finally:
            view.done()
        yield engine


def with_engine(target: Target, engine: Engine) -> Target:
    """Where the server tells no version of its own, its program's is taken."""
    facts = target.facts
    return replace(target, engine=engine, facts=replace(facts, version=facts.version or engine.version))


@contextlib.contextmanager
def without(secrets: Sequence[str]) -> Iterator[None]:
    """An error's sentence may quote what the server said, and the server may say a key."""
    try:
        yield
    except BenchError as error:
        raise type(error)(Redactor(secrets).text(str(error))) from error


def slo_of(loaded: Loaded) -> Slo | None:
    """The workload's objectives; BadInput where one is no limit."""
    section, classes = loaded.spec.slo, loaded.spec.classes or {}
    where = "--slo" if "slo" in loaded.overrides else f"{loaded.path}: slo.limits"
    top = _parsed(section, where) or Slo((), section.attainment)
    own = {name: _parsed(each.slo, f"{loaded.path}: classes.{name}.slo") for name, each in classes.items()}
    found = by_class(top, own) if classes else top
    if not found.every_limit:
        if section.gate:
            raise BadInput("--gate needs a limit to hold; give one with --slo, as --slo ttft=200ms")
        return None
    if classes and top.per_request and all(each and each.limits for each in own.values()):
        texts = ",".join(limit.text for limit in top.per_request)
        raise BadInput(f"{where}: every class has limits of its own, so {texts} holds for no request; remove it")
    return found


def _parsed(section: SloSection | ClassSlo | None, where: str) -> Slo | None:
    """None where no limit is set. Raises BadInput."""
    if section is None or (not section.limits and section.attainment is None):
        return None
    if not section.limits:
        return Slo((), section.attainment)
    try:
        return parse_slo(section.limits, section.attainment)
    except ValueError as error:
        raise BadInput(f"{where}: {error}") from None


def planned(asked: Asked, loaded: Loaded, target: Target, salt: bool = False) -> tuple[Schedule, Options]:
    """The schedule, with prompts in the server's own tokens, salted or not. Raises BadInput or TargetUnusable."""
    options = loaded.spec.request.options(target.model, endpoint_for(loaded, target.adapter))
    vocabulary = learn_vocabulary(target, options, asked.tokenizer, loaded.spec.source.has_system)
    schedule = plan(loaded, vocabulary, salt)
    most, context = schedule.source.most_tokens, target.facts.context_tokens
    if most is not None and context is not None and most > context:
        raise TargetUnusable(
            f"the longest request takes {most} tokens, and {target.model} at {target.url} has a context of {context}; "
            "shorten it with --input-tokens or --output-tokens (a session with prompts.max_context), "
            "or serve a longer context"
        )
    return schedule, options


def metered(asked: Asked, target: Target) -> Metering:
    """Where the servers' own metrics are read. Raises BadInput or TargetUnusable, for what --metrics-url names only."""
    access = Access(target.urls, target.headers, target.cacert, target.insecure)
    return find_meters(target.adapter, access, asked.metrics_urls)


def refuse_pacing(adapter: Adapter, loaded: Loaded) -> None:
    """BadInput where a load has times and the target takes all of it at once."""
    if adapter.batch_path is None:
        return
    if not loaded.spec.load.all_at_once:
        raise BadInput(f"target {adapter.name} runs the whole load as one batch; give --rate inf and --requests N")
    if loaded.spec.request.give_up is not None:
        raise BadInput(f"target {adapter.name} has no clients that could hang up; remove request.give_up")


def refuse_several(adapter: Adapter, urls: Sequence[str]) -> None:
    """BadInput where a target that takes the whole load at once is given more than one address."""
    if adapter.batch_path is not None and len(urls) > 1:
        raise BadInput(f"target {adapter.name} runs the whole load as one batch on one engine; give one --url")


def endpoint_for(loaded: Loaded, adapter: Adapter) -> Endpoint:
    """The asked one, else the target's first that takes the workload's prompts. Raises BadInput."""
    asked, ids = loaded.spec.request.endpoint, loaded.spec.source.tokens == "ids"
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
    return credentials((name, value) for name, value in headers if value not in public)


def credentials(headers: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """The values, with and without their scheme word."""
    values = [value for _, value in headers]
    return tuple({*values, *(value.split(" ", 1)[-1] for value in values)})


def refuse_unknown_codes(allow: tuple[str, ...]) -> None:
    """Before the run, not after it. The registry is imported only where it is needed: it brings numpy."""
    if not allow:
        return
    from servemark.harness.verdict.validity import CHECKS

    for code in allow:
        if code not in CHECKS:
            close = get_close_matches(code, list(CHECKS), 1)
            guess = f"did you mean {close[0]}? " if close else ""
            raise BadInput(f"--allow {code}: there is no such check; {guess}`bench list` shows them")

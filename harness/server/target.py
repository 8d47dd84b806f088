"""A server that can be measured: its adapter, where it is, what it said of itself, and how to ask it more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from servemark.harness.clock import SECOND, now_ns
from servemark.harness.errors import BadInput, TargetUnusable
from servemark.harness.launch.launching import Engine
from servemark.harness.load.sse import parser_for
from servemark.harness.plaintext import one_line
from servemark.harness.plan.tokens import LEAST_TEXT, open_tokenizer, vocabulary_for
from servemark.harness.plan.vocabulary import Vocabulary
from servemark.harness.server.address import Headers, parse_url, refuse_proxy
from servemark.harness.server.control import Control, NotReady, ask_probes, choose_model, discover
from servemark.harness.server.recognise import refuse_anonymous, refuse_other
from servemark.harness.types import Adapter, HttpRequest, Message, Options, Request, ServerFacts

SIMULATED = "servemark-sim"
"""Part of every version, and of the engine's name, that the built-in target gives."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One server of a deployment."""

    url: str
    control: Control
    facts: ServerFacts


@dataclass(frozen=True, slots=True)
class Target:
    """`model` is the one to ask for; `headers` may hold credentials and go into no result.

    `url`, `control` and `facts` are the first server's; `others` are its replicas, and serve the same model.
    """

    adapter: Adapter
    url: str
    headers: Headers
    control: Control
    facts: ServerFacts
    model: str
    cacert: str | None = None
    insecure: bool = False
    others: tuple[Replica, ...] = ()
    balance: str = "round-robin"
    """Which of the replicas gets a request."""
    engine: Engine | None = None
    """Its process, where this command started it."""

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """All servers, the first one included."""
        return (Replica(self.url, self.control, self.facts), *self.others)

    @property
    def urls(self) -> tuple[str, ...]:
        return (self.url, *(each.url for each in self.others))

    @property
    def versions(self) -> tuple[str, ...]:
        """The different ones among the replicas."""
        return tuple(dict.fromkeys(each.facts.version for each in self.replicas if each.facts.version is not None))

    def close(self) -> None:
        for each in self.replicas:
            each.control.close()

    @property
    def simulated(self) -> bool:
        """The built-in target says so in its version, whichever dialect it speaks."""
        return self.adapter.simulated or SIMULATED in f"{self.facts.engine} {self.facts.version}"

    def ask(self, request: HttpRequest) -> tuple[int, bytes]:
        """For the tokenizer: OSError where no answer comes."""
        try:
            return self.control.ask(request)
        except NotReady as error:
            raise OSError(str(error)) from error


def reach(
    adapter: Adapter,
    url: str,
    headers: Headers,
    model: str | None,
    *,
    wait_s: float = 0.0,
    cacert: str | None = None,
    insecure: bool = False,
) -> Target:
    """Finds out what the server is, before any load is sent. Raises BadInput or TargetUnusable."""
    refuse_proxy(url)
    control = Control(adapter.base_url(url), headers, cacert=cacert, insecure=insecure)
    try:
        facts = _looked_at(adapter, control, wait_s)
        chosen = choose_model(facts, model)
        facts = ask_probes(adapter.model_probes(chosen), control, facts)
        settled = adapter.settled(facts, chosen)
        return Target(settled, control.url, headers, control, facts, chosen, cacert, insecure)
    except BaseException:
        control.close()
        raise


def reach_all(
    adapter: Adapter,
    urls: Sequence[str],
    headers: Headers,
    model: str | None,
    balance: str,
    *,
    wait_s: float = 0.0,
    cacert: str | None = None,
    insecure: bool = False,
) -> Target:
    """Several replicas of one deployment, all looked at before any load is sent; `wait_s` is for all of them together.

    Raises BadInput, or TargetUnusable where one is no replica of the first.
    """
    refuse_twice([parse_url(adapter.base_url(url)).url for url in urls])
    deadline_ns = now_ns() + round(wait_s * SECOND)
    target = reach(adapter, urls[0], headers, model, wait_s=wait_s, cacert=cacert, insecure=insecure)
    target = replace(target, balance=balance)
    try:
        for url in urls[1:]:
            left_s = max(0.0, (deadline_ns - now_ns()) / SECOND)
            target = replace(target, others=(*target.others, _replica_of(target, adapter, url, left_s)))
        return target
    except BaseException:
        target.close()
        raise


def _replica_of(target: Target, adapter: Adapter, url: str, wait_s: float) -> Replica:
    """Another server of the same deployment; `adapter` is not settled on any."""
    refuse_proxy(url)
    control = Control(adapter.base_url(url), target.headers, cacert=target.cacert, insecure=target.insecure)
    try:
        facts = _looked_at(adapter, control, wait_s)
        _refuse_stranger(target, control.url, facts)
        facts = ask_probes(adapter.model_probes(target.model), control, facts)
        _refuse_difference(target, control.url, facts)
        return Replica(control.url, control, facts)
    except BaseException:
        control.close()
        raise


def _looked_at(adapter: Adapter, control: Control, wait_s: float) -> ServerFacts:
    recognised = refuse_other(adapter, control)
    facts = discover(adapter, control, wait_s)
    if not recognised:  # it was not there yet
        refuse_other(adapter, control)
    refuse_anonymous(adapter, control.url, facts)
    return facts


def refuse_twice(urls: Sequence[str]) -> None:
    """BadInput where two addresses are one."""
    for url in urls:
        if urls.count(url) > 1:
            raise BadInput(f"--url {url} is given twice; give each replica once")


def _refuse_stranger(target: Target, url: str, facts: ServerFacts) -> None:
    """Before the model is asked for. Only where both tell a thing can it differ."""
    first = target.facts
    if facts.models and target.model not in facts.models:
        served = ", ".join(map(one_line, facts.models))
        raise TargetUnusable(
            f"{url} does not serve {target.model}, as {target.url} does; there are: {served}; "
            "replicas serve one model, so start it with that one, or name one that all serve with --model"
        )
    if None not in (first.engine, facts.engine) and first.engine != facts.engine:
        raise TargetUnusable(f"{url} is {facts.engine} and {target.url} is {first.engine}; replicas are of one kind")


def _refuse_difference(target: Target, url: str, facts: ServerFacts) -> None:
    theirs, ours = facts.context_tokens, target.facts.context_tokens
    if None not in (theirs, ours) and theirs != ours:
        raise TargetUnusable(
            f"{target.model} at {url} has a context of {theirs} tokens, and at {target.url} one of {ours}; "
            "replicas have the same, so start them alike"
        )


def learn_vocabulary(
    target: Target, options: Options, tokenizer_file: Path | None, has_system: bool = False
) -> Vocabulary:
    """Of the named tokenizer file, else of the server's own tokenizer, else an estimate.

    `has_system`: what a system message adds is learnt too, where the server's counts are exact.
    """
    tokenization = target.adapter.tokenization
    if tokenizer_file is not None:
        open_tokenizer(tokenizer_file)  # a mistake is told before anything is asked
    counts_text_only = tokenizer_file is not None or (tokenization is not None and tokenization.of_chat is None)
    least = _least_tokens(target, options) if options.endpoint == "chat" and counts_text_only else None
    found = vocabulary_for(options.endpoint, target.model, tokenization, target.ask, tokenizer_file, least)
    if not has_system or not found.exact:
        return found
    counted = _least_tokens(target, options, (Message("system", LEAST_TEXT),))
    return replace(found, system_tokens=None if counted is None else counted - found.fixed_tokens)


def _least_tokens(target: Target, options: Options, before: tuple[Message, ...] = ()) -> int | None:
    """What the server counts for the shortest prompt, template included, by one request of one token."""
    http = target.adapter.encode(Request(0, LEAST_TEXT, None, 1, history=before), options)
    status, body = target.control.ask(http, timeout=60)
    if status != 200:
        what = "a system message" if before else "a request of one token"
        raise TargetUnusable(f"{target.url} answers {status} to {what}: {body[:200].decode('utf-8', 'replace')!r}")
    decoder = target.adapter.decoder(options.endpoint)
    parser = parser_for(target.adapter.framing)
    for event in [*parser.feed(body), *parser.finish()]:
        decoder.feed(event)
    return decoder.finish(True).usage.prompt_tokens

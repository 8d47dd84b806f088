"""A server that can be measured: its adapter, where it is, what it said of itself, and how to ask it more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from servemark.harness.errors import TargetUnusable
from servemark.harness.load.sse import parser_for
from servemark.harness.plan.tokens import LEAST_TEXT, open_tokenizer, vocabulary_for
from servemark.harness.plan.vocabulary import Vocabulary
from servemark.harness.server.address import Headers, refuse_proxy
from servemark.harness.server.control import Control, NotReady, ask_probes, choose_model, discover
from servemark.harness.server.recognise import refuse_other
from servemark.harness.server.scrape import Meter, find_meter
from servemark.harness.types import Adapter, HttpRequest, Options, Request, ServerFacts

SIMULATED = "servemark-sim"
"""Part of every version that the built-in target gives."""


@dataclass(frozen=True, slots=True)
class Target:
    """`model` is the one to ask for; `headers` may hold credentials and go into no result."""

    adapter: Adapter
    url: str
    headers: Headers
    control: Control
    facts: ServerFacts
    model: str
    meter: Meter | None = None
    """Its own metrics, if it tells any."""
    cacert: str | None = None
    insecure: bool = False

    @property
    def simulated(self) -> bool:
        """The built-in target says so in its version, whichever dialect it speaks."""
        return self.adapter.simulated or SIMULATED in (self.facts.version or "")

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
        recognised = refuse_other(adapter, control)
        facts = discover(adapter, control, wait_s)
        if not recognised:  # it was not there yet
            refuse_other(adapter, control)
        chosen = choose_model(facts, model)
        facts = ask_probes(adapter.model_probes(chosen), control, facts)
        settled = adapter.settled(facts, chosen)
        meter = find_meter(control.url, settled.metrics, control)
        return Target(settled, control.url, headers, control, facts, chosen, meter, cacert, insecure)
    except BaseException:
        control.close()
        raise


def learn_vocabulary(target: Target, options: Options, tokenizer_file: Path | None) -> Vocabulary:
    """Of the named tokenizer file, else of the server's own tokenizer, else an estimate."""
    tokenization = target.adapter.tokenization
    if tokenizer_file is not None:
        open_tokenizer(tokenizer_file)  # a mistake is told before anything is asked
    counts_text_only = tokenizer_file is not None or (tokenization is not None and tokenization.of_chat is None)
    least = _least_chat_tokens(target, options) if options.endpoint == "chat" and counts_text_only else None
    return vocabulary_for(options.endpoint, target.model, tokenization, target.ask, tokenizer_file, least)


def _least_chat_tokens(target: Target, options: Options) -> int | None:
    """What the server counts for the shortest prompt, template included, by one request of one token."""
    http = target.adapter.encode(Request(0, LEAST_TEXT, None, 1), options)
    status, body = target.control.ask(http, timeout=60)
    if status != 200:
        raise TargetUnusable(
            f"{target.url} answers {status} to a request of one token: {body[:200].decode('utf-8', 'replace')!r}"
        )
    decoder = target.adapter.decoder(options.endpoint)
    parser = parser_for(target.adapter.framing)
    for event in [*parser.feed(body), *parser.finish()]:
        decoder.feed(event)
    return decoder.finish(True).usage.prompt_tokens

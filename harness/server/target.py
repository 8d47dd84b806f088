"""A server that can be measured: its adapter, where it is, what it said of itself, and how to ask it more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from servemark.harness.errors import TargetUnusable
from servemark.harness.load.sse import parser_for
from servemark.harness.plan.tokens import vocabulary_for
from servemark.harness.plan.vocabulary import FIRST_WORD, LAST_PIECE, Vocabulary
from servemark.harness.server.address import Headers, refuse_proxy
from servemark.harness.server.control import Control, NotReady, choose_model, discover
from servemark.harness.types import Adapter, HttpRequest, Options, Request, ServerFacts


@dataclass(frozen=True, slots=True)
class Target:
    """`model` is the one to ask for; `headers` may hold credentials and go into no result."""

    adapter: Adapter
    url: str
    headers: Headers
    control: Control
    facts: ServerFacts
    model: str
    cacert: str | None = None
    insecure: bool = False

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
    control = Control(url, headers, cacert=cacert, insecure=insecure)
    try:
        facts = discover(adapter, control, wait_s)
        return Target(adapter, control.url, headers, control, facts, choose_model(facts, model), cacert, insecure)
    except BaseException:
        control.close()
        raise


def learn_vocabulary(target: Target, options: Options, tokenizer_file: Path | None) -> Vocabulary:
    """Of the named tokenizer file, else of the server's own tokenizer, else an estimate."""
    overhead = None
    if tokenizer_file is not None and options.endpoint == "chat":
        overhead = _template_tokens(target, options, tokenizer_file)
    return vocabulary_for(
        options.endpoint, target.model, target.adapter.tokenization, target.ask, tokenizer_file, overhead
    )


def _template_tokens(target: Target, options: Options, tokenizer_file: Path) -> int | None:
    """What the chat template adds, by one request of one token: only the server knows its template."""
    from servemark.harness.plan.tokens import count_in_file

    text = FIRST_WORD + LAST_PIECE
    alone = count_in_file(tokenizer_file, text)
    http = target.adapter.encode(Request(0, text, None, 1), options)
    status, body = target.control.ask(http, timeout=60)
    if status != 200:
        raise TargetUnusable(f"{target.url} answers {status} to a request of one token: {body[:200].decode()!r}")
    decoder = target.adapter.decoder(options.endpoint)
    parser = parser_for(target.adapter.framing)
    for event in [*parser.feed(body), *parser.finish()]:
        decoder.feed(event)
    counted = decoder.finish(True).usage.prompt_tokens
    return None if counted is None else counted - alone

"""The control plane: all talk with a server that is not timed: readiness, models, tokens, metrics."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from types import TracebackType

from servemark.harness.clock import SECOND, now_ns
from servemark.harness.errors import BadInput, TargetUnusable
from servemark.harness.load.tls import client_context
from servemark.harness.server.address import parse_url
from servemark.harness.types import Adapter, HttpRequest, Probe, ServerFacts

_POLL_S = 0.25


class NotReady(TargetUnusable):
    """The server cannot be asked now; later it may."""


class Control:
    """Questions and answers over a kept connection. Uses no proxy and follows no redirect."""

    def __init__(
        self,
        base_url: str,
        headers: Iterable[tuple[str, str]] = (),
        *,
        timeout: float = 10.0,
        cacert: str | None = None,
        insecure: bool = False,
    ) -> None:
        import httpx

        self.url = parse_url(base_url).url
        self._timeout_s = timeout
        self._client = httpx.Client(
            headers=list(headers),
            timeout=timeout,
            verify=tls_settings(base_url, cacert, insecure),
            trust_env=False,
        )

    def ask(self, request: HttpRequest, timeout: float | None = None) -> tuple[int, bytes]:
        """Status and body. NotReady, one sentence, where no answer came; `timeout` in seconds, of each step."""
        import httpx

        limit_s = self._timeout_s if timeout is None else timeout
        try:
            answer = self._client.request(
                request.method,
                self._absolute(request.path),
                headers=list(request.headers),
                content=request.body,
                timeout=limit_s,
            )
        except httpx.TransportError as error:
            raise NotReady(f"{self.url} {what_failed(error, request.path, limit_s)}") from error
        return answer.status_code, answer.content

    def _absolute(self, path: str) -> str:
        """A path is the server's own; what stands elsewhere, as some servers' metrics do, is named in full."""
        return self.url + path if path.startswith("/") else path

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Control:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def tls_settings(url: str, cacert: str | None, insecure: bool) -> ssl.SSLContext | bool:
    """For httpx: the context that the timed connections use too, or False for plain http."""
    if not parse_url(url).tls:
        return False
    try:
        return client_context(cacert, insecure)
    except OSError as error:  # ssl.SSLError is one
        raise BadInput(f"--cacert {cacert}: no readable PEM file of certificates ({error})") from None


def what_failed(error: Exception, path: str, limit_s: float, flag: str = "--url") -> str:
    """What is said of an address that `flag` gave, and what to do."""
    import httpx

    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = cause.verify_message
            return f"has a certificate that is not trusted ({why}); give its authority with --cacert FILE"
        if isinstance(cause, ssl.SSLError):
            return f"does not speak TLS as expected ({cause.reason}); is it http:// rather than https://?"
        if isinstance(cause, socket.gaierror):
            return f"names a host that cannot be resolved; check the host name in {flag}"
        if isinstance(cause, ConnectionRefusedError):
            return f"refuses connections; is the server running, and is the port in {flag} right?"
    if isinstance(error, httpx.ConnectTimeout):
        return f"accepts no connection within {limit_s:g} s; check the address in {flag} and any firewall between"
    if isinstance(error, httpx.TimeoutException):
        return f"accepts connections but does not answer {path} within {limit_s:g} s; is the server stuck?"
    if isinstance(error, httpx.ConnectError):
        return f"cannot be reached ({causes[-1]}); check the address in {flag}"
    return f"does not answer {path} as an HTTP server would ({causes[-1]}); is it this port, and is it https://?"


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def discover(
    adapter: Adapter, control: Control, wait_s: float = 0.0, pause: Callable[[float], None] = time.sleep
) -> ServerFacts:
    """What the adapter's probes find out; polls up to `wait_s` while the server is unreachable or not ready.

    NotReady where it stays so, TargetUnusable where it refuses the credentials or is another kind of server. `pause`
    passes so many seconds between polls.
    """
    deadline_ns = now_ns() + round(wait_s * SECOND)
    while True:
        try:
            return ask_probes(adapter.probes(), control)
        except NotReady as error:
            left_s = (deadline_ns - now_ns()) / SECOND
            if left_s <= 0:
                waited = f" (waited {wait_s:g} s for it)" if wait_s > 0 else ""
                raise NotReady(f"{error}{waited}") from error
        pause(min(_POLL_S, left_s))


def ask_probes(probes: Iterable[Probe], control: Control, facts: ServerFacts | None = None) -> ServerFacts:
    """What these probes add to what is known. NotReady or TargetUnusable where a required one fails."""
    facts = facts or ServerFacts()
    for probe in probes:
        facts = _merge(facts, probe, control)
    return facts


def _merge(facts: ServerFacts, probe: Probe, control: Control) -> ServerFacts:
    path = probe.request.path
    try:
        status, body = control.ask(probe.request)
    except NotReady:
        if probe.required:
            raise
        return facts
    if probe.required:
        _refuse_status(control.url, path, status)
    try:
        fields = {name: value for name, value in probe.parse(status, body).items() if value is not None}
    except ValueError as error:
        raise TargetUnusable(f"{control.url}: {error}") from error
    if fields.get("ready") is False:
        raise NotReady(f"{control.url} is not ready: it answers {status} to {path}; wait until it has loaded")
    settings = {**facts.settings, **fields.pop("settings", {})}
    return replace(facts, settings=settings, **fields)


def _refuse_status(url: str, path: str, status: int) -> None:
    if status in (401, 403):
        raise TargetUnusable(
            f"{url} answers {status} to {path}; name the environment variable that holds its key with --api-key-env"
        )
    if 300 <= status < 400:
        raise TargetUnusable(
            f"{url} redirects {path} ({status}); give the address it leads to as --url, since none is followed"
        )


def choose_model(facts: ServerFacts, asked: str | None) -> str:
    """The asked model if the server has it, else its only one; a server that lists none has any."""
    served = ", ".join(facts.models)
    if asked:
        if facts.models and asked not in facts.models:
            raise TargetUnusable(f"--model {asked!r} is not served here; there are: {served}")
        return asked
    if facts.default_model is not None:
        return facts.default_model
    if not facts.models:
        raise TargetUnusable("the server does not say which model it serves; name the one to ask for with --model")
    if len(facts.models) > 1:
        raise TargetUnusable(f"the server has several models; choose one with --model: {served}")
    return facts.models[0]

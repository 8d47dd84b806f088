"""The control plane: all talk with a server that is not timed: readiness, models, tokens, metrics."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from servemark.harness.clock import SECOND, now_ns
from servemark.harness.errors import BadInput, TargetUnusable
from servemark.harness.load.tls import client_context
from servemark.harness.plaintext import one_line
from servemark.harness.server.address import parse_url
from servemark.harness.types import Adapter, HttpRequest, Probe, ServerFacts

if TYPE_CHECKING:
    import httpx

_POLL_S = 0.25
_LARGEST = 64 * 1024 * 1024
_MOST_CONTEXT = 2**40  # more tokens than that is no length


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
        """Status and body. NotReady, one sentence, where no whole answer came.

        `timeout` in seconds is that of each step until the answer begins, and then of all of its body.
        """
        import httpx

        limit_s = self._timeout_s if timeout is None else timeout
        try:
            with self._client.stream(
                request.method,
                self._absolute(request.path),
                headers=list(request.headers),
                content=request.body,
                timeout=limit_s,
            ) as answer:
                return answer.status_code, self._body(answer, request.path, limit_s)
        except httpx.RequestError as error:
            raise NotReady(f"{self.url} {what_failed(error, request.path, limit_s)}") from error

    def _body(self, answer: httpx.Response, path: str, limit_s: float) -> bytes:
        """A server may go on for ever; it is not read for ever."""
        deadline_ns, body = now_ns() + round(limit_s * SECOND), bytearray()
        for piece in answer.iter_bytes():
            body += piece
            if len(body) > _LARGEST:
                said = f"answers {path} with more than {_LARGEST >> 20} MiB; is the address right?"
                raise NotReady(f"{self.url} {said}")
            if now_ns() > deadline_ns:
                raise NotReady(f"{self.url} answers {path} and comes to no end within {limit_s:g} s; is it stuck?")
        return bytes(body)

    def _absolute(self, path: str) -> str:
        """A path is the server's own; what stands elsewhere, as some servers' metrics do, is named in full."""
        return self.url + path if path.startswith("/") else path

    @property
    def has_key(self) -> bool:
        return "authorization" in self._client.headers

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


_LISTENS = {"--gpu-metrics": "`bench gpu-exporter` (or a dcgm-exporter) running there"}
"""Who is to listen at the address that a flag gives, where it is not the server."""


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
            who = _LISTENS.get(flag, "the server running")
            return f"refuses connections; is {who}, and is the port in {flag} right?"
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
        _refuse_status(control, path, status)
    try:
        fields = _sound(probe.parse(status, body))
    except ValueError as error:
        raise TargetUnusable(f"{control.url}: {error}") from error
    if fields.get("ready") is False:
        raise NotReady(f"{control.url} is not ready: it answers {status} to {path}; wait until it has loaded")
    settings = {**facts.settings, **fields.pop("settings", {})}
    return replace(facts, settings=settings, **fields)


def _sound(told: Mapping[str, Any]) -> dict[str, Any]:
    """What is known by it; a server may write anything in the place of a version or a length."""
    fields = {name: value for name, value in told.items() if value is not None}
    if "version" in fields:
        fields["version"] = one_line(str(fields["version"]))
    context = fields.get("context_tokens", 1)
    if type(context) is not int or not 0 < context < _MOST_CONTEXT:
        del fields["context_tokens"]
    return fields


def _refuse_status(control: Control, path: str, status: int) -> None:
    if status in (401, 403):
        key = "with the key that it was given; see that --api-key-env names this server's, and that it is whole"
        missing = "without one; name the environment variable that holds its key with --api-key-env"
        raise TargetUnusable(f"{control.url} answers {status} to {path} {key if control.has_key else missing}")
    if 300 <= status < 400:
        raise TargetUnusable(
            f"{control.url} redirects {path} ({status}); give the address it leads to as --url, since none is followed"
        )


def choose_model(facts: ServerFacts, asked: str | None) -> str:
    """The asked model if the server has it, else its only one; a server that lists none has any."""
    served = ", ".join(map(one_line, facts.models))
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

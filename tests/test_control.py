"""The control plane says in one sentence why a server cannot be used, and finds out what one that can be used is."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme
from answering import Asked, answering

from servemark.adapters.vllm import ADAPTER
from servemark.harness.clock import SECOND
from servemark.harness.errors import BadInput, TargetUnusable
from servemark.harness.server.control import Control, NotReady, choose_model, discover
from servemark.harness.server.target import Target, reach
from servemark.harness.types import HttpRequest, ServerFacts

HEALTH = HttpRequest("GET", "/health")
METRICS = (Path(__file__).parent / "transcripts" / "vllm-metrics.txt").read_bytes()
CARD = {"id": "tiny", "owned_by": "vllm", "max_model_len": 4096}


@dataclass
class FakeVllm:
    """Answers as a vLLM does; `overrides` are (status, body) by path, of which the last repeats."""

    overrides: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def __call__(self, asked: Asked) -> tuple[int, bytes]:
        self.asked.append(asked)
        if answers := self.overrides.get(asked.path):
            return answers.pop(0) if len(answers) > 1 else answers[0]
        pages = {
            "/health": b"",
            "/v1/models": json.dumps({"object": "list", "data": [CARD]}).encode(),
            "/version": b'{"version":"0.32.0"}',
            "/metrics": METRICS,
        }
        return (200, pages[asked.path]) if asked.path in pages else (404, b"")


def refusal(fake: FakeVllm, wait_s: float = 0.0) -> str:
    with answering(fake) as url, Control(url) as control:
        with pytest.raises(TargetUnusable) as caught:
            discover(ADAPTER, control, wait_s)
        assert str(caught.value).startswith(url)
        return str(caught.value)


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Accepts connections (in the kernel) and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def test_what_a_ready_server_is_found_to_be() -> None:
    with answering(FakeVllm()) as url, Control(url) as control:
        facts = discover(ADAPTER, control)
    assert (facts.ready, facts.engine, facts.version) == (True, "vllm", "0.32.0")
    assert (facts.models, facts.context_tokens) == (("tiny",), 4096)
    assert facts.settings["enable_prefix_caching"] == "True"


def test_headers_prefix_and_body_reach_the_server() -> None:
    fake = FakeVllm()
    with answering(fake) as url, Control(f"{url}/pre/fix/", [("Authorization", "Bearer k")]) as control:
        status, _ = control.ask(HttpRequest("POST", "/tokenize", (("Content-Type", "application/json"),), b"{}"))
    (asked,) = fake.asked
    assert (status, asked.method, asked.path, asked.body) == (404, "POST", "/pre/fix/tokenize", b"{}")
    assert asked.headers["Authorization"] == "Bearer k"
    assert asked.headers["Content-Type"] == "application/json"


def test_a_proxy_in_the_environment_is_not_used_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    with answering(FakeVllm()) as url, Control(url) as control:
        assert control.ask(HEALTH) == (200, b"")


def test_an_answer_may_lack_what_is_not_required() -> None:
    fake = FakeVllm({"/version": [(404, b"")], "/metrics": [(403, b"no")], "/v1/models": [(404, b"")]})
    with answering(fake) as url, Control(url) as control:
        facts = discover(ADAPTER, control)
    assert (facts.ready, facts.version, facts.models) == (True, None, ())


def reached_vllm(fake: FakeVllm) -> Target:
    with answering(fake) as url:
        target = reach(ADAPTER, url, (), "tiny")
        target.close()
        return target


def test_a_server_that_shows_no_sign_of_its_kind_is_refused() -> None:
    """Another's OpenAI server has models too. A version, or no list at all as behind a gateway, rules nothing out."""
    strange = (200, json.dumps({"data": [{**CARD, "owned_by": "somebody"}]}).encode())
    with pytest.raises(TargetUnusable, match=r"shows no sign of being vllm .* give --target openai"):
        reached_vllm(FakeVllm({"/v1/models": [strange], "/version": [(404, b"")]}))
    assert reached_vllm(FakeVllm({"/v1/models": [strange]})).facts.version == "0.32.0"
    assert reached_vllm(FakeVllm({"/v1/models": [(404, b"")], "/version": [(404, b"")]})).facts.models == ()


def test_it_waits_for_a_server_that_is_loading() -> None:
    fake = FakeVllm({"/health": [(503, b""), (503, b""), (200, b"")]})
    with answering(fake) as url, Control(url) as control:
        assert discover(ADAPTER, control, wait_s=30).ready
    assert [asked.path for asked in fake.asked][:3] == ["/health"] * 3


def test_a_server_that_does_not_get_ready_is_told_with_the_time_waited() -> None:
    assert "is not ready: it answers 503 to /health" in refusal(FakeVllm({"/health": [(503, b"")]}))
    assert "waited 0.3 s" in refusal(FakeVllm({"/health": [(503, b"")]}), wait_s=0.3)


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_name_the_flag_and_are_not_waited_for(status: int) -> None:
    fake = FakeVllm({"/v1/models": [(status, b"")]})
    assert "--api-key-env" in refusal(fake, wait_s=60)
    assert len(fake.asked) == 2


def test_a_key_that_is_refused_is_not_asked_for_again() -> None:
    with answering(FakeVllm({"/v1/models": [(401, b"")]})) as url:
        with Control(url, [("Authorization", "Bearer k-123")]) as control, pytest.raises(TargetUnusable) as caught:
            discover(ADAPTER, control)
        assert str(caught.value).startswith(f"{url} answers 401 to /v1/models with the key that it was given")
        assert "k-123" not in str(caught.value)


@contextlib.contextmanager
def raw(*pieces: bytes, for_ever: bool = False) -> Iterator[str]:
    """Answers each connection with these bytes, the last of them again and again if asked to; gives the base URL."""

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer, contextlib.suppress(OSError):
                peer.recv(65536)
                for piece in pieces:
                    peer.sendall(piece)
                while for_ever:
                    peer.sendall(pieces[-1])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
ENDLESS = (HEAD, b"\r\n", b"x" * 10_000)


def test_an_answer_without_an_end_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servemark.harness.server.control._LARGEST", 1024 * 1024)
    said = r"answers /health with more than 1 MiB; is the address right\?"
    with raw(*ENDLESS, for_ever=True) as url, Control(url) as control, pytest.raises(NotReady, match=said):
        control.ask(HEALTH)


def test_an_answer_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that sends a little now and then keeps each step within its limit."""
    clock = itertools.count(0, SECOND)
    monkeypatch.setattr("servemark.harness.server.control.now_ns", lambda: next(clock))
    said = "answers /health and comes to no end within 5 s"
    with raw(*ENDLESS, for_ever=True) as url, Control(url, timeout=5) as control, pytest.raises(NotReady, match=said):
        control.ask(HEALTH)


def test_a_body_that_is_not_what_its_head_says_is_told() -> None:
    said = "does not answer /health as an HTTP server would"
    answer = HEAD + b"Content-Encoding: gzip\r\n\r\nnothing of the kind"
    with raw(answer) as url, Control(url) as control, pytest.raises(NotReady, match=said):
        control.ask(HEALTH)


def test_json_that_nobody_could_read_is_told() -> None:
    assert "is no JSON object" in refusal(FakeVllm({"/v1/models": [(200, b'{"data":' + b"[" * 100_000)]}))


@pytest.mark.parametrize(("length", "known"), [(-5, None), (True, None), (10**30, None), (8192, 8192)])
def test_what_cannot_be_a_length_or_a_version_is_none(length: object, known: int | None) -> None:
    card = json.dumps({"data": [{**CARD, "max_model_len": length}]}).encode()
    fake = FakeVllm({"/v1/models": [(200, card)], "/version": [(200, b'{"version": {"a": ["1\\u001b[31m"]}}')]})
    with answering(fake) as url, Control(url) as control:
        facts = discover(ADAPTER, control)
    assert facts.context_tokens == known
    assert facts.version == "{'a': ['1\\x1b[31m']}"


def test_names_of_a_server_steer_no_terminal_and_begin_no_line() -> None:
    facts = ServerFacts(models=("a\x1b[31m\nbench: all is well", "b\x9b0m"))
    with pytest.raises(TargetUnusable) as caught:
        choose_model(facts, None)
    assert str(caught.value).endswith("with --model: a\\u001b[31m bench: all is well, b\\u009b0m")


def test_a_redirect_is_named() -> None:
    assert "redirects /health (307)" in refusal(FakeVllm({"/health": [(307, b"")]}), wait_s=60)


def test_another_server_is_named_at_once() -> None:
    assert "/health" in refusal(FakeVllm({"/health": [(404, b"")]}), wait_s=60)


def sentence(url: str, **settings: float | str) -> str:
    with Control(url, **settings) as control, pytest.raises(TargetUnusable) as caught:  # type: ignore[arg-type]
        control.ask(HEALTH)
    text = str(caught.value)
    assert text.startswith(url)
    assert "\n" not in text
    return text


def test_nobody_listens() -> None:
    assert "refuses connections; is the server running, and" in sentence(f"http://127.0.0.1:{free_port()}")


def test_a_name_that_does_not_resolve() -> None:
    assert "cannot be resolved" in sentence("http://no-such-host.invalid:8000")


def test_a_server_that_never_answers(silent_port: int) -> None:
    assert "does not answer /health within 0.2 s" in sentence(f"http://127.0.0.1:{silent_port}", timeout=0.2)


def test_a_port_that_speaks_something_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"220 mail.example.org ESMTP\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        text = sentence(f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread.join()
    assert "as an HTTP server would" in text


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, str]:
    ca = trustme.CA()
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return ca, str(path)


def server_side(ca: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*names).configure_cert(context)
    return context


def test_tls_is_verified_and_a_named_authority_is_trusted(authority: tuple[trustme.CA, str]) -> None:
    ca, path = authority
    with answering(FakeVllm(), server_side(ca, "127.0.0.1")) as url:
        assert "certificate that is not trusted" in sentence(url)
        with Control(url, cacert=path) as control:
            assert control.ask(HEALTH) == (200, b"")
        with Control(url, insecure=True) as control:
            assert control.ask(HEALTH) == (200, b"")


def test_a_certificate_of_another_name_is_not_trusted(authority: tuple[trustme.CA, str]) -> None:
    ca, path = authority
    with answering(FakeVllm(), server_side(ca, "other.example.org")) as url:
        assert "certificate that is not trusted" in sentence(url, cacert=path)


def test_https_to_a_plain_port_says_so() -> None:
    with answering(FakeVllm()) as url:
        assert "is it http:// rather than https://?" in sentence(url.replace("http:", "https:"))


def test_an_unreadable_authority_file_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    for path in (tmp_path / "absent.pem", tmp_path / "empty.pem"):
        with pytest.raises(BadInput, match="--cacert"):
            Control("https://127.0.0.1:1", cacert=str(path))


def test_the_model_is_the_only_one_or_the_asked_one() -> None:
    assert choose_model(ServerFacts(models=("a",)), None) == "a"
    assert choose_model(ServerFacts(models=("a", "b")), "b") == "b"
    assert choose_model(ServerFacts(models=()), "whatever") == "whatever"


@pytest.mark.parametrize(
    ("models", "asked", "said"),
    [
        ((), None, "--model"),
        (("a", "b"), None, "several models; choose one with --model: a, b"),
        (("a", "b"), "c", "--model 'c' is not served here; there are: a, b"),
    ],
)
def test_a_model_that_cannot_be_chosen_lists_those_there_are(
    models: tuple[str, ...], asked: str | None, said: str
) -> None:
    with pytest.raises(TargetUnusable, match=said):
        choose_model(ServerFacts(models=models), asked)

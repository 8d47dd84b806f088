"""URLs, headers and request bytes: what is sent is what was meant, and no secret is told."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.harness.errors import BadInput
from servemark.harness.server.address import build_headers, parse_url, refuse_proxy, request_bytes, split_header
from servemark.harness.types import HttpRequest


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "prefix", "host_header"),
    [
        ("http://localhost:8000", "localhost", 8000, False, "", "localhost:8000"),
        ("http://Example.org/", "example.org", 80, False, "", "example.org"),
        ("https://example.org:443/a/b/", "example.org", 443, True, "/a/b", "example.org"),
        ("https://example.org:80", "example.org", 80, True, "", "example.org:80"),
        ("http://[::1]:8000/x", "::1", 8000, False, "/x", "[::1]:8000"),
    ],
)
def test_a_url_taken_apart(url: str, host: str, port: int, tls: bool, prefix: str, host_header: str) -> None:
    base = parse_url(url)
    assert (base.host, base.port, base.tls, base.prefix) == (host, port, tls, prefix)
    assert base.host_header == host_header
    assert base.url == url.rstrip("/")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("ftp://host", "no scheme"),
        ("http://", "no server address"),
        ("http://host:99999", "no address"),
        ("http://host:0", "no server address"),
        ("http://host/a?b=c", "no server address"),
        ("http://host/#x", "no server address"),
        ("http://host\r\nX: y", "blank"),
        ("http://ho st", "blank"),
        ("http://h\u00f6st", "ASCII"),
        ("http://[::1", "no address"),
    ],
)
def test_what_is_no_server_address(url: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        parse_url(url)


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(BadInput, match="credentials") as caught:
        parse_url("http://me:hunter2@host:8000")
    assert "hunter2" not in str(caught.value)


def test_flags_win_over_the_file_and_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", "sk-1")
    headers = build_headers("THE_KEY", dict([split_header("x-a: 1:2"), split_header("X-B=3=4")]) | {"X-C": "5"})
    assert sorted(headers) == [
        ("Authorization", "Bearer sk-1"),
        ("X-B", "3=4"),
        ("X-C", "5"),
        ("x-a", "1:2"),
    ]


def test_an_authorization_and_a_key_exclude_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", "sk-1")
    with pytest.raises(BadInput, match="exclude each other"):
        build_headers("THE_KEY", {"authorization": "Basic eA=="})


def test_a_key_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("ABSENT", raising=False)
    for name in ("EMPTY", "ABSENT"):
        with pytest.raises(BadInput, match=f"{name} .--api-key-env. is not set"):
            build_headers(name, {})


@pytest.mark.parametrize("secret", ["sk-1\n", "sk-1\r\nX-Injected: 1", "sk-1\x00", "sk-\u00e9"])
def test_a_value_that_could_break_the_message_is_refused_without_telling_it(
    secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadInput, match="line break") as caught:
        split_header(f"X-Key: a{secret}b")
    assert "sk-" not in str(caught.value)
    if "\x00" in secret:
        return  # no environment can hold it
    monkeypatch.setenv("THE_KEY", secret)
    with pytest.raises(BadInput, match="THE_KEY") as caught:
        build_headers("THE_KEY", {})
    assert "sk-" not in str(caught.value)


@pytest.mark.parametrize("flag", ["no separator", "", ": value", "bad name: x", "X\r\nY: 1", "Content-Length: 3"])
def test_what_is_no_header(flag: str) -> None:
    with pytest.raises(BadInput, match="--header"):
        split_header(flag)


class Seen:
    """What httptools, the parser of uvicorn and of our own client, makes of the bytes."""

    def __init__(self, data: bytes) -> None:
        self.target = b""
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self.complete = False
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(data)
        self.method = parser.get_method().decode()
        self.keep_alive = parser.should_keep_alive()

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode().lower(), value.decode()))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


@given(body=st.binary(max_size=200), prefix=st.sampled_from(["", "/llm", "/a/b/"]))
def test_the_bytes_are_one_whole_request(body: bytes, prefix: str) -> None:
    http = HttpRequest("POST", "/v1/completions", (("Content-Type", "application/json"),), body)
    seen = Seen(request_bytes(http, f"http://host:8000{prefix}", (("Authorization", "Bearer k"),)))
    assert seen.complete
    assert seen.keep_alive
    assert (seen.method, seen.target.decode()) == ("POST", f"{prefix.rstrip('/')}/v1/completions")
    assert seen.body == body
    headers = dict(seen.headers)
    assert len(headers) == len(seen.headers)
    assert headers["host"] == "host:8000"
    assert headers["content-length"] == str(len(body))
    assert headers["accept"] == "text/event-stream"
    assert headers["accept-encoding"] == "identity"
    assert headers["content-type"] == "application/json"
    assert headers["authorization"] == "Bearer k"


def test_the_users_headers_replace_ours_and_the_adapters() -> None:
    http = HttpRequest("POST", "/x", (("Accept", "application/json"), ("Content-Type", "text/plain")))
    seen = Seen(request_bytes(http, "http://[::1]:9", [("content-type", "application/x"), ("Host", "gate")]))
    headers = dict(seen.headers)
    assert (headers["content-type"], headers["accept"], headers["host"]) == (
        "application/x",
        "application/json",
        "gate",
    )
    assert len(headers) == len(seen.headers)


@pytest.mark.parametrize("path", ["/a b", "/a\r\nX: y", "/\u00e9"])
def test_a_path_that_would_break_the_request_line(path: str) -> None:
    with pytest.raises(ValueError, match="request line"):
        request_bytes(HttpRequest("GET", path), "http://host")


def test_a_header_that_would_break_the_message() -> None:
    with pytest.raises(BadInput, match="X-A"):
        request_bytes(HttpRequest("GET", "/"), "http://host", [("X-A", "1\r\nX-B: 2")])


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


def test_a_proxy_that_would_apply_is_refused_without_telling_its_password(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("http_proxy", "http://me:hunter2@proxy:3128")
    with pytest.raises(BadInput, match=r"HTTP_PROXY.*NO_PROXY") as caught:
        refuse_proxy("http://gpu-box:8000")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "url", "applies"),
    [
        ("http_proxy", "http://box:8000", True),
        ("http_proxy", "https://box", False),
        ("https_proxy", "https://box", True),
        ("ALL_PROXY", "https://box", True),
        ("http_proxy", "http://localhost:8000", False),
        ("http_proxy", "http://127.0.0.9:8000", False),
        ("http_proxy", "http://[::1]:8000", False),
    ],
)
def test_which_proxy_applies(variable: str, url: str, applies: bool, environment: pytest.MonkeyPatch) -> None:
    refuse_proxy(url)
    environment.setenv(variable, "http://proxy:3128")
    if applies:
        with pytest.raises(BadInput, match="_PROXY"):
            refuse_proxy(url)
    else:
        refuse_proxy(url)


@pytest.mark.parametrize(
    ("no_proxy", "url", "spared"),
    [
        ("box", "http://box:8000", True),
        ("other, .corp.example", "http://box.corp.example", True),
        ("box:8000", "http://box:8000", True),
        ("box:8001", "http://box:8000", False),
        ("*", "http://anything", True),
        ("10.0.0.0/8", "http://10.1.2.3:8000", True),
        ("10.0.0.0/8", "http://11.1.2.3:8000", False),
        ("10.1.2.3", "http://10.1.2.3:8000", True),
        ("fd00::/8,nonsense/x", "http://[fd00::1]:8000", True),
        ("ox", "http://box:8000", False),
    ],
)
def test_no_proxy_is_honoured(no_proxy: str, url: str, spared: bool, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("http_proxy", "http://proxy:3128")
    environment.setenv("no_proxy", no_proxy)
    if spared:
        refuse_proxy(url)
    else:
        with pytest.raises(BadInput):
            refuse_proxy(url)

"""Where requests go and what heads them: base URLs, headers, HTTP/1.1 request bytes, proxies."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from servemark.harness.errors import BadInput
from servemark.harness.types import HttpRequest

Headers = tuple[tuple[str, str], ...]

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, a token
_VALUE = re.compile(r"[\x20-\x7e\t]*")
_TARGET = re.compile(r"/[\x21-\x7e]*")
# These belong to the framing of the message, which is ours.
_OURS = frozenset({"connection", "content-length", "transfer-encoding", "expect", "upgrade", "accept-encoding"})


@dataclass(frozen=True, slots=True)
class BaseUrl:
    """A server's address taken apart; `prefix` is the path before the server's own, "" or "/like/this"."""

    url: str
    host: str
    port: int
    tls: bool
    prefix: str

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


@lru_cache(maxsize=64)
def parse_url(url: str, flag: str = "--url") -> BaseUrl:
    """BadInput, naming the flag that gave it, for anything but http(s)://host[:port][/prefix]."""
    if not url.isascii() or not url.isprintable() or " " in url:
        raise BadInput(f"{flag} holds a blank or a character that is not ASCII; write it as http://host:port")
    if not url.startswith(("http://", "https://")):
        raise BadInput(f"{flag} {url!r} names no scheme; write it as http://{url.split('://')[-1]}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadInput(f"{flag} is no address ({error}); write it as http://host:port") from None
    if parts.username is not None or parts.password is not None:
        raise BadInput(f"{flag} holds credentials, and it stands in results; use --api-key-env or --header")
    if not parts.hostname or port == 0 or parts.query or parts.fragment:
        raise BadInput(f"{flag} {url!r} is no server address; write it as http://host:port")
    prefix = parts.path.rstrip("/")
    tls = parts.scheme == "https"
    default = 443 if tls else 80
    return BaseUrl(url.rstrip("/"), parts.hostname, port or default, tls, prefix)


def split_header(flag: str) -> tuple[str, str]:
    """Name and value of `Name: value` or `Name=value`, as --header takes them. Raises BadInput."""
    at = min((flag.index(c) for c in ":=" if c in flag), default=None)
    if at is None:
        raise BadInput("--header is neither 'Name: value' nor 'Name=value'")
    return _checked(flag[:at].strip(), flag[at + 1 :].strip(), "--header")


def build_headers(api_key_env: str | None, headers: Mapping[str, str]) -> Headers:
    """The user's headers and the key, which is read from the environment and stands in no error text."""
    chosen = {name.lower(): _checked(name, str(value), "request.headers") for name, value in headers.items()}
    if api_key_env is not None:
        if "authorization" in chosen:
            raise BadInput("--api-key-env and a header Authorization exclude each other; leave one out")
        key = os.environ.get(api_key_env)
        if not key:
            raise BadInput(f"the environment variable {api_key_env} (--api-key-env) is not set or is empty")
        chosen["authorization"] = _checked("Authorization", f"Bearer {key}", f"${api_key_env} (--api-key-env)")
    return tuple(chosen.values())


def _checked(name: str, value: str, where: str) -> tuple[str, str]:
    """Never tells the value: it may be a secret."""
    if not _NAME.fullmatch(name):
        raise BadInput(f"{where}: {name!r} is no header name")
    if name.lower() in _OURS:
        raise BadInput(f"{where}: the header {name} is set by the client itself and cannot be changed")
    if not _VALUE.fullmatch(value):
        raise BadInput(
            f"{where}: the value of {name} holds a line break, a control or a non-ASCII character; "
            "check for a stray newline at its end"
        )
    return name, value


def request_bytes(http: HttpRequest, base_url: str, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """The whole HTTP/1.1 message for the timed wire; see `request_head`."""
    return request_head(http, base_url, headers) + http.body


def request_head(http: HttpRequest, base_url: str, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """What comes before the body. `headers` override the adapter's, those override ours."""
    base = parse_url(base_url)
    target = base.prefix + http.path
    if not http.method.isalpha() or not _TARGET.fullmatch(target):
        raise ValueError(f"no HTTP request line: {http.method!r} {target!r}")
    lines = {
        "host": ("Host", base.host_header),
        "user-agent": ("User-Agent", "servemark"),
        "accept": ("Accept", "text/event-stream"),
    }
    for name, value in (*http.headers, *headers):
        lines[name.lower()] = _checked(name, value, "a request's headers")
    # Compressed streams arrive in lumps, and then no time of a token is what it seems.
    ours = (
        ("Accept-Encoding", "identity"),
        ("Connection", "keep-alive"),
        ("Content-Length", str(len(http.body))),
    )
    head = "".join(f"{name}: {value}\r\n" for name, value in (*lines.values(), *ours))
    return f"{http.method} {target} HTTP/1.1\r\n{head}\r\n".encode("ascii")


def refuse_proxy(url: str) -> None:
    """BadInput where the environment asks for a proxy to this server: the timed connection uses none.

    NO_PROXY is honoured (names, suffixes, addresses, networks); loopback never goes through a proxy.
    """
    from urllib.request import getproxies, proxy_bypass

    base = parse_url(url)
    scheme = "https" if base.tls else "http"
    proxies = getproxies()
    variable = next((v for v in (scheme, "all") if proxies.get(v)), None)
    if variable is None or is_loopback(base.host):
        return
    if proxy_bypass(f"{base.host}:{base.port}") or proxy_bypass(base.host):
        return
    if _in_networks(base.host, proxies.get("no", "")):
        return
    raise BadInput(
        f"{variable.upper()}_PROXY in the environment puts a proxy before {base.host}, and a run uses none; "
        f"add {base.host} to NO_PROXY to go straight to the server, or unset it"
    )


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _in_networks(host: str, no_proxy: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    for entry in no_proxy.split(","):
        try:
            if address in ip_network(entry.strip(), strict=False):
                return True
        except ValueError:
            continue
    return False

"""What the scripts that capture transcripts have in common: asking a server, and writing down what it said."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

HERE = Path(__file__).parent


def ask(url: str, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, bytes]:
    """Status and body of a path at the server of this URL."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def write(server: str, name: str, body: bytes, head: dict[str, Any], expect: dict[str, Any]) -> None:
    """JSON's strings, numbers and lists of them are TOML's too."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in head.items()]
    lines += ["", "[expect]", *(f"{key} = {json.dumps(value)}" for key, value in expect.items())]
    (HERE / f"{server}-{name}.sse").write_bytes(body)
    (HERE / f"{server}-{name}.toml").write_text("\n".join(lines) + "\n")

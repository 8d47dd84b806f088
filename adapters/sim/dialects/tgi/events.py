"""How TGI writes events, headers and errors."""

from __future__ import annotations

from typing import Literal

import msgspec

from servemark.adapters.sim.connection import Headers, chunk
from servemark.adapters.sim.writer import DONE

_json = msgspec.json.encode

Form = Literal["generate", "chat", "completions"]


def event(payload: bytes) -> bytes:
    """Without the space that others put after the colon."""
    return chunk(b"data:" + payload + b"\n\n")


def headers(characters: int) -> Headers:
    return ("x-compute-type", "cpu"), ("x-compute-characters", str(characters)), ("x-accel-buffering", "no")


def error(message: str, type_: str) -> bytes:
    return _json({"error": message, "error_type": type_})


def error_event(form: Form, message: str, type_: str) -> bytes:
    """The chat route says 422 whatever happened; only the OpenAI routes end with [DONE]."""
    if form == "chat":
        return event(_json({"error": {"message": message, "http_status_code": 422}})) + DONE
    return event(error(message, type_)) + (DONE if form == "completions" else b"")

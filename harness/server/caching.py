"""The server's prefix cache: emptying it on request, and what its settings tell of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from servemark.harness.clock import SECOND, now_ns
from servemark.harness.plaintext import one_line
from servemark.harness.plan.sections import CacheProtocol
from servemark.harness.server.control import Control, NotReady
from servemark.harness.server.target import Target
from servemark.harness.types import HttpRequest

PATIENCE_S = 10.0
"""A server that has just served somebody may need a moment until it holds no request any more."""
_PAUSE_S = 0.2
_BUSY = frozenset((400, 409, 423, 429, 503))
_SHOWN = 120
_MOST_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Reset:
    """What one server answered when it was asked to empty its cache; `status` None: nothing."""

    url: str
    request: str
    status: int | None
    answer: str
    done: bool
    asked: int = 1
    """How often, as it was busy."""

    @property
    def said(self) -> str:
        """`answers 404 to POST /reset_prefix_cache`, or what kept it from answering."""
        if self.status is None:
            return self.answer
        refused = 200 <= self.status < 300 and not self.done
        return f"answers {self.status} to {self.request}" + (f" and did nothing: {self.answer}" if refused else "")


@dataclass(frozen=True, slots=True)
class WarmUp:
    """The pass before a warm run: each of `prompts` was sent to each server, for one token of answer."""

    prompts: int
    prompt_tokens: int
    requests: int
    failed: int
    seconds: float
    failure: str | None = None
    """The first one's kind and detail."""


@dataclass(frozen=True, slots=True)
class ServerCache:
    """What a server's settings say of its cache; None where they do not."""

    block_tokens: int | None = None
    enabled: bool | None = None
    capacity_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class CacheState:
    """The prefix cache when the load began, and how it came to that."""

    protocol: CacheProtocol = "as_is"
    how: Literal["untouched", "emptied", "salted", "warmed"] = "untouched"
    resets: tuple[Reset, ...] = ()
    warm_up: WarmUp | None = None
    server: ServerCache = field(default_factory=ServerCache)

    @property
    def said(self) -> str:
        """In words, for people."""
        if self.warm_up is not None:
            failed = f", of which {self.warm_up.failed:,} failed" if self.warm_up.failed else ""
            return f"warm: {self.warm_up.requests:,} requests were sent before the load{failed}"
        if self.how == "emptied":
            return f"cold: emptied by {self.resets[0].request}"
        if self.how == "salted":
            return f"cold: prompts are salted, since {self._why_not()}"
        return "as it was"

    def _why_not(self) -> str:
        refused = next((reset for reset in self.resets if not reset.done), None)
        return "this kind of server cannot be asked to empty it" if refused is None else f"the server {refused.said}"

    def facts(self) -> dict[str, Any]:
        """For the result."""
        return {"protocol": self.protocol, "how": self.how, "said": self.said} | {
            "resets": [asdict(reset) for reset in self.resets],
            "warm_up": None if self.warm_up is None else asdict(self.warm_up),
            "server": asdict(self.server),
        }


def made_cold(target: Target, patience_s: float = PATIENCE_S) -> CacheState:
    """Empties every server's cache; where one of them cannot, or will not, the prompts are to be salted."""
    request = target.adapter.cache_reset
    resets = () if request is None else tuple(_reset(each.control, request, patience_s) for each in target.replicas)
    emptied = bool(resets) and all(reset.done for reset in resets)
    return CacheState("cold", "emptied" if emptied else "salted", resets, server=server_cache(target.facts.settings))


def _reset(
    control: Control, request: HttpRequest, patience_s: float, pause: Callable[[float], None] = time.sleep
) -> Reset:
    """Asks until it is done or sure not to be."""
    deadline_ns, name, asked = now_ns() + round(patience_s * SECOND), f"{request.method} {request.path}", 0
    while True:
        asked += 1
        try:
            status, body = control.ask(request)
        except NotReady as error:
            return Reset(control.url, name, None, str(error).removeprefix(control.url).strip(), False, asked)
        done, busy = judged(status, body)
        if done or not busy or now_ns() >= deadline_ns:
            return Reset(control.url, name, status, one_line(body[:_SHOWN].decode("utf-8", "replace")), done, asked)
        pause(_PAUSE_S)


def judged(status: int, body: bytes) -> tuple[bool, bool]:
    """Whether the cache was emptied, and if not, whether the server may do it once it is idle.

    vLLM says it in the body of a 200 ({"success": false} while requests run; older ones have no body and may have done
    nothing), SGLang by a status of 400.
    """
    if not 200 <= status < 300:
        return False, status in _BUSY
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return True, False
    refused = isinstance(told, dict) and told.get("success") is False
    return not refused, refused


def server_cache(settings: Mapping[str, Any]) -> ServerCache:
    """From what probes found, under the servers' own names for it."""
    disabled = _truth(settings.get("disable_radix_cache"))
    return ServerCache(
        block_tokens=_count(settings.get("block_size")) or _count(settings.get("page_size")),
        enabled=_truth(settings.get("enable_prefix_caching")) if disabled is None else not disabled,
        capacity_tokens=_count(settings.get("kv_cache_size_tokens")) or _count(settings.get("max_total_num_tokens")),
    )


def _count(value: object) -> int | None:
    """A positive whole number, as such or as text."""
    text = str(value)
    return int(text) or None if text.isascii() and text.isdecimal() and len(text) < _MOST_DIGITS else None


def _truth(value: object) -> bool | None:
    return {"true": True, "false": False}.get(str(value).lower())

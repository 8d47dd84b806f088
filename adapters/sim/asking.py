"""What a request asks of the engine, and the reading of its fields that dialects have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from servemark.adapters.sim.connection import Headers
from servemark.adapters.sim.tokenizer import Tokenizer
from servemark.adapters.sim.writer import Writer

_decode = msgspec.json.Decoder().decode


class Refusal(Exception):
    """A request that is not taken, as the whole response that says so. `body` of a `stream` is its chunks."""

    def __init__(
        self,
        status: int,
        body: bytes,
        content_type: str = "application/json",
        headers: Headers = (),
        stream: bool = False,
    ) -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers
        self.stream = stream


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as the engine takes it; `writer` puts the answer into the server's words."""

    prompt: list[int]
    max_tokens: int
    writer: Writer
    min_tokens: int = 0
    ignore_eos: bool = False
    seed: int = 0
    cache_salt: str = ""
    """The prefix cache keeps requests with different ones apart."""


Wrong = Callable[[str, str], Refusal]
"""The refusal of one field: its name ("" for what is wrong with the whole), and what is wrong."""


class Fields:
    """The fields of a request's body; what cannot be read is refused in the dialect's words."""

    def __init__(self, values: Mapping[str, Any], wrong: Wrong) -> None:
        self.values = values
        self.wrong = wrong

    def integer(self, name: str, default: int) -> int:
        value = self.values.get(name)
        if value is None:
            return default
        if type(value) is not int:
            raise self.wrong(name, "Input should be a valid integer")
        return value

    def text(self, name: str) -> str:
        value = self.values.get(name)
        if value is not None and not isinstance(value, str):
            raise self.wrong(name, "Input should be a valid string")
        return value or ""

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.values.get(name)
        return default if value is None else bool(value)

    def part(self, name: str) -> Fields:
        """The object under a name; an empty one where there is none."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(name, "Input should be a valid dictionary")
        return Fields(value or {}, self.wrong)

    def prompt(self, name: str, tokenizer: Tokenizer) -> list[int]:
        """Text, token ids, or a list that holds one of these."""
        prompt = self.values.get(name)
        if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
            prompt = prompt[0]
        if isinstance(prompt, str) and prompt:
            return tokenizer.ids(prompt)
        if not isinstance(prompt, list) or not prompt or not all(type(token) is int for token in prompt):
            raise self.wrong(name, "Input should be one prompt: text or token ids")
        if min(prompt) < 0 or max(prompt) >= tokenizer.vocab:
            raise self.wrong("", f"Token id {max(prompt)} is out of vocabulary")
        return prompt

    def chat(self, tokenizer: Tokenizer) -> list[int]:
        """Ids of `messages`, in the chat template."""
        return tokenizer.chat_ids(self.messages())

    def messages(self) -> list[tuple[str, str]]:
        """Roles and contents; parts of a content are joined."""
        messages = self.values.get("messages")
        if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
            raise self.wrong("messages", "Field required, a list of messages")
        return [(str(one.get("role")), _content(one.get("content"))) for one in messages]


def _content(content: object) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def json_object(body: bytes) -> dict[str, Any]:
    """ValueError, with why, where the body is none."""
    values = _decode(body)
    if not isinstance(values, dict):
        raise ValueError("the body is no JSON object")
    return values

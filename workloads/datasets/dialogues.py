"""What a row of a data set says: messages of a user, and the answers that were recorded to them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from servemark.harness.types import Message, Role

Speaker = Literal["system", "user", "assistant", "tool"]

SPEAKERS: dict[str, Speaker] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "tool": "tool",
    "function": "tool",
}
"""The names that published conversations have for who speaks."""


class Exchange(NamedTuple):
    """A message, and the answer that was recorded to it, or at least its length in tokens."""

    said: str
    answer: str | None = None
    role: Role = "user"
    output_tokens: int | None = None


class Dialogue(NamedTuple):
    """One row; the exchanges before `sent` only stand in the history of those that are sent."""

    exchanges: tuple[Exchange, ...]
    system: str | None = None
    class_: str = "default"
    sent: int = 0

    @property
    def opening(self) -> str:
        """The first text that the server sees."""
        return self.exchanges[0].said if self.system is None else self.system + self.exchanges[0].said

    def recorded(self) -> tuple[Message, ...]:
        """The conversation before what is sent."""
        found = [] if self.system is None else [Message("system", self.system)]
        for each in self.exchanges[: self.sent]:
            found.append(Message(each.role, each.said))
            if each.answer is not None:
                found.append(Message("assistant", each.answer))
        return tuple(found)


def text_of(row: dict[str, Any], path: str) -> str:
    """The text at a place in the row: `prompt`, or `instances.0.input` in lists and objects. Raises ValueError."""
    found = value_of(row, path)
    if not isinstance(found, str):
        raise ValueError(f"has no text in `{path}`")
    return found


def value_of(row: dict[str, Any], path: str) -> Any:
    """What is at a place in the row. Raises ValueError where nothing is."""
    found: Any = row
    for part in path.split("."):
        if isinstance(found, dict) and part in found:
            found = found[part]
        elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
            found = found[int(part)]
        else:
            raise ValueError(f"has no field `{path}`")
    return found


def texts_of(row: dict[str, Any], path: str) -> tuple[str, ...]:
    """The text, or texts, at a place in the row. Raises ValueError."""
    found = value_of(row, path)
    texts = tuple(found) if isinstance(found, list) else (found,)
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"has no text in `{path}`")
    return texts


def of_turns(said: Iterable[str], answers: Iterable[str] = ()) -> Dialogue:
    """A conversation of the user's texts; the answers are to the first of them. Raises ValueError."""
    known = iter(answers)
    return Dialogue(tuple(Exchange(_written(text), next(known, None)) for text in said))


def of_messages(messages: Any, speaker: str = "role", content: str = "content") -> Dialogue:
    """A conversation written as a list of messages, each with its speaker and its content. Raises ValueError.

    What an assistant says before anyone asked is left out; what one speaker says in several messages is one.
    """
    if not isinstance(messages, list):
        raise ValueError("has no list of messages")
    system: str | None = None
    exchanges: list[Exchange] = []
    for each in messages:
        who, text = _message(each, speaker, content)
        if who == "system":
            system = text if system is None else f"{system}\n\n{text}"
        elif who == "assistant":
            _answer(exchanges, text)
        else:
            _say(exchanges, text, who)
    if not exchanges:
        raise ValueError("has no message of a user")
    return Dialogue(tuple(exchanges), system)


def _message(each: Any, speaker: str, content: str) -> tuple[Speaker, str]:
    if not isinstance(each, dict):
        raise ValueError("has a message that is no JSON object")
    name = each.get(speaker)
    who = SPEAKERS.get(name) if isinstance(name, str) else None
    if who is None:
        raise ValueError(f"has a message of an unknown speaker, {name!r:.40}")
    return who, _content(each.get(content))


def _content(value: Any) -> str:
    """Text, or a list of parts of text; an assistant that only calls a tool says nothing."""
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in value):
        value = "".join(str(part.get("text", "")) for part in value)
    if not isinstance(value, str):
        raise ValueError("has a message that is no text")
    return value


def _answer(exchanges: list[Exchange], text: str) -> None:
    if exchanges:
        before = exchanges[-1].answer
        exchanges[-1] = exchanges[-1]._replace(answer=text if before is None else f"{before}\n\n{text}")


def _say(exchanges: list[Exchange], text: str, role: Role) -> None:
    if exchanges and exchanges[-1].answer is None and exchanges[-1].role == role:
        said = exchanges.pop().said
        text = f"{said}\n\n{text}"
    exchanges.append(Exchange(_written(text), None, role))


def _written(text: str) -> str:
    if not text.strip():
        raise ValueError("has an empty message")
    return text

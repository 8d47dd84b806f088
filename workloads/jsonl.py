"""Any JSON Lines file (or JSON array of objects): the workload says which fields hold what."""

from __future__ import annotations

from itertools import zip_longest
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from servemark.harness.plan.sources import SOURCES
from servemark.harness.plan.strict import MOST, Strict, one_or_many
from servemark.workloads.datasets.base import Conversations
from servemark.workloads.datasets.dialogues import Dialogue, of_messages, of_turns, text_of, texts_of, value_of

Fields = Annotated[tuple[str, ...], BeforeValidator(lambda value: tuple(one_or_many(value)))]


class Columns(Strict):
    """The names of fields; `instances.0.input` names one inside lists and objects."""

    prompt: Fields | None = Field(
        default=None,
        description="the user's text, or list of texts, one for each turn; of several fields the texts are joined "
        "(`prompt`, where neither this nor messages is given)",
    )
    messages: str | None = Field(default=None, description="a conversation as OpenAI's API takes it")
    system: str | None = Field(default=None, description="the system message")
    answer: str | None = Field(default=None, description="the recorded answer, or answers, for their lengths")
    output_tokens: str | None = Field(default=None, description="length of each answer in tokens, or a list of lengths")

    @model_validator(mode="after")
    def _one_of_each(self) -> Columns:
        if self.prompt == ():
            raise ValueError("prompt names no field; name one, or leave it out")
        if self.prompt is not None and self.messages is not None:
            raise ValueError("prompt and messages both say what is sent; keep one")
        if self.answer is not None and self.output_tokens is not None:
            raise ValueError("answer and output_tokens both say how long the answer is; keep one")
        if self.messages is not None and self.answer is not None:
            raise ValueError("messages hold their answers; leave answer out")
        return self


@SOURCES.register("jsonl")
class JsonLines(Conversations):
    """Prompts of one's own."""

    source: Literal["jsonl"] = "jsonl"
    columns: Columns = Field(default=Columns(), description="which fields hold what")
    class_by: str | None = Field(default=None, description="the field whose text is the class of the request")

    @classmethod
    def fits(cls, row: dict[str, Any]) -> bool:
        return isinstance(row.get("prompt"), str) or "messages" in row

    def read(self, row: dict[str, Any]) -> Dialogue:
        names = self.columns
        found = self._said(row) if names.messages is None else of_messages(value_of(row, names.messages))
        if names.system is not None:
            found = found._replace(system=text_of(row, names.system) or None)
        if names.output_tokens is not None:
            found = _with_lengths(found, value_of(row, names.output_tokens))
        return found if self.class_by is None else found._replace(class_=_label(value_of(row, self.class_by)))

    def _said(self, row: dict[str, Any]) -> Dialogue:
        fields = self.columns.prompt or ("prompt",)
        said = texts_of(row, fields[0]) if len(fields) == 1 else ("\n\n".join(_filled(row, fields)),)
        return of_turns(said, () if self.columns.answer is None else texts_of(row, self.columns.answer))


def _filled(row: dict[str, Any], fields: tuple[str, ...]) -> list[str]:
    return [text for text in (text_of(row, name) for name in fields) if text.strip()]


def _with_lengths(found: Dialogue, value: Any) -> Dialogue:
    """One length is that of every answer, of a list each is that of its turn."""
    lengths = value if isinstance(value, list) else [value] * len(found.exchanges)
    if not all(isinstance(each, int) and not isinstance(each, bool) and 0 < each <= MOST for each in lengths):
        raise ValueError(f"has {value!r:.40} for a length")
    pairs = zip_longest(found.exchanges, lengths[: len(found.exchanges)])
    return found._replace(exchanges=tuple(each._replace(output_tokens=tokens) for each, tokens in pairs))


def _label(value: Any) -> str:
    if not isinstance(value, str | int) or not str(value).strip():
        raise ValueError(f"has {value!r:.40} for a class")
    return str(value)

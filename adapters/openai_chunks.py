"""The OpenAI streaming protocol: what the adapters of servers that speak it have in common.

Bodies are built by `common_body` and turned into a request by `post`; `ChunkDecoder` reads the stream of
`/v1/chat/completions` and `/v1/completions` alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from servemark.adapters.base import error_text, excerpt, post_json, text_of
from servemark.harness.errors import BadInput
from servemark.harness.types import Delta, Endpoint, ErrorKind, HttpRequest, Options, Outcome, Request, Usage

PATHS: Mapping[Endpoint, str] = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
DONE = b"[DONE]"


def common_body(request: Request, options: Options) -> dict[str, Any]:
    """Model, prompt, streaming with usage, and sampling; a server's own fields are added to it."""
    body: dict[str, Any] = {"model": options.model, "stream": True, "stream_options": {"include_usage": True}}
    if options.endpoint == "completions":
        body["prompt"] = text_of(request)
    elif isinstance(request.prompt, str):
        body["messages"] = messages_of(request)
    else:
        raise BadInput(
            "a prompt of token ids needs the completions endpoint; set request.endpoint to completions, "
            "or take a prompt source that gives text"
        )
    if options.temperature is not None:
        body["temperature"] = options.temperature
    if options.top_p is not None:
        body["top_p"] = options.top_p
    return body


def messages_of(request: Request) -> list[dict[str, Any]]:
    """The conversation and its newest message. Raises nothing: `prompt` is known to be text.

    Many chat templates refuse the result of a tool that answers no call: the assistant's message before it gets one,
    beside its text. A call's name is the same in every run, and has the nine letters and digits that Mistral's want.
    """
    said = [(each.role, each.content) for each in request.history] + [(request.role, request.prompt)]
    messages: list[dict[str, Any]] = []
    caller: dict[str, Any] = {}
    for place, (role, content) in enumerate(said):
        message: dict[str, Any] = {"role": role, "content": content}
        if role == "tool":
            message["tool_call_id"] = f"call{place:05d}"
            caller.setdefault("tool_calls", []).append(_call(f"call{place:05d}"))
        elif role == "assistant":
            caller = message
        messages.append(message)
    return messages


def _call(name: str) -> dict[str, Any]:
    return {"id": name, "type": "function", "function": {"name": "tool", "arguments": "{}"}}


def post(body: Mapping[str, Any], options: Options) -> HttpRequest:
    """`options.extra_body` comes last and may override. Keys are sorted: same input, same bytes."""
    merged = {**body, **options.extra_body}
    return post_json(PATHS[options.endpoint], merged)


class _Text(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Any] | None = None

    @property
    def arguments(self) -> str:
        """Those of the calls of tools, as far as this piece has them."""
        functions = [call.get("function") for call in self.tool_calls or () if isinstance(call, dict)]
        told = [each.get("arguments") for each in functions if isinstance(each, dict)]
        return "".join(each for each in told if isinstance(each, str))


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Text | None = None
    text: str | None = None
    token_ids: list[int] | None = None
    finish_reason: str | None = None


class _Details(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None


class _Counts(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    """Where SGLang has them; 0 where it does not count them."""
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


class _Timings(msgspec.Struct, gc=False):
    predicted_n: int | None = None


class Chunk(msgspec.Struct, gc=False):
    """One event of the stream; of a server's own fields those that some decoder needs."""

    choices: list[_Choice] | None = None
    usage: _Counts | None = None
    timings: _Timings | None = None
    id: Any = None
    error: Any = None
    error_type: Any = None
    object: Any = None
    message: Any = None
    type: Any = None
    code: Any = None


_decode = msgspec.json.Decoder(Chunk).decode

# A stream is mostly the same few deltas; making them once saves an allocation per event.
_NOTHING = Delta()
_ANSWERS = tuple(Delta(carries=True, answer=True, tokens=k) for k in range(65))
_ANSWER_OF_UNKNOWN_SIZE = Delta(carries=True, answer=True)

# Ends by which the server says that it gave up; the text until then is no complete answer.
_FAILED_FINISHES = frozenset({"abort", "cancelled", "error", "timeout"})


class ChunkDecoder:
    """Reads one stream of chunks.

    A chunk's tokens are the increment of its cumulative usage, else the number of its token ids, else
    unknown: a chunk is never assumed to be one token. Usage is cumulative per choice, as vLLM gives it.
    """

    __slots__ = (
        *("_answered", "_arguments", "_counted", "_done", "_error", "_finish", "_gap", "_id", "_reasoned", "_usage"),
        "answer",
    )

    def __init__(self) -> None:
        self.answer: list[str] | None = None
        self._arguments: list[str] = []
        self._id: str | None = None
        self._usage: _Counts | None = None
        self._counted: dict[int, int] = {}
        self._gap = False
        """Tokens came whose number is unknown, so the next increment cannot be told apart from theirs."""
        self._reasoned = False
        self._answered = False
        self._finish: str | None = None
        self._error: str | None = None
        self._done = False

    def feed(self, event: bytes) -> Delta:
        if event.startswith(b"[") and event.rstrip() == DONE:
            self._done = True
            return _NOTHING
        chunk = _decode(event)
        if chunk.error is not None or chunk.object == "error":
            return self._failed(chunk)
        if self._id is None and chunk.id:
            self._id = str(chunk.id)
        if not chunk.choices:
            return self._without_choices(chunk, event)
        if chunk.usage is not None and chunk.usage.completion_tokens is not None:
            self._usage = chunk.usage
        if self.answer is not None:
            self._listen(self.answer, chunk.choices)
        return self._tokens(chunk.choices, self._told(chunk))

    def _listen(self, answer: list[str], choices: list[_Choice]) -> None:
        """Adds the text of the first of several answers; the arguments of tool calls only where there is no text."""
        for choice in choices:
            said = choice.delta.content if choice.delta is not None else choice.text
            if choice.index:
                continue
            if said:
                answer.append(said)
            elif choice.delta is not None and choice.delta.tool_calls:
                self._arguments.append(choice.delta.arguments)

    def _told(self, chunk: Chunk) -> int | None:
        """How many tokens the answer has by now, this chunk's included; None where it does not say."""
        return None if chunk.usage is None else chunk.usage.completion_tokens

    def finish(self, clean: bool) -> Outcome:
        error, detail = self._ending(clean)
        if self.answer is not None and not self.answer:
            self.answer += self._arguments
        return Outcome(self._final_usage(), self._finish, self._id, error, detail)

    def _failed(self, chunk: Chunk) -> Delta:
        flat = {"message": chunk.message, "type": chunk.type, "code": chunk.code}
        text = error_text(flat if chunk.error is None else chunk.error)
        if chunk.error_type:
            text = f"{chunk.error_type}: {text}"
        self._error = self._error or text
        return Delta(error=text)

    def _without_choices(self, chunk: Chunk, event: bytes) -> Delta:
        if chunk.usage is not None:
            self._usage = chunk.usage
        elif chunk.choices is None:
            raise ValueError(f"no chunk of an OpenAI stream: {excerpt(event)}")
        return _NOTHING

    def _tokens(self, choices: list[_Choice], told: int | None) -> Delta:
        answer = reasoning = blank = False
        ids = 0
        for choice in choices:
            if choice.finish_reason:  # some servers write "" until the end
                self._finish = choice.finish_reason
            if choice.token_ids:
                ids += len(choice.token_ids)
            delta = choice.delta
            if delta is None:
                if choice.text:
                    answer = True
                blank = choice.text is not None
            elif delta.content or delta.tool_calls:
                answer = True
            elif delta.reasoning or delta.reasoning_content:
                reasoning = True
            else:
                blank = delta.content is not None
        text = answer or reasoning
        tokens = self._count(choices[0].index, told, ids, text)
        if not (text or tokens):
            return _NOTHING
        if reasoning and not answer:
            self._reasoned = True
            return Delta(carries=True, tokens=tokens)
        if not answer and (self._answered or (blank and not self._reasoned)):
            # Tokens without text (half a character, a special one) belong to the part they stand in.
            answer = True
        if not answer:
            return Delta(carries=True, tokens=tokens)
        self._answered = True
        if tokens is None:
            return _ANSWER_OF_UNKNOWN_SIZE
        return _ANSWERS[tokens] if tokens <= 64 else Delta(carries=True, answer=True, tokens=tokens)

    def _count(self, index: int, told: int | None, ids: int, text: bool) -> int | None:
        """How many tokens are new in a chunk, None where that is unknown or there are none."""
        before = self._counted.get(index, 0)
        if told is None:
            if ids:
                self._counted[index] = before + ids
                return ids
            self._gap = self._gap or text
            return None
        self._counted[index] = told
        new = told - before
        if self._gap:
            self._gap = new <= 0
            return ids or None
        if new > 0:
            return new
        self._gap = text
        return ids or None

    def _final_usage(self) -> Usage:
        usage = self._usage
        if usage is None or usage.completion_tokens is None:
            counted = sum(self._counted.values())
            if counted and not self._gap:
                return Usage(output_tokens=counted, source="events")
            return Usage(prompt_tokens=usage.prompt_tokens if usage else None)
        of_prompt = usage.prompt_tokens_details or _Details()
        of_output = usage.completion_tokens_details or _Details()
        told = of_output.reasoning_tokens is not None
        return Usage(
            prompt_tokens=usage.prompt_tokens,
            output_tokens=usage.completion_tokens,
            reasoning_tokens=of_output.reasoning_tokens if told else usage.reasoning_tokens or None,
            cached_tokens=of_prompt.cached_tokens,
            source="usage",
        )

    def _ending(self, clean: bool) -> tuple[ErrorKind | None, str | None]:
        if self._error is not None:
            return "server_error", self._error[:500]
        if self._finish in _FAILED_FINISHES:
            return "server_error", f"the server ended the answer with finish_reason {self._finish!r}"
        if self._done or (clean and self._finish is not None):
            return None, None
        return "incomplete", "the stream ended without [DONE]"

"""The nouns: a request, its answer's events, its record, and the two seams (Adapter and Sink).

Everything here is data or a protocol; nothing does I/O and nothing reads a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Phase = Literal["warmup", "measured", "cooldown"]
Endpoint = Literal["chat", "completions", "generate"]
"""Which of a server's routes: the OpenAI ones, or `generate`, the server's own."""
Framing = Literal["sse", "ndjson"]
StopReason = Literal["finished", "interrupted", "server_lost", "generator_lost"]

# The kinds of error a record can carry. `error_detail` says the rest.
ErrorKind = Literal[
    "connect",  # refused, unreachable, TLS failure
    "reset",  # the connection broke before the response was complete
    "timeout_connect",
    "timeout_first_event",
    "timeout_gap",
    "timeout_total",
    "http_status",  # a status other than 200
    "protocol",  # bytes that are no HTTP, or a body that is no event stream
    "server_error",  # an error event inside a 200 stream
    "incomplete",  # the stream ended without its end marker
    "empty",  # a clean stream that held no token
    "abandoned",  # still in flight when the drain limit came, or the run was stopped
    "gave_up",  # the client hung up after its wait, as the workload asks; no failure of the server's
]

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Options:
    """What every request of a run has in common."""

    model: str = ""
    endpoint: Endpoint = "chat"
    temperature: float | None = 0.0
    top_p: float | None = None
    force_output_length: bool = True
    extra_body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """One planned request before any server's dialect. `prompt` is text or token ids; lengths are in tokens.

    Of a conversation `prompt` is the newest message, `history` those before it, answers of the server's included.
    """

    index: int
    prompt: str | tuple[int, ...]
    asked_prompt_tokens: int | None
    asked_output_tokens: int | None
    class_: str = "default"
    session_id: str | None = None
    turn: int = 0
    prefixes: tuple[tuple[str, int], ...] = ()
    """Beginnings that other prompts of the run have too: a name for each, and how many tokens from the first on."""
    history: tuple[Message, ...] = ()
    role: Role = "user"
    """Whose message `prompt` is: the user's, or the result of a tool."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server answered to a turn: its text, reasoning left out, and what it counted (None: not told)."""

    text: str
    prompt_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """The next request of a session, and how long the user thinks before it."""

    request: Request
    think_ns: int = 0


@dataclass(frozen=True, slots=True)
class HttpRequest:
    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Delta:
    """What one event of a stream carries.

    `carries` is true when it holds at least one token (content, reasoning, tool call, token ids, or an increment of
    the usage count); `answer` when one of them is no reasoning; `tokens` is how many, None where the server does not
    say; `error` an error event's text.
    """

    carries: bool = False
    answer: bool = False
    tokens: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one response. `source` names who counted: usage, events, tokenizer, estimate or none."""

    prompt_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None
    source: str = "none"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a decoder knows when its stream has ended. `error` is None, "incomplete" or "server_error"."""

    usage: Usage = Usage()
    finish_reason: str | None = None
    server_request_id: str | None = None
    error: ErrorKind | None = None
    error_detail: str | None = None


class Decoder(Protocol):
    """Reads one stream. Made anew for each response, because cumulative counts and clean endings need state."""

    answer: list[str] | None
    """Where somebody puts a list, the answer's text (no reasoning) is added to it piece by piece; None at first."""

    def feed(self, event: bytes) -> Delta:
        """The payload of one event (the text after `data:`). Raises ValueError for bytes that are not its dialect."""

    def finish(self, clean: bool) -> Outcome:
        """After the last event; `clean` says that the HTTP message was complete."""


@dataclass(frozen=True, slots=True)
class Promises:
    """What a server can and cannot do, carried into the summary and the verdict."""

    fixed_length: bool
    exact_counts: bool
    cached_tokens: bool
    per_chunk_counts: bool
    token_id_prompts: bool


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What the probes found out. Each probe's parser returns the fields that it knows; they are merged in order."""

    ready: bool | None = None
    engine: str | None = None
    version: str | None = None
    models: tuple[str, ...] = ()
    default_model: str | None = None
    """The one to take where several are there and none is asked for."""
    context_tokens: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Probe:
    """A question to the server and the pure function that reads its answer (status, body) -> fields of ServerFacts.

    The parser raises ValueError, whose text is a sentence for the user, where the answer rules this server out.
    """

    name: str
    request: HttpRequest
    parse: Callable[[int, bytes], Mapping[str, Any]]
    required: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """One question whose answer (status, body) only this kind of server gives: names a server behind a wrong target."""

    request: HttpRequest
    matches: Callable[[int, bytes], bool]


@dataclass(frozen=True, slots=True)
class Tokenization:
    """How to ask the server for token ids: of raw text, or of a chat's messages (template included).

    Where a server cannot tell the latter (`of_chat` is None), the template's length is learnt by one request.
    """

    of_text: Callable[[str, str], HttpRequest]  # (model, text)
    of_chat: Callable[[str, str], HttpRequest] | None  # (model, content of one user message)
    parse: Callable[[int, bytes], tuple[int, ...]]


MetricsReader = Callable[[bytes], Mapping[str, float]]
"""The body of one answer -> our vocabulary's names and values. ValueError where it holds none of them."""


@dataclass(frozen=True, slots=True)
class MetricsSource:
    """Where a server tells its own metrics. `reader` makes one reader per run, which may keep state.

    `port` is the metrics' own where they have one; `draining` says that an answer is told once, to one reader only;
    `notes` say what this server counts under some of our names, as "ttft": "from ... to ...".
    """

    path: str
    reader: Callable[[], MetricsReader]
    port: int | None = None
    draining: bool = False
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Launcher:
    """How `--launch "MODEL FLAGS"` becomes a command.

    `command(words, host, port)` gives the program and its arguments; `version` is a command that prints the version.
    """

    command: Callable[[Sequence[str], str, int], Sequence[str]]
    version: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


class Adapter(Protocol):
    """A server's dialect, sans-IO: no socket, no clock. Found by name: module `servemark.adapters.<name>` has ADAPTER
    (a dash in the name is an underscore in the module's).

    One file each; other people's packages register theirs under the entry-point group `servemark.adapters`.
    `servemark.adapters.base.BaseAdapter` has defaults for all that not every server needs.
    """

    name: str
    about: str
    default_url: str
    framing: Framing
    endpoints: tuple[Endpoint, ...]
    """The first is taken where none is asked for."""
    simulated: bool
    tokenization: Tokenization | None
    metrics: tuple[MetricsSource, ...]
    """In order of preference; the first that answers is read through the run."""
    launcher: Launcher | None
    cache_reset: HttpRequest | None
    """Empties the prefix cache."""
    signature: Signature | None
    batch_path: str | None
    """Where the whole load goes as one batch, one request a line; None for servers of single requests."""

    def base_url(self, url: str) -> str:
        """The address before the paths of this adapter, from the one that the user gave."""

    def probes(self) -> Sequence[Probe]:
        """In order; none of them sends load."""

    def model_probes(self, model: str) -> Sequence[Probe]:
        """What is asked once the model is chosen."""

    def settled(self, facts: ServerFacts, model: str) -> Adapter:
        """The adapter for this very server: itself, unless requests or promises depend on what probes found."""

    def promises(self, endpoint: Endpoint) -> Promises: ...

    def encode(self, request: Request, options: Options) -> HttpRequest:
        """Raises BadInput where the request cannot be said in this dialect."""

    def decoder(self, endpoint: Endpoint) -> Decoder:
        """Of the unsettled adapter: a worker knows the target's name only."""


@dataclass(frozen=True, slots=True)
class Record:
    """One request as it went. All `_ns` are CLOCK_MONOTONIC nanoseconds; None where it did not come to that.

    `chunk_ns` are the stamps of reads that carried tokens, `chunk_tokens` the tokens of each (None: unknown).
    """

    request_id: int
    class_: str
    session_id: str | None
    turn: int
    url: str
    worker: int
    phase: Phase
    intended_ns: int
    ready_ns: int | None = None
    """When a later turn of a session, which is made when the turn before is answered, was there to be sent."""
    sent_ns: int | None = None
    connect_started_ns: int | None = None
    connect_ns: int | None = None
    first_byte_ns: int | None = None
    first_token_ns: int | None = None
    first_answer_ns: int | None = None
    last_token_ns: int | None = None
    done_ns: int | None = None
    chunk_ns: tuple[int, ...] = ()
    chunk_tokens: tuple[int | None, ...] = ()
    asked_prompt_tokens: int | None = None
    asked_output_tokens: int | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None
    token_source: str = "none"
    finish_reason: str | None = None
    http_status: int | None = None
    error: ErrorKind | None = None
    error_detail: str | None = None
    server_request_id: str | None = None
    reads: int = 0
    coalesced_reads: int = 0
    resends: int = 0
    stamp: Literal["kernel", "user", "engine"] = "kernel"
    """Who took the times: the kernel on arrival, this process after reading, or the engine itself (a batch)."""


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What the load generator says of itself when a run has ended; the verdict judges it."""

    worker: int
    started_ns: int
    """Offset 0 of the schedule, on the monotonic clock."""
    started_wall_ns: int
    """The same instant on the wall clock."""
    ended_ns: int
    issued: int
    schedule_finished: bool
    """Every planned request was sent, or the planned time was used up."""
    stop_reason: StopReason
    late_jobs: int
    """Requests whose encoded bytes were not there when they were due."""
    max_late_job_ns: int
    stalls: int
    """Times the event loop was held longer than 10 ms."""
    max_stall_ns: int
    cpu_ns: int
    """CPU time of the worker between start and end."""
    wall_step_ns: int
    """How far the wall clock moved against the monotonic one during the run."""
    reconnects: int
    drained: bool
    """No request was abandoned at the drain limit."""
    throttled: int = 0
    """Requests that the client's own cap on requests per minute held back."""
    throttled_ns: int = 0
    """For how long, all together."""
    later_turns: int = 0
    """Requests issued that went on with a session; the others are one for each item of the source."""


@dataclass(frozen=True, slots=True)
class ServerSample:
    """One reading of the server's metrics: our vocabulary's names -> values over all labels; absent ones absent.

    `url` is None for the whole deployment; with several replicas there is also a reading of each.
    """

    at_ns: int
    values: Mapping[str, float]
    url: str | None = None


@dataclass(frozen=True, slots=True)
class GpuSample:
    """One reading of one GPU: names of `harness/gpu/fields.py` -> values; what it does not tell is absent.

    `gpu` is its UUID, or what the source calls it; run.json says more of each.
    """

    at_ns: int
    gpu: str
    values: Mapping[str, float]


class Sink(Protocol):
    """Where a run's facts go while it runs. The runner knows no file format."""

    def record(self, record: Record) -> None: ...

    def server_sample(self, sample: ServerSample) -> None: ...

    def gpu_sample(self, sample: GpuSample) -> None: ...

"""The kinds of server there are to test against, and what is known of each apart from what its adapter says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from real import llamacpp_cpu, transformers_cpu, triton_front, triton_repository, vllm_cpu
from real.rig import RealServer


@dataclass(frozen=True)
class Kind:
    """`flags` are the server's own. `locked` are flags with which it asks for KEY, none where it cannot."""

    name: str
    target: str
    install: Callable[[], None]
    serve: Callable[..., RealServer]
    model: str
    refuses: tuple[str, int, str]
    """A field of a request's body that it does not take, the status by which it says so, and a word of what it says."""
    flags: tuple[str, ...] = ()
    locked: tuple[str, ...] = ()
    tells_context: int | None = None
    """The context that it says it has."""
    takes: int | None = None
    """Tokens beyond which it refuses a request; None where it tries whatever comes."""
    measured_with: tuple[str, ...] = ()
    """Flags of the command without which it cannot be measured as it should be."""

    def __str__(self) -> str:
        return self.name


KEY = "k-3f1d9c"
# Triton takes what is no input of the model for a parameter, and objects for nothing.
_NO_PARAMETER = ('{"strange": {"a": 1}}', 400, "strange")

_ALL = (
    Kind(
        name="triton",
        target="trtllm-triton",
        install=triton_front.install,
        serve=triton_front.serve,
        model="ensemble",
        refuses=_NO_PARAMETER,
        flags=("inflight",),
        takes=triton_repository.CONTEXT_TOKENS,
    ),
    Kind(
        name="triton-llmapi",
        target="trtllm-triton",
        install=triton_front.install,
        serve=triton_front.serve,
        model="tensorrt_llm",
        refuses=_NO_PARAMETER,
        flags=("llmapi",),
        takes=triton_repository.CONTEXT_TOKENS,
    ),
    Kind(
        name="llamacpp",
        target="llamacpp",
        install=llamacpp_cpu.install,
        serve=llamacpp_cpu.serve,
        model=llamacpp_cpu.MODEL,
        refuses=('{"top_p": "high"}', 400, "top_p"),
        locked=("--api-key", KEY),
        tells_context=llamacpp_cpu.CONTEXT_TOKENS,
        takes=llamacpp_cpu.CONTEXT_TOKENS,
    ),
    Kind(
        name="transformers",
        target="openai",
        install=transformers_cpu.install,
        serve=transformers_cpu.serve,
        model=transformers_cpu.MODEL,
        refuses=('{"ignore_eos": true}', 422, "ignore_eos"),
        # It knows max_tokens only, and drops the other in silence.
        measured_with=("--extra-body", '{"max_completion_tokens": null}'),
    ),
    Kind(
        name="vllm",
        target="vllm",
        install=vllm_cpu.install,
        serve=vllm_cpu.serve,
        model=vllm_cpu.MODEL,
        refuses=('{"top_p": 7}', 400, "top_p"),
        flags=("--enable-prompt-tokens-details", "--enable-mfu-metrics"),
        # It also answers several tokens at a time, and counts no cached tokens in its answers.
        locked=("--stream-interval", "4", "--api-key", KEY),
        tells_context=vllm_cpu.CONTEXT_TOKENS,
        takes=vllm_cpu.CONTEXT_TOKENS,
    ),
)

KINDS = {kind.name: kind for kind in _ALL}

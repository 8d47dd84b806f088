"""What a server, or the command that started it, tells of its model and how it is laid out over GPUs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Our name -> the names that servers have for it in what they tell, and as flags of their commands.
_SETTINGS: Mapping[str, tuple[str, ...]] = {
    "model": ("hardware_model", "model_path", "root"),
    "gpu": ("hardware_gpu",),
    "tensor": ("tensor_parallel_size", "tp_size"),
    "pipeline": ("pipeline_parallel_size", "pp_size"),
    "data": ("data_parallel_size", "dp_size"),
    "expert": ("enable_expert_parallel", "ep_size"),
    "quantisation": ("quantization", "quantize"),
    "dtype": ("dtype", "model_dtype"),
    "kv": ("kv_cache_dtype", "cache_dtype"),
    "kv_tokens": ("kv_cache_size_tokens", "max_total_num_tokens"),
}
_FLAGS: Mapping[str, tuple[str, ...]] = {
    "model": ("--model", "--model-path", "--model-id"),
    "tensor": ("--tensor-parallel-size", "-tp", "--tp-size", "--tp_size", "--tp", "--num-shard"),
    "pipeline": ("--pipeline-parallel-size", "-pp", "--pp-size", "--pp_size", "--pp"),
    "data": ("--data-parallel-size", "-dp", "--dp-size", "--dp"),
    "expert": ("--enable-expert-parallel", "--ep-size", "--ep_size", "--ep"),
    "quantisation": ("--quantization", "-q", "--quantize"),
    "dtype": ("--dtype",),
    "kv": ("--kv-cache-dtype",),
}
_SWITCHES = ("--enable-expert-parallel",)
# vLLM's: with these the experts are shared out over the data ranks too, as experts or in slices (its docs on data
# parallel deployment).
_SHARING = ("--data-parallel-size", "-dp")
_UNSAID = ("", "auto", "none", "null")
_SIXTEEN_BIT = ("bfloat16", "float16", "half", "bf16", "fp16")
_FORMATS = {"float32": "fp32", "float": "fp32", "fp8_e4m3": "fp8", "fp8_e5m2": "fp8", "fp8_ds_mla": "fp8"}
_MOST_RANKS = 100_000
_MOST_DIGITS = 16

SERVER = "the server"
LAUNCH = "--launch"


@dataclass(frozen=True, slots=True)
class Told:
    """None, or nothing, where it is not told. `models` are names or paths, the likeliest first.

    `sources` says of each field who told it.
    """

    models: tuple[str, ...] = ()
    gpu: str | None = None
    tensor: int | None = None
    pipeline: int | None = None
    data: int | None = None
    expert: bool | None = None
    weights: str | None = None
    kv: str | None = None
    kv_tokens: int | None = None
    """Tokens that the KV memory of one data rank holds."""
    sources: Mapping[str, str] | None = None


def told(settings: Mapping[str, Any], words: Sequence[str], model: str) -> Told:
    """`settings` are the server's, `words` those behind --launch, `model` is the name that requests ask for.

    What the server says goes before what it was asked to be.
    """
    found: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for source, values in ((SERVER, _of_settings(settings)), (LAUNCH, _of_words(words))):
        for name, value in values.items():
            if name not in found and value is not None and str(value).strip().lower() not in _UNSAID:
                found[name], sources[name] = value, source
    models = (found.get("model"), *_first_word(words), model)
    return Told(
        models=tuple(dict.fromkeys(str(each) for each in models if each)),
        gpu=_text(found.get("gpu")),
        tensor=_ranks(found.get("tensor")),
        pipeline=_ranks(found.get("pipeline")),
        data=_ranks(found.get("data")),
        expert=_spread(found.get("expert")),
        weights=_format(found.get("quantisation")) or _wide(found.get("dtype")),
        kv=_format(found.get("kv")),
        kv_tokens=_count(found.get("kv_tokens")),
        sources=sources,
    )


def _of_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, theirs in _SETTINGS.items():
        values = (settings[each] for each in theirs if settings.get(each) is not None)
        found[name] = next(values, None)
    return found


def _of_words(words: Sequence[str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for place, word in enumerate(words):
        flag, equals, value = word.partition("=")
        after = words[place + 1] if place + 1 < len(words) else ""
        given[flag] = True if flag in _SWITCHES else value if equals else after
    found = {name: next((given[flag] for flag in flags if flag in given), None) for name, flags in _FLAGS.items()}
    if found["expert"] is None and any(flag in given for flag in _SHARING):
        found["expert"] = True
    return found


def _first_word(words: Sequence[str]) -> tuple[str, ...]:
    """The model that `vllm serve MODEL ...` and its like take first."""
    return tuple(word for word in words[:1] if not word.startswith("-"))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _ranks(value: object) -> int | None:
    text = str(value)
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0
    return number if 1 <= number <= _MOST_RANKS else None


def _count(value: object) -> int | None:
    """A positive whole number, as such or as text."""
    text = str(value)
    return int(text) or None if text.isascii() and text.isdecimal() and len(text) < _MOST_DIGITS else None


def _spread(value: object) -> bool | None:
    """A flag, or a number of ranks."""
    if value is None or isinstance(value, bool):
        return value
    ranks = _ranks(value)
    return None if ranks is None else ranks > 1


def _format(value: object) -> str | None:
    """Our name of a format, where it has another one there; None for what says nothing of the format."""
    name = str(value or "").lower().removeprefix("torch.")
    return None if name in _UNSAID else _FORMATS.get(name, name)


def _wide(dtype: object) -> str | None:
    """A 16-bit dtype says nothing that the model's own config does not."""
    name = _format(dtype)
    return None if name in _SIXTEEN_BIT else name

"""The models that are served, with their inputs and outputs, and the reading of the inputs of a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from servemark.adapters.sim.asking import Refusal
from servemark.adapters.sim.writer import event

EVENT_STREAM: Final = "text/event-stream; charset=utf-8"
_json = msgspec.json.encode

# Inputs and outputs of the models that take text, with their types. The first two inputs are required.
INPUTS: Final[Mapping[str, str]] = {
    "text_input": "STRING",
    "max_tokens": "INT32",
    **dict.fromkeys(("end_id", "pad_id", "top_k", "min_tokens", "beam_width", "num_return_sequences"), "INT32"),
    **dict.fromkeys(("temperature", "top_p", "length_penalty", "repetition_penalty"), "FP32"),
    **dict.fromkeys(("presence_penalty", "frequency_penalty"), "FP32"),
    **dict.fromkeys(("stream", "exclude_input_in_output", "return_log_probs", "return_context_logits"), "BOOL"),
    **dict.fromkeys(("return_generation_logits", "return_perf_metrics"), "BOOL"),
    **dict.fromkeys(("return_num_input_tokens", "return_num_output_tokens"), "BOOL"),
    "seed": "UINT64",
    **dict.fromkeys(("bad_words", "stop_words"), "STRING"),
}
OUTPUTS: Final[Mapping[str, str]] = {
    "text_output": "STRING",
    **dict.fromkeys(("cum_log_probs", "output_log_probs", "context_logits", "generation_logits"), "FP32"),
    **dict.fromkeys(("batch_index", "sequence_index", "kv_cache_alloc_new_blocks"), "INT32"),
    **dict.fromkeys(("kv_cache_reused_blocks", "kv_cache_alloc_total_blocks"), "INT32"),
    **dict.fromkeys(("arrival_time_ns", "first_scheduled_time_ns", "first_token_time_ns"), "INT64"),
    "last_token_time_ns": "INT64",
    "acceptance_rate": "FP32",
    **dict.fromkeys(("total_accepted_draft_tokens", "total_draft_tokens"), "INT32"),
    **dict.fromkeys(("num_input_tokens", "num_output_tokens"), "INT32"),
}
BLS: Final = "tensorrt_llm_bls"
FRONTS: Final = ("ensemble", BLS)
PARTS: Final[Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]]] = {
    "preprocessing": ({"QUERY": "STRING", "REQUEST_OUTPUT_LEN": "INT32"}, {"INPUT_ID": "INT32"}),
    "tensorrt_llm": ({"input_ids": "INT32", "request_output_len": "INT32"}, {"output_ids": "INT32"}),
    "postprocessing": ({"TOKENS_BATCH": "INT32", "SEQUENCE_LENGTH": "INT32"}, {"OUTPUT": "STRING"}),
}

_Check = tuple[Callable[[object], bool], str]
_CHECKS: Final[Mapping[str, _Check]] = {
    "STRING": (
        lambda value: isinstance(value, str),
        "Unable to parse JSON bytes array: attempt to access JSON non-string as string",
    ),
    "INT32": (
        lambda value: type(value) is int,
        "Unable to parse 'data': attempt to access JSON non-signed-integer as signed-integer",
    ),
    "UINT64": (
        lambda value: type(value) is int and value >= 0,
        "Unable to parse 'data': attempt to access JSON non-unsigned-integer as unsigned-integer",
    ),
    "FP32": (
        lambda value: isinstance(value, int | float) and not isinstance(value, bool),
        "Unable to parse 'data': attempt to access JSON non-number as double",
    ),
    "BOOL": (
        lambda value: isinstance(value, bool),
        "Unable to parse 'data': attempt to access JSON non-boolean as boolean",
    ),
}


def error_body(message: str) -> bytes:
    return _json({"error": message})


def refusal(status: int, message: str) -> Refusal:
    return Refusal(status, error_body(message))


def failed_first(status: int, model: str, message: str) -> Refusal:
    """The model's first response is an error: an event, but under the error's own status."""
    return Refusal(status, event(error_body(f"in ensemble '{model}', {message}")), EVENT_STREAM, stream=True)


def inputs_of(body: bytes, declared: Mapping[str, str], model: str) -> dict[str, Any]:
    """The model's inputs by name, as values; whatever else is there becomes a parameter of the request, unread."""
    inputs = {}
    for name, value in _flat(_object(body)).items():
        if name in declared:
            inputs[name] = _value(name, value, declared[name], model)
        elif value is None or isinstance(value, dict | list):
            raise refusal(400, f"parameter '{name}' has invalid type. It should be either 'int', 'bool', or 'string'.")
    required = list(declared)[:2]
    if len(inputs) < len(required):
        missing = [name for name in required if name not in inputs]
        raise refusal(
            400,
            f"[request id: <id_unknown>] expected number of inputs between {len(required)} and {len(declared)} but got "
            f"{len(inputs)} inputs for model '{model}'. Got input(s) {list(inputs)}, but missing required input(s) "
            f"{missing}. Please provide all required input(s).",
        )
    return inputs


def _object(body: bytes) -> dict[str, Any]:
    try:
        fields = msgspec.json.decode(body) if body else None
    except ValueError:
        raise refusal(500, "failed to parse the request JSON buffer: Invalid value. at 0") from None
    if body and isinstance(fields, dict):
        return fields
    problem = "Invalid value." if body else "The document is empty."
    raise refusal(500, f"failed to parse the request JSON buffer: {problem} at 0")


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What stands under "parameters" counts as if it stood beside it."""
    nested = fields.get("parameters")
    beside = {name: value for name, value in fields.items() if name != "parameters"}
    return beside | nested if isinstance(nested, dict) else dict(fields)


def _value(name: str, value: object, type_: str, model: str) -> object:
    """A value, or a list that holds one."""
    values = value if isinstance(value, list) else [value]
    right, problem = _CHECKS[type_]
    if not all(right(one) for one in values):
        raise refusal(500, problem)
    if name in ("bad_words", "stop_words"):
        return values
    if len(values) != 1:
        raise refusal(
            400, f"[request id: <id_unknown>] input '{name}' batch size does not match other inputs for '{model}'"
        )
    return values[0]

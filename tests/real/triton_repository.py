"""Folders of models for Triton with the names, inputs and outputs of TensorRT-LLM's own.

Two deployments, as there are two kinds of them:

- `inflight`: `ensemble`, whose text is what is new in each response, and `tensorrt_llm_bls`, which gives the whole text
  until now (`accumulate_tokens`). Both count tokens when asked to.
- `llmapi`: `tensorrt_llm` as the LLM API's template has it, with other names, the whole text until now, no counts and
  no way to force a length.

Inputs and outputs are those of TensorRT-LLM's `triton_backend/all_models/{inflight_batcher_llm,llmapi}`, less images,
LoRA and guided decoding.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

ENGINE = Path(__file__).with_name("triton_engine.py")
CONTEXT_TOKENS = 4096

Fields = Mapping[str, str]
"""Name -> type and dimensions, as "INT32 1"; a "?" at the end says that an input may be left out."""

_INPUTS: Fields = {
    "text_input": "STRING 1",
    "max_tokens": "INT32 1",
    **dict.fromkeys(("end_id", "pad_id", "top_k", "min_tokens", "beam_width", "num_return_sequences"), "INT32 1?"),
    **dict.fromkeys(("temperature", "top_p", "length_penalty", "repetition_penalty"), "FP32 1?"),
    **dict.fromkeys(("presence_penalty", "frequency_penalty"), "FP32 1?"),
    **dict.fromkeys(("stream", "exclude_input_in_output", "return_log_probs", "return_context_logits"), "BOOL 1?"),
    **dict.fromkeys(("return_generation_logits", "return_perf_metrics"), "BOOL 1?"),
    **dict.fromkeys(("return_num_input_tokens", "return_num_output_tokens"), "BOOL 1?"),
    "seed": "UINT64 1?",
    "bad_words": "STRING -1?",
    "stop_words": "STRING -1?",
}
_TIMES = dict.fromkeys(
    ("arrival_time_ns", "first_scheduled_time_ns", "first_token_time_ns", "last_token_time_ns"), "INT64 1"
)
_OUTPUTS: Fields = {
    "text_output": "STRING -1",
    "cum_log_probs": "FP32 -1",
    "output_log_probs": "FP32 -1,-1",
    "context_logits": "FP32 -1,-1",
    "generation_logits": "FP32 -1,-1,-1",
    **dict.fromkeys(("batch_index", "sequence_index"), "INT32 1"),
    **dict.fromkeys(("kv_cache_alloc_new_blocks", "kv_cache_reused_blocks", "kv_cache_alloc_total_blocks"), "INT32 1"),
    **_TIMES,
    "acceptance_rate": "FP32 1",
    **dict.fromkeys(("total_accepted_draft_tokens", "total_draft_tokens"), "INT32 1"),
    **dict.fromkeys(("num_input_tokens", "num_output_tokens"), "INT32 1"),
}
_LLMAPI_INPUTS: Fields = {
    "text_input": "STRING -1",
    "streaming": "BOOL 1?",
    **{f"sampling_param_{name}": "INT32 1?" for name in ("best_of", "top_k", "max_tokens")},
    **{
        f"sampling_param_{name}": "FP32 1?"
        for name in ("temperature", "top_p", "frequency_penalty", "presence_penalty")
    },
    "sampling_param_stop": "STRING -1?",
    "sampling_param_seed": "UINT64 1?",
    "sampling_param_exclude_input_from_output": "BOOL 1?",
    "sampling_param_return_perf_metrics": "BOOL 1?",
    **dict.fromkeys(("return_finish_reason", "return_stop_reason", "return_cumulative_logprob", "stop"), "BOOL 1?"),
}
_LLMAPI_OUTPUTS: Fields = {
    **dict.fromkeys(("text_output", "finish_reason", "stop_reason"), "STRING -1"),
    "cumulative_logprob": "FP32 -1",
    **dict.fromkeys(("kv_cache_reused_block", "kv_cache_missed_block"), "INT32 -1"),
    **dict.fromkeys(("kv_cache_alloc_new_blocks", "kv_cache_alloc_total_blocks"), "INT32 -1"),
    "kv_cache_hit_rate": "FP32 -1",
    **_TIMES,
    "acceptance_rate": "FP32 1",
    **dict.fromkeys(("total_accepted_draft_tokens", "total_draft_tokens"), "INT32 1"),
}

# What the stand-in wants to know -> the tensor that tells it.
_NAMES = {
    "text": "text_input",
    "length": "max_tokens",
    "least": "min_tokens",
    "end_id": "end_id",
    "stream": "stream",
    "bad_words": "bad_words",
    "count_input": "return_num_input_tokens",
    "count_output": "return_num_output_tokens",
    "text_output": "text_output",
}
_LLMAPI_NAMES = {
    "text": "text_input",
    "length": "sampling_param_max_tokens",
    "stream": "streaming",
    "tell_finish": "return_finish_reason",
    "text_output": "text_output",
}
# An ensemble maps its own names onto its steps'; the engine of the real one has names of its own too.
_IN_ENGINE = {
    "text_input": "QUERY",
    "max_tokens": "request_output_len",
    "stream": "streaming",
    "top_k": "runtime_top_k",
    "text_output": "OUTPUT",
}


def write(folder: Path, tokenizer: Path) -> None:
    """Both deployments, `folder`/inflight and `folder`/llmapi."""
    engine = {_IN_ENGINE.get(name, name): kind for name, kind in _INPUTS.items()}
    outputs = {_IN_ENGINE.get(name, name): kind for name, kind in _OUTPUTS.items()}
    names = {what: _IN_ENGINE.get(name, name) for what, name in _NAMES.items()}
    inflight, llmapi = folder / "inflight", folder / "llmapi"
    _model(inflight, "tensorrt_llm", engine, outputs, {"names": json.dumps(names), "tokenizer": str(tokenizer)})
    _ensemble(inflight)
    whole = {"names": json.dumps(_NAMES), "tokenizer": str(tokenizer), "accumulate_tokens": "true"}
    _model(inflight, "tensorrt_llm_bls", _INPUTS, _OUTPUTS, whole)
    free = {"names": json.dumps(_LLMAPI_NAMES), "tokenizer": str(tokenizer), "end_is_free": "true"}
    _model(llmapi, "tensorrt_llm", _LLMAPI_INPUTS, _LLMAPI_OUTPUTS, free | {"accumulate_tokens": "true"})


def _model(repository: Path, name: str, inputs: Fields, outputs: Fields, parameters: Mapping[str, str]) -> None:
    """One that the Python backend runs, streaming any number of responses to a request."""
    version = repository / name / "1"
    version.mkdir(parents=True)
    shutil.copyfile(ENGINE, version / "model.py")
    told = {**parameters, "max_seq_len": str(CONTEXT_TOKENS)}
    lines = [
        'backend: "python"',
        "model_transaction_policy { decoupled: True }",
        "instance_group [ { count: 1 kind: KIND_CPU } ]",
        *(
            f"parameters {{ key: {_text(key)} value {{ string_value: {_text(value)} }} }}"
            for key, value in told.items()
        ),
    ]
    _config(repository / name, inputs, outputs, lines)


def _ensemble(repository: Path) -> None:
    """The engine is its only step."""
    (repository / "ensemble" / "1").mkdir(parents=True)
    maps = [_map("input_map", name) for name in _INPUTS] + [_map("output_map", name) for name in _OUTPUTS]
    step = ['model_name: "tensorrt_llm"', "model_version: -1", *maps]
    lines = ['platform: "ensemble"', "ensemble_scheduling { step [ {", *step, "} ] }"]
    _config(repository / "ensemble", _INPUTS, _OUTPUTS, lines)


def _map(kind: str, name: str) -> str:
    return f"{kind} {{ key: {_text(_IN_ENGINE.get(name, name))} value: {_text(name)} }}"


def _config(folder: Path, inputs: Fields, outputs: Fields, lines: Sequence[str]) -> None:
    fields = [f"{kind} [\n{_fields(told)}\n]" for kind, told in (("input", inputs), ("output", outputs))]
    text = "\n".join([f"name: {_text(folder.name)}", "max_batch_size: 16", *lines, *fields, ""])
    (folder / "config.pbtxt").write_text(text, encoding="utf-8")


def _fields(told: Fields) -> str:
    rows = []
    for name, kind in told.items():
        type_, dims = kind.removesuffix("?").split(" ")
        optional = " optional: true" if kind.endswith("?") else ""
        rows.append(f"  {{ name: {_text(name)} data_type: TYPE_{type_} dims: [ {dims} ]{optional} }}")
    return ",\n".join(rows)


def _text(value: str) -> str:
    """A string of protobuf's text format; JSON's escapes are among its own."""
    return json.dumps(value)

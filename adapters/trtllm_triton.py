"""TensorRT-LLM behind Triton: /v2/models/{model}/generate_stream, with the inputs that the model at hand declares.

From Triton's src/http_server.cc and TensorRT-LLM's triton_backend: all_models/inflight_batcher_llm (ensemble,
tensorrt_llm_bls), all_models/llmapi (tensorrt_llm with other names), inflight_batcher_llm/src (counts, metrics).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any, Self
from urllib.parse import quote

import msgspec

from servemark.adapters.base import BaseAdapter, excerpt, json_answer, post_json, prometheus, text_of
from servemark.adapters.trtllm_responses import ResponseDecoder
from servemark.harness.errors import BadInput
from servemark.harness.types import (
    Decoder,
    Endpoint,
    HttpRequest,
    Launcher,
    MetricsSource,
    Options,
    Probe,
    Promises,
    Request,
    ServerFacts,
    Signature,
)

# What we have to say -> the inputs that take it: of the engine's own models (an older name last), or of the LLM API's.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "length": ("max_tokens", "sampling_param_max_tokens"),
    "stream": ("stream", "streaming"),
    "end_id": ("end_id",),
    "least": ("min_tokens", "min_length"),
    "top_k": ("top_k", "sampling_param_top_k"),
    "top_p": ("top_p", "sampling_param_top_p"),
    "temperature": ("temperature", "sampling_param_temperature"),
    "without_prompt": ("exclude_input_in_output", "sampling_param_exclude_input_from_output"),
    "count_input": ("return_num_input_tokens",),
    "count_output": ("return_num_output_tokens",),
    "tell_finish": ("return_finish_reason",),
}
_SAMPLING = frozenset(name for what in ("top_k", "top_p", "temperature") for name in _NAMES[what])

# Of the models in TensorRT-LLM's current templates; taken for granted until a model has told its own.
_USUAL = frozenset(name for what in _NAMES if what != "tell_finish" for name in _NAMES[what][:1]) | {"text_input"}

# Steps of an ensemble, which take no text or give none.
_STEPS = frozenset({"preprocessing", "postprocessing", "multimodal_encoders"})
_ENGINE = "tensorrt_llm"
_FRONTS = ("ensemble", "tensorrt_llm_bls", _ENGINE)

_BLOCKS = "nv_trt_llm_kv_cache_block_metrics"
_NOTES = {
    "waiting": "requests that the engine has taken in and does not work on",
    "requests_failed": "those that were given up or refused are among them",
    "prompt_tokens": "counted when a request ends",
    "generation_tokens": "counted when a request ends",
    "ttft": "from Triton's taking the request up to its first response",
    "e2e": "Triton's time for a request; those that failed are not in it",
}


def metrics_of(fronts: Sequence[str], ensembles: Sequence[str] = ("ensemble",)) -> dict[str, tuple[str, ...]]:
    """Each model counts for itself, an ensemble's steps too: `fronts` are those that requests may be sent to.

    Of an ensemble Triton times the whole stream. Of a model of the Python backend it does not.
    """

    def of(models: Sequence[str], name: str, label: str = "", over: str = "") -> tuple[str, ...]:
        return tuple(f'{name}{{model="{_escaped(model)}"{label}}}{over}' for model in models)

    finished, failed = "nv_inference_request_success", "nv_inference_request_failure"
    first = "nv_inference_first_response_histogram_ms"
    timed = [front for front in fronts if front in ensembles]
    return {
        "running": ('nv_trt_llm_request_metrics{request_type="scheduled"}',),
        "waiting": ('nv_trt_llm_request_metrics{request_type="waiting"}', "max(nv_inference_pending_request_count)"),
        "kv_usage": (
            f'max({_BLOCKS}{{kv_cache_block_type="fraction"}})',
            f'{_BLOCKS}{{kv_cache_block_type="used"}} / {_BLOCKS}{{kv_cache_block_type="max"}}',
        ),
        "prompt_tokens": ("nv_llm_input_token_len_sum",),
        "generation_tokens": ("nv_llm_output_token_len_sum",),
        "requests_finished": ("nv_llm_output_token_len_count", *of(fronts, finished)),
        "requests_failed": of(fronts, failed),
        "requests_aborted": of(fronts, failed, ',reason="CANCELED"'),
        "requests_rejected": of(fronts, failed, ',reason="REJECTED"'),
        "ttft_sum": of(fronts, f"{first}_sum", over=" / 1e3"),
        "ttft_count": of(fronts, f"{first}_count"),
        "e2e_sum": of(timed, "nv_inference_request_duration_us", over=" / 1e6"),
        "e2e_count": of(timed, finished),
        "iterations": ('nv_trt_llm_general_metrics{general_type="iteration_counter"}',),
    }


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"')


def _metrics(names: Mapping[str, tuple[str, ...]]) -> MetricsSource:
    return prometheus("/metrics", names, port=8002, notes=_NOTES)


def _read_health(status: int, body: bytes) -> Mapping[str, Any]:
    if status == 404:
        raise ValueError("it answers 404 to /v2/health/ready, which Triton has; is the address right?")
    return {"ready": status == 200}


def _read_server(status: int, body: bytes) -> Mapping[str, Any]:
    about = json_answer("/v2", status, body)
    if about.get("name") != "triton":
        raise ValueError("its answer to /v2 is not Triton's")
    return {"engine": "triton", "version": about.get("version")}


def _is_triton(status: int, body: bytes) -> bool:
    try:
        _read_server(status, body)
    except ValueError:
        return False
    return True


def _read_index(status: int, body: bytes) -> Mapping[str, Any]:
    """What is served, and which of it takes text: the ensemble goes before its parts."""
    try:
        index = msgspec.json.decode(body, type=list[dict[str, Any]]) if status == 200 else []
    except ValueError:
        index = []
    ready = dict.fromkeys(str(model["name"]) for model in index if model.get("state", "READY") == "READY")
    models = tuple(name for name in ready if name not in _STEPS)
    return {"models": models, "default_model": next((name for name in _FRONTS if name in models), None)}


def _read_model(model: str, status: int, body: bytes) -> Mapping[str, Any]:
    if status != 200:
        raise ValueError(f"the model {model} is not ready ({status}: {excerpt(body)}); see that Triton has loaded it")
    return {}


def _read_config(model: str, status: int, body: bytes) -> Mapping[str, Any]:
    """ValueError where this model cannot stream text for text, of a length that is asked for."""
    config = json_answer(f"/v2/models/{model}/config", status, body)
    inputs, outputs = _declared(config, "input"), _declared(config, "output")
    missing = {"text_input", "text_output"} - inputs - outputs
    if inputs.isdisjoint(_NAMES["length"]):
        missing.add("max_tokens")
    if missing:
        raise ValueError(
            f"the model {model} has no {', no '.join(sorted(missing))}, as TensorRT-LLM's have that take text; "
            "name the ensemble or tensorrt_llm_bls with --model"
        )
    served_by = config.get("platform") or config.get("backend")
    if served_by != "ensemble":
        _refuse_whole(model, config)
    settings = {
        "inputs": sorted(inputs),
        "served_by": served_by,
        "max_batch_size": config.get("max_batch_size"),
        "accumulate_tokens": _parameter(config, "accumulate_tokens"),
    }
    return {"settings": {name: value for name, value in settings.items() if value is not None}}


def _read_engine(status: int, body: bytes) -> Mapping[str, Any]:
    """Of the step of the usual ensemble that has the engine, where it has its usual name."""
    if status == 200:
        _refuse_whole(_ENGINE, json_answer(f"/v2/models/{_ENGINE}/config", status, body))
    return {}


def _refuse_whole(model: str, config: Mapping[str, Any]) -> None:
    policy = config.get("model_transaction_policy")
    if not isinstance(policy, dict) or policy.get("decoupled") is not True:
        raise ValueError(f"the model {model} is not decoupled, so it gives no streams; serve it with decoupled: true")


def _declared(config: Mapping[str, Any], kind: str) -> frozenset[str]:
    fields = config.get(kind)
    return frozenset(str(field.get("name")) for field in fields) if isinstance(fields, list) else frozenset()


def _parameter(config: Mapping[str, Any], name: str) -> str | None:
    """Of the model, where it is set: a template's own mark is left in its place where it is not."""
    parameters = config.get("parameters")
    told = parameters.get(name) if isinstance(parameters, dict) else None
    value = told.get("string_value") if isinstance(told, dict) else None
    return None if not value or str(value).startswith("${") else str(value)


def _command(words: Sequence[str], host: str, port: int) -> Sequence[str]:
    """Its metrics stay at their own port, where they are looked for."""
    repository = () if words and words[0].startswith("-") else ("--model-repository",)
    addresses = ("--http-address", host, "--http-port", str(port), "--allow-grpc", "false")
    return ("tritonserver", *repository, *words, *addresses)


class TrtllmTritonAdapter(BaseAdapter):
    name = "trtllm-triton"
    about = "TensorRT-LLM behind NVIDIA's Triton Inference Server"
    default_url = "http://localhost:8000"
    endpoints: tuple[Endpoint, ...] = ("generate",)
    metrics: tuple[MetricsSource, ...] = (_metrics(metrics_of(_FRONTS)),)
    launcher = Launcher(_command)
    signature = Signature(HttpRequest("GET", "/v2"), _is_triton)
    inputs: frozenset[str] = _USUAL

    def probes(self) -> Sequence[Probe]:
        index = post_json("/v2/repository/index", {"ready": True})
        return (
            Probe("readiness", HttpRequest("GET", "/v2/health/ready"), _read_health, required=True),
            Probe("server", HttpRequest("GET", "/v2"), _read_server, required=True),
            Probe("models", index, _read_index),
        )

    def model_probes(self, model: str) -> Sequence[Probe]:
        path = f"/v2/models/{quote(model, safe='')}"
        engine = Probe("engine", HttpRequest("GET", f"/v2/models/{_ENGINE}/config"), _read_engine)
        return (
            Probe("model", HttpRequest("GET", f"{path}/ready"), partial(_read_model, model), required=True),
            Probe("inputs", HttpRequest("GET", f"{path}/config"), partial(_read_config, model), required=True),
            *((engine,) if model == "ensemble" else ()),
        )

    def settled(self, facts: ServerFacts, model: str) -> Self:
        known = copy(self)
        known.inputs = frozenset(facts.settings.get("inputs", self.inputs))
        whole = facts.settings.get("served_by") == "ensemble"
        known.metrics = (_metrics(metrics_of((model,), (model,) if whole else ())),)
        return known

    def promises(self, endpoint: Endpoint) -> Promises:
        counted = self._name("count_output") is not None
        return Promises(
            fixed_length=self._name("end_id") is not None or self._name("least") is not None,
            exact_counts=counted,
            cached_tokens=False,
            per_chunk_counts=counted,
            token_id_prompts=False,
        )

    def encode(self, request: Request, options: Options) -> HttpRequest:
        """Only inputs that the model has: another name would become a parameter of the request without a word."""
        prompt = text_of(request)
        if not isinstance(prompt, str):
            raise BadInput("trtllm-triton takes no token ids; take a prompt source that gives text")
        said: dict[str, Any] = {"stream": True, "without_prompt": True, "count_input": True, "count_output": True}
        said |= {"tell_finish": True, "length": request.asked_output_tokens}
        if options.extra_body.keys().isdisjoint(_SAMPLING):  # who says one of them says all
            said |= _sampling(options)
        if options.force_output_length:
            said |= self._forced(request.asked_output_tokens)
        named = {name: value for what, value in said.items() if value is not None and (name := self._name(what))}
        body = {"text_input": prompt, **named, **options.extra_body}
        if not body.keys() & set(_NAMES["length"]):
            raise BadInput("trtllm-triton needs the length of each answer; give the workload output lengths")
        return post_json(f"/v2/models/{quote(options.model, safe='')}/generate_stream", body)

    def _forced(self, length: int | None) -> dict[str, Any]:
        """An end token that no token is, as TensorRT-LLM ignores the end itself; else a least length."""
        return {"end_id": -1} if self._name("end_id") else {"least": length}

    def _name(self, what: str) -> str | None:
        return next((name for name in _NAMES[what] if name in self.inputs), None)

    def decoder(self, endpoint: Endpoint) -> Decoder:
        return ResponseDecoder()


def _sampling(options: Options) -> dict[str, Any]:
    """Greedy is top_k 1: a temperature of 0 is refused by older engines.

    To sample at all the engine wants top_k or top_p: without both it is greedy at any temperature.
    """
    if options.temperature == 0:
        return {"top_k": 1}
    top_p = options.top_p
    if options.temperature is None:
        return {} if top_p is None else {"top_p": float(top_p)}
    return {"temperature": float(options.temperature), "top_p": 1.0 if top_p is None else float(top_p)}


ADAPTER = TrtllmTritonAdapter()

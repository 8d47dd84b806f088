"""TensorRT-LLM behind Triton: generate and generate_stream of the models `ensemble` and `tensorrt_llm_bls`.

After Triton's src/http_server.cc and TensorRT-LLM's triton_backend (all_models/inflight_batcher_llm, and
inflight_batcher_llm/src for counts and metrics); what is refused, and how, as a Triton 2.51 answered. A stream has no
end marker, no reason to finish and no usage; what fails before the first token has a status other than 200.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from servemark.adapters.sim.asking import Asked
from servemark.adapters.sim.connection import Exchange
from servemark.adapters.sim.dialect import (
    PROMETHEUS,
    VERSION,
    Dialect,
    Direct,
    Generated,
    Route,
    respond_empty,
    respond_json,
)
from servemark.adapters.sim.dialects.trtllm_triton.metrics import Figures, metrics_text
from servemark.adapters.sim.dialects.trtllm_triton.models import (
    BLS,
    FRONTS,
    INPUTS,
    OUTPUTS,
    PARTS,
    error_body,
    failed_first,
    inputs_of,
    refusal,
)
from servemark.adapters.sim.dialects.trtllm_triton.writing import ResponseWriter
from servemark.adapters.sim.simulation import Simulation
from servemark.adapters.sim.tokenizer import EOS
from servemark.harness.errors import BadInput

_PLAIN: Final = "text/plain"
_MODEL_PATH: Final = re.compile(
    r"/v2/models/([^/]+)(?:/versions/([^/]+))?(?:/(ready|config|generate|generate_stream))?"
)


class TrtllmTritonDialect(Dialect):
    not_found = b'{"error":"Not Found"}'
    not_allowed = b'{"error":"Method Not Allowed"}'

    def __init__(self, sim: Simulation) -> None:
        super().__init__(sim)
        if sim.options.served_model_name:
            raise BadInput(
                "--served-model-name: with --dialect trtllm-triton the models are ensemble and tensorrt_llm_bls; "
                "leave it out"
            )
        self.figures = {front: Figures() for front in FRONTS}
        self.routes = {
            "/v2": Direct(self._server),
            "/v2/health/ready": Direct(_ready),
            "/v2/health/live": Direct(_ready),
            "/v2/repository/index": Direct(self._index, ("POST",)),
            "/metrics": Direct(
                lambda exchange: exchange.respond(200, metrics_text(self.sim, self.figures), PROMETHEUS)
            ),
        }

    def route(self, path: str) -> Route | None:
        found = _MODEL_PATH.fullmatch(path)
        if found is None:
            return super().route(path)
        model, version, what = found[1], found[2], found[3] or ""
        if what.startswith("generate"):
            stream = what == "generate_stream"
            return Generated(lambda body, _: self._read(body, model, version, stream))
        if what == "ready":
            return Direct(lambda exchange: self._model_ready(exchange, model, version))
        return Direct(lambda exchange: self._about_model(exchange, model, version, what == "config"))

    def failure(self, status: int) -> bytes:
        return error_body("simulated fault")

    # -- asking

    def _read(self, body: bytes, model: str, version: str | None, stream_route: bool) -> Asked:
        self._check_model(model, version)
        inputs = inputs_of(body, INPUTS if model in FRONTS else PARTS[model][0], model)
        text, wanted = inputs.get("text_input"), inputs.get("max_tokens")
        if text is None or wanted is None:
            self.figures[model].failures["OTHER"] += 1
            raise failed_first(400, model, "inputs 'text_input' and 'max_tokens' are required")
        stream = bool(inputs.get("stream", False))
        if stream and not stream_route:
            # A 200, whatever it says.
            raise refusal(
                200,
                "generate expects model to produce exactly 1 response, use generate stream for model that generates "
                "various number of responses",
            )
        prompt = self.sim.tokenizer.ids(text)
        if not prompt or len(prompt) >= self.sim.context:
            self.figures[model].failures["OTHER"] += 1
            limit = self.sim.context - 1
            problem = f"Prompt length ({len(prompt)}) exceeds maximum input length ({limit})"
            if not prompt:
                problem = "Prompt is empty"
            raise failed_first(500, model, f"Executor failed process requestId 1 due to the following error: {problem}")
        if wanted < 1:
            raise failed_first(400, model, f"max_tokens must be at least 1, got {wanted}")
        writer = ResponseWriter(self.sim, self.figures[model], model, stream, stream_route, text, len(prompt), inputs)
        end_id = inputs.get("end_id")
        return Asked(
            prompt=prompt,
            max_tokens=min(wanted, self.sim.context - len(prompt)),  # what is too long is cut off
            writer=writer,
            min_tokens=inputs.get("min_tokens", 0),
            ignore_eos=end_id is not None and end_id != EOS,
            seed=inputs.get("seed", 0),
        )

    def _check_model(self, model: str, version: str | None) -> None:
        if model not in (*FRONTS, *PARTS):
            raise refusal(404, f"Request for unknown model: '{model}' is not found")
        if version not in (None, "1"):
            raise refusal(404, f"Request for unknown model: '{model}' version {version} is not found")

    # -- the other routes

    def _server(self, exchange: Exchange) -> None:
        extensions = ("sequence", "model_repository", "schedule_policy", "model_configuration", "parameters")
        respond_json(exchange, {"name": "triton", "version": VERSION, "extensions": [*extensions, "statistics"]})

    def _index(self, exchange: Exchange) -> None:
        models = [{"name": name, "version": "1", "state": "READY"} for name in (*FRONTS, *PARTS)]
        respond_json(exchange, models)

    def _model_ready(self, exchange: Exchange, model: str, version: str | None) -> None:
        if model in (*FRONTS, *PARTS) and version in (None, "1"):
            respond_empty(exchange)
        else:
            exchange.respond(400, error_body("Model version not ready"), _PLAIN)

    def _about_model(self, exchange: Exchange, model: str, version: str | None, config: bool) -> None:
        self._check_model(model, version)
        inputs, outputs = (INPUTS, OUTPUTS) if model in FRONTS else PARTS[model]
        platform = "ensemble" if model == "ensemble" else ""
        if not config:
            shapes = [
                [{"name": name, "datatype": type_, "shape": [-1, -1]} for name, type_ in of.items()]
                for of in (inputs, outputs)
            ]
            about = {"name": model, "versions": ["1"], "platform": platform}
            respond_json(exchange, {**about, "inputs": shapes[0], "outputs": shapes[1]})
            return
        told: dict[str, Any] = {"name": model, "platform": platform, "backend": _backend(model)}
        told |= {"max_batch_size": self.sim.options.max_num_seqs}
        told |= {"input": _declared(inputs, optional=True), "output": _declared(outputs, optional=False)}
        told |= {"model_transaction_policy": {"decoupled": model != "preprocessing"}}
        respond_json(exchange, told | {"parameters": self._parameters(model)})

    def _parameters(self, model: str) -> dict[str, dict[str, str]]:
        if model != BLS:
            return {}
        return {"accumulate_tokens": {"string_value": str(self.sim.options.accumulate_tokens).lower()}}


def _ready(exchange: Exchange) -> None:
    exchange.respond(200, b"", _PLAIN)


def _backend(model: str) -> str:
    return {"ensemble": "", "tensorrt_llm": "tensorrtllm"}.get(model, "python")


def _declared(of: Mapping[str, str], optional: bool) -> list[dict[str, Any]]:
    required = list(of)[:2] if optional else list(of)
    return [
        {"name": name, "data_type": f"TYPE_{type_}", "dims": [-1], "optional": name not in required}
        for name, type_ in of.items()
    ]


DIALECT = TrtllmTritonDialect

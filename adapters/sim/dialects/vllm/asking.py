"""Reads the body of a generation request as vLLM does: what is asked, or the refusal it would send."""

from __future__ import annotations

from typing import Final

import msgspec

from servemark.adapters.sim.asking import Asked, Fields, Refusal, json_object
from servemark.adapters.sim.dialects.vllm.writing import ChunkWriter, Form
from servemark.adapters.sim.simulation import Simulation
from servemark.harness.types import Endpoint

_COMPLETIONS_MAX_TOKENS: Final = 16


def error_body(message: str, type_: str, param: str | None, code: int) -> bytes:
    error = {"message": message, "type": type_, "param": param, "code": code}
    return msgspec.json.encode({"error": error})


def refusal(message: str, param: str | None = None, status: int = 400, type_: str = "BadRequestError") -> Refusal:
    return Refusal(status, error_body(message, type_, param, status))


def _wrong(name: str, problem: str) -> Refusal:
    if not name:
        return refusal(problem)
    if name == "prompt":
        return refusal(f"{problem} (parameter=prompt)", "prompt")
    message = f"1 validation error:\n  {{'loc': 'body.{name}', 'msg': '{problem}'}}"
    return refusal(message, f"body.{name}", type_="Bad Request")


def fields_of(body: bytes, sim: Simulation) -> Fields:
    """Of a body that names this model, or none."""
    try:
        fields = Fields(json_object(body), _wrong)
    except ValueError as error:
        raise refusal(f"1 validation error:\n  {error}", "body", type_="Bad Request") from None
    model = fields.values.get("model")
    if model is not None and model != sim.model:
        message = f"The model `{model}` does not exist. Valid aliases: {sim.model}."
        raise refusal(message, "model", 404, "NotFoundError")
    return fields


def read_asked(sim: Simulation, endpoint: Endpoint, body: bytes, id_: str) -> Asked:
    fields = fields_of(body, sim)
    stream, options = fields.flag("stream"), fields.part("stream_options")
    if options.values and not stream:
        raise refusal(
            "Stream options can only be defined when `stream=True`. (parameter=stream_options)", "stream_options"
        )
    if fields.integer("n", 1) != 1:
        raise refusal("the simulated server gives one choice per request; n must be 1 (parameter=n)", "n")
    prompt = fields.prompt("prompt", sim.tokenizer) if endpoint == "completions" else fields.chat(sim.tokenizer)
    max_tokens = _max_tokens(endpoint, fields, len(prompt), sim.context)
    min_tokens = fields.integer("min_tokens", 0)
    if min_tokens > max_tokens:
        raise refusal(f"min_tokens must be less than or equal to max_tokens={max_tokens}, got {min_tokens}.")
    form = Form(
        endpoint=endpoint,
        stream=stream,
        prompt=prompt,
        include_usage=options.flag("include_usage"),
        continuous_usage=options.flag("include_usage") and options.flag("continuous_usage_stats"),
        return_token_ids=fields.flag("return_token_ids"),
    )
    return Asked(
        prompt=prompt,
        max_tokens=max_tokens,
        writer=ChunkWriter(form, id_, sim.model, sim.options.enable_prompt_tokens_details),
        min_tokens=min_tokens,
        ignore_eos=fields.flag("ignore_eos"),
        seed=fields.integer("seed", 0),
        cache_salt=fields.text("cache_salt"),
    )


def _max_tokens(endpoint: Endpoint, fields: Fields, prompt: int, context: int) -> int:
    room = context - prompt
    length = f"This model's maximum context length is {context} tokens. However, "
    if room < 1:
        raise refusal(
            f"{length}your prompt contains {prompt} input tokens and needs room for at least one more. "
            f"(parameter=input_tokens, value={prompt})",
            "input_tokens",
        )
    default = room if endpoint == "chat" else min(_COMPLETIONS_MAX_TOKENS, room)
    wanted = fields.integer("max_tokens", default)
    if endpoint == "chat":
        wanted = fields.integer("max_completion_tokens", wanted)
    if wanted < 1:
        raise refusal(
            f"max_tokens must be at least 1, got {wanted}. (parameter=max_tokens, value={wanted})", "max_tokens"
        )
    if wanted > room:
        raise refusal(
            f"{length}you requested {wanted} output tokens and your prompt contains {prompt} input tokens. "
            f"(parameter=max_tokens, value={wanted})",
            "max_tokens",
        )
    return wanted

"""The router's reading and checks of a request, in its order."""

from __future__ import annotations

from servemark.adapters.sim.asking import Fields, Refusal, json_object
from servemark.adapters.sim.dialects.tgi.events import Form, error, error_event, headers
from servemark.adapters.sim.dialects.tgi.metrics import Figures
from servemark.adapters.sim.simulation import Simulation
from servemark.adapters.sim.writer import EVENT_STREAM


def unreadable(name: str, problem: str) -> Refusal:
    """Of the body's types, before TGI looks at what it asks."""
    where = f"{name}: " if name else ""
    text = f"Failed to deserialize the JSON body into the target type: {where}{problem}"
    return Refusal(422, text.encode(), "text/plain; charset=utf-8")


def fields_of(body: bytes) -> Fields:
    try:
        return Fields(json_object(body), unreadable)
    except ValueError as why:
        text = f"Failed to parse the request body as JSON: {why}"
        raise Refusal(400, text.encode(), "text/plain; charset=utf-8") from None


def inputs_of(fields: Fields, name: str = "inputs") -> str:
    inputs = fields.values.get(name)
    if not isinstance(inputs, str):
        raise unreadable("", f"missing field `{name}`")
    return inputs


class Take:
    """The checks of one request; what they raise is told as the route tells it."""

    def __init__(self, sim: Simulation, figures: Figures, form: Form, stream: bool, parameters: Fields) -> None:
        self._sim, self._figures = sim, figures
        self._form = form
        self._stream = stream
        self._parameters = parameters
        figures.requests += 1

    def invalid(self, problem: str) -> Refusal:
        return self._refusal(422, f"Input validation error: {problem}", "validation")

    def check_load(self) -> None:
        """A request over the limit fails at once, it never waits."""
        engine, limit = self._sim.engine, self._sim.options.max_concurrent_requests
        if len(engine.running) + len(engine.waiting) >= limit:
            raise self._refusal(429, "Model is overloaded", "overloaded")

    def check_sampling(self, greedy_at_zero: bool) -> None:
        temperature = self._number("temperature")
        if temperature is not None and temperature <= 0 and not (greedy_at_zero and temperature == 0):
            raise self.invalid("`temperature` must be strictly positive")
        top_p = self._number("top_p")
        if top_p is not None and not 0 < top_p < 1:
            raise self.invalid("`top_p` must be > 0.0 and < 1.0")
        top_k = self._number("top_k")
        if top_k is not None and top_k <= 0:
            raise self.invalid("`top_k` must be strictly positive")

    def length(self, prompt: list[int], wanted: int) -> int:
        context = self._sim.context
        if not prompt:
            raise self.invalid("`inputs` cannot be empty")
        if len(prompt) >= context:
            raise self.invalid(f"`inputs` must have less than {context - 1} tokens. Given: {len(prompt)}")
        if wanted < 1:
            raise self.invalid("`max_new_tokens` must be strictly positive")
        if len(prompt) + wanted > context:
            raise self.invalid(
                f"`inputs` tokens + `max_new_tokens` must be <= {context}. Given: {len(prompt)} `inputs` tokens and "
                f"{wanted} `max_new_tokens`"
            )
        return wanted

    def _number(self, name: str) -> float | None:
        value = self._parameters.values.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise unreadable(name, "invalid type, expected a number")
        return value

    def _refusal(self, status: int, message: str, type_: str) -> Refusal:
        self._figures.failures[type_] += 1
        if not self._stream:
            return Refusal(status, error(message, type_))
        told = error_event(self._form, message, type_)
        return Refusal(200, told, EVENT_STREAM, headers(0), stream=True)

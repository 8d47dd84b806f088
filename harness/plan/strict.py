"""What every model of the workload file is built from: the strict base and the types that carry units."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain
from typing import Annotated, Any, Generic, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from servemark.harness.registry import Registry
from servemark.harness.units import (
    DURATION_PATTERN,
    RATE_PATTERN,
    format_duration,
    format_rate,
    parse_duration,
    parse_rate,
)


class Strict(BaseModel):
    """Refuses unknown keys and silent conversions; values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


M = TypeVar("M", bound=Strict)

_DURATION_SCHEMA = {"type": "string", "pattern": DURATION_PATTERN, "examples": ["200ms", "60s", "2m"]}

Duration = Annotated[
    int,
    BeforeValidator(lambda value: parse_duration(value)),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(_DURATION_SCHEMA),
]
"""Nanoseconds, written with a unit."""

PositiveDuration = Annotated[Duration, Field(gt=0)]

Rate = Annotated[
    float,
    PlainValidator(parse_rate),
    PlainSerializer(format_rate),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": RATE_PATTERN}]}),
]
"""Requests per second; `inf` is allowed."""

MOST = 10**9
"""Of anything that is counted in a workload."""

Count = Annotated[int, Field(ge=1, le=MOST)]


@dataclass(frozen=True, slots=True)
class Warmup:
    """How long requests do not count: a time, or a number of requests; both 0 is none."""

    duration_ns: int = 0
    requests: int = 0


def parse_warmup(value: object) -> Warmup:
    """A `Warmup` of `10s` or of a whole number of requests. Raises ValueError."""
    if isinstance(value, Warmup):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ValueError(f"{value} requests cannot be sent; write a duration such as 10s, or a count")
        if value > MOST:
            raise ValueError(f"{value} requests are too many to warm up with; write {MOST:,} or fewer")
        return Warmup(requests=value)
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no warm-up; write a duration such as 10s, or a count of requests")
    return Warmup(duration_ns=parse_duration(value))


def _format_warmup(warmup: Warmup) -> str | int:
    return format_duration(warmup.duration_ns) if warmup.duration_ns else warmup.requests


WarmupField = Annotated[
    Warmup,
    PlainValidator(parse_warmup),
    PlainSerializer(_format_warmup),
    WithJsonSchema({"anyOf": [_DURATION_SCHEMA, {"type": "integer", "minimum": 0}]}),
]


def either(*groups: tuple[str, ...]) -> dict[str, Any]:
    """JSON Schema of a model that has the keys of exactly one group; those of the others are left out, or null."""
    return {"oneOf": [_only(group, chain.from_iterable(groups)) for group in groups]}


def _only(group: tuple[str, ...], keys: Iterable[str]) -> dict[str, Any]:
    return {"required": list(group), "properties": {key: {"type": "null"} for key in keys if key not in group}}


def one_or_many(value: Any) -> Any:
    """A single text where a list of texts may stand."""
    if not isinstance(value, str | list | tuple):
        raise ValueError(f"needs a text or a list of texts, not {value!r:.60}")
    return (value,) if isinstance(value, str) else value


class Registered(Generic[M]):
    """Annotates a field that holds one of a registry's models, chosen by the value of the key `key`.

    The registry is read when a value is validated, so whatever was registered by then is known to the file, to its
    errors, and to the JSON Schema. `spell_out` turns shorthands into mappings; `shorthands` are their schemas. Models
    named in `without` may not stand there.
    """

    def __init__(
        self,
        registry: Registry[type[M]],
        key: str,
        spell_out: Callable[[Any], Any] = lambda value: value,
        shorthands: tuple[dict[str, Any], ...] = (),
        without: tuple[str, ...] = (),
    ) -> None:
        self.registry = registry
        self.without = without
        self.key = key
        self.spell_out = spell_out
        self.shorthands = shorthands

    def model_for(self, value: Any) -> type[M]:
        """The model that a mapping asks for. Raises ValueError, which says what there is."""
        names = ", ".join(name for name in self.registry if name not in self.without)
        if not isinstance(value, dict):
            raise ValueError(f"{value!r} holds no keys; write them below it, starting with `{self.key}:`")
        name = value.get(self.key)
        if name is None:
            raise ValueError(f"`{self.key}` is missing; add it with one of {names}")
        if not isinstance(name, str) or name not in self.registry:
            close = get_close_matches(str(name), list(self.registry), 1)
            guess = f"did you mean {close[0]}? " if close else ""
            raise at_key(self.key, f"there is no {self.registry.kind} {name!r}; {guess}there are: {names}", name)
        if name in self.without:
            raise at_key(self.key, f"a {name} cannot stand here; take one of {names}", name)
        return self.registry[name]

    def validate(self, value: Any) -> Any:
        value = self.spell_out(value)
        return value if isinstance(value, Strict) else self.model_for(value).model_validate(value)

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> Any:
        return core_schema.no_info_plain_validator_function(
            self.validate,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda model: model.model_dump(mode="json")),
        )

    def __get_pydantic_json_schema__(self, _schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        allowed = (model for name, model in self.registry.items() if name not in self.without)
        models = [handler(model.__pydantic_core_schema__) for model in allowed]
        return {"anyOf": [*self.shorthands, *models]}


def at_key(key: str, text: str, value: Any) -> ValidationError:
    """An error whose place is a key of the value that is validated, and not the value as a whole."""
    error = PydanticCustomError("value_error", "{error}", {"error": text})
    return ValidationError.from_exception_data(
        key, [InitErrorDetails(type=error, loc=(key,), input=value, ctx={"error": text})]
    )

"""The registry of families, and what finds the one of a config.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from servemark.harness.hardware.architecture import Architecture
from servemark.harness.hardware.families.fields import Fields
from servemark.harness.plaintext import one_line
from servemark.harness.registry import Registry

Build = Callable[[Fields], Architecture]

FAMILIES: Registry[Build] = Registry("model_type")

_TEXT_PARTS = ("text_config", "language_config", "llm_config")
_OUTER = ("tie_word_embeddings", "torch_dtype", "dtype", "quantization_config")
"""What the text part of a model of several may leave to the whole."""

_SENSES = ("vision_config", "audio_config", "speech_config")


def family(*model_types: str) -> Callable[[Build], Build]:
    """Registers a function for one or more `model_type`s."""

    def add(build: Build) -> Build:
        for name in model_types:
            FAMILIES.register(name)(build)
        return build

    return add


def text_fields(config: Mapping[str, Any]) -> Fields:
    """Those of the language model, which a model that also sees or hears has in a part of its own."""
    whole = Fields(config)
    inner = next((part for name in _TEXT_PARTS if (part := whole.part(name)) is not None), None)
    if inner is None:
        return whole
    outer = {name: config[name] for name in _OUTER if inner.values.get(name) is None and name in config}
    return Fields({**inner.values, **outer}, inner.where)


def left_out(config: Mapping[str, Any], fields: Fields) -> tuple[str, ...]:
    """What the model has besides, and is not counted, in a sentence each."""
    drafting = fields.maybe("num_nextn_predict_layers", least=0)
    parts = [f"its {name.removesuffix('_config')} part is not counted" for name in _SENSES if config.get(name)]
    return (*parts, *(("the layers that only draft further tokens are not counted",) if drafting else ()))


def architecture_of(fields: Fields) -> Architecture:
    """Raises ValueError with a sentence that says what is not known, or lacking."""
    kind = fields.text("model_type")
    if kind is None:
        raise ValueError(f"{fields.where} lacks model_type; it must be the config.json of a Hugging Face model")
    if kind not in FAMILIES:
        raise ValueError(
            f"model_type {one_line(kind, 60)} is not known here, so neither are its weights and what its attention "
            f"keeps; known are {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[kind](fields)

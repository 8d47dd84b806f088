"""A model from its config.json: the architecture, the format of each weight, and the KV cache's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from servemark.harness.errors import BadInput
from servemark.harness.hardware.architecture import Architecture
from servemark.harness.hardware.families import Fields, architecture_of
from servemark.harness.hardware.families.base import left_out, text_fields
from servemark.harness.hardware.model import Model
from servemark.harness.hardware.quant_groups import compressed_tensors as _registered  # noqa: F401
from servemark.harness.hardware.quant_methods import quantisation_of
from servemark.harness.hardware.quantisation import KV_FORMATS, WEIGHT_FORMATS, WeightFormat, kv_format, weight_format
from servemark.harness.hardware.quantised import Quantisation, is_like, main_format, parts_of
from servemark.harness.plaintext import one_line
from servemark.harness.plan.data_files import opened

_NAME, _BESIDE = "config.json", "hf_quant_config.json"
_LARGEST = 16 << 20
_WIDTHS = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "float": "fp32"}


def load_model(path: Path, weights: str | None = None, kv: str | None = None, name: str | None = None) -> Model:
    """From a config.json or a folder with one; `weights` and `kv` are formats that it shall have instead. BadInput."""
    check_formats(weights, kv)
    file = path / _NAME if path.is_dir() else path
    try:
        config, beside = _object(file), _quant_file(file)
        quant = _object(beside) if beside.is_file() else None
        return model_of(config, quant, name or _name_of(file), str(file), weights, kv)
    except ValueError as error:
        raise BadInput(f"{one_line(str(file))}: {error}") from error


def check_formats(weights: str | None, kv: str | None) -> None:
    """BadInput for a name that no format has; it is the user's, not the file's."""
    try:
        _asked(weights, kv)
    except ValueError as error:
        raise BadInput(str(error)) from error


def _asked(weights: str | None, kv: str | None) -> tuple[WeightFormat | None, str | None]:
    """`auto` is what the file has."""
    form = None if _unsaid(weights) else weight_format(str(weights))
    return form, None if _unsaid(kv) else kv_format(str(kv))


def _unsaid(name: str | None) -> bool:
    return name is None or name.strip().lower() == "auto"


def model_of(
    config: Mapping[str, Any],
    quant: Mapping[str, Any] | None,
    name: str,
    source: str,
    weights: str | None = None,
    kv: str | None = None,
) -> Model:
    """`quant` is what a hf_quant_config.json holds. Raises ValueError with a sentence."""
    form, cache = _asked(weights, kv)
    fields = text_fields(config)
    architecture = architecture_of(fields)
    own = quantisation_of(fields, quant, _plain_of(fields))
    chosen, formats = _chosen(own, architecture, form)
    plain = chosen.plain
    cache = cache or own.kv or plain.name
    return Model(
        name=one_line(name),
        architecture=architecture,
        parts=parts_of(architecture, formats, plain),
        weights=main_format(architecture, formats, plain).name,
        kv=cache,
        kv_element_bytes=KV_FORMATS[cache],
        source=source,
        left_out=left_out(config, fields),
    )


def _chosen(
    own: Quantisation, architecture: Architecture, asked: WeightFormat | None
) -> tuple[Quantisation, tuple[WeightFormat, ...]]:
    """The file's, or what is asked for instead; what asks for the format that the file has changes nothing."""
    formats = own.formats(architecture)
    if asked is None or is_like(asked, main_format(architecture, formats, own.plain)):
        return own, formats
    other = own.instead(asked)
    return other, other.formats(architecture)


def _plain_of(fields: Fields) -> WeightFormat:
    """The width of what is not quantised; where the file is silent, the 16 bit that servers take."""
    said = fields.text("dtype") or fields.text("torch_dtype") or "bfloat16"
    name = said.removeprefix("torch.")
    if name not in _WIDTHS:
        raise ValueError(f"{fields.where}: dtype {one_line(said, 40)} is not known; known are {', '.join(_WIDTHS)}")
    return WEIGHT_FORMATS[_WIDTHS[name]]


def _quant_file(file: Path) -> Path:
    """Beside config.json, or beside x_config.json as x_hf_quant_config.json."""
    stem = file.name.removesuffix(".json").removesuffix("config")
    return file.with_name(f"{stem}{'' if stem == '' or stem.endswith('_') else '_'}{_BESIDE}")


def _name_of(file: Path) -> str:
    """Its folder's, or what stands before _config.json."""
    stem = file.name.removesuffix(".json").removesuffix("config").rstrip("_")
    return stem.replace("--", "/") or file.resolve().parent.name


def _object(file: Path) -> Mapping[str, Any]:
    with opened(file, "model's config", "give the config.json of a Hugging Face model, or the folder it is in") as data:
        text = data.read(_LARGEST + 1)
    if len(text) > _LARGEST:
        raise BadInput(f"{file}: larger than {_LARGEST >> 20} MiB, so it is no model's config")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{file}: this is no JSON ({one_line(str(error), 100)})") from error
    if not isinstance(value, dict):
        raise BadInput(f"{file}: a model's config is a JSON object, and this is none")
    return value

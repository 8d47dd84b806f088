"""Models that are known by name: facts of published config.json files, and those in the local Hugging Face cache."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from servemark.harness.errors import BadInput
from servemark.harness.hardware.config import check_formats, load_model, model_of
from servemark.harness.hardware.model import Model
from servemark.harness.plaintext import one_line

_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)

_FORMATS = {"nvfp4": "nvfp4", "mxfp4": "mxfp4", "awq": "int4-awq", "gptq": "int4-gptq", "w4a16": "int4-gptq"} | {
    word: word for word in ("fp8", "int8", "int4")
}
"""What ids of quantised copies say of their format -> its name here."""


@dataclass(frozen=True, slots=True)
class Known:
    """`hf_id` is the model's on Hugging Face, `also` are others that are made alike; `params` the published total."""

    name: str
    hf_id: str
    also: tuple[str, ...]
    params: int
    source: str
    config: Mapping[str, Any]


@cache
def _table() -> Mapping[str, Known]:
    text = files(__package__).joinpath("models.toml").read_text(encoding="utf-8")
    return {name: _known(name, entry) for name, entry in tomllib.loads(text)["models"].items()}


def _known(name: str, entry: Mapping[str, Any]) -> Known:
    also = tuple(entry.get("also", ()))
    config = {**entry["config"], **dict.fromkeys(entry.get("null", ()))}
    return Known(name, entry["hf_id"], also, entry["params"], entry["source"], config)


@cache
def _names() -> Mapping[str, str]:
    """Every name and id, in small letters -> our name."""
    return {each.lower(): name for name, known in _table().items() for each in (name, known.hf_id, *known.also)}


def known_models() -> tuple[str, ...]:
    return tuple(_table())


def known(name: str) -> Known:
    """By its name here or a Hugging Face id, in any case. Raises BadInput."""
    ours = _names().get(name.strip().lower())
    if ours is None:
        near = get_close_matches(name.lower(), _names(), 3)
        hint = f"; near it are {', '.join(near)}" if near else f"; known are {', '.join(known_models())}"
        raise BadInput(f"model {one_line(name, 100)!r} is not known here{hint}")
    return _table()[ours]


def known_model(name: str, weights: str | None = None, kv: str | None = None) -> Model:
    """Raises BadInput."""
    check_formats(weights, kv)
    facts = known(name)
    try:
        return model_of(facts.config, None, facts.name, facts.source, weights, kv)
    except ValueError as error:
        raise BadInput(f"model {facts.name}: {error}") from error


def find_model(text: str, weights: str | None = None, kv: str | None = None) -> Model:
    """Of a config.json or its folder, a known name, or a model in the local Hugging Face cache. Raises BadInput."""
    path = Path(text)
    if _exists(path):
        return load_model(path, weights, kv)
    if text.strip().lower() in _names():
        return known_model(text, weights, kv)
    cached = _cached(text)
    if cached is not None:
        return load_model(cached, weights, kv, name=text)
    raise BadInput(_tried(text))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long for a path, or with a null in it
        return False


def _tried(text: str) -> str:
    near = get_close_matches(text.lower(), _names(), 3)
    hint = f", of which near are {', '.join(near)}" if near else ""
    return (
        f"model {one_line(text, 100)!r} is neither a file or folder, nor one of the {len(known_models())} known "
        f"models{hint}, nor in the Hugging Face cache ({hub_folder()}); give the path of its config.json{_inside(text)}"
    )


def _inside(text: str) -> str:
    """Where a known name is a part of it, as in the id of a quantised copy."""
    words = text.lower()
    found = [name for name in _names() if re.search(rf"(?<![a-z0-9.]){re.escape(name)}(?![a-z0-9.])", words)]
    if not found:
        return ""
    ours, formats = _names()[max(found, key=len)], _FORMATS.items()
    weights = next((format_ for word, format_ in formats if word in words), "FORMAT")
    return f", or, for {ours} in another format, --model {ours} --dtype {weights}"


def hub_folder() -> Path:
    """Where Hugging Face's tools keep what they fetched."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if folder := os.environ.get(name):
            return Path(folder).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "huggingface" / "hub"


def _cached(text: str) -> Path | None:
    """The config.json of the main branch as it was fetched last, else of any commit."""
    if not _ID.fullmatch(text) or ".." in text:
        return None
    folder = hub_folder() / f"models--{text.replace('/', '--')}"
    try:
        commit = (folder / "refs" / "main").read_text(encoding="ascii").strip()[:100]
    except (OSError, ValueError):
        commit = ""
    main = folder / "snapshots" / commit / "config.json"
    if commit and "/" not in commit and ".." not in commit and main.is_file():
        return main
    return max(folder.glob("snapshots/*/config.json"), default=None)

"""Lists of modules as quantisations have them: names, parts of names, wildcards and expressions."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from fnmatch import translate

_FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
    "fused_qkv_a_proj_with_mqa": ("q_a_proj", "kv_a_proj_with_mqa"),
}
"""Servers name what they have put into one matrix; here each has its own."""

_TEXT_PART = re.compile(r"language_model\\?\.")
"""The part of a model that also sees, which here has no name."""

_MOST_WILD, _MOST_EXPRESSIONS = 2_000, 100
_LONGEST = 300
_UNBOUNDED = re.compile(r"[*+{]")
# What can take for ever on a short name: something repeated that repeats itself, and many repetitions in a row.
_REPEATED_GROUP = re.compile(r"\)\s*[*+{]")
_MOST_REPETITIONS = 3


class Modules:
    """Says whether a module is in a list. Raises ValueError for an expression that cannot be used."""

    def __init__(self, names: Sequence[str], where: str) -> None:
        self._plain: set[str] = set()
        self._expressions: list[re.Pattern[str]] = []
        names = tuple(dict.fromkeys(names))
        wild = sum("*" in name for name in names)
        if wild > _MOST_WILD or sum(name.startswith("re:") for name in names) > _MOST_EXPRESSIONS:
            raise ValueError(f"{where} has too many patterns; {_MOST_EXPRESSIONS} expressions can be used")
        for name in names:
            for each in _unfused(_TEXT_PART.sub("", name)):
                self._add(each, where)

    def _add(self, name: str, where: str) -> None:
        if name.startswith("re:"):
            self._expressions.append(_expression(name[3:], where))
        elif "*" in name:
            _check(name, 0, where)
            self._expressions.append(_compiled(f"{translate(name)[:-2]}(?:\\..*)?\\Z", where))
        else:
            self._plain.add(name)

    def __contains__(self, name: object) -> bool:
        """A name without wildcards stands for any run of whole parts: `lm_head`, `mlp.gate`, `model.layers.0`."""
        text = str(name)
        return any(run in self._plain for run in _runs(text)) or any(each.match(text) for each in self._expressions)


def _unfused(name: str) -> tuple[str, ...]:
    for fused, parts in _FUSED.items():
        if fused in name:
            return (name, *(name.replace(fused, part) for part in parts))
    return (name,)


def _runs(name: str) -> set[str]:
    parts = name.split(".")
    places = range(len(parts) + 1)
    return {".".join(parts[start:end]) for start in places for end in places if start < end}


def _expression(text: str, where: str) -> re.Pattern[str]:
    """It need not fit to the end of a name."""
    text = text.removesuffix(".*")
    _check(text, len(_UNBOUNDED.findall(text)), where)
    if _REPEATED_GROUP.search(text):
        raise ValueError(f"{where} has a pattern that repeats a group, which can take for ever: {_shown(text)}")
    return _compiled(text, where)


def _compiled(text: str, where: str) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what may mean something else in a later Python
            return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{where} has a pattern that cannot be read: {_shown(text)}") from error


def _check(text: str, repetitions: int, where: str) -> None:
    if len(text) > _LONGEST or repetitions > _MOST_REPETITIONS:
        raise ValueError(f"{where} has a pattern that is too long, or has too many wildcards: {_shown(text)}")


def _shown(text: str) -> str:
    return repr(text[:60])

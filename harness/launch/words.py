"""The words behind --launch: paths in them stay the caller's, and secrets in them are known and hidden."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from servemark.harness.errors import BadInput

HIDDEN = "(hidden)"
_SECRET_ENDS = {
    "apikey", "authorization", "cookie", "credentials", "hft", "key", "passphrase", "password", "secret", "token"
}  # fmt: skip
_IN_URL = re.compile(r"(?<=://)[^/\s@]+(?=@)")
_ASSIGNED = re.compile(r"(\w+)=(.+)", re.DOTALL)
_LEAST_SECRET = 8  # of what nobody called a secret: a shorter one is more likely a word
_LEAST_HIDDEN = 4  # a shorter one is no secret, and replacing it everywhere would make nonsense of a log


def split(text: str, where: str = "--launch") -> tuple[str, ...]:
    """Words as a shell would split them; there is no shell. Raises BadInput."""
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise BadInput(f"{where}: {text!r} cannot be split into words ({str(error).lower()})") from None
    if "\0" in text:
        raise BadInput(f"{where}: holds a zero byte, which no word of a command can")
    if not words:
        raise BadInput(f'{where}: is empty; give the model and the engine\'s flags, as "MODEL --max-model-len 4096"')
    return words


def settled(words: Sequence[str], folder: Path) -> tuple[str, ...]:
    """The words with absolute paths in place of relative ones: the engine runs in another folder than its caller.

    A path is what starts with ~, ./ or ../, what names a file in `folder`, and what has a slash and is there.
    """
    return tuple(_settled(word, folder) for word in words)


def _settled(word: str, folder: Path) -> str:
    if not word.startswith("-"):
        return _path(word, folder)
    flag, equals, value = word.partition("=")
    return f"{flag}={_path(value, folder)}" if equals else word


def _path(word: str, folder: Path) -> str:
    if word == "~" or word.startswith("~/"):
        return os.path.expanduser(word)
    if word in (".", "..") or word.startswith(("./", "../")):
        return os.path.normpath(folder / word)
    here = folder / word
    try:
        there = bool(word) and (here.is_file() or ("/" in word and here.exists()))
    except (OSError, ValueError):  # too long, as JSON may be, or with characters that no name has
        return word
    return str(here) if there else word


def shown(argv: Sequence[str], secrets: Sequence[str] = ()) -> str:
    """The command as a shell takes it, without what is secret."""
    said = shlex.join(word for word, _ in _parts(argv))
    for secret in secrets:
        said = said.replace(secret, HIDDEN)
    return said


def secrets_in(argv: Sequence[str]) -> tuple[str, ...]:
    """The values that `shown` hides."""
    return tuple(secret for _, secret in _parts(argv) if len(secret) >= _LEAST_HIDDEN)


def _parts(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each word as it may be shown, and the secret in it."""
    hiding = False
    for word in argv:
        flag, equals, value = word.partition("=") if word.startswith("-") else ("", "", "")
        if flag:
            hiding = is_secret_name(flag) and not equals
            if equals and is_secret_name(flag):
                yield f"{flag}={HIDDEN}", value
                continue
        elif hiding:
            yield HIDDEN, word
            continue
        elif (assigned := _ASSIGNED.fullmatch(word)) and is_secret_name(assigned[1]):
            yield f"{assigned[1]}={HIDDEN}", assigned[2]
            continue
        login = _IN_URL.search(word)
        yield (_IN_URL.sub(HIDDEN, word), login.group()) if login else (word, "")


def is_secret_name(name: str) -> bool:
    """Of a flag or a variable: --api-key, --hf-token, HF_TOKEN. Not --max-tokens, whose number is no secret."""
    return re.split(r"[-_.]", name.lower().strip("-"))[-1] in _SECRET_ENDS


def shown_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """In order of the names, without what is secret."""
    return {name: HIDDEN if is_secret_name(name) else environment[name] for name in sorted(environment)}


def secret_values(named: Mapping[str, str]) -> tuple[str, ...]:
    """Values of variables or headers with a secret's name, which an engine may say in its log."""
    values = (value for name, value in named.items() if is_secret_name(name))
    return tuple(value.removeprefix("Bearer ") for value in values if len(value) >= _LEAST_SECRET)

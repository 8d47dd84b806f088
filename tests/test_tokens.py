"""A vocabulary learnt in few calls makes prompts that the tokenizer counts exactly."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from servemark.harness.errors import BadInput
from servemark.harness.plan.tokens import (
    GUESSED_CHAT_TOKENS,
    VERIFY_TOKENS,
    NotLearnt,
    estimate,
    from_file,
    from_server,
    vocabulary_for,
    words,
)
from servemark.harness.plan.vocabulary import Composer, Vocabulary
from servemark.harness.types import HttpRequest, Tokenization

# A corpus of common words several times over, so that a small vocabulary holds many of them whole.
CORPUS = [" ".join(words()[start::7]) for start in range(7)] * 3


def _byte_level(size: int) -> Any:
    """As GPT-2, Llama 3 and Qwen: words are split at spaces, the space belongs to the word."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=size, special_tokens=["<s>"], show_progress=False)
    )
    return tokenizer


def _sentence_piece() -> Any:
    """As Llama 2 and Mistral: a space is put before the text, and BOS is added."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=2500, special_tokens=["<s>"], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return tokenizer


def _word_piece() -> Any:
    """As BERT: lower case, special tokens on both sides."""
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=800, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer


def _characters() -> Any:
    """One token a character: no word costs 1."""
    alphabet = {letter: number for number, letter in enumerate(" abcdefghijklmnopqrstuvwxyz:\n<|>")}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex("."), "isolated")
    return tokenizer


KINDS: dict[str, Callable[[], Any]] = {
    "byte-level": lambda: _byte_level(2500),
    "tiny": lambda: _byte_level(300),
    "sentencepiece": _sentence_piece,
    "wordpiece": _word_piece,
    "characters": _characters,
}
TEMPLATE = "user: {}\nassistant:"


@cache
def tokenizer_of(kind: str) -> Any:
    return KINDS[kind]()


class Server:
    """Answers as a tokenizing server does, and counts its calls."""

    def __init__(self, kind: str, longest: int | None = None, strip: bool = False) -> None:
        self.kind, self.longest, self.strip = kind, longest, strip
        self.calls = 0

    def ids(self, body: dict[str, str]) -> list[int]:
        text = body.get("prompt")
        if text is None:
            content = body["content"].strip() if self.strip else body["content"]
            text = TEMPLATE.format(content)
        found: list[int] = tokenizer_of(self.kind).encode(text).ids
        return found

    def ask(self, request: HttpRequest) -> tuple[int, bytes]:
        self.calls += 1
        ids = self.ids(json.loads(request.body))
        if self.longest is not None and len(ids) > self.longest:
            return 400, b"too long"
        return 200, json.dumps(ids).encode()


def _parse(status: int, body: bytes) -> tuple[int, ...]:
    if status != 200:
        raise ValueError(f"status {status}: {body.decode()}")
    return tuple(json.loads(body))


TOKENIZATION = Tokenization(
    of_text=lambda model, text: HttpRequest("POST", "/t", body=json.dumps({"prompt": text}).encode()),
    of_chat=lambda model, text: HttpRequest("POST", "/t", body=json.dumps({"content": text}).encode()),
    parse=_parse,
)


@cache
def learnt(kind: str, endpoint: Any) -> tuple[Vocabulary, Composer, Server]:
    server = Server(kind, strip=True)
    vocabulary = from_server(TOKENIZATION, "m", endpoint, server.ask)
    return vocabulary, Composer(vocabulary), server


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_a_vocabulary_is_learnt_in_at_most_four_calls_and_proves_exact(kind: str, endpoint: Any) -> None:
    server = Server(kind)
    vocabulary = from_server(TOKENIZATION, "m", endpoint, server.ask)
    assert vocabulary.exact, vocabulary.note
    assert vocabulary.origin == "server"
    assert server.calls <= 4
    assert len(vocabulary.pieces) == len(vocabulary.costs) >= 64


@pytest.mark.parametrize("kind", ["byte-level", "sentencepiece", "wordpiece"])
def test_words_of_one_token_are_preferred(kind: str) -> None:
    assert set(learnt(kind, "chat")[0].costs) == {1}


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(sorted(KINDS)),
    st.sampled_from(["chat", "completions"]),
    st.integers(0, 400),
    st.integers(0, 2**63 - 1),
    st.integers(0, 10**6),
)
def test_the_server_counts_what_was_asked(kind: str, endpoint: str, above: int, seed: int, index: int) -> None:
    vocabulary, composer, server = learnt(kind, endpoint)
    # A character tokenizer counts whole words only: beyond smallest times largest, every number is a sum of words.
    if kind == "characters" and above < min(vocabulary.costs) * max(vocabulary.costs):
        above += min(vocabulary.costs) * max(vocabulary.costs)
    asked = composer.least_text + above
    text = composer.text(seed, index, asked)
    assert len(server.ids({"prompt" if endpoint == "completions" else "content": text})) == asked


def test_a_template_that_strips_blanks_changes_no_count() -> None:
    assert learnt("byte-level", "chat")[0] == from_server(TOKENIZATION, "m", "chat", Server("byte-level").ask)


def test_the_shared_start_of_all_prompts_is_known() -> None:
    vocabulary, composer, server = learnt("byte-level", "chat")
    prompts = [server.ids({"content": composer.text(1, index, 60)}) for index in range(40)]
    first_difference = next(at for at, column in enumerate(zip(*prompts, strict=True)) if len(set(column)) > 1)
    assert vocabulary.shared_prefix_tokens == first_difference


def test_a_server_that_takes_only_short_texts_is_asked_for_fewer_words() -> None:
    server = Server("byte-level", longest=2000)
    vocabulary = from_server(TOKENIZATION, "m", "completions", server.ask)
    assert vocabulary.exact
    assert server.calls <= 6


@pytest.mark.parametrize(
    ("ask", "reason"),
    [
        (lambda _: (404, b"not found"), "status 404: not found"),
        (lambda _: (200, b"<html>"), "Expecting value"),
        (lambda request: (200, json.dumps(list(range(len(request.body)))).encode()), "not counted alike"),
    ],
)
def test_a_tokenizer_of_no_use_leaves_an_estimate_that_says_why(ask: Any, reason: str) -> None:
    with pytest.raises(NotLearnt, match=reason):
        from_server(TOKENIZATION, "m", "chat", ask)
    vocabulary = vocabulary_for("chat", "m", TOKENIZATION, ask)
    assert (vocabulary.exact, vocabulary.origin) == (False, "estimate")
    assert reason in vocabulary.note


def test_a_server_that_is_gone_leaves_an_estimate() -> None:
    def ask(request: HttpRequest) -> tuple[int, bytes]:
        raise ConnectionRefusedError("refused")

    assert "refused" in vocabulary_for("chat", "m", TOKENIZATION, ask).note
    assert "no tokenizer to ask" in vocabulary_for("chat").note


def test_a_count_that_does_not_add_up_is_no_exact_vocabulary() -> None:
    """A template that adds a token for every hundred of content."""

    def ask(request: HttpRequest) -> tuple[int, bytes]:
        body = json.loads(request.body)
        ids = Server("byte-level").ids(body)
        return 200, json.dumps(ids + [1] * (len(ids) // 100 if "content" in body else 0)).encode()

    vocabulary = from_server(TOKENIZATION, "m", "chat", ask)
    assert not vocabulary.exact
    assert f"made for {vocabulary.fixed_tokens + VERIFY_TOKENS} tokens is counted as" in vocabulary.note


def test_token_ids_are_ordinary_ones() -> None:
    vocabulary, composer, _ = learnt("sentencepiece", "completions")
    ids = composer.ids(1, 2, 500)
    assert len(ids) == 500
    assert 0 not in set(vocabulary.ids)
    assert set(ids) <= set(vocabulary.ids)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokenizer.json"
    tokenizer_of("sentencepiece").save(str(path))
    return path


def test_a_tokenizer_file_is_exact_for_completions(file: Path) -> None:
    vocabulary = vocabulary_for("completions", tokenizer_file=file)
    assert (vocabulary.exact, vocabulary.origin) == (True, "file")
    text = Composer(vocabulary).text(3, 4, 321)
    assert len(tokenizer_of("sentencepiece").encode(text).ids) == 321


def test_a_tokenizer_file_knows_no_chat_template_unless_it_is_told(file: Path) -> None:
    guessed = from_file(file, "chat")
    assert (guessed.exact, guessed.fixed_tokens) == (False, GUESSED_CHAT_TOKENS)
    assert "template" in guessed.note
    told = from_file(file, "chat", least_chat_tokens=25)
    assert (told.exact, told.fixed_tokens) == (True, 25)


def test_a_server_that_cannot_tokenize_a_chat_is_told_what_one_counted() -> None:
    server = Server("sentencepiece")
    text_only = replace(TOKENIZATION, of_chat=None)
    told = from_server(text_only, "m", "chat", server.ask, least_chat_tokens=31)
    assert (told.exact, told.fixed_tokens) == (True, 31)
    assert not from_server(text_only, "m", "chat", server.ask).exact
    assert from_server(text_only, "m", "generate", server.ask) == from_server(
        TOKENIZATION, "m", "completions", server.ask
    )


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(BadInput, match=r"x\.json: this is no tokenizer\.json"):
        from_file(tmp_path / "x.json", "chat")
    with pytest.raises(BadInput, match=r"y\.json: this is no tokenizer\.json"):
        from_file(tmp_path / "y.json", "chat")


def test_an_estimate_takes_a_token_a_word() -> None:
    vocabulary = estimate("completions", "")
    assert len(Composer(vocabulary).text(0, 0, 100).split()) == 100 - vocabulary.fixed_tokens + 2


def test_the_words_are_many_short_and_distinct() -> None:
    assert len(words()) >= 1500
    assert len(set(words())) == len(words())
    assert all(word.isascii() and word.isalpha() and word.islower() for word in words())

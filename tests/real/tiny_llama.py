"""Writes a small Llama of random weights and a byte-level BPE tokenizer to the folder named.

Run by a Python that has torch and transformers, which the tests' own has not. The tokenizer learns from the standard
library's sources, which are there on every machine.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 4096
BEGIN, END = "<s>", "</s>"  # ids 0 and 1
CHAT = (
    BEGIN
    + "{% for message in messages %}[{{ message['role'] }}]\n{{ message['content'] }}\n{% endfor %}"
    + "{% if add_generation_prompt %}[assistant]\n{% endif %}"
)


def sources() -> Iterator[str]:
    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        yield path.read_text(encoding="utf-8", errors="ignore")


def tokenizer() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=[BEGIN, END], initial_alphabet=alphabet)
    made.train_from_iterator(sources(), trainer)
    made.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[(BEGIN, 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=made, bos_token=BEGIN, eos_token=END)
    fast.chat_template = CHAT
    return fast


def model() -> LlamaForCausalLM:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,  # 64 wide: vLLM's attention for CPU takes no head below 32
        num_key_value_heads=2,
        max_position_embeddings=8192,
        bos_token_id=0,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config).to(torch.bfloat16)


if __name__ == "__main__":
    folder = sys.argv[1]
    tokenizer().save_pretrained(folder)
    model().save_pretrained(folder)

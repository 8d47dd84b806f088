"""Writes the tiny Llama as one GGUF file, by llama.cpp's own converter: `tiny_gguf.py SOURCES MODEL_FOLDER FILE`.

Run by a Python that has torch and transformers. The converter knows how a vocabulary splits text by a fingerprint of
well-known tokenizers, among which this one is not; byte-level BPE without further rules splits as GPT-2's does.
"""

from __future__ import annotations

import runpy
import sys

sources, model, file = sys.argv[1:]
sys.path[:0] = [sources, f"{sources}/gguf-py"]

from conversion.base import TextModel  # noqa: E402  (found by the line before)

TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"
sys.argv = ["convert_hf_to_gguf.py", model, "--outfile", file, "--outtype", "bf16"]
runpy.run_path(f"{sources}/convert_hf_to_gguf.py", run_name="__main__")

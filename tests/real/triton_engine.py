"""The model that Triton's Python backend runs in place of an engine: no weights, TensorRT-LLM's inputs and outputs.

Triton imports this by an interpreter of its own, which has numpy and tokenizers and nothing of this project. It counts
prompts with a real tokenizer and answers with words of its vocabulary, each of which is one token; every fourth
response holds two, as speculative decoding gives them. An answer ends at its length, or at half of it where its end is
left to the model. `bad_words: ["stop after N"]` makes it fail after N tokens.
"""

import json
import threading
import time

import numpy as np
import triton_python_backend_utils as triton
from tokenizers import Tokenizer

STEP_S = 0.005
FINAL = triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL
TYPES = {"TYPE_INT32": np.int32, "TYPE_INT64": np.int64, "TYPE_FP32": np.float32, "TYPE_STRING": object}


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        told = {name: value["string_value"] for name, value in config["parameters"].items()}
        self.limit = int(told["max_seq_len"])
        self.accumulates = told.get("accumulate_tokens") == "true"
        self.end_is_free = told.get("end_is_free") == "true"
        self.names = json.loads(told["names"])
        self.outputs = [(o["name"], TYPES[o["data_type"]], len(o["dims"])) for o in config["output"]]
        self.tokenizer = Tokenizer.from_file(told["tokenizer"])
        tokens = sorted(self.tokenizer.get_vocab())
        self.words = [f" {token[1:]}" for token in tokens if token[0] == "Ġ" and token[1:].isalpha() and len(token) > 4]

    def execute(self, requests):
        """Answers come from a thread each, so that requests run side by side."""
        for request in requests:
            asked = {what: self._read(request, name) for what, name in self.names.items()}
            threading.Thread(target=self._answer, args=(asked, request.get_response_sender()), daemon=True).start()

    @staticmethod
    def _read(request, name):
        tensor = triton.get_input_tensor_by_name(request, name)
        value = None if tensor is None else tensor.as_numpy().reshape(-1)[0]
        return value.decode() if isinstance(value, bytes) else value

    def _answer(self, asked, sender):
        try:
            prompt = len(self.tokenizer.encode(asked["text"]).ids)
            length = self._length(asked, prompt)
            if asked["stream"]:
                for response in self._steps(asked, prompt, length):
                    sender.send(response)
            else:
                sender.send(self._response(asked, prompt, "".join(map(self._word, range(length))), length, "length"))
            sender.send(flags=FINAL)
        except Exception as error:  # noqa: BLE001 (whatever it is, the request has to end)
            sender.send(triton.InferenceResponse(error=triton.TritonError(str(error))), flags=FINAL)

    def _length(self, asked, prompt):
        most = int(asked["length"])
        if prompt + most > self.limit:
            raise ValueError(f"{prompt} tokens of the prompt and {most} asked for exceed max_seq_len {self.limit}")
        forced = asked.get("end_id") == -1 or (asked.get("least") or 0) >= most
        return most if forced and not self.end_is_free else max(1, most // 2)

    def _steps(self, asked, prompt, length):
        at, step, text = 0, 0, ""
        words = asked.get("bad_words") or ""
        fails_at = int(words.rpartition(" ")[2]) if words.startswith("stop after ") else None
        while at < length:
            time.sleep(STEP_S)
            if fails_at is not None and at >= fails_at:
                raise RuntimeError("the engine failed, as it was asked to")
            new = min(2 if step % 4 == 3 else 1, length - at)
            piece = "".join(map(self._word, range(at, at + new)))
            at, step, text = at + new, step + 1, text + piece
            shown = text if self.accumulates else piece
            yield self._response(asked, prompt, shown, new, "length" if at == length else "")

    def _word(self, at):
        return self.words[at * 7 % len(self.words)]

    def _response(self, asked, prompt, text, new, finish):
        """Each output the model declares is there; what was not asked for is zero or empty."""
        told = {"text": text, "finish_reason": finish if asked.get("tell_finish") else ""}
        told["num_input_tokens"] = prompt if asked.get("count_input") else 0
        told["num_output_tokens"] = new if asked.get("count_output") else 0
        tensors = []
        for name, kind, rank in self.outputs:
            value = told.get("text" if name == self.names["text_output"] else name, "" if kind is object else 0)
            value = value.encode() if kind is object else value
            tensors.append(triton.Tensor(name, np.array(value, dtype=kind).reshape([1] * (rank + 1))))
        return triton.InferenceResponse(tensors)

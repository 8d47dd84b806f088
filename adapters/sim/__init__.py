"""The built-in target: a simulated server in a process of its own, of which this is the adapter, in vLLM's words.

Importing this loads the adapter only; `launch` starts the server, `serving` is the server. The other dialects that it
speaks are measured by the adapters of the servers whose they are.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from servemark.adapters.base import json_answer, model_list, owned_by
from servemark.adapters.vllm import VllmAdapter
from servemark.harness.types import HttpRequest, Launcher, Probe, Signature

ENGINE = "servemark-sim"
_FACTS = ("hardware_model", "hardware_gpu", "tensor_parallel_size", "dtype", "kv_cache_dtype")


def _command(words: Sequence[str], host: str, port: int) -> Sequence[str]:
    program = (sys.executable, "-P", "-m", "servemark.adapters.sim", "--model")
    return (*program, *(words or ("llama-3.1-8b",)), "--host", host, "--port", str(port))


class SimAdapter(VllmAdapter):
    name = "sim"
    about = "built-in simulated server (Llama-3.1-8B on an H100 by default)"
    default_url = "http://127.0.0.1:8399"
    simulated = True
    launcher = Launcher(_command)
    signature = Signature(HttpRequest("GET", "/v1/models"), owned_by(ENGINE))

    def probes(self) -> Sequence[Probe]:
        """vLLM's, but the model list must be the simulator's: a real server's run is not to be marked simulated."""
        theirs = (
            replace(probe, parse=_read_models, required=True) if probe.name == "models" else probe
            for probe in super().probes()
        )
        return (*theirs, Probe("what is simulated", HttpRequest("GET", "/sim/facts"), _read_facts))


def _read_models(status: int, body: bytes) -> Mapping[str, Any]:
    cards = model_list(json_answer("/v1/models", status, body))
    if not cards or any(card.get("owned_by") != ENGINE for card in cards):
        raise ValueError("this is no simulated server; choose the target that it is, such as vllm")
    return {
        "engine": ENGINE,
        "models": tuple(str(card["id"]) for card in cards),
        "context_tokens": min(int(card["max_model_len"]) for card in cards),
    }


def _read_facts(status: int, body: bytes) -> Mapping[str, Any]:
    told = json_answer("/sim/facts", status, body) if status == 200 else {}
    return {"settings": {name: told[name] for name in _FACTS if isinstance(told.get(name), str | int)}}


ADAPTER = SimAdapter()

"""What servers and the commands that start them tell of a model and its layout."""

from __future__ import annotations

import pytest

from servemark.harness.hardware.deployed import deployed
from servemark.harness.hardware.section import HardwareSection
from servemark.harness.hardware.told import LAUNCH, SERVER, Told, told


def test_a_vllm_that_was_launched_tells_its_layout_by_its_flags() -> None:
    words = ("/models/llama", "--tensor-parallel-size", "4", "-pp=2", "--kv-cache-dtype", "fp8", "--quantization=fp8")
    found = told({"root": "/models/llama", "cache_dtype": "auto"}, words, "llama")
    assert (found.tensor, found.pipeline, found.data) == (4, 2, None)
    assert (found.weights, found.kv) == ("fp8", "fp8")
    assert found.models == ("/models/llama", "llama")
    assert found.sources == {
        "model": SERVER, "tensor": LAUNCH, "pipeline": LAUNCH, "quantisation": LAUNCH, "kv": LAUNCH
    }  # fmt: skip


def test_what_a_server_is_goes_before_what_it_was_asked_to_be() -> None:
    assert told({"tp_size": 2}, ("m", "--tp", "4"), "m").tensor == 2


def test_an_sglang_tells_it_all_by_itself() -> None:
    settings = {"model_path": "Qwen/Qwen3-8B", "tp_size": 2, "dp_size": 3, "pp_size": 1, "ep_size": 2, "dtype": "auto",
                "quantization": None, "kv_cache_dtype": "fp8_e5m2"}  # fmt: skip
    found = told(settings, (), "served-name")
    assert (found.tensor, found.pipeline, found.data, found.expert) == (2, 1, 3, True)
    assert (found.weights, found.kv, found.models) == (None, "fp8", ("Qwen/Qwen3-8B", "served-name"))


@pytest.mark.parametrize("dtype", ["auto", "bfloat16", "torch.bfloat16", "half", "float16"])
def test_a_16_bit_dtype_says_no_more_than_the_config(dtype: str) -> None:
    assert told({"dtype": dtype}, (), "m").weights is None


def test_a_wider_one_does() -> None:
    assert told({"model_dtype": "torch.float32"}, (), "m").weights == "fp32"


@pytest.mark.parametrize("value", ["", "x", "-1", "0", "9" * 40, True, None, [], {}, "²"])
def test_what_is_no_number_of_ranks_is_not_told(value: object) -> None:
    assert told({"tensor_parallel_size": value}, (), "m").tensor is None


@pytest.mark.parametrize(
    ("settings", "tokens"),
    [
        ({"kv_cache_size_tokens": "24000"}, 24_000),
        ({"max_total_num_tokens": 190_000}, 190_000),
        ({"max_total_num_tokens": 0}, None),
        ({"max_total_num_tokens": "many"}, None),
        ({}, None),
    ],
)
def test_a_server_tells_what_its_kv_memory_holds(settings: dict[str, object], tokens: int | None) -> None:
    found = told(settings, (), "m")
    assert found.kv_tokens == tokens
    assert deployed(HardwareSection(), found).kv_tokens == tokens


def test_a_switch_takes_no_word_after_it() -> None:
    found = told({}, ("--enable-expert-parallel", "--dp", "2", "--model", "m"), "served")
    assert (found.expert, found.data, found.models) == (True, 2, ("m", "served"))


def test_data_ranks_of_vllm_share_the_experts_and_those_of_sglang_have_all() -> None:
    assert told({}, ("m", "--data-parallel-size", "4"), "m").expert is True
    assert told({}, ("m", "--dp-size", "4"), "m").expert is None


def test_a_server_that_tells_nothing_tells_nothing() -> None:
    assert told({}, (), "m") == Told(models=("m",), sources={})

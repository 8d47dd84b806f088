"""What a run was made on: what the user says goes before what the server tells, and what nobody says is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from servemark.harness.errors import BadInput
from servemark.harness.hardware.deployed import deployed
from servemark.harness.hardware.layout import Layout
from servemark.harness.hardware.section import HardwareSection
from servemark.harness.hardware.told import Told, told

LLAMA: dict[str, Any] = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100,
    "torch_dtype": "bfloat16",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    return tmp_path


def section(**fields: Any) -> HardwareSection:
    return HardwareSection(**fields)


def test_the_simulated_server_tells_everything() -> None:
    settings = {"hardware_model": "llama-3.1-8b", "hardware_gpu": "h200", "tensor_parallel_size": 2}
    found = deployed(section(), told(settings, (), "llama-3.1-8b"))
    assert found.model is not None
    assert found.model.params == 8_030_261_248
    assert (found.gpu.name if found.gpu else None, found.gpu_source) == ("h200", "the server")
    assert (found.layout, found.gpus, found.layout_source) == (Layout(tensor=2), 2, "the server")


def test_what_the_user_says_goes_first(folder: Path) -> None:
    told_it = Told(models=("llama-3.1-8b",), gpu="h200", tensor=2)
    found = deployed(section(gpu="l4", tp=1, config=str(folder), gpu_price=0.7), told_it)
    assert (found.gpu.name if found.gpu else None, found.gpu_source) == ("l4", "--gpu")
    assert (found.layout, found.layout_source) == (Layout(), "flags")
    assert found.model is not None
    assert found.model.params < 1_000_000
    assert found.price is not None
    assert (found.price.usd_per_gpu_hour, found.price.source) == (0.7, "--gpu-price")


def test_a_folder_that_the_server_loaded_from_is_read_where_it_is_on_this_machine(folder: Path) -> None:
    assert deployed(section(), Told(models=(str(folder),))).model is not None
    found = deployed(section(), Told(models=(str(folder / "elsewhere"), "my-model")))
    assert found.model is None
    assert found.model_lacks is not None
    assert "--model-config" in found.model_lacks


def test_a_relative_path_of_the_servers_is_not_found_by_chance(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert deployed(section(), Told(models=(folder.name,))).model is None


def test_a_model_that_the_user_names_must_be_there() -> None:
    with pytest.raises(BadInput, match="nowhere"):
        deployed(section(config="/nowhere/config.json"), Told())


def test_a_gpu_that_the_user_names_must_be_known_and_one_of_the_servers_need_not() -> None:
    with pytest.raises(BadInput, match="h100-smx"):
        deployed(section(gpu="h100-smx"), Told())
    found = deployed(section(), Told(gpu="something else"))
    assert found.gpu is None
    assert found.gpu_lacks is not None


@pytest.mark.parametrize(
    ("fields", "servers", "layout"),
    [
        ({}, 1, Layout()),
        ({}, 3, Layout(replicas=3)),
        ({"gpus": 4}, 1, Layout(tensor=4)),
        ({"gpus": 4}, 2, Layout(tensor=2, replicas=2)),
        ({"gpus": 8, "tp": 2}, 1, Layout(tensor=2, replicas=4)),
        ({"tp": 2, "pp": 2, "dp": 2, "ep": True}, 1, Layout(2, 2, 2, True)),
    ],
)
def test_how_many_gpus_there_are(fields: dict[str, Any], servers: int, layout: Layout) -> None:
    found = deployed(section(**fields), Told(), servers)
    assert (found.layout, found.gpus) == (layout, layout.gpus)


@pytest.mark.parametrize(("gpus", "servers"), [(3, 1), (2, 2), (1, 1)])
def test_gpus_that_make_no_whole_servers_are_refused(gpus: int, servers: int) -> None:
    with pytest.raises(BadInput, match=f"--gpus {gpus}"):
        deployed(section(gpus=gpus, tp=2), Told(), servers)


def test_formats_that_a_server_tells_go_over_a_plain_config(folder: Path) -> None:
    plain = deployed(section(), Told(models=(str(folder),))).model
    quantised = deployed(section(), Told(models=(str(folder),), weights="fp8", kv="fp8")).model
    assert plain is not None
    assert quantised is not None
    assert quantised.weight_bytes < 0.8 * plain.weight_bytes
    assert quantised.kv_bytes_per_token == plain.kv_bytes_per_token / 2


def test_a_format_without_a_name_here_leaves_the_configs_own(folder: Path) -> None:
    found = deployed(section(), Told(models=(str(folder),), weights="of-tomorrow")).model
    assert found is not None
    assert found.weights == "bf16"


def test_the_sampled_gpus_name_their_kind() -> None:
    nothing = deployed(section(gpu_price=2.0), Told())
    h100 = {"name": "NVIDIA H100 80GB HBM3", "memory_bytes": 85_520_809_984}
    seen = nothing.seen([h100, h100])
    assert (seen.gpu.name if seen.gpu else None, seen.gpu_source) == ("h100-sxm", "the sampled GPUs")
    assert nothing.seen([]).gpu is None
    assert nothing.seen([{"name": "Some Card"}]).gpu is None
    assert nothing.seen([h100, {"name": "NVIDIA L4", "memory_bytes": 24_000_000_000}]).gpu is None
    assert deployed(section(gpu="l4"), Told()).seen([h100]).gpu_source == "--gpu"


def test_sampling_is_off_in_a_plan_as_by_the_flag() -> None:
    off = HardwareSection.model_validate({"gpu_sample": "off"})
    assert off.gpu_sample == 0
    assert off.model_dump(mode="json", exclude_defaults=True) == {"gpu_sample": "off"}
    assert HardwareSection.model_validate({"gpu_sample": "200ms"}) == HardwareSection()
    with pytest.raises(ValidationError, match="leave one of them out"):
        HardwareSection.model_validate({"gpu_sample": "off", "gpu_metrics": "http://gpu-1:9433"})

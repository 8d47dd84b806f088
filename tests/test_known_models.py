"""Models that are known by name, and how one is found by what a user writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from servemark.harness.errors import BadInput
from servemark.harness.hardware.known import find_model, hub_folder, known, known_model, known_models
from servemark.harness.hardware.model import Model

GIB = 2**30
SMALL = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "vocab_size": 1000,
}


@pytest.mark.parametrize("name", known_models())
def test_the_published_total_is_met_to_the_last_weight(name: str) -> None:
    assert known_model(name).params == known(name).params


def test_the_simulators_models_have_their_names_and_ids() -> None:
    ids = {
        "llama-3.1-8b": "meta-llama/Llama-3.1-8B-Instruct",
        "llama-3.1-70b": "meta-llama/Llama-3.1-70B-Instruct",
        "qwen3-8b": "Qwen/Qwen3-8B",
        "qwen3-32b": "Qwen/Qwen3-32B",
        "qwen3-0.6b": "Qwen/Qwen3-0.6B",
    }
    assert {name: known(name).hf_id for name in ids} == ids


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        # As their publishers say; DeepSeek and Qwen count the input embedding too, gpt-oss does not.
        ("gpt-oss-20b", 3.61),
        ("gpt-oss-120b", 5.13),
        ("deepseek-v3", 37.55 - 0.927),
        ("qwen3-30b-a3b", 3.35 - 0.311),
        ("mixtral-8x7b", 12.88 - 0.131),
    ],
)
def test_weights_that_a_token_uses(name: str, billions: float) -> None:
    assert known_model(name).active_params / 1e9 == pytest.approx(billions, abs=0.006)


def test_sizes_of_published_checkpoints() -> None:
    assert known_model("gpt-oss-20b").weight_bytes == 13_761_264_768
    assert known_model("gpt-oss-120b").weight_bytes == 65_248_815_744
    assert known_model("gpt-oss-120b").weight_bytes / GIB == pytest.approx(60.8, abs=0.05)
    assert known_model("llama-3.1-70b").weight_bytes == 141_107_412_992
    assert known_model("llama-2-7b", "int4-awq").weight_bytes / 1e9 == pytest.approx(3.89, abs=0.005)
    assert known_model("mixtral-8x7b", "int4-awq").weight_bytes / 1e9 == pytest.approx(24.65, abs=0.005)


def scales(model: Model) -> float:
    """How many 32-bit scales there are beside FP8 weights."""
    return sum((part.bytes - part.elements) / 4 for part in model.parts if part.compute == "fp8")


def test_deepseek_v3_with_its_drafting_layer_and_scales_is_what_is_published() -> None:
    """684,531,386,000 elements and 688.6 GB; that layer has a projection and two embeddings of its own in BF16."""
    model = known_model("deepseek-v3")
    experts, attention = 257 * 3 * 7168 * 2048, 187_105_280
    wide = 2 * 7168 * 7168 + 2 * 129280 * 7168 + 256 * 7168
    vectors = 256 + 5 * 7168 + 1536 + 512
    blocks = (experts + attention) / 128**2 + 28  # 576 rows are four blocks and a half, which take five scales
    drafting = experts + attention + wide + vectors
    assert model.params + scales(model) + drafting + blocks == 684_531_386_000
    size = model.weight_bytes + experts + attention + 2 * (wide + vectors) + 4 * blocks
    assert size / 1e9 == pytest.approx(688.6, abs=0.05)
    assert model.left_out == ("the layers that only draft further tokens are not counted",)


def test_minimax_m2_with_its_scales_is_what_is_published() -> None:
    model = known_model("minimax-m2")
    assert model.params + scales(model) == 228_703_644_928


def test_names_and_ids_in_any_case() -> None:
    assert find_model("QWEN/qwen3-8b").name == find_model(" Qwen3-8B ").name == "qwen3-8b"
    assert find_model("meta-llama/Llama-3.1-8B").name == "llama-3.1-8b"
    assert known_model("qwen3-8b", "fp8", "fp8").weights == "fp8"


def test_no_two_models_share_a_name() -> None:
    names = [each.lower() for name in known_models() for each in (name, known(name).hf_id, *known(name).also)]
    assert len(names) == len(set(names))


def test_a_path_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "qwen3-8b").mkdir()
    (tmp_path / "qwen3-8b" / "config.json").write_text(json.dumps(SMALL))
    monkeypatch.chdir(tmp_path)
    assert find_model("qwen3-8b").params < 1_000_000


def cached(hub: Path, commit: str, hidden: int, main: bool = False) -> None:
    folder = hub / "models--org--tiny"
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "snapshots" / commit / "config.json").write_text(json.dumps({**SMALL, "hidden_size": hidden}))
    if main:
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(commit)


def test_a_model_in_the_local_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    cached(tmp_path, "aaa", 64, main=True)
    cached(tmp_path, "bbb", 128)
    model = find_model("org/tiny", weights="fp8")
    assert (model.name, model.architecture.hidden, model.weights) == ("org/tiny", 64, "fp8")
    assert model.source.endswith("aaa/config.json")
    (tmp_path / "models--org--tiny" / "refs" / "main").write_text("../../..")
    assert find_model("org/tiny").architecture.hidden == 128


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert hub_folder() == Path.home() / ".cache/huggingface/hub"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert hub_folder() == Path("/x/huggingface/hub")
    monkeypatch.setenv("HF_HOME", "/y")
    assert hub_folder() == Path("/y/hub")
    monkeypatch.setenv("HF_HUB_CACHE", "/z")
    assert hub_folder() == Path("/z")


@pytest.mark.parametrize("text", ["nobody/nothing", "../x/y", "a/b/c", "qwen3-9b", "x\0y", "a" * 5000, "\x1b[2J"])
def test_what_was_tried_is_listed(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BadInput) as error:
        find_model(text)
    said = str(error.value)
    assert "neither a file or folder" in said
    assert f"nor in the Hugging Face cache ({tmp_path})" in said
    assert "\x1b" not in said
    assert "\0" not in said
    assert len(said) < 600


def test_a_near_name_is_offered() -> None:
    with pytest.raises(BadInput, match="near it are qwen3-8b"):
        known_model("qwen3-9b")


def test_a_format_that_is_not_known_is_no_fault_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    for text in ("qwen3-8b", str(tmp_path)):
        with pytest.raises(BadInput, match=r"^int3 is no known format of weights"):
            find_model(text, "int3")
        with pytest.raises(BadInput, match=r"^int3 is no known format of the KV cache"):
            find_model(text, kv="int3")
        assert find_model(text, "auto", "auto").parts == find_model(text).parts

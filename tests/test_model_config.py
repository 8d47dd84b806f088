"""What a config.json comes to: weights, KV cache and attention, against arithmetic done by hand in each test."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servemark.harness.errors import BadInput
from servemark.harness.hardware.config import load_model, model_of
from servemark.harness.hardware.families import FAMILIES
from servemark.harness.hardware.model import Model

DENSE: Mapping[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
MIXTURE = {"num_local_experts": 8, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LATENT = {
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}
WHOLE = {**DENSE, **MIXTURE, **LATENT, "shared_expert_intermediate_size": 48, "intermediate_size_mlp": 128}
WHOLE |= {"n_embd": 64, "n_layer": 2, "n_head": 4, "word_embed_proj_dim": 64}
"""Has every field that any family asks for."""


def made(**changes: Any) -> Model:
    return model_of({**DENSE, **changes}, None, "made", "here")


def test_a_dense_model_weight_by_weight() -> None:
    """Heads are 64 / 4 = 16 wide, two layers, and an embedding and a head of 1,000 rows."""
    attention = 64 * 64 + 2 * (32 * 64) + 64 * 64
    layer = attention + 3 * 64 * 96 + 2 * 64
    assert made().params == 2 * layer + 64 + 2 * 1000 * 64
    assert made().active_params == 2 * layer + 64 + 1000 * 64  # the input embedding is looked up, not multiplied
    assert made().weight_bytes == 2 * made().params
    assert made().kv_bytes_per_token == 2 * 2 * 2 * 16 * 2  # layers, keys and values, heads, their size, bytes
    assert made().architecture.attention[0].flops_per_pair == 4 * 4 * 16
    assert made().architecture.max_context == 512


def test_a_head_has_a_size_of_its_own() -> None:
    wide = made(head_dim=32)
    assert wide.params - made().params == 2 * 64 * 16 * (4 + 2 + 2 + 4)
    assert wide.kv_bytes_per_token == 2 * made().kv_bytes_per_token


def test_tied_embeddings_are_one_matrix_and_it_is_multiplied_with() -> None:
    tied = made(tie_word_embeddings=True)
    assert made().params - tied.params == 1000 * 64
    assert tied.active_params == tied.params


def test_where_a_file_says_nothing_of_tying_the_class_does() -> None:
    silent = {name: value for name, value in DENSE.items() if name != "tie_word_embeddings"}
    assert not model_of(silent, None, "", "").architecture.tied_embeddings
    assert model_of({**silent, "model_type": "gemma2"}, None, "", "").architecture.tied_embeddings


def test_biases_and_norms_that_no_field_tells_of() -> None:
    queries_keys_values = 64 + 32 + 32
    assert made(model_type="qwen2").params - made().params == 2 * queries_keys_values
    assert made(model_type="qwen3", head_dim=16).params - made().params == 2 * 2 * 16
    assert made(model_type="gemma2", head_dim=16).params - made().params == 2 * 2 * 64
    assert made(attention_bias=True, mlp_bias=True).params - made().params == 2 * (128 + 64 + 96 + 96 + 64)


def test_a_mixture_of_experts_by_hand() -> None:
    """Mixtral 8x7B: 32 layers, hidden 4,096, experts of 14,336, 32 heads and 8 for keys and values, of 128."""
    config = {
        **DENSE,
        "model_type": "mixtral",
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 32000,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    }
    model = model_of(config, None, "", "")
    expert = 176_160_768  # three matrices of 4,096 x 14,336
    attention = 41_943_040  # 16,777,216 twice for queries and out, 4,194,304 twice for keys and values
    router, norms, embedding = 32_768, 8_192, 131_072_000
    assert model.params == 32 * (8 * expert + attention + router + norms) + 2 * embedding + 4096 == 46_702_792_704
    assert model.active_params == 32 * (2 * expert + attention + router + norms) + embedding + 4096
    assert sum(part.bytes for part in model.parts if part.role == "expert") == 2 * 32 * 8 * expert
    assert model.kv_bytes(1000) == 1000 * 131_072  # 32 layers, 2 x 1,024 elements of two bytes
    assert (model.architecture.experts, model.architecture.experts_per_token) == (8, 2)


def test_a_latent_by_hand() -> None:
    """DeepSeek-V2-Lite: a latent of 512 and 64 rotary elements for all 16 heads; the first layer has no experts."""
    config = {
        "model_type": "deepseek_v2",
        "num_hidden_layers": 27,
        "hidden_size": 2048,
        "intermediate_size": 10944,
        "moe_intermediate_size": 1408,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
        "num_experts_per_tok": 6,
        "first_k_dense_replace": 1,
        "vocab_size": 102400,
    }
    model = model_of(config, None, "", "")
    queries = 2048 * 3072  # 16 heads of 128 + 64
    latent = 2048 * 576 + 512 + 512 * 4096  # into it, its norm, and out of it to keys and values of 128 each
    attention = queries + latent + 2048 * 2048
    dense, expert, router = 3 * 2048 * 10944, 3 * 2048 * 1408, 2048 * 64
    rest = 27 * (attention + 4096) + dense + 26 * (2 * expert + router) + 2048 + 102400 * 2048
    assert model.params == rest + 26 * 64 * expert + 102400 * 2048 == 15_706_484_224
    assert model.active_params == rest + 26 * 6 * expert
    assert model.kv_bytes_per_token == 27 * 576 * 2 == 31_104
    assert {layer.kv_heads for layer in model.architecture.attention} == {1}  # every rank keeps all of it
    assert model.architecture.attention[0].flops_per_pair == 2 * 16 * (512 + 64 + 512)
    assert model.architecture.attention[0].prefill_flops_per_pair == 2 * 16 * (192 + 128)


def test_every_other_layer_slides_by_hand() -> None:
    """Gemma 2 9B: 42 layers, of which 21 look back at 4,096 tokens; 8 heads of 256 for keys and values."""
    config = {
        "model_type": "gemma2",
        "num_hidden_layers": 42,
        "hidden_size": 3584,
        "intermediate_size": 14336,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 256,
        "vocab_size": 256000,
        "sliding_window": 4096,
    }
    model = model_of(config, None, "", "")
    layer = 3584 * 256 * (16 + 8 + 8 + 16) + 3 * 3584 * 14336 + 4 * 3584
    assert model.params == 42 * layer + 3584 + 256000 * 3584 == 9_241_705_984
    assert model.kv_bytes(1000) == 42 * 8192 * 1000  # bytes of keys and values of a token in a layer: 2 x 8 x 256 x 2
    assert model.kv_bytes(10_000) == 21 * 8192 * 10_000 + 21 * 8192 * 4096
    windows = [layer.window for layer in model.architecture.attention]
    assert windows[:4] == [4096, None, 4096, None]


def test_layer_types_say_which_layers_slide() -> None:
    kinds = ["full_attention", "sliding_attention"]
    slides = made(model_type="gpt_oss", sliding_window=8, layer_types=kinds, **MIXTURE)
    assert [layer.window for layer in slides.architecture.attention] == [None, 8]
    usual = made(model_type="gpt_oss", sliding_window=8, **MIXTURE)
    assert [layer.window for layer in usual.architecture.attention] == [8, None]


@pytest.mark.parametrize(
    ("changes", "windows"),
    [
        ({"model_type": "qwen2", "sliding_window": 32, "use_sliding_window": False}, [None, None]),
        ({"model_type": "qwen2", "sliding_window": 32, "use_sliding_window": True, "max_window_layers": 1}, [None, 32]),
        ({"model_type": "mistral"}, [4096, 4096]),  # what its class has where the file is silent
        ({"model_type": "mistral", "sliding_window": None}, [None, None]),
        ({"model_type": "gemma3_text", "sliding_window": 16, "sliding_window_pattern": 2}, [16, None]),
        ({"model_type": "llama4_text", "num_hidden_layers": 4}, [8192, 8192, 8192, None]),
        ({"model_type": "phi3", "sliding_window": 2047}, [2047, 2047]),
    ],
)
def test_windows(changes: Mapping[str, Any], windows: list[int | None]) -> None:
    model = model_of({**WHOLE, **changes}, None, "", "")
    assert [layer.window for layer in model.architecture.attention] == windows


def test_a_model_that_also_sees_is_read_by_its_text_part() -> None:
    inner = {name: value for name, value in DENSE.items() if name not in ("torch_dtype", "tie_word_embeddings")}
    outer = {"model_type": "mistral3", "vision_config": {"hidden_size": 8}, "torch_dtype": "float32"}
    model = model_of({**outer, "text_config": inner, "tie_word_embeddings": True}, None, "", "")
    assert model.params == made(tie_word_embeddings=True).params
    assert model.weights == "fp32"
    assert model.left_out == ("its vision part is not counted",)


def test_a_class_fills_in_what_a_text_part_leaves_out() -> None:
    """Gemma 3 4B's file has no heads, no head size and no vocabulary: its class has 8, 4, 256 and 262,208."""
    inner = {"model_type": "gemma3_text", "num_hidden_layers": 34, "hidden_size": 2560, "intermediate_size": 10240}
    outer = {"model_type": "gemma3", "vision_config": {"num_hidden_layers": 27}, "torch_dtype": "bfloat16"}
    model = model_of({**outer, "text_config": {**inner, "sliding_window": 1024}}, None, "", "")
    eyes = 416_866_032 + 1152 * 2560 + 1152  # the tower, the projection out of it and its norm
    assert model.params + eyes == 4_300_079_472
    assert sum(layer.window is None for layer in model.architecture.attention) == 5  # 6th, 12th, ... 30th


def test_drafting_layers_are_left_out_and_it_says_so() -> None:
    config = {**WHOLE, "model_type": "deepseek_v3"}
    drafts = model_of({**config, "num_nextn_predict_layers": 1}, None, "", "")
    assert drafts.params == model_of(config, None, "", "").params
    assert drafts.left_out == ("the layers that only draft further tokens are not counted",)


def test_llama_2_13b_keeps_54_gb_for_32_requests_of_2048_tokens() -> None:
    model = made(num_hidden_layers=40, hidden_size=5120, num_attention_heads=40, num_key_value_heads=40)
    assert 32 * model.kv_bytes(2048) / 1e9 == pytest.approx(53.7, abs=0.05)


def test_a_large_model_with_a_kv_head_for_each_query_keeps_3_terabytes() -> None:
    """118 layers, 48 heads of 128 for keys and values, 16 bit, 512 requests of 2,048 tokens."""
    model = made(num_hidden_layers=118, hidden_size=6144, num_attention_heads=48, num_key_value_heads=48)
    assert 512 * model.kv_bytes(2048) / 1e12 == pytest.approx(3.04, abs=0.005)


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_every_family_adds_up(kind: str) -> None:
    """Bytes are those of all weights, each layer keeps something, and what a token uses is no more than there is."""
    model = model_of({**WHOLE, "model_type": kind}, None, "", "")
    assert model.weight_bytes == 2 * model.params == 2 * sum(part.elements for part in model.parts)
    assert len(model.architecture.attention) == 2
    assert 0 < model.active_params <= model.params
    names = [weight.name for weight in model.architecture.weights]
    assert len(set(names)) == len(names)


@given(
    kind=st.sampled_from(sorted(FAMILIES)),
    contexts=st.lists(st.integers(0, 100_000), min_size=2, max_size=2).map(sorted),
    window=st.integers(1, 10_000),
)
def test_the_kv_cache_only_grows_and_a_window_caps_it(kind: str, contexts: list[int], window: int) -> None:
    config = {**WHOLE, "model_type": kind, "sliding_window": window, "use_sliding_window": True}
    model = model_of(config, None, "", "")
    few, many = (model.kv_bytes(context) for context in contexts)
    assert few <= many <= contexts[1] * model.kv_bytes_per_token
    if all(layer.window for layer in model.architecture.attention):
        assert many <= max(layer.window or 0 for layer in model.architecture.attention) * model.kv_bytes_per_token


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "mamba2"}, "model_type mamba2 is not known here"),
        ({"model_type": "mamba2"}, "known are cohere, deepseek_v2"),
        ({"model_type": None}, "lacks model_type"),
        ({"model_type": ["llama"]}, "model_type is nested"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"hidden_size": "4096"}, "hidden_size is '4096', and no whole number"),
        ({"hidden_size": 64.5}, "no whole number"),
        ({"hidden_size": True}, "no whole number"),
        ({"hidden_size": -64}, "no whole number from 1"),
        ({"hidden_size": 10**4000}, "a huge number"),
        ({"hidden_size": 66}, "hidden_size 66 is no multiple of 4 heads"),
        ({"num_hidden_layers": 10**9}, "no whole number from 1 to 1,000"),
        ({"num_hidden_layers": float("nan")}, "no whole number"),
        ({"num_key_value_heads": 3}, "4 attention heads cannot share 3 key-value heads"),
        ({"tie_word_embeddings": "yes"}, "neither true nor false"),
        ({"torch_dtype": "int3"}, "dtype int3 is not known"),
        ({"model_type": "mixtral"}, "lacks num_local_experts"),
        (
            {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 9},
            "uses 9 experts, and there are 8",
        ),
        ({"model_type": "gpt_oss", **MIXTURE, "layer_types": ["full_attention"]}, "1 entries for 2 layers"),
        ({"model_type": "gpt_oss", **MIXTURE, "layer_types": ["full_attention", "linear"]}, "layer_types has 'linear'"),
        ({"model_type": "gpt_oss", **MIXTURE, "layer_types": "full"}, "no list of texts"),
        ({"model_type": "deepseek_v3"}, "lacks kv_lora_rank"),
        ({"text_config": []}, "text_config is nested, and no object"),
        ({"text_config": {"hidden_size": 3}}, "text_config of config.json lacks model_type"),
    ],
)
def test_what_is_lacking_or_wrong_is_said(changes: Mapping[str, Any], words: str, tmp_path: Path) -> None:
    values = {name: value for name, value in {**DENSE, **changes}.items() if value is not None}
    with pytest.raises(ValueError) as error:
        model_of(values, None, "", "")
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**30) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=400, deadline=None)
@given(
    kind=st.sampled_from(sorted(FAMILIES)),
    field=st.sampled_from([*WHOLE, "sliding_window", "layer_types", "mlp_only_layers", "text_config", "head_dim"]),
    value=_ANY,
)
def test_a_field_may_hold_anything(kind: str, field: str, value: Any) -> None:
    """It makes a model or a sentence, never anything else."""
    try:
        model = model_of({**WHOLE, "model_type": kind, field: value}, None, "", "")
    except ValueError as error:
        assert str(error)  # noqa: PT017
    else:
        assert model.weight_bytes > 0
        assert model.kv_bytes(1000) > 0


def test_a_folder_or_a_file_beside_others(tmp_path: Path) -> None:
    folder = tmp_path / "a-model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(DENSE))
    (tmp_path / "org--b_config.json").write_text(json.dumps(DENSE))
    (tmp_path / "c.json").write_text(json.dumps(DENSE))
    assert load_model(folder).name == load_model(folder / "config.json").name == "a-model"
    assert load_model(folder).source == str(folder / "config.json")
    assert load_model(tmp_path / "org--b_config.json").name == "org/b"
    assert load_model(tmp_path / "c.json").name == "c"


def test_a_file_that_is_no_config(tmp_path: Path) -> None:
    bad = {
        "broken": (b"{", "no JSON"),
        "deep": (b"[" * 200_000, "no JSON"),
        "digits": (b'{"hidden_size": ' + b"9" * 10_000 + b"}", "no JSON"),
        "latin": (b'{"a": "\xff"}', "no JSON"),
        "list": (b"[1]", "a JSON object"),
        "large": (b" " * (17 << 20), "larger than 16 MiB"),
    }
    for name, (data, words) in bad.items():
        path = tmp_path / f"{name}.json"
        path.write_bytes(data)
        with pytest.raises(BadInput, match=words) as error:
            load_model(path)
        assert f"{name}.json" in str(error.value)
    with pytest.raises(BadInput, match=r"cannot be read \(No such file"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(BadInput):
        load_model(Path("/nowhere\0"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadInput, match="pipe"):
        load_model(tmp_path / "pipe")


def test_a_name_from_a_file_steers_no_terminal(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**DENSE, "model_type": "\x1b[2Jllama\n" * 100}))
    with pytest.raises(BadInput) as error:
        load_model(tmp_path)
    assert "\x1b" not in str(error.value)
    assert "\n" not in str(error.value)


CONFIGS = Path(os.environ.get("SERVEMARK_DATA", "/nowhere")) / "hf_configs"
TOTALS = {
    "Qwen--Qwen3-0.6B_config.json": 596_049_920,
    "Qwen--Qwen3-30B-A3B_config.json": 30_532_122_624,
    "Qwen--Qwen3-32B-FP8_config.json": 32_762_123_264,
    "Qwen--Qwen3-32B_config.json": 32_762_123_264,
    "Qwen--Qwen3-8B_config.json": 8_190_735_360,
    "deepseek_v2_lite.json": 15_706_484_224,
    "gemma2_9b.json": 9_241_705_984,
    "llama2_13b.json": 13_015_864_320,
    "llama2_70b.json": 68_976_648_192,
    "llama2_7b.json": 6_738_415_616,
    "meta-llama--Meta-Llama-3.1-70B_config.json": 70_553_706_496,
    "meta-llama--Meta-Llama-3.1-8B_config.json": 8_030_261_248,
    "mistral_7b.json": 7_241_732_096,
    "mistralai--Mixtral-8x7B-v0.1_config.json": 46_702_792_704,
    "nvidia--Llama-3.1-70B-Instruct-FP8_config.json": 70_553_706_496,
    "openai--gpt-oss-20b_config.json": 20_914_757_184,
    "qwen2_7b.json": 7_615_616_512,
}


@pytest.mark.skipif(not CONFIGS.is_dir(), reason="SERVEMARK_DATA names no folder with hf_configs")
def test_published_files_come_to_their_published_totals() -> None:
    files = sorted(path for path in CONFIGS.glob("*.json") if "hf_quant" not in path.name)
    assert {path.name: load_model(path).params for path in files} == TOTALS


def test_the_docs_name_every_family() -> None:
    page = (Path(__file__).parent.parent / "docs" / "models.md").read_text()
    assert [kind for kind in FAMILIES if f"`{kind}`" not in page] == []

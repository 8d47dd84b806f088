"""Formats of weights: what they take, what they are multiplied as, and which weights have them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servemark.harness.errors import BadInput
from servemark.harness.hardware.architecture import Weight
from servemark.harness.hardware.config import load_model, model_of
from servemark.harness.hardware.model import Model
from servemark.harness.hardware.modules import Modules
from servemark.harness.hardware.quantisation import KV_FORMATS, WEIGHT_FORMATS, kv_format, weight_format

HIDDEN, WIDTH, VOCAB, LAYERS = 256, 512, 1000, 2
DENSE: Mapping[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": LAYERS,
    "hidden_size": HIDDEN,
    "intermediate_size": WIDTH,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": VOCAB,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
MIXTURE: Mapping[str, Any] = {
    **DENSE,
    "model_type": "mixtral",
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}
ATTENTION, MLP, HEAD = 4 * HIDDEN * HIDDEN, 3 * HIDDEN * WIDTH, VOCAB * HIDDEN
MATRICES = LAYERS * (ATTENTION + MLP)
SIXTEEN = 2 * (2 * HEAD + (2 * LAYERS + 1) * HIDDEN)
"""Bytes of the embedding, the head and the norms."""


def quantised(settings: Mapping[str, Any] | None, base: Mapping[str, Any] = DENSE, **more: Any) -> Model:
    config = base if settings is None else {**base, "quantization_config": settings}
    return model_of(config, None, "made", "here", **more)


def by_role(model: Model) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float] = {}
    for part in model.parts:
        found[part.role, part.compute] = found.get((part.role, part.compute), 0) + part.bytes
    return found


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("bf16", 16),
        ("mxfp4", 4.25),
        ("int4-awq", 4 + 20 / 128),
        ("int4", 4.125),
        ("nf4", 4.5),
        ("mxfp8", 8.25),
        ("fp8-block", 8 + 32 / 16384),
        ("fp8-channel", 8 + 32 / 1024),
        ("fp8", 8 + 64 / 1024**2),
        ("nvfp4", 4.5 + 64 / 1024**2),
        ("int4-gptq", 4 + 20 / 128 + 32 / 1024),
    ],
)
def test_bits_of_a_weight_with_its_scales(name: str, bits: float) -> None:
    matrix = Weight("m", "mlp", 1024, 1024, count=3)
    assert WEIGHT_FORMATS[name].bytes(matrix) * 8 / matrix.elements == pytest.approx(bits, rel=1e-12)


def test_a_block_that_is_not_full_has_a_scale_too() -> None:
    assert WEIGHT_FORMATS["fp8-block"].bytes(Weight("m", "mlp", 129, 128)) == 129 * 128 + 2 * 4


def test_weight_only_formats_multiply_at_16_bit() -> None:
    at_16 = {name for name, form in WEIGHT_FORMATS.items() if form.compute == "bf16"}
    assert {"int4", "int4-awq", "int4-gptq", "nf4", "mxfp4", "int8-weight-only", "fp8-weight-only"} <= at_16
    own = {name: WEIGHT_FORMATS[name].compute for name in ("fp8", "fp8-block", "int8", "nvfp4", "mxfp4-full")}
    assert own == {"fp8": "fp8", "fp8-block": "fp8", "int8": "int8", "nvfp4": "fp4", "mxfp4-full": "fp4"}


def test_fp8_in_blocks_as_deepseek_and_qwen_have_it() -> None:
    model = quantised({"quant_method": "fp8", "weight_block_size": [128, 128]})
    scales = 4 * MATRICES / (128 * 128)
    assert model.weight_bytes == MATRICES + scales + SIXTEEN
    assert model.weights == "fp8-block"
    assert by_role(model)["attention", "fp8"] == pytest.approx(LAYERS * ATTENTION, rel=0.001)
    assert by_role(model)["head", "bf16"] == 2 * HEAD
    assert model.kv == "bf16"


def test_modules_that_are_not_converted_stay_at_16_bit() -> None:
    skipped = ["model.layers.0.mlp", "model.layers.1.self_attn.q_proj", "lm_head"]
    model = quantised({"quant_method": "fp8", "modules_to_not_convert": skipped})
    left = MLP + HIDDEN * HIDDEN
    scales = 8 * (2 * (4 + 3) - 3 - 1)  # of each matrix that is left, one for it and one for its inputs
    assert model.weight_bytes == MATRICES + left + scales + SIXTEEN


def test_awq_counts_scales_and_zero_points() -> None:
    model = quantised({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True})
    assert model.weight_bytes == MATRICES / 2 + MATRICES / 128 * (2 + 0.5) + SIXTEEN
    assert model.weights == "int4-awq"
    assert {part.compute for part in model.parts} == {"bf16"}


def test_gptq_with_one_scale_for_all_inputs_and_the_group_of_each() -> None:
    model = quantised({"quant_method": "gptq", "bits": 8, "group_size": -1, "desc_act": False, "sym": True})
    rows = LAYERS * (4 * HIDDEN + 2 * WIDTH + HIDDEN)
    inputs = LAYERS * (4 * HIDDEN + 2 * HIDDEN + WIDTH)
    assert model.weight_bytes == MATRICES + rows * (2 + 1) + inputs * 4 + SIXTEEN
    assert model.weights == "int8-gptq"


def test_gptq_that_leaves_layers_out() -> None:
    whole = {"quant_method": "gptq", "bits": 4, "group_size": 128}
    model = quantised({**whole, "dynamic": {r"-:model\.layers\.0\..*": {}}})
    assert by_role(model)["mlp", "bf16"] > by_role(quantised(whole))["mlp", "bf16"] + 1.4 * MLP


def test_experts_alone_have_mxfp4() -> None:
    model = quantised({"quant_method": "mxfp4"}, MIXTURE)
    experts = LAYERS * 8 * MLP
    assert sum(part.bytes for part in model.parts if part.role == "expert") == experts * 4.25 / 8
    assert sum(part.bytes for part in model.parts if part.role == "attention") == 2 * LAYERS * ATTENTION
    assert {part.compute for part in model.parts} == {"bf16"}  # weight-only: Hopper has no such arithmetic
    assert model.weights == "mxfp4"


def test_bitsandbytes() -> None:
    four = quantised({"quant_method": "bitsandbytes", "load_in_4bit": True})
    twice = quantised({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_use_double_quant": True})
    assert four.weight_bytes == MATRICES * 4.5 / 8 + SIXTEEN
    assert twice.weight_bytes == MATRICES * (4 + 8.125 / 64) / 8 + SIXTEEN
    assert quantised({"quant_method": "bitsandbytes", "load_in_8bit": True}).weights == "int8"


def group(weights: Mapping[str, Any], activations: Mapping[str, Any] | None, *targets: str) -> dict[str, Any]:
    return {"weights": weights, "input_activations": activations, "targets": list(targets) or ["Linear"]}


def compressed(**groups: Any) -> dict[str, Any]:
    return {"quant_method": "compressed-tensors", "config_groups": groups, "ignore": ["lm_head"]}


FLOAT8 = {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True}
BLOCKS = {**FLOAT8, "strategy": "block", "block_structure": [128, 128]}
FLOAT4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True}
INT8 = {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True}
ROWS = LAYERS * (4 * HIDDEN + 2 * WIDTH + HIDDEN)


@pytest.mark.parametrize(
    ("weights", "activations", "name", "compute", "size"),
    [
        (FLOAT8, FLOAT8, "fp8", "fp8", MATRICES + 8 * 14),
        ({**FLOAT8, "strategy": "channel"}, FLOAT8, "fp8-channel", "fp8", MATRICES + 4 * ROWS),
        (BLOCKS, FLOAT8, "fp8-block", "fp8", MATRICES * 16388 / 16384),
        ({**FLOAT8, "strategy": "channel"}, None, "fp8-weight-only", "bf16", MATRICES + 4 * ROWS),
        (INT8, INT8, "int8", "int8", MATRICES + 4 * ROWS),
        (INT8, None, "int8-weight-only", "bf16", MATRICES + 2 * ROWS),
        (INT4, None, "int4", "bf16", MATRICES * 4.125 / 8),
        ({**INT4, "symmetric": False}, None, "int4", "bf16", MATRICES * (4 + 20 / 128) / 8),
        (INT4, FLOAT8, "int4", "fp8", MATRICES * 4.125 / 8),
        (INT4, INT8, "int4", "int8", MATRICES * 4.125 / 8),
        (FLOAT4, FLOAT4, "nvfp4", "fp4", MATRICES * 4.5 / 8 + 8 * 14),
        (FLOAT4, None, "nvfp4-weight-only", "bf16", MATRICES * 4.5 / 8 + 4 * 14),
        ({**FLOAT4, "strategy": "group", "group_size": 32}, None, "mxfp4", "bf16", MATRICES * 4.25 / 8),
    ],
)  # fmt: skip
def test_compressed_tensors(weights: Any, activations: Any, name: str, compute: str, size: float) -> None:
    model = quantised(compressed(group_0=group(weights, activations)))
    assert model.weights == name
    assert model.weight_bytes == pytest.approx(size + SIXTEEN, rel=1e-12)
    assert by_role(model).keys() >= {("mlp", compute), ("attention", compute), ("head", "bf16"), ("norm", "bf16")}


def test_compressed_tensors_quantises_the_head_unless_it_is_ignored() -> None:
    settings = {**compressed(group_0=group(INT8, INT8)), "ignore": []}
    assert by_role(quantised(settings))["head", "int8"] == HEAD + 4 * VOCAB


def test_groups_for_some_modules_and_a_narrow_kv_cache() -> None:
    settings = {
        **compressed(
            group_0=group(FLOAT4, FLOAT4, "re:.*mlp.*_proj$"),
            group_1=group(FLOAT8, FLOAT8, r"re:.*self_attn\.(q|k|v)_proj"),
        ),
        "kv_cache_scheme": {"num_bits": 8, "type": "float", "strategy": "tensor"},
    }
    model = quantised(settings)
    sizes = by_role(model)
    assert sizes["mlp", "fp4"] == LAYERS * MLP * 4.5 / 8 + 8 * 6
    assert sizes["attention", "fp8"] == LAYERS * 3 * HIDDEN * HIDDEN + 8 * 6
    assert sizes["attention", "bf16"] == 2 * LAYERS * HIDDEN * HIDDEN
    assert (model.kv, model.kv_bytes_per_token) == ("fp8", LAYERS * 2 * HIDDEN)


def modelopt(**values: Any) -> dict[str, Any]:
    return {"producer": {"name": "modelopt"}, "quantization": values}


def test_modelopt_in_a_file_beside(tmp_path: Path) -> None:
    """Only that file says so; both names that the pair of files goes by are found."""
    quant = modelopt(quant_algo="FP8", kv_cache_quant_algo="FP8", exclude_modules=["lm_head"])
    for config, beside in (("config.json", "hf_quant_config.json"), ("a_config.json", "a_hf_quant_config.json")):
        (tmp_path / config).write_text(json.dumps(DENSE))
        assert load_model(tmp_path / config).weights == "bf16"
        (tmp_path / beside).write_text(json.dumps(quant))
        model = load_model(tmp_path / config)
        assert (model.weights, model.kv) == ("fp8", "fp8")
        assert model.weight_bytes == MATRICES + 8 * 14 + SIXTEEN


def test_modelopt_nvfp4_without_its_attention() -> None:
    quant = modelopt(quant_algo="NVFP4", group_size=16, exclude_modules=["model.layers.*.self_attn*", "lm_head"])
    model = model_of(DENSE, quant, "", "")
    assert by_role(model)["mlp", "fp4"] == LAYERS * MLP * 4.5 / 8 + 8 * 6
    assert by_role(model)["attention", "bf16"] == 2 * LAYERS * ATTENTION
    assert model.weights == "nvfp4"
    assert model.kv == "bf16"


def test_modelopt_mixes_formats_by_layer() -> None:
    layers = {f"model.layers.{place}.mlp.{name}_proj": {"quant_algo": "NVFP4", "group_size": 16} for place in (0, 1) for name in ("gate", "up", "down")}  # fmt: skip  # noqa: E501
    layers["model.layers.0.self_attn.qkv_proj"] = {"quant_algo": "FP8"}
    model = model_of(DENSE, modelopt(quant_algo="MIXED_PRECISION", quantized_layers=layers), "", "")
    sizes = by_role(model)
    assert sizes["mlp", "fp4"] == LAYERS * MLP * 4.5 / 8 + 8 * 6
    assert sizes["attention", "fp8"] == 3 * HIDDEN * HIDDEN + 8 * 3  # named as a server fuses them
    assert sizes["attention", "bf16"] == 2 * (5 * HIDDEN * HIDDEN)
    assert ("head", "bf16") in sizes


def test_modelopt_in_config_json_as_groups() -> None:
    """Newer files have it there, and name the groups as compressed-tensors does."""
    narrow = {"num_bits": 8, "type": "float", "dynamic": False}
    settings = {"quant_method": "modelopt", "quant_algo": "FP8", "ignore": ["lm_head"], "kv_cache_scheme": narrow}
    settings["config_groups"] = {"group_0": group(narrow, narrow)}
    assert quantised(settings).weight_bytes == MATRICES + 8 * 14 + SIXTEEN
    assert quantised(settings).kv == "fp8"
    mixed = {**settings, "quant_algo": "MIXED_PRECISION"}
    assert quantised(mixed).weights == "fp8"


def test_what_if_another_format() -> None:
    assert quantised(None, weights="fp8").weight_bytes == MATRICES + 8 * 14 + SIXTEEN
    assert quantised(None, weights="fp32").weight_bytes == 2 * quantised(None).weight_bytes
    assert quantised(None, weights="fp32").kv == "fp32"
    assert quantised(None, kv="fp8").kv_bytes_per_token * 2 == quantised(None).kv_bytes_per_token
    assert quantised({"quant_method": "awq"}, weights="bf16").weight_bytes == 2 * MATRICES + SIXTEEN


def test_to_ask_for_the_format_that_it_has_changes_nothing() -> None:
    """Nor what it leaves out."""
    settings = {"quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": ["mlp"]}
    assert quantised(settings, weights="fp8").parts == quantised(settings).parts
    assert quantised(settings, weights="int8").parts != quantised(settings).parts
    assert quantised(settings, kv="auto").kv == "bf16"


def test_other_names_of_formats() -> None:
    assert weight_format("torch.bfloat16").name == "bf16"
    assert weight_format("AWQ_Marlin").name == "int4-awq"
    assert kv_format("fp8_e5m2") == "fp8"
    with pytest.raises(ValueError, match="int3 is no known format of weights; known are fp32, bf16"):
        weight_format("int3")
    with pytest.raises(ValueError, match="no known format of the KV cache; known are"):
        kv_format("int3")


@pytest.mark.parametrize(
    ("listed", "name", "inside"),
    [
        ("lm_head", "lm_head", True),
        ("mlp.gate", "model.layers.3.mlp.gate", True),
        ("mlp.gate", "model.layers.3.mlp.gate_proj", False),
        ("model.layers.1", "model.layers.1.mlp.up_proj", True),
        ("model.layers.1", "model.layers.11.mlp.up_proj", False),
        ("model.layers.*.self_attn", "model.layers.7.self_attn.o_proj", True),
        ("model.layers.*.self_attn*", "model.layers.7.self_attn.o_proj", True),
        ("*.mlp.gate", "model.layers.3.mlp.gate", True),
        ("*.mlp.gate", "model.layers.3.mlp.gate_proj", False),
        ("re:.*lm_head", "lm_head", True),
        ("re:.*mlp.gate$", "model.layers.3.mlp.gate_proj", False),
        ("re:self_attn", "model.layers.3.self_attn.q_proj", False),  # from the beginning of the name
        ("re:.*experts.*", "model.layers.3.mlp.experts.0.up_proj", True),
        ("model.layers.2.self_attn.qkv_proj", "model.layers.2.self_attn.v_proj", True),
        ("language_model.model.layers.0.mlp", "model.layers.0.mlp.up_proj", True),
        (r"re:.*language_model\.lm_head", "lm_head", True),
        ("model.language_model.layers.0.mlp", "model.layers.0.mlp.up_proj", True),
    ],
)
def test_lists_of_modules(listed: str, name: str, inside: bool) -> None:
    assert (name in Modules([listed], "here")) is inside


@pytest.mark.parametrize("pattern", ["re:(a+)+$", "re:.*a.*a.*a.*a.*b", "re:(", "re:" + "a" * 400, "re:a{1,9}{1,9}"])
def test_patterns_that_cannot_be_used(pattern: str) -> None:
    with pytest.raises(ValueError, match="here has a pattern"):
        Modules([pattern], "here")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"quant_method": "quark"}, "quant_method quark is not known here; known are fp8"),
        ({"bits": 4}, "there is no quant_method"),
        ({"quant_method": 4}, "quant_method is 4, and no text"),
        ("fp8", "quantization_config is 'fp8', and no object"),
        ({"quant_method": "fp8", "weight_block_size": [128]}, "must be two numbers above 0"),
        ({"quant_method": "fp8", "weight_block_size": [0, 1]}, "must be two numbers above 0"),
        ({"quant_method": "fp8", "modules_to_not_convert": "lm_head"}, "no list of texts"),
        ({"quant_method": "awq", "bits": 99}, "no whole number from 1 to 8"),
        ({"quant_method": "gptq", "dynamic": {"+:.*": {"bits": 8}}}, "bits of their own"),
        ({"quant_method": "compressed-tensors"}, "lacks config_groups"),
        (compressed(a=group({"num_bits": 6, "type": "float"}, None)), "weights of 6 bits (float) are not known"),
        (compressed(a=group({**FLOAT8, "strategy": "wild"}, None)), "strategy wild is not known"),
        ({**compressed(), "sparsity_config": {"format": "sparse-24-bitmask"}}, "not zero are not known"),
        ({**compressed(), "kv_cache_scheme": {"num_bits": 3}}, "a KV cache of 3 bits"),
        ({"quant_method": "modelopt", "quant_algo": "FP3"}, "quant_algo FP3 is not known here; known are FP8"),
        ({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}, "lacks quantized_layers"),
        ({"quant_method": "modelopt", "kv_cache_quant_algo": "FP2"}, "kv_cache_quant_algo FP2 is not known"),
    ],
)
def test_what_is_not_known_is_said(settings: Any, words: str) -> None:
    with pytest.raises(ValueError) as error:
        quantised(settings)
    assert words in str(error.value)
    assert "quantization_config" in str(error.value)


def test_an_empty_entry_says_nothing() -> None:
    quant = modelopt(quant_algo="FP8", exclude_modules=["lm_head"])
    assert model_of({**DENSE, "quantization_config": {}}, quant, "", "").weights == "fp8"
    assert model_of({**DENSE, "quantization_config": None}, {"producer": {}}, "", "").weights == "bf16"


def test_a_file_beside_that_is_broken_names_itself(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(DENSE))
    (tmp_path / "hf_quant_config.json").write_text("{")
    with pytest.raises(BadInput, match=r"hf_quant_config\.json: this is no JSON"):
        load_model(tmp_path)


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**30) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
_WHOLE: Mapping[str, Any] = {
    **compressed(group_0=group(INT4, None)),
    "quantized_layers": {"lm_head": {"quant_algo": "FP8"}},
    "quant_algo": "NVFP4",
    "kv_cache_scheme": {"num_bits": 8},
    "weight_block_size": [128, 128],
    "modules_to_not_convert": ["lm_head"],
    "exclude_modules": ["lm_head"],
    "bits": 4,
    "group_size": 128,
    "zero_point": True,
    "dynamic": {},
    "sparsity_config": {},
}


@settings(max_examples=300, deadline=None)
@given(
    method=st.sampled_from(["fp8", "awq", "gptq", "mxfp4", "compressed-tensors", "modelopt", "bitsandbytes"]),
    field=st.sampled_from(sorted(_WHOLE)),
    value=_ANY,
)
def test_a_field_may_hold_anything(method: str, field: str, value: Any) -> None:
    try:
        model = quantised({**_WHOLE, "quant_method": method, field: value})
    except ValueError as error:
        assert str(error)  # noqa: PT017
    else:
        assert 0 < model.weight_bytes < 4 * model.params


SHAPES = {"rows": st.integers(1, 5000), "columns": st.integers(2, 5000), "count": st.integers(1, 300)}


@given(form=st.sampled_from(list(WEIGHT_FORMATS.values())), **SHAPES)
def test_a_format_takes_its_bits_and_its_scales(form: Any, rows: int, columns: int, count: int) -> None:
    """Without scales a narrower format never takes more, and half the bits take half the bytes."""
    matrix = Weight("m", "mlp", rows, columns, count)
    bare = replace(form, scale_bits=0, zero_bits=0, tensor_bits=0, column_bits=0)
    half = replace(bare, bits=form.bits / 2)
    assert bare.bytes(matrix) == form.bits / 8 * matrix.elements
    assert half.bytes(matrix) * 2 == bare.bytes(matrix)
    scales = form.bytes(matrix) - bare.bytes(matrix)
    blocks = count * -(-rows // (form.block[0] or rows)) * -(-columns // (form.block[1] or columns))
    held = blocks * (form.scale_bits + form.zero_bits) + count * (form.tensor_bits + form.column_bits * columns)
    assert scales == pytest.approx(held / 8, rel=1e-9, abs=1e-6)


@given(form=st.sampled_from(sorted(WEIGHT_FORMATS)), kv=st.sampled_from(sorted(KV_FORMATS)))
def test_a_narrower_format_is_smaller_and_has_as_many_weights(form: str, kv: str) -> None:
    wide, narrow = quantised(None), quantised(None, weights=form, kv=kv)
    assert sum(part.elements for part in narrow.parts) == wide.params
    if WEIGHT_FORMATS[form].bits < 16:
        assert narrow.weight_bytes < wide.weight_bytes
    assert narrow.kv_bytes(100) == wide.kv_bytes(100) * KV_FORMATS[kv] / 2


def test_the_docs_name_every_format_and_method() -> None:
    page = (Path(__file__).parent.parent / "docs" / "models.md").read_text()
    assert [name for name in (*WEIGHT_FORMATS, *KV_FORMATS) if f"`{name}`" not in page] == []
    rows = [line.split("|")[1:4] for line in page.splitlines() if line.startswith("| `")]
    said = {
        name.strip(" `"): compute.strip()
        for names, _, compute in (row for row in rows if len(row) == 3)
        for name in names.split(",")
    }
    assert {name: said[name] for name in WEIGHT_FORMATS} == {
        name: form.compute for name, form in WEIGHT_FORMATS.items()
    }

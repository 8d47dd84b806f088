"""compressed-tensors and ModelOpt: several formats in one model, each for a list of modules."""

from __future__ import annotations

from dataclasses import replace

from servemark.harness.hardware.families.fields import Fields
from servemark.harness.hardware.modules import Modules
from servemark.harness.hardware.quant_methods import excluded_of, kv_of, method
from servemark.harness.hardware.quantisation import WEIGHT_FORMATS, WeightFormat
from servemark.harness.hardware.quantised import LINEAR, Quantisation, Rule
from servemark.harness.plaintext import one_line

_MOST_GROUPS = 1_000


@method("compressed-tensors", "compressed_tensors")
def compressed_tensors(fields: Fields, plain: WeightFormat) -> Quantisation:
    groups = fields.part("config_groups")
    if groups is None:
        raise ValueError(f"{fields.where} lacks config_groups")
    if len(groups.values) > _MOST_GROUPS:
        raise ValueError(f"{groups.where}: there are more than {_MOST_GROUPS:,} groups")
    _refuse_sparse(fields)
    rules = tuple(rule for name in groups.values if (rule := _rule(groups.part(name))) is not None)
    return Quantisation(plain, rules, excluded_of(fields, "ignore"), LINEAR, kv_of(fields))


def _refuse_sparse(fields: Fields) -> None:
    sparse = fields.part("sparsity_config")
    if sparse is not None and (sparse.text("format") or "dense") != "dense":
        raise ValueError(f"{sparse.where}: weights that are packed by what is not zero are not known here")


def _rule(group: Fields | None) -> Rule | None:
    weights = None if group is None else group.part("weights")
    if group is None or weights is None:
        return None
    targets = group.texts("targets")
    everywhere = not targets or "Linear" in targets
    form = _format(weights, group.part("input_activations"))
    return Rule(form, None if everywhere else Modules(targets, group.where))


def _format(weights: Fields, activations: Fields | None) -> WeightFormat:
    bits, kind = weights.count("num_bits", most=16), weights.text("type") or "int"
    form = _shaped(weights, _base(weights, kind, bits, activations))
    if kind == "int" and not weights.flag("symmetric", True):
        return replace(form, zero_bits=bits)
    return form


def _base(weights: Fields, kind: str, bits: int, activations: Fields | None) -> WeightFormat:
    """By kind, bits, and whether activations are as narrow."""
    both = activations is not None
    group = weights.maybe("group_size", least=-1)
    names = {
        ("float", 8): "mxfp8" if group == 32 else "fp8" if both else "fp8-weight-only",
        ("float", 4): ("mxfp4-full" if both else "mxfp4") if group == 32 else "nvfp4" if both else "nvfp4-weight-only",
        ("int", 8): "int8" if both else "int8-weight-only",
        ("int", 4): "int4",
    }
    if (kind, bits) not in names:
        raise ValueError(f"{weights.where}: weights of {bits} bits ({one_line(kind, 20)}) are not known here")
    form = WEIGHT_FORMATS[names[kind, bits]]
    return replace(form, compute=_compute(activations)) if both else form


def _compute(activations: Fields | None) -> str:
    """A multiplication is as wide as the wider of its two sides, which activations are."""
    if activations is None:
        return "bf16"
    kind, bits = activations.text("type") or "int", activations.count("num_bits", most=16)
    return {("float", 8): "fp8", ("int", 8): "int8", ("float", 4): "fp4"}.get((kind, bits), "bf16")


def _shaped(weights: Fields, form: WeightFormat) -> WeightFormat:
    """With scales for a matrix, a row, a group of inputs, or a block."""
    strategy = weights.text("strategy") or ("group" if weights.maybe("group_size") else "tensor")
    if strategy == "tensor":
        return replace(form, scale_bits=0, block=(0, 0), tensor_bits=64)
    if strategy == "channel":
        renamed = "fp8-channel" if form.name == "fp8" else form.name
        return replace(form, name=renamed, scale_bits=form.scale_bits or 32, block=(1, 0), tensor_bits=0)
    if strategy == "block":
        sizes = weights.counts("block_structure")
        if len(sizes) != 2 or 0 in sizes:
            raise ValueError(f"{weights.where}: block_structure must be two numbers above 0")
        return replace(WEIGHT_FORMATS["fp8-block"], compute=form.compute, block=(sizes[0], sizes[1]))
    if strategy in ("group", "tensor_group"):
        block, ordered = (1, weights.count("group_size")), 32 if weights.text("actorder") == "group" else 0
        return replace(form, scale_bits=form.scale_bits or 16, block=block, column_bits=ordered)
    raise ValueError(f"{weights.where}: strategy {one_line(strategy, 40)} is not known here")


_ALGORITHMS = {
    "FP8": "fp8",
    "FP8_PER_CHANNEL_PER_TOKEN": "fp8-channel",
    "FP8_PB_WO": "fp8-block",
    "MXFP8": "mxfp8",
    "NVFP4": "nvfp4",
    "NVFP4_AWQ": "nvfp4",
    "NVFP4_SVDQUANT": "nvfp4",
    "W4A16_NVFP4": "nvfp4-weight-only",
    "W4A16_AWQ": "int4",
    "INT4_AWQ": "int4",
    "W4A16": "int4",
    "W4A16_GPTQ": "int4-gptq",
    "W8A16": "int8-weight-only",
    "INT8_SQ": "int8",
    "W8A8_SQ_PER_CHANNEL": "int8",
    "W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN": "int8",
    "MXFP4": "mxfp4-full",
}


@method("modelopt", "modelopt_fp8", "modelopt_fp4", "modelopt_mixed", "modelopt_mxfp8")
def modelopt(fields: Fields, plain: WeightFormat) -> Quantisation:
    name = (fields.text("quant_algo") or "").upper()
    excluded = excluded_of(fields, "exclude_modules", "ignore")
    if name in ("", "MIXED_PRECISION") and fields.has("config_groups"):
        return compressed_tensors(fields, plain)
    rules = _mixed(fields) if name == "MIXED_PRECISION" else (Rule(_algorithm(fields, name)),) if name else ()
    return Quantisation(plain, rules, excluded, LINEAR, kv_of(fields))


def _algorithm(fields: Fields, name: str) -> WeightFormat:
    if name in ("W4A8_AWQ", "W4A8_NVFP4_FP8", "W4A8_MXFP4_FP8"):
        form = WEIGHT_FORMATS["int4" if "AWQ" in name else "nvfp4" if "NVFP4" in name else "mxfp4"]
        form = replace(form, compute="fp8")
    elif name in _ALGORITHMS:
        form = WEIGHT_FORMATS[_ALGORITHMS[name]]
    else:
        raise ValueError(f"{fields.where}: quant_algo {one_line(name, 60)} is not known here; known are {_known()}")
    group = fields.maybe("group_size", least=0)
    grouped = form.block[0] == 1 and form.block[1]
    form = replace(form, block=(1, group)) if group and grouped else form
    zero = fields.flag("has_zero_point", False) and form.name.startswith("int4")
    return replace(form, zero_bits=form.bits) if zero else form


def _known() -> str:
    return ", ".join((*_ALGORITHMS, "MIXED_PRECISION"))


def _mixed(fields: Fields) -> tuple[Rule, ...]:
    """Each layer by its name, put together by format."""
    layers = fields.part("quantized_layers")
    if layers is None or not layers.values:
        raise ValueError(f"{fields.where} lacks quantized_layers")
    if len(layers.values) > 1_000_000:
        raise ValueError(f"{layers.where}: there are more than 1,000,000 of them")
    names: dict[WeightFormat, list[str]] = {}
    for name in layers.values:
        each = layers.part(name)
        if each is not None:
            names.setdefault(_algorithm(each, (each.text("quant_algo") or "").upper()), []).append(name)
    return tuple(Rule(form, Modules(listed, layers.where)) for form, listed in names.items())

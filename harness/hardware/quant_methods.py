"""What a `quantization_config`, or a hf_quant_config.json beside it, says of the weights.

A new one is a function with `@method(quant_method, ...)` in a module that this one, or config.py, imports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from servemark.harness.hardware.families.fields import Fields
from servemark.harness.hardware.modules import Modules
from servemark.harness.hardware.quantisation import WEIGHT_FORMATS, WeightFormat
from servemark.harness.hardware.quantised import LAYERS, LINEAR, Quantisation, Rule
from servemark.harness.plaintext import one_line
from servemark.harness.registry import Registry

Read = Callable[[Fields, WeightFormat], Quantisation]

METHODS: Registry[Read] = Registry("quant_method")


def method(*names: str) -> Callable[[Read], Read]:
    def add(read: Read) -> Read:
        for name in names:
            METHODS.register(name)(read)
        return read

    return add


def quantisation_of(config: Fields, beside: Mapping[str, Any] | None, plain: WeightFormat) -> Quantisation:
    """What config.json says goes before the file beside it. Raises ValueError."""
    inside = config.part("quantization_config")
    other = None if beside is None else Fields(beside, "hf_quant_config.json").part("quantization")
    fields = inside if inside is not None and inside.values else other
    if fields is None or not fields.values:
        return Quantisation(plain)
    name = (fields.text("quant_method") or ("modelopt" if fields.has("quant_algo") else "")).lower()
    if name not in METHODS:
        said = f"quant_method {one_line(name, 60)} is not known here" if name else "there is no quant_method"
        raise ValueError(f"{fields.where}: {said}; known are {', '.join(METHODS)}")
    found = METHODS[name](fields, plain)
    return found if found.kv or other is None else replace(found, kv=kv_of(other))


def excluded_of(fields: Fields, *names: str) -> Modules:
    return Modules(fields.texts(*names), fields.where)


def kv_of(fields: Fields) -> str | None:
    """By name (modelopt) or by scheme (compressed-tensors); None where it is the model's own."""
    named = fields.text("kv_cache_quant_algo")
    scheme = fields.part("kv_cache_scheme")
    kind, bits = "float", 0
    if named and named.upper() != "NONE":
        known = {"FP8": "fp8", "INT8": "int8", "NVFP4": "nvfp4"}
        if named.upper() not in known:
            raise ValueError(f"{fields.where}: kv_cache_quant_algo {one_line(named, 60)} is not known here")
        return known[named.upper()]
    if scheme is None:
        return None
    kind, bits = scheme.text("type") or "float", scheme.count("num_bits")
    schemes = {("float", 8): "fp8", ("int", 8): "int8", ("float", 4): "nvfp4"}
    if (kind, bits) not in schemes:
        raise ValueError(f"{scheme.where}: a KV cache of {bits} bits ({one_line(kind, 20)}) is not known here")
    return schemes[kind, bits]


@method("fp8")
def fp8(fields: Fields, plain: WeightFormat) -> Quantisation:
    """In blocks, as DeepSeek has it, or with one scale for each matrix."""
    excluded = excluded_of(fields, "modules_to_not_convert", "ignored_layers")
    return Quantisation(plain, (Rule(_blocks(fields)),), excluded)


def _blocks(fields: Fields) -> WeightFormat:
    sizes = fields.counts("weight_block_size")
    if not sizes:
        return WEIGHT_FORMATS["fp8"]
    if len(sizes) != 2 or 0 in sizes:
        raise ValueError(f"{fields.where}: weight_block_size must be two numbers above 0")
    return replace(WEIGHT_FORMATS["fp8-block"], block=(sizes[0], sizes[1]))


@method("fbgemm_fp8")
def fbgemm_fp8(fields: Fields, plain: WeightFormat) -> Quantisation:
    excluded = excluded_of(fields, "modules_to_not_convert")
    return Quantisation(plain, (Rule(WEIGHT_FORMATS["fp8-channel"]),), excluded)


@method("mxfp4", "gpt_oss_mxfp4")
def mxfp4(fields: Fields, plain: WeightFormat) -> Quantisation:
    """Experts alone have it."""
    excluded = excluded_of(fields, "modules_to_not_convert")
    return Quantisation(plain, (Rule(WEIGHT_FORMATS["mxfp4"]),), excluded, frozenset({"expert"}))


@method("awq")
def awq(fields: Fields, plain: WeightFormat) -> Quantisation:
    bits = fields.count("bits", "w_bit", default=4, most=8)
    zero = bits if fields.flag("zero_point", True) else 0
    form = replace(
        WEIGHT_FORMATS["int4-awq"], name=f"int{bits}-awq", bits=bits, zero_bits=zero, block=(1, _group(fields))
    )
    return Quantisation(plain, (Rule(form),), excluded_of(fields, "modules_to_not_convert"))


@method("gptq")
def gptq(fields: Fields, plain: WeightFormat) -> Quantisation:
    """Zero points are kept even where all are the same."""
    bits = fields.count("bits", default=4, most=8)
    form = replace(
        WEIGHT_FORMATS["int4-gptq"], name=f"int{bits}-gptq", bits=bits, zero_bits=bits, block=(1, _group(fields))
    )
    roles = LINEAR if fields.flag("lm_head", False) else LAYERS
    return Quantisation(plain, (Rule(form),), _left_out(fields), roles)


def _left_out(fields: Fields) -> Modules:
    """`dynamic` leaves modules out with `-:`; other bits for some of them are not known here."""
    dynamic = fields.part("dynamic")
    names = [] if dynamic is None else list(dynamic.values)
    if any(not str(name).startswith("-:") for name in names):
        raise ValueError(f"{fields.where}: dynamic gives some modules bits of their own, which is not known here")
    own = [f"re:{str(name)[2:]}" for name in names]
    return Modules([*own, *fields.texts("modules_to_not_convert", "modules_in_block_to_not_quantize")], fields.where)


def _group(fields: Fields) -> int:
    """How many inputs share a scale; 0, all of them, is written as -1."""
    size = fields.maybe("group_size", "q_group_size", least=-1)
    return 128 if size is None else max(size, 0)


@method("bitsandbytes")
def bitsandbytes(fields: Fields, plain: WeightFormat) -> Quantisation:
    excluded = excluded_of(fields, "llm_int8_skip_modules")
    if fields.flag("load_in_8bit", False) or fields.flag("_load_in_8bit", False):
        return Quantisation(plain, (Rule(WEIGHT_FORMATS["int8"]),), excluded)
    twice = fields.flag("bnb_4bit_use_double_quant", False)
    form = replace(WEIGHT_FORMATS["nf4"], scale_bits=8 + 32 / 256) if twice else WEIGHT_FORMATS["nf4"]
    return Quantisation(plain, (Rule(form),), excluded)

"""The suggestions. Each states what it rests on; what it would bring, only a run can say."""

from __future__ import annotations

from servemark.harness.efficiency.evidence import CLIENT_CHECKS, queued
from servemark.harness.efficiency.facts import Facts
from servemark.harness.efficiency.idea import Trigger, idea
from servemark.harness.efficiency.thresholds import Thresholds
from servemark.harness.figures.percent import share as percent


@idea("client_first", "Zhang et al., Treadmill: Attributing the Source of Tail Latency, ISCA 2016")
def client_first(facts: Facts, binds: str, limits: Thresholds) -> Trigger | None:
    failed = [code for code in CLIENT_CHECKS if facts.checks.get(code) == "invalid"]
    if not failed:
        return None
    text = "Mend the load generator first (another machine, or a lower load): what it measured is partly its own time."
    return Trigger(f"checks failed: {', '.join(failed)}", len(failed), text)


@idea("more_load", "Schroeder et al., Open Versus Closed: A Cautionary Tale, NSDI 2006")
def more_load(facts: Facts, binds: str, limits: Thresholds) -> Trigger | None:
    if binds != "client":
        return None
    text = "Raise the load before judging the server: `bench search` finds the highest one that meets the SLO."
    if facts.clients is not None and facts.largest_batch:
        return Trigger("clients / largest batch", facts.clients / facts.largest_batch, text)
    return Trigger("offered requests/s", facts.offered_rps, text) if facts.offered_rps else None


@idea("larger_batch", "Yu et al., Orca, OSDI 2022; Pope et al., Efficiently Scaling Transformer Inference, 2022")
def larger_batch(facts: Facts, binds: str, limits: Thresholds) -> Trigger | None:
    if not facts.running or not facts.largest_batch or facts.weights_share is None:
        return None
    share = facts.running / facts.largest_batch
    if (
        share >= limits.few_clients
        or facts.weights_share < limits.weights_share
        or binds not in ("bandwidth", "unclear")
    ):
        return None
    text = (
        f"Run more requests at once: {facts.running:.3g} ran, memory holds {facts.largest_batch:.0f}, and "
        f"{percent(facts.weights_share)} of the bytes are weights, which a larger batch shares."
    )
    return Trigger("running / largest batch", share, text)


@idea("max_num_seqs", "vLLM documentation, Optimization and Tuning, 2025")
def max_num_seqs(facts: Facts, binds: str, limits: Thresholds) -> Trigger | None:
    if facts.kv_usage is None or facts.waiting is None or not queued(facts, limits):
        return None
    if facts.kv_usage >= limits.memory_free or binds == "compute":
        return None
    text = (
        f"Let the engine run more at once (max-num-seqs, max-num-batched-tokens): {facts.waiting:.3g} requests waited "
        f"while KV memory was at most {percent(facts.kv_usage)} full."
    )
    return Trigger("KV usage", facts.kv_usage, text)


@idea("kv_memory", "Kwon et al., Efficient Memory Management with PagedAttention, SOSP 2023")
def kv_memory(facts: Facts, binds: str, limits: Thresholds) -> Trigger | None:
    if binds != "capacity" or facts.kv_usage is None:
        return None
    text = (
        f"Give the KV cache more memory (gpu-memory-utilization, shorter max-model-len, more GPUs for each server): it "
        f"was {percent(facts.kv_usage)} full."
    )
    return Trigger("KV usage", facts.kv_usage, text)


@idea("quantise_weights", "Frantar et al., GPTQ, 2022; Lin et al., AWQ, 2023")
def quantise_weights(facts: Facts, binds: str, limits: Thresholds) -> Trigger | None:
    if facts.weight_bits is None or facts.weight_bits < 15:
        return None
    if binds == "capacity" and facts.memory_share is not None and facts.memory_share >= limits.weights_share:
        text = f"Quantise the weights: they take {percent(facts.memory_share)} of each GPU's memory at {facts.weights}."
        return Trigger("weights / memory", facts.memory_share, text)
    if not _bandwidth(facts, binds) or facts.weights_share is None or facts.weights_share < limits.weights_share:
        return None
    share = facts.weights_share
    text = f"Quantise the weights to 8 or 4 bit: reading them at {facts.weights} is {percent(share)} of the bytes."
    return Trigger("weights / bytes", facts.weights_share, text)


@idea("quantise_compute", "Micikevicius et al., FP8 Formats for Deep Learning, 2022; Xiao et al., SmoothQuant, 2022")
def quantise_compute(facts: Facts, binds: str, limits: Thresholds) -> Trigger | None:
    if binds != "compute" or facts.narrower is None or facts.mfu is None:
        return None
    text = (
        f"Compute in {facts.narrower}, which this GPU multiplies faster than {facts.compute}: MFU is "
        f"{percent(facts.mfu)}."
    )
    return Trigger("MFU", facts.mfu, text)


@idea("quantise_kv", "Liu et al., KIVI, 2024; Hooper et al., KVQuant, 2024")
def quantise_kv(facts: Facts, binds: str, limits: Thresholds) -> Trigger | None:
    if facts.kv_bytes is None or facts.kv_bytes < 2:
        return None
    if binds == "capacity" and facts.kv_usage is not None:
        text = (
            "Keep the KV cache in 8 bit, which makes room for twice as many tokens: it was "
            f"{percent(facts.kv_usage)} full."
        )
        return Trigger("KV usage", facts.kv_usage, text)
    if not _bandwidth(facts, binds) or facts.kv_share is None or facts.kv_share < limits.kv_share:
        return None
    text = f"Keep the KV cache in 8 bit: reading it is {percent(facts.kv_share)} of the bytes."
    return Trigger("KV read / bytes", facts.kv_share, text)


@idea("prefix_caching", "Zheng et al., SGLang (RadixAttention), 2024; Kwon et al., PagedAttention, 2023")
def prefix_caching(facts: Facts, binds: str, limits: Thresholds) -> Trigger | None:
    share, cached = facts.prefill_share, facts.cached_share
    if share is None or share < limits.prompts_share or cached is None or cached >= limits.cached:
        return None
    if facts.followed_up > 0:
        text = (
            f"Turn on prefix caching, or route the turns of a conversation to one server: {percent(facts.followed_up)} "
            f"of the requests go on with one, and only {percent(cached)} of the prompt tokens were cached."
        )
        return Trigger("cached prompt tokens", cached, text)
    text = (
        f"If prompts share their beginnings, put what they share first and cache it: {percent(share)} of the least "
        f"time are prompts, and {percent(cached)} of their tokens were cached."
    )
    return Trigger("share of prompts in the floors", share, text)


@idea("speculate", "Leviathan et al., Fast Inference from Transformers via Speculative Decoding, 2023")
def speculate(facts: Facts, binds: str, limits: Thresholds) -> Trigger | None:
    if facts.drafts or facts.batch is None or facts.batch > limits.low_batch:
        return None
    if facts.tpot_binding != "bandwidth" or facts.experts or binds == "compute":
        return None
    text = f"Try speculative decoding: a step holds {facts.batch:.3g} requests, so checking more tokens costs little."
    return Trigger("batch", facts.batch, text)


@idea("speculate_less", "Liu et al., Optimizing Speculative Decoding for Serving LLMs Using Goodput, 2024")
def speculate_less(facts: Facts, binds: str, limits: Thresholds) -> Trigger | None:
    if facts.accepted is None or facts.accepted >= limits.accepted:
        return None
    if facts.batch is None or facts.batch <= limits.low_batch:
        return None
    text = (
        f"Draft fewer tokens, or none at this load: {percent(facts.accepted)} of them were accepted, and a step holds "
        f"{facts.batch:.3g} requests that the rest of the arithmetic is taken from."
    )
    return Trigger("accepted / drafted", facts.accepted, text)


@idea(
    "tensor_parallel", "Shoeybi et al., Megatron-LM, 2019; Pope et al., Efficiently Scaling Transformer Inference, 2022"
)
def tensor_parallel(facts: Facts, binds: str, limits: Thresholds) -> Trigger | None:
    if not _bandwidth(facts, binds) or facts.tpot_ratio is None or facts.tpot_ratio > 1 / limits.mbu:
        return None
    text = (
        f"For a shorter TPOT spread each layer over more GPUs (now {facts.gpus_per_server} a server): at "
        f"{facts.tpot_ratio:.2g} times its floor only more bandwidth, or fewer bytes, makes it shorter."
    )
    return Trigger("TPOT / floor", facts.tpot_ratio, text)


@idea("replicas", "Li et al., AlpaServe, OSDI 2023")
def replicas(facts: Facts, binds: str, limits: Thresholds) -> Trigger | None:
    if binds not in ("compute", "bandwidth", "capacity", "queueing"):
        return None
    if facts.waiting is None or not queued(facts, limits):
        return None
    text = f"For this load add replicas: {facts.waiting:.3g} requests waited on average."
    return Trigger("requests waiting", facts.waiting, text)


@idea("chunked_prefill", "Agrawal et al., Sarathi-Serve, OSDI 2024")
def chunked_prefill(facts: Facts, binds: str, limits: Thresholds) -> Trigger | None:
    ratio = None if facts.preemptions else _stalls(facts)
    if ratio is None or ratio < limits.stall_ratio or (facts.prompt or 0.0) < limits.long_prompt:
        return None
    text = (
        f"Compute prompts in smaller pieces beside decode (chunked prefill, a smaller max-num-batched-tokens): the p99 "
        f"gap between chunks is {ratio:.3g} times the median, at prompts of {facts.prompt:,.0f} tokens."
    )
    return Trigger("ICL p99 / p50", ratio, text)


@idea("disaggregate", "Zhong et al., DistServe, OSDI 2024; Patel et al., Splitwise, ISCA 2024")
def disaggregate(facts: Facts, binds: str, limits: Thresholds) -> Trigger | None:
    ratio = None if facts.preemptions else _stalls(facts)
    if ratio is None or ratio < limits.stall_ratio or facts.prefill_share is None:
        return None
    if facts.prefill_share < limits.prompts_share or facts.busy is None or facts.busy < limits.busy:
        return None
    text = (
        "Compute prompts on GPUs of their own (prefill/decode disaggregation): they take "
        f"{percent(facts.prefill_share)} of the work's least time, and the p99 gap between chunks is {ratio:.3g} times "
        "the median."
    )
    return Trigger("share of prompts in the floors", facts.prefill_share, text)


@idea("cooling", "NVIDIA, NVML API reference: clocks event reasons, 2025")
def cooling(facts: Facts, binds: str, limits: Thresholds) -> Trigger | None:
    if facts.throttled_share is None or facts.throttled_share < limits.throttled:
        return None
    text = f"See to power and cooling: the clocks were held down for {percent(facts.throttled_share)} of the time."
    return Trigger("throttled", facts.throttled_share, text)


def _bandwidth(facts: Facts, binds: str) -> bool:
    """The run is bound by bandwidth, or each token is and the load leaves it at that."""
    return binds == "bandwidth" or (binds == "client" and facts.tpot_binding == "bandwidth")


def _stalls(facts: Facts) -> float | None:
    if not facts.icl_p50_ms or facts.icl_p99_ms is None:
        return None
    return facts.icl_p99_ms / facts.icl_p50_ms

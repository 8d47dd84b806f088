"""Options that commands share: which server, and what goes over the workload file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


def target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What says which server, which workload, and how to reach it."""
    for option in reversed(
        (
            click.option("--target", required=True, help="Kind of server: vllm, sim, ... (`bench list`)."),
            click.option("--workload", default="chat", show_default=True, help="A YAML file, or a packaged name."),
            click.option(
                "--url",
                "urls",
                multiple=True,
                metavar="URL",
                help="Base URL of the server; repeatable, one for each replica.  [default: the target's own]",
            ),
            click.option("--balance", metavar="NAME", help="Which replica gets a request.  [default: round-robin]"),
            click.option("--launch", metavar='"MODEL FLAGS"', help="Start the server so, and end it after the run."),
            click.option("--model", help="Model to ask for.  [default: the one it serves]"),
            click.option(
                "--metrics-url",
                "metrics_urls",
                multiple=True,
                metavar="URL",
                help="Where the server's own metrics are, if elsewhere; repeatable, one for each --url.",
            ),
            click.option("--api-key-env", metavar="VAR", help="Environment variable that holds the API key."),
            click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="Added to each request."),
            click.option("--wait", metavar="TIME", help="Wait so long for the server to be ready, as 120s."),
            click.option("--tokenizer", type=Path, metavar="FILE", help="tokenizer.json, where the server has none."),
            click.option("--cacert", metavar="FILE", help="Authorities to trust for https (PEM)."),
            click.option("--insecure", is_flag=True, help="Do not verify the server's certificate."),
        )
    ):
        command = option(command)
    return command


def load_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Flags that go over the workload file; vLLM's names are accepted beside ours."""
    for option in reversed(
        (
            click.option("--rate", "--request-rate", "rate", help="Requests per second (open loop), or inf."),
            click.option(
                "--concurrency",
                "--max-concurrency",
                "concurrency",
                help="Requests in flight (closed loop); with a rate, the cap of an open loop.",
            ),
            click.option("--requests-per-minute", help="Cap of a closed loop, as hosted endpoints have one."),
            click.option("--requests", "--num-prompts", "requests", help="End after so many requests that count."),
            click.option("--duration", help="Time that counts, as 60s."),
            click.option("--warmup", "--num-warmups", "warmup", help="Time, as 10s, or a number of requests."),
            click.option("--drain", help="How long requests in flight may finish at the end."),
            click.option("--cache", help="Prefix cache at the start: cold, warm or as_is.  [default: as_is]"),
            click.option("--input-tokens", help="Prompt lengths: 512, uniform(100,200), ..."),
            click.option("--output-tokens", help="Answer lengths, likewise."),
            click.option("--lengths", help="Both at once: D(100,1000), N(480,240)/(300,150), ..."),
            click.option("--seed", help="One seed for arrivals, prompts, lengths and order."),
            click.option("--endpoint", help="chat, completions, or generate (the server's own).  [default: its first]"),
            click.option("--temperature", help="Sampling temperature."),
            click.option("--data", metavar="FILE", help="The trace or data file of the workload's prompt source."),
            click.option("--extra-body", metavar="JSON", help="Fields added to each request's body."),
            click.option("--slo", help="Objectives: ttft=200ms,tpot=50ms,ttft:p99=500ms"),
            click.option("--goodput", multiple=True, metavar="METRIC:MS", help="Objectives as vLLM writes them."),
            click.option("--attainment", help="Share of requests that must meet them all, as 0.99."),
            click.option("--gate", is_flag=True, default=None, help="Exit with 1 when an objective is missed."),
            click.option(
                "--set", "settings", multiple=True, metavar="PATH=VALUE", help="Any field, as load.max_concurrency=64."
            ),
        )
    ):
        command = option(command)
    return command


def made_on_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What the server runs on, for MBU, MFU, limits and cost. What is left out is what the server and NVML tell."""
    for option in reversed(
        (
            click.option("--gpu", metavar="NAME", help="Kind of GPU (`bench list gpus`).  [default: what NVML names]"),
            click.option("--gpus", type=click.IntRange(min=1), help="GPUs of the deployment, replicas included."),
            click.option("--gpu-file", multiple=True, metavar="FILE", help="Further kinds of GPU; repeatable."),
            click.option("--tp", type=click.IntRange(min=1), help="Tensor parallel ranks of a server."),
            click.option("--pp", type=click.IntRange(min=1), help="Pipeline parallel ranks of a server."),
            click.option("--dp", type=click.IntRange(min=1), help="Data parallel ranks of a server."),
            click.option("--ep", is_flag=True, default=None, help="Experts are spread over all of these ranks."),
            click.option("--dtype", metavar="FORMAT", help="Of the weights, as fp8.  [default: the model's own]"),
            click.option("--kv-dtype", metavar="FORMAT", help="Of the KV cache.  [default: the model's own]"),
            click.option("--model-config", metavar="FILE", help="The model's config.json, or a known name."),
            click.option("--gpu-price", type=float, metavar="USD", help="Of one GPU for an hour, for cost figures."),
            click.option("--prices", metavar="FILE", help="File of prices, or of what an own GPU costs."),
        )
    ):
        command = option(command)
    return command


def hardware_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What the server runs on, and which GPUs are sampled."""
    for option in reversed(
        (
            click.option("--gpu-metrics", multiple=True, metavar="URL", help="Exporter of GPUs that are elsewhere."),
            click.option("--gpu-index", metavar="LIST", help="GPUs to sample: 0,1 or UUIDs.  [default: all]"),
            click.option("--gpu-sample", metavar="TIME", help="Period of the samples, or off.  [default: 200ms]"),
        )
    ):
        command = option(command)
    return made_on_options(command)


def deployment_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Deployments to compare: kinds of GPU, times layouts, and the formats in which the model is served."""
    for option in reversed(
        (
            click.option(
                "--gpu", multiple=True, required=True, metavar="NAME", help="Kind (`bench list gpus`); repeatable."
            ),
            click.option(
                "--gpu-file", multiple=True, type=Path, metavar="FILE", help="Further kinds of GPU; repeatable."
            ),
            click.option("--tp", default="1", show_default=True, metavar="LIST", help="Tensor parallel ranks: 1,2,4."),
            click.option("--pp", default="1", show_default=True, metavar="LIST", help="Pipeline parallel ranks."),
            click.option("--dp", default="1", show_default=True, metavar="LIST", help="Data parallel ranks."),
            click.option("--ep", is_flag=True, help="Experts are spread over the tensor and data ranks."),
            click.option("--replicas", type=click.IntRange(1, 10_000), default=1, show_default=True, help="Servers."),
            click.option("--dtype", metavar="FORMAT", help="Of the weights, as fp8.  [default: the model's own]"),
            click.option("--kv-dtype", metavar="FORMAT", help="Of the KV cache.  [default: the model's own]"),
        )
    ):
        command = option(command)
    return command

"""Options that commands share: which server, and what goes over the workload file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from servemark.harness.help_sections import under

_server, _load, _slo = under("Server"), under("Load"), under("SLO and verdict")
_models, _hardware, _sampling = under("Model and GPUs"), under("Hardware and cost"), under("GPU sampling")


def dollars(value: str) -> float:
    """A number, with a hint for those who write a currency before it."""
    try:
        return float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no number of dollars; write it bare, as 2.5") from None


def target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What says which server, which workload, and how to reach it."""
    for option in reversed(
        (
            _server("--target", required=True, help="Kind of server: vllm, sim, ... (`bench list`)."),
            _load("--workload", default="chat", show_default=True, help="A YAML file, or a packaged name."),
            _server(
                "--url",
                "urls",
                multiple=True,
                metavar="URL",
                help="Base URL of the server; repeatable, one for each replica.  [default: the target's own]",
            ),
            _server("--balance", metavar="NAME", help="Which replica gets a request.  [default: round-robin]"),
            _server("--launch", metavar='"MODEL FLAGS"', help="Start the server so, and end it after the run."),
            _server("--model", help="Model to ask for.  [default: the one it serves]"),
            _server(
                "--metrics-url",
                "metrics_urls",
                multiple=True,
                metavar="URL",
                help="Where the server's own metrics are, if elsewhere; repeatable, one for each --url.",
            ),
            _server("--api-key-env", metavar="VAR", help="Environment variable that holds the API key."),
            _server("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="Added to each request."),
            _server("--wait", metavar="TIME", help="Wait so long for the server to be ready, as 120s."),
            _server("--tokenizer", type=Path, metavar="FILE", help="tokenizer.json, where the server has none."),
            _server("--cacert", metavar="FILE", help="Authorities to trust for https (PEM)."),
            _server("--insecure", is_flag=True, help="Do not verify the server's certificate."),
        )
    ):
        command = option(command)
    return command


def load_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Flags that go over the workload file; vLLM's names are accepted beside ours."""
    for option in reversed(
        (
            _load("--rate", "--request-rate", "rate", help="Requests per second (open loop), or inf."),
            _load(
                "--concurrency",
                "--max-concurrency",
                "concurrency",
                help="Requests in flight (closed loop); with a rate, the cap of an open loop.",
            ),
            _load("--requests-per-minute", help="Cap of a closed loop, as hosted endpoints have one."),
            _load("--requests", "--num-prompts", "requests", help="End after so many requests that count."),
            _load("--duration", help="Time that counts, as 60s."),
            _load("--warmup", "--num-warmups", "warmup", help="Time, as 10s, or a number of requests."),
            _load("--drain", help="How long requests in flight may finish at the end."),
            _load("--cache", help="Prefix cache at the start: cold, warm or as_is.  [default: as_is]"),
            _load("--input-tokens", help="Prompt lengths: 512, uniform(100,200), ..."),
            _load("--output-tokens", help="Answer lengths, likewise."),
            _load("--lengths", help="Both at once: D(100,1000), N(480,240)/(300,150), ..."),
            _load("--seed", help="One seed for arrivals, prompts, lengths and order."),
            _load("--endpoint", help="chat, completions, or generate (the server's own).  [default: its first]"),
            _load("--temperature", help="Sampling temperature."),
            _load("--data", metavar="FILE", help="The trace or data file of the workload's prompt source."),
            _load("--extra-body", metavar="JSON", help="Fields added to each request's body."),
            _slo("--slo", help="Objectives: ttft=200ms,tpot=50ms,ttft:p99=500ms"),
            _slo("--goodput", multiple=True, metavar="METRIC:MS", help="Objectives as vLLM writes them."),
            _slo("--attainment", help="Share of requests that must meet them all, as 0.99."),
            _slo("--gate", is_flag=True, default=None, help="Exit with 1 when an objective is missed."),
            _load(
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
            _hardware("--gpu", metavar="NAME", help="Kind of GPU (`bench list gpus`).  [default: what NVML names]"),
            _hardware("--gpus", type=click.IntRange(min=1), help="GPUs of the deployment, replicas included."),
            _hardware("--gpu-file", multiple=True, metavar="FILE", help="Further kinds of GPU; repeatable."),
            _hardware("--tp", type=click.IntRange(min=1), help="Tensor parallel ranks of a server."),
            _hardware("--pp", type=click.IntRange(min=1), help="Pipeline parallel ranks of a server."),
            _hardware("--dp", type=click.IntRange(min=1), help="Data parallel ranks of a server."),
            _hardware("--ep", is_flag=True, default=None, help="Experts are spread over all of these ranks."),
            _hardware("--dtype", metavar="FORMAT", help="Of the weights, as fp8.  [default: the model's own]"),
            _hardware("--kv-dtype", metavar="FORMAT", help="Of the KV cache.  [default: the model's own]"),
            _hardware("--model-config", metavar="FILE", help="The model's config.json, or a known name."),
            _hardware("--gpu-price", type=dollars, metavar="USD", help="Of one GPU for an hour, for cost figures."),
            _hardware("--prices", metavar="FILE", help="File of prices, or of what an own GPU costs."),
        )
    ):
        command = option(command)
    return command


def hardware_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What the server runs on, and which GPUs are sampled."""
    for option in reversed(
        (
            _sampling("--gpu-metrics", multiple=True, metavar="URL", help="Exporter of GPUs that are elsewhere."),
            _sampling("--gpu-index", metavar="LIST", help="GPUs to sample: 0,1 or UUIDs.  [default: all]"),
            _sampling("--gpu-sample", metavar="TIME", help="Period of the samples, or off.  [default: 200ms]"),
        )
    ):
        command = option(command)
    return made_on_options(command)


def deployment_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Deployments to compare: kinds of GPU, times layouts, and the formats in which the model is served."""
    for option in reversed(
        (
            _models(
                "--gpu",
                multiple=True,
                required=True,
                metavar="LIST",
                help="Kinds (`bench list gpus`): h100-sxm,h200; repeatable.",
            ),
            _models("--gpu-file", multiple=True, type=Path, metavar="FILE", help="Further kinds of GPU; repeatable."),
            _models(
                "--tp", default="1", show_default=True, metavar="LIST", help="Tensor parallel ranks: 1,2 or 1..8x2"
            ),
            _models("--pp", default="1", show_default=True, metavar="LIST", help="Pipeline parallel ranks."),
            _models("--dp", default="1", show_default=True, metavar="LIST", help="Data parallel ranks."),
            _models("--ep", is_flag=True, help="Experts are spread over the tensor and data ranks."),
            _models("--replicas", type=click.IntRange(1, 10_000), default=1, show_default=True, help="Servers."),
            _models("--dtype", metavar="FORMAT", help="Of the weights, as fp8.  [default: the model's own]"),
            _models("--kv-dtype", metavar="FORMAT", help="Of the KV cache.  [default: the model's own]"),
        )
    ):
        command = option(command)
    return command

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

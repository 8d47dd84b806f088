"""From the command's flags, vLLM's spellings among them, to what is asked for."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from servemark.harness.clock import SECOND
from servemark.harness.errors import BadInput
from servemark.harness.figures.slo import from_vllm_goodput
from servemark.harness.hardware.section import OFF, HardwareSection
from servemark.harness.launch.launching import WAIT_S, Launch
from servemark.harness.launch.words import split
from servemark.harness.load.balance import BALANCES, DEFAULT
from servemark.harness.plan.overrides import FLAGS
from servemark.harness.plan.places import read_settings
from servemark.harness.plan.sentences import Where, of_validation
from servemark.harness.plan.yaml_lines import Document
from servemark.harness.prepare import Asked
from servemark.harness.server.address import parse_url, split_header
from servemark.harness.server.scrape import LEAST_PERIOD_S
from servemark.harness.units import parse_duration


def asked(given: Mapping[str, Any], more_goodput: Sequence[str]) -> Asked:
    """`more_goodput` are words behind `--goodput ttft:200`, which vLLM takes as a list. Raises BadInput."""
    flags = {name: given.get(name) for name in FLAGS}
    flags["headers"] = _headers(given["headers"])
    flags["extra_body"] = _json(given.get("extra_body"))
    flags["set"] = read_settings(given.get("settings") or ())
    flags["slo"] = _slo(given.get("slo"), given.get("goodput") or (), more_goodput)
    wait_s = _seconds("--wait", given.get("wait"))
    launch = _launch(given, wait_s)
    return Asked(
        target=given["target"],
        workload=given["workload"],
        urls=tuple(given["urls"]),
        launch=launch,
        balance=_balance(given["balance"], given["urls"]),
        model=given["model"],
        flags=flags,
        api_key_env=given["api_key_env"],
        allow=tuple(given.get("allow") or ()),
        out=given.get("out"),
        wait_s=wait_s or 0.0,
        scrape_s=_scrape_s(given.get("scrape")),
        metrics_urls=tuple(given.get("metrics_urls") or ()),
        tokenizer=given["tokenizer"],
        cacert=given["cacert"],
        insecure=given["insecure"],
        quiet=bool(given.get("quiet")),
        hardware=hardware_of(given),
    )


# The fields of a HardwareSection that are flags as they stand.
_HARDWARE = ("gpu", "gpus", "tp", "pp", "dp", "ep", "dtype", "kv_dtype", "prices", "gpu_price", "gpu_file")
_FLAGGED: dict[tuple[str | int, ...], str] = {
    **{(name,): f"--{name.replace('_', '-')}" for name in (*_HARDWARE, "gpu_metrics", "gpu_index", "gpu_sample")},
    ("config",): "--model-config",
}


def hardware_of(given: Mapping[str, Any]) -> HardwareSection:
    """What the flags say of the hardware. Raises BadInput."""
    price, sample = given.get("gpu_price"), given.get("gpu_sample")
    if price is not None and not 0 < price < math.inf:
        raise BadInput(f"--gpu-price: needs dollars an hour, more than 0, not {price:g}")
    if sample == OFF and given.get("gpu_metrics"):
        raise BadInput("--gpu-sample off and --gpu-metrics exclude each other; leave one of them out")
    period_s = None if sample == OFF else _period_s(sample)
    if period_s is not None and period_s < LEAST_PERIOD_S:
        raise BadInput(f"--gpu-sample: {sample} is too often; give {LEAST_PERIOD_S * 1000:g}ms or more, or off")
    for url in given.get("gpu_metrics") or ():
        parse_url(url, "--gpu-metrics")
    found = {
        **{name: given.get(name) for name in _HARDWARE},
        "config": given.get("model_config"),
        "gpu_metrics": given.get("gpu_metrics"),
        "gpu_index": given.get("gpu_index"),
        "gpu_sample": sample,
    }
    found = {name: value for name, value in found.items() if value is not None}
    try:
        return HardwareSection.model_validate(found)
    except ValidationError as error:
        where = Where(Document("flags", found, {}), _FLAGGED)
        raise BadInput(of_validation(error, found, HardwareSection, where)) from None


def _balance(name: str | None, urls: Sequence[str]) -> str:
    if name is None:
        return DEFAULT
    if name not in BALANCES:
        raise BadInput(f"--balance: there is no {name!r}; there are: {', '.join(BALANCES)}")
    if len(urls) < 2:
        raise BadInput("--balance shares requests out among replicas; give --url once for each, or leave it out")
    return name


def _launch(given: Mapping[str, Any], wait_s: float | None) -> Launch | None:
    """BadInput where a server is to be started and one that runs is named too."""
    if given.get("launch") is None:
        return None
    if given.get("urls"):
        raise BadInput("--launch starts a server and --url names one that runs; give one of them")
    return Launch(split(given["launch"]), wait_s=WAIT_S if wait_s is None else wait_s)


def _headers(given: Sequence[str]) -> dict[str, str] | None:
    return dict(split_header(each) for each in given) or None


def _json(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        shown = text if len(text) <= 80 else f"{text[:80]}..."
        raise BadInput(f'--extra-body: needs a JSON object such as {{"top_k": 20}}, not {shown!r}') from None


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _slo(slo: str | None, goodput: Sequence[str], more: Sequence[str]) -> str | None:
    if more and not goodput:
        raise BadInput(f"{more[0]!r} is no flag; `bench run --help` shows them")
    if not goodput:
        return slo
    if slo is not None:
        raise BadInput("--goodput and --slo say the same thing; give one of them")
    try:
        return str(from_vllm_goodput([*goodput, *more]))
    except ValueError as error:
        raise BadInput(f"--goodput: {error}") from None


def _scrape_s(text: str | None) -> float:
    seconds = _seconds("--scrape", text)
    if seconds is not None and seconds < LEAST_PERIOD_S:
        raise BadInput(f"--scrape: {text} is too often; give {LEAST_PERIOD_S * 1000:g}ms or more")
    return 1.0 if seconds is None else seconds


def _period_s(text: str | None) -> float | None:
    try:
        return _seconds("--gpu-sample", text)
    except BadInput as error:
        raise BadInput(f"{error}, or off") from None


def _seconds(flag: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return parse_duration(text) / SECOND
    except ValueError as error:
        raise BadInput(f"{flag}: {error}") from None

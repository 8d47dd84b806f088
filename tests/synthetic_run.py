"""Made-up runs of a plausible shape, and a run.json to go with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from servemark.harness.clock import MS, SECOND
from servemark.harness.figures.frame import Frame
from servemark.harness.types import Record, ServerSample

START_NS = 5_000 * SECOND
WARMUP_S = 5.0


def records(
    count: int = 400, rate: float = 8.0, tokens: int = 60, seed: int = 1, failures: float = 0.02
) -> list[Record]:
    """Poisson arrivals at a server whose TTFT grows with load and whose ITL breathes; some requests fail."""
    rng = np.random.default_rng(seed)
    at = START_NS + (np.cumsum(rng.exponential(1 / rate, count)) * SECOND).astype(np.int64)
    return [_record(i, int(at[i]), rng, tokens, failures) for i in range(count)]


def _record(index: int, at: int, rng: np.random.Generator, tokens: int, failures: float) -> Record:
    since_s = (at - START_NS) / SECOND
    sent = at + int(rng.gamma(2, 0.03) * MS)
    base = Record(
        request_id=index,
        class_="default",
        session_id=None,
        turn=0,
        url="http://localhost:8000/v1/chat/completions",
        worker=0,
        phase="warmup" if since_s < WARMUP_S else "measured",
        intended_ns=at,
        sent_ns=sent,
        connect_started_ns=at - 3 * MS,
        connect_ns=at - 2 * MS,
        asked_prompt_tokens=512,
        asked_output_tokens=tokens,
    )
    if rng.random() < failures:
        kind = ("http_status", "timeout_gap", "reset")[int(rng.integers(3))]
        return replace(
            base,
            done_ns=sent + 40 * MS,
            error=kind,
            http_status=503 if kind == "http_status" else None,
            error_detail="the server answered 503 <script>alert(1)</script>",
        )
    wave = 1 + 0.35 * np.sin(since_s / 6)
    first = sent + int((38 + rng.lognormal(3.1, 0.55) * wave) * MS)
    size = int(np.clip(rng.lognormal(np.log(tokens), 0.4), 4, tokens * 4))
    gaps = rng.normal(17 * wave, 1.6, size).clip(4) + (rng.random(size) < 0.02) * rng.exponential(45, size)
    stamps = [first, *(first + np.cumsum(gaps) * MS).astype(np.int64).tolist()]
    return replace(
        base,
        first_byte_ns=first - MS,
        first_token_ns=first,
        first_answer_ns=first,
        last_token_ns=stamps[-1],
        done_ns=stamps[-1] + MS,
        chunk_ns=tuple(stamps),
        chunk_tokens=(1,) * len(stamps),
        prompt_tokens=512,
        output_tokens=len(stamps),
        token_source="usage",
        finish_reason="length",
        http_status=200,
        server_request_id=f"chatcmpl-{index:08x}",
        reads=len(stamps),
    )


def samples(seconds: int = 50) -> list[ServerSample]:
    """A reading of the server's metrics each second."""
    rng = np.random.default_rng(3)
    return [
        ServerSample(
            START_NS + s * SECOND,
            {
                "running": float(8 + 4 * np.sin(s / 6) + rng.integers(0, 3)),
                "waiting": float(max(0, rng.integers(-3, 4))),
                "kv_usage": float(0.42 + 0.2 * np.sin(s / 6)),
                "preemptions": float(s // 20),
                "prefix_queries": 4_000.0 * s,
                "prefix_hits": 12.0 * s,
                "generation_tokens": 470.0 * s,
                "prompt_tokens": 4_000.0 * s,
                "iterations": 50.0 * s,
                "iteration_tokens": 4_400.0 * s,
                "ttft_sum": 0.48 * s,
                "ttft_count": 8.0 * s,
                "queue_time_sum": 0.12 * s,
                "queue_time_count": 8.0 * s,
                "prefill_time_sum": 0.32 * s,
                "prefill_time_count": 8.0 * s,
            },
        )
        for s in range(seconds)
    ]


def run_of(wanted: list[Record], scraped: list[ServerSample] | None = None, **changes: Any) -> dict[str, Any]:
    """A run.json for these records, its figures computed as a real run's are."""
    from servemark.harness.figures.metrics import view_of
    from servemark.harness.figures.objectives import weigh
    from servemark.harness.figures.slo import parse_slo
    from servemark.harness.figures.summary import summarize
    from servemark.results.headline import latencies_of_both, server_part, summary

    frame = Frame.from_records(wanted)
    slo = parse_slo("ttft=200ms,tpot=30ms,ttft:p99=400ms", 0.95)
    window = frame.steady_window(START_NS + int(WARMUP_S * SECOND))
    metrics = summarize(frame, window, slo)
    judged = weigh(slo, view_of(frame, window, slo)).to_json()
    whole = frame.whole_window()
    return {
        "schema_version": 1,
        "id": "20261120-184512-vllm-chat",
        "created": "2026-11-20T18:45:12+00:00",
        "simulated": False,
        "verdict": {"valid": True, "checks": CHECKS},
        "summary": summary(frame, metrics),
        "metrics": metrics,
        "groups": [],
        "slo": {**judged, "results": judged["limits"], "limits": str(slo).split(","), "gate": False},
        "workload": {
            "name": "chat",
            "path": "workloads/chat.yaml",
            "text": WORKLOAD,
            "overrides": {"rate": 8},
            "resolved": {},
        },
        "schedule": {
            "hash": "9c1f0a7be24d3361",
            "requests": len(wanted),
            "seeds": {"arrivals": 1, "prompts": 2, "lengths": 3},
            "data_digest": None,
            "nominal_rate": 8.0,
            "planned_in_window": int(frame.measured.sum()),
        },
        "cache": {
            "protocol": "as_is",
            "how": "untouched",
            "said": "as it was",
            "observed_hit_rate": None,
            "expected_hit_rate": 0.002,
            "ideal_hit_rate": 0.004,
            "source": None,
        },
        "target": {
            "name": "vllm",
            "url": "http://localhost:8000",
            "engine": "vllm",
            "version": "0.32.0",
            "model": "meta-llama/Llama-3.1-8B-Instruct",
            "context_tokens": 131072,
            "settings": {"block_size": "16", "enable_prefix_caching": "True"},
            "promises": {"fixed_length": True, "exact_counts": True},
            "simulated": False,
        },
        "server": {
            "period_s": 1.0,
            "sources": [SOURCE] if scraped else [],
            "absent": [],
            **server_part(scraped or []),
            **latencies_of_both(frame, scraped or []),
        },
        "hardware": {},
        "clock": {
            "started_ns": START_NS,
            "started_wall": "2026-11-20T18:45:13.201+00:00",
            "window_ns": [window.start_ns, window.end_ns],
            "whole_ns": [whole.start_ns, whole.end_ns],
            "stamp": "kernel",
        },
        "worker": {"issued": len(wanted), "stalls": 0, "cpu_ns": 3_120_000_000, "stop_reason": "finished"},
        "host": {"os": "Debian GNU/Linux 12", "cpu_model": "AMD EPYC 9554", "cores": 64, "memory_bytes": 2**38},
        "versions": {"servemark": "0.1.0", "httptools": "0.9.0"},
        **changes,
    }


SOURCE = {
    "url": "http://localhost:8000",
    "metrics": "http://localhost:8000/metrics",
    "draining": False,
    "samples": 50,
    "failures": 0,
    "last_failure": None,
    "notes": {"ttft": "from here to there"},
}


def check(code: str, severity: str, message: str, remedy: str = "", **more: Any) -> dict[str, Any]:
    found = {"code": code, "severity": severity, "value": None, "threshold": None, "message": message}
    return {**found, "remedy": remedy, "waived": False, **more}


CHECKS = [
    check("client_lag", "pass", "requests left on time: p99 of sent - intended is 0.2 ms", value=0.2, threshold=2.0),
    check("short_run", "warning", "the window is 45 s, shorter than 60 s", "give --duration 60s or more", value=45),
    check("schedule", "pass", "all planned requests were sent", value=1.0, threshold=0.99),
]

WORKLOAD = """version: 1
name: chat
# People who chat: short questions, answers of a paragraph.
prompts:
  source: synthetic
  input_tokens: {lognormal: {median: 512, sigma: 0.6}}
  output_tokens: 60
load:
  rate: 8
slo:
  limits: ttft=200ms,tpot=30ms,ttft:p99=400ms
"""

"""Spec-Bench: 480 prompts of six kinds of tasks, MT-bench among them (Xia et al., Findings of ACL 2024)."""

from __future__ import annotations

from typing import Literal

from servemark.harness.plan.sources import SOURCES
from servemark.workloads.mt_bench import Questions


@SOURCES.register("spec_bench")
class SpecBench(Questions):
    """Chats of two turns, translation, summarization, question answering, mathematics, and answers from passages."""

    where = "https://github.com/hemingkx/Spec-Bench (data/spec_bench/question.jsonl)"

    source: Literal["spec_bench"] = "spec_bench"

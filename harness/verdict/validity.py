"""VALID or INVALID, and why: every registered reason is judged on the evidence of a run."""

from __future__ import annotations

from collections.abc import Iterable

from servemark.harness.verdict import (
    checks_client,
    checks_gpu,
    checks_load,
    checks_replicas,
    checks_server,
    checks_target,
)
from servemark.harness.verdict.evidence import (
    CHECKS,
    Check,
    Evidence,
    Finding,
    Reason,
    Verdict,
)

__all__ = ["CHECKS", "REASON_FILES", "Check", "Evidence", "Finding", "Reason", "Verdict", "judge"]

REASON_FILES = (checks_client, checks_gpu, checks_load, checks_replicas, checks_server, checks_target)
"""The modules whose import registers the reasons."""


def judge(evidence: Evidence, allow: Iterable[str] = ()) -> Verdict:
    """One check for every reason. A waived code (`allow`) stays in the record; ValueError for one that is unknown."""
    waived = frozenset(allow)
    unknown = sorted(waived - set(CHECKS))
    if unknown:
        raise ValueError(f"there is no verdict check {unknown[0]!r} to allow; there are: {', '.join(CHECKS)}")
    checks = tuple(_check(each, evidence, each.code in waived) for _, each in CHECKS.items())
    valid = not any(check.severity == "invalid" and not check.waived for check in checks)
    return Verdict(valid, checks)


def _check(reason: Reason, evidence: Evidence, waived: bool) -> Check:
    found = reason.judge(evidence)
    value = None if found.value is None else float(found.value)
    threshold = None if found.threshold is None else float(found.threshold)
    return Check(reason.code, found.severity, value, threshold, found.message, found.remedy, waived)

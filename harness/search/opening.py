"""From what is asked for to a search that may begin, or go on: everything is checked before anything runs."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from servemark.harness.errors import BadInput
from servemark.harness.hardware.deployed import refuse_senseless
from servemark.harness.launch.launching import launcher_of
from servemark.harness.launch.words import shown
from servemark.harness.matrix.labels import slug
from servemark.harness.plan.spec import Loaded, load_workload
from servemark.harness.prepare import Asked, refuse_unknown_codes, slo_of
from servemark.harness.search.hunt import Search
from servemark.harness.search.wanted import Wanted, wanted
from servemark.harness.server.discovery import load_adapter
from servemark.results.index_file import now
from servemark.results.search import Index, SearchShelf

_NO_PART_OF_A_POINT = ("rate", "concurrency", "headers", "gate")


def open_search(asked: Asked, given: Mapping[str, Any]) -> Search:
    """The search and what is known of it; `given` are the command's flags. Raises BadInput or ResultUnusable."""
    refuse_unknown_codes(asked.allow)
    refuse_senseless(asked.hardware, max(1, len(asked.urls)))
    adapter = load_adapter(asked.target)
    if asked.launch is not None:
        launcher_of(adapter)
    loaded = load_workload(asked.workload, {**asked.flags, "gate": None})
    slo = slo_of(loaded)
    plan = wanted(given, loaded.spec, slo)
    _refuse_other_loads(asked, plan)
    digest = _digest(asked, plan, loaded)
    name = f"search-{slug(asked.target)}-{slug(loaded.name)}-{digest[:6]}"
    shelf = SearchShelf(asked.out or Path("runs") / name)
    fresh = Index(
        name=name if asked.out is None else asked.out.name,
        digest=digest,
        seed=_seed(asked),
        created=now(),
        target=asked.target,
        workload={"name": loaded.name, "path": loaded.path, "text": loaded.text},
        asked={**plan.facts(), "slo": slo.said if slo else ""},
    )
    return Search(asked, plan, shelf, shelf.opened(fresh, bool(given.get("retry_invalid"))))


def _refuse_other_loads(asked: Asked, plan: Wanted) -> None:
    """The workload must take both ends of the range, and nothing may go over them."""
    for load in (plan.axis.start, plan.axis.end):
        loaded = load_workload(asked.workload, plan.flags(asked.flags, load))
        if getattr(loaded.spec.load, plan.axis.by, None) != load:
            raise BadInput(f"--set: load.{plan.axis.by} is what is searched; leave it out")


def _seed(asked: Asked) -> int:
    """Of which each run's own seeds are drawn."""
    given = asked.flags.get("seed")
    return secrets.randbits(63) if given is None else int(given)


def _digest(asked: Asked, plan: Wanted, loaded: Loaded) -> str:
    """Of what a run at a load is. The range, the precision and the repeats may change from start to start."""
    said = {
        "target": asked.target,
        "launch": None if asked.launch is None else shown(asked.launch.words),
        "urls": asked.urls,
        "balance": asked.balance,
        "model": asked.model,
        "tokenizer": None if asked.tokenizer is None else str(asked.tokenizer),
        "workload": loaded.text,
        "flags": {name: value for name, value in asked.flags.items() if name not in _NO_PART_OF_A_POINT},
        "cap": asked.flags.get("concurrency") if plan.axis.by == "rate" else None,
        "by": plan.axis.by,
        "length": asdict(plan.length),
        "allow": sorted(asked.allow),
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:16]

"""From a plan to its cells: each is one run, with a name that stays and a digest of all that it measures."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from servemark.harness.errors import BadInput
from servemark.harness.launch.words import settled, shown, shown_environment, split
from servemark.harness.matrix.labels import flattened, label, slug
from servemark.harness.matrix.plan import EngineSection, LoadedPlan
from servemark.harness.plan.overrides import SET
from servemark.harness.plan.places import FLAG
from servemark.harness.plan.sentences import Complaint, raise_if
from servemark.harness.plan.spec import Loaded, load_workload

OWN_LOAD = "own load"
MOST_CELLS = 10_000


@dataclass(frozen=True, slots=True)
class EngineUnderTest:
    """One server of the matrix. `words` follow --launch; None for one that runs already."""

    name: str
    section: EngineSection
    words: tuple[str, ...] | None
    place: int


@dataclass(frozen=True, slots=True)
class Load:
    """`flags` are all that go over the workload, the common ones included; `own` and `label` are the load's own."""

    label: str
    flags: Mapping[str, Any]
    own: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Cell:
    """One run; `digest` changes with whatever changes what is measured. `salt` is the one that the workload names."""

    id: str
    engine: EngineUnderTest
    workload: str
    workload_name: str
    load: Load
    repeat: int
    digest: str
    salt: int | None = None

    def salted(self, salt: int, tries: int) -> int:
        """A salt that no other cell has, nor another try of this one; the engines of a matrix get the same prompts."""
        said = json.dumps([salt, self.workload_name, self.load.label, self.repeat, tries])
        return int.from_bytes(hashlib.sha256(said.encode()).digest()[:8], "little") >> 1


def engines_of(plan: LoadedPlan) -> list[EngineUnderTest]:
    """In the plan's order, each list among the flags spelled out. Raises BadInput where two have the same name."""
    found = [engine for place, section in enumerate(plan.spec.engines) for engine in _expanded(plan, section, place)]
    raise_if(_twins(found), plan.where)
    return found


def _expanded(plan: LoadedPlan, section: EngineSection, place: int) -> Iterator[EngineUnderTest]:
    name = section.name or section.target
    if section.launch is None:
        yield EngineUnderTest(name, section, None, place)
        return
    words = settled(split(section.launch), plan.folder)
    choices = {flag: value if isinstance(value, list) else [value] for flag, value in section.flags.items()}
    varied = [flag for flag, values in choices.items() if len(values) > 1]
    for chosen in product(*choices.values()):
        flags = dict(zip(choices, chosen, strict=True))
        suffix = label({flag: flags[flag] for flag in varied})
        added = settled([word for flag, value in flags.items() for word in _words(flag, value)], plan.folder)
        yield EngineUnderTest(f"{name} {suffix}".strip(), section, (*words, *added), place)


def _words(flag: str, value: Any) -> list[str]:
    """`max-num-seqs: 8` is `--max-num-seqs 8`; a name with its dashes stays as it is."""
    name = flag if flag.startswith("-") else f"--{flag}"
    if isinstance(value, bool):
        return [name] if value else []
    return [name, str(value)]


def _twins(engines: Iterable[EngineUnderTest]) -> Iterator[Complaint]:
    seen: dict[str, int] = {}
    for engine in engines:
        if slug(engine.name) in seen:
            line = seen[slug(engine.name)]
            other = f"engines[{line}]" if line != engine.place else "another value of its flags"
            yield ("engines", engine.place), f"is called {engine.name!r} as {other} is; give it a name of its own"
        seen.setdefault(slug(engine.name), engine.place)


def cells_of(plan: LoadedPlan) -> list[Cell]:
    """Engine by engine; within one, all loads of all workloads, and that again for each repetition.

    Every workload is read with every load's flags, so a mistake is told before anything starts. Raises BadInput.
    """
    _refuse_too_many(plan)
    engines = engines_of(plan)
    runs = [
        (workload, load, _loaded(workload, load, plan))
        for workload in (_found(name, plan.folder) for name in plan.spec.workloads)
        for load in _loads(plan)
    ]
    found = [
        _cell(plan, engine, workload, load, loaded, repeat)
        for engine in engines
        for repeat in range(1, plan.spec.repeat + 1)
        for workload, load, loaded in runs
    ]
    twice = [name for name, count in Counter(cell.id for cell in found).items() if count > 1]
    if twice:
        raise BadInput(f"{plan.path}: two cells are called {twice[0]}; list each workload and each load once")
    return found


def _refuse_too_many(plan: LoadedPlan) -> None:
    """Before any of them is made: a list among the flags multiplies all the others."""
    spec = plan.spec
    engines = sum(
        prod(len(value) for value in section.flags.values() if isinstance(value, list)) for section in spec.engines
    )
    count = engines * len(spec.workloads) * len(spec.loads) * spec.repeat
    if count > MOST_CELLS:
        raise BadInput(
            f"{plan.path}: this is {count:,} runs, and a {plan.kind} has at most {MOST_CELLS:,}; "
            f"list fewer values, or make several {'plans' if plan.kind == 'matrix' else 'sweeps'} of it"
        )


def _found(name: str, folder: Path) -> str:
    """A path from the plan's folder, else a packaged name."""
    path = Path(folder, Path(name).expanduser())
    return str(path) if path.is_file() else name


def _loads(plan: LoadedPlan) -> Iterator[Load]:
    for load in plan.spec.loads:
        flags = {**plan.spec.common, **load}
        if "data" in flags:
            flags["data"] = str(Path(plan.folder, str(flags["data"])))
        fields = [each[SET] for each in (plan.spec.common, load) if isinstance(each.get(SET), Mapping)]
        if len(fields) > 1:
            flags[SET] = {**fields[0], **fields[1]}
        yield Load(label(load, OWN_LOAD), flags, flattened(load))


def _loaded(workload: str, load: Load, plan: LoadedPlan) -> Loaded:
    try:
        return load_workload(workload, load.flags)
    except BadInput as error:
        said = str(error)
        for name in load.own if plan.kind == "sweep" else ():
            said = said.replace(f"{FLAG} {name}:", f"--over {name}:")
        raise BadInput(f"{plan.path}: workload {workload} with {label(load.flags, OWN_LOAD)}: {said}") from None


def _cell(
    plan: LoadedPlan,
    engine: EngineUnderTest,
    workload: str,
    load: Load,
    loaded: Loaded,
    repeat: int,
) -> Cell:
    parts = [engine.name, loaded.name, load.label, *([f"r{repeat}"] if repeat > 1 else [])]
    return Cell(
        id="_".join(slug(part) for part in parts),
        engine=engine,
        workload=workload,
        workload_name=loaded.name,
        load=load,
        repeat=repeat,
        digest=_digest(plan, engine, loaded, load),
        salt=loaded.spec.run.seeds.salt,
    )


def _digest(plan: LoadedPlan, engine: EngineUnderTest, loaded: Loaded, load: Load) -> str:
    """Of what is measured and how; names and waiting times are left out, and so are secrets."""
    section = engine.section
    said = {
        "target": section.target,
        "launch": None if engine.words is None else shown(engine.words),
        "env": shown_environment(section.env),
        "url": section.url,
        "balance": section.balance,
        "model": section.model,
        "tokenizer": section.tokenizer,
        "workload": loaded.text,
        "flags": load.flags,
        "allow": sorted(plan.spec.allow),
        "scrape": plan.spec.scrape,
    }
    if hardware := section.hardware.model_dump(mode="json", exclude_defaults=True):
        said["hardware"] = hardware
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:16]

"""The data runs one way: a module imports from its own layer's neighbours or lower layers, never upwards."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("harness", "adapters", "workloads", "results", "dashboards")

# Low to high. A folder stands for those of its modules that are not named; what is in harness/ is named without it.
TABLE = """
nouns       types errors clock registry units plaintext plan.draws
pure        efficiency/ figures/ hardware/ gpu.fields gpu.reasons load.pacer load.sse plan.arrivals plan.bad_rows
            plan.cache_rate plan.cache_salt plan.calls plan.classes
            plan.data_files plan.lengths plan.lognormal plan.overrides plan.places plan.schema_defs plan.sections
            plan.sentences plan.shared plan.sources plan.spec plan.strict plan.times plan.vocabulary plan.yaml_lines
            server.address server.discovery server.metric_names server.prometheus server.samples
dialects    adapters/ workloads/
machinery   gpu/ interrupts launch/ load/ matrix/ plan/ search/ server/ verdict/
results     results/
pages       dashboards/
roots       asking cache cli drive estimating help_sections like_runs listing load.worker machines matrix.forewarned
            matrix.from_flags matrix.refusals matrix.sweep measure options preflight prepare search.hunt search.opening
"""


def _levels() -> dict[str, int]:
    levels, level = {}, -1
    for line in TABLE.strip().splitlines():
        level += not line.startswith(" ")
        for word in line[12:].split():
            name = word.rstrip("/")
            levels[name if name in FOLDERS else f"harness.{name}"] = level
    return levels


LEVEL = _levels()


def modules() -> Iterator[tuple[str, Path]]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path


def level(module: str) -> int | None:
    """That of the module, else of its nearest folder; None for an empty package."""
    found = next((LEVEL[name] for name in _upwards(module) if name in LEVEL), None)
    assert found is not None or module == "harness", f"{module} is in no layer: add it to TABLE"
    return found


def _upwards(module: str) -> Iterator[str]:
    """`a.b.c`, `a.b`, `a`."""
    while module:
        yield module
        module = module.rpartition(".")[0]


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and module (without the package's name) of each import of ours, lazy ones included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{path}:{node.lineno}: imports are absolute"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from ((node.lineno, name.removeprefix("servemark.")) for name in names if name.startswith("servemark."))


@pytest.mark.parametrize(("module", "path"), [pytest.param(*each, id=each[0]) for each in modules()])
def test_no_module_imports_upwards(module: str, path: Path) -> None:
    ours = level(module)
    known = {name for name, file in modules() if file.stat().st_size}  # an empty package holds nothing to import
    upwards = [
        f"{path.name}:{line} imports {name}"
        for line, name in imports(path)
        if name in known and ours is not None and (theirs := level(name)) is not None and theirs > ours
    ]
    assert not upwards


def test_adapters_and_workloads_do_not_know_each_other() -> None:
    strangers = {"adapters": "workloads", "workloads": "adapters"}
    met = [
        f"{module} imports {name}"
        for module, path in modules()
        for _, name in imports(path)
        if strangers.get(module.split(".")[0]) == name.split(".")[0]
    ]
    assert not met


def test_only_the_wire_stamps() -> None:
    """Receive stamps are made in one place; a second one would be a second truth."""
    users = {module for module, path in modules() if ".recvmsg" in path.read_text(encoding="utf-8")}
    assert users == {"harness.load.wire", "harness.preflight"}  # the latter asks whether the kernel stamps at all


def test_every_name_in_the_table_is_a_module() -> None:
    known = {name for name, _ in modules()} | set(FOLDERS)
    assert set(LEVEL) <= known

"""What a user installs: one package, with its data, small, and running from anywhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("harness", "adapters", "workloads", "results", "dashboards")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder, source = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("source")
    for name in _project_files(*FOLDERS, "pyproject.toml", "README.md", "LICENSE"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([*command, "--wheel-dir", folder, source], check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def _project_files(*paths: str) -> list[str]:
    """All but what git ignores: a build folder that an earlier build left would end up in the wheel."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *paths]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    return [name for name in listed if (ROOT / name).is_file()]


def test_the_wheel_has_one_top_level_package(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"servemark"}


def test_everything_in_the_folders_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    packed = set(wheel.namelist())
    files = _project_files(*FOLDERS)
    assert files
    assert [name for name in files if f"servemark/{name}" not in packed] == []


def test_every_package_folder_is_listed() -> None:
    found = {
        ".".join(("servemark", *path.parent.relative_to(ROOT).parts))
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found


def test_the_command_runs_from_the_wheel_in_an_empty_folder(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    site, empty = tmp_path / "site", tmp_path / "empty"
    wheel.extractall(site)
    empty.mkdir()
    command = "import servemark.harness.cli as cli; assert cli.__file__.startswith({!r}), cli.__file__; cli.main({!r})"
    for arguments in (["list"], ["schema"], ["check", "--target", "sim"]):
        done = subprocess.run(
            [sys.executable, "-P", "-c", command.format(str(site), arguments)],
            cwd=empty, env={"PYTHONPATH": str(site), "PATH": ""}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout
    assert list(empty.iterdir()) == []


def test_few_direct_dependencies() -> None:
    assert len(PROJECT["project"]["dependencies"]) <= 20


def _closure() -> dict[str, metadata.Distribution]:
    """Every distribution that installing servemark without extras brings."""
    found: dict[str, metadata.Distribution] = {}
    wanted = ["servemark"]
    while wanted:
        name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # for another platform
        for line in found[name].requires or ():
            requirement, _, marker = line.partition(";")
            if "extra" not in marker:
                wanted.append(re.match(r"[A-Za-z0-9._-]+", requirement.strip())[0])  # type: ignore[index]
    return found


def test_the_install_is_small() -> None:
    installed = _closure()
    assert len(installed) <= 50
    files = {
        Path(str(file.locate())) for each in installed.values() for file in each.files or () if file.suffix != ".pyc"
    }
    megabytes = sum(file.stat().st_size for file in files if file.is_file()) / 1e6
    assert megabytes <= 520, f"{megabytes:.0f} MB"
    print(f"{len(installed)} packages, {megabytes:.0f} MB")


def test_the_folders_are_not_imported_by_their_bare_names() -> None:
    """`import adapters` works in the repository's root and nowhere else; ruff refuses it (TID251)."""
    banned = PROJECT["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]
    assert set(banned) == set(FOLDERS)
    assert "TID" in PROJECT["tool"]["ruff"]["lint"]["select"]

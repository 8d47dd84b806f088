"""A page as a browser draws it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

needs_a_browser = pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")


def in_a_browser(body: str, folder: Path) -> str:
    """The document after its scripts have run, in which nothing was said on the console."""
    (folder / "report.html").write_text(body)
    command = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={folder / 'browser'}", "--virtual-time-budget=5000", "--enable-logging=stderr",
        "--dump-dom", (folder / "report.html").as_uri(),
    ]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in ran.stderr, ran.stderr
    return ran.stdout

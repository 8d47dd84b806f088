"""Puts the adapter through servemark's contract."""

from pathlib import Path

import pytest
from servemark_ollama import ADAPTER

from servemark.adapters.contract import Check, checks


@pytest.mark.parametrize("check", checks(ADAPTER, Path(__file__).parent / "transcripts"), ids=str)
def test_the_contract(check: Check) -> None:
    check()

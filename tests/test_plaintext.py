"""What others wrote is shown without steering the terminal that it is shown on."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from servemark.harness.plaintext import harmless, one_line


def test_what_steers_a_terminal_is_spelled_out() -> None:
    assert harmless("a\x1b[31m\x07\x9b0m\rb\n\tc") == "a\\u001b[31m\\u0007\\u009b0m\\u000db\n\tc"
    assert harmless("abc\u202edef") == "abc\\u202edef"
    assert harmless("„ünï” 模型 🙂") == "„ünï” 模型 🙂"


def test_a_name_is_one_line_and_not_endless() -> None:
    assert one_line(" m\r\nbench: fine\u2028x\x1b ") == "m bench: fine x\\u001b"
    assert one_line("x" * 1000) == "x" * 299 + "…"


@given(st.text())
def test_json_stays_the_same_json(text: str) -> None:
    assert json.loads(harmless(json.dumps({"a": text}, ensure_ascii=False, indent=2))) == {"a": text}

"""What an adapter's probe makes of an answer, for the tests of adapters."""

from __future__ import annotations

import json
from typing import Any

from servemark.harness.types import Adapter


def probed(adapter: Adapter, name: str, status: int, answer: object, model: str = "m") -> dict[str, Any]:
    """By the probe of this name, those of the model included; an answer that is no bytes is sent as JSON."""
    found = next(probe for probe in (*adapter.probes(), *adapter.model_probes(model)) if probe.name == name)
    content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return dict(found.parse(status, content))

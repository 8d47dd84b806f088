"""One self-contained HTML page of a run: no network, no server, safe to open whatever the result holds."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

# Imported for what they register, in the order in which the page shows it.
from servemark.dashboards import panels_verdict  # isort: skip
from servemark.dashboards import panels_classes  # isort: skip
from servemark.dashboards import panels_load  # isort: skip
from servemark.dashboards import panels_hardware  # isort: skip
from servemark.dashboards import panels_limit  # isort: skip
from servemark.dashboards import panels_gpu  # isort: skip
from servemark.dashboards import panels_cost  # isort: skip
from servemark.dashboards import panels_requests  # isort: skip
from servemark.dashboards import panels_server  # isort: skip
from servemark.dashboards import panels_rest  # isort: skip
from servemark.dashboards.facts import checks, is_simulated, is_valid, subject
from servemark.dashboards.panels import PANELS, Data, Figure, Panel
from servemark.dashboards.words import seconds
from servemark.harness.errors import ResultUnusable
from servemark.harness.figures.frame import Frame
from servemark.harness.types import GpuSample, Record, ServerSample
from servemark.results.schema import text

__all__ = [
    "panels_classes",
    "panels_cost",
    "panels_gpu",
    "panels_hardware",
    "panels_limit",
    "panels_load",
    "panels_requests",
    "panels_rest",
    "panels_server",
    "panels_verdict",
    "render",
    "write_page",
]

TEMPLATES = ("page.html.j2", "matrix.html.j2", "page.css", "page.js")


def write_page(
    run: Mapping[str, Any],
    requests: Frame | Sequence[Record],
    samples: Sequence[ServerSample],
    path: Path,
    gpu: Sequence[GpuSample] = (),
) -> Path:
    """Writes the page of a run to `path`. Raises ResultUnusable where it cannot."""
    return write_html(render(run, requests, samples, gpu), path)


def write_html(body: str, path: Path) -> Path:
    """Whole or not at all. Raises ResultUnusable where it cannot be written."""
    temp = path.with_name(f".{path.name}.tmp")
    try:
        temp.write_text(body, encoding="utf-8")
        os.replace(temp, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temp.unlink(missing_ok=True)
        raise ResultUnusable(f"{path}: the page could not be written ({error.strerror})") from error
    return path


def render(
    run: Mapping[str, Any],
    requests: Frame | Sequence[Record],
    samples: Sequence[ServerSample] = (),
    gpu: Sequence[GpuSample] = (),
) -> str:
    """The page as HTML."""
    frame = requests if isinstance(requests, Frame) else Frame.from_records(list(requests))
    data = Data(run, frame, samples, gpu)
    shown = [(name, panel) for name, make in PANELS.items() if (panel := make(data)) is not None]
    return rendered(
        TEMPLATES[0],
        shown,
        title=subject(run),
        run_id=text(run.get("id"), 200),
        created=moment(run.get("created")),
        length=seconds(data.end_s) if len(frame) else "",
        requests=f"{len(frame):,}",
        simulated=is_simulated(run),
        valid=is_valid(run),
        reasons=[check for check in checks(run) if check.word == "invalid"],
    )


def rendered(template: str, panels: Sequence[tuple[str, Panel]], **words: Any) -> str:
    """A template with its panels, each under its name, and the plots in them."""
    figures = {f"{name}-{i}": _plot(part) for name, panel in panels for i, part in _figures(panel)}
    page = _environment().get_template(template)
    return page.render(panels=panels, figures=_embedded(figures), plotly=_plotly(), **words)


def moment(value: object) -> str:
    """A time of a result as people read it."""
    return text(value, 40).replace("T", " ").replace("+00:00", " UTC")


def _figures(panel: Panel) -> list[tuple[int, Figure]]:
    return [(i, part) for i, part in enumerate(panel.parts) if isinstance(part, Figure)]


def _plot(figure: Figure) -> dict[str, Any]:
    return {"data": figure.data, "layout": figure.layout}


def _embedded(value: object) -> Markup:
    """JSON that cannot end its script element, nor open another."""
    body = msgspec.json.encode(value).decode()
    for character in ("<", ">", "&", "\u2028", "\u2029"):
        body = body.replace(character, f"\\u{ord(character):04x}")
    return Markup(body)  # noqa: S704 (every character that HTML gives a meaning is escaped above)


def _plotly() -> Markup:
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs().replace("</script", "<\\/script"))  # noqa: S704 (the library's own code)


def _environment() -> Environment:
    folder = resources.files("servemark.dashboards.templates")
    sources = {name: folder.joinpath(name).read_text(encoding="utf-8") for name in TEMPLATES}
    return Environment(
        loader=DictLoader(sources), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )

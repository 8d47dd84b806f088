"""Requests as the clients of ServeGen make them: each with its own bursts, lengths and reasoning, changing over a day.

A folder (alibaba/ServeGen, Apache-2.0; Xiang et al., NSDI 2026) has for each client `chunk-i-trace.csv`, a row for each
window of time (its start in seconds, rate, coefficient of variation of the gaps, their law, its shape and scale), and
`chunk-i-dataset.json`, which gives for coarser windows the shares of input and output lengths, and of the part of an
output that is reasoning. Nobody's requests are in it: arrivals and lengths are drawn from those laws.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from servemark.harness.errors import BadInput
from servemark.harness.plan.bad_rows import BadRows, counted
from servemark.harness.plan.draws import uniforms
from servemark.harness.plan.sources import SOURCES, Given, Prepared, PromptMaker
from servemark.workloads.traces.clients import Client, read_clients
from servemark.workloads.traces.files import opened
from servemark.workloads.traces.gaps import SECOND
from servemark.workloads.traces.prepared import MADE_UP, PreparedTrace
from servemark.workloads.traces.section import TraceSource
from servemark.workloads.traces.selection import Chosen
from servemark.workloads.traces.table import Table

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

MOST_REQUESTS = 20_000_000
APART = "input, output and reasoning are drawn independently; the files do not say how they go together"


class _Table(Table):
    """Drawn requests. `reasoning` is the share of each one's output that is."""

    reasoning: Floats | None = None
    digest = ""


@SOURCES.register("servegen")
class ServeGen(TraceSource):
    """Arrivals and lengths drawn from the clients of a ServeGen folder."""

    nothing = "no request in this time; widen prompts.slice, or see that the folder is whole"

    source: Literal["servegen"] = "servegen"

    def read(self, path: Path, given: Given) -> Table:
        self._check_folder(path)
        table, bad = _Table(path), BadRows()
        clients, table.digest = read_clients(path, bad)
        windows = [window for client in clients for window in client.windows]
        bad.check(path, len(windows))
        table.origin_ns, table.end_ns = 0, max((window.end_ns for window in windows), default=0)
        table.notes += bad.note(len(windows) + bad.count, " of the clients")
        between_ns = self.slice.start, self.slice.start + (self.slice.duration or table.end_ns)
        busy = [(client, number) for client in clients for number in client.busy(*between_ns)]
        self._check_size(path, sum(client.windows[number].expected for client, number in busy))
        silent = {client.number for client, _ in busy if not client.lengths}
        if silent:
            table.notes.append(f"{counted(len(silent), 'client')} left out, of whose requests no lengths are known")
        table.what = f"requests drawn for {counted(len({client.number for client, _ in busy} - silent), 'client')}"
        _fill(table, [_drawn(path, *each, given) for each in busy if each[0].number not in silent], between_ns)
        return table

    def _check_folder(self, path: Path) -> None:
        if path.is_file():
            with opened(path) as file:
                first = file.readline(1000).decode("utf-8", "replace")
            raise BadInput(f"{path}: this is a file; source servegen takes the folder of a model{self.guess(first)}")

    def _check_size(self, path: Path, expected: float) -> None:
        if expected > MOST_REQUESTS:
            raise BadInput(
                f"{path}: about {expected:,.0f} requests are too many at once; shorten prompts.slice.duration"
            )

    def made(self, given: Given, maker: PromptMaker, table: Table, chosen: Chosen) -> Prepared:
        assert isinstance(table, _Table)
        told: tuple[str, ...] = (MADE_UP, APART)
        if table.reasoning is not None:
            reasoning = float((table.reasoning[chosen.rows] * chosen.output_tokens).sum() / chosen.output_tokens.sum())
            told += (
                f"{reasoning:.1%} of the output tokens stand for reasoning; a model is asked for the sum, and reasons "
                "as much as it does",
            )
        return PreparedTrace(maker, chosen, table.digest, told)


@dataclass(frozen=True, slots=True)
class _Drawn:
    at_ns: Ints
    inputs: Floats
    outputs: Floats
    reasoning: Floats | None


def _drawn(path: Path, client: Client, number: int, given: Given) -> _Drawn:
    """The requests of one client in one window: a pure function of the seeds and of which window it is."""
    window, block = client.windows[number], client.number << 32 | number
    at_ns = window.arrivals_ns(lambda stream, count: uniforms(given.seeds.arrivals, stream, block, count))
    try:
        lengths = client.lengths.at(window.start_ns // SECOND)
    except ValueError as error:
        raise BadInput(f"{path / f'chunk-{client.number}-dataset.json'}: {error}; fetch the file again") from None
    inputs, outputs, reasoning = (
        uniforms(given.seeds.lengths, stream, block, len(at_ns))
        for stream in (b"servegen.input", b"servegen.output", b"servegen.reason")
    )
    return _Drawn(
        at_ns,
        lengths.input_tokens.at(inputs),
        lengths.output_tokens.at(outputs),
        lengths.reasoning.at(reasoning) if lengths.reasoning is not None else None,
    )


def _fill(table: _Table, drawn: list[_Drawn], between_ns: tuple[int, int]) -> None:
    """All clients' requests between two times, in their order."""
    import numpy as np

    if not drawn:
        return
    at_ns = np.concatenate([each.at_ns for each in drawn])
    order = np.argsort(at_ns, kind="stable")
    order = order[slice(*np.searchsorted(at_ns[order], between_ns))]
    table.at_ns.frombytes(at_ns[order].astype(np.int64).tobytes())
    for column, parts in (
        (table.input_tokens, [d.inputs for d in drawn]),
        (table.output_tokens, [d.outputs for d in drawn]),
    ):
        column.frombytes(np.concatenate(parts)[order].astype(np.uint32).tobytes())
    if any(each.reasoning is not None for each in drawn):
        shares = [np.zeros(len(each.at_ns)) if each.reasoning is None else each.reasoning for each in drawn]
        table.reasoning = np.concatenate(shares)[order]

"""`bench`: one thin function per command. Everything heavy is imported where it is used, so that --help is quick."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from servemark.harness.errors import EXIT_BAD_INPUT, BadInput, BenchError, ResultUnusable
from servemark.harness.help_sections import SectionedCommand, under
from servemark.harness.options import (
    deployment_options,
    dollars,
    hardware_options,
    load_options,
    made_on_options,
    target_options,
)
from servemark.harness.plaintext import harmless

if TYPE_CHECKING:
    from servemark.harness.matrix.sweep import Sweep
    from servemark.results.recover import LoadedRun

_sweep, _search, _slo, _output = under("Sweep"), under("Search"), under("SLO and verdict"), under("Output")
_server, _models, _load, _hardware = under("Server"), under("Model and GPUs"), under("Load"), under("Hardware and cost")
_predictions = under("Predictions")

_WIDTH = {"max_content_width": 100, "help_option_names": ["-h", "--help"]}


@click.group(context_settings=_WIDTH)
@click.version_option(package_name="servemark", prog_name="bench")
def bench() -> None:
    """Load an LLM server as real users would, and say whether the numbers count.

    Exit codes: 0 fine, 1 a gate is missed, 2 bad input, 3 target unusable, 4 the run is INVALID.
    """


@bench.command(cls=SectionedCommand)
@target_options
@load_options
@hardware_options
@_slo("--allow", multiple=True, metavar="CODE", help="Waive a check of the verdict; it is recorded.")
@_output("--out", type=Path, metavar="DIR", help="Folder of the run.  [default: runs/<id>]")
@_server("--scrape", default="1s", show_default=True, metavar="TIME", help="Period of the server's metrics.")
@_output("--json", "as_json", is_flag=True, help="Print run.json instead of the summary.")
@_output("--quiet", is_flag=True, help="No live view, and one line at the end.")
@click.argument("more_goodput", nargs=-1, metavar="")
def run(more_goodput: Sequence[str], as_json: bool, **given: Any) -> int:
    """Run a workload against a server, and judge the run.

    \b
    bench run --target vllm --workload chat.yaml
    bench run --target sim --rate 4 --duration 20s --slo ttft=200ms,tpot=50ms --gate
    """
    from servemark.harness.asking import asked
    from servemark.harness.measure import measure

    measured = measure(asked(given, more_goodput))
    if as_json:
        _print_json(measured.run)
    elif given["quiet"]:
        _say(_in_one_line(measured.run, measured.folder))
    else:
        _print_summary(measured.run, measured.folder)
    return measured.exit_code


@bench.command()
@click.argument("plan", type=Path)
@click.option("--out", type=Path, metavar="DIR", help="Folder of the matrix.  [default: runs/<the plan's name>]")
@click.option("--dry-run", is_flag=True, help="List the cells and what is known of them; run nothing.")
@click.option("--retry-invalid", is_flag=True, help="Measure INVALID cells again; what they left is kept.")
@click.option("--json", "as_json", is_flag=True, help="Print matrix.json instead of the table.")
@click.option("--quiet", is_flag=True, help="Nothing while it runs.")
def matrix(plan: Path, out: Path | None, dry_run: bool, retry_invalid: bool, as_json: bool, quiet: bool) -> int:
    """Measure engines x workloads x loads, as a plan says; run again, it goes on where it stopped.

    \b
    bench matrix plan.yaml
    bench matrix plan.yaml --dry-run
    """
    from servemark.harness.matrix.plan import load_plan
    from servemark.harness.matrix.sweep import open_sweep

    return _carried_out(open_sweep(load_plan(plan), out, quiet, retry_invalid), dry_run, as_json)


@bench.command(cls=SectionedCommand)
@target_options
@load_options
@hardware_options
@_sweep(
    "--over", multiple=True, required=True, metavar="NAME=VALUES", help="What is varied: rate=1,2,4, rate=1..64x2, ..."
)
@_sweep("--repeat", type=click.IntRange(1, 1_000), default=1, show_default=True, help="Runs at each point.")
@_sweep("--cool-down", default="5s", show_default=True, metavar="TIME", help="Pause between two runs.")
@_sweep("--until-missed", is_flag=True, help="Skip the loads above two that miss the SLO.")
@_slo("--allow", multiple=True, metavar="CODE", help="Waive a check of the verdict; it is recorded.")
@_output("--out", type=Path, metavar="DIR", help="Folder of the sweep.  [default: runs/<target>_...]")
@_server("--scrape", default="1s", show_default=True, metavar="TIME", help="Period of the server's metrics.")
@_sweep("--dry-run", is_flag=True, help="List the points and what is known of them; run nothing.")
@_sweep("--retry-invalid", is_flag=True, help="Measure INVALID points again; what they left is kept.")
@_output("--json", "as_json", is_flag=True, help="Print sweep.json instead of the table.")
@_output("--quiet", is_flag=True, help="Nothing while it runs.")
@click.argument("more_goodput", nargs=-1, metavar="")
def sweep(more_goodput: Sequence[str], dry_run: bool, as_json: bool, **given: Any) -> int:
    """Measure a workload at many loads, or over any of its fields; run again, it goes on where it stopped.

    \b
    bench sweep --target vllm --workload chat --over rate=1..16x2
    bench sweep --target sim --over concurrency=1,4,16 --over input-tokens=256,2048
    """
    from servemark.harness.asking import asked
    from servemark.harness.matrix.from_flags import sweep_plan
    from servemark.harness.matrix.sweep import open_sweep

    wanted = asked(given, more_goodput)
    plan = sweep_plan(wanted, given["over"], _spellings(), given["repeat"], given["cool_down"])
    headers, retry, skip = wanted.flags.get("headers"), given["retry_invalid"], given["until_missed"]
    return _carried_out(open_sweep(plan, wanted.out, wanted.quiet, retry, skip, headers), dry_run, as_json)


def _spellings() -> dict[str, str]:
    """What `bench run` calls its flags: `max-concurrency` -> `concurrency`."""
    return {option.lstrip("-"): str(param.name) for param in run.params for option in param.opts}


@bench.command(cls=SectionedCommand)
@target_options
@load_options
@hardware_options
@_search("--by", type=click.Choice(["rate", "concurrency"]), help="What is raised.  [default: as the workload is]")
@_search("--from", "from", default="1", show_default=True, metavar="LOAD", help="Where the search begins.")
@_search("--to", default="64", show_default=True, metavar="LOAD", help="No further, up or down.")
@_search("--precision", default="5%", show_default=True, help="How close the ends of the bracket must come.")
@_search("--confirm", type=click.IntRange(1, 100), default=3, show_default=True, help="Runs at each end of it.")
@_search("--point-time", default="2m", show_default=True, metavar="TIME", help="No run counts longer than that.")
@_search("--cool-down", default="5s", show_default=True, metavar="TIME", help="Pause between two runs.")
@_search("--at-least", metavar="LOAD", help="Exit with 1 when the answer is less.")
@_search("--retry-invalid", is_flag=True, help="Measure again what this client was not up to.")
@_slo("--allow", multiple=True, metavar="CODE", help="Waive a check of the verdict; it is recorded.")
@_output("--out", type=Path, metavar="DIR", help="Folder of the search.  [default: runs/search-...]")
@_server("--scrape", default="1s", show_default=True, metavar="TIME", help="Period of the server's metrics.")
@_output("--json", "as_json", is_flag=True, help="Print search.json instead of the answer.")
@_output("--quiet", is_flag=True, help="Nothing while it runs, and the answer alone.")
@click.argument("more_goodput", nargs=-1, metavar="")
def search(more_goodput: Sequence[str], as_json: bool, **given: Any) -> int:
    """Find the highest load that meets the SLO; run again, it goes on where it stopped.

    \b
    bench search --target vllm --workload chat --slo ttft=500ms,tpot=50ms --attainment 0.99
    bench search --target sim --workload chat --by concurrency --to 256
    """
    from servemark.dashboards.search_page import write_search_page
    from servemark.harness.asking import asked
    from servemark.harness.search.opening import open_search
    from servemark.results.search import SEARCH_PAGE

    hunt = open_search(asked(given, more_goodput), given)
    hunt.carry_out()
    found = hunt.index.to_json()
    page = write_search_page(found, hunt.shelf.root / SEARCH_PAGE) if hunt.index.runs else None
    if as_json:
        _print_json(found)
    else:
        _print_search(found, page, hunt.interrupted, given["quiet"])
    return hunt.exit_code


@bench.command(cls=SectionedCommand)
@target_options
@load_options
@hardware_options
def check(**given: Any) -> int:
    """Say whether a run could start, and what would limit it. Sends no load."""
    from servemark.harness.asking import asked
    from servemark.harness.preflight import preflight

    code = 0
    for finding in preflight(asked(given, ())):
        _say(finding.line())
        code = code or finding.exit_code
    return code


@bench.command(cls=SectionedCommand)
@_models(
    "--model",
    "--model-config",
    "model",
    required=True,
    metavar="CONFIG|NAME",
    help="A config.json, its folder, or a known name.",
)
@deployment_options
@_load("--workload", metavar="NAME", help="Its mean lengths and its SLO: a YAML file, or a packaged name.")
@_load("--input-tokens", type=click.IntRange(1, 10**8), help="Tokens of a prompt.  [default: 1024]")
@_load("--output-tokens", type=click.IntRange(1, 10**8), help="Tokens of an answer.  [default: 256]")
@_load("--context", metavar="TOKENS", help="Room for each request, as 128k.  [default: prompt + answer]")
@_load("--batch", default="1,8,64", show_default=True, metavar="LIST", help="Requests running on a server.")
@_models("--memory-utilisation", type=float, default=0.9, show_default=True, help="Share that the engine takes.")
@_models("--reserve-gb", type=float, help="Of that, what is neither weights nor KV.  [default: estimated]")
@_hardware("--gpu-price", type=dollars, metavar="USD", help="Of one GPU for an hour.")
@_hardware("--prices", type=Path, metavar="FILE", help="File of prices, or of what an own GPU costs.")
@_slo("--slo", help="Also the largest batch that meets this: ttft=500ms,tpot=50ms,e2e=5s")
@_load("--rate", type=float, metavar="REQ/S", help="Also how many servers and GPUs so many requests/s need.")
@_predictions("--like", multiple=True, metavar="RUN", help="A run whose MBU and MFU make predictions; repeatable.")
@_predictions("--like-gpu", metavar="NAME", help="What runs of --like ran on, where they do not know it.")
@_predictions("--mbu", metavar="SHARE", help="Assumed for decode steps, as 0.7 or 70%, where no run tells it.")
@_predictions("--mfu", metavar="SHARE", help="Assumed for prompts, likewise.")
@_output("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@_output("--out", type=Path, metavar="FILE", help="Write a page of it, as estimate.html.")
def estimate(as_json: bool, out: Path | None, **given: Any) -> int:
    """Say what a model could do on GPUs before they are bought: whether it fits, floors, bounds, cost.

    \b
    bench estimate --model llama-3.1-70b --gpu h100-sxm,h200 --tp 2,4 --dtype fp8 --gpu-price 2.5
    bench estimate --model llama-3.1-8b --gpu l4,h200 --slo ttft=500ms,tpot=50ms --rate 20 --mbu 0.7 --mfu 0.5
    bench estimate --model config.json --gpu b200 --context 128k --like runs/ID
    """
    from servemark.dashboards.estimate import estimate_text, terminal_width
    from servemark.dashboards.estimate_page import write_estimate_page
    from servemark.harness.estimating import estimated

    found = estimated(given)
    page = None if out is None else write_estimate_page(found, out)
    if as_json:
        _print_json(found)
    else:
        _say(estimate_text(found, terminal_width()))
        if page is not None:
            _say(f"\n{page}")
    return 0


@bench.command(cls=SectionedCommand)
@click.argument("run_folder", metavar="[RUN]", required=False)
@made_on_options
@_output("--json", "as_json", is_flag=True, help="Print run.json instead of the summary.")
def show(run_folder: str | None, as_json: bool, **given: Any) -> int:
    """Print the summary of a saved run, the newest in ./runs if none is named; one that was killed is read as far as
    it got. Flags of the hardware work its figures out anew, as --gpu-price 3; the run stays as it is."""
    saved = _opened(run_folder, given)
    if as_json:
        _print_json(saved.run)
    else:
        _print_summary(saved.run, saved.folder)
    return 0


@bench.command(cls=SectionedCommand)
@click.argument("run_folder", metavar="[RUN]", required=False)
@made_on_options
@_output("--out", type=Path, metavar="FILE", help="Where to write it.  [default: report.html in the run]")
def report(run_folder: str | None, out: Path | None, **given: Any) -> int:
    """Write the HTML page of a saved run, the newest in ./runs if none is named; flags as of `bench show`."""
    from servemark.dashboards.page import write_page
    from servemark.results.schema import PAGE

    saved = _opened(run_folder, given)
    path = out or saved.folder / PAGE
    _say(write_page(saved.run, saved.frame(), saved.server_samples(), path, saved.gpu_samples()))
    return 0


def _opened(run_folder: str | None, given: dict[str, Any]) -> LoadedRun:
    """The saved run; with flags of the hardware, its figures are worked out anew."""
    from servemark.results.saved import open_run

    saved = open_run(run_folder)
    if all(value in (None, ()) for value in given.values()):
        return saved
    from servemark.harness.asking import hardware_of
    from servemark.results.reworked import reworked

    return reworked(saved, hardware_of(given))


@bench.command(name="list")
@click.argument("what", type=click.Choice(["gpus"]), required=False)
@click.option("--gpu-file", multiple=True, type=Path, metavar="FILE", help="With gpus: further kinds; repeatable.")
def list_(what: str | None, gpu_file: tuple[Path, ...]) -> int:
    """Show targets, workloads, metrics and the checks of the verdict; or `bench list gpus`, with their figures."""
    from servemark.harness.listing import gpu_table, listing

    if gpu_file and what is None:
        raise BadInput("--gpu-file: goes with `bench list gpus`; write gpus before it")
    for line in gpu_table(gpu_file) if what == "gpus" else listing():
        _say(line)
    return 0


@bench.command()
@click.argument("kind", type=click.Choice(["workload", "matrix"]), default="workload")
def schema(kind: str) -> int:
    """Print the JSON Schema of the workload file, or of a matrix's plan."""
    if kind == "matrix":
        from servemark.harness.matrix.plan import json_schema
    else:
        from servemark.harness.plan.spec import json_schema

    _print_json(json_schema())
    return 0


@bench.command(name="gpu-exporter")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; others are open to all.")
@click.option("--port", type=click.IntRange(0, 65_535), default=9433, show_default=True, help="0 takes a free one.")
@click.option("--period", default="200ms", show_default=True, metavar="TIME", help="GPUs are read no more often.")
@click.option("--gpu-index", metavar="LIST", help="GPUs to tell of: 0,1 or UUIDs.  [default: all]")
def gpu_exporter(host: str, port: int, period: str, gpu_index: str | None) -> int:
    """Tell of this machine's GPUs over HTTP, for a run elsewhere and its --gpu-metrics.

    \b
    bench gpu-exporter                            # on gpu-host, on loopback
    ssh -N -L 9433:127.0.0.1:9433 gpu-host        # here
    bench run --url http://gpu-host:8000 --gpu-metrics http://127.0.0.1:9433 ...
    """
    from servemark.harness.gpu.exporter import export

    export(host, port, period, [each.strip() for each in (gpu_index or "").split(",") if each.strip()])
    return 0


@bench.group()
def sim() -> None:
    """The built-in target: a simulated server that speaks a real one's dialect."""


def _sim_options(command: Callable[..., Any]) -> Callable[..., Any]:
    from servemark.adapters.sim.options import option_table

    for option in reversed(list(option_table())):
        kind = {"is_flag": True} if option.type is bool else {"type": option.type, "show_default": True}
        command = click.option(option.flag, option.name, default=option.default, help=option.help, **kind)(command)
    return command


@sim.command()
@_sim_options
def serve(**options: Any) -> int:
    """Start the simulated server and serve until stopped."""
    from servemark.adapters.sim.serving import serve as serve_until_stopped

    serve_until_stopped(**options)
    return 0


def _in_one_line(run: dict[str, Any], folder: Path) -> str:
    """For a job's log: the verdict, where the run is, and what speaks against it."""
    verdict = run["verdict"]
    against = [check["code"] for check in verdict["checks"] if check["severity"] == "invalid" and not check["waived"]]
    if run["slo"]["met"] is False:
        against.append("SLO missed")
    said = f"{'VALID' if verdict['valid'] else 'INVALID'}  {folder}"
    return f"{said}  {', '.join(against)}" if against else said


def _print_json(value: Any) -> None:
    import json

    _say(json.dumps(value, indent=2, ensure_ascii=False))


def _print_summary(run: dict[str, Any], folder: Path) -> None:
    from rich.console import Console

    from servemark.dashboards.terminal import WIDTH, print_summary, summary_text

    if sys.stdout is not None and sys.stdout.isatty():
        print_summary(run, Console(), folder)
    else:
        _say(summary_text(run, WIDTH, folder).removesuffix("\n"))


def _carried_out(sweep: Sweep, dry_run: bool, as_json: bool) -> int:
    """The runs of a matrix or a sweep, and what is to be seen of them."""
    if sweep.plan.kind == "sweep":
        from servemark.dashboards.sweep import render_sweep as render
    else:
        from servemark.dashboards.matrix import render_matrix as render
    from servemark.dashboards.page import write_html

    if not dry_run:
        sweep.carry_out()
        write_html(render(sweep.index.to_json()), sweep.shelf.page_path)
    if as_json:
        _print_json(sweep.index.to_json())
    else:
        _print_table(sweep, dry_run)
    return 0 if dry_run else sweep.exit_code


def _print_table(sweep: Sweep, dry_run: bool) -> None:
    if sweep.plan.kind == "sweep":
        from servemark.dashboards.sweep import table_text
    else:
        from servemark.dashboards.matrix import table_text

    left, count = len(sweep.to_do), len(sweep.cells)
    _say(table_text(sweep.index.to_json()))
    if dry_run:
        _say(f"\n{left} of {count} to run, in {sweep.shelf.root}")
        return
    _say(f"\n{sweep.shelf.page_path}")
    if sweep.interrupted:
        _say(f"interrupted; {left} of {count} are left, and the same command goes on with them")


def _print_search(found: dict[str, Any], page: Path | None, interrupted: bool, quiet: bool) -> None:
    from servemark.dashboards.search import money, sentence, table_text

    if not quiet and found["points"]:
        _say(f"{table_text(found)}\n")
    _say("interrupted; the same command goes on with it" if interrupted else sentence(found))
    if costs := money(found):
        _say(costs)
    if page is not None and not quiet:
        _say(f"\n{page}")


def _say(text: object) -> None:
    """A line on stdout. Whoever read it may have gone, as `head` does; that changes neither the run nor the code."""
    try:
        click.echo(harmless(str(text)))
    except BrokenPipeError:
        _silence(sys.stdout)
    except OSError as error:
        _silence(sys.stdout)
        raise ResultUnusable(f"standard output cannot be written: {error.strerror}") from error


def _silence(stream: TextIO) -> None:
    """What is still in its buffer goes nowhere; else the interpreter would fail over it when it ends."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def main(arguments: Sequence[str] | None = None) -> None:
    """Exits with the command's code; an error of ours is one sentence on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may know fewer characters than a summary has
            stream.reconfigure(errors="backslashreplace")
    code = _code_of(arguments)
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            _silence(stream)
    sys.exit(code)


def _code_of(arguments: Sequence[str] | None) -> int:
    try:
        return int(bench(args=arguments, prog_name="bench", standalone_mode=False) or 0)
    except BenchError as error:
        _complain(f"bench: {error}")
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return EXIT_BAD_INPUT
    except click.ClickException as error:
        _complain(f"bench: {error.format_message().rstrip('.')}; {_help_of(error)} shows what there is")
        return EXIT_BAD_INPUT
    except (KeyboardInterrupt, click.Abort):
        _complain("bench: interrupted; nothing was measured")
        return EXIT_BAD_INPUT


def _help_of(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"`{context.command_path if context else 'bench'} --help`"


def _complain(sentence: str) -> None:
    with contextlib.suppress(OSError):
        click.echo(harmless(sentence), err=True)

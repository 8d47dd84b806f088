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

from servemark.harness.errors import EXIT_BAD_INPUT, BenchError, ResultUnusable
from servemark.harness.plaintext import harmless

if TYPE_CHECKING:
    from servemark.harness.matrix.sweep import Sweep

_WIDTH = {"max_content_width": 100, "help_option_names": ["-h", "--help"]}


@click.group(context_settings=_WIDTH)
@click.version_option(package_name="servemark", prog_name="bench")
def bench() -> None:
    """Load an LLM server as real users would, and say whether the numbers count.

    Exit codes: 0 fine, 1 a gate is missed, 2 bad input, 3 target unusable, 4 the run is INVALID.
    """


def target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What says which server, which workload, and how to reach it."""
    for option in reversed(
        (
            click.option("--target", required=True, help="Kind of server: vllm, sim, ... (`bench list`)."),
            click.option("--workload", default="chat", show_default=True, help="A YAML file, or a packaged name."),
            click.option(
                "--url",
                "urls",
                multiple=True,
                metavar="URL",
                help="Base URL of the server; repeatable, one for each replica.  [default: the target's own]",
            ),
            click.option("--balance", metavar="NAME", help="Which replica gets a request.  [default: round-robin]"),
            click.option("--launch", metavar='"MODEL FLAGS"', help="Start the server so, and end it after the run."),
            click.option("--model", help="Model to ask for.  [default: the one it serves]"),
            click.option(
                "--metrics-url",
                "metrics_urls",
                multiple=True,
                metavar="URL",
                help="Where the server's own metrics are, if elsewhere; repeatable, one for each --url.",
            ),
            click.option("--api-key-env", metavar="VAR", help="Environment variable that holds the API key."),
            click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="Added to each request."),
            click.option("--wait", metavar="TIME", help="Wait so long for the server to be ready, as 120s."),
            click.option("--tokenizer", type=Path, metavar="FILE", help="tokenizer.json, where the server has none."),
            click.option("--cacert", metavar="FILE", help="Authorities to trust for https (PEM)."),
            click.option("--insecure", is_flag=True, help="Do not verify the server's certificate."),
        )
    ):
        command = option(command)
    return command


def load_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Flags that go over the workload file; vLLM's names are accepted beside ours."""
    for option in reversed(
        (
            click.option("--rate", "--request-rate", "rate", help="Requests per second (open loop), or inf."),
            click.option(
                "--concurrency",
                "--max-concurrency",
                "concurrency",
                help="Requests in flight (closed loop); with a rate, the cap of an open loop.",
            ),
            click.option("--requests-per-minute", help="Cap of a closed loop, as hosted endpoints have one."),
            click.option("--requests", "--num-prompts", "requests", help="End after so many requests that count."),
            click.option("--duration", help="Time that counts, as 60s."),
            click.option("--warmup", "--num-warmups", "warmup", help="Time, as 10s, or a number of requests."),
            click.option("--drain", help="How long requests in flight may finish at the end."),
            click.option("--cache", help="Prefix cache at the start: cold, warm or as_is.  [default: as_is]"),
            click.option("--input-tokens", help="Prompt lengths: 512, uniform(100,200), ..."),
            click.option("--output-tokens", help="Answer lengths, likewise."),
            click.option("--seed", help="One seed for arrivals, prompts, lengths and order."),
            click.option("--endpoint", help="chat, completions, or generate (the server's own).  [default: its first]"),
            click.option("--temperature", help="Sampling temperature."),
            click.option("--data", metavar="FILE", help="The trace or data file of the workload's prompt source."),
            click.option("--extra-body", metavar="JSON", help="Fields added to each request's body."),
            click.option("--slo", help="Objectives: ttft=200ms,tpot=50ms,ttft:p99=500ms"),
            click.option("--goodput", multiple=True, metavar="METRIC:MS", help="Objectives as vLLM writes them."),
            click.option("--attainment", help="Share of requests that must meet them all, as 0.99."),
            click.option("--gate", is_flag=True, default=None, help="Exit with 1 when an objective is missed."),
        )
    ):
        command = option(command)
    return command


@bench.command()
@target_options
@load_options
@click.option("--allow", multiple=True, metavar="CODE", help="Waive a check of the verdict; it is recorded.")
@click.option("--out", type=Path, metavar="DIR", help="Folder of the run.  [default: runs/<id>]")
@click.option("--scrape", default="1s", show_default=True, metavar="TIME", help="Period of the server's metrics.")
@click.option("--json", "as_json", is_flag=True, help="Print run.json instead of the summary.")
@click.option("--quiet", is_flag=True, help="No live view, and one line at the end.")
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
    from servemark.dashboards.matrix import write_matrix_page
    from servemark.harness.matrix.plan import load_plan
    from servemark.harness.matrix.sweep import open_sweep
    from servemark.results.matrix import MATRIX_PAGE

    sweep = open_sweep(load_plan(plan), out, quiet, retry_invalid)
    if not dry_run:
        sweep.carry_out()
        write_matrix_page(sweep.index.to_json(), sweep.shelf.root / MATRIX_PAGE)
    if as_json:
        _print_json(sweep.index.to_json())
    else:
        _print_matrix(sweep, dry_run)
    return 0 if dry_run else sweep.exit_code


@bench.command()
@target_options
@load_options
def check(**given: Any) -> int:
    """Say whether a run could start, and what would limit it. Sends no load."""
    from servemark.harness.asking import asked
    from servemark.harness.preflight import preflight

    code = 0
    for finding in preflight(asked(given, ())):
        _say(finding.line())
        code = code or finding.exit_code
    return code


@bench.command()
@click.argument("run_folder", metavar="[RUN]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print run.json instead of the summary.")
def show(run_folder: str | None, as_json: bool) -> int:
    """Print the summary of a saved run, the newest in ./runs if none is named; one that was killed is read as far as
    it got."""
    from servemark.results.saved import open_run

    saved = open_run(run_folder)
    if as_json:
        _print_json(saved.run)
    else:
        _print_summary(saved.run, saved.folder)
    return 0


@bench.command()
@click.argument("run_folder", metavar="[RUN]", required=False)
@click.option("--out", type=Path, metavar="FILE", help="Where to write it.  [default: report.html in the run]")
def report(run_folder: str | None, out: Path | None) -> int:
    """Write the HTML page of a saved run, the newest in ./runs if none is named."""
    from servemark.dashboards.page import write_page
    from servemark.results.saved import open_run
    from servemark.results.schema import PAGE

    saved = open_run(run_folder)
    _say(write_page(saved.run, saved.frame(), saved.server_samples(), out or saved.folder / PAGE))
    return 0


@bench.command(name="list")
def list_() -> int:
    """Show targets, workloads, metrics and the checks of the verdict."""
    from servemark.harness.listing import listing

    for line in listing():
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


def _print_matrix(sweep: Sweep, dry_run: bool) -> None:
    from servemark.dashboards.matrix import table_text
    from servemark.results.matrix import MATRIX_PAGE

    left, count = len(sweep.to_do), len(sweep.cells)
    _say(table_text(sweep.index.to_json()))
    if dry_run:
        _say(f"\n{left} of {count} to run, in {sweep.shelf.root}")
        return
    _say(f"\n{sweep.shelf.root / MATRIX_PAGE}")
    if sweep.interrupted:
        _say(f"interrupted; {left} of {count} are left, and the same command goes on with them")


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

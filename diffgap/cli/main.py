"""The command line: each command parses, calls one function, and prints.

Nothing heavy is imported before a command needs it, so that help is instant.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffgap import __version__
from diffgap.cli.bridge import USE_COMMANDS
from diffgap.cli.data import DATA_COMMANDS
from diffgap.cli.generate import generate
from diffgap.cli.options import ADDRESS, OUTPUT, SETS, make_console, progress_bar
from diffgap.cli.report import explain_command, report
from diffgap.cli.status import STATUS_COMMANDS
from diffgap.cli.submit import submit
from diffgap.errors import UserError
from diffgap.io.paths import StoragePath

if TYPE_CHECKING:
    from rich.console import Console

    from diffgap.ledger.ledger import Ledger
    from diffgap.spec import SweepSpec
    from diffgap.store.store import EmbeddingStore


RESTARTS = "DIFFGAP_RESTARTS"
"""How often this command has started over, after it lost its Ray."""


class Commands(click.Group):
    """Turns a UserError of any command into one line a mistake and exit status 2."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except UserError as error:
            for problem in error.problems:
                click.echo(f"error: {problem}", err=True)
            context.exit(2)
        except KeyboardInterrupt:
            click.echo("interrupted; the same command goes on from here", err=True)
            context.exit(130)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: diffgap sweep sweeps/ablation.yaml",
)
@click.version_option(__version__)
def main() -> None:
    """Train, ablate and compare bridges over the modality gap of frozen embeddings."""


@main.command(short_help="Run what is missing of a sweep and print its table.")
@click.argument("spec", type=click.Path(path_type=Path))
@SETS
@click.option("--dry-run", is_flag=True, help="Print the plan; start and write nothing.")
@click.option(
    "--resume/--fresh",
    default=True,
    help="Go on with what is there (the default), or forget these trials and do them anew.",
)
@click.option(
    "--prune",
    is_flag=True,
    help="Mark in MLflow the trials that an edited SPEC no longer asks for.",
)
@click.option(
    "--max-concurrent",
    type=click.IntRange(1),
    help="The most trials at once; the default is what the cluster holds.",
)
@click.option(
    "--patience",
    type=click.FloatRange(0, min_open=True),
    envvar="DIFFGAP_PATIENCE",
    metavar="MINUTES",
    help="For a cluster that grows: how long to wait for the nodes, and the GPUs, that a trial "
    "asks for.  [default: DIFFGAP_PATIENCE, else a minute, and what is there]",
)
@click.option("-q", "--quiet", is_flag=True, help="Print the tables and what went wrong, no more.")
@click.option("-v", "--verbose", is_flag=True, help="Show what Ray and its workers say, too.")
@ADDRESS
@OUTPUT
def sweep(
    spec: Path,
    sets: tuple[str, ...],
    dry_run: bool,
    resume: bool,
    prune: bool,
    max_concurrent: int | None,
    patience: float | None,
    quiet: bool,
    verbose: bool,
    address: str | None,
    output: StoragePath,
) -> None:
    """Run what is missing of the sweep SPEC and print its table.

    A finished trial is never repeated, whichever sweep ran it: after a crash, Ctrl-C or an edit
    of SPEC the same command goes on with what is missing. Watch it from elsewhere with `diffgap
    status`. Exit status: 0 all trials finished, 1 some failed, 2 the request was wrong,
    130 interrupted.

    \b
    Examples:
      diffgap sweep sweeps/ablation.yaml
      diffgap sweep sweeps/ablation.yaml --dry-run
      diffgap sweep sweeps/ablation.yaml --set store=/data/audiocaps-clap --set seeds=5
      diffgap sweep sweeps/ablation.yaml --set trial.train.steps=50 --output /tmp/try
      diffgap sweep sweeps/hyperparameters.yaml --max-concurrent 1   # reproducible to the trial
    """
    from diffgap.ledger.ledger import Ledger
    from diffgap.sweep.plan import make_plan

    console = make_console()
    wanted = _load(spec, sets)
    ledger = Ledger(output)
    if dry_run:
        _print_plan(wanted, ledger, console)
        return
    store, uri = _open_store(wanted, console)
    plan = make_plan(wanted, uri, store.fingerprint)
    from diffgap.sweep.run import SweepOptions, run_sweep

    options = SweepOptions(
        address,
        fresh=not resume,
        prune=prune,
        max_concurrent=max_concurrent,
        verbose=verbose,
        quiet=quiet,
        patience=patience,
        on_loss=_starter_over(wanted.retries),
    )
    without = run_sweep(plan, ledger, console, options)
    try:
        _print_tables(ledger, plan.spec.name, console)
    except UserError as error:  # the trials are safe; MLflow may be away
        click.echo(f"No table for now: {error}", err=True)
        without = without or {"MLflow": "it could not be read"}
    _exit_with(without)


def _exit_with(without: dict[str, str]) -> None:
    """Says which trials have no result, and why; and exits accordingly."""
    from diffgap.sweep.run import INTERRUPTED

    failed = {label: reason for label, reason in without.items() if reason != INTERRUPTED}
    for label, reason in failed.items():
        click.echo(f"{label}: {reason}", err=True)
    interrupted = len(without) - len(failed)
    if interrupted:
        trials = "trial" if interrupted == 1 else "trials"
        click.echo(f"{interrupted} {trials}: {INTERRUPTED}", err=True)
    if without:
        sys.exit(130 if interrupted else 1)


def _starter_over(retries: int) -> Callable[[str], None]:
    """What to do when the local Ray is lost: this same command, in place of this process."""

    def start_over(dead: str) -> None:
        done = int(os.environ.get(RESTARTS, "0"))
        show_cursor = "\x1b[?25h" if sys.stdout.isatty() else ""
        if done >= retries:
            click.echo(f"{show_cursor}error: Ray's {dead} died {done + 1} times; look at free "
                       "memory, and give the same command again", err=True)  # fmt: skip
            os._exit(1)
        click.echo(f"{show_cursor}Ray's {dead} died. The sweep goes on with a new one.", err=True)
        sys.stdout.flush()
        os.environ[RESTARTS] = str(done + 1)
        os.environ.pop("DIFFGAP_RAY", None)
        again = [word for word in sys.argv[1:] if word != "--fresh"]
        os.execv(sys.executable, [sys.executable, "-m", "diffgap", *again])

    return start_over


@main.command(short_help="Run one trial in this process, without Ray.")
@click.argument("spec", type=click.Path(path_type=Path))
@SETS
@OUTPUT
def train(spec: Path, sets: tuple[str, ...], output: StoragePath) -> None:
    """Run the one trial of SPEC in this process, without Ray, and print its metrics.

    SPEC is a sweep's; an axis or more than one seed is refused, for it makes several trials.

    \b
    Examples:
      diffgap train sweeps/ablation.yaml --set axes={} --set seeds=1
      diffgap train my.yaml --set trial.train.steps=100
    """
    from diffgap.ledger.ledger import Ledger
    from diffgap.sweep.plan import make_plan
    from diffgap.training.divergence import DivergedError
    from diffgap.training.local import train_here

    console = make_console()
    wanted = _load(spec, sets)
    trials = wanted.trials()
    if len(trials) != 1:
        raise UserError(
            f"{spec}: makes {len(trials)} trials, and train runs one; add --set axes={{}} "
            "--set seeds=1, or use: diffgap sweep"
        )
    store, uri = _open_store(wanted, console)
    (planned,) = make_plan(wanted, uri, store.fingerprint).trials
    ledger = Ledger(output)
    try:
        train_here(planned.trial, planned.signature, uri, ledger, console)
    except DivergedError as error:
        click.echo(f"{planned.label}: {error}", err=True)
        sys.exit(1)
    record = ledger.trial(planned.signature)
    for name, value in sorted(record.metrics().items()):
        console.print(f"{name:32} {value:10.4f}")
    console.print(f"Bridge: {record.bridge}", soft_wrap=True)


main.add_command(report)
main.add_command(report, "summary")
main.add_command(submit)
main.add_command(generate)
for command in (*DATA_COMMANDS, *USE_COMMANDS, *STATUS_COMMANDS):
    main.add_command(command)


@main.command(short_help="Browse the runs in MLflow, on 127.0.0.1.")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535))
@OUTPUT
def ui(port: int, output: StoragePath) -> None:
    """Serve MLflow's dashboard of the runs in --output on 127.0.0.1 until Ctrl-C.

    \b
    Example:
      diffgap ui --port 5001
    """
    from diffgap.tracking.client import serve

    sys.exit(serve(output, port))


def _load(spec: Path, sets: tuple[str, ...]) -> SweepSpec:
    from diffgap.encoders.builtin import store_problem
    from diffgap.spec import load_sweep

    return load_sweep(spec, sets, known_stores=store_problem)


def _open_store(wanted: SweepSpec, console: Console) -> tuple[EmbeddingStore, str]:
    """A spec's store and its absolute URI; a built-in one is built if need be."""
    from diffgap.encoders.builtin import open_store, store_uri
    from diffgap.generation import misfit

    with progress_bar(console, f"Building the corpus {wanted.store} (once)") as advance:
        store = open_store(wanted.store, advance)
    problems = [p for task in wanted.tasks if (p := store.task_problem(task, wanted.store))]
    encoder = store.manifest.encoder.name
    problems += [
        f"generation.generator: {problem}; use one that fits the store"
        for name in wanted.generators
        if (problem := misfit(name, encoder))
    ]
    if problems:
        raise UserError(*problems)
    return store, store_uri(wanted.store)


def _print_plan(wanted: SweepSpec, ledger: Ledger, console: Console) -> None:
    from diffgap.cli.dry_run import print_plan
    from diffgap.encoders.builtin import is_built, open_store, store_uri
    from diffgap.sweep.plan import make_plan

    if not is_built(wanted.store):
        console.print(f"The corpus {wanted.store} will be built first (about a minute).")
        plan = make_plan(wanted, store_uri(wanted.store), "not built yet")
        print_plan(plan, None, console)
        return
    store = open_store(wanted.store)
    print_plan(make_plan(wanted, store_uri(wanted.store), store.fingerprint), ledger, console)


def _print_tables(ledger: Ledger, name: str, console: Console) -> None:
    """Prints a sweep's tables, as MLflow knows them, and leaves the whole report there."""
    from diffgap.report.formats import print_tables
    from diffgap.report.publish import publish
    from diffgap.report.references import read_references
    from diffgap.report.tables.registry import own_tables
    from diffgap.tracking.reader import Reader

    reader = Reader(ledger.output)
    sweep = reader.sweep(name)
    references = read_references()
    print_tables(own_tables(sweep, references), console, explain_command((name,), ledger.output))
    publish(reader, sweep, references)
    console.print(
        f"MLflow: {reader.where}\n"
        f"Browse the runs and the report: diffgap ui --output {ledger.output}\n"
        f"The report alone: diffgap report {name} --format html --out {name}.html",
        soft_wrap=True,
    )

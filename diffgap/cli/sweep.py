"""Commands that train: a sweep, one trial, and MLflow's view of both."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffgap.cli.boundary import echo
from diffgap.cli.options import ADDRESS, OUTPUT, SETS, FiniteRange, make_console, progress_bar
from diffgap.cli.report import explain_command
from diffgap.errors import UserError
from diffgap.io.paths import StoragePath

if TYPE_CHECKING:
    from rich.console import Console

    from diffgap.ledger.ledger import Ledger
    from diffgap.spec import SweepSpec
    from diffgap.store.store import EmbeddingStore

RESTARTS = "DIFFGAP_RESTARTS"
"""How often this command has restarted after losing its Ray."""

SPEC = click.argument("spec", type=click.Path(path_type=Path))


@click.command(short_help="Run the missing trials of a sweep and print its table.")
@SPEC
@SETS
@click.option("--dry-run", is_flag=True, help="Print the plan; start and write nothing.")
@click.option(
    "--resume/--fresh",
    default=True,
    help="Keep finished trials and resume the others (default), or run all of them anew.",
)
@click.option(
    "--prune", is_flag=True, help="Mark in MLflow the trials that SPEC, since edited, has dropped."
)
@click.option(
    "--max-concurrent",
    type=click.IntRange(1),
    help="Most trials at once; default what the cluster has room for.",
)
@click.option(
    "--patience",
    type=FiniteRange(0, min_open=True),
    envvar="DIFFGAP_PATIENCE",
    metavar="MINUTES",
    help="On a cluster that scales up: how long to wait for the nodes and GPUs of a trial.  "
    "[default: DIFFGAP_PATIENCE, else one minute]",
)
@click.option("-q", "--quiet", is_flag=True, help="Print only the tables and what failed.")
@click.option("-v", "--verbose", is_flag=True, help="Show the output of Ray and its workers too.")
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
    """Run the missing trials of the sweep SPEC and print its table.

    A finished trial is never repeated, whichever sweep ran it: after a crash, Ctrl-C or an edit
    of SPEC, the same command resumes where it stopped. Watch it from elsewhere with `diffgap
    status`. Exit status: 0 all trials finished, 1 some failed, 2 the request was invalid,
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
    from diffgap.sweep.request import check_room, check_run

    console = make_console(outlives_output=not dry_run)
    sweep_spec = _load(spec, sets)
    ledger = Ledger(output)
    check_run(sweep_spec, ledger)
    if dry_run:
        if _print_plan(sweep_spec, ledger, console, address):
            check_room(sweep_spec, address)
        return
    store, uri = _open_store(sweep_spec, console, address, quiet)
    plan = make_plan(sweep_spec, uri, store.fingerprint)
    from diffgap.sweep.run import SweepOptions, run_sweep

    options = SweepOptions(
        address,
        fresh=not resume,
        prune=prune,
        max_concurrent=max_concurrent,
        verbose=verbose,
        quiet=quiet,
        patience=patience,
        on_loss=_restart_command(sweep_spec.retries),
    )
    missing = run_sweep(plan, ledger, console, options)
    unread = _try_print_tables(ledger, plan.spec.name, console)
    _exit_with_status(missing or unread)


@click.command(short_help="Run one trial in this process, without Ray.")
@SPEC
@SETS
@OUTPUT
def train(spec: Path, sets: tuple[str, ...], output: StoragePath) -> None:
    """Run the single trial of SPEC in this process, without Ray, and print its metrics.

    SPEC is a sweep file that makes one trial: without axes, and with one seed.

    \b
    Examples:
      diffgap train sweeps/ablation.yaml --set axes={} --set seeds=1
      diffgap train my.yaml --set trial.train.steps=100
    """
    from diffgap.io.cpus import limit_threads
    from diffgap.ledger.leases import claimed
    from diffgap.ledger.ledger import Ledger
    from diffgap.sweep.plan import make_plan
    from diffgap.training.divergence import DivergedError
    from diffgap.training.local import train_here

    console = make_console(outlives_output=True)
    sweep_spec = _load(spec, sets)
    if (count := len(sweep_spec.trials())) != 1:
        raise UserError(
            f"{spec}: makes {count} trials, and train runs one; add --set axes={{}} "
            "--set seeds=1, or use: diffgap sweep"
        )
    store, uri = _open_store(sweep_spec, console)
    (planned,) = make_plan(sweep_spec, uri, store.fingerprint).trials
    ledger = Ledger(output)
    record = ledger.trial(planned.signature)
    limit_threads()
    try:
        with (
            claimed(ledger.output, sweep_spec.name, record, console.print),
            progress_bar(console, "Training", "steps") as advance,
        ):
            train_here(planned.trial, planned.signature, uri, ledger, advance)
    except DivergedError as error:
        echo(f"{planned.label}: {error}", err=True)
        sys.exit(1)
    for name, value in sorted(record.metrics().items()):
        console.print(f"{name:32} {value:10.4f}")
    console.print(f"Bridge: {record.bridge}", soft_wrap=True)


@click.command(short_help="Browse the runs in MLflow, on 127.0.0.1.")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535))
@OUTPUT
def ui(port: int, output: StoragePath) -> None:
    """Serve MLflow's dashboard of the runs in --output on 127.0.0.1 until Ctrl-C.

    \b
    Example:
      diffgap ui --port 5001
    """
    from diffgap.tracking.server import serve

    sys.exit(serve(output, port))


def _load(spec: Path, sets: tuple[str, ...]) -> SweepSpec:
    from diffgap.encoders.builtin import store_problem
    from diffgap.spec import load_sweep

    return load_sweep(spec, sets, known_stores=store_problem)


def _open_store(
    spec: SweepSpec, console: Console, address: str | None = None, quiet: bool = False
) -> tuple[EmbeddingStore, str]:
    """A spec's store, checked, and its absolute URI; a built-in one is built first if need be."""
    from diffgap.encoders.builtin import open_store, store_uri
    from diffgap.sweep.request import check_sound, check_store, check_unbuilt

    check_unbuilt(spec)
    with progress_bar(console, f"Building the corpus {spec.store} (once)") as advance:
        store = open_store(spec.store, advance)
    check_store(spec, store)
    check_sound(spec, store.manifest.corpus.name, address)
    if not quiet:
        _print_remarks(spec, store, console)
    return store, store_uri(spec.store)


def _print_plan(spec: SweepSpec, ledger: Ledger, console: Console, address: str | None) -> int:
    """Prints what a sweep would do; returns how many trials it would run."""
    from diffgap.cli.dry_run import print_plan
    from diffgap.encoders.builtin import is_built, store_uri
    from diffgap.sweep.plan import make_plan
    from diffgap.sweep.request import check_sound, check_unbuilt

    if is_built(spec.store):
        store, uri = _open_store(spec, console, address)
        return print_plan(make_plan(spec, uri, store.fingerprint), ledger, console)
    check_unbuilt(spec)
    check_sound(spec, spec.store, address)
    _print_remarks(spec, None, console)
    console.print(f"The corpus {spec.store} will be built first (about a minute).")
    # Signatures cover the store's content, so no trial can be looked up yet.
    return print_plan(make_plan(spec, store_uri(spec.store), "not built yet"), None, console)


def _print_remarks(spec: SweepSpec, store: EmbeddingStore | None, console: Console) -> None:
    from diffgap.sweep.request import remarks

    for remark in remarks(spec, store):
        console.print(f"warning: {remark}", style="yellow", soft_wrap=True)


def _restart_command(retries: int) -> Callable[[str, str], None]:
    """What to do when the local Ray is lost: this same command, in place of this process."""

    def restart(lost: str, logs: str) -> None:
        restarts = int(os.environ.get(RESTARTS, "0"))
        if sys.stdout.isatty():
            sys.stderr.write("\x1b[?25h")  # the progress display hides the cursor
        if restarts >= retries:
            echo(f"error: Ray's {lost} died {restarts + 1} times; check for "
                       f"free memory, and run the same command again. Its logs: {logs}",
                       err=True)  # fmt: skip
            os._exit(1)  # Ray's own exit handlers would wait for what has died
        echo(
            f"Ray's {lost} died. The sweep resumes on a new one. Its logs: {logs}",
            err=True,
        )
        sys.stdout.flush()
        os.environ[RESTARTS] = str(restarts + 1)
        os.environ.pop("DIFFGAP_RAY", None)
        arguments = [word for word in sys.argv[1:] if word != "--fresh"]
        os.execv(sys.executable, [sys.executable, "-m", "diffgap", *arguments])

    return restart


def _try_print_tables(ledger: Ledger, name: str, console: Console) -> dict[str, str]:
    """Prints the tables; only reports where MLflow is down, as the trials are safe."""
    try:
        _print_tables(ledger, name, console)
    except UserError as error:
        echo(f"No table for now: {error}", err=True)
        return {"MLflow": "it could not be read"}
    return {}


def _print_tables(ledger: Ledger, name: str, console: Console) -> None:
    from diffgap.report.formats import print_tables
    from diffgap.report.publish import publish
    from diffgap.report.records import read_sweeps
    from diffgap.report.references import read_references
    from diffgap.report.tables.registry import own_tables
    from diffgap.tracking.reader import Reader

    reader, references = Reader(ledger.output), read_references()
    sweeps, problems = read_sweeps(reader, [name])
    if problems:
        raise UserError(*problems)
    (sweep_results,) = sweeps
    explain = explain_command((name,), ledger.output)
    print_tables(own_tables(sweep_results, references), console, explain)
    publish(reader, sweep_results, references)
    console.print(
        f"MLflow: {reader.where}\n"
        f"Browse the runs and the report: diffgap ui --output {ledger.output}\n"
        f"The report alone: diffgap report {name} --format html --out {name}.html",
        soft_wrap=True,
    )


def _exit_with_status(missing: dict[str, str]) -> None:
    """Prints which trials have no result, and why; exits with 1 if any failed or 130."""
    from diffgap.sweep.run import INTERRUPTED

    interrupted = list(missing.values()).count(INTERRUPTED)
    for label, reason in missing.items():
        if reason != INTERRUPTED:
            echo(f"{label}: {reason}", err=True)
    if interrupted:
        echo(f"{interrupted} {'trial' if interrupted == 1 else 'trials'}: {INTERRUPTED}", err=True)
    if missing:
        sys.exit(130 if interrupted else 1)

"""Commands for sweeps that run or have run: status, logs, cancel, rerun."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from diffgap.cli.boundary import FAILED, echo, show_problems
from diffgap.cli.options import OUTPUT, make_console, progress_bar
from diffgap.errors import UserError
from diffgap.io.paths import StoragePath
from diffgap.io.printable import one_line

if TYPE_CHECKING:
    from diffgap.ledger.status import SweepStatus, TrialStatus


@click.command(short_help="Show what is running, finished, waiting and failed.")
@click.argument("sweep", required=False)
@OUTPUT
def status(sweep: str | None, output: StoragePath) -> None:
    """Show every sweep of --output, or each trial of SWEEP.

    Works from another terminal, and from another machine that shares the directory.

    \b
    Examples:
      diffgap status
      diffgap status ablation
      watch diffgap status ablation
    """
    from diffgap.ledger.ledger import Ledger
    from diffgap.ledger.status import DAMAGED, all_statuses, damage, sweep_status

    ledger, console = Ledger(output), make_console()
    if sweep:
        try:
            requested = sweep_status(ledger, sweep)
        except DAMAGED as error:
            raise UserError(damage(f"sweep {sweep!r}", error)) from error
        _show_trials(requested)
        return
    statuses, problems = all_statuses(ledger)
    if not statuses and not problems:
        console.print(f"No sweep in {ledger.output}; start one with: diffgap sweep SPEC")
    for sweep_line in map(_line, statuses):
        console.print(sweep_line, soft_wrap=True)
    if problems:
        show_problems(*problems)
        sys.exit(FAILED)


@click.command(short_help="Print a trial's log.")
@click.argument("signature")
@click.option("-f", "--follow", is_flag=True, help="Keep printing until the trial ends, or Ctrl-C.")
@OUTPUT
def logs(signature: str, follow: bool, output: StoragePath) -> None:
    """Print the log of the trial SIGNATURE (its first digits suffice), over all its attempts.

    \b
    Examples:
      diffgap logs 0123456789ab
      diffgap logs 0123 --follow
    """
    from diffgap.ledger.ledger import Ledger
    from diffgap.ledger.status import log_lines

    is_empty = True
    try:
        for line in log_lines(Ledger(output), signature, follow):
            echo(line)
            is_empty = False
    except KeyboardInterrupt:
        return
    if is_empty:
        echo("The log is still empty.", err=True)


@click.command(short_help="Stop a running sweep, or one of its trials.")
@click.argument("target", metavar="SIGNATURE|SWEEP")
@OUTPUT
def cancel(target: str, output: StoragePath) -> None:
    """Stop a running sweep, or one of its trials, at the next validation.

    Nothing is lost: the same sweep command resumes it. Works from another machine that shares
    --output.

    \b
    Examples:
      diffgap cancel ablation
      diffgap cancel 0123456789ab
    """
    from diffgap.ledger import status as module
    from diffgap.ledger.ledger import Ledger

    echo(module.cancel(Ledger(output), target))


@click.command(short_help="Repeat a trial and compare.")
@click.argument("signature")
@click.option("--store", help="Current place of the trial's store; default where it was.")
@OUTPUT
def rerun(signature: str, store: str | None, output: StoragePath) -> None:
    """Repeat the trial SIGNATURE in this process, without Ray, and compare it with its record.

    On a CPU with one worker the weights are the same, bit for bit. The repeated trial is kept
    in --output/reruns. Exit status: 0 if it is the same, 1 if it differs.

    \b
    Examples:
      diffgap rerun 0123456789ab
      diffgap rerun 0123 --store /data/audiocaps_clap
    """
    from diffgap.ledger.ledger import Ledger
    from diffgap.training import rerun as module

    console = make_console()
    with progress_bar(console, "Training", "steps") as advance:
        record, difference = module.rerun(Ledger(output), signature, store, console, advance)
    console.print(f"Bridge: {record.bridge}", soft_wrap=True)
    if difference is None:
        console.print("The trial never finished: there is nothing to compare with.")
        return
    if difference.is_none:
        console.print("Same weights, bit for bit, and same metrics.")
        return
    console.print(f"Largest difference of weights: {difference.weights:.3g}")
    for name, (old, new) in difference.metrics.items():
        console.print(f"{name:32} {old:10.4f} -> {new:10.4f}")
    sys.exit(1)


STATUS_COMMANDS = (status, logs, cancel, rerun)


def _line(sweep: SweepStatus) -> str:
    """A sweep in one line."""
    counts = ", ".join(f"{count} {name}" for name, count in sweep.counts.items())
    best = f"; best R@5 on val {sweep.best.best:.1f} ({sweep.best.label})" if sweep.best else ""
    return one_line(f"{sweep.name}: {_process(sweep)}; {counts or 'no trials yet'}{best}")


def _process(sweep: SweepStatus) -> str:
    """Which process runs a sweep, or what to do where none does."""
    heartbeat = sweep.heartbeat
    if sweep.alive and heartbeat:
        minutes = (time.time() - heartbeat["began"]) / 60
        return f"running for {minutes:.0f} min (process {heartbeat['pid']} on {heartbeat['host']})"
    if sweep.alive:
        return "starting"
    from diffgap.ledger.states import TrialState

    is_finished = set(sweep.counts) <= {TrialState.FINISHED, TrialState.STOPPED} and not heartbeat
    return "finished" if is_finished else "the same command continues"


def _show_trials(sweep: SweepStatus) -> None:
    from rich.table import Table

    console = make_console()
    table = Table(title=_line(sweep), title_justify="left", box=None, padding=(0, 2, 0, 0))
    for header in ("trial", "", "state", "steps", "best val R@5", "last report"):
        table.add_column(header)
    for trial in sweep.trials:
        table.add_row(trial.signature, one_line(trial.label), trial.state, *_progress(trial))
    console.print(table)
    for trial in sweep.trials:
        if trial.reason:
            line = f"{trial.signature} {trial.state}: {trial.reason} (log: {trial.log})"
            console.print(one_line(line), soft_wrap=True)


def _progress(trial: TrialStatus) -> tuple[str, str, str]:
    """Steps, best validation and time of the last report."""
    steps = f"{trial.step}/{trial.steps}" if trial.steps else "-"
    best = "-" if trial.best is None else f"{trial.best:.1f}"
    if trial.last_seen is None:
        return steps, best, "-"
    return steps, best, time.strftime("%d %b %H:%M:%S", time.localtime(trial.last_seen))

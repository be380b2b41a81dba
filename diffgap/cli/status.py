"""Commands that look after sweeps: status, logs, cancel, rerun."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from diffgap.cli.options import OUTPUT, make_console
from diffgap.io.paths import StoragePath

if TYPE_CHECKING:
    from diffgap.ledger.status import SweepState, TrialState


@click.command(short_help="Show what is running, done, waiting and failed.")
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
    from diffgap.ledger.status import sweep_state

    ledger, console = Ledger(output), make_console()
    if sweep:
        _show_trials(sweep_state(ledger, sweep))
        return
    names = ledger.sweeps()
    if not names:
        console.print(f"No sweep in {ledger.output}; start one with: diffgap sweep SPEC")
    for name in names:
        console.print(_line(sweep_state(ledger, name)), soft_wrap=True)


@click.command(short_help="Print what a trial's processes have said.")
@click.argument("signature")
@click.option("-f", "--follow", is_flag=True, help="Go on until the trial ends, or Ctrl-C.")
@OUTPUT
def logs(signature: str, follow: bool, output: StoragePath) -> None:
    """Print the log of the trial SIGNATURE (its first digits do), over all of its attempts.

    \b
    Examples:
      diffgap logs 0123456789ab
      diffgap logs 0123 --follow
    """
    from diffgap.ledger.ledger import Ledger
    from diffgap.ledger.status import log_lines

    said = False
    try:
        for line in log_lines(Ledger(output), signature, follow):
            click.echo(line)
            said = True
    except KeyboardInterrupt:
        return
    if not said:
        click.echo("The trial has said nothing yet.", err=True)


@click.command(short_help="End a running sweep, or one of its trials.")
@click.argument("target", metavar="SIGNATURE|SWEEP")
@OUTPUT
def cancel(target: str, output: StoragePath) -> None:
    """End a running sweep, or one of its trials, at the next validation.

    Nothing is lost: the same sweep command goes on from there. Works from another machine that
    shares --output.

    \b
    Examples:
      diffgap cancel ablation
      diffgap cancel 0123456789ab
    """
    from diffgap.ledger import status as watching
    from diffgap.ledger.ledger import Ledger

    click.echo(watching.cancel(Ledger(output), target))


@click.command(short_help="Repeat a trial and compare.")
@click.argument("signature")
@click.option("--store", help="Where the trial's store is now; default where it was.")
@OUTPUT
def rerun(signature: str, store: str | None, output: StoragePath) -> None:
    """Repeat the trial SIGNATURE in this process, without Ray, and compare it with its record.

    On a CPU with one worker the weights come out the same, bit for bit. The repeated trial is
    kept in --output/reruns. Exit status: 0 it is the same, 1 it differs.

    \b
    Examples:
      diffgap rerun 0123456789ab
      diffgap rerun 0123 --store /data/audiocaps_clap
    """
    from diffgap.ledger.ledger import Ledger
    from diffgap.training import rerun as module

    console = make_console()
    again, found = module.rerun(Ledger(output), signature, store, console)
    console.print(f"Bridge: {again.bridge}", soft_wrap=True)
    if found is None:
        console.print("The trial was never finished: there is nothing to compare with.")
        return
    if found.equal:
        console.print("Same weights, bit for bit, and same metrics.")
        return
    console.print(f"Largest difference of weights: {found.difference:.3g}")
    for name, (old, new) in found.metrics.items():
        console.print(f"{name:32} {old:10.4f} -> {new:10.4f}")
    sys.exit(1)


WATCH_COMMANDS = (status, logs, cancel, rerun)


def _line(state: SweepState) -> str:
    """A sweep in one line."""
    counts = ", ".join(f"{count} {name}" for name, count in state.counts.items())
    best = f"; best R@5 on val {state.best.best:.1f} ({state.best.label})" if state.best else ""
    return f"{state.name}: {_who(state)}; {counts or 'no trials yet'}{best}"


def _who(state: SweepState) -> str:
    if state.alive and state.who:
        minutes = (time.time() - state.who["began"]) / 60
        return f"running for {minutes:.0f} min (process {state.who['pid']} on {state.who['host']})"
    if state.alive:
        return "starting"
    left = set(state.counts) - {"done", "stopped"}
    return "the same command continues" if left or state.who else "finished"


def _show_trials(state: SweepState) -> None:
    from rich.table import Table

    console = make_console()
    table = Table(title=_line(state), title_justify="left", box=None, padding=(0, 2, 0, 0))
    for header in ("trial", "", "state", "steps", "best val R@5", "last heard of"):
        table.add_column(header)
    for trial in state.trials:
        table.add_row(trial.signature, trial.label, trial.state, *_figures(trial))
    console.print(table)
    for trial in state.trials:
        if trial.reason:
            said = f"{trial.signature} {trial.state}: {trial.reason} (log: {trial.log})"
            console.print(said, soft_wrap=True)


def _figures(trial: TrialState) -> tuple[str, str, str]:
    steps = f"{trial.step}/{trial.steps}" if trial.steps else "-"
    best = "-" if trial.best is None else f"{trial.best:.1f}"
    last_seen = (
        time.strftime("%d %b %H:%M:%S", time.localtime(trial.last_seen)) if trial.last_seen else "-"
    )
    return steps, best, last_seen

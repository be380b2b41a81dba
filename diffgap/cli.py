"""The command line: each command parses, calls one function, and prints.

Nothing heavy is imported before a command needs it, so that help is instant.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffgap import __version__
from diffgap.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from diffgap.ledger import Ledger
    from diffgap.spec import SweepSpec
    from diffgap.store import EmbeddingStore

OUTPUT = click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Directory of trials, sweeps and the MLflow database.",
)
SETS = click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a field of the spec, as in --set trial.train.steps=100. May be repeated.",
)
ADDRESS = click.option(
    "--address", help="Ray cluster to join, such as auto; default RAY_ADDRESS, else a local Ray."
)
ROOT = click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The corpus's directory: its lists, and its clips in any folder.",
)


PLAIN_WIDTH = 120
"""Columns where the output is a file or a pipe."""

SHOWN = 20
"""Bad clips that are printed; all of them are in a file."""


class Percentage(click.ParamType):
    """A share such as 1% or 0.01, as a number from 0 to 1."""

    name = "share"

    def convert(self, value: Any, param: Any, context: Any) -> float:
        text = str(value)
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            self.fail(f"{value!r} is no share; give one such as 1% or 0.01", param, context)
        return share


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
@ADDRESS
@OUTPUT
def sweep(
    spec: Path,
    sets: tuple[str, ...],
    dry_run: bool,
    resume: bool,
    address: str | None,
    output: Path,
) -> None:
    """Run what is missing of the sweep SPEC and print its table.

    A finished trial is never repeated, whichever sweep ran it: after a crash, Ctrl-C or an edit
    of SPEC the same command goes on with what is missing. Exit status: 0 all trials finished,
    1 some failed, 2 the request was wrong, 130 interrupted.

    \b
    Examples:
      diffgap sweep sweeps/ablation.yaml
      diffgap sweep sweeps/ablation.yaml --dry-run
      diffgap sweep sweeps/ablation.yaml --set store=/data/audiocaps-clap --set seeds=5
      diffgap sweep sweeps/ablation.yaml --set trial.train.steps=50 --output /tmp/try
    """
    from diffgap.ledger import Ledger
    from diffgap.sweep.plan import make_plan

    console = _console()
    wanted = _load(spec, sets)
    ledger = Ledger(output)
    if dry_run:
        _print_plan(wanted, ledger, console)
        return
    store, uri = _open_store(wanted.store, wanted.task, console)
    plan = make_plan(wanted, uri, store.fingerprint)
    from diffgap.sweep.run import INTERRUPTED, run_sweep

    without = run_sweep(plan, ledger, console, address=address, fresh=not resume)
    _print_tables(ledger, plan.spec.name, console)
    failed = {label: reason for label, reason in without.items() if reason != INTERRUPTED}
    for label, reason in failed.items():
        click.echo(f"{label}: {reason}", err=True)
    if interrupted := len(without) - len(failed):
        click.echo(f"{interrupted} of {len(plan.trials)} trials: {INTERRUPTED}", err=True)
    if without:
        sys.exit(130 if interrupted else 1)


@main.command(short_help="Run one trial in this process, without Ray.")
@click.argument("spec", type=click.Path(path_type=Path))
@SETS
@OUTPUT
def train(spec: Path, sets: tuple[str, ...], output: Path) -> None:
    """Run the one trial of SPEC in this process, without Ray, and print its metrics.

    SPEC is a sweep's; an axis or more than one seed is refused, for it makes several trials.

    \b
    Examples:
      diffgap train sweeps/ablation.yaml --set axes={} --set seeds=1
      diffgap train my.yaml --set trial.train.steps=100
    """
    from diffgap.ledger import Ledger
    from diffgap.sweep.plan import make_plan
    from diffgap.training.local import train_here

    console = _console()
    wanted = _load(spec, sets)
    trials = wanted.trials()
    if len(trials) != 1:
        raise UserError(
            f"{spec}: makes {len(trials)} trials, and train runs one; add --set axes={{}} "
            "--set seeds=1, or use: diffgap sweep"
        )
    store, uri = _open_store(wanted.store, wanted.task, console)
    (planned,) = make_plan(wanted, uri, store.fingerprint).trials
    record = Ledger(output).trial(planned.signature)
    train_here(planned.trial, planned.signature, uri, record, console)
    for name, value in sorted(record.metrics().items()):
        console.print(f"{name:32} {value:10.4f}", highlight=False)
    console.print(f"Bridge: {record.bridge}")


@main.command(short_help="Make an embedding store of a corpus.")
@click.argument("corpus")
@ROOT
@click.option(
    "--encoder", required=True, help="Frozen encoder: soundscape, laion_clap, hf_clap or cavp."
)
@click.option(
    "--checkpoint",
    help="Weights: a published name (laion_clap), a hub id (hf_clap), or a path.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Where the store is made; must not exist.",
)
@click.option(
    "--window",
    type=click.Choice(["crop", "mean"]),
    default="crop",
    show_default=True,
    help="Of clips longer than the encoder's window: one window, fixed by the clip's id, or the "
    "mean of all.",
)
@click.option(
    "--max-rejected",
    type=Percentage(),
    default="100%",
    show_default=True,
    help="Fail, at the end, if more of the clips cannot be used.",
)
@click.option(
    "--workers", type=click.IntRange(1), help="Encoders at once; default one a GPU, else a core."
)
@click.option(
    "--gpus-per-worker",
    type=click.FloatRange(0),
    help="Of one encoder, such as 0.5; default 1 where there are GPUs.",
)
@ADDRESS
def embed(
    corpus: str,
    root: Path | None,
    encoder: str,
    checkpoint: str | None,
    out: Path,
    window: str,
    max_rejected: float,
    workers: int | None,
    gpus_per_worker: float | None,
    address: str | None,
) -> None:
    """Encode CORPUS (folder, audiocaps, vggsound or soundscapes) into an embedding store.

    Decoding runs on CPUs and feeds the encoders, on GPUs where there are any. Killed and started
    again, the same command goes on with what is missing. Clips that are missing, unreadable,
    truncated or silent are listed, with the reason, in STORE/rejected.parquet, and left out.

    \b
    Examples:
      diffgap embed folder --root my_sounds --encoder soundscape --out my_store
      diffgap embed audiocaps --root /data/audiocaps --encoder hf_clap --out audiocaps_clap
      diffgap embed audiocaps --root /data/audiocaps --encoder laion_clap \\
          --checkpoint 630k-audioset --gpus-per-worker 0.5 --max-rejected 5% --out audiocaps_clap
      diffgap embed vggsound --root /data/vggsound --encoder cavp \\
          --checkpoint cavp_epoch66.ckpt --window mean --out vggsound_cavp
    """
    from diffgap import corpora
    from diffgap.encoders import EncoderChoice
    from diffgap.encoders.embed import TooManyRejectedError
    from diffgap.encoders.embed import embed as run
    from diffgap.encoders.stream import Pool

    console = _console()
    with _progress(console, f"Embedding {corpus}") as advance:
        try:
            result = run(
                corpora.load(corpus, root),
                EncoderChoice(encoder, checkpoint),
                out,
                long_clips=window,
                max_rejected=max_rejected,
                pool=Pool(workers, gpus_per_worker, address),
                progress=advance,
            )
        except TooManyRejectedError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(1)
    for bad in result.rejected[:SHOWN]:
        console.print(f"left out: {bad.id} ({bad.stage}): {bad.reason}", highlight=False)
    if len(result.rejected) > SHOWN:
        console.print(f"... all {len(result.rejected)} in {out}/rejected.parquet")
    counts = ", ".join(f"{n} {split}" for split, n in result.store.manifest.corpus.counts.items())
    console.print(
        f"{out}: {counts} clips; {len(result.rejected)} left out; {result.seconds:.0f} s.",
        highlight=False,
    )


@main.command(short_help="Print the tables of a sweep.")
@click.argument("sweep")
@click.option(
    "--format",
    "style",
    type=click.Choice(["terminal", "md", "svg"]),
    default="terminal",
    show_default=True,
    help="md is Markdown; svg draws the table's figures as bars.",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write it to a file.")
@OUTPUT
def report(sweep: str, style: str, out: Path | None, output: Path) -> None:
    """Print the tables of SWEEP, finished or not.

    \b
    Examples:
      diffgap report ablation
      diffgap report ablation --format md --out ablation.md
      diffgap report ablation --format svg --out ablation.svg
    """
    from diffgap.ledger import Ledger

    if style == "terminal" and out is None:
        _print_tables(Ledger(output), sweep, _console())
        return
    from diffgap.files import write_text
    from diffgap.report.ablation import sweep_table
    from diffgap.report.figures import ablation_svg
    from diffgap.report.render import to_markdown, to_text

    render = {"terminal": to_text, "md": to_markdown, "svg": ablation_svg}[style]
    text = render(sweep_table(Ledger(output), sweep))
    if out is None:
        click.echo(text)
    else:
        write_text(out, text + "\n")


main.add_command(report, "summary")


@main.command(short_help="Browse the runs in MLflow, on 127.0.0.1.")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535))
@OUTPUT
def ui(port: int, output: Path) -> None:
    """Serve MLflow's dashboard of the runs in --output on 127.0.0.1 until Ctrl-C.

    \b
    Example:
      diffgap ui --port 5001
    """
    from diffgap.tracking import serve

    sys.exit(serve(output, port))


def _console() -> Console:
    from rich.console import Console

    console = Console(file=sys.stdout)  # this one, though Ray's prints be redirected
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


def _load(spec: Path, sets: tuple[str, ...]) -> SweepSpec:
    from diffgap.encoders.builtin import store_problem
    from diffgap.spec import load_sweep

    return load_sweep(spec, sets, known_stores=store_problem)


def _open_store(name: str, task: str, console: Console) -> tuple[EmbeddingStore, str]:
    """The store and its absolute URI; a built-in one is built if need be."""
    from diffgap.encoders.builtin import open_store, store_uri

    with _progress(console, f"Building the corpus {name} (once)") as advance:
        store = open_store(name, advance)
    if task not in store.manifest.task:
        raise UserError(
            f"task: {task!r} cannot be done on {name}, which serves "
            f"{', '.join(store.manifest.task)}; choose one of these, or another store"
        )
    return store, store_uri(name)


def _print_plan(wanted: SweepSpec, ledger: Ledger, console: Console) -> None:
    from diffgap.encoders.builtin import is_built, open_store, store_uri
    from diffgap.report.plan import print_plan
    from diffgap.sweep.plan import make_plan

    if not is_built(wanted.store):
        console.print(f"The corpus {wanted.store} will be built first (about a minute).")
        plan = make_plan(wanted, store_uri(wanted.store), "not built yet")
        print_plan(plan, None, console)
        return
    store = open_store(wanted.store)
    print_plan(make_plan(wanted, store_uri(wanted.store), store.fingerprint), ledger, console)


def _print_tables(ledger: Ledger, name: str, console: Console) -> None:
    from diffgap.report.ablation import sweep_table
    from diffgap.report.render import notes, to_terminal
    from diffgap.tracking import tracking_uri

    table = sweep_table(ledger, name)
    console.print()
    console.print(to_terminal(table))
    for note in notes(table):
        console.print(note, highlight=False)
    console.print(
        f"MLflow: {tracking_uri(ledger.output)}\n"
        f"Browse the runs: diffgap ui --output {ledger.output}",
        highlight=False,
        soft_wrap=True,
    )


def _progress(console: Console, what: str) -> AbstractContextManager[Callable[[int, int], None]]:
    from diffgap.progress import clips_bar

    return clips_bar(console, what)

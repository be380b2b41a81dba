"""The command that tells what sweeps have found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffgap.cli.options import OUTPUT, make_console
from diffgap.io.paths import StoragePath

if TYPE_CHECKING:
    from rich.console import Console

    from diffgap.report.model import Report

STYLES = ("terminal", "md", "latex", "csv", "parquet", "html", "figures", "all")


@click.command(short_help="Print the tables of sweeps, or write a report of them.")
@click.argument("sweeps", metavar="[SWEEP]...", nargs=-1)
@click.option(
    "--format",
    "style",
    type=click.Choice(STYLES),
    default="terminal",
    show_default=True,
    help="csv and parquet hold a row a trial; html is one page with tables, figures and the runs "
    "behind them; figures and all write many files into the directory --out.",
)
@click.option("--out", type=click.Path(path_type=Path), help="The file, or directory, to write.")
@click.option(
    "--against",
    metavar="ROW",
    help="Test against this row of the table, not the frozen embeddings.",
)
@click.option(
    "--references",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Published numbers of your own, in the format of diffgap/report/references.yaml.",
)
@click.option(
    "--audio",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where the corpus's clips are, for html: the page plays its retrieval examples.",
)
@OUTPUT
def report(
    sweeps: tuple[str, ...],
    style: str,
    out: Path | None,
    against: str | None,
    references: Path | None,
    audio: Path | None,
    output: StoragePath,
) -> None:
    """Tell what SWEEPs have found, finished or not; without a name, all that MLflow knows.

    Everything is read from MLflow: MLFLOW_TRACKING_URI, else the database in --output. Cells are
    means over seeds with 95 % intervals; tests are paired by query and Holm-corrected.

    \b
    Examples:
      diffgap report ablation
      diffgap report ablation methods --format html --out report.html
      diffgap report mine --format html --out mine.html --audio my_sounds/
      diffgap report ablation --format latex --out ablation.tex
      diffgap report --format all --out report/
      diffgap report methods --against DiffGAP
      diffgap report paper-audiocaps --references the_papers_own.yaml
    """
    from diffgap.errors import UserError

    if out is None and style not in ("terminal", "md", "latex", "csv"):
        raise UserError(f"--format: {style} needs a place to write to; add --out PATH")
    console = make_console()
    if style == "terminal" and out is None:
        print_report(read_report(sweeps, output, against, references), console)
        return
    from diffgap.report.model import TEXTS, write_report

    made = read_report(sweeps, output, against, references, audio)
    if out is None:
        click.echo(TEXTS[style][1](made))
        return
    write_report(made, style, out)
    console.print(f"Wrote {out}", soft_wrap=True)


def read_report(
    sweeps: tuple[str, ...],
    output: StoragePath,
    against: str | None = None,
    references: Path | None = None,
    audio: Path | None = None,
) -> Report:
    """The report of some sweeps, or of all there are."""
    from diffgap.report.model import make_report
    from diffgap.report.references import read_references
    from diffgap.tracking.reader import Reader

    published = read_references() + (read_references(references) if references else [])
    reader = Reader(output)
    names = dict.fromkeys(sweeps or reader.sweeps())
    read = [reader.sweep(name) for name in names]
    return make_report(read, published, reader.where, against, audio)


def print_report(made: Report, console: Console) -> None:
    """Prints the tables, and what is missing."""
    from diffgap.report.tables.registry import print_tables

    print_tables(made.tables, console)
    console.print()
    for line in made.missing:
        console.print(line, style="dim")
    console.print(f"MLflow: {made.where}", soft_wrap=True)

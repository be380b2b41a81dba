"""The command that reports results of sweeps."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffgap.cli.boundary import FAILED, echo, show_problems
from diffgap.cli.options import OUTPUT, default_output, make_console
from diffgap.errors import UserError
from diffgap.io.paths import StoragePath

if TYPE_CHECKING:
    from rich.console import Console

    from diffgap.report.model import Report

# FORMATS of report/formats.py, whose imports would slow down every --help; a test compares them.
STYLES = ("terminal", "md", "latex", "csv", "parquet", "html", "figures", "all")


@click.command(short_help="Print the tables of sweeps, or write a report of them.")
@click.argument("sweeps", metavar="[SWEEP]...", nargs=-1)
@click.option(
    "--format",
    "style",
    type=click.Choice(STYLES),
    default="terminal",
    show_default=True,
    help="csv and parquet have a row per trial; html is one page with tables, figures and the runs "
    "behind them; figures and all write many files into the directory --out.",
)
@click.option("--out", type=click.Path(path_type=Path), help="The file, or directory, to write.")
@click.option(
    "--explain",
    is_flag=True,
    help="Print all notes of the tables: how figures were computed and tested, every row's "
    "difference from the baseline, and sources. Files always have them.",
)
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
    help="Directory of the corpus's clips, for html: the page plays its retrieval examples.",
)
@OUTPUT
def report(
    sweeps: tuple[str, ...],
    style: str,
    out: Path | None,
    explain: bool,
    against: str | None,
    references: Path | None,
    audio: Path | None,
    output: StoragePath,
) -> None:
    """Print or write the results of SWEEPs, finished or not; without a name, of all in MLflow.

    Everything is read from MLflow: MLFLOW_TRACKING_URI, else the database in --output. Cells are
    means over seeds with 95 % intervals; tests are paired by query and Holm-corrected.

    \b
    Examples:
      diffgap report ablation
      diffgap report ablation --explain
      diffgap report ablation methods --format html --out report.html
      diffgap report mine --format html --out mine.html --audio my_sounds/
      diffgap report ablation --format latex --out ablation.tex
      diffgap report --format all --out report/
      diffgap report methods --against DiffGAP
      diffgap report paper-audiocaps --references the_papers_own.yaml
    """
    if out is None and style not in ("terminal", "md", "latex", "csv"):
        raise UserError(f"--format: {style} needs a place to write to; add --out PATH")
    console = make_console()
    contents, problems = read_report(sweeps, output, against, references, audio)
    if out is not None:
        from diffgap.report.formats import write_report

        write_report(contents, style, out)
        console.print(f"Wrote {out}", soft_wrap=True)
    elif style == "terminal":
        print_report(contents, console, None if explain else explain_command(sweeps, output))
    else:
        from diffgap.report.formats import TEXTS

        echo(TEXTS[style].render(contents))
    if problems:
        show_problems(*problems)
        sys.exit(FAILED)


def explain_command(sweeps: tuple[str, ...], output: StoragePath) -> str:
    """The command that prints the tables of some sweeps with all their notes."""
    words = ["diffgap", "report", *sweeps, "--explain"]
    if str(output) != default_output():
        words += ["--output", str(output)]
    return shlex.join(words)


def read_report(
    sweeps: tuple[str, ...],
    output: StoragePath,
    against: str | None = None,
    references: Path | None = None,
    audio: Path | None = None,
) -> tuple[Report, list[str]]:
    """The report of some sweeps, or of all there are, and a line on each that cannot be read.

    Raises:
        UserError: where none of them can.
    """
    from diffgap.report.model import make_report
    from diffgap.report.records import read_sweeps
    from diffgap.report.references import read_references
    from diffgap.tracking.reader import Reader

    published = read_references()
    if references:
        published += read_references(references)
    reader = Reader(output)
    names = dict.fromkeys(sweeps or reader.sweeps())  # each once, in this order
    logged_sweeps, problems = read_sweeps(reader, names)
    if problems and not logged_sweeps:
        raise UserError(*problems)
    return make_report(logged_sweeps, published, reader.where, against, audio), problems


def print_report(contents: Report, console: Console, explain_with: str | None) -> None:
    """Prints the tables, and what is missing; see `print_tables`."""
    from diffgap.report.formats import print_tables

    print_tables(contents.tables, console, explain_with)
    console.print()
    for line in contents.missing:
        console.print(line, style="dim")
    console.print(f"MLflow: {contents.where}", soft_wrap=True)

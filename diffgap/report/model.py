"""A whole report: tables and figures of any number of sweeps, in every format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from diffgap.io.atomic import write_bytes, write_text
from diffgap.report.examples import Example, examples_of
from diffgap.report.picture import Picture
from diffgap.report.references import Reference
from diffgap.report.tables.catalog import missing
from diffgap.report.tables.registry import all_tables, as_markdown, as_text
from diffgap.report.tables.table import Table
from diffgap.tracking.reader import LoggedSweep, TrialRun


@dataclass(frozen=True)
class Report:
    """What is told of some sweeps.

    Attributes:
        sweeps: as MLflow has them.
        tables: of all of them.
        where: the tracking store, without secrets.
        audio: the directory of the corpus's clips, to be played; None where there is none.
    """

    sweeps: tuple[LoggedSweep, ...]
    tables: tuple[Table, ...]
    where: str
    audio: Path | None = None

    @property
    def missing(self) -> list[str]:
        """A line for each known table without runs, with the command that makes them."""
        return missing(self.tables)

    @cached_property
    def pictures(self) -> list[Picture]:
        """The figures, drawn when first asked for."""
        from diffgap.report.figures import draw

        return draw(self.sweeps, self.tables)

    @cached_property
    def examples(self) -> list[Example]:
        """What each cell retrieved for a few queries."""
        return examples_of(self.sweeps)

    @property
    def trials(self) -> dict[str, TrialRun]:
        """Every trial by its signature; one that several sweeps have, from the one that counts."""
        found: dict[str, TrialRun] = {}
        for trial in (trial for sweep in self.sweeps for trial in sweep.trials):
            if trial.is_complete or trial.signature not in found:
                found[trial.signature] = trial
        return found


def make_report(
    sweeps: Sequence[LoggedSweep],
    references: Sequence[Reference],
    where: str,
    against: str | None = None,
    audio: Path | None = None,
) -> Report:
    """The report of some sweeps; see `Report` and `all_tables`.

    Raises:
        UserError: where no row is called `against`.
    """
    tables = all_tables(sweeps, references, against)
    return Report(tuple(sweeps), tuple(tables), where, audio)


def _latex(report: Report) -> str:
    from diffgap.report.latex import to_latex

    return to_latex(report.tables, report.missing)


def _html(report: Report) -> str:
    from diffgap.report.html.page import to_html

    return to_html(report)


def _csv(report: Report) -> str:
    from diffgap.report.tidy import to_csv

    return to_csv(report.sweeps)


TEXTS: dict[str, tuple[str, Callable[[Report], str]]] = {
    "terminal": ("report.txt", lambda report: as_text(report.tables)),
    "md": ("report.md", lambda report: as_markdown(report.tables)),
    "latex": ("report.tex", _latex),
    "csv": ("trials.csv", _csv),
    "html": ("report.html", _html),
}
"""Formats that are text: the name of the file among all of them, and what makes it."""

FORMATS = (*TEXTS, "parquet", "figures", "all")


def write_report(report: Report, style: str, out: Path) -> None:
    """Writes one format to a file; `figures` and `all` write many, into a directory.

    Args:
        report: what to write.
        style: one of `FORMATS`.
        out: the file or directory; what else is in a directory stays.
    """
    if style in TEXTS:
        write_text(out, TEXTS[style][1](report).rstrip("\n") + "\n")
    elif style == "parquet":
        write_bytes(out, _parquet(report))
    elif style == "figures":
        _write_figures(report, out)
    else:
        for name, make in TEXTS.values():
            write_text(out / name, make(report).rstrip("\n") + "\n")
        write_bytes(out / "trials.parquet", _parquet(report))
        _write_figures(report, out / "figures")


def _parquet(report: Report) -> bytes:
    from diffgap.report.tidy import to_parquet

    return to_parquet(report.sweeps)


def _write_figures(report: Report, directory: Path) -> None:
    for picture in report.pictures:
        write_text(directory / f"{picture.key}.svg", picture.svg)
        write_bytes(directory / f"{picture.key}.png", picture.png)

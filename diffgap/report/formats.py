"""Formats of a report: text, Markdown, LaTeX, a page, rows of trials, figures, or all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from diffgap.io.atomic import write_bytes, write_text
from diffgap.io.console import PlainConsole
from diffgap.io.printable import markdown, one_line
from diffgap.report.html.page import to_html
from diffgap.report.latex import to_latex
from diffgap.report.model import Report
from diffgap.report.render import all_notes, to_markdown, to_terminal
from diffgap.report.tables.registry import missing_tables
from diffgap.report.tables.table import Table
from diffgap.report.tidy import to_csv, to_parquet

WIDTH = 240
"""Columns of a table in a text file, in which no heading need be broken."""

BRIEF = 3
"""Lines of notes below a table of the terminal."""


class TextFormat(NamedTuple):
    """A format that is text: its file among all formats, and the writer of its content."""

    file: str
    render: Callable[[Report], str]


TEXTS = {
    "terminal": TextFormat("report.txt", lambda report: as_text(report.tables)),
    "md": TextFormat("report.md", lambda report: as_markdown(report.tables)),
    "latex": TextFormat("report.tex", lambda report: to_latex(report.tables, report.missing)),
    "csv": TextFormat("trials.csv", lambda report: to_csv(report.sweeps)),
    "html": TextFormat("report.html", to_html),
}

FORMATS = (*TEXTS, "parquet", "figures", "all")


def write_report(report: Report, style: str, out: Path) -> None:
    """Writes one format to a file; `figures` and `all` write many, into a directory.

    Args:
        report: what to write.
        style: one of `FORMATS`.
        out: the file or directory; other files of a directory stay.
    """
    if style in TEXTS:
        _write_text(report, style, out)
    elif style == "parquet":
        write_bytes(out, to_parquet(report.sweeps))
    elif style == "figures":
        _write_figures(report, out)
    else:
        for name, text_format in TEXTS.items():
            _write_text(report, name, out / text_format.file)
        write_bytes(out / "trials.parquet", to_parquet(report.sweeps))
        _write_figures(report, out / "figures")


def _write_text(report: Report, style: str, path: Path) -> None:
    write_text(path, TEXTS[style].render(report).rstrip("\n") + "\n")


def _write_figures(report: Report, directory: Path) -> None:
    for picture in report.pictures:
        write_text(directory / f"{picture.key}.svg", picture.svg)
        write_bytes(directory / f"{picture.key}.png", picture.png)


def as_text(tables: Sequence[Table]) -> str:
    """The terminal's tables with all their notes as plain text, and what is missing."""
    text = StringIO()
    print_tables(tables, PlainConsole(file=text, width=WIDTH))
    return "\n".join([text.getvalue().strip("\n"), "", *missing_tables(tables)])


def as_markdown(tables: Sequence[Table]) -> str:
    """The tables as Markdown, and what is missing."""
    missing = "\n".join(map("- {}".format, map(markdown, missing_tables(tables))))
    return "\n\n".join([*map(to_markdown, tables), missing])


def print_tables(
    tables: Sequence[Table], console: Console, explain_with: str | None = None
) -> None:
    """Prints tables, each with its notes.

    Args:
        tables: of whatever sweeps.
        console: where to.
        explain_with: the command that prints all notes; with one, few lines stand below a table,
            and the last of them names it.
    """
    shown = console.shown if isinstance(console, PlainConsole) else str
    for table in tables:
        notes = brief_notes(table, explain_with) if explain_with else all_notes(table)
        console.print()
        if table.rows:
            for part in to_terminal(table, shown):
                console.print(part)
        else:
            console.print(one_line(table.title), style="bold")
        for note in notes:
            console.print(one_line(note))


def brief_notes(table: Table, explain_with: str) -> list[str]:
    """At most `BRIEF` notes: what the marks mean, what does not count, and where the rest is."""
    notes = all_notes(table)
    if len(notes) <= BRIEF and not table.brief:
        return notes
    lines = [*table.brief, *table.incomplete] if table.brief else notes
    lines = lines[: BRIEF - 1]
    hidden = len(set(notes).difference(lines))  # the short notes may be some of the full ones
    if hidden:
        lines = [*lines, f"{explain_with} shows {hidden} more note{'s' * (hidden > 1)}."]
    return lines

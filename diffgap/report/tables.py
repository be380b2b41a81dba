"""The tables that a sweep asks for, in every format."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from diffgap.errors import UserError
from diffgap.ledger import Ledger
from diffgap.report.figures import recall_svg
from diffgap.report.recalls import RecallTable, recall_table
from diffgap.report.render import notes, to_markdown, to_terminal
from diffgap.report.search import (
    SearchTable,
    search_markdown,
    search_notes,
    search_table,
    search_terminal,
)

WIDTH = 240
"""Columns of a table in a text file."""


def sweep_tables(
    ledger: Ledger, name: str, against: str | None = None
) -> list[RecallTable | SearchTable]:
    """The tables of a recorded sweep, finished or not; see `recall_table`."""
    sweep = ledger.sweep(name)
    spec = sweep.spec
    if spec["search"]:
        found: list[RecallTable | SearchTable] = [search_table(ledger, name)]
        if any(entry.get("final") for entry in sweep.trials):
            found.append(recall_table(ledger, name, "axes", against))
        return found
    return [recall_table(ledger, name, kind, against) for kind in spec["report"]["tables"]]


def print_tables(ledger: Ledger, name: str, console: Console, against: str | None = None) -> None:
    """Prints a sweep's tables, each with its notes."""
    for table in sweep_tables(ledger, name, against):
        console.print()
        if isinstance(table, SearchTable):
            console.print(search_terminal(table))
            said = search_notes(table)
        else:
            console.print(to_terminal(table))
            said = notes(table)
        for note in said:
            console.print(note, highlight=False)


def as_text(ledger: Ledger, name: str, against: str | None = None) -> str:
    """The terminal's tables as plain text."""
    print_tables(ledger, name, Console(file=(written := StringIO()), width=WIDTH), against)
    return written.getvalue().strip("\n")


def as_markdown(ledger: Ledger, name: str, against: str | None = None) -> str:
    """The tables as Markdown, each with its notes below."""
    return "\n\n".join(
        search_markdown(table) if isinstance(table, SearchTable) else to_markdown(table)
        for table in sweep_tables(ledger, name, against)
    )


def as_svg(ledger: Ledger, name: str, against: str | None = None) -> str:
    """Bars of the first table, as an SVG document."""
    table = sweep_tables(ledger, name, against)[0]
    if isinstance(table, SearchTable):
        raise UserError("--format: svg draws recalls, and a search has none; use md")
    return recall_svg(table)

"""All tables of some sweeps, from MLflow alone."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO

from rich.console import Console

from diffgap.report.references import Reference, references_for
from diffgap.report.render import all_notes, to_markdown, to_terminal
from diffgap.report.results import Setting, setting_of
from diffgap.report.tables.catalog import missing
from diffgap.report.tables.cost import cost_table
from diffgap.report.tables.generation import generation_tables
from diffgap.report.tables.recall import retrieval_table, sweep_table
from diffgap.report.tables.search import importance_table, search_table
from diffgap.report.tables.table import Table
from diffgap.tracking.reader import LoggedSweep

WIDTH = 240
"""Columns of a table in a text file."""

WHOLE = ("ablation", "methods")
"""Tables of sweeps whose cells are methods, which may stand beside others' on the same corpus."""


def own_tables(
    sweep: LoggedSweep, references: Sequence[Reference], against: str | None = None
) -> list[Table]:
    """The tables that one sweep asks for."""
    kinds = sweep.spec["report"]["tables"]
    if kinds == ["generation"]:
        return generation_tables(sweep, references, against)
    if not sweep.spec["search"]:
        return [sweep_table(sweep, kind, against) for kind in kinds]
    found = [search_table(sweep), importance_table(sweep)]
    if any(trial.final for trial in sweep.trials):
        found.append(sweep_table(sweep, "axes", against))
    return found


def all_tables(
    sweeps: Sequence[LoggedSweep], references: Sequence[Reference], against: str | None = None
) -> list[Table]:
    """Retrieval by corpus, every sweep's own tables, and cost; see `catalog` for what there is.

    Args:
        sweeps: finished or not.
        references: published rows.
        against: the row that others are tested against; default the frozen embeddings.

    Raises:
        UserError: where no table has such a row.
    """
    by_setting: dict[Setting, list[LoggedSweep]] = {}
    for sweep in sweeps:
        if not sweep.spec["search"] and set(sweep.spec["report"]["tables"]) & set(WHOLE):
            by_setting.setdefault(setting_of(sweep), []).append(sweep)
    found = [
        retrieval_table(some, setting, references)
        for setting, some in by_setting.items()
        if len(some) > 1 or references_for(references, setting.retrieval, setting.dataset)
    ]  # else it would say what the sweep's own table says
    for sweep in sweeps:
        found += own_tables(sweep, references, against)
    return found + [cost_table(some, setting) for setting, some in by_setting.items()]


def print_tables(tables: Sequence[Table], console: Console) -> None:
    """Prints tables, each with its notes."""
    for table in tables:
        console.print()
        if table.rows:
            for part in to_terminal(table):
                console.print(part)
        else:
            console.print(table.title, style="bold")
        for note in all_notes(table):
            console.print(note)


def as_text(tables: Sequence[Table]) -> str:
    """The terminal's tables as plain text, and what is missing."""
    console = Console(file=(written := StringIO()), width=WIDTH, markup=False, emoji=False)
    print_tables(tables, console)
    return "\n".join([written.getvalue().strip("\n"), "", *missing(tables)])


def as_markdown(tables: Sequence[Table]) -> str:
    """The tables as Markdown, and what is missing."""
    return "\n\n".join([*map(to_markdown, tables), "\n".join(f"- {m}" for m in missing(tables))])

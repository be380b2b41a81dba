"""Tables for a terminal and as Markdown."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from diffgap.report.tables.table import Row, Table, Value

WIDE = 8
"""Columns beyond which a terminal gets a second table."""


def to_terminal(table: Table) -> list[RichTable]:
    """Rich tables: best in bold, what does not differ from it underlined, a star where a figure
    differs from the baseline. More columns than `WIDE` go into a second table below."""
    seeds = any(row.seeds for row in table.rows)
    split = len(table.headings) if len(table.headings) <= WIDE else _first_other(table)
    parts = [(0, split), (split, len(table.headings))]
    return [_part(table, start, end, seeds and start == 0) for start, end in parts if end > start]


def _first_other(table: Table) -> int:
    """Where the figures of recall end and other columns begin."""
    others = [place for place, name in enumerate(table.headings) if "R@" not in name]
    return others[0] if others and others[0] else len(table.headings)


def _part(table: Table, start: int, end: int, seeds: bool) -> RichTable:
    title = table.title if start == 0 else None
    shown = RichTable(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    shown.add_column("")  # long names wrap, figures do not
    if seeds:
        shown.add_column("seeds", justify="right", no_wrap=True)
    for name in table.headings[start:end]:
        shown.add_column(_broken(name), justify="right", no_wrap="R@" in name)
    for rows, style in ((table.ours, ""), (table.published, "dim")):
        for row in rows:
            cells = [_styled(value) for value in row.values[start:end]]
            shown.add_row(_named(row), *([row.seeds] if seeds else []), *cells, style=style)
        shown.add_section()
    return shown


def to_markdown(table: Table) -> str:
    """A pipe table, its notes and sources below."""
    seeds = any(row.seeds for row in table.rows)
    headings = [*(["seeds"] if seeds else []), *table.headings]
    lines = [f"**{table.title}**", ""]
    if table.rows:
        lines.append("| | " + " | ".join(headings) + " |")
        lines.append("|---|" + "---:|" * len(headings))
    for row in table.rows:
        cells = [*([row.seeds] if seeds else []), *map(_marked_down, row.values)]
        lines.append(f"| {_named(row)} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"- {note}" for note in all_notes(table))])


def all_notes(table: Table) -> list[str]:
    """Notes, what is lacking, and the sources of published rows."""
    missing_reason = [
        f"{row.name}: {row.missing_reason}." for row in table.rows if row.missing_reason
    ]
    sources = [f"[{number}] {source}" for number, source in enumerate(table.sources, 1)]
    return [*table.notes, *missing_reason, *sources]


def _named(row: Row) -> str:
    return f"{row.name} [{row.footnote}]" if row.published else row.name


def _styled(value: Value) -> Text:
    return Text(value.marked, style="bold" if value.best else "underline" if value.near else "")


def _marked_down(value: Value) -> str:
    text = value.marked.replace("|", "\\|")
    return f"**{text}**" if value.best else f"<u>{text}</u>" if value.near else text


def _broken(heading: str) -> str:
    """A heading on two lines: after a word, or within a field's name."""
    return heading.replace(" ", "\n", 1) if " " in heading else heading.replace(".", ".\n")

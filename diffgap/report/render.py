"""Tables on a terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile
from operator import attrgetter

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from diffgap.evaluation.metrics import is_metric
from diffgap.io.printable import markdown, one_line
from diffgap.report.tables.table import Row, Table, Value

WIDE = 8
"""Columns beyond which a table is two on a terminal."""


def to_terminal(table: Table, shown: Callable[[str], str] = str) -> list[RichTable]:
    """Rich tables: best in bold, what does not differ from it underlined, a star where a value
    differs from the baseline. More columns than `WIDE` go into a second table below.

    `shown` makes of a value what the terminal can show.
    """
    columns = len(table.headings)
    metrics = len(list(takewhile(is_metric, table.headings)))  # other columns stand behind them
    split = columns if columns <= WIDE else metrics or columns
    parts = [_part(table, 0, split, shown)]
    if split < columns:
        parts.append(_part(table, split, columns, shown))
    return parts


def _part(table: Table, start: int, end: int, shown: Callable[[str], str]) -> RichTable:
    title = one_line(table.title) if start == 0 else None
    part = RichTable(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    part.add_column("")  # long names wrap, numbers do not
    has_seeds = start == 0 and any(map(attrgetter("seeds"), table.rows))
    if has_seeds:
        part.add_column("seeds", justify="right", no_wrap=True)
    for name in table.headings[start:end]:
        part.add_column(_broken(one_line(name)), justify="right", no_wrap=is_metric(name))
    for rows, style in ((table.ours, ""), (table.published, "dim")):
        for row in rows:
            seeds = [row.seeds] if has_seeds else []
            name = one_line(row.name) + _footnote(row)
            values = [_styled(value, shown) for value in row.values[start:end]]
            part.add_row(name, *seeds, *values, style=style)
        part.add_section()
    return part


def to_markdown(table: Table) -> str:
    """A pipe table, its notes and sources below."""
    has_seeds = any(map(attrgetter("seeds"), table.rows))
    headings = ["seeds", *table.headings] if has_seeds else list(table.headings)
    lines = [f"**{markdown(table.title)}**", ""]
    if table.rows:
        lines.append("| | " + " | ".join(map(markdown, headings)) + " |")
        lines.append("|---|" + "---:|" * len(headings))
    for row in table.rows:
        name = markdown(row.name) + _footnote(row)
        cells = [name, *([row.seeds] if has_seeds else []), *map(_marked_down, row.values)]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    lines += map("- {}".format, map(markdown, all_notes(table)))
    return "\n".join(lines)


def all_notes(table: Table) -> list[str]:
    """Notes, rows of which trials are missing, and the sources of published rows."""
    sources = [f"[{number}] {source}" for number, source in enumerate(table.sources, 1)]
    return [*table.notes, *table.incomplete, *sources]


def _footnote(row: Row) -> str:
    return f" [{row.footnote}]" if row.published else ""


def _styled(value: Value, shown: Callable[[str], str]) -> Text:
    style = "bold" if value.best else "underline" if value.near else ""
    return Text(shown(one_line(value.marked)), style=style)


def _marked_down(value: Value) -> str:
    text = replace(value, text=markdown(value.text)).marked
    return f"**{text}**" if value.best else f"<u>{text}</u>" if value.near else text


def _broken(heading: str) -> str:
    """A heading on two lines: after a word, or within a field's name."""
    return heading.replace(" ", "\n", 1) if " " in heading else heading.replace(".", ".\n")

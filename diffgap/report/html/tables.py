"""Tables on the page: columns that sort, and cells that lead to the runs behind them."""

from __future__ import annotations

from html import escape

from diffgap.report.html.elements import html_list, linked
from diffgap.report.tables.table import Row, Table, Value


def table_html(table: Table) -> str:
    """A table, its published rows in a part of their own, and its notes."""
    if not table.rows:
        return _notes(table)
    seeds = any(row.seeds for row in table.rows)
    names = ["", "seeds", *table.headings] if seeds else ["", *table.headings]
    bodies = ""
    # A part of their own, so that sorting never mixes published rows with ours.
    for kind, rows in (("ours", table.ours), ("published", table.published)):
        if rows:
            lines = "".join(_row(row, table, seeds) for row in rows)
            bodies += f'<tbody class="{kind}">{lines}</tbody>'
    return (
        f'<div class="scroll"><table data-key="{escape(table.key)}" '
        f'aria-labelledby="table-{escape(table.key)}-title">'
        f"<thead><tr>{''.join(map(heading_html, names))}</tr></thead>{bodies}</table></div>"
        f"{_notes(table)}"
    )


def heading_html(name: str) -> str:
    """A heading that sorts; it breaks between words alone."""
    words = " ".join(f"<span>{escape(word)}</span>" for word in name.split())
    label = words or '<span class="unseen">row</span>'  # for screen readers
    return f'<th scope="col"><button type="button">{label}</button></th>'


def _row(row: Row, table: Table, seeds: bool) -> str:
    name = escape(row.name)
    if row.published:
        anchor = f"source-{escape(table.key)}-{row.footnote}"
        name += f' <sup><a href="#{anchor}">[{row.footnote}]</a></sup>'
    else:
        name = _button(name, None)
    cells = [f'<th scope="row">{name}</th>']
    if seeds:
        cells.append(f"<td>{escape(row.seeds)}</td>")
    cells += [_cell(value, row, column) for column, value in enumerate(row.values)]
    return f'<tr data-runs="{escape(" ".join(row.runs))}">{"".join(cells)}</tr>'


def _cell(value: Value, row: Row, column: int) -> str:
    text = escape(value.marked)
    kind = "best" if value.best else "near" if value.near else ""
    if kind:
        text = f'<span class="{kind}">{text}</span>'
    number = "" if value.number is None else f' data-number="{value.number!r}"'
    return f"<td{number}>{text if row.published else _button(text, column)}</td>"


def _button(text: str, column: int | None) -> str:
    """A cell that shows its runs; without a column, those of the whole row."""
    attribute = "" if column is None else f' data-column="{column}"'
    return f'<button type="button" class="cell" aria-haspopup="true"{attribute}>{text}</button>'


def _notes(table: Table) -> str:
    """All notes, and the sources of published rows, to which these lead."""
    notes = html_list(map(escape, (*table.notes, *table.incomplete)), "notes")
    sources = ""
    for number, source in enumerate(table.sources, 1):
        sources += f'<li id="source-{escape(table.key)}-{number}">{linked(source)}</li>'
    return notes + (f'<ol class="sources">{sources}</ol>' if sources else "")

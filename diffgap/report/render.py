"""Tables of recall for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from diffgap.report.recalls import Figure, RecallTable, Row


def to_terminal(table: RecallTable) -> Group:
    """A rich table: best in bold, a star where a figure differs from the frozen baseline.

    Gap and cost, where the table has them, stand in a second one below.
    """
    shown = Table(title=table.title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    shown.add_column("")  # long names wrap, figures do not
    shown.add_column("seeds", justify="right", no_wrap=True)
    for column in table.columns:
        shown.add_column(_heading(column).replace(" ", "\n"), justify="right", no_wrap=True)
    for row in table.rows:
        cells = [
            Text(_figure(row.figures[column]), style="bold" if row.figures[column].best else "")
            for column in row.figures
        ]
        shown.add_row(row.name, _seeds(row), *cells)
    return Group(shown, _facts_table(table)) if _fact_headings(table) else Group(shown)


def _facts_table(table: RecallTable) -> Table:
    shown = Table(box=SIMPLE_HEAD)
    for heading in ("", *_fact_headings(table)):
        shown.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for row in table.rows:
        shown.add_row(row.name, *map(_fact, row.facts.values()))
    return shown


def to_markdown(table: RecallTable) -> str:
    """The same table as Markdown, its notes below."""

    def bold(figure: Figure) -> str:
        return f"**{_figure(figure)}**" if figure.best else _figure(figure)

    lines = [f"**{table.title}**", ""]
    headings = [*map(_heading, table.columns), *_fact_headings(table)]
    lines.append("| | seeds | " + " | ".join(headings) + " |")
    lines.append("|---|---:|" + "---:|" * len(headings))
    for row in table.rows:
        figures = [bold(row.figures[c]) if c in row.figures else "-" for c in table.columns]
        figures += map(_fact, row.facts.values())
        lines.append(f"| {row.name} | {_seeds(row)} | " + " | ".join(figures) + " |")
    return "\n".join([*lines, "", *(f"- {note}" for note in notes(table))])


def notes(table: RecallTable) -> list[str]:
    """What the marks mean, and every cell's verdict against the baseline."""
    if not any(row.figures for row in table.rows):
        return ["No trial is finished yet."]
    said = ["Mean over seeds ± half of the 95 % interval (bootstrap over queries and seeds)."]
    if _fact_headings(table):
        said.append(
            "Gap: distance of the modality means; pairs' cosine: mean over pairs. After: x carried "
            "over to the other side (Diffusion-Link: the other way), means over seeds."
        )
    if table.baseline is None:
        return [*said, "No frozen baseline in this sweep: nothing to test against."]
    said.append(
        f"* differs from {table.baseline}: p < 0.05, paired permutation test over queries, "
        "Holm-corrected over the table."
    )
    return [*said, *_verdicts(table)]


def _verdicts(table: RecallTable) -> Iterator[str]:
    for row in table.rows:
        if row.name == table.baseline or not row.figures:
            continue
        parts = [
            f"{_heading(column)} {figure.difference:+.1f} points (p {_p(figure.p)})"
            for column, figure in row.figures.items()
            if column[1] == 5 and figure.difference is not None and figure.p is not None
        ]
        stars = sum(figure.significant for figure in row.figures.values())
        yield (
            f"{row.name} against {table.baseline}: {', '.join(parts)}; "
            f"{stars} of {len(row.figures)} figures differ."
        )


def _fact_headings(table: RecallTable) -> list[str]:
    return list(table.rows[0].facts) if table.rows else []


def _fact(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.3f}".rstrip("0").rstrip(".")


def _heading(column: tuple[str, int]) -> str:
    direction, k = column
    source, _, target = direction.partition("_to_")
    return f"{source}->{target} R@{k}"


def _figure(figure: Figure) -> str:
    interval = figure.interval
    star = "*" if figure.significant else ""
    return f"{interval.mean:.1f} ± {(interval.high - interval.low) / 2:.1f}{star}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _seeds(row: Row) -> str:
    cell = row.cell
    return str(cell.seeds) if cell.seeds == cell.planned else f"{cell.seeds} of {cell.planned}"

"""A table as every format shows it: cells with their marks, rows with the runs behind them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Value:
    """One cell.

    Attributes:
        text: what is printed, without marks.
        number: what it sorts by; None where there is none.
        best: the best of its column (bold).
        near: not the best, and not significantly different from it (underlined).
        star: significantly different from the named baseline.
    """

    text: str
    number: float | None = None
    best: bool = False
    near: bool = False
    star: bool = False

    @property
    def marked(self) -> str:
        """The text with its star."""
        return self.text + ("*" if self.star else "")


NOTHING = Value("-")


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        name: what it is.
        values: a cell a heading.
        runs: signatures of the trials behind its figures.
        seeds: how many trials count, such as ``3`` or ``2 of 3``.
        missing_reason: what became of the others; None where all count.
        footnote: the number of a published row's source; None for our own.
    """

    name: str
    values: tuple[Value, ...]
    runs: tuple[str, ...] = ()
    seeds: str = ""
    missing_reason: str | None = None
    footnote: int | None = None

    @property
    def published(self) -> bool:
        return self.footnote is not None


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        key: its short name, good for file names: ``ablation``.
        title: what it shows, on what, in which unit.
        headings: of the columns, but for the first, which holds the rows' names.
        rows: our own, then the published ones.
        notes: what a reader must know, a line each.
        brief: the two most important of them in short, for a terminal; where empty, `notes` serve.
        sources: of the published rows, in the order of their footnotes.
    """

    key: str
    title: str
    headings: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    brief: tuple[str, ...] = ()

    @property
    def ours(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if not row.published)

    @property
    def published(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.published)

    @property
    def incomplete(self) -> tuple[str, ...]:
        """A line for each row of which some trials do not count."""
        lines = []
        for row in self.rows:
            if row.missing_reason:
                lines.append(f"{row.name}: {row.missing_reason}.")
        return tuple(lines)

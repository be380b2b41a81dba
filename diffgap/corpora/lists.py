"""The lists that come with corpora: CSV files, in which one bad line costs one row."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from diffgap.corpora.base import Rejected
from diffgap.errors import UserError


@dataclass(frozen=True)
class Row:
    """A line of a list, by column."""

    line: int
    values: dict[str, str]
    problem: str | None  # why it cannot be used

    def get(self, column: str) -> str:
        """The value, without spaces around it; empty where there is none."""
        return self.values.get(column, "").strip()


def read_table(path: Path, columns: Sequence[str]) -> list[Row]:
    """The rows of a CSV file with a header that has these columns.

    Raises:
        UserError: where the file or a column is missing, or it has no row.
    """
    lines = _lines(path, f"write it with columns {','.join(columns)}")
    header = _first_row(lines)
    missing = [column for column in columns if column not in header]
    if missing:
        raise UserError(
            f"{path} (line 1): no column {', '.join(missing)}; it has {', '.join(header)}; "
            "add it, and save the file as UTF-8"
        )
    rows = _rows(path, lines[1:], header, first_line=2)
    if not rows:
        raise UserError(f"{path}: names no file; add a row {','.join(columns)} for each caption")
    return rows


def read_headless(path: Path, columns: Sequence[str]) -> list[Row]:
    """The rows of a CSV file without a header."""
    return _rows(path, _lines(path, "put it there"), columns, first_line=1)


def header_of(path: Path) -> list[str]:
    """The first line of a CSV file, as values."""
    return _first_row(_lines(path, "put it there"))


def usable_rows(
    path: Path, rows: Iterable[Row], clip_id: Callable[[Row], str], rejected: list[Rejected]
) -> list[Row]:
    """The rows without a problem; the others are added to `rejected`, each with its line."""
    usable = []
    for row in rows:
        if row.problem is None:
            usable.append(row)
        else:
            reason = f"{path.name} line {row.line}: {row.problem}"
            rejected.append(Rejected(clip_id(row), "corpus", reason))
    return usable


def group_rows(rows: Iterable[Row], column: str) -> dict[str, list[Row]]:
    """Rows by their value of a column, in the order of their first rows."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.get(column), []).append(row)
    return groups


def _lines(path: Path, remedy: str) -> list[str]:
    try:
        # Bytes that are not UTF-8 survive as lone surrogates, so that one bad line costs one row;
        # "-sig" drops the byte order mark that spreadsheets put in front of the first column.
        return path.read_bytes().decode("utf-8-sig", "surrogateescape").splitlines(keepends=True)
    except FileNotFoundError:
        raise UserError(f"{path}: missing; {remedy}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; {remedy}") from None


def _first_row(lines: list[str]) -> list[str]:
    return next(csv.reader(lines[:1]), [])


def _rows(path: Path, lines: list[str], columns: Sequence[str], first_line: int) -> list[Row]:
    rows = []
    reader = csv.reader(lines)
    try:
        for cells in reader:
            if not any(cells):
                continue
            cells_by_column = zip_longest(
                columns, map(_printable, cells[: len(columns)]), fillvalue=""
            )
            # The reader's own count, because a quoted value may span several lines.
            line = reader.line_num + first_line - 1
            rows.append(Row(line, dict(cells_by_column), _problem(cells, columns)))
    except csv.Error as error:  # a value that is longer than any
        line = reader.line_num + first_line - 1
        raise UserError(f"{path} (line {line}): {error}; close the quote that opens it") from None
    return rows


def _problem(cells: list[str], columns: Sequence[str]) -> str | None:
    if list(map(_printable, cells)) != cells:
        return "not UTF-8; save the file as UTF-8"
    if len(cells) > len(columns):
        return f"{len(cells)} values for {len(columns)} columns; quote a value that holds a comma"
    return None


def _printable(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

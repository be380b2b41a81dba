"""The lists that come with corpora: CSV files, read with a word about every bad line."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffgap.errors import UserError


@dataclass(frozen=True)
class Row:
    """A line of a list, by column."""

    line: int
    values: dict[str, str]
    problem: str | None
    """Why it cannot be used."""

    def __getitem__(self, column: str) -> str:
        return self.values[column]

    def get(self, column: str) -> str:
        """The value, without spaces around it; empty where there is none."""
        return self.values.get(column, "").strip()


def read_table(path: Path, columns: Sequence[str]) -> list[Row]:
    """The rows of a CSV file with a header that has these columns.

    Raises:
        UserError: where the file or a column is missing, or it has no row.
    """
    lines = _lines(path, f"write it with columns {','.join(columns)}")
    header = next(csv.reader(lines[:1]), [])
    if missing := [column for column in columns if column not in header]:
        raise UserError(
            f"{path} (line 1): no column {', '.join(missing)}; it has {', '.join(header)}; "
            "add it, and save the file as UTF-8"
        )
    rows = list(_rows(csv.reader(lines[1:]), 2, header))
    if not rows:
        raise UserError(f"{path}: names no file; add a row {','.join(columns)} for each caption")
    return rows


def read_headless(path: Path, columns: Sequence[str]) -> list[Row]:
    """The rows of a CSV file without a header."""
    return list(_rows(csv.reader(_lines(path, "put it there")), 1, columns))


def header_of(path: Path) -> list[str]:
    """The first line of a CSV file, as values."""
    return next(csv.reader(_lines(path, "put it there")[:1]), [])


def _lines(path: Path, remedy: str) -> list[str]:
    """Bytes that are not UTF-8 survive as lone surrogates, so that one bad line costs one row."""
    try:
        return path.read_bytes().decode("utf-8-sig", "surrogateescape").splitlines(keepends=True)
    except OSError:
        raise UserError(f"{path}: missing; {remedy}") from None


def _rows(reader: Iterable[list[str]], first: int, columns: Sequence[str]) -> Iterator[Row]:
    for number, values in enumerate(reader, first):
        if not any(values):
            continue
        named = dict(zip(columns, [*values, *[""] * len(columns)], strict=False))
        line = getattr(reader, "line_num", number) + first - 1
        yield Row(line, {k: _printable(v) for k, v in named.items()}, _problem(values, columns))


def _problem(values: list[str], columns: Sequence[str]) -> str | None:
    if any(_printable(value) != value for value in values):
        return "not UTF-8; save the file as UTF-8"
    if len(values) > len(columns):
        return f"{len(values)} values for {len(columns)} columns; quote a value that holds a comma"
    return None


def _printable(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

"""Cells against one field of theirs: what stands on the axis, and what makes a series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diffgap.report.results import Cell, read_cells
from diffgap.spec import flatten
from diffgap.sweep.plan import label
from diffgap.tracking.reader import LoggedSweep


@dataclass(frozen=True)
class Series:
    """Finished cells that differ in one field only.

    Attributes:
        name: what they have in common, and others have not.
        panel: the part of it that figures are split by.
        cells: in the order of the sweep's axes.
        values: the field in each of them; empty where it makes no difference to them.
    """

    name: str
    panel: str
    cells: tuple[Cell, ...]
    values: tuple[Any, ...]


def series_against(sweep: LoggedSweep, field: str, split_by: Sequence[str] = ()) -> list[Series]:
    """The finished cells of a sweep, by what they have in common beside a field."""
    groups: dict[tuple[str, str, bool], list[Cell]] = {}
    others = [axis for axis in sweep.spec["axes"] if axis not in (field, *split_by)]
    for cell in read_cells(sweep):
        if cell.seeds:
            key = (said(cell, others), said(cell, split_by), uses(cell, field))
            groups.setdefault(key, []).append(cell)
    return [
        Series(name, panel, tuple(cells), tuple(value_of(c, field) for c in cells if used))
        for (name, panel, used), cells in groups.items()
    ]


def value_of(cell: Cell, field: str) -> Any:
    """A field of a cell's trials."""
    return flatten(cell.trial)[field]


def uses(cell: Cell, field: str) -> bool:
    """Whether a field makes a difference to a cell."""
    return not field.startswith(tuple(cell.trial.inactive_fields()))


def said(cell: Cell, fields: Sequence[str]) -> str:
    """What these fields are in a cell, for people, but for those that it has no use for."""
    flat = flatten(cell.trial)
    told = label({name: flat[name] for name in fields}, cell.trial)
    told = told.rpartition("seed ")[0].rstrip(", ")
    return told.replace("cdm.", "").replace("score.", "")

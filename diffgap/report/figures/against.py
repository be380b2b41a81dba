"""Cells of a sweep against one field: what stands on the axis, and what makes a series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any

from diffgap.report.results import Cell, read_cells
from diffgap.spec import flatten
from diffgap.spec.label import cell_label
from diffgap.tracking.reader import LoggedSweep


@dataclass(frozen=True)
class CellSeries:
    """Finished cells that differ in one field only, in the order of the sweep's axes."""

    name: str  # what they have in common, and others do not
    panel: str  # the part of it that figures are split by
    cells: tuple[Cell, ...]
    values: tuple[Any, ...]  # of the field; empty where the cells do not use it


def series_against(
    sweep: LoggedSweep, field: str, split_by: Sequence[str] = ()
) -> list[CellSeries]:
    """The finished cells of a sweep, by what they have in common beside a field."""
    groups: dict[tuple[str, str, bool], list[Cell]] = {}
    others = [axis for axis in sweep.spec["axes"] if axis not in (field, *split_by)]
    for cell in read_cells(sweep):
        if cell.seeds:
            used = not field.startswith(tuple(cell.trial.inactive_fields()))
            key = (describe(cell, others), describe(cell, split_by), used)
            groups.setdefault(key, []).append(cell)
    series = []
    for (name, panel, used), cells in groups.items():
        values = [flatten(cell.trial)[field] for cell in cells] if used else []
        series.append(CellSeries(name, panel, tuple(cells), tuple(values)))
    return series


def cells_of_series(series: Sequence[CellSeries]) -> list[Cell]:
    return list(chain.from_iterable(map(attrgetter("cells"), series)))


def describe(cell: Cell, fields: Sequence[str]) -> str:
    """The values of these fields in a cell, without those that it does not use."""
    flat = flatten(cell.trial)
    text = cell_label({name: flat[name] for name in fields}, cell.trial)
    return text.replace("cdm.", "").replace("score.", "")

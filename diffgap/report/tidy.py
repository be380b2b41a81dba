"""Trials as tidy data: a row each, with every field and metric, for any tool that reads tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from io import BytesIO
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from diffgap.io.printable import csv_cell
from diffgap.spec import Trial, flatten
from diffgap.tracking.reader import LoggedSweep, TrialRun

_NAMES = (
    "sweep store task split signature label final run_id status counts reason git_commit encoder "
    "corpus"
)
FACTS: dict[str, pa.DataType] = dict.fromkeys(_NAMES.split(), pa.string())
FACTS |= {"final": pa.bool_(), "counts": pa.bool_()}
"""Columns of every table, before the trials' fields and their metrics."""

SPEC = "trial."
"""Prefix of the columns of a trial's fields, which could share names with facts."""


def tidy(sweeps: Iterable[LoggedSweep]) -> pa.Table:
    """One row a planned trial of every sweep, finished or not.

    Columns: `FACTS`, the trial's fields as ``trial.<dotted name>``, then its final metrics by their
    own names, sorted. What is not known is null. A column of mixed types is text: strings as they
    are, others as JSON.
    """
    facts, fields, metrics = [], [], []
    for sweep in sweeps:
        for trial in sweep.trials:
            resolved = Trial.model_validate(trial.trial)
            facts.append(_facts(sweep, trial, resolved))
            fields.append(flatten(resolved))
            metrics.append(trial.metrics)
    table = pa.Table.from_pylist(facts, pa.schema(FACTS))
    # Trials of different methods have different fields: a column for each that any of them has.
    for name in dict.fromkeys(chain.from_iterable(fields)):
        table = table.append_column(SPEC + name, _column([row.get(name) for row in fields]))
    for name in sorted(set().union(*metrics)):
        values = [row.get(name) for row in metrics]
        table = table.append_column(name, pa.array(values, pa.float64()))
    return table


def to_csv(sweeps: Sequence[LoggedSweep]) -> str:
    """`tidy` as CSV: a header, numbers that read back as the same, nothing where null.

    Text that a spreadsheet would compute stands behind a '; Parquet has it as it is.
    """
    content = BytesIO()
    pyarrow.csv.write_csv(_for_spreadsheets(tidy(sweeps)), content)
    return content.getvalue().decode()


def _for_spreadsheets(table: pa.Table) -> pa.Table:
    columns = []
    for column in table.columns:
        if pa.types.is_string(column.type):
            cells = [text if text is None else csv_cell(text) for text in column.to_pylist()]
            column = pa.array(cells, pa.string())
        columns.append(column)
    return pa.table(columns, names=list(map(csv_cell, table.column_names)))


def to_parquet(sweeps: Sequence[LoggedSweep]) -> bytes:
    """`tidy` as a Parquet file's content."""
    content = BytesIO()
    pyarrow.parquet.write_table(tidy(sweeps), content)
    return content.getvalue()


def _facts(sweep: LoggedSweep, trial: TrialRun, resolved: Trial) -> dict[str, Any]:
    """The values of `FACTS`."""
    return {
        "sweep": sweep.name,
        "store": sweep.store,
        "task": resolved.task,
        "split": resolved.split,
        "signature": trial.signature,
        "label": trial.label,
        "final": trial.final,
        "run_id": trial.run_id,
        "status": trial.status,
        "counts": trial.is_complete,
        "reason": trial.reason or trial.problem,
        "git_commit": trial.config.get("git_commit") or trial.tags.get("diffgap.git_commit"),
        "encoder": trial.config.get("encoder", {}).get("name"),
        "corpus": trial.config.get("store", {}).get("name"),
    }


def _column(values: list[Any]) -> pa.Array:
    """Values of one type as they are, integers with floats as floats, others as text."""
    types = {type(value) for value in values if value is not None}
    if types in ({int, float}, {float}):
        return pa.array(values, type=pa.float64(), from_pandas=False)  # else NaN becomes null
    if types in ({bool}, {int}):
        return pa.array(values)
    return pa.array(map(_text, values), type=pa.string())


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)

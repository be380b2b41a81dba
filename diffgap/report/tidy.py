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

from diffgap.spec import Trial, flatten
from diffgap.tracking.reader import LoggedSweep, TrialRun

FACTS: dict[str, pa.DataType] = {
    "sweep": pa.string(),
    "store": pa.string(),
    "task": pa.string(),
    "split": pa.string(),
    "signature": pa.string(),
    "label": pa.string(),
    "final": pa.bool_(),
    "run_id": pa.string(),
    "status": pa.string(),
    "counts": pa.bool_(),
    "reason": pa.string(),
    "git_commit": pa.string(),
    "encoder": pa.string(),
    "corpus": pa.string(),
}
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
        values = pa.array([row.get(name) for row in metrics], type=pa.float64())
        table = table.append_column(name, values)
    return table


def to_csv(sweeps: Sequence[LoggedSweep]) -> str:
    """`tidy` as CSV: a header, numbers that read back as the same, nothing where null."""
    content = BytesIO()
    pyarrow.csv.write_csv(tidy(sweeps), content)
    return content.getvalue().decode()


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
    if types == {bool}:
        return pa.array(values, type=pa.bool_())
    if types == {int}:
        return pa.array(values, type=pa.int64())
    return pa.array(map(_text, values), type=pa.string())


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)

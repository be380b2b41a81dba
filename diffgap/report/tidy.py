"""Trials as tidy data: a row each, with all that is known of it, for whatever reads tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
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
"""Columns that every table has, before the trials' fields and their metrics."""

SPEC = "trial."
"""What the names of the columns of a trial's fields begin with."""


def tidy(sweeps: Iterable[LoggedSweep]) -> pa.Table:
    """One row a planned trial of every sweep, whatever became of it.

    Columns: `FACTS`, the trial's fields as ``trial.<dotted name>``, then its final metrics by their
    own names, sorted. What is not known is null. A column of several kinds of values is text:
    strings as they are, others as JSON.
    """
    facts, fields, metrics = [], [], []
    for sweep in sweeps:
        for trial in sweep.trials:
            resolved = Trial.model_validate(trial.trial)
            facts.append(_facts(sweep, trial, resolved))
            fields.append({SPEC + name: value for name, value in flatten(resolved).items()})
            metrics.append(trial.metrics)
    columns = {
        name: pa.array([row[name] for row in facts], type=kind) for name, kind in FACTS.items()
    }
    for name in dict.fromkeys(name for row in fields for name in row):
        columns[name] = _column([row.get(name) for row in fields])
    for name in sorted({name for row in metrics for name in row}):
        columns[name] = pa.array([row.get(name) for row in metrics], type=pa.float64())
    return pa.table(columns)


def to_csv(sweeps: Sequence[LoggedSweep]) -> str:
    """`tidy` as CSV: a header, numbers that read back as the same, nothing where null."""
    pyarrow.csv.write_csv(tidy(sweeps), sink := pa.BufferOutputStream())
    return sink.getvalue().to_pybytes().decode()


def to_parquet(sweeps: Sequence[LoggedSweep]) -> bytes:
    """`tidy` as a Parquet file's content."""
    pyarrow.parquet.write_table(tidy(sweeps), sink := pa.BufferOutputStream())
    content: bytes = sink.getvalue().to_pybytes()
    return content


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
    """Values of one kind as they are, whole and other numbers as numbers, others as text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float} or kinds == {float}:
        return pa.array(values, type=pa.float64(), from_pandas=False)
    for kind, stored in ((bool, pa.bool_()), (int, pa.int64())):
        if kinds == {kind}:
            return pa.array(values, type=stored)
    return pa.array([_text(value) for value in values], type=pa.string())


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)

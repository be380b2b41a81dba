"""Trials on the page: their runs, states and metrics, as its script needs them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from typing import Any

from diffgap.evaluation.metrics import AUDIO_METRICS, METRICS
from diffgap.io.printable import one_line
from diffgap.io.redact import redact
from diffgap.report.model import Report
from diffgap.report.tables.recall import FACTS
from diffgap.report.tables.table import Table
from diffgap.tracking.names import DATABASE
from diffgap.tracking.reader import LoggedSweep, TrialRun

COMMIT = "diffgap.git_commit"

COLUMNS = {**FACTS, "device seconds": "cost/train_seconds", "parameters": "cost/parameters"}
"""The metric behind a column that is not one of retrieval."""

LONG_HASH = re.compile(r"(?<=^[0-9a-f]{12})[0-9a-f]+")
"""What nobody needs of a commit's hash; a mark behind it, such as -dirty, stays."""


@dataclass(frozen=True)
class TrialSummary:
    """A trial as the page shows it."""

    trial: TrialRun
    report: Report

    @property
    def state(self) -> str:
        """Finished, or what became of it instead."""
        if self.trial.is_complete:
            return self.trial.state
        parts = filter(None, (self.trial.state, self.trial.problem, self.trial.reason))
        return redact(": ".join(parts))

    @property
    def commit(self) -> str:
        """The commit of the code that ran it, from its run or else its checkpoint."""
        return self.trial.tags.get(COMMIT) or str(self.trial.config.get("git_commit") or "")

    @property
    def short_commit(self) -> str:
        return LONG_HASH.sub("", self.commit)

    @cached_property
    def sweep(self) -> LoggedSweep:
        """The first sweep that has it."""
        for sweep in self.report.sweeps:
            # By identity: the same trial of another sweep may be another run.
            if any(trial is self.trial for trial in sweep.trials):
                return sweep
        raise LookupError(f"{self.trial.signature} is in no sweep of the report")

    @property
    def address(self) -> str | None:
        """Of its run in MLflow's UI, where that is served somewhere."""
        if not self.trial.run_id or not self.report.where.startswith(("http://", "https://")):
            return None
        path = f"#/experiments/{self.sweep.experiment_id}/runs/{self.trial.run_id}"
        return f"{self.report.where.rstrip('/')}/{path}"

    @property
    def metrics(self) -> dict[str, float]:
        """The final metrics, else the last that were logged; JSON has no NaN, so none of those."""
        metrics = self.trial.metrics if self.trial.is_complete else self.trial.logged
        return {name: value for name, value in metrics.items() if isfinite(value)}


def rerun_command(signature: str, where: str) -> str:
    """The command that repeats a trial, with --output where the tracking store lies in that."""
    command = f"diffgap rerun {signature}"
    if where.startswith("sqlite:///"):
        output = where.removeprefix("sqlite:///").removesuffix(f"/{DATABASE}")
        command += f" --output {shlex.quote(output)}"
    return command


def page_data(report: Report, trials: Sequence[TrialSummary]) -> dict[str, Any]:
    """What the script needs: the metrics behind every column, and the trials."""
    columns: dict[str, list[list[str]]] = {}
    names: set[str] = set()  # the panel shows no others, and they would fill megabytes
    for table in report.tables:
        columns[table.key] = _columns(table, trials)
        names.update(*columns[table.key])
    entries = {}
    for summary in trials:
        entries[summary.trial.signature] = _entry(summary, names)
    return {"columns": columns, "trials": entries}


def _entry(summary: TrialSummary, names: set[str]) -> dict[str, Any]:
    """What a cell's panel shows of a trial, with the metrics of these names alone."""
    metrics = summary.metrics
    return {
        "label": one_line(summary.trial.label),
        "sweep": one_line(summary.sweep.name),
        "run": summary.trial.run_id,
        "address": summary.address,
        "state": one_line(summary.state),
        "commit": one_line(summary.commit),
        "command": rerun_command(summary.trial.signature, summary.report.where),
        "metrics": {name: metrics[name] for name in sorted(names & metrics.keys())},
    }


def _columns(table: Table, trials: Sequence[TrialSummary]) -> list[list[str]]:
    """The metrics behind each column; none where it shows something else."""
    runs: set[str] = set()
    for row in table.rows:
        runs.update(row.runs)
    logged: set[str] = set()
    for summary in trials:
        if summary.trial.signature in runs:
            logged.update(summary.metrics)
    return [_metrics(heading, logged) for heading in table.headings]


def _metrics(heading: str, logged: Iterable[str]) -> list[str]:
    if heading in COLUMNS:
        return [COLUMNS[heading]]
    direction, _, title = heading.rpartition(" ")
    path = direction.replace("->", "_to_") or r"\w+_to_\w+"  # without one: mean of both
    if heading in AUDIO_METRICS:
        path, title = "generation", heading
    for metric in METRICS.values():
        if metric.title == title:
            title = metric.name
    pattern = re.compile(rf"(?:test|val)/{path}/{re.escape(title)}")
    return sorted(filter(pattern.fullmatch, logged))

"""What an HTML report tells of trials: their runs, states and metrics, as its script needs them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from typing import Any

from diffgap.io.redact import redact
from diffgap.report.model import Report
from diffgap.report.tables.generation import BETTER
from diffgap.report.tables.recall import FACTS
from diffgap.report.tables.table import Table
from diffgap.tracking.client import DATABASE
from diffgap.tracking.reader import LoggedSweep, TrialRun

COMMIT = "diffgap.git_commit"

COLUMNS = {**FACTS, "device seconds": "cost/train_seconds", "parameters": "cost/parameters"}
"""The metric behind a column that is not one of recall."""

RECALL = re.compile(r"(?:(\w+)->(\w+) )?(MedR|(?:R|mAP)@?\d+)")
"""A column of recall, of one direction or the mean of both."""


@dataclass(frozen=True)
class TrialSummary:
    """What the page tells of a trial."""

    trial: TrialRun
    report: Report

    @property
    def state(self) -> str:
        """Finished, or what became of it instead."""
        if self.trial.is_complete:
            return self.trial.state
        reasons = [text for text in (self.trial.problem, self.trial.reason) if text]
        return redact(": ".join([self.trial.state, *reasons]))

    @property
    def commit(self) -> str:
        """The commit of the code that ran it, as its run or else its checkpoint says."""
        return self.trial.tags.get(COMMIT) or str(self.trial.config.get("git_commit") or "")

    @cached_property
    def sweep(self) -> LoggedSweep:
        """The first sweep that has it."""
        return next(
            sweep
            for sweep in self.report.sweeps
            if any(trial is self.trial for trial in sweep.trials)
        )

    @property
    def address(self) -> str | None:
        """Of its run in MLflow's UI, where that is served somewhere."""
        if not self.trial.run_id or not self.report.where.startswith(("http://", "https://")):
            return None
        place = f"#/experiments/{self.sweep.experiment_id}/runs/{self.trial.run_id}"
        return f"{self.report.where.rstrip('/')}/{place}"

    @property
    def metrics(self) -> dict[str, float]:
        """The final metrics, else the last that were logged."""
        found = self.trial.metrics if self.trial.is_complete else self.trial.logged
        return {name: value for name, value in found.items() if isfinite(value)}


def command(signature: str, where: str) -> str:
    """What repeats a trial; with its output directory where the tracking store is in that."""
    place = where.removeprefix("sqlite:///").removesuffix(f"/{DATABASE}")
    output = f" --output {shlex.quote(place)}" if where.startswith("sqlite:///") else ""
    return f"diffgap rerun {signature}{output}"


def page_data(report: Report, trials: Sequence[TrialSummary]) -> dict[str, Any]:
    """What the script needs: the metrics behind every column, and the trials."""
    columns = {table.key: _columns(table, trials) for table in report.tables}
    shown = {name for names in columns.values() for some in names for name in some}
    return {
        "columns": columns,
        "trials": {
            told.trial.signature: {
                "label": told.trial.label,
                "sweep": told.sweep.name,
                "run": told.trial.run_id,
                "address": told.address,
                "state": told.state,
                "commit": told.commit,
                "command": command(told.trial.signature, report.where),
                "metrics": {n: v for n, v in sorted(told.metrics.items()) if n in shown},
            }
            for told in trials
        },
    }


def _columns(table: Table, trials: Sequence[TrialSummary]) -> list[list[str]]:
    """The metrics behind each column; none where it shows something else."""
    runs = {signature for row in table.rows for signature in row.runs}
    logged = {n for told in trials if told.trial.signature in runs for n in told.metrics}
    return [_metrics(heading, logged) for heading in table.headings]


def _metrics(heading: str, logged: Iterable[str]) -> list[str]:
    if heading in COLUMNS:
        return [COLUMNS[heading]]
    if heading in BETTER:
        return sorted(name for name in logged if name.endswith(f"/generation/{heading}"))
    found = RECALL.fullmatch(heading)
    if not found:
        return []
    direction = f"{found[1]}_to_{found[2]}" if found[1] else r"\w+_to_\w+"
    pattern = re.compile(rf"(?:test|val)/{direction}/{found[3].replace('@', '')}")
    return sorted(name for name in logged if pattern.fullmatch(name))

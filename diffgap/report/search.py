"""What a search has found: its trials, the best on val first."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from diffgap.ledger import Ledger
from diffgap.spec import Trial, flatten


@dataclass(frozen=True)
class SearchRow:
    """One trial of a search."""

    signature: str
    values: dict[str, Any]
    """Of the fields that were searched."""
    state: str
    value: float | None
    """The metric on val, mean of both directions: of the trial's own score where it is finished,
    of its curve at the step where it was stopped."""


@dataclass(frozen=True)
class SearchTable:
    """The trials of a search, finished ones first, the best of them on top."""

    name: str
    metric: str
    fields: tuple[str, ...]
    rows: tuple[SearchRow, ...]

    @property
    def best(self) -> SearchRow | None:
        return next((row for row in self.rows if row.state == "finished"), None)


def search_table(ledger: Ledger, name: str) -> SearchTable:
    """The table of a recorded search; UserError where there is none."""
    sweep = ledger.sweep(name)
    metric = sweep.spec["search"]["metric"]
    fields = (*sweep.spec["axes"], *sweep.spec["search"]["space"])
    if sweep.spec["seeds"] != 1:
        fields = (*fields, "seed")
    entries = [entry for entry in sweep.trials if not entry.get("final")]
    rows = [_row(ledger, entry, metric, fields) for entry in entries]
    rows.sort(key=lambda row: (row.state != "finished", -(row.value or 0.0)))
    return SearchTable(name, metric.replace("R", "R@").replace("mAP", "mAP@"), fields, tuple(rows))


def _row(ledger: Ledger, entry: dict, metric: str, fields: tuple[str, ...]) -> SearchRow:
    record = ledger.trial(entry["signature"])
    trial = Trial.model_validate(entry["trial"])
    values = flatten(trial.at(trial.train.steps))
    value: float | None = None
    if record.finished:
        found = record.metrics().items()
        state = "finished"
        value = mean(v for n, v in found if n.startswith("val/") and n.endswith(f"/{metric}"))
    elif stop := record.stop:
        value = stop["value"]
        state = f"stopped at step {stop['step']}" if stop["step"] else f"stopped: {stop['reason']}"
    else:
        state = "failed" if record.failure else "not finished"
    return SearchRow(entry["signature"], {name: values[name] for name in fields}, state, value)


def search_terminal(table: SearchTable) -> Table:
    """A rich table of a search."""
    shown = Table(
        title=f"Search {table.name}: {table.metric} on val, mean of both directions",
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
    )
    for heading in _headings(table):
        shown.add_column(heading.replace(".", ".\n"), justify="right")
    for row in table.rows:
        shown.add_row(*_cells(row), style="bold" if row is table.best else "")
    return shown


def search_markdown(table: SearchTable) -> str:
    """The same as Markdown, with the line that repeats the best trial."""
    headings = _headings(table)
    lines = [f"**Search {table.name}: {table.metric} on val, mean of both directions**", ""]
    lines += ["| " + " | ".join(headings) + " |", "|" + "---:|" * len(headings)]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in table.rows]
    return "\n".join([*lines, "", *(f"- {note}" for note in search_notes(table))])


def search_notes(table: SearchTable) -> list[str]:
    """What to do with the best trial."""
    if table.best is None:
        return ["No trial is finished yet."]
    values = {name: v for name, v in table.best.values.items() if name != "seed"}
    settings = " ".join(f"--set trial.{name}={value}" for name, value in values.items())
    return [
        f"The best on val, {table.best.signature}, in any sweep: {settings}",
        "Stopped trials show the value of their curve, without the trial's own score.",
    ]


def _headings(table: SearchTable) -> list[str]:
    return ["trial", table.metric, *table.fields, "state"]


def _cells(row: SearchRow) -> list[str]:
    value = "-" if row.value is None else f"{row.value:.2f}"
    values = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values.values()]
    return [row.signature, value, *values, row.state]

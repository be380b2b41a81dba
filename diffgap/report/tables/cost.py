"""Table of cost: what cells cost to train, beside their recall."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from diffgap.report.results import Cell, Setting, cell_names, merged
from diffgap.report.tables.table import NOTHING, Row, Table, Value
from diffgap.tracking.reader import LoggedSweep

NOTE = (
    "Seconds of training times workers, means over seeds, as measured where the trials ran: on "
    "CPUs where there was no GPU, and beside whatever else ran there. R@1: mean of both "
    "directions, in %."
)
BRIEF = "Seconds of training times workers, as measured. R@1: mean of both directions, in %."


def cost_table(sweeps: Sequence[LoggedSweep], setting: Setting) -> Table:
    """Device-seconds and parameters of every cell of one setting, against its R@1."""
    cells = merged(sweeps)
    # Sweeps of one table may differ in workers; the most of them is the honest bound.
    workers = max(int(sweep.spec["resources"]["workers"]) for sweep in sweeps)
    rows: list[Row] = []
    devices: set[str] = set()
    for cell, name in zip(cells, cell_names(cells, "ablation"), strict=True):
        values = _values(cell, setting.split, workers)
        rows.append(Row(name, values, cell.signatures, cell.counted))
        for trial in cell.finished:
            devices.add(trial.config["hardware"])
    hardware = f"On: {'; '.join(sorted(devices))}."
    return Table(
        f"cost-{setting.slug}",
        f"Cost on {setting}, {setting.task}",
        ("device seconds", "parameters", "R@1"),
        tuple(rows),
        (NOTE, hardware) if devices else (NOTE,),
        brief=(BRIEF, hardware) if devices else (BRIEF,),
    )


def _values(cell: Cell, split: str, workers: int) -> tuple[Value, ...]:
    recalls = []
    for trial in cell.finished:
        for name, value in trial.metrics.items():
            if name.startswith(f"{split}/") and name.endswith("/R1"):
                recalls.append(value)
    return (
        _mean_value(cell.metric("cost/train_seconds"), "{:,.0f}", workers),
        _mean_value(cell.metric("cost/parameters"), "{:,.0f}"),
        _mean_value(recalls, "{:.1f}"),
    )


def _mean_value(numbers: list[float], number_format: str, scale: int = 1) -> Value:
    if not numbers:
        return NOTHING
    value = scale * mean(numbers)
    return Value(number_format.format(value), value)

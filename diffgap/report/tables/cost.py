"""What cells cost, beside what they are worth."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from diffgap.report.results import Cell, Setting, merged
from diffgap.report.tables.recall import cell_names
from diffgap.report.tables.table import NOTHING, Row, Table, Value
from diffgap.tracking.reader import LoggedSweep

NOTE = (
    "Seconds of training times workers, means over seeds, as measured where the trials ran: on "
    "CPUs where there was no GPU, and beside whatever else ran there. R@1: mean of both "
    "directions, in %."
)


def cost_table(sweeps: Sequence[LoggedSweep], setting: Setting) -> Table:
    """Device-seconds and parameters of every cell of one setting, against its R@1."""
    cells = merged(sweeps)
    names = cell_names(cells, "ablation")
    workers = max(int(sweep.spec["resources"]["workers"]) for sweep in sweeps)
    rows = tuple(
        Row(name, _values(cell, setting.split, workers), cell.signatures, cell.counted)
        for cell, name in zip(cells, names, strict=True)
    )
    devices = sorted({t.config["hardware"] for cell in cells for t in cell.finished if t.config})
    said = (f"On: {'; '.join(devices)}.",) if devices else ()
    return Table(
        f"cost-{setting.slug}",
        f"Cost on {setting}, {setting.task}",
        ("device seconds", "parameters", "R@1"),
        rows,
        (NOTE, *said),
    )


def _values(cell: Cell, split: str, workers: int) -> tuple[Value, ...]:
    seconds, parameters = cell.metric("cost/train_seconds"), cell.metric("cost/parameters")
    recalls = [
        value
        for trial in cell.finished
        for name, value in trial.metrics.items()
        if name.startswith(f"{split}/") and name.endswith("/R1")
    ]
    return (
        _number([workers * s for s in seconds], "{:,.0f}"),
        _number(parameters, "{:,.0f}"),
        _number(recalls, "{:.1f}"),
    )


def _number(found: list[float], form: str) -> Value:
    return Value(form.format(mean(found)), mean(found)) if found else NOTHING

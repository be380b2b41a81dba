"""Tables of recall: the CDM x BST ablation, the methods, and whatever a sweep crosses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from statistics import mean

from diffgap.bridge.registry import METHODS
from diffgap.errors import UserError, nearest
from diffgap.report.references import Reference, references_for
from diffgap.report.results import Cell, Setting, merged, read_cells, setting_of
from diffgap.report.tables.compare import Comparison, compare, heading
from diffgap.report.tables.table import NOTHING, Row, Table, Value
from diffgap.tracking.reader import LoggedSweep

NAMES = {
    "frozen": "frozen embeddings",
    "bst": "BST only",
    "cdm": "CDM only",
    "cdm+bst": "CDM + BST",
}

TITLES = {
    "ablation": "CDM x BST ablation",
    "methods": "Methods",
    "schedules": "Noise schedules",
    "scores": "Scores",
    "axes": "Sweep",
}

FACTS = {
    "gap before": "gap/before/mean_distance",
    "gap after": "gap/after/mean_distance",
    "pairs' cosine before": "gap/before/paired_cosine",
    "pairs' cosine after": "gap/after/paired_cosine",
    "training s": "cost/train_seconds",
}
"""Further columns of the methods' table, means over seeds: distance of the modality means, mean
cosine of pairs, and what training took."""

GAP_NOTE = (
    "Gap: distance of the modality means; pairs' cosine: mean over pairs. After: x carried over "
    "to the other side (Diffusion-Link: the other way), means over seeds."
)


def _sweep_tables(
    sweep: LoggedSweep,
    references: Sequence[Reference],
    against: str | None = None,
    *,
    kind: str,
) -> list[Table]:
    return [sweep_table(sweep, kind, against)]


ablation_tables = partial(_sweep_tables, kind="ablation")
methods_tables = partial(_sweep_tables, kind="methods")
axes_tables = partial(_sweep_tables, kind="axes")


def sweep_table(sweep: LoggedSweep, kind: str, against: str | None = None) -> Table:
    """A table of one sweep, finished or not.

    Args:
        sweep: as MLflow has it.
        kind: ablation, methods or axes.
        against: the row that others are tested against; default the frozen embeddings.

    Raises:
        UserError: where there is no such row.
    """
    trials = [trial for trial in sweep.trials if trial.final] if sweep.spec["search"] else None
    cells = read_cells(sweep, trials)
    names = cell_names(cells, kind)
    compared = compare(cells, _baseline(cells, names, against))
    facts = FACTS if kind == "methods" else {}
    key = _key(kind, sweep)
    title = f"{TITLES[key]} on {setting_of(sweep)}: R@K in % (sweep {sweep.name})"
    return Table(
        f"{key}-{sweep.name}",
        title,
        (*compared.headings, *facts),
        _rows(compared, names, facts),
        (
            *compared.notes,
            *([GAP_NOTE] if facts else []),
            *_verdicts(compared, names),
            *sweep.notes,
        ),
    )


def retrieval_table(
    sweeps: Sequence[LoggedSweep],
    setting: Setting,
    references: Sequence[Reference],
) -> Table:
    """Every method of some sweeps on one split of one corpus, and the published rows apart.

    Args:
        sweeps: of that setting, all of them.
        setting: task, corpus and split.
        references: published rows, of whatever.
    """
    cells = merged(sweeps)
    names = cell_names(cells, "ablation")
    compared = compare(cells, _baseline(cells, names, None))
    wanted = references_for(references, setting.retrieval, setting.dataset)
    columns = compared.headings
    shown = [r for r in wanted if set(r.metrics) & set(columns)]
    published = tuple(
        Row(r.method, tuple(_published(r.metrics.get(name)) for name in columns), footnote=number)
        for number, r in enumerate(shown, 1)
    )
    return Table(
        f"retrieval-{setting.slug}",
        f"{setting.task} retrieval on {setting}: R@K in %",
        columns,
        (*_rows(compared, names, {}), *published),
        (*compared.notes, *_verdicts(compared, names)),
        tuple(f"{r.source} ({r.seen})" for r in shown),
    )


def _key(kind: str, sweep: LoggedSweep) -> str:
    """What a table of axes is about."""
    if kind != "axes" or sweep.spec["search"]:
        return kind
    axes = tuple(sweep.spec["axes"])
    if any(name.startswith("score.") for name in axes):
        return "scores"
    return "schedules" if "cdm.schedule" in axes else kind


def _baseline(cells: Sequence[Cell], names: Sequence[str], against: str | None) -> int | None:
    """The place of the cell that others are tested against, if there is one."""
    if against is None:
        methods = [cell.trial.method for cell in cells]
        return methods.index("none") if "none" in methods else None
    if against not in names:
        raise UserError(f"--against: no row {against!r}; {nearest(against, names)}")
    return names.index(against)


def cell_names(cells: Sequence[Cell], kind: str) -> list[str]:
    """What a table calls its cells; by their axes too where that alone does not tell them apart."""
    if kind == "axes":
        return [cell.name or METHODS[cell.trial.method].title for cell in cells]
    short = [
        NAMES[cell.trial.ablation_cell]
        if kind == "ablation" and cell.trial.ablation_cell
        else METHODS[cell.trial.method].title
        for cell in cells
    ]
    return [
        name if short.count(name) == 1 else f"{name} ({cell.name})"
        for name, cell in zip(short, cells, strict=True)
    ]


def _rows(compared: Comparison, names: Sequence[str], facts: dict[str, str]) -> tuple[Row, ...]:
    rows = []
    for place, (cell, name) in enumerate(zip(compared.cells, names, strict=True)):
        found = tuple(_fact(cell.metric(metric)) for metric in facts.values())
        values = (*compared.values(place), *found)
        rows.append(Row(name, values, cell.signatures, cell.counted, cell.missing_reason))
    return tuple(rows)


def _verdicts(compared: Comparison, names: Sequence[str]) -> Iterable[str]:
    """Every row's verdict against the baseline."""
    if compared.baseline is None:
        return
    base = names[compared.baseline]
    yield (
        f"* differs from {base}: p < 0.05, paired permutation test over queries of the trained "
        "seeds (it says nothing of other seeds), Holm-corrected over the table."
    )
    for place, name in enumerate(names):
        figures = {c: compared.figures.get((place, c)) for c in compared.columns}
        parts = [
            f"{heading(column)} {figure.difference:+.1f} points (p {_p(figure.p)})"
            for column, figure in figures.items()
            if figure and column[1] == 5 and figure.difference is not None and figure.p is not None
        ]
        if parts:
            stars = sum(figure.significant for figure in figures.values() if figure)
            yield (
                f"{name} against {base}: {', '.join(parts)}; {stars} of {len(figures)} figures "
                "differ."
            )


def _fact(found: list[float]) -> Value:
    if not found:
        return NOTHING
    value = mean(found)
    text = f"{value:.0f}" if abs(value) >= 10 else f"{value:.3f}".rstrip("0").rstrip(".")
    return Value(text, value)


def _published(value: float | None) -> Value:
    return NOTHING if value is None else Value(f"{value:.1f}", value)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"

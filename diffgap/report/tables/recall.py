"""Tables of recall: the CDM x BST ablation, the methods, and whatever a sweep crosses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import mean

import numpy as np

from diffgap.errors import UserError, nearest
from diffgap.evaluation.metrics import METRICS, table_metrics
from diffgap.evaluation.statistics import PairedTest, mean_interval, paired_tests
from diffgap.report.references import Reference, references_for
from diffgap.report.results import Cell, Setting, cell_names, merged, read_cells, setting_of
from diffgap.report.tables.compare import (
    UNFINISHED,
    Comparison,
    Key,
    Statistic,
    compare,
    p_text,
    published_rows,
)
from diffgap.report.tables.table import NOTHING, Table, Value
from diffgap.tracking.reader import LoggedSweep

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
"""Further columns of the methods' table, and the metric whose mean over seeds each shows."""

GAP_NOTE = (
    "Gap: distance of the modality means; pairs' cosine: mean over pairs. After: x carried over "
    "to the other side (Diffusion-Link: the other way), means over seeds."
)
MARKS_NOTE = (
    "Mean over seeds ± half of the 95 % interval over queries and seeds. Bold: best of its "
    "column; underlined: not significantly different from it, of the trained seeds."
)
NO_BASELINE = "No frozen baseline here: nothing to test against."
BRIEF_MARKS = "± half the 95 % interval. Bold: best; underlined: not significantly worse"


@dataclass(frozen=True)
class QueryValues:
    """One metric of one cell and direction.

    Attributes:
        direction: such as ``text_to_audio``.
        values: (S, Q), in percent, of every seed and query.
        clips: (Q,) int64: queries of one clip belong together.
    """

    direction: str
    values: np.ndarray
    clips: np.ndarray


def _permutation_tests(
    pairs: Mapping[Key, tuple[QueryValues, QueryValues]],
) -> dict[Key, PairedTest]:
    by_direction: dict[str, list[Key]] = {}
    for key, (sample, _) in pairs.items():
        by_direction.setdefault(sample.direction, []).append(key)
    tests: dict[Key, PairedTest] = {}
    for keys in by_direction.values():
        # All at once: drawing 10,000 permutations of 15,000 clips costs far more than using them.
        arrays = [(pairs[key][0].values, pairs[key][1].values) for key in keys]
        tests |= zip(keys, paired_tests(arrays, pairs[keys[0]][0].clips), strict=True)
    return tests


OVER_QUERIES = Statistic[QueryValues](
    interval=lambda sample: mean_interval(sample.values, sample.clips),
    tests=_permutation_tests,
)


def compare_recall(cells: Sequence[Cell], baseline: int | None) -> Comparison:
    """Compares cells on the queries that they have in common: those of one split of one store.

    Args:
        cells: finished or not.
        baseline: the number of the cell that others are tested against; None where there is none.
    """
    samples: dict[Key, QueryValues] = {}
    columns: dict[str, None] = {}  # as an ordered set
    for row, cell in enumerate(cells):
        for direction, queries in cell.directions.items():
            for metric in table_metrics():
                column = heading(direction, metric.title)
                columns[column] = None
                values = queries.values(metric)
                samples[row, column] = QueryValues(direction, values, queries.clips)
    baselines = {} if baseline is None else dict.fromkeys(range(len(cells)), baseline)
    return compare(samples, list(columns), OVER_QUERIES, baselines)


def heading(direction: str, title: str) -> str:
    """``text->audio R@5``."""
    return f"{direction.replace('_to_', '->')} {title}"


def sweep_table(sweep: LoggedSweep, kind: str, against: str | None = None) -> Table:
    """A table of one sweep, finished or not.

    Args:
        sweep: as MLflow has it.
        kind: ablation, methods or axes.
        against: the row that others are tested against; default the frozen embeddings.

    Raises:
        UserError: where there is no such row.
    """
    trials = sweep.trials
    if sweep.spec["search"]:  # only its winners were scored on test
        trials = tuple(trial for trial in trials if trial.final)
    cells = read_cells(sweep, trials)
    key = _key(kind, sweep)
    title = f"{TITLES[key]} on {setting_of(sweep)}: R@K in % (sweep {sweep.name})"
    table = _recall_table(f"{key}-{sweep.name}", title, cells, cell_names(cells, kind), against)
    if kind == "methods":
        table = _with_facts(table, cells)
    return replace(table, notes=(*table.notes, *sweep.notes), brief=(*table.brief, *sweep.notes))


def _sweep_tables(
    kind: str, sweep: LoggedSweep, references: Sequence[Reference], against: str | None
) -> list[Table]:
    """`sweep_table` as the registry of tables calls it; nothing published is comparable."""
    return [sweep_table(sweep, kind, against)]


ablation_tables = partial(_sweep_tables, "ablation")
methods_tables = partial(_sweep_tables, "methods")
axes_tables = partial(_sweep_tables, "axes")


def retrieval_table(
    sweeps: Sequence[LoggedSweep],
    setting: Setting,
    references: Sequence[Reference],
) -> Table:
    """Every method of some sweeps on one split of one corpus, and the published rows apart.

    Args:
        sweeps: of that setting, all of them.
        setting: task, corpus and split.
        references: published rows, of any task and corpus.
    """
    cells = merged(sweeps)
    title = f"{setting.task} retrieval on {setting}: R@K in %"
    table = _recall_table(
        f"retrieval-{setting.slug}", title, cells, cell_names(cells, "ablation"), None
    )
    candidates = references_for(references, setting.retrieval, setting.dataset)
    published, sources = published_rows(candidates, table.headings, ".1f")
    return replace(table, rows=(*table.rows, *published), sources=sources)


def _recall_table(
    key: str, title: str, cells: Sequence[Cell], names: Sequence[str], against: str | None
) -> Table:
    baseline = _baseline(cells, names, against)
    comparison = compare_recall(cells, baseline)
    rows = comparison.rows(cells, names, dict.fromkeys(comparison.columns, 1))
    notes, brief = [MARKS_NOTE], f"{BRIEF_MARKS}; no frozen baseline to test against."
    if not comparison.estimates:
        notes, brief = [UNFINISHED], UNFINISHED
    elif baseline is None:
        notes.append(NO_BASELINE)
    else:
        notes += _verdicts(comparison, names, baseline)
        brief = f"{BRIEF_MARKS}; *: differs from {names[baseline]} (p < 0.05)."
    return Table(key, title, comparison.columns, tuple(rows), tuple(notes), brief=(brief,))


def _key(kind: str, sweep: LoggedSweep) -> str:
    """What a table of axes is about."""
    if kind != "axes" or sweep.spec["search"]:
        return kind
    axes = tuple(sweep.spec["axes"])
    if any(name.startswith("score.") for name in axes):
        return "scores"
    return "schedules" if "cdm.schedule" in axes else kind


def _baseline(cells: Sequence[Cell], names: Sequence[str], against: str | None) -> int | None:
    """The number of the cell that others are tested against, if it has results."""
    if against is not None and against not in names:
        raise UserError(f"--against: no row {against!r}; {nearest(against, names)}")
    for row, (cell, name) in enumerate(zip(cells, names, strict=True)):
        if name == against or (against is None and cell.trial.method == "none"):
            return row if cell.seeds else None
    return None


def _with_facts(table: Table, cells: Sequence[Cell]) -> Table:
    """A table with the columns of `FACTS` behind its own, and their note behind the first."""
    rows = []
    for row, cell in zip(table.rows, cells, strict=True):
        facts = [_mean_value(cell.metric(metric)) for metric in FACTS.values()]
        rows.append(replace(row, values=(*row.values, *facts)))
    notes = (table.notes[0], GAP_NOTE, *table.notes[1:])
    return replace(table, headings=(*table.headings, *FACTS), rows=tuple(rows), notes=notes)


def _mean_value(numbers: list[float]) -> Value:
    if not numbers:
        return NOTHING
    value = mean(numbers)
    text = f"{value:.0f}" if abs(value) >= 10 else f"{value:.3f}".rstrip("0").rstrip(".")
    return Value(text, value)


def _verdicts(comparison: Comparison, names: Sequence[str], baseline: int) -> list[str]:
    """What the star means, and every row's difference from the baseline at R@5."""
    base = names[baseline]
    notes = [
        f"* differs from {base}: p < 0.05, paired permutation test over queries of the trained "
        "seeds (it says nothing of other seeds), Holm-corrected over the table."
    ]
    for row, name in enumerate(names):
        differences, stars = [], 0
        for column in comparison.columns:
            estimate = comparison.estimates.get((row, column))
            if estimate is None or estimate.test is None:
                continue
            stars += estimate.significant
            if column.endswith(f" {METRICS['R5'].title}"):
                difference, p = estimate.test.difference, p_text(estimate.test.p)
                differences.append(f"{column} {difference:+.1f} points (p {p})")
        if differences:
            counted = f"{stars} of {len(comparison.columns)} figures differ"
            notes.append(f"{name} against {base}: {', '.join(differences)}; {counted}.")
    return notes

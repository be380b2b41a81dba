"""Tables of generated sound: what each embedding makes, at each setting of the generator."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq

from diffgap.bridge.registry import METHODS
from diffgap.errors import UserError, nearest
from diffgap.evaluation.metrics import AUDIO_METRICS
from diffgap.evaluation.statistics import PairedTest, replicate_interval, replicate_test
from diffgap.ledger.artifacts import REPLICATES
from diffgap.report.references import Reference, references_for
from diffgap.report.results import Cell, Setting, read_cells, setting_of, unique_names
from diffgap.report.tables.compare import (
    SIGNIFICANT,
    UNFINISHED,
    Comparison,
    Key,
    Statistic,
    compare,
    half_width,
    p_text,
    published_rows,
)
from diffgap.report.tables.table import Table
from diffgap.store.schema import split_task
from diffgap.tracking.reader import LoggedSweep

LOWER_IS_BETTER = tuple(name for name, metric in AUDIO_METRICS.items() if metric.lower_is_better)

PUBLISHED = {"similarity": "CLAP"}
"""What references call a metric, where it is another name."""

NUMBERS = {"video-audio": "Table I. Video-to-audio", "text-audio": "Table II. Text-to-audio"}
"""The paper's tables of generation, by task."""

CONDITIONS = ("query", "bridged", "target")
"""Rows of one setting: the query's own embedding, the bridge's, and the ceiling."""

MEANING_NOTE = (
    "FAD, FD and KL: less is better; IS, similarity, fidelity and AlignAcc (%): more. Similarity "
    "is the mean cosine of the sound with the query (of CLAP: the CLAP score), which favours the "
    "query's own embedding, and fidelity that with the real sound, both by the store's encoder. "
    "Figures can be compared only where extractor and number of clips are the same."
)
MARKS_NOTE = (
    "Mean over seeds ± half of the 95 % interval over clips (200 bootstrap replicates) and seeds. "
    "Bold: best of its column but for the ceiling; underlined: not significantly different from it."
)
BRIEF_MARKS = (
    "± half the 95 % interval. Bold: best but for the ceiling; underlined: not significantly worse."
)

Replicated = tuple[np.ndarray, np.ndarray]
"""(S,) figures of the seeds, and (S, B) bootstrap replicates of them."""


def _replicate_tests(
    pairs: Mapping[Key, tuple[Replicated, Replicated]],
) -> dict[Key, PairedTest]:
    return {key: replicate_test(sample, rival) for key, (sample, rival) in pairs.items()}


OVER_CLIPS = Statistic[Replicated](
    interval=lambda sample: replicate_interval(*sample),
    tests=_replicate_tests,
    best_by_column=True,  # each column is a metric of its own, not one metric at other cutoffs
)


def replicated_metrics(cell: Cell) -> dict[str, Replicated]:
    """What all seeds of a cell made of the same clips, by metric; empty where none counts."""
    # Column by column the same draw of clips, for all seeds and cells: tests pair by it.
    tables = [pq.read_table(trial.files / REPLICATES) for trial in cell.finished if trial.files]
    samples = {}
    for metric in AUDIO_METRICS:
        values = cell.metric(f"{cell.trial.split}/generation/{metric}")
        if values:
            replicates = np.stack([table[metric].to_numpy() for table in tables])
            samples[metric] = np.array(values), replicates
    return samples


def generation_tables(
    sweep: LoggedSweep, references: Sequence[Reference], against: str | None = None
) -> list[Table]:
    """A table for each task of a sweep of generation, finished or not.

    Args:
        sweep: as MLflow has it.
        references: published rows, of any task and corpus.
        against: the row that others are tested against; default, at each setting of the generator,
            what the query's own embedding makes.

    Raises:
        UserError: where no table has such a row.
    """
    by_task = cells_by_task(read_cells(sweep))
    if against is not None:
        names: dict[str, None] = {}  # as an ordered set: tasks may have rows of one name
        for cells in by_task.values():
            names |= dict.fromkeys(row_names(cells))
        if against not in names:
            raise UserError(f"--against: no row {against!r}; {nearest(against, names)}")
    tables = []
    for task, cells in by_task.items():
        setting = replace(setting_of(sweep), task=task)
        tables.append(_table(sweep, setting, cells, references, against))
    return tables


def cells_by_task(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """Cells by their tasks; of one task by the generator's setting, then as in `CONDITIONS`."""
    by_task: dict[str, list[Cell]] = {}
    for cell in cells:
        by_task.setdefault(cell.trial.task, []).append(cell)
    for group in by_task.values():
        group.sort(key=lambda cell: (*_setting(cell), CONDITIONS.index(_condition(cell))))
    return by_task


def _setting(cell: Cell) -> tuple[float, int]:
    """Guidance and steps of the generator."""
    return cell.trial.generation.guidance, cell.trial.generation.steps


def _condition(cell: Cell) -> str:
    return cell.trial.generation.condition


def row_names(cells: Sequence[Cell]) -> list[str]:
    """What a table calls its cells; by their axes too where that alone does not tell them apart."""
    return unique_names(list(map(_name, cells)), cells)


def _name(cell: Cell) -> str:
    x, a = split_task(cell.trial.task)
    score = cell.trial.score
    estimate = f"{score.samples} samples" if score.kind == "sample" else "mean"
    names = {
        "query": f"{x} embedding",
        "bridged": f"{METHODS[cell.trial.method].title} ({estimate})",
        "target": f"{a} embedding (ceiling)",
    }
    guidance, steps = _setting(cell)
    return f"{names[_condition(cell)]}, guidance {guidance:g}, {steps} steps"


def _table(
    sweep: LoggedSweep,
    setting: Setting,
    cells: Sequence[Cell],
    references: Sequence[Reference],
    against: str | None,
) -> Table:
    names = row_names(cells)
    comparison = _compare(cells, _baselines(cells, names, against))
    rows = comparison.rows(cells, names, _decimals(comparison))
    x, a = split_task(setting.task)
    candidates = references_for(references, f"{x}-to-{a}", setting.dataset)
    metrics = [PUBLISHED.get(column, column) for column in comparison.columns]
    published, sources = published_rows(candidates, metrics, "g")
    title = NUMBERS.get(setting.task, f"Generation, {setting.task}")
    notes, brief = _notes(comparison, cells, names, against)
    return Table(
        f"generation-{setting.slug}",
        f"{title} generation on {setting} (sweep {sweep.name})",
        comparison.columns,
        (*rows, *published),
        (*notes, *sweep.notes),
        sources,
        (brief[0], *sweep.notes, *brief[1:]),
    )


def _compare(cells: Sequence[Cell], baselines: Mapping[int, int]) -> Comparison:
    samples: dict[Key, Replicated] = {}
    measured: set[str] = set()
    ceilings: set[int] = set()
    for row, cell in enumerate(cells):
        for metric, sample in replicated_metrics(cell).items():
            samples[row, metric] = sample
            measured.add(metric)
        if _condition(cell) == "target":
            ceilings.add(row)
    columns = [metric for metric in AUDIO_METRICS if metric in measured]
    return compare(
        samples,
        columns or list(AUDIO_METRICS),
        OVER_CLIPS,
        baselines,
        lower_is_better=LOWER_IS_BETTER,
        ceilings=ceilings,
    )


def _baselines(cells: Sequence[Cell], names: Sequence[str], against: str | None) -> dict[int, int]:
    """The first finished row that each row is tested against, where there is one."""
    baselines: dict[int, int] = {}
    for row, cell in enumerate(cells):
        for number, baseline in enumerate(cells):
            if against is not None:
                matches = names[number] == against
            else:
                # The generator's setting alone changes every figure, bridge or no bridge.
                matches = _condition(baseline) == "query" and _setting(baseline) == _setting(cell)
            if matches and number != row and baseline.seeds:
                baselines.setdefault(row, number)
    return baselines


def _decimals(comparison: Comparison) -> dict[str, int]:
    """By column, as many as show two digits of its narrowest interval."""
    narrowest: dict[str, float] = {}
    for (_, column), estimate in comparison.estimates.items():
        width = half_width(estimate.interval)
        if width > 0:  # a figure without any spread says nothing of the column's scale
            narrowest[column] = min(width, narrowest.get(column, width))
    decimals = {}
    for column in comparison.columns:
        digits = 1 - math.floor(math.log10(narrowest.get(column, 1.0)))
        decimals[column] = min(4, max(0, digits))
    return decimals


def _notes(
    comparison: Comparison, cells: Sequence[Cell], names: Sequence[str], against: str | None
) -> tuple[list[str], list[str]]:
    """The notes in full and in short: marks, measurement, and what the bridge gains."""
    if not comparison.estimates:
        return [UNFINISHED], [UNFINISHED]
    notes = [MARKS_NOTE, MEANING_NOTE, _measurement_note(cells)]
    if not comparison.is_tested:
        return notes, [BRIEF_MARKS]
    base = against or "the query's own embedding"
    notes.append(
        f"* differs from {base}{'' if against else ' at the same setting'}: p < 0.05, bootstrap "
        "over clips of the trained seeds, Holm-corrected over the table."
    )
    verdicts, undecided = _verdicts(comparison, cells, names, base)
    notes += verdicts
    brief = f"*: differs from {base}, p < 0.05"
    if undecided:
        metrics = " or ".join(undecided)
        brief += f"; no bridge is significantly better in {metrics}"
        notes.append(
            f"No bridge is significantly better than {base} in {metrics}. What was "
            "tried on the embedded corpus: docs/generation.md."
        )
    return notes, [BRIEF_MARKS, f"{brief}."]


def _measurement_note(cells: Sequence[Cell]) -> str:
    """The generators, the numbers of clips and the extractors behind the figures."""
    generators, clips, extractors = set(), set(), set()
    for cell in cells:
        for trial in cell.finished:
            facts = trial.config["generation"]
            generators.add(facts["generator"]["name"])
            clips.add(str(facts["clips"]))
            for metric, name in facts["extractors"].items():
                extractors.add(f"{metric} by {name}")
    return (
        f"Generator {' and '.join(sorted(generators))}, {' and '.join(sorted(clips))} clips; "
        f"{', '.join(sorted(extractors))}."
    )


def _verdicts(
    comparison: Comparison, cells: Sequence[Cell], names: Sequence[str], base: str
) -> tuple[list[str], list[str]]:
    """What each bridge gains in the distances, and those in which none gains significantly."""
    notes: list[str] = []
    gained: dict[str, bool] = {}
    for row, (cell, name) in enumerate(zip(cells, names, strict=True)):
        differences, better = [], []
        for metric in LOWER_IS_BETTER:
            estimate = comparison.estimates.get((row, metric))
            if estimate is None or estimate.test is None:
                continue
            gained.setdefault(metric, False)
            difference, p = estimate.test.difference, estimate.test.p
            differences.append(f"{metric} {difference:+.3g} (p {p_text(p)})")
            if difference < 0 and p < SIGNIFICANT:
                better.append(metric)
        if differences and _condition(cell) == "bridged":
            gained |= dict.fromkeys(better, True)
            gains = ", ".join(better) or "none of them"
            notes.append(f"{name}, against {base}: {', '.join(differences)}: better in {gains}.")
    return notes, [metric for metric, is_gained in gained.items() if not is_gained]

"""Tables of generated sound: what each embedding makes, at each setting of the generator."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow.parquet as pq

from diffgap.bridge.registry import METHODS
from diffgap.errors import UserError, nearest
from diffgap.evaluation.statistics import replicate_interval, replicate_test
from diffgap.ledger.artifacts import REPLICATES
from diffgap.report.references import Reference, references_for
from diffgap.report.results import Cell, Setting, read_cells, setting_of, unique_names
from diffgap.report.tables.compare import (
    SIGNIFICANT,
    UNFINISHED,
    Comparison,
    Statistic,
    compare,
    half_width,
    p_text,
    published_rows,
)
from diffgap.report.tables.table import Table
from diffgap.spec import Trial
from diffgap.store.schema import split_task
from diffgap.tracking.reader import LoggedSweep

LOWER_IS_BETTER = ("FAD", "FD", "KL")

GENERATION_METRICS = (*LOWER_IS_BETTER, "IS", "similarity", "fidelity", "AlignAcc")
"""In the order of the columns."""

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

OVER_CLIPS = Statistic[Replicated](
    interval=lambda sample: replicate_interval(*sample),
    tests=lambda pairs: [replicate_test(a, b) for a, b in pairs],
    best_by_column=True,  # each column is a metric of its own, not the same one at other cutoffs
)


@dataclass(frozen=True)
class GenerationCell:
    """One cell's figures: what all its seeds made of the same clips."""

    cell: Cell

    @cached_property
    def trial(self) -> Trial:
        return self.cell.trial

    @property
    def setting(self) -> tuple[float, int]:
        """Guidance and steps of the generator."""
        return self.trial.generation.guidance, self.trial.generation.steps

    @property
    def condition(self) -> str:
        """What the generator was given; see `CONDITIONS`."""
        return self.trial.generation.condition

    @cached_property
    def values(self) -> dict[str, np.ndarray]:
        """(S,) figures of the seeds, by metric."""
        values = {}
        for metric in GENERATION_METRICS:
            numbers = self.cell.metric(f"{self.trial.split}/generation/{metric}")
            if numbers:
                values[metric] = np.array(numbers)
        return values

    @cached_property
    def replicates(self) -> dict[str, np.ndarray]:
        """(S, B) bootstrap replicates of them."""
        tables = [pq.read_table(t.files / REPLICATES) for t in self.cell.finished if t.files]
        replicates = {}
        for metric in self.values:
            replicates[metric] = np.stack([table[metric].to_numpy() for table in tables])
        return replicates


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


def cells_by_task(cells: Iterable[Cell]) -> dict[str, list[GenerationCell]]:
    """Cells by their tasks; of one task by the generator's setting, then as in `CONDITIONS`."""
    by_task: dict[str, list[GenerationCell]] = {}
    for cell in cells:
        by_task.setdefault(cell.trial.task, []).append(GenerationCell(cell))
    for group in by_task.values():
        group.sort(key=lambda cell: (*cell.setting, CONDITIONS.index(cell.condition)))
    return by_task


def row_names(cells: Sequence[GenerationCell]) -> list[str]:
    """What a table calls its cells; by their axes too where that alone does not tell them apart."""
    return unique_names([_name(cell) for cell in cells], [cell.cell for cell in cells])


def _name(cell: GenerationCell) -> str:
    x, a = split_task(cell.trial.task)
    score = cell.trial.score
    estimate = f"{score.samples} samples" if score.kind == "sample" else "mean"
    names = {
        "query": f"{x} embedding",
        "bridged": f"{METHODS[cell.trial.method].title} ({estimate})",
        "target": f"{a} embedding (ceiling)",
    }
    guidance, steps = cell.setting
    return f"{names[cell.condition]}, guidance {guidance:g}, {steps} steps"


def _table(
    sweep: LoggedSweep,
    setting: Setting,
    cells: Sequence[GenerationCell],
    references: Sequence[Reference],
    against: str | None,
) -> Table:
    names = row_names(cells)
    comparison = _compare(cells, _baselines(cells, names, against))
    columns = comparison.columns
    decimals = {column: _decimals(comparison, column) for column in columns}
    rows = comparison.rows([cell.cell for cell in cells], names, decimals)
    x, a = split_task(setting.task)
    candidates = references_for(references, f"{x}-to-{a}", setting.dataset)
    metrics = [PUBLISHED.get(column, column) for column in columns]
    published, sources = published_rows(candidates, metrics, "g")
    title = NUMBERS.get(setting.task, f"Generation, {setting.task}")
    notes, brief = _notes(comparison, cells, names, against)
    return Table(
        f"generation-{setting.slug}",
        f"{title} generation on {setting} (sweep {sweep.name})",
        columns,
        (*rows, *published),
        (*notes, *sweep.notes),
        tuple(_source(reference) for reference in sources),
        (brief[0], *sweep.notes, *brief[1:]),
    )


def _source(reference: Reference) -> str:
    source = f"{reference.source} ({reference.seen})"
    extractors = [f"{metric} by {name}" for metric, name in reference.extractor.items()]
    return f"{source}; {', '.join(extractors)}" if extractors else source


def _compare(cells: Sequence[GenerationCell], baselines: dict[int, int]) -> Comparison:
    samples: dict[tuple[int, str], Replicated] = {}
    for row, cell in enumerate(cells):
        for metric, values in cell.values.items():
            samples[row, metric] = values, cell.replicates[metric]
    measured = {metric for _, metric in samples}
    columns = [metric for metric in GENERATION_METRICS if metric in measured]
    return compare(
        samples,
        columns or GENERATION_METRICS,
        OVER_CLIPS,
        baselines,
        lower_is_better=LOWER_IS_BETTER,
        ceilings=[row for row, cell in enumerate(cells) if cell.condition == "target"],
    )


def _baselines(
    cells: Sequence[GenerationCell], names: Sequence[str], against: str | None
) -> dict[int, int]:
    """The finished row that each row is tested against, where there is one."""
    baselines: dict[int, int] = {}
    for row, cell in enumerate(cells):
        for candidate, other in enumerate(cells):
            if against is not None:
                matches = names[candidate] == against
            else:
                matches = other.condition == "query" and other.setting == cell.setting
            if matches and candidate != row and other.values:
                baselines.setdefault(row, candidate)
    return baselines


def _decimals(comparison: Comparison, column: str) -> int:
    """As many as show two digits of a column's narrowest interval."""
    widths = []
    for (_, heading), estimate in comparison.estimates.items():
        if heading == column and half_width(estimate.interval) > 0:
            widths.append(half_width(estimate.interval))
    narrowest = min(widths, default=1.0)
    return min(4, max(0, 1 - math.floor(math.log10(narrowest))))


def _notes(
    comparison: Comparison,
    cells: Sequence[GenerationCell],
    names: Sequence[str],
    against: str | None,
) -> tuple[list[str], list[str]]:
    """The notes in full and in short: marks, measurement, and what the bridge gains."""
    if not comparison.estimates:
        return [UNFINISHED], [UNFINISHED]
    notes = [MARKS_NOTE, MEANING_NOTE, _measurement_note(cells)]
    if all(estimate.test is None for estimate in comparison.estimates.values()):
        return notes, [BRIEF_MARKS]
    base = against or "the query's own embedding"
    notes.append(
        f"* differs from {base}{'' if against else ' at the same setting'}: p < 0.05, bootstrap "
        "over clips of the trained seeds, Holm-corrected over the table."
    )
    brief = f"*: differs from {base}, p < 0.05"
    verdicts, undecided = _verdicts(comparison, cells, names, base)
    notes += verdicts
    if undecided:
        brief += f"; no bridge is significantly better in {' or '.join(undecided)}"
        notes.append(
            f"No bridge is significantly better than {base} in {' or '.join(undecided)}. What was "
            "tried on the embedded corpus: docs/generation.md."
        )
    return notes, [BRIEF_MARKS, f"{brief}."]


def _measurement_note(cells: Sequence[GenerationCell]) -> str:
    """The generators, the numbers of clips and the extractors behind the figures."""
    generators, clips, extractors = set(), set(), set()
    for cell in cells:
        for trial in cell.cell.finished:
            facts = trial.config["generation"]
            generators.add(facts["generator"]["name"])
            clips.add(str(facts["clips"]))
            extractors |= {f"{metric} by {name}" for metric, name in facts["extractors"].items()}
    return (
        f"Generator {' and '.join(sorted(generators))}, {' and '.join(sorted(clips))} clips; "
        f"{', '.join(sorted(extractors))}."
    )


def _verdicts(
    comparison: Comparison, cells: Sequence[GenerationCell], names: Sequence[str], base: str
) -> tuple[list[str], list[str]]:
    """What each bridge gains in the distances, and in which of them none gains significantly."""
    notes, tested, better = [], set(), set()
    for row, (cell, name) in enumerate(zip(cells, names, strict=True)):
        differences, gains = [], []
        for metric in LOWER_IS_BETTER:
            estimate = comparison.estimates.get((row, metric))
            if estimate is None or estimate.test is None:
                continue
            tested.add(metric)
            difference, p = estimate.test.difference, estimate.test.p
            differences.append(f"{metric} {difference:+.3g} (p {p_text(p)})")
            if difference < 0 and p < SIGNIFICANT:
                gains.append(metric)
        if cell.condition == "bridged" and differences:
            better.update(gains)
            gained = ", ".join(gains) or "none of them"
            notes.append(f"{name}, against {base}: {', '.join(differences)}: better in {gained}.")
    undecided = [m for m in LOWER_IS_BETTER if m in tested and m not in better]
    return notes, undecided

"""Tables of generated sound: what each embedding makes, at each setting of the generator."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow.parquet as pq

from diffgap.bridge.registry import METHODS
from diffgap.errors import UserError, nearest
from diffgap.evaluation.statistics import (
    Interval,
    PairedTest,
    holm,
    replicate_interval,
    replicate_test,
)
from diffgap.ledger.artifacts import REPLICATES
from diffgap.report.references import Reference, references_for
from diffgap.report.results import Cell, Setting, read_cells, setting_of
from diffgap.report.tables.table import NOTHING, Row, Table, Value
from diffgap.spec import Trial
from diffgap.store.schema import split_task
from diffgap.tracking.reader import LoggedSweep

SIGNIFICANT = 0.05

BETTER = {"FAD": -1, "FD": -1, "KL": -1, "IS": 1, "similarity": 1, "fidelity": 1, "AlignAcc": 1}
"""The metrics in the order of the columns, and whether more of each is better."""

PUBLISHED = {"similarity": "CLAP"}
"""What references call a metric, where it is another name."""

NUMBERS = {"video-audio": "Table I. Video-to-audio", "text-audio": "Table II. Text-to-audio"}
"""The paper's tables of generation, by task."""

MEANING = (
    "FAD, FD and KL: less is better; IS, similarity, fidelity and AlignAcc (%): more. Similarity "
    "is the mean cosine of the sound with the query (of CLAP: the CLAP score), which favours the "
    "query's own embedding, and fidelity that with the real sound, both by the store's encoder. "
    "Figures can be compared only where extractor and number of clips are the same."
)
INTERVALS = (
    "Mean over seeds ± half of the 95 % interval over clips (200 bootstrap replicates) and seeds. "
    "Bold: best of its column but for the ceiling; underlined: not significantly different from it."
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

    @cached_property
    def values(self) -> dict[str, np.ndarray]:
        """(S,) figures of the seeds, by metric."""
        place = f"{self.trial.split}/generation"
        found = {name: np.array(self.cell.metric(f"{place}/{name}")) for name in BETTER}
        return {name: values for name, values in found.items() if len(values)}

    @cached_property
    def replicates(self) -> dict[str, np.ndarray]:
        """(S, B) bootstrap replicates of them."""
        tables = [pq.read_table(t.files / REPLICATES) for t in self.cell.finished if t.files]
        return {
            name: np.stack([table[name].to_numpy() for table in tables]) for name in self.values
        }

    def interval(self, metric: str) -> Interval:
        return replicate_interval(self.values[metric], self.replicates[metric])

    def test(self, other: GenerationCell, metric: str) -> PairedTest:
        """Of this against another, on the same clips."""
        return replicate_test(
            (self.values[metric], self.replicates[metric]),
            (other.values[metric], other.replicates[metric]),
        )


def generation_tables(
    sweep: LoggedSweep, references: Sequence[Reference], against: str | None = None
) -> list[Table]:
    """A table for each task of a sweep of generation, finished or not.

    Args:
        sweep: as MLflow has it.
        references: published rows, of whatever.
        against: the row that others are tested against; default, at each setting of the generator,
            what the query's own embedding makes.

    Raises:
        UserError: where no table has such a row.
    """
    by_task: dict[str, list[GenerationCell]] = {}
    for cell in read_cells(sweep):
        made = GenerationCell(cell)
        by_task.setdefault(made.trial.task, []).append(made)
    told = dict.fromkeys(name for made in by_task.values() for name in row_names(made))
    if against is not None and against not in told:
        raise UserError(f"--against: no row {against!r}; {nearest(against, told)}")
    return [
        _table(sweep, replace(setting_of(sweep), task=task), ordered(made), references, against)
        for task, made in by_task.items()
    ]


def row_names(cells: Sequence[GenerationCell]) -> list[str]:
    """What a table calls its cells; by their axes too where that alone does not tell them apart."""
    short = [_name(made) for made in cells]
    return [
        name if short.count(name) == 1 else f"{name} ({made.cell.name})"
        for name, made in zip(short, cells, strict=True)
    ]


def _name(made: GenerationCell) -> str:
    x, a = split_task(made.trial.task)
    score = made.trial.score
    way = f"{score.samples} samples" if score.kind == "sample" else "mean"
    names = {
        "query": f"{x} embedding",
        "bridged": f"{METHODS[made.trial.method].title} ({way})",
        "target": f"{a} embedding (ceiling)",
    }
    guidance, steps = made.setting
    return f"{names[made.trial.generation.condition]}, guidance {guidance:g}, {steps} steps"


def ordered(cells: Iterable[GenerationCell]) -> list[GenerationCell]:
    """By the generator's setting; within one, the query's own embedding first, the ceiling last."""
    order = ("query", "bridged", "target")
    return sorted(cells, key=lambda m: (*m.setting, order.index(m.trial.generation.condition)))


def _table(
    sweep: LoggedSweep,
    setting: Setting,
    cells: Sequence[GenerationCell],
    references: Sequence[Reference],
    against: str | None,
) -> Table:
    names = row_names(cells)
    columns = [m for m in BETTER if any(m in made.values for made in cells)] or list(BETTER)
    tests = _tests(cells, columns, [_baseline(cells, i, names, against) for i in range(len(cells))])
    best = {column: _best(cells, column) for column in columns}
    near = _near(cells, columns, best)
    rows = []
    for i, (made, name) in enumerate(zip(cells, names, strict=True)):
        values = tuple(
            _value(made, c, _decimals(cells, c), best[c] == i, (i, c) in near, tests.get((i, c)))
            for c in columns
        )
        cell = made.cell
        rows.append(Row(name, values, cell.signatures, cell.counted, cell.missing_reason))
    published = _published(references, setting, columns)
    task = NUMBERS.get(setting.task, f"Generation, {setting.task}")
    return Table(
        f"generation-{setting.slug}",
        f"{task} generation on {setting} (sweep {sweep.name})",
        tuple(columns),
        (*rows, *(row for row, _ in published)),
        (*_notes(cells), *_verdicts(cells, names, tests, against), *sweep.notes),
        tuple(f"{source.source} ({source.seen}){_extractors(source)}" for _, source in published),
    )


def _baseline(
    cells: Sequence[GenerationCell], place: int, names: Sequence[str], against: str | None
) -> int | None:
    """The place of the finished cell that another is tested against, if there is one."""
    if against is not None:
        found = [i for i, name in enumerate(names) if name == against]
    else:
        found = [
            i
            for i, made in enumerate(cells)
            if made.trial.generation.condition == "query" and made.setting == cells[place].setting
        ]
    return next((i for i in found if i != place and cells[i].values), None)


Tests = Mapping[tuple[int, str], PairedTest]
"""By place of the cell and metric."""


def _tests(
    cells: Sequence[GenerationCell], columns: Sequence[str], against: Sequence[int | None]
) -> dict[tuple[int, str], PairedTest]:
    """Tests of cells against others, Holm-corrected over the table."""
    found = {
        (i, column): made.test(cells[base], column)
        for i, (made, base) in enumerate(zip(cells, against, strict=True))
        if base is not None
        for column in columns
        if column in made.values and column in cells[base].values
    }
    corrected = holm([test.p for test in found.values()])
    return {
        key: replace(test, p=p) for (key, test), p in zip(found.items(), corrected, strict=True)
    }


def _best(cells: Sequence[GenerationCell], column: str) -> int | None:
    """The place of the best cell that is no ceiling."""
    done = [
        i
        for i, made in enumerate(cells)
        if column in made.values and made.trial.generation.condition != "target"
    ]
    sign = BETTER[column]
    return max(done, key=lambda i: sign * cells[i].values[column].mean()) if done else None


def _near(
    cells: Sequence[GenerationCell], columns: Sequence[str], best: Mapping[str, int | None]
) -> set[tuple[int, str]]:
    """Where a cell, no ceiling, is not significantly different from the best of its column."""
    found: set[tuple[int, str]] = set()
    for column in columns:
        top = best[column]
        others = [
            top if i != top and made.trial.generation.condition != "target" else None
            for i, made in enumerate(cells)
        ]
        tests = _tests(cells, [column], others)
        found |= {key for key, test in tests.items() if test.p >= SIGNIFICANT}
    return found


def _decimals(cells: Sequence[GenerationCell], column: str) -> int:
    """So many that the narrowest interval of a column shows two digits."""
    halves = [_half(made.interval(column)) for made in cells if column in made.values]
    least = min((half for half in halves if half > 0), default=1.0)
    return min(4, max(0, 1 - math.floor(math.log10(least))))


def _half(interval: Interval) -> float:
    return (interval.high - interval.low) / 2


def _value(
    made: GenerationCell,
    column: str,
    decimals: int,
    best: bool,
    near: bool,
    test: PairedTest | None,
) -> Value:
    if column not in made.values:
        return NOTHING
    interval = made.interval(column)
    text = f"{interval.mean:.{decimals}f} ± {_half(interval):.{decimals}f}"
    return Value(text, interval.mean, best, near, test is not None and test.p < SIGNIFICANT)


def _published(
    references: Sequence[Reference], setting: Setting, columns: Sequence[str]
) -> list[tuple[Row, Reference]]:
    x, a = split_task(setting.task)
    keys = [PUBLISHED.get(column, column) for column in columns]
    found = references_for(references, f"{x}-to-{a}", setting.dataset)
    shown = [reference for reference in found if set(reference.metrics) & set(keys)]
    rows = []
    for number, reference in enumerate(shown, 1):
        figures = [reference.metrics.get(key) for key in keys]
        values = tuple(NOTHING if f is None else Value(f"{f:g}", f) for f in figures)
        rows.append((Row(reference.method, values, footnote=number), reference))
    return rows


def _extractors(reference: Reference) -> str:
    named = ", ".join(f"{metric} by {name}" for metric, name in reference.extractor.items())
    return f"; {named}" if named else ""


def _notes(cells: Sequence[GenerationCell]) -> tuple[str, ...]:
    """What the figures mean, and what they were measured with."""
    done = [trial for made in cells for trial in made.cell.finished]
    if not done:
        return ("No trial is finished yet.",)
    facts = [trial.config["generation"] for trial in done]
    by = sorted({f"{m} by {e}" for fact in facts for m, e in fact["extractors"].items()})
    generators = sorted({fact["generator"]["name"] for fact in facts})
    clips = sorted({str(fact["clips"]) for fact in facts})
    return (
        INTERVALS,
        MEANING,
        f"Generator {' and '.join(generators)}, {' and '.join(clips)} clips; {', '.join(by)}.",
    )


def _verdicts(
    cells: Sequence[GenerationCell], names: Sequence[str], tests: Tests, against: str | None
) -> Iterable[str]:
    """What the bridge gains at every setting, and whether that holds."""
    if not tests:
        return
    base = against or "the query's own embedding"
    yield (
        f"* differs from {base}{'' if against else ' at the same setting'}: p < 0.05, bootstrap "
        "over clips of the trained seeds, Holm-corrected over the table."
    )
    wanted = [m for m in ("FAD", "FD", "KL") if any(m == metric for _, metric in tests)]
    better: set[str] = set()
    for i, name in enumerate(names):
        found = {c: tests[i, c] for c in wanted if (i, c) in tests}
        if cells[i].trial.generation.condition != "bridged" or not found:
            continue
        parts = [f"{c} {test.difference:+.3g} (p {_p(test.p)})" for c, test in found.items()]
        won = [c for c, test in found.items() if test.difference < 0 and test.p < SIGNIFICANT]
        better.update(won)
        yield (
            f"{name}, against {base}: {', '.join(parts)}: better in "
            f"{', '.join(won) if won else 'none of them'}."
        )
    if undecided := [metric for metric in wanted if metric not in better]:
        yield (
            f"No bridge is significantly better than {base} in {' or '.join(undecided)}. What was "
            "tried on the embedded corpus: docs/generation.md."
        )


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"

"""Comparison of a table's rows: intervals, the best of each column, tests against a baseline."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from diffgap.evaluation.statistics import Interval, PairedTest, holm
from diffgap.report.references import Reference
from diffgap.report.results import Cell
from diffgap.report.tables.table import NOTHING, Row, Value

SIGNIFICANT = 0.05

UNFINISHED = "No trial is finished yet."

Sample = TypeVar("Sample")

Key = tuple[int, str]
"""The number of a row, and the heading of a column."""


@dataclass(frozen=True)
class Statistic(Generic[Sample]):
    """How samples of one kind are summarised and tested.

    Attributes:
        interval: the mean of a sample with its 95 % interval.
        tests: paired tests of many pairs of samples at once, by the keys of the pairs.
        best_by_column: whether tests against the best of a column are Holm-corrected within the
            column; else over the table, as those against the baseline are.
    """

    interval: Callable[[Sample], Interval]
    tests: Callable[[Mapping[Key, tuple[Sample, Sample]]], dict[Key, PairedTest]]
    best_by_column: bool = False


@dataclass(frozen=True)
class Estimate:
    """One figure.

    Attributes:
        interval: its mean, and where it may lie.
        best: whether it is the best of its column.
        near: whether it is not the best, and not significantly different from it.
        test: against the baseline, Holm-corrected over the table; None for the baseline itself.
    """

    interval: Interval
    best: bool
    near: bool
    test: PairedTest | None

    @property
    def significant(self) -> bool:
        return self.test is not None and self.test.p < SIGNIFICANT

    def value(self, decimals: int) -> Value:
        """The figure as a table shows it."""
        text = f"{self.interval.mean:.{decimals}f} ± {half_width(self.interval):.{decimals}f}"
        return Value(text, self.interval.mean, self.best, self.near, self.significant)


@dataclass(frozen=True)
class Comparison:
    """The figures of a table; rows without results have none."""

    columns: tuple[str, ...]
    estimates: dict[Key, Estimate]

    @property
    def is_tested(self) -> bool:
        """Whether any figure is tested against a baseline."""
        return any(estimate.test for estimate in self.estimates.values())

    def rows(
        self, cells: Sequence[Cell], names: Sequence[str], decimals: Mapping[str, int]
    ) -> list[Row]:
        """A row a cell.

        Args:
            cells: in the order of the rows.
            names: of the cells.
            decimals: of the figures of each column.
        """
        rows = []
        for number, (cell, name) in enumerate(zip(cells, names, strict=True)):
            values = []
            for column in self.columns:
                estimate = self.estimates.get((number, column))
                values.append(estimate.value(decimals[column]) if estimate else NOTHING)
            runs = cell.signatures
            rows.append(Row(name, tuple(values), runs, cell.counted, cell.missing_reason))
        return rows


def compare(
    samples: Mapping[Key, Sample],
    columns: Sequence[str],
    statistic: Statistic[Sample],
    baselines: Mapping[int, int],
    *,
    lower_is_better: Collection[str] = (),
    ceilings: Collection[int] = (),
) -> Comparison:
    """Compares the rows of a table, column by column.

    Args:
        samples: what was measured; nothing of rows without results.
        columns: headings, in order.
        statistic: of these samples.
        baselines: for each row that is tested, the number of the row it is tested against.
        lower_is_better: columns in which the least is the best.
        ceilings: rows that cannot be the best: they show what is possible.
    """
    intervals = {key: statistic.interval(sample) for key, sample in samples.items()}
    best = _best_rows(intervals, lower_is_better, ceilings)
    baseline_pairs: dict[Key, Key] = {}
    best_pairs: dict[Key, Key] = {}
    for row, column in samples:
        baseline = baselines.get(row, row)
        if baseline != row and (baseline, column) in samples:
            baseline_pairs[row, column] = baseline, column
        if row not in ceilings and best[column] != row:
            best_pairs[row, column] = best[column], column
    baseline_tests = _corrected_tests(samples, baseline_pairs, statistic)
    best_tests = _best_tests(samples, best_pairs, statistic)
    estimates = {}
    for key, interval in intervals.items():
        row, column = key
        # Rows that tie with the best are all of them best.
        is_best = row not in ceilings and interval.mean == intervals[best[column], column].mean
        near = not is_best and key in best_tests and best_tests[key].p >= SIGNIFICANT
        estimates[key] = Estimate(interval, is_best, near, baseline_tests.get(key))
    return Comparison(tuple(columns), estimates)


def _best_rows(
    intervals: Mapping[Key, Interval], lower_is_better: Collection[str], ceilings: Collection[int]
) -> dict[str, int]:
    """The first of the best rows of each column."""
    best: dict[str, int] = {}
    for (row, column), interval in intervals.items():
        if row in ceilings:
            continue
        sign = -1 if column in lower_is_better else 1
        if column not in best or sign * interval.mean > sign * intervals[best[column], column].mean:
            best[column] = row
    return best


def _corrected_tests(
    samples: Mapping[Key, Sample], pairs: Mapping[Key, Key], statistic: Statistic[Sample]
) -> dict[Key, PairedTest]:
    """Tests of each key against its partner, Holm-corrected over all of them."""
    tests = statistic.tests({key: (samples[key], samples[rival]) for key, rival in pairs.items()})
    p_values = holm([test.p for test in tests.values()])
    for key, p in zip(list(tests), p_values, strict=True):
        tests[key] = replace(tests[key], p=p)
    return tests


def _best_tests(
    samples: Mapping[Key, Sample], pairs: Mapping[Key, Key], statistic: Statistic[Sample]
) -> dict[Key, PairedTest]:
    if not statistic.best_by_column:
        return _corrected_tests(samples, pairs, statistic)
    by_column: dict[str, dict[Key, Key]] = {}
    for key, best in pairs.items():
        by_column.setdefault(key[1], {})[key] = best
    tests: dict[Key, PairedTest] = {}
    for column_pairs in by_column.values():
        tests |= _corrected_tests(samples, column_pairs, statistic)
    return tests


def half_width(interval: Interval) -> float:
    return (interval.high - interval.low) / 2


def p_text(p: float) -> str:
    """A p-value behind its p: ``= 0.012``."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def published_rows(
    references: Iterable[Reference], metrics: Sequence[str], number_format: str
) -> tuple[list[Row], tuple[str, ...]]:
    """Published rows that have any of a table's metrics, and where each of them was read.

    Args:
        references: of the table's task and corpus.
        metrics: what references call the metric of each column.
        number_format: of the figures, such as ``.1f``.
    """
    rows: list[Row] = []
    sources: list[str] = []
    for reference in references:
        if not set(reference.metrics) & set(metrics):
            continue
        values = []
        for metric in metrics:
            figure = reference.metrics.get(metric)
            values.append(NOTHING if figure is None else Value(f"{figure:{number_format}}", figure))
        rows.append(Row(reference.method, tuple(values), footnote=len(rows) + 1))
        sources.append(reference.footnote)
    return rows, tuple(sources)

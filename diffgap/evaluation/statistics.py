"""How sure a number is: intervals over queries and seeds, paired tests, and their correction.

Values are (S, Q): one row a seed, one column a query. Queries come in groups - the captions of
one clip - which are resampled and flipped together, for they are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
FLIPS = 10_000
LEVEL = 0.95

BLOCKS = 20
"""Resamples are drawn in this many blocks, to bound memory."""


@dataclass(frozen=True)
class Interval:
    """A mean and where it may lie."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedTest:
    """A difference of means, and how often chance alone makes one as large."""

    difference: float
    p: float


def mean_intervals(
    values: Sequence[np.ndarray], groups: np.ndarray, *, seed: int = 0
) -> list[Interval]:
    """The mean of each array's values with a 95 % bootstrap interval, percentile method.

    Two sources of chance: which queries are asked, and the seed. Groups of queries are resampled
    with replacement (Efron & Tibshirani 1993, ch. 8), all seeds together, for they answer the same
    queries; to each resampled mean a normal draw is added with the variance of a mean over S
    seeds, estimated between the seeds' own means. Resampling the seeds themselves would make the
    interval too narrow: S is 3, and 3 values resampled vary by a third less than they should.

    Args:
        values: (S, Q) each; the number of seeds S may differ, the queries are the same.
        groups: (Q,) int64, the group of each query.
        seed: of the resampling, which all arrays share.
    """
    if not values:
        return []
    rng = np.random.default_rng(seed)
    summed = [_by_group(array.mean(axis=0), groups) for array in values]
    sums, counts = np.stack([sums for sums, _ in summed], axis=1), summed[0][1]
    chances = np.full(len(counts), 1 / len(counts))
    means = np.empty((RESAMPLES, len(values)))
    for rows in np.array_split(np.arange(RESAMPLES), BLOCKS):
        drawn = rng.multinomial(len(counts), chances, size=len(rows)).astype(float)
        means[rows] = (drawn @ sums) / (drawn @ counts)[:, None]
    seeds = rng.normal(size=RESAMPLES)
    return [_interval(array, column, seeds) for array, column in zip(values, means.T, strict=True)]


def _interval(values: np.ndarray, means: np.ndarray, seeds: np.ndarray) -> Interval:
    if len(values) > 1:
        between = values.mean(axis=1).var(ddof=1) / len(values)
        means = means + seeds * np.sqrt(between)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def mean_interval(values: np.ndarray, groups: np.ndarray, *, seed: int = 0) -> Interval:
    """`mean_intervals` of one array."""
    return mean_intervals([values], groups, seed=seed)[0]


def paired_tests(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], groups: np.ndarray, *, seed: int = 0
) -> list[PairedTest]:
    """Two-sided sign-flip permutation tests of mean(a) = mean(b), paired by query.

    Each query's value is its mean over seeds. Under the null hypothesis a group's difference is
    as likely to have the other sign (Fisher 1935). p counts the observed arrangement too, so that
    it is never 0 (Phipson & Smyth 2010).

    Args:
        pairs: (S, Q) and (S', Q) each, of the same queries.
        groups: (Q,) int64, the group of each query.
        seed: of the permutations, which all pairs share.
    """
    if not pairs:
        return []
    differences = [a.mean(axis=0) - b.mean(axis=0) for a, b in pairs]
    sums = np.stack([_by_group(d, groups)[0] for d in differences], axis=1)
    observed = np.abs(sums.sum(axis=0))
    rng = np.random.default_rng(seed)
    as_large = np.zeros(len(pairs), np.int64)
    for rows in np.array_split(np.arange(FLIPS), BLOCKS):
        signs = rng.integers(0, 2, size=(len(rows), len(sums)), dtype=np.int8) * 2.0 - 1.0
        as_large += (np.abs(signs @ sums) >= observed * (1 - 1e-12) - 1e-12).sum(axis=0)
    return [
        PairedTest(float(difference.mean()), (int(count) + 1) / (FLIPS + 1))
        for difference, count in zip(differences, as_large, strict=True)
    ]


def paired_test(a: np.ndarray, b: np.ndarray, groups: np.ndarray, *, seed: int = 0) -> PairedTest:
    """`paired_tests` of one pair."""
    return paired_tests([(a, b)], groups, seed=seed)[0]


def holm(p_values: list[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979), in the order given."""
    order = np.argsort(p_values)
    factors = len(p_values) - np.arange(len(p_values))
    stepped = np.minimum(1.0, np.maximum.accumulate(np.asarray(p_values)[order] * factors))
    corrected = np.empty(len(p_values))
    corrected[order] = stepped
    return [float(p) for p in corrected]


def _by_group(values: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum and count of (Q,) values in each group."""
    numbers = np.unique(groups, return_inverse=True)[1]
    return np.bincount(numbers, weights=values), np.bincount(numbers).astype(float)

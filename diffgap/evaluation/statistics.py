"""How sure a number is: intervals over queries and seeds, paired tests, and their correction.

Values are (S, Q): one row a seed, one column a query. Queries come in groups - the captions of
one clip - which are resampled and flipped together, for they are not independent.
"""

from __future__ import annotations

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


def mean_interval(values: np.ndarray, groups: np.ndarray, *, seed: int = 0) -> Interval:
    """The mean of all values with a 95 % bootstrap interval, percentile method.

    Two sources of chance: which queries are asked, and the seed. Groups of queries are resampled
    with replacement (Efron & Tibshirani 1993, ch. 8), all seeds together, for they answer the same
    queries; to each resampled mean a normal draw is added with the variance of a mean over S
    seeds, estimated between the seeds' own means. Resampling the seeds themselves would make the
    interval too narrow: S is 3, and 3 values resampled vary by a third less than they should.

    Args:
        values: (S, Q).
        groups: (Q,) int64, the group of each query.
        seed: of the resampling.
    """
    rng = np.random.default_rng(seed)
    sums, counts = _by_group(values.mean(axis=0), groups)
    chances = np.full(len(sums), 1 / len(sums))
    means = np.empty(RESAMPLES)
    for rows in np.array_split(np.arange(RESAMPLES), BLOCKS):
        drawn = rng.multinomial(len(sums), chances, size=len(rows))
        means[rows] = (drawn @ sums) / (drawn @ counts)
    if len(values) > 1:
        between = values.mean(axis=1).var(ddof=1) / len(values)
        means = means + rng.normal(0.0, np.sqrt(between), size=RESAMPLES)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def paired_test(a: np.ndarray, b: np.ndarray, groups: np.ndarray, *, seed: int = 0) -> PairedTest:
    """Two-sided sign-flip permutation test of mean(a) = mean(b), paired by query.

    Each query's value is its mean over seeds. Under the null hypothesis a group's difference is
    as likely to have the other sign (Fisher 1935). p counts the observed arrangement too, so that
    it is never 0 (Phipson & Smyth 2010).

    Args:
        a: (S, Q).
        b: (S', Q), the same queries.
        groups: (Q,) int64, the group of each query.
        seed: of the permutations.
    """
    difference = a.mean(axis=0) - b.mean(axis=0)
    sums, _ = _by_group(difference, groups)
    sums = sums[sums != 0]  # flipping a zero changes nothing
    observed = abs(sums.sum())
    rng = np.random.default_rng(seed)
    as_large = 0
    for rows in np.array_split(np.arange(FLIPS), BLOCKS):
        signs = rng.integers(0, 2, size=(len(rows), len(sums)), dtype=np.int8) * 2.0 - 1.0
        as_large += int((np.abs(signs @ sums) >= observed * (1 - 1e-12) - 1e-12).sum())
    return PairedTest(float(difference.mean()), (as_large + 1) / (FLIPS + 1))


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

"""Uncertainty of results: intervals over queries and seeds, paired tests, and their correction.

Values are (S, Q): one row a seed, one column a query. Queries come in groups, the captions of one
clip, which are not independent and so are counted and flipped together. The gallery is taken as
it is: nothing here says what a larger one would do to recall.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

FLIPS = 10_000
LEVEL = 0.95

BLOCKS = 20
"""Blocks in which flips are drawn, to bound memory."""


@dataclass(frozen=True)
class Interval:
    """A mean and where it may lie."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedTest:
    """A difference of means, and how often chance alone gives one as large."""

    difference: float
    p: float


def mean_interval(values: np.ndarray, groups: np.ndarray) -> Interval:
    """The mean of values with a 95 % interval for its expectation over queries and seeds; with one
    seed, over queries given that seed.

    Queries and seeds are crossed: all seeds answer the same queries. Their parts of the mean's
    variance come from the mean squares of that layout, as in reader studies, where readers stand
    for seeds (Hillis 2007): queries MS_Q / SG, and seeds (MS_S - MS_QS) / SG if that is positive,
    for MS_QS, the noise of a seed on a query, is in both. Each part has its own Student quantile,
    of G - 1 and S - 1 degrees of freedom, and the half widths add in squares (Howe 1974).
    Unequal groups are linearised as for a ratio (Cochran 1977, ch. 6). Last, the interval is
    Wilson's (1927) for the number of independent queries that would have that half width (Korn &
    Graubard 1998), so that it stays within 0 and 100 and few groups do not make it too short.

    Simulated coverage is 92 to 98 % for 1, 3 and 5 seeds, 60 and 500 groups and recalls of 10, 50
    and 90 %. With two seeds, one degree of freedom, it is very wide and still as low as 88 %
    where seeds matter more than queries.

    Args:
        values: (S, Q), in percent.
        groups: (Q,) int64, the group of each query.

    Raises:
        ValueError: where a value is not between 0 and 100.
    """
    if values.min() < -1e-6 or values.max() > 100 + 1e-6:  # float32 means may be over by an ulp
        raise ValueError(f"values from {values.min()} to {values.max()} are not in percent")
    numbers = np.unique(groups, return_inverse=True)[1]
    mean, count = float(values.mean()), int(numbers.max()) + 1
    if count < 2:
        return Interval(mean, 0.0, 100.0)
    share = min(max(mean / 100, 0.0), 1.0)
    squared = _half_width_squared(values / 100, share, numbers)
    variance = share * (1 - share)
    # z^2 / n of Wilson's interval, n being the queries that are worth as much (Korn & Graubard).
    # All right or all wrong, nothing varies: n is then the number of groups.
    excess = squared / variance if variance > 0 else _student(count - 1) ** 2 / count
    middle = (share + excess / 2) / (1 + excess)
    reach = np.sqrt(squared + excess**2 / 4) / (1 + excess)
    low, high = 100 * float(middle - reach), 100 * float(middle + reach)
    return Interval(mean, min(low, mean), max(high, mean))  # rounding, where mean is 0 or 100


def _half_width_squared(values: np.ndarray, mean: float, numbers: np.ndarray) -> float:
    """Of the symmetric interval around the mean of (S, Q) values, see `mean_interval`; numbers (Q,)
    are the groups of the queries, from 0 to G - 1."""
    counts = np.bincount(numbers)
    sums = np.stack([np.bincount(numbers, weights=row) for row in values])
    # the linearised ratio: a group's residual, in units of the mean group
    errors_SG = (sums - mean * counts) / counts.mean()
    seeds, groups = errors_SG.shape
    of_group, of_seed = errors_SG.mean(axis=0), errors_SG.mean(axis=1)
    squared = _student(groups - 1) ** 2 * (of_group**2).sum() / (groups - 1) / groups
    if seeds > 1:
        residuals = errors_SG - of_group - of_seed[:, None]
        noise = (residuals**2).sum() / (seeds - 1) / (groups - 1)
        between = groups * (of_seed**2).sum() / (seeds - 1)
        squared += _student(seeds - 1) ** 2 * max(between - noise, 0.0) / (seeds * groups)
    return float(squared)


def _student(degrees: int) -> float:
    """The two-sided quantile of Student's t at `LEVEL`."""
    return float(stdtrit(degrees, (1 + LEVEL) / 2))


def paired_tests(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], groups: np.ndarray, *, seed: int = 0
) -> list[PairedTest]:
    """Two-sided sign-flip permutation tests of mean(a) = mean(b), paired by query.

    Each query's value is its mean over seeds. The null hypothesis is about these trained bridges,
    not about their methods: among all possible queries, a group's difference of the two means over
    seeds is as likely to have the other sign (Fisher 1935). Then at most 5 % of tests have
    p <= 0.05; simulated, 3 to 5 % do, also where only the expected difference is 0, and 2 to 3 %
    for one seed on 60 clips, whose sums take few values.

    It says nothing about other seeds. Two methods that are equal over all seeds differ in those
    that were trained, and this test detects it: 13 to 18 % of the tests of three seeds on 200
    clips have p < 0.05 where recalls of seeds scatter by 4 % of sqrt(p (1 - p)).

    Args:
        pairs: (S, Q) and (S', Q) each, of the same queries.
        groups: (Q,) int64, the group of each query.
        seed: of the permutations, which all pairs share.
    """
    if not pairs:
        return []
    numbers = np.unique(groups, return_inverse=True)[1]
    differences = [a.mean(axis=0) - b.mean(axis=0) for a, b in pairs]
    sums = np.stack([np.bincount(numbers, weights=d) for d in differences], axis=1)
    observed = np.abs(sums.sum(axis=0))
    rng = np.random.default_rng(seed)
    as_large = np.zeros(len(pairs), np.int64)
    for rows in np.array_split(np.arange(FLIPS), BLOCKS):
        signs = rng.integers(0, 2, size=(len(rows), len(sums)), dtype=np.int8) * 2.0 - 1.0
        # equal sums in another order of summation still count as equal
        as_large += (np.abs(signs @ sums) >= observed * (1 - 1e-12) - 1e-12).sum(axis=0)
    p_values = (as_large + 1) / (FLIPS + 1)  # with the observed one, never 0 (Phipson & Smyth 2010)
    means = map(float, map(np.mean, differences))
    return list(map(PairedTest, means, p_values.tolist()))


def replicate_interval(values: np.ndarray, replicates: np.ndarray) -> Interval:
    """A metric's mean over seeds with a 95 % interval over clips and seeds.

    The clips' part is the standard error of the mean over seeds, over bootstrap replicates that
    share their clips among the seeds; the seeds' part is that of a mean of S values, with Student's
    quantile, which counts a seed's effect on single clips twice and so errs on the wide side.

    Args:
        values: (S,), a seed each.
        replicates: (S, B), of each value; column by column of the same clips.
    """
    mean, seeds = float(values.mean()), len(values)
    squared = (ndtri((1 + LEVEL) / 2) * replicates.mean(axis=0).std(ddof=1)) ** 2
    if seeds > 1:
        squared += _student(seeds - 1) ** 2 * values.var(ddof=1) / seeds
    half = float(np.sqrt(squared))
    return Interval(mean, mean - half, mean + half)


def replicate_test(
    a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]
) -> PairedTest:
    """Whether two metrics differ over all possible clips; it says nothing about other seeds.

    The difference of the means over seeds, in units of its bootstrap standard error, against a
    normal distribution (Efron & Tibshirani 1993, ch. 12). Paired: replicates of a and of b in the
    same column are of the same clips.

    Args:
        a, b: values (S,) and replicates (S, B) each; S may differ.
    """
    difference = float(a[0].mean() - b[0].mean())
    error = float((a[1].mean(axis=0) - b[1].mean(axis=0)).std(ddof=1))
    if error == 0:
        return PairedTest(difference, 1.0 if difference == 0 else 0.0)
    return PairedTest(difference, float(2 * ndtr(-abs(difference) / error)))


def holm(p_values: list[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979), in the same order."""
    order = np.argsort(p_values)
    factors = len(p_values) - np.arange(len(p_values))
    corrected = np.empty(len(p_values))
    products = np.maximum.accumulate(np.asarray(p_values)[order] * factors)
    corrected[order] = np.minimum(1.0, products)
    return list(map(float, corrected))

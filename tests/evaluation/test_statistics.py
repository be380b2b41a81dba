"""Intervals cover, tests reject as often as they say, and all agree with slow versions."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from diffgap.evaluation.statistics import holm, mean_interval, paired_test


def world(rng, seeds=3, clips=300, captions=3):
    """Hits of captions in clips: clip and seed each shift the chance of one; the truth is 50 %."""
    clip = np.repeat(rng.normal(0, 0.25, clips), captions)
    seed = rng.normal(0, 0.01, (seeds, 1))
    chance = np.clip(0.5 + clip + seed, 0, 1)
    hits = 100.0 * (rng.random((seeds, clips * captions)) < chance)
    return hits, np.repeat(np.arange(clips), captions)


def test_a_95_percent_interval_covers_about_95_percent_of_the_time():
    rng = np.random.default_rng(0)
    covered = 0
    for repeat in range(300):
        found = mean_interval(*world(rng), seed=repeat)
        covered += found.low <= 50 <= found.high
    assert 0.92 <= covered / 300 <= 0.98


def test_the_interval_agrees_with_scipy_for_one_seed_and_single_queries():
    values = np.random.default_rng(1).normal(3, 2, (1, 400))
    found = mean_interval(values, np.arange(400))
    expected = stats.bootstrap((values[0],), np.mean, method="percentile", rng=0)
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=0.03)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=0.03)


def test_grouped_queries_make_a_wider_interval():
    hits, groups = world(np.random.default_rng(2), seeds=1)
    apart = mean_interval(hits, np.arange(len(groups)))
    together = mean_interval(hits, groups)
    assert together.high - together.low > 1.1 * (apart.high - apart.low)


def test_the_paired_test_rejects_true_nulls_at_its_level():
    rng = np.random.default_rng(3)
    rejected = 0
    for repeat in range(300):
        chance = np.repeat(rng.uniform(0.1, 0.9, 60), 3)
        a, b = (100.0 * (rng.random((2, 180)) < chance) for _ in range(2))
        rejected += paired_test(a, b, np.repeat(np.arange(60), 3), seed=repeat).p < 0.05
    assert 0.02 <= rejected / 300 <= 0.08


def test_the_paired_test_finds_a_real_difference():
    rng = np.random.default_rng(4)
    base, groups = world(rng)
    better = np.where(rng.random(base.shape) < 0.1, 100.0, base)
    found = paired_test(better, base, groups)
    assert found.difference == pytest.approx(better.mean() - base.mean())
    assert found.p < 0.01


def test_the_paired_test_agrees_with_trying_all_signs():
    rng = np.random.default_rng(5)
    a, b = rng.normal(0.6, 1, (1, 10)), rng.normal(0, 1, (1, 10))
    difference = (a - b)[0]
    sums = [abs(np.dot(signs, difference)) for signs in product((-1, 1), repeat=10)]
    exact = np.mean([s >= abs(difference.sum()) - 1e-9 for s in sums])
    assert paired_test(a, b, np.arange(10)).p == pytest.approx(exact, abs=0.02)


def test_equal_systems_do_not_differ():
    hits, groups = world(np.random.default_rng(6))
    assert paired_test(hits, hits, groups).p == 1


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]

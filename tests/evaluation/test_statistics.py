"""Intervals cover, tests reject as often as they say, and all agree with slow versions."""

from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtri

from diffgap.evaluation.statistics import (
    holm,
    mean_interval,
    paired_tests,
)

REPEATS = 400
RECALLS = (0.1, 0.5, 0.9)
EFFECTS = (0.0, 0.04, 0.12)
"""Standard deviation of a seed's recall in units of sqrt(p (1 - p)): up to 6 points at 50 %."""

CLIP, NOISE = 0.3, 0.3
"""Shares of a hit's latent variance: of the clip, of one seed's chance; the rest the query's."""


def latents(rng, seeds, clips, captions):
    """(S, Q) standard normal, below `ndtri(p)` in a share p of all: clips and queries are as hard
    for every seed."""
    clip, query = rng.standard_normal((clips, 1)), rng.standard_normal((clips, captions))
    own = rng.standard_normal((seeds, clips, captions))
    total = clip * CLIP**0.5 + query * (1 - CLIP - NOISE) ** 0.5 + own * NOISE**0.5
    return total.reshape(seeds, -1)


def skills(rng, seeds, recall, effect):
    """(S, 1) recalls of seeds, of exact expectation `recall`: normal, cut at both ends alike."""
    shift = rng.normal(0, effect * (recall * (1 - recall)) ** 0.5, (seeds, 1))
    limit = 0.9 * min(recall, 1 - recall)
    return recall + np.clip(shift, -limit, limit)


def hits(latent, skill):
    return 100.0 * (latent < ndtri(skill))


def clips_of(clips, captions):
    return np.repeat(np.arange(clips), captions)


def world(rng, seeds=3, clips=300, captions=3, recall=0.5, effect=0.02):
    """Hits in percent and their groups, from a known recall."""
    latent = latents(rng, seeds, clips, captions)
    return hits(latent, skills(rng, seeds, recall, effect)), clips_of(clips, captions)


def coverage(clips, captions, seeds, effect, repeats=REPEATS):
    """How often an interval holds the true recall, for each of `RECALLS`."""
    rng = np.random.default_rng([clips, captions, seeds, int(100 * effect)])
    covered = np.zeros(len(RECALLS))
    for _ in range(repeats):
        latent = latents(rng, seeds, clips, captions)
        for place, recall in enumerate(RECALLS):
            values = hits(latent, skills(rng, seeds, recall, effect))
            interval = mean_interval(values, clips_of(clips, captions))
            covered[place] += interval.low <= 100 * recall <= interval.high
    return covered / repeats


@pytest.mark.parametrize(
    ("seeds", "effect"), [(1, 0.0), *product((3, 5), EFFECTS)], ids=lambda value: str(value)
)
@pytest.mark.parametrize(("clips", "captions"), [(60, 1), (60, 3), (500, 1), (500, 3)])
def test_a_95_percent_interval_covers_the_recall_over_queries_and_seeds(
    clips, captions, seeds, effect
):
    found = coverage(clips, captions, seeds, effect)
    assert (found >= 0.92).all(), found
    assert (found <= 0.98).all(), found


def test_with_one_seed_it_is_students_interval_on_wilsons_scale():
    values = 100.0 * (np.random.default_rng(1).random((1, 400)) < 0.3)
    found = mean_interval(values, np.arange(400))
    hit = int(values.sum() / 100)
    plain = stats.binomtest(hit, 400).proportion_ci(method="wilson")
    widened = stats.t.ppf(0.975, 399) / stats.norm.ppf(0.975) * (400 / 399) ** 0.5
    assert found.mean == pytest.approx(hit / 4)
    assert found.high - found.low == pytest.approx(
        100 * (plain.high - plain.low) * widened, rel=1e-3
    )


def test_it_agrees_with_the_bootstrap_of_scipy_where_queries_are_many():
    values = np.random.default_rng(1).uniform(0, 100, (1, 1000))
    found = mean_interval(values, np.arange(1000))
    expected = stats.bootstrap((values[0],), np.mean, method="BCa", rng=0).confidence_interval
    assert found.low == pytest.approx(expected.low, abs=0.15)
    assert found.high == pytest.approx(expected.high, abs=0.15)


def test_where_only_seeds_vary_it_is_students_interval_of_their_means():
    means = np.array([48.0, 50.0, 53.0])
    values = means[:, None] + np.zeros((3, 200))
    found = mean_interval(values, np.arange(200))
    low, high = stats.t.interval(0.95, 2, means.mean(), stats.sem(means))
    assert found.low == pytest.approx(low, abs=0.1)
    assert found.high == pytest.approx(high, abs=0.1)


def test_seeds_that_agree_in_everything_are_as_one():
    one, groups = world(np.random.default_rng(2), seeds=1)
    assert mean_interval(np.repeat(one, 4, axis=0), groups) == mean_interval(one, groups)


def test_grouped_queries_make_a_wider_interval():
    found, groups = world(np.random.default_rng(2), seeds=1)
    apart = mean_interval(found, np.arange(len(groups)))
    together = mean_interval(found, groups)
    assert together.high - together.low > 1.1 * (apart.high - apart.low)


def test_clips_count_by_their_captions():
    values = np.array([[100.0, 0, 0, 100, 100, 0, 100]])
    found = mean_interval(values, np.array([7, 7, 7, 2, 2, 9, 9]))
    assert found.mean == pytest.approx(400 / 7)
    assert 0 <= found.low < found.mean < found.high <= 100


@pytest.mark.parametrize("value", [0.0, 100.0])
def test_no_hit_among_few_queries_is_not_certainty(value):
    found = mean_interval(np.full((2, 60), value), np.arange(60))
    far = found.high if value == 0 else 100 - found.low
    assert found.mean == value
    assert 5 < far < 7  # three in sixty, and a little more
    assert 0 <= found.low + 1e-9 <= found.high <= 100 + 1e-9


def test_one_clip_says_nothing():
    found = mean_interval(np.array([[100.0, 0.0]]), np.zeros(2))
    assert (found.low, found.high) == (0, 100)


def test_what_is_not_in_percent_is_refused():
    with pytest.raises(ValueError, match="not in percent"):
        mean_interval(np.array([[-3.0, 4.0]]), np.arange(2))


def equal_on_average(rng, seeds, recall, effect):
    """(S, 1) recalls of trained seeds whose mean is `recall`."""
    found = skills(rng, seeds, recall, effect)
    return found - found.mean() + recall


def rejections(clips, recall, seeds, skill):
    """How often two systems of equal expectation differ at 5 %, in 1000 repeats.

    Args:
        seeds: of the two systems.
        skill: makes the seeds' recalls.
    """
    rng = np.random.default_rng([clips, int(100 * recall), *seeds])
    pairs = []
    for _ in range(1000):
        latent = latents(rng, sum(seeds), clips, 2)
        made = np.concatenate([skill(rng, count, recall, 0.04) for count in seeds])
        found = hits(latent, made)
        pairs.append((found[: seeds[0]], found[seeds[0] :]))
    tests = paired_tests(pairs, clips_of(clips, 2))
    return np.mean([test.p < 0.05 for test in tests])


@pytest.mark.parametrize("recall", RECALLS)
@pytest.mark.parametrize(
    ("clips", "seeds"),
    [(60, (3, 3)), (60, (3, 1)), (200, (1, 1)), (200, (3, 3)), (200, (3, 1))],
    ids=str,
)
def test_trained_bridges_that_are_equal_differ_in_5_percent_of_the_tests(clips, recall, seeds):
    assert 0.03 <= rejections(clips, recall, seeds, equal_on_average) <= 0.07


@pytest.mark.parametrize("recall", RECALLS)
def test_of_one_seed_on_few_clips_it_is_coarse_and_rejects_less(recall):
    """Sums of so few hits take few values, and no arrangement lies just below 5 %."""
    assert 0.01 <= rejections(60, recall, (1, 1), equal_on_average) <= 0.05


def test_methods_that_are_equal_over_all_seeds_differ_more_often_in_those_that_were_trained():
    assert rejections(200, 0.5, (3, 3), skills) > 0.07


def test_the_paired_test_finds_a_real_difference():
    rng = np.random.default_rng(4)
    base, groups = world(rng)
    better = np.where(rng.random(base.shape) < 0.1, 100.0, base)
    (found,) = paired_tests([(better, base)], groups)
    assert found.difference == pytest.approx(better.mean() - base.mean())
    assert found.p < 0.01


@pytest.mark.parametrize("captions", [1, 3])
def test_the_paired_test_agrees_with_scipy_on_all_signs(captions):
    rng = np.random.default_rng(5)
    a, b = rng.normal(0.5, 1, (2, 10 * captions)), rng.normal(0, 1, (3, 10 * captions))
    groups = clips_of(10, captions)
    sums = [np.bincount(groups, weights=values.mean(axis=0)) for values in (a, b)]
    exact = stats.permutation_test(
        sums,
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert len(exact.null_distribution) == 2**10
    assert paired_tests([(a, b)], groups)[0].p == pytest.approx(exact.pvalue, abs=0.012)


def test_equal_systems_do_not_differ():
    found, groups = world(np.random.default_rng(6))
    assert paired_tests([(found, found)], groups)[0].p == 1


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_holm_is_bonferroni_on_every_set_that_holds_the_hypothesis(count):
    """The closure principle (Marcus, Peritz & Gabriel 1976): a hypothesis is rejected if every
    set that holds it is, and Bonferroni's p of a set is its least, times its size."""
    rng = np.random.default_rng(count)
    p_values = [*np.round(rng.random(count) ** 4, 2)]  # rounded: ties
    sets = [s for size in range(1, count + 1) for s in combinations(range(count), size)]
    closed = [
        max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in sets if i in s)
        for i in range(count)
    ]
    assert holm(p_values) == pytest.approx(closed)

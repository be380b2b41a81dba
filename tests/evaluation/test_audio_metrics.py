"""Metrics of generated audio against closed forms, and their replicates against simulation."""

import numpy as np
import pytest

from diffgap.errors import UserError
from diffgap.evaluation.audio_metrics import (
    align_acc,
    draws,
    fad,
    fd,
    inception_score,
    kl,
    measure,
    similarity,
)
from diffgap.evaluation.extractors.base import Features


def features(clips=60, frames=4, dimension=8, classes=5, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    each = (rng.normal(size=(clips, frames, dimension)) + shift).astype(np.float32)
    shares = rng.dirichlet(np.full(classes, 0.3), clips).astype(np.float32)
    return Features(each, each.mean(1), shares)


def scores(clips=60, seed=0, **options):
    rng = np.random.default_rng(seed)
    made = features(clips, seed=seed + 1, **options)
    sides = {"x": made}, {"x": features(clips, seed=seed + 2)}
    return measure(*sides, rng.uniform(-1, 1, clips), aligned=rng.random(clips) < 0.8)


def test_a_set_against_itself_is_at_no_distance():
    same = {"x": features()}
    values = measure(same, same).values
    assert set(values) == {"FAD", "FD", "KL", "IS"}
    assert values["FAD"] == pytest.approx(0, abs=1e-9)
    assert values["FD"] == pytest.approx(0, abs=1e-9)
    assert values["KL"] == 0


def test_frechet_distances_pool_frames_or_take_clips():
    made, real = features(seed=1, shift=1.0), features(seed=2)
    pooled = fd(made.frames.reshape(-1, 8), real.frames.reshape(-1, 8))
    assert fad(made.frames, real.frames) == pytest.approx(pooled)
    assert pooled == pytest.approx(8, abs=1)  # 8 dimensions, each a distance of 1
    found = measure({"x": made}, {"x": real}).values
    assert found["FAD"] == pytest.approx(pooled)
    assert found["FD"] == pytest.approx(fd(made.clips, real.clips))


def test_clips_may_have_frames_of_their_own_number():
    made, real = features(seed=1), features(seed=2, frames=6)
    made.frames[3, 2:] = np.nan
    whole = [row for clip in made.frames for row in clip if not np.isnan(row[0])]
    assert len(whole) == 238
    expected = fd(np.stack(whole), real.frames.reshape(-1, 8))
    assert fad(made.frames, real.frames) == pytest.approx(expected)
    assert measure({"x": made}, {"x": real}).values["FAD"] == pytest.approx(expected)


def test_kl_is_from_the_real_to_the_generated():
    made = np.array([[0.5, 0.5], [1.0, 0.0]], dtype=np.float32)
    real = np.array([[0.25, 0.75], [0.5, 0.5]], dtype=np.float32)
    closed = 0.25 * np.log(0.5) + 0.75 * np.log(1.5)
    floored = 0.5 * np.log(0.5) + 0.5 * np.log(0.5 / 1e-8)
    assert kl(made, real) == pytest.approx([closed, floored])
    assert kl(real, real) == pytest.approx([0, 0])


def test_the_inception_score_lies_between_one_and_the_number_of_classes():
    certain = np.tile(np.eye(5, dtype=np.float32), (200, 1))
    assert inception_score(certain) == pytest.approx(5, rel=0.05)  # parts are not quite even
    assert inception_score(certain[:45]) == pytest.approx(5)  # one part
    assert inception_score(certain[::5]) == pytest.approx(1)
    assert inception_score(np.full((80, 5), 0.2, np.float32)) == pytest.approx(1)
    half = np.array([[0.8, 0.2], [0.2, 0.8]] * 20, dtype=np.float32)
    closed = np.exp(0.8 * np.log(1.6) + 0.2 * np.log(0.4))
    assert inception_score(half) == pytest.approx(closed, rel=1e-6)


def test_similarity_is_the_cosine_whatever_the_lengths():
    conditions, audio = np.array([[3.0, 0.0], [1.0, 1.0]]), np.array([[1.0, 1.0], [-2.0, -2.0]])
    assert similarity(conditions, audio) == pytest.approx([0.5**0.5, -1])


def test_alignment_is_a_percentage():
    aligned = np.array([True, True, True, False])
    assert align_acc(aligned) == 75
    same = {"x": features(4)}
    found = measure(same, same, aligned=aligned)
    assert found.values["AlignAcc"] == 75
    assert found.per_clip["aligned"].tolist() == aligned.tolist()


def test_values_replicates_and_clips_go_together():
    found = scores()
    assert set(found.values) == {"FAD", "FD", "KL", "IS", "similarity", "AlignAcc"}
    assert found.clips == 60
    assert set(found.per_clip) == {"KL", "similarity", "aligned"}
    assert found.per_clip["KL"].mean() == pytest.approx(found.values["KL"])
    for name, value in found.values.items():
        assert found.replicates[name].shape == (200,)
        assert found.replicates[name].mean() == pytest.approx(value)
        interval = found.interval(name)
        assert interval.mean == value
        assert interval.low < value < interval.high


def test_replicates_are_the_same_again_and_paired():
    first, again = scores(), scores()
    for name, made in first.replicates.items():
        assert made.tolist() == again.replicates[name].tolist()
    clips = first.clips
    real = {"x": features(clips, seed=9)}
    better, worse = (measure({"x": features(clips, seed=seed)}, real) for seed in (1, 2))
    difference = worse.replicates["KL"] - better.replicates["KL"]
    per_clip = worse.per_clip["KL"] - better.per_clip["KL"]
    counted = draws(clips) @ per_clip / clips
    assert difference - difference.mean() == pytest.approx(counted - counted.mean(), abs=1e-9)
    assert draws(clips).sum(1).tolist() == [clips] * 200


def test_replicates_of_means_vary_as_means_do():
    found = scores(300)
    for name in ("KL", "similarity"):
        expected = found.per_clip[name].std(ddof=1) / 300**0.5
        assert found.replicates[name].std() == pytest.approx(expected, rel=0.15)
    aligned = found.per_clip["aligned"].mean()
    binomial = 100 * (aligned * (1 - aligned) / 300) ** 0.5
    assert found.replicates["AlignAcc"].std() == pytest.approx(binomial, rel=0.15)


def test_replicates_of_the_others_vary_as_fresh_clips_make_them():
    rounds = [scores(200, seed=10 * n, shift=0.5) for n in range(60)]
    for name in ("FAD", "FD", "IS"):
        spread = np.std([found.values[name] for found in rounds])
        told = np.mean([found.replicates[name].std() for found in rounds])
        assert 0.75 < told / spread < 1.5


def test_intervals_keep_within_what_can_be():
    same = {"x": features(30)}
    found = measure(same, same, aligned=np.ones(30, dtype=bool))
    assert found.interval("FAD").low == 0
    alignment = found.interval("AlignAcc")
    assert alignment.high == 100
    assert alignment.low < 95  # 30 right ones do not prove that all are


def test_the_first_extractor_that_can_makes_a_metric():
    whole, other = features(seed=1), features(seed=2)
    made = {"a": Features(frames=whole.frames), "b": other, "c": whole}
    real = {name: features(seed=3) for name in made}
    real["a"] = Features(frames=real["a"].frames)
    found = measure(made, real)
    assert found.extractors == {"FAD": "a", "FD": "b", "KL": "b", "IS": "b"}
    assert found.values["FD"] == pytest.approx(fd(other.clips, real["b"].clips))


def problems(made, real, **others):
    with pytest.raises(UserError) as refused:
        measure({"x": made}, real if isinstance(real, dict) else {"x": real}, **others)
    return "\n".join(refused.value.problems)


def test_what_does_not_belong_together_is_refused():
    made = features()
    assert "of ['x'] for generated audio, but of ['y'] for the real" in problems(made, {"y": made})
    said = problems(made, Features(clips=features(50).clips))
    assert "x frames: (60, 4, 8) for generated audio, none for the real" in said
    assert "x clips: (60, 8) for generated audio, (50, 8) for the real; make them equal" in said
    assert "clips: {" in problems(made, made, aligned=np.ones(59, dtype=bool))
    assert "there is one; metrics need at least two" in problems(features(1), features(1))
    with pytest.raises(UserError, match="features: none are given"):
        measure({}, {})


@pytest.mark.parametrize("part", ["frames", "clips", "probabilities"])
def test_what_is_not_finite_is_refused(part):
    made = features()
    getattr(made, part)[5, ..., 0] = np.nan
    assert f"x {part}: some values are not finite" in problems(made, features())

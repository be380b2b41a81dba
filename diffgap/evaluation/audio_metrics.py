"""Metrics of generated audio against the real audio of the same clips, and how sure they are.

FAD, FD, KL and IS come from an extractor's features. They are comparable only with numbers of the
same extractor and of as many clips: a Frechet distance of few clips is too large.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch

from diffgap.errors import UserError
from diffgap.evaluation.extractors.base import Features
from diffgap.evaluation.frechet import frechet, frechet_influences
from diffgap.evaluation.statistics import LEVEL, Interval, mean_interval

LOWEST = {"FAD": 0.0, "FD": 0.0, "KL": 0.0, "IS": 1.0, "similarity": -1.0, "fidelity": -1.0}
"""What the metrics can be at least."""

REPLICATES, SEED = 200, 0

FLOOR = 1e-8
"""Smaller probabilities count as this in logarithms, so that a KL is at most 18.4."""

SPLITS, PER_SPLIT = 10, 50
"""Of the Inception score: ten, as in the literature, but of 50 clips each at least."""


@dataclass(frozen=True)
class Scores:
    """Metrics of N generated clips.

    The replicates are a bootstrap over clips (Efron & Tibshirani 1993): 200 draws of N clips with
    replacement. A clip's generated and real audio, and all their frames, are drawn together. What
    is drawn follows from N alone: the replicates of two generators over the same clips are paired,
    and subtracting them gives those of the difference.

    A replicate is the value plus the influences of the clips as often as each was drawn: the
    metric's linear part (the infinitesimal jackknife; Jaeckel 1972), moved by a constant until the
    replicates' mean is the value. For metrics that are means this is the bootstrap itself. The
    others have no good one: a draw repeats clips, which makes Frechet distances larger and
    Inception scores smaller than fresh clips do (the bias of Efron & Tibshirani, ch. 10), and in
    simulations their spread up to 2.3 times too large. That of the linear part is 0.9 to 1.5 times
    the true one, and largest where the distance is hardly more than its own bias. This, the value's
    bias at N clips, is neither removed nor told.
    """

    values: dict[str, float]
    """By metric: FAD, FD, KL, IS, similarity, fidelity, AlignAcc (percent), as could be had."""
    extractors: dict[str, str]
    """Which extractor made which of FAD, FD, KL and IS."""
    clips: int
    per_clip: dict[str, np.ndarray]
    """(N,): KL, similarity, fidelity, and aligned (bool), where they could be had."""
    replicates: dict[str, np.ndarray]
    """(200,) of every value."""

    def interval(self, name: str) -> Interval:
        """A metric's 95 % interval: where it may lie over other clips, as many as these.

        Quantiles of the replicates, not below what the metric can be. AlignAcc's is Wilson's, as
        of all shares here: quantiles would have no width where all clips are judged alike.
        """
        if name == "AlignAcc":
            judged = 100.0 * self.per_clip["aligned"][None]
            return mean_interval(judged, np.arange(self.clips))
        low, high = np.quantile(self.replicates[name], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Interval(self.values[name], max(float(low), LOWEST[name]), float(high))


def measure(
    generated: Mapping[str, Features],
    reference: Mapping[str, Features],
    similarity: np.ndarray | None = None,
    fidelity: np.ndarray | None = None,
    aligned: np.ndarray | None = None,
) -> Scores:
    """All metrics that can be had.

    Args:
        generated: features of the N generated clips, by the extractor's name; where several
            give a metric, the first does.
        reference: the same of the real clips, in the same order.
        similarity: (N,) cosines of conditions and generated audio; see `similarity`.
        fidelity: (N,) cosines of the real and the generated audio's embeddings.
        aligned: (N,) bool, whether each generated clip belongs to its video.

    Raises:
        UserError: where extractors, clips or dimensions of the two sides differ, values are not
            finite, or clips are fewer than two.
    """
    sides = {"similarity": similarity, "fidelity": fidelity, "aligned": aligned}
    per_clip = {name: np.asarray(part) for name, part in sides.items() if part is not None}
    clips = _check(generated, reference, per_clip)
    found: dict[str, _Linear] = {}
    extractors = {}
    for metric, (part, compute) in _FROM_FEATURES.items():
        name = next((n for n, side in generated.items() if getattr(side, part) is not None), None)
        if name is not None:
            pair = getattr(generated[name], part), getattr(reference[name], part)
            extractors[metric], found[metric] = name, compute(*pair)
            if metric == "KL":
                per_clip[metric] = kl(*pair)
    for metric in ("similarity", "fidelity"):
        if metric in per_clip:
            found[metric] = _mean(per_clip[metric])
    if aligned is not None:
        found["AlignAcc"] = _mean(100.0 * per_clip["aligned"])
    counts = draws(clips)
    replicates = {name: metric.replicates(counts) for name, metric in found.items()}
    values = {name: metric.value for name, metric in found.items()}
    return Scores(values, extractors, clips, per_clip, replicates)


def draws(clips: int) -> np.ndarray:
    """(200, N): how often each of N clips is in each draw; the same whenever N is."""
    rng = np.random.default_rng([SEED, clips, REPLICATES])
    return rng.multinomial(clips, np.full(clips, 1 / clips), size=REPLICATES)


def fad(generated: np.ndarray, reference: np.ndarray) -> float:
    """Frechet audio distance (Kilgour et al. 2019) of (N, F, D) and (M, G, D) frames.

    All frames of all clips are pooled; rows of NaN are none.
    """
    return fd(*(side[~np.isnan(side).any(2)] for side in (generated, reference)))


def fd(generated: np.ndarray, reference: np.ndarray) -> float:
    """Frechet distance (Heusel et al. 2017, for pictures) of (N, D) and (M, D) clips."""
    return frechet(torch.from_numpy(generated), torch.from_numpy(reference))


def kl(generated: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(N,) divergences KL(reference || generated) of (N, C) probabilities, in nats.

    Their mean is the metric (Iashin & Rahtu 2021).
    """
    ratio = _log(reference) - _log(generated)
    return (reference.astype(np.float64) * ratio).sum(1)


def inception_score(probabilities: np.ndarray) -> float:
    """Inception score (Salimans et al. 2016) of (N, C) probabilities: from 1 to C.

    ``exp E KL(p(y|x) || p(y))``, the mean over ten parts of the shuffled clips, fewer where they
    would have less than 50 clips each. It grows with the clips in a part.
    """
    return _is(probabilities, probabilities).value


def similarity(conditions: np.ndarray, audio: np.ndarray) -> np.ndarray:
    """(N,) cosines of (N, D) embeddings; their mean is the CLAP score (Huang et al. 2023)."""
    lengths = np.linalg.norm(conditions, axis=1) * np.linalg.norm(audio, axis=1)
    cosines: np.ndarray = (conditions * audio).sum(1) / lengths
    return cosines


def align_acc(aligned: np.ndarray) -> float:
    """Percent of (N,) generated clips that belong to their video (Luo et al. 2023)."""
    return 100.0 * float(np.mean(aligned))


@dataclass(frozen=True)
class _Linear:
    """A metric about the clips that it was computed of."""

    value: float
    influences: np.ndarray
    """(N,): its derivative by the weight of each clip, in a sum of weights that stays N."""

    def replicates(self, counts: np.ndarray) -> np.ndarray:
        """(B,) of (B, N) counts, their mean being the value."""
        made = (counts - 1) @ self.influences
        return self.value + made - made.mean()


def _mean(values: np.ndarray) -> _Linear:
    return _Linear(float(values.mean()), values / len(values))


def _fad(generated: np.ndarray, reference: np.ndarray) -> _Linear:
    found = frechet_influences(torch.from_numpy(generated), torch.from_numpy(reference))
    return _Linear(found.distance, found.of_clips.numpy())


def _fd(generated: np.ndarray, reference: np.ndarray) -> _Linear:
    return _fad(generated[:, None], reference[:, None])


def _kl(generated: np.ndarray, reference: np.ndarray) -> _Linear:
    return _mean(kl(generated, reference))


def _is(generated: np.ndarray, _: np.ndarray) -> _Linear:
    """The mean over parts; in each, a clip's influence is that on the mean divergence."""
    clips = len(generated)
    order = np.random.default_rng(SEED).permutation(clips)
    parts = np.array_split(order, max(1, min(SPLITS, clips // PER_SPLIT)))
    scores, influences = [], np.zeros(clips)
    for part in parts:
        inside = generated[part]
        divergences = kl(inside.mean(0, dtype=np.float64)[None], inside)
        score = np.exp(divergences.mean())
        influences[part] = score * (divergences - divergences.mean()) / len(part) / len(parts)
        scores.append(score)
    return _Linear(float(np.mean(scores)), influences)


_FROM_FEATURES: dict[str, tuple[str, Callable[[np.ndarray, np.ndarray], _Linear]]] = {
    "FAD": ("frames", _fad),
    "FD": ("clips", _fd),
    "KL": ("probabilities", _kl),
    "IS": ("probabilities", _is),
}
"""By metric: of which features, and how, of the generated and the real ones."""


def _log(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities.astype(np.float64), FLOOR))


def _check(
    generated: Mapping[str, Features],
    reference: Mapping[str, Features],
    per_clip: Mapping[str, np.ndarray],
) -> int:
    """The number of clips; UserError with all that does not fit."""
    if set(generated) != set(reference):
        raise UserError(
            f"features: of {sorted(generated)} for generated audio, but of {sorted(reference)} "
            "for the real; use the same extractors"
        )
    arrays = {name: (part, part) for name, part in per_clip.items()}
    for name, side in generated.items():
        for part in (field.name for field in fields(Features)):
            pair = getattr(side, part), getattr(reference[name], part)
            if any(array is not None for array in pair):
                arrays[f"{name} {part}"] = pair
    if not arrays:
        raise UserError("features: none are given; choose an extractor")
    problems = [problem for name, pair in arrays.items() if (problem := _problem(name, *pair))]
    lengths = {name: len(made) for name, (made, _) in arrays.items() if made is not None}
    if len(set(lengths.values())) > 1:
        problems.append(f"clips: {lengths} of them; every metric needs the same ones")
    elif min(lengths.values(), default=2) < 2:
        problems.append("clips: there is one; metrics need at least two")
    if problems:
        raise UserError(*problems)
    return next(iter(lengths.values()))


def _problem(name: str, made: np.ndarray | None, real: np.ndarray | None) -> str | None:
    """What is wrong with features of both sides; clips may differ in their number of frames."""
    if (
        made is None
        or real is None
        or (made.shape[0], made.shape[-1]) != (real.shape[0], real.shape[-1])
    ):
        shapes = ["none" if side is None else side.shape for side in (made, real)]
        return f"{name}: {shapes[0]} for generated audio, {shapes[1]} for the real; make them equal"
    if not (_sound(made) and _sound(real)):
        return f"{name}: some values are not finite; see which clips made them"
    return None


def _sound(features: np.ndarray) -> bool:
    """Whether all are finite, but for rows of NaN at the end of a clip's frames."""
    if features.ndim == 3:
        there = ~np.isnan(features).all(2)
        if not (there[:, 0].all() and (there[:, :-1] >= there[:, 1:]).all()):
            return False
        features = features[there]
    return bool(np.isfinite(features).all())

"""Metrics of generated audio against the real audio of the same clips, with their uncertainty.

FAD, FD, KL and IS come from an extractor's features. They are comparable only with numbers of the
same extractor and of as many clips: a Frechet distance of few clips is too large.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from operator import itemgetter

import numpy as np
import torch

from diffgap.errors import UserError
from diffgap.evaluation.extractors.base import Features
from diffgap.evaluation.frechet import frechet, frechet_influences
from diffgap.evaluation.metrics import AUDIO_METRICS
from diffgap.evaluation.statistics import LEVEL, Interval, mean_interval

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
    bias at N clips, is neither removed nor estimated.
    """

    values: dict[str, float]
    """By metric: FAD, FD, KL, IS, similarity, fidelity, AlignAcc (percent), as available."""
    extractors: dict[str, str]
    """The extractor behind each of FAD, FD, KL and IS."""
    clips: int
    per_clip: dict[str, np.ndarray]
    """(N,): KL, similarity, fidelity, and aligned (bool), as available."""
    replicates: dict[str, np.ndarray]
    """(200,) of every value."""

    def interval(self, name: str) -> Interval:
        """A metric's 95 % interval: where it may lie over other clips, as many as these."""
        if name == "AlignAcc":
            # Wilson's, as of all shares here: quantiles of the replicates would have no width where
            # all clips are judged alike.
            percentages = 100.0 * self.per_clip["aligned"][None]
            return mean_interval(percentages, np.arange(self.clips))
        tails = (1 - LEVEL) / 2, (1 + LEVEL) / 2
        low, high = np.quantile(self.replicates[name], tails)
        # A linear part knows no bounds; the metric does.
        low = max(float(low), AUDIO_METRICS[name].lowest)
        return Interval(self.values[name], low, float(high))


def measure(
    generated: Mapping[str, Features],
    reference: Mapping[str, Features],
    similarity: np.ndarray | None = None,
    fidelity: np.ndarray | None = None,
    aligned: np.ndarray | None = None,
) -> Scores:
    """All metrics that these inputs allow.

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
    inputs = {"similarity": similarity, "fidelity": fidelity, "aligned": aligned}
    per_clip = {name: np.asarray(array) for name, array in inputs.items() if array is not None}
    clips = _check(generated, reference, per_clip)
    metrics: dict[str, _Linearised] = {}
    extractors = {}
    for metric, (kind, linearise) in _FROM_FEATURES.items():
        candidates = [name for name, side in generated.items() if getattr(side, kind) is not None]
        if candidates:
            extractors[metric] = extractor = candidates[0]
            sides = getattr(generated[extractor], kind), getattr(reference[extractor], kind)
            metrics[metric] = linearise(*sides)
            if metric == "KL":
                per_clip[metric] = kl(*sides)
    for metric in ("similarity", "fidelity"):
        if metric in per_clip:
            metrics[metric] = _mean(per_clip[metric])
    if aligned is not None:
        metrics["AlignAcc"] = _mean(100.0 * per_clip["aligned"])
    counts = draws(clips)
    replicates = {name: metric.replicates(counts) for name, metric in metrics.items()}
    values = {name: metric.value for name, metric in metrics.items()}
    return Scores(values, extractors, clips, per_clip, replicates)


def draws(clips: int) -> np.ndarray:
    """(200, N): how often each of N clips is in each draw."""
    # One stream for each N: generators over the same clips get the same draws, and are paired.
    rng = np.random.default_rng([SEED, clips, REPLICATES])
    return rng.multinomial(clips, np.full(clips, 1 / clips), size=REPLICATES)


def fad(generated: np.ndarray, reference: np.ndarray) -> float:
    """Frechet audio distance (Kilgour et al. 2019) of (N, F, D) and (M, G, D) frames.

    All frames of all clips are pooled; rows of NaN stand for frames that a clip does not have.
    """
    return fd(generated[~np.isnan(generated).any(2)], reference[~np.isnan(reference).any(2)])


def fd(generated: np.ndarray, reference: np.ndarray) -> float:
    """Frechet distance (Heusel et al. 2017, for pictures) of (N, D) and (M, D) clips."""
    return frechet(torch.from_numpy(generated), torch.from_numpy(reference))


def kl(generated: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(N,) KL(reference || generated) of (N, C) probabilities, in nats (Iashin & Rahtu 2021)."""
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
class _Linearised:
    """A metric, and its linear part in the weights of the clips."""

    value: float
    influences: np.ndarray
    """(N,): its derivative by the weight of each clip, in a sum of weights that stays N."""

    def replicates(self, counts: np.ndarray) -> np.ndarray:
        """(B,) of (B, N) counts, centred on the value."""
        shifts = (counts - 1) @ self.influences
        return self.value + shifts - shifts.mean()


def _mean(values: np.ndarray) -> _Linearised:
    return _Linearised(float(values.mean()), values / len(values))


def _fad(generated: np.ndarray, reference: np.ndarray) -> _Linearised:
    distance = frechet_influences(torch.from_numpy(generated), torch.from_numpy(reference))
    return _Linearised(distance.value, distance.of_clips.numpy())


def _is(generated: np.ndarray, _: np.ndarray) -> _Linearised:
    """The mean over parts; a clip's influence is that on the mean divergence of its part."""
    clips = len(generated)
    # Shuffled: stores may be sorted by class, and a part of them would hold few.
    order = np.random.default_rng(SEED).permutation(clips)
    parts = np.array_split(order, max(1, min(SPLITS, clips // PER_SPLIT)))
    scores, influences = [], np.zeros(clips)
    for part in parts:
        probabilities = generated[part]
        divergences = kl(probabilities.mean(0, dtype=np.float64)[None], probabilities)
        score = np.exp(divergences.mean())
        # To first order the change of the marginal cancels: its probabilities still sum to 1.
        influences[part] = score * (divergences - divergences.mean()) / len(part) / len(parts)
        scores.append(score)
    return _Linearised(float(np.mean(scores)), influences)


_FROM_FEATURES: dict[str, tuple[str, Callable[[np.ndarray, np.ndarray], _Linearised]]] = {
    "FAD": ("frames", _fad),
    "FD": ("clips", lambda generated, real: _fad(generated[:, None], real[:, None])),
    "KL": ("probabilities", lambda generated, real: _mean(kl(generated, real))),
    "IS": ("probabilities", _is),
}
"""By metric: the kind of features, and a function of the generated and the real ones."""


def _log(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities.astype(np.float64), FLOOR))


def _check(
    generated: Mapping[str, Features],
    reference: Mapping[str, Features],
    per_clip: Mapping[str, np.ndarray],
) -> int:
    """The number of clips; UserError with everything that does not fit."""
    if set(generated) != set(reference):
        raise UserError(
            f"features: of {sorted(generated)} for generated audio, but of {sorted(reference)} "
            "for the real; use the same extractors"
        )
    pairs: dict[str, tuple[np.ndarray | None, np.ndarray | None]] = {}
    for name, values in per_clip.items():
        pairs[name] = values, values
    for name, side in generated.items():
        for kind in fields(Features):
            pair = getattr(side, kind.name), getattr(reference[name], kind.name)
            if pair[0] is not None or pair[1] is not None:
                pairs[f"{name} {kind.name}"] = pair
    if not pairs:
        raise UserError("features: none are given; choose an extractor")
    problems, lengths = [], {}
    for name, (fake, real) in pairs.items():
        if problem := _pair_problem(name, fake, real):
            problems.append(problem)
        if fake is not None:
            lengths[name] = len(fake)
    if len(set(lengths.values())) > 1:
        problems.append(f"clips: {lengths} of them; every metric needs the same ones")
    elif min(lengths.values(), default=2) < 2:
        problems.append("clips: there is one; metrics need at least two")
    if problems:
        raise UserError(*problems)
    return next(iter(lengths.values()))


def _pair_problem(name: str, fake: np.ndarray | None, real: np.ndarray | None) -> str | None:
    """What is wrong with the features of both sides."""
    ends = itemgetter(0, -1)  # numbers of frames, between them, may differ
    if fake is None or real is None or ends(fake.shape) != ends(real.shape):
        shapes = getattr(fake, "shape", "none"), getattr(real, "shape", "none")
        return f"{name}: {shapes[0]} for generated audio, {shapes[1]} for the real; make them equal"
    if not (_is_sound(fake) and _is_sound(real)):
        return f"{name}: some values are not finite; find the clips that they come from"
    return None


def _is_sound(features: np.ndarray) -> bool:
    """Whether all are finite, but for rows of NaN at the end of a clip's frames."""
    if features.ndim == 3:
        present = ~np.isnan(features).all(2)
        # One frame at least, and no gap: a gap would be a NaN of the network, not padding.
        if not (present[:, 0].all() and (present[:, :-1] >= present[:, 1:]).all()):
            return False
        features = features[present]
    return bool(np.isfinite(features).all())

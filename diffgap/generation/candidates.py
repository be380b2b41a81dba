"""The best of several candidates for each clip, ranked by the frozen encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from diffgap.audio.resampling import resample
from diffgap.encoders.base import Encoder
from diffgap.encoders.chunks import encode_streams
from diffgap.generation.base import Generator, Sampling, generate_in_batches
from diffgap.generation.conditions import GenerationRequest, noise_seeds


@dataclass(frozen=True)
class Candidate:
    """One generated clip."""

    samples: np.ndarray
    """(S,) float32 at the generator's rate."""
    seed: int
    similarity: float | None
    """Cosine with its query; None without an encoder."""


def best_candidates(
    generator: Generator,
    conditions: np.ndarray,
    request: GenerationRequest,
    sampling: Sampling,
    seed: int,
    candidates: int,
    encoder: Encoder | None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Candidate]:
    """The candidate of each clip that is most similar to its query.

    Args:
        generator: any.
        conditions: (N, D) or (N, T, D), for the generator.
        request: the N clips.
        sampling: steps and guidance.
        seed: of the first candidate; the others count on from it.
        candidates: how many for each clip.
        encoder: ranks them; needed for more than one.
        progress: called with the clips generated so far and in all.
    """
    assert candidates == 1 or encoder, "candidates are ranked by an encoder"
    total = candidates * len(conditions)
    best: list[Candidate] = []
    for number in range(candidates):

        def advance(count: int, _: int, offset: int = number * len(conditions)) -> None:
            if progress:
                progress(offset + count, total)

        seeds = noise_seeds(request.ids, seed + number)
        waveforms = generate_in_batches(generator, conditions, seeds, sampling, advance)
        similarities: Sequence[float | None] = [None] * len(waveforms)
        if encoder is not None:
            similarities = _similarities(encoder, generator.rate, waveforms, request.queries)
        for row, (samples, similarity) in enumerate(zip(waveforms, similarities, strict=True)):
            candidate = Candidate(samples, seed + number, similarity)
            if number == 0:
                best.append(candidate)
            elif _rank(candidate) > _rank(best[row]):
                best[row] = candidate
    return best


def _rank(candidate: Candidate) -> float:
    return candidate.similarity or 0.0


def _similarities(
    encoder: Encoder, rate: int, waveforms: np.ndarray, queries: np.ndarray
) -> list[float]:
    """Cosines of N clips with (N, D) queries, or with the mean of (N, T, D) tokens."""
    resampled = [resample(waveform, rate, encoder.sample_rate) for waveform in waveforms]
    audio = encode_streams(encoder, "audio", resampled)
    if queries.ndim == 3:
        queries = queries.mean(axis=1)
    lengths = np.linalg.norm(queries, axis=1)  # a mean of tokens is shorter than 1; audio is not
    similarities: list[float] = ((audio * queries).sum(1) / lengths).tolist()
    return similarities

"""The best of several tries: each with noise of its own, ranked by what the encoder hears."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from diffgap.audio.resampling import resample
from diffgap.encoders.base import Encoder
from diffgap.encoders.chunks import encode_streams
from diffgap.generation.base import Generator, Sampling, generate_in_batches
from diffgap.generation.conditions import GenerationRequest, seeds_of


@dataclass(frozen=True)
class Candidate:
    """One clip of sound."""

    samples: np.ndarray
    """(S,) float32 at the generator's rate."""
    seed: int
    similarity: float | None
    """Cosine with what asked for it; None where no encoder has heard it."""


def best_of(
    generator: Generator,
    conditions: np.ndarray,
    asked: GenerationRequest,
    sampling: Sampling,
    seed: int,
    candidates: int,
    encoder: Encoder | None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Candidate]:
    """The most similar of several candidates for each clip.

    Args:
        generator: what makes them.
        conditions: (N, D) or (N, T, D), what it is given.
        asked: the N clips.
        sampling: how.
        seed: of the first candidate; others count on from it.
        candidates: how many each.
        encoder: ranks them; needed for more than one.
        progress: called with clips done and in all.
    """
    assert candidates == 1 or encoder, "candidates are ranked by an encoder"
    best: list[Candidate] = []
    for number in range(candidates):
        done = number * len(conditions)

        def advance(some: int, _: int, done: int = done) -> None:
            if progress:
                progress(done + some, candidates * len(conditions))

        seeds = seeds_of(asked.ids, seed + number)
        waveforms = generate_in_batches(generator, conditions, seeds, sampling, advance)
        heard = _similarities(encoder, generator.rate, waveforms, asked)
        tries = [
            Candidate(samples, seed + number, like)
            for samples, like in zip(waveforms, heard, strict=True)
        ]
        best = [max(pair, key=_similarity) for pair in zip(best or tries, tries, strict=True)]
    return best


def _similarity(candidate: Candidate) -> float:
    return candidate.similarity or 0.0


def _similarities(
    encoder: Encoder | None, rate: int, waveforms: np.ndarray, asked: GenerationRequest
) -> list[float] | list[None]:
    """Cosines of the sound with the queries; with their mean, where those are several tokens."""
    if encoder is None:
        return [None] * len(waveforms)
    sounds = [resample(w, rate, encoder.sample_rate) for w in waveforms]
    heard = encode_streams(encoder, "audio", sounds)
    queries = asked.queries.mean(axis=1) if asked.queries.ndim == 3 else asked.queries
    lengths = np.linalg.norm(queries, axis=1)
    found: list[float] = ((heard * queries).sum(1) / lengths).tolist()
    return found

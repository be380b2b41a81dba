"""CLAP's preprocessing of audio, shared by both implementations so that they agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RATE = 48_000
SECONDS = 10.0
SAMPLES = int(RATE * SECONDS)
TOKENS = 77

PREPROCESSING: dict[str, str | int | float] = {
    "sample_rate": RATE,
    "seconds": SECONDS,
    "padding": "repeat",
    "quantised": "int16",
    "text_tokens": TOKENS,
}


def preprocess(waveforms: Sequence[np.ndarray]) -> np.ndarray:
    """(B, 480000) float32: rounded to int16 and repeated up to ten seconds, as in training."""
    return np.stack([_preprocess(waveform) for waveform in waveforms])


def _preprocess(waveform: np.ndarray) -> np.ndarray:
    assert 0 < len(waveform) <= SAMPLES, "windows are cut before they are encoded"
    # laion_clap does this to files (int16_to_float32) and not to tensors, which is what it gets.
    rounded = (np.clip(waveform, -1, 1) * 32767).astype(np.int16)
    # Its "repeatpad": whole repeats only, then zeros.
    repeated = np.tile(rounded, SAMPLES // len(rounded))
    padded = np.pad(repeated, (0, SAMPLES - len(repeated)))
    return (padded / 32767).astype(np.float32)

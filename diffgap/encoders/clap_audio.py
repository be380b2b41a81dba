"""What both roads to CLAP do to sound and to weights, so that they agree."""

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


def prepare(waveforms: Sequence[np.ndarray]) -> np.ndarray:
    """(B, 480000) float32: rounded to int16 and repeated to ten seconds, as in training.

    Whole repeats, then zeros; rounding is what LAION-CLAP does to files (``int16_to_float32``).
    """
    return np.stack([_prepare(waveform) for waveform in waveforms])


def _prepare(waveform: np.ndarray) -> np.ndarray:
    assert 0 < len(waveform) <= SAMPLES, "windows are cut before they are encoded"
    rounded = (np.clip(waveform, -1, 1) * 32767).astype(np.int16)
    repeated = np.tile(rounded, SAMPLES // len(rounded))
    padded = np.pad(repeated, (0, SAMPLES - len(repeated)))
    return (padded / 32767).astype(np.float32)

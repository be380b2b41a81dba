"""From one sample rate to another."""

from __future__ import annotations

import math

import numpy as np

from diffgap.errors import require

RESAMPLERS = ("scipy", "torchaudio")
"""A polyphase filter, or torchaudio's windowed sinc; a store's manifest says which."""


def resample(samples: np.ndarray, rate: int, wanted: int, resampler: str = "scipy") -> np.ndarray:
    """(samples,) at one rate to float32 at another, in Hz.

    Raises:
        UserError: where torchaudio is asked for and not installed.
    """
    assert resampler in RESAMPLERS, resampler
    if rate == wanted:
        return samples
    if resampler == "torchaudio":
        return _by_torchaudio(samples, rate, wanted)
    from scipy.signal import resample_poly

    common = math.gcd(rate, wanted)
    return resample_poly(samples, wanted // common, rate // common).astype(np.float32)


def _by_torchaudio(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    import torch

    functional = require("torchaudio.functional", "clap", "resampling for laion_clap")
    found = functional.resample(torch.from_numpy(samples), rate, wanted)
    return np.asarray(found.numpy(), dtype=np.float32)

"""Resampling of audio."""

from __future__ import annotations

import math

import numpy as np

from diffgap.errors import require

RESAMPLERS = ("scipy", "torchaudio")  # a polyphase filter, or windowed sinc; recorded in manifests


def resample(samples: np.ndarray, rate: int, target: int, resampler: str = "scipy") -> np.ndarray:
    """(samples,) at one rate to float32 at another, in Hz.

    Raises:
        UserError: where the resampler is torchaudio, which is not installed.
    """
    assert resampler in RESAMPLERS, resampler
    if rate == target:
        return samples
    if resampler == "torchaudio":
        import torch

        functional = require("torchaudio.functional", "clap", "resampling for laion_clap")
        resampled = functional.resample(torch.from_numpy(samples), rate, target)
        return np.asarray(resampled.numpy(), dtype=np.float32)
    from scipy.signal import resample_poly

    common = math.gcd(rate, target)
    return resample_poly(samples, target // common, rate // common).astype(np.float32)

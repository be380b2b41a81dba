"""Mel filterbanks, as librosa and torchaudio make them by default (Slaney's)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

BREAK_HZ, LINEAR_HZ = 1000.0, 200.0 / 3
LOG_STEP = np.log(6.4) / 27  # Slaney, Auditory Toolbox (1998): linear up to 1 kHz, then logarithmic


def slaney_filterbank(rate: int, n_fft: int, mels: int, low: float, high: float) -> Tensor:
    """(mels, n_fft // 2 + 1) triangles of unit area in Hz."""
    edges = _hz(np.linspace(_mel(low), _mel(high), mels + 2))
    hz = np.linspace(0, rate / 2, n_fft // 2 + 1)
    rising = (hz - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - hz) / np.diff(edges)[1:, None]
    area = 2 / (edges[2:] - edges[:-2])
    return torch.from_numpy(np.clip(np.minimum(rising, falling), 0, None) * area[:, None]).float()


def _mel(hz: float) -> float:
    if hz < BREAK_HZ:
        return hz / LINEAR_HZ
    return float(BREAK_HZ / LINEAR_HZ + np.log(hz / BREAK_HZ) / LOG_STEP)


def _hz(mel: np.ndarray) -> np.ndarray:
    above = BREAK_HZ * np.exp(LOG_STEP * (mel - BREAK_HZ / LINEAR_HZ))
    return np.where(mel < BREAK_HZ / LINEAR_HZ, mel * LINEAR_HZ, above)

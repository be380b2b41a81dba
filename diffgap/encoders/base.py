"""Protocol of frozen encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Encoder(Protocol):
    """A frozen encoder; a vector must not depend on what else is in its batch."""

    name: str
    dimension: int
    checkpoint_hash: str
    modalities: tuple[str, ...]
    sample_rate: int  # Hz, of the waveforms it takes
    resampler: str  # one of `resampling.RESAMPLERS`
    window: float | None  # seconds of audio and video it takes at once; None for any length
    frame_rate: float  # frames a second of the videos it takes
    frame_size: int  # side of its square frames, in pixels
    preprocessing: dict[str, str | int | float]  # of clips, before the network; kept in manifests

    def encode_audio(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Mono float32 waveforms of up to `window` seconds to (B, D) float32 unit vectors."""

    def encode_text(self, captions: Sequence[str]) -> np.ndarray:
        """Captions to (B, D) float32 unit vectors."""

    def encode_video(self, videos: Sequence[np.ndarray]) -> np.ndarray:
        """uint8 (frames, height, width, 3) videos to (B, D) float32 unit vectors."""

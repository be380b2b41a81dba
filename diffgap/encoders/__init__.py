"""Frozen encoders: from sound, text and pictures to L2-normalised embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from diffgap.errors import UserError, nearest

if TYPE_CHECKING:
    import numpy as np

NAMES = ("soundscape",)


class Encoder(Protocol):
    """A frozen encoder; a vector must not depend on what else is in its batch."""

    name: str
    dimension: int
    checkpoint_hash: str
    sample_rate: int
    """Hz, of the waveforms it takes."""
    modalities: tuple[str, ...]

    def encode_audio(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Mono float32 waveforms of any length to (B, D) float32 unit vectors."""

    def encode_text(self, captions: Sequence[str]) -> np.ndarray:
        """Captions to (B, D) float32 unit vectors."""

    def encode_video(self, videos: Sequence[np.ndarray]) -> np.ndarray:
        """uint8 (frames, height, width, 3) videos to (B, D) float32 unit vectors."""


def load(name: str) -> Encoder:
    """The encoder of this name, with its weights; UserError where it is unknown."""
    if name not in NAMES:
        raise UserError(f"--encoder: unknown encoder {name!r}; {nearest(name, NAMES)}")
    from diffgap.encoders.soundscape import SoundscapeEncoder

    return SoundscapeEncoder.load()

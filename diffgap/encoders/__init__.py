"""Frozen encoders: from sound, text and pictures to L2-normalised embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from diffgap.errors import UserError, nearest

if TYPE_CHECKING:
    import numpy as np

NAMES = ("soundscape", "laion_clap", "hf_clap", "cavp")


class Encoder(Protocol):
    """A frozen encoder; a vector must not depend on what else is in its batch."""

    name: str
    dimension: int
    checkpoint_hash: str
    modalities: tuple[str, ...]
    sample_rate: int
    """Hz, of the waveforms it takes."""
    resampler: str
    """What brings them there, one of `resampling.RESAMPLERS`."""
    window: float | None
    """Seconds it takes at once, of sound and video; None where any length is taken."""
    frame_rate: float
    """Frames a second of the videos it takes."""
    frame_size: int
    """Side of its square frames, in pixels."""
    preprocessing: dict[str, str | int | float]
    """What is done to clips before the network, for the record."""

    def encode_audio(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Mono float32 waveforms of up to `window` seconds to (B, D) float32 unit vectors."""

    def encode_text(self, captions: Sequence[str]) -> np.ndarray:
        """Captions to (B, D) float32 unit vectors."""

    def encode_video(self, videos: Sequence[np.ndarray]) -> np.ndarray:
        """uint8 (frames, height, width, 3) videos to (B, D) float32 unit vectors."""


@dataclass(frozen=True)
class EncoderChoice:
    """An encoder by name, as it is sent to the processes that load it."""

    name: str
    checkpoint: str | None = None
    """Which weights, for encoders that have several: a published name, a path, or a hub id."""

    def load(self, device: str = "cpu") -> Encoder:
        """The encoder with its weights, on a torch device.

        Raises:
            UserError: where the name is unknown, the checkpoint is missing or not its, or a
                package it needs is not installed.
        """
        if self.name not in NAMES:
            raise UserError(
                f"--encoder: unknown encoder {self.name!r}; {nearest(self.name, NAMES)}"
            )
        if self.name == "soundscape":
            from diffgap.encoders.soundscape import SoundscapeEncoder

            if self.checkpoint is not None:
                raise UserError("--checkpoint: soundscape comes with its weights; leave it out")
            return SoundscapeEncoder.load(device)
        if self.name == "laion_clap":
            from diffgap.encoders.laion_clap import LaionClapEncoder

            return LaionClapEncoder.load(self.checkpoint, device)
        if self.name == "hf_clap":
            from diffgap.encoders.hf_clap import HFClapEncoder

            return HFClapEncoder.load(self.checkpoint, device)
        from diffgap.encoders.cavp import CAVPEncoder

        return CAVPEncoder.load(self.checkpoint, device)

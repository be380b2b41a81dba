"""Frozen encoders: from sound, text and pictures to L2-normalised embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffgap.errors import UserError, nearest

if TYPE_CHECKING:
    from diffgap.encoders.base import Encoder

NAMES = ("soundscape", "laion_clap", "hf_clap", "cavp")


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

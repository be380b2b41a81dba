"""Frozen encoders: from audio, text and video to L2-normalised embeddings."""

from __future__ import annotations

from diffgap.encoders.base import Encoder
from diffgap.errors import UserError
from diffgap.pretrained.choice import UNKNOWN_HASH, Choice

ENCODERS = {
    "soundscape": "diffgap.encoders.soundscape:SoundscapeEncoder",
    "laion_clap": "diffgap.encoders.laion_clap:LaionClapEncoder",
    "hf_clap": "diffgap.encoders.hf_clap:HFClapEncoder",
    "cavp": "diffgap.encoders.cavp:CAVPEncoder",
}


class EncoderChoice(Choice[Encoder]):
    """An encoder by name."""

    models = ENCODERS
    option, weights_option = "--encoder", "--checkpoint"

    def load_verified(self, expected_hash: str, user: str, device: str = "cpu") -> Encoder:
        """The encoder, with the very weights that `user`, a store or a bridge, was made with.

        Raises:
            UserError: where the weights' SHA-256 is another than `expected_hash` (unless that is
                `UNKNOWN_HASH`), or they cannot be loaded.
        """
        encoder = self.load(device)
        if expected_hash not in (UNKNOWN_HASH, encoder.checkpoint_hash):
            raise UserError(
                f"--checkpoint: these weights of {self.name} are {encoder.checkpoint_hash}, "
                f"and {user} was made with {expected_hash}; give those weights"
            )
        return encoder

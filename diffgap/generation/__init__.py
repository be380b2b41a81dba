"""Audio generators: from a frozen encoder's embedding, raw or bridged, to sound."""

from __future__ import annotations

from diffgap.generation.base import Generator
from diffgap.pretrained.choice import Choice

GENERATORS = {
    "soundscape": "diffgap.generation.soundscape_generator:SoundscapeGenerator",
    "audioldm": "diffgap.generation.audioldm:AudioLDM",
    "diff_foley": "diffgap.generation.diff_foley:DiffFoley",
}

TRAINED_ON = {
    "soundscape": ("soundscape",),
    "audioldm": ("laion_clap", "hf_clap"),
    "diff_foley": ("cavp",),
}
"""By generator, the encoders whose embeddings it was trained on."""


class GeneratorChoice(Choice[Generator]):
    """A generator by name."""

    models = GENERATORS
    option, weights_option = "--generator", "--weights"


def encoder_mismatch(generator: str, encoder: str) -> str | None:
    """Why a generator was not trained on an encoder's embeddings; None where it was."""
    encoders = TRAINED_ON.get(generator, (encoder,))  # none, of a trial of retrieval, takes any
    if encoder in encoders:
        return None
    return f"{generator} takes embeddings of {' or '.join(encoders)}, and these are of {encoder}"

"""Audio generators: from a frozen encoder's embedding, raw or bridged, to sound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

FITTING = {
    "soundscape": ("soundscape",),
    "audioldm": ("laion_clap", "hf_clap"),
    "diff_foley": ("cavp",),
}
"""The generators, each with the encoders whose embeddings it was trained on."""

NAMES = tuple(FITTING)


def misfit(generator: str, encoder: str) -> str | None:
    """Why a generator was not trained on an encoder's embeddings; None where it was."""
    takes = FITTING.get(generator, (encoder,))
    if encoder in takes:
        return None
    return f"{generator} takes embeddings of {' or '.join(takes)}, and these are of {encoder}"


@dataclass(frozen=True)
class Sampling:
    """How a generator runs its diffusion backwards.

    Attributes:
        steps: of the sampler.
        guidance: classifier-free guidance scale; 1 is off.
    """

    steps: int
    guidance: float


class Generator(Protocol):
    """A frozen generator; a clip must not depend on what else is in its batch."""

    name: str
    dimension: int
    """Of the embeddings it takes."""
    tokens: int | None
    """How many embeddings in a row make a clip; None where one does."""
    rate: int
    """Hz, of what it makes."""
    seconds: float
    """Length of what it makes."""
    weights_hash: str
    defaults: Sampling
    batch: int
    """Clips at once."""

    def generate(
        self, conditions: np.ndarray, seeds: Sequence[int], sampling: Sampling
    ) -> np.ndarray:
        """Clips, each of them from its own embedding and its own seed.

        Args:
            conditions: (B, D) float32 unit vectors, or (B, T, D) where there are `tokens`.
            seeds: B of them, each deciding its clip's noise.
            sampling: how.

        Returns:
            (B, samples) float32 in [-1, 1] at `rate`.
        """


@dataclass(frozen=True)
class GeneratorChoice:
    """A generator by name, as it is sent to the processes that load it."""

    name: str
    weights: str | None = None
    """Which weights, for generators that have several: a path or a hub id."""

    def load(self, device: str = "cpu") -> Generator:
        """The generator with its weights, on a torch device.

        Raises:
            UserError: where the name is unknown, the weights are missing or not its, or a package
                it needs is not installed.
        """
        from diffgap.errors import UserError, nearest

        if self.name not in NAMES:
            raise UserError(
                f"--generator: unknown generator {self.name!r}; {nearest(self.name, NAMES)}"
            )
        return _LOADERS[self.name](self.weights, device)


def _soundscape(weights: str | None, device: str) -> Generator:
    from diffgap.errors import UserError
    from diffgap.generation.soundscape import SoundscapeGenerator

    if weights is not None:
        raise UserError("--weights: soundscape comes with its weights; leave it out")
    return SoundscapeGenerator.load(device)


def _audioldm(weights: str | None, device: str) -> Generator:
    from diffgap.generation.audioldm import AudioLDM

    return AudioLDM.load(weights, device)


def _diff_foley(weights: str | None, device: str) -> Generator:
    from diffgap.generation.diff_foley import DiffFoley

    return DiffFoley.load(weights, device)


_LOADERS: dict[str, Callable[[str | None, str], Generator]] = {
    "soundscape": _soundscape,
    "audioldm": _audioldm,
    "diff_foley": _diff_foley,
}

"""Feature extractors: what metrics of generated audio are computed from.

A number means something only beside the name of the extractor that it was made with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from diffgap.errors import UserError, nearest

if TYPE_CHECKING:
    import numpy as np

NAMES = ("soundscape", "vggish", "panns")


@dataclass(frozen=True)
class Features:
    """Float32 features of N clips; None where an extractor has no such thing."""

    frames: np.ndarray | None = None
    """(N, F, d): of F stretches of every clip; a shorter clip has rows of NaN after its own. FAD
    pools them over all clips."""
    clips: np.ndarray | None = None
    """(N, d): of whole clips, for FD."""
    probabilities: np.ndarray | None = None
    """(N, C): of C classes, each row summing to 1, for KL and IS."""


class Extractor(Protocol):
    """A frozen extractor; a clip's features must not depend on what else is in its batch."""

    name: str
    rate: int
    """Hz, of the waveforms it takes."""
    weights_hash: str

    def features(self, waveforms: Sequence[np.ndarray]) -> Features:
        """Features of mono float32 waveforms at `rate`, of any lengths.

        Raises:
            UserError: where there are none, or one is empty or not finite.
        """


@dataclass(frozen=True)
class ExtractorChoice:
    """An extractor by name, as it is sent to the processes that load it.

    Raises:
        UserError: where the name is unknown.
    """

    name: str
    weights: str | None = None
    """The path of its weights, for those that do not come with this package."""

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise UserError(
                f"--extractor: unknown extractor {self.name!r}; {nearest(self.name, NAMES)}"
            )

    @classmethod
    def parse(cls, text: str) -> ExtractorChoice:
        """From ``NAME`` or ``NAME=PATH``, such as ``panns=Cnn14_16k_mAP=0.438.pth``."""
        name, _, weights = text.partition("=")
        return cls(name, weights or None)

    def load(self, device: str = "cpu") -> Extractor:
        """The extractor with its weights, on a torch device.

        Raises:
            UserError: where the weights are missing, or not its.
        """
        if self.name == "soundscape":
            from diffgap.evaluation.extractors.soundscape import SoundscapeExtractor

            if self.weights is not None:
                raise UserError(
                    "--extractor: soundscape comes with its weights; give its name only"
                )
            return SoundscapeExtractor.load(device)
        if self.name == "vggish":
            from diffgap.evaluation.extractors.vggish import VGGishExtractor

            return VGGishExtractor.load(self.weights, device)
        from diffgap.evaluation.extractors.panns import PANNsExtractor

        return PANNsExtractor.load(self.weights, device)

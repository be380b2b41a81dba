"""Interface of a feature extractor, and the file of its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from diffgap.errors import UserError

if TYPE_CHECKING:
    import numpy as np


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
    """Sample rate of the waveforms it takes, in Hz."""
    weights_hash: str

    def features(self, waveforms: Sequence[np.ndarray]) -> Features:
        """Features of mono float32 waveforms at `rate`, of any lengths.

        Raises:
            UserError: where there are none, or one is empty or not finite.
        """


def weights_file(name: str, weights: str | None, published: str) -> Path:
    """The path of an extractor's weights; UserError where there is no such file."""
    if weights is None:
        raise UserError(f"--extractor: {name} needs its weights; give {name}=PATH, of {published}")
    if not Path(weights).is_file():
        raise UserError(f"--extractor: {name} has no file {weights}; give the path of {published}")
    return Path(weights)

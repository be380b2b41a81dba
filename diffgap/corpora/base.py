"""What a corpus gives an encoder: clips, listed cheaply and decoded one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Clip:
    """One clip as its corpus lists it, without sound or picture."""

    id: str
    split: str
    """train, val or test."""
    captions: tuple[str, ...]
    label: str | None = None
    extra: Mapping[str, str | int | float] = field(default_factory=dict)
    """Further columns, kept in the store."""


class Corpus(Protocol):
    """Where pairs come from. It is sent to worker processes, so it must pickle."""

    name: str
    modalities: tuple[str, ...]
    """What it has, of audio, text and video."""

    def clips(self) -> list[Clip]:
        """All clips, in a fixed order."""

    def audio(self, clip: Clip) -> tuple[np.ndarray, int]:
        """Mono float32 (samples,) within [-1, 1], and its rate in Hz; ClipError if it has none."""

    def video(self, clip: Clip) -> np.ndarray:
        """uint8 (frames, height, width, 3); ClipError if it has none."""

"""Protocol of corpora: clips, listed cheaply and decoded one at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Clip:
    """One clip as its corpus lists it, without audio or video."""

    id: str
    split: str  # train, val or test
    captions: tuple[str, ...]
    label: str | None = None
    extra: Mapping[str, str | int | float] = field(default_factory=dict)  # further columns


@dataclass(frozen=True)
class Rejected:
    """A clip, or one of its captions, that cannot be used."""

    id: str
    stage: str  # corpus, audio, video or text
    reason: str


class Corpus(Protocol):
    """A source of clips. It is sent to worker processes, so it must pickle."""

    name: str
    modalities: tuple[str, ...]  # those it has of audio, text and video

    @property
    def rejected(self) -> Sequence[Rejected]:
        """Lines of its lists that cannot be used."""

    def clips(self) -> list[Clip]:
        """All clips, in a fixed order."""

    def path(self, clip: Clip) -> Path | None:
        """The clip's file; None where clips are generated. ClipError where it is missing."""

    def files(self, clip: Clip) -> Sequence[Path]:
        """The files that audio and video are read from, which may be mended between two runs."""

    def audio(self, clip: Clip) -> tuple[np.ndarray, int]:
        """Mono float32 (samples,) within [-1, 1], and its rate in Hz; ClipError if it has none."""

    def video(self, clip: Clip, fps: float, size: int) -> np.ndarray:
        """uint8 (frames, size, size, 3) at `fps` frames a second; ClipError if it has none."""

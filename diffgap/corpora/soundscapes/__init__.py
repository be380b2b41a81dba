"""The built-in corpus `soundscapes`: procedural scenes as audio, video and captions.

Any clip can be rendered alone, in any process: everything follows from its split and number. Its
stores are cached under `encoders.builtin.VERSION`, which changes with whatever renders differently.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from diffgap.corpora.base import Clip, Rejected
from diffgap.corpora.soundscapes.audio import RATE, render_audio
from diffgap.corpora.soundscapes.captions import write_caption
from diffgap.corpora.soundscapes.scenes import KINDS, SECONDS, Scene, draw_scene, generator
from diffgap.corpora.soundscapes.video import FRAMES, SIZE, render_video

SEED = 1
COUNTS = {"train": 8000, "val": 1000, "test": 1000}
CAPTIONS = {"train": 1, "val": 3, "test": 3}  # a clip; more for evaluation, as in AudioCaps


class SoundscapeCorpus:
    """Soundscapes; a clip's id is its split and number, such as ``train-00042``.

    Args:
        counts: clips per split. Encoders and judges were trained on splits of their own.
        captions: captions a clip; default `CAPTIONS`.
    """

    name = "soundscapes"
    modalities: tuple[str, ...] = ("audio", "text", "video")
    rejected: tuple[Rejected, ...] = ()

    def __init__(self, counts: Mapping[str, int] = COUNTS, captions: int | None = None) -> None:
        self._counts = dict(counts)
        self._captions = captions

    def clips(self) -> list[Clip]:
        clips = []
        for split, count in self._counts.items():
            clips += [self._clip(split, number) for number in range(count)]
        return clips

    def path(self, clip: Clip) -> Path | None:
        return None

    def files(self, clip: Clip) -> list[Path]:
        return []

    def audio(self, clip: Clip) -> tuple[np.ndarray, int]:
        scene = _scene(clip.id)
        return render_audio(scene, generator("audio", SEED, clip.id)), RATE

    def video(self, clip: Clip, fps: float = FRAMES / SECONDS, size: int = SIZE) -> np.ndarray:
        frames = render_video(_scene(clip.id), generator("video", SEED, clip.id))
        times = np.arange(round(SECONDS * fps)) / fps
        numbers = (times * FRAMES / SECONDS + 1e-6).astype(int)  # a product may come out just below
        pixels = np.arange(size) * SIZE // size
        return frames[numbers][:, pixels][:, :, pixels]

    def _clip(self, split: str, number: int) -> Clip:
        name = f"{split}-{number:05d}"
        scene = _scene(name)
        rng = generator("captions", SEED, name)
        count = self._captions or CAPTIONS.get(split, 1)
        captions = tuple(write_caption(scene, rng) for _ in range(count))
        loudest = max(scene.events, key=lambda event: event.loudness)
        return Clip(name, split, captions, label=KINDS[loudest.kind].names[0])


def _scene(name: str) -> Scene:
    return draw_scene(generator("scene", SEED, name))

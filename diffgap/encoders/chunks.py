"""The work on one chunk of clips: decode, cut into windows, encode, lay out as tables.

What is in a chunk's tables follows from its clips alone, whoever works on it and when.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from diffgap.audio.resampling import resample
from diffgap.corpora.base import Clip, Corpus, Rejected
from diffgap.encoders.base import Encoder
from diffgap.errors import ClipError
from diffgap.store.schema import vector_column
from diffgap.store.splits import hash_fraction

BATCH = 32
"""Windows, or captions, that go through an encoder at once."""

WINDOWS = ("crop", "mean")
"""What is done to clips longer than an encoder's window: one window, or the mean of all."""


@dataclass(frozen=True)
class DecodingRecipe:
    """How clips of a corpus become inputs of an encoder; sent to whoever decodes."""

    modalities: tuple[str, ...]
    sample_rate: int
    resampler: str
    window: float | None
    """Seconds; None where any length is taken."""
    frame_rate: float
    frame_size: int
    long_clips: str
    """One of `WINDOWS`."""

    @classmethod
    def of(cls, encoder: Encoder, modalities: tuple[str, ...], long_clips: str) -> DecodingRecipe:
        return cls(
            modalities,
            encoder.sample_rate,
            encoder.resampler,
            encoder.window,
            encoder.frame_rate,
            encoder.frame_size,
            long_clips,
        )


@dataclass
class Decoded:
    """The clips of a chunk that can be used, and why the others cannot."""

    clips: list[Clip] = field(default_factory=list)
    windows: dict[str, list[list[np.ndarray]]] = field(default_factory=dict)
    """For audio and video: the windows of every clip."""
    rejected: list[Rejected] = field(default_factory=list)


@dataclass(frozen=True)
class Tables:
    """A finished chunk: its part of the store."""

    items: pa.Table
    captions: pa.Table | None
    rejected: pa.Table


def decode(corpus: Corpus, clips: Sequence[Clip], recipe: DecodingRecipe) -> Decoded:
    """Reads clips; one that cannot be read is rejected with its reason."""
    decoded = Decoded(windows={m: [] for m in recipe.modalities if m != "text"})
    for clip in clips:
        streams: dict[str, np.ndarray] = {}
        try:
            for modality in decoded.windows:
                streams[modality] = _decode(corpus, clip, modality, recipe)
        except ClipError as error:
            decoded.rejected.append(Rejected(clip.id, modality, str(error)))
            continue
        decoded.clips.append(clip)
        for modality, windows in cut(streams, clip.id, recipe).items():
            decoded.windows[modality].append(windows)
    return decoded


def encode(encoder: Encoder, decoded: Decoded, modalities: Sequence[str]) -> Tables:
    """Embeds a chunk; a clip whose embedding is not finite is rejected."""
    vectors = {m: _encode_windows(encoder, m, w) for m, w in decoded.windows.items()}
    good = np.ones(len(decoded.clips), bool)
    rejected = list(decoded.rejected)
    for modality, found in vectors.items():
        for index in np.flatnonzero(good & ~np.isfinite(found).all(axis=1)):
            good[index] = False
            rejected.append(
                Rejected(decoded.clips[index].id, modality, "its embedding is not finite")
            )
    clips = [clip for clip, is_good in zip(decoded.clips, good, strict=True) if is_good]
    vectors = {modality: found[good] for modality, found in vectors.items()}
    captions = _captions(encoder, clips) if "text" in modalities else None
    return Tables(_items(clips, vectors), captions, rejections(rejected))


def cut(
    streams: dict[str, np.ndarray], clip_id: str, recipe: DecodingRecipe
) -> dict[str, list[np.ndarray]]:
    """Cuts the streams of a clip into windows, sound and pictures at the same times.

    Args:
        streams: audio (samples,) and/or video (frames, ...) of one clip.
        clip_id: where `recipe.long_clips` is crop, it decides which window is taken.
        recipe: window length in seconds, and rates.
    """
    if recipe.window is None:
        return {modality: [stream] for modality, stream in streams.items()}
    rates = {"audio": float(recipe.sample_rate), "video": recipe.frame_rate}
    duration = min(len(stream) / rates[modality] for modality, stream in streams.items())
    starts = list(_starts(duration, recipe.window, clip_id, recipe.long_clips))
    return {
        modality: [
            stream[int(start * rates[modality]) :][: int(recipe.window * rates[modality])]
            for start in starts
        ]
        for modality, stream in streams.items()
    }


def encode_streams(encoder: Encoder, modality: str, streams: Sequence[np.ndarray]) -> np.ndarray:
    """(N, D) unit vectors of sounds or videos of any length: the mean over their windows.

    Args:
        encoder: frozen.
        modality: audio or video.
        streams: (samples,) or (frames, ...) each, at the encoder's rates.
    """
    recipe = DecodingRecipe.of(encoder, (modality,), "mean")
    cuts = [cut({modality: stream}, "", recipe)[modality] for stream in streams]
    return _encode_windows(encoder, modality, cuts)


def _starts(duration: float, window: float, clip_id: str, long_clips: str) -> Iterator[float]:
    """Seconds, in quarters: a whole number of video frames."""
    spare = max(0.0, duration - window)
    if long_clips == "crop":
        yield math.floor(4 * hash_fraction(clip_id) * spare) / 4
        return
    count = math.ceil(duration / window - 1e-3) or 1
    for i in range(count):
        yield math.floor(4 * spare * i / max(1, count - 1)) / 4


def _decode(corpus: Corpus, clip: Clip, modality: str, recipe: DecodingRecipe) -> np.ndarray:
    if modality == "video":
        return corpus.video(clip, recipe.frame_rate, recipe.frame_size)
    samples, rate = corpus.audio(clip)
    return resample(samples, rate, recipe.sample_rate, recipe.resampler)


def _encode_windows(encoder: Encoder, modality: str, windows: list[list[np.ndarray]]) -> np.ndarray:
    """(clips, D): the mean of each clip's windows, normalised again."""
    encode_batch = encoder.encode_audio if modality == "audio" else encoder.encode_video
    flat = [window for own in windows for window in own]
    if not flat:
        return np.zeros((0, encoder.dimension), np.float32)
    found = np.concatenate([encode_batch(flat[i : i + BATCH]) for i in range(0, len(flat), BATCH)])
    ends = np.cumsum([len(own) for own in windows])
    means = np.stack([part.mean(axis=0) for part in np.split(found, ends[:-1])])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


# Tables -----------------------------------------------------------------------------------------


def _items(clips: list[Clip], vectors: dict[str, np.ndarray]) -> pa.Table:
    columns = {
        "id": pa.array([clip.id for clip in clips], pa.string()),
        "split": pa.array([clip.split for clip in clips], pa.string()),
        "label": pa.array([clip.label for clip in clips], pa.string()),
    }
    for name in ("audio", "video"):
        if name in vectors:
            columns[name] = vector_column(vectors[name])
    extra = dict.fromkeys(key for clip in clips for key in clip.extra)
    return pa.table(
        columns | {key: pa.array([clip.extra.get(key) for clip in clips]) for key in extra}
    )


def _captions(encoder: Encoder, clips: list[Clip]) -> pa.Table:
    told = [(clip.id, caption) for clip in clips for caption in clip.captions]
    texts = [caption for _, caption in told]
    parts = [encoder.encode_text(texts[i : i + BATCH]) for i in range(0, len(texts), BATCH)]
    return pa.table(
        {
            "id": pa.array([name for name, _ in told], pa.string()),
            "caption": pa.array(texts, pa.string()),
            "text": vector_column(
                np.concatenate([np.zeros((0, encoder.dimension), np.float32), *parts])
            ),
        }
    )


def rejections(rejected: Sequence[Rejected]) -> pa.Table:
    """What was left out, as rejected.parquet has it."""
    return pa.table(
        {
            name: pa.array([getattr(bad, name) for bad in rejected], pa.string())
            for name in ("id", "stage", "reason")
        }
    )

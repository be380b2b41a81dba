"""One chunk of clips: decoded, cut into windows, encoded, and laid out as tables.

A chunk's tables follow from its clips alone, whichever process works on it and when.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, compress
from typing import Any

import numpy as np
import pyarrow as pa

from diffgap.audio.resampling import resample
from diffgap.corpora.base import Clip, Corpus, Rejected
from diffgap.encoders.base import Encoder
from diffgap.errors import ClipError
from diffgap.store.schema import vector_column
from diffgap.store.splits import hash_fraction

BATCH = 32  # windows, or captions, that go through an encoder at once
WINDOWS = ("crop", "mean")  # what represents a clip longer than a window: one, or the mean of all


@dataclass(frozen=True)
class InputSpec:
    """How clips of a corpus become inputs of an encoder; sent to the processes that decode."""

    modalities: tuple[str, ...]
    sample_rate: int  # Hz
    resampler: str
    window: float | None  # seconds; None where the encoder takes any length
    frame_rate: float
    frame_size: int
    long_clips: str  # one of `WINDOWS`

    @classmethod
    def of(cls, encoder: Encoder, modalities: tuple[str, ...], long_clips: str) -> InputSpec:
        audio = encoder.sample_rate, encoder.resampler, encoder.window
        return cls(modalities, *audio, encoder.frame_rate, encoder.frame_size, long_clips)


@dataclass
class DecodedChunk:
    """The clips of a chunk that could be read, and why the others could not."""

    clips: list[Clip] = field(default_factory=list)
    windows: dict[str, list[list[np.ndarray]]] = field(default_factory=dict)  # by modality and clip
    rejected: list[Rejected] = field(default_factory=list)


@dataclass(frozen=True)
class EmbeddingTables:
    """Rows of a store: those of a finished chunk, or of all chunks."""

    items: pa.Table
    captions: pa.Table | None
    rejected: pa.Table


def decode_chunk(corpus: Corpus, clips: Sequence[Clip], spec: InputSpec) -> DecodedChunk:
    """Reads clips; one that cannot be read is rejected with the reason."""
    # Every modality has its list, so that a chunk without a readable clip has its columns too.
    chunk = DecodedChunk(windows={m: [] for m in spec.modalities if m != "text"})
    for clip in clips:
        streams: dict[str, np.ndarray] = {}
        try:
            for modality in chunk.windows:
                streams[modality] = _decode(corpus, clip, modality, spec)
        except ClipError as error:
            chunk.rejected.append(Rejected(clip.id, modality, str(error)))
            continue
        chunk.clips.append(clip)
        for modality, windows in cut_windows(streams, clip.id, spec).items():
            chunk.windows[modality].append(windows)
    return chunk


def encode_chunk(
    encoder: Encoder, chunk: DecodedChunk, modalities: Sequence[str]
) -> EmbeddingTables:
    """Embeds a chunk; a clip or caption whose embedding is not finite is rejected."""
    vectors: dict[str, np.ndarray] = {}
    rejected = list(chunk.rejected)
    is_good = np.ones(len(chunk.clips), bool)
    for modality, windows in chunk.windows.items():
        vectors[modality] = _encode_windows(encoder, modality, windows)
        is_finite = np.isfinite(vectors[modality]).all(axis=1)
        # Once is enough: a clip rejected for its audio is not rejected again for its video.
        for index in np.flatnonzero(is_good & ~is_finite):
            clip_id = chunk.clips[index].id
            rejected.append(Rejected(clip_id, modality, "its embedding is not finite"))
        is_good &= is_finite
    clips = list(compress(chunk.clips, is_good))
    items = _item_table(clips, {modality: rows[is_good] for modality, rows in vectors.items()})
    captions = _caption_table(encoder, clips, rejected) if "text" in modalities else None
    return EmbeddingTables(items, captions, rejection_table(rejected))


def encode_streams(encoder: Encoder, modality: str, streams: Sequence[np.ndarray]) -> np.ndarray:
    """(N, D) unit vectors of sounds or videos of any length: the mean over their windows.

    Streams are (samples,) of audio or (frames, ...) of video, at the encoder's rates.
    """
    spec = InputSpec.of(encoder, (modality,), "mean")
    windows = [cut_windows({modality: stream}, "", spec)[modality] for stream in streams]
    return _encode_windows(encoder, modality, windows)


def cut_windows(
    streams: Mapping[str, np.ndarray], clip_id: str, spec: InputSpec
) -> dict[str, list[np.ndarray]]:
    """Cuts the streams of a clip into windows, audio and video at the same times.

    Streams are (samples,) of audio and (frames, ...) of video. Where `spec.long_clips` is crop,
    the clip's id decides which window is taken.
    """
    if spec.window is None:
        return {modality: [stream] for modality, stream in streams.items()}
    rates = {"audio": float(spec.sample_rate), "video": spec.frame_rate}
    # Audio and video of a clip rarely end together: only what both have is used.
    duration = min(len(stream) / rates[modality] for modality, stream in streams.items())
    windows: dict[str, list[np.ndarray]] = defaultdict(list)
    for start in _window_starts(duration, spec.window, clip_id, spec.long_clips):
        for modality, stream in streams.items():
            first = int(start * rates[modality])
            length = int(spec.window * rates[modality])
            windows[modality].append(stream[first : first + length])
    return windows


def _window_starts(
    duration: float, window: float, clip_id: str, long_clips: str
) -> Iterator[float]:
    """Seconds at which windows start."""
    # In quarters of a second: a whole number of frames at CAVP's four a second.
    spare = max(0.0, duration - window)
    if long_clips == "crop":
        # Random over clips, but fixed for a clip: a store is the same whenever it is made.
        yield math.floor(4 * hash_fraction(clip_id) * spare) / 4
        return
    # The tolerance keeps a sample too many from costing another window.
    count = math.ceil(duration / window - 1e-3) or 1
    for i in range(count):
        yield math.floor(4 * spare * i / max(1, count - 1)) / 4


def _decode(corpus: Corpus, clip: Clip, modality: str, spec: InputSpec) -> np.ndarray:
    if modality == "video":
        return corpus.video(clip, spec.frame_rate, spec.frame_size)
    samples, rate = corpus.audio(clip)
    return resample(samples, rate, spec.sample_rate, spec.resampler)


def _encode_windows(encoder: Encoder, modality: str, windows: list[list[np.ndarray]]) -> np.ndarray:
    """(clips, D): the mean of each clip's windows, normalised again."""
    if not windows:
        return np.zeros((0, encoder.dimension), np.float32)
    encode = encoder.encode_audio if modality == "audio" else encoder.encode_video
    vectors = _encode_in_batches(encode, list(chain.from_iterable(windows)), encoder.dimension)
    first_windows = np.cumsum(list(map(len, windows)))[:-1]
    means = np.stack([part.mean(axis=0) for part in np.split(vectors, first_windows)])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def _encode_in_batches(
    encode: Callable[[Sequence[Any]], np.ndarray], inputs: Sequence[Any], dimension: int
) -> np.ndarray:
    """(len(inputs), D), `BATCH` of them at a time."""
    parts = [np.zeros((0, dimension), np.float32)]
    for start in range(0, len(inputs), BATCH):
        parts.append(encode(inputs[start : start + BATCH]))
    return np.concatenate(parts)


# Types are given, because an empty chunk has no values that pyarrow could infer them from.
ITEMS = pa.schema([("id", pa.string()), ("split", pa.string()), ("label", pa.string())])
REJECTIONS = pa.schema([("id", pa.string()), ("stage", pa.string()), ("reason", pa.string())])


def _item_table(clips: list[Clip], vectors: Mapping[str, np.ndarray]) -> pa.Table:
    rows = [{"id": clip.id, "split": clip.split, "label": clip.label} for clip in clips]
    table = pa.Table.from_pylist(rows, schema=ITEMS)
    for modality in ("audio", "video"):
        if modality in vectors:
            table = table.append_column(modality, vector_column(vectors[modality]))
    # A dict keeps the columns in the order of the corpus, where a set would shuffle them.
    for name in dict.fromkeys(chain.from_iterable(clip.extra for clip in clips)):
        if name not in table.column_names:  # a list's own "id" does not replace the store's
            table = table.append_column(name, pa.array([clip.extra.get(name) for clip in clips]))
    return table


def _caption_table(encoder: Encoder, clips: list[Clip], rejected: list[Rejected]) -> pa.Table:
    """The captions of clips; those without a direction are added to `rejected`."""
    ids: list[str] = []
    captions: list[str] = []
    for clip in clips:
        ids += [clip.id] * len(clip.captions)
        captions += clip.captions
    vectors = _encode_in_batches(encoder.encode_text, captions, encoder.dimension)
    is_good = np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)
    for row in np.flatnonzero(~is_good):
        reason = f"the embedding of caption {captions[row]!r} is zero or not finite"
        rejected.append(Rejected(ids[row], "text", reason))
    columns = [
        pa.array(compress(ids, is_good), pa.string()),
        pa.array(compress(captions, is_good), pa.string()),
        vector_column(vectors[is_good]),
    ]
    return pa.table(columns, names=["id", "caption", "text"])


def rejection_table(rejected: Sequence[Rejected]) -> pa.Table:
    """Rejected clips and captions, as rejected.parquet has them."""
    return pa.Table.from_pylist([asdict(rejection) for rejection in rejected], schema=REJECTIONS)

"""Runs a frozen encoder over a corpus, in worker processes, into an embedding store.

The store does not depend on the number of workers. A bad clip is left out and reported; the
store appears whole, at the end.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.signal import resample_poly

from diffgap import encoders
from diffgap.corpora.base import Clip, Corpus
from diffgap.encoders import Encoder
from diffgap.errors import ClipError, UserError
from diffgap.store import EmbeddingStore, EncoderInfo, write_store
from diffgap.store_content import vector_column

CHUNK = 64
"""Clips a worker takes at once, and encodes together."""

IN_PROCESS = 2 * CHUNK
"""Corpora up to this size are not worth starting processes for."""


@dataclass(frozen=True)
class Rejected:
    """A clip, or one of its captions, that is not in the store."""

    id: str
    stage: str
    """corpus, audio, video or text."""
    reason: str


@dataclass(frozen=True)
class EmbedResult:
    """What an embedding run made."""

    store: EmbeddingStore
    rejected: list[Rejected]
    seconds: float


@dataclass
class _Chunk:
    """The embedded clips of a chunk, in order."""

    clips: list[Clip] = field(default_factory=list)
    vectors: dict[str, np.ndarray] = field(default_factory=dict)
    """Per modality; text has a row a caption."""
    rejected: list[Rejected] = field(default_factory=list)


def embed(
    corpus: Corpus,
    encoder_name: str,
    out: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> EmbedResult:
    """Encodes every clip of a corpus.

    Args:
        corpus: where the clips come from.
        encoder_name: one of `encoders.NAMES`.
        out: the store's directory; must not exist.
        progress: called with clips done and clips in all.
        workers: processes; default one a core.

    Raises:
        UserError: where `out` is taken, or no clip can be used.
    """
    if out.exists():
        raise UserError(f"--out: {out} exists already; remove it, or give another place")
    started = time.monotonic()
    encoder = encoders.load(encoder_name)
    clips, listed_wrong = _usable(corpus)
    modalities = tuple(m for m in corpus.modalities if m in encoder.modalities)
    chunks = []
    for chunk in _run(corpus, encoder_name, modalities, clips, workers or os.cpu_count() or 1):
        chunks.append(chunk)
        if progress:
            progress(min(len(chunks) * CHUNK, len(clips)), len(clips))
    rejected = listed_wrong + [bad for chunk in chunks for bad in chunk.rejected]
    kept = [clip for chunk in chunks for clip in chunk.clips]
    if not kept:
        reasons = "; ".join(f"{bad.id}: {bad.reason}" for bad in rejected[:3]) or "it is empty"
        raise UserError(f"corpus {corpus.name}: no clip can be used ({reasons})")
    vectors = {m: np.concatenate([c.vectors[m] for c in chunks if c.clips]) for m in modalities}
    info = EncoderInfo(name=encoder.name, checkpoint_hash=encoder.checkpoint_hash)
    captions = _captions(kept, vectors["text"]) if "text" in vectors else None
    extra = {"rejected": _rejections(rejected)} if rejected else {}
    store = write_store(out, _items(kept, vectors), captions, info, corpus.name, extra)
    return EmbedResult(store, rejected, time.monotonic() - started)


def _usable(corpus: Corpus) -> tuple[list[Clip], list[Rejected]]:
    """Clips with their captions that say something, where the corpus has text at all."""
    if "text" not in corpus.modalities:
        return corpus.clips(), []
    usable, rejected = [], []
    for clip in corpus.clips():
        told = tuple(text for text in clip.captions if any(map(str.isalnum, text)))
        for text in clip.captions:
            if text not in told:
                rejected.append(Rejected(clip.id, "text", f"caption {text!r} has no word"))
        if told:
            usable.append(replace(clip, captions=told))
        else:
            rejected.append(Rejected(clip.id, "corpus", "it has no caption"))
    return usable, rejected


# In the workers ---------------------------------------------------------------------------------


def _run(
    corpus: Corpus, encoder_name: str, modalities: tuple[str, ...], clips: list[Clip], workers: int
) -> Iterator[_Chunk]:
    """The chunks in order, embedded by as many processes as are worth it."""
    parts = [clips[i : i + CHUNK] for i in range(0, len(clips), CHUNK)]
    if len(clips) <= IN_PROCESS or workers == 1:
        job = _Job(corpus, encoders.load(encoder_name), modalities)
        yield from map(job.chunk, parts)
        return
    pool = ProcessPoolExecutor(
        min(workers, len(parts)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start,
        initargs=(corpus, encoder_name, modalities),
    )
    try:
        futures: list[Future[_Chunk]] = [pool.submit(_work, part) for part in parts]
        for future in futures:
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


_job: _Job | None = None


def _start(corpus: Corpus, encoder_name: str, modalities: tuple[str, ...]) -> None:
    """Prepares a worker process: one thread, its own encoder."""
    import torch

    global _job
    torch.set_num_threads(1)
    _job = _Job(corpus, encoders.load(encoder_name), modalities)


def _work(clips: list[Clip]) -> _Chunk:
    assert _job is not None, "the pool's initializer has run"
    return _job.chunk(clips)


@dataclass(frozen=True)
class _Job:
    """What a worker does with clips."""

    corpus: Corpus
    encoder: Encoder
    modalities: tuple[str, ...]

    def chunk(self, clips: list[Clip]) -> _Chunk:
        chunk = _Chunk()
        streams: dict[str, list[np.ndarray]] = {m: [] for m in self.modalities if m != "text"}
        for clip in clips:
            decoded = {}
            try:
                for modality in streams:
                    decoded[modality] = self._decode(clip, modality)
            except ClipError as error:
                chunk.rejected.append(Rejected(clip.id, modality, str(error)))
                continue
            chunk.clips.append(clip)
            for modality, stream in decoded.items():
                streams[modality].append(stream)
        if chunk.clips:
            chunk.vectors = self._encode(chunk.clips, streams)
        return chunk

    def _decode(self, clip: Clip, modality: str) -> np.ndarray:
        if modality == "video":
            return self.corpus.video(clip)
        samples, rate = self.corpus.audio(clip)
        return resample(samples, rate, self.encoder.sample_rate)

    def _encode(
        self, clips: list[Clip], streams: dict[str, list[np.ndarray]]
    ) -> dict[str, np.ndarray]:
        vectors = {}
        if "text" in self.modalities:
            captions = [caption for clip in clips for caption in clip.captions]
            vectors["text"] = self.encoder.encode_text(captions)
        if "audio" in streams:
            vectors["audio"] = self.encoder.encode_audio(streams["audio"])
        if "video" in streams:
            vectors["video"] = self.encoder.encode_video(streams["video"])
        return vectors


def resample(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """(samples,) at one rate to float32 at another, in Hz, by a polyphase filter."""
    if rate == wanted:
        return samples
    common = math.gcd(rate, wanted)
    return resample_poly(samples, wanted // common, rate // common).astype(np.float32)


# Tables -----------------------------------------------------------------------------------------


def _items(clips: list[Clip], vectors: dict[str, np.ndarray]) -> pa.Table:
    columns = {
        "id": pa.array([clip.id for clip in clips]),
        "split": pa.array([clip.split for clip in clips]),
        "label": pa.array([clip.label for clip in clips], pa.string()),
    }
    for name in ("audio", "video"):
        if name in vectors:
            columns[name] = vector_column(vectors[name])
    extra = list(dict.fromkeys(key for clip in clips for key in clip.extra))
    columns |= {key: pa.array([clip.extra.get(key) for clip in clips]) for key in extra}
    return pa.table(columns)


def _captions(clips: list[Clip], text: np.ndarray) -> pa.Table:
    return pa.table(
        {
            "id": pa.array([clip.id for clip in clips for _ in clip.captions]),
            "caption": pa.array([caption for clip in clips for caption in clip.captions]),
            "text": vector_column(text),
        }
    )


def _rejections(rejected: list[Rejected]) -> pa.Table:
    return pa.table(
        {
            "id": [bad.id for bad in rejected],
            "stage": [bad.stage for bad in rejected],
            "reason": [bad.reason for bad in rejected],
        }
    )

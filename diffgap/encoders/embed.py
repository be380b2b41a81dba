"""A frozen encoder over a corpus, into an embedding store.

Finished chunks are written to disk at once: a killed run is resumed by starting it again, and its
store is the same byte for byte. Chunks that are damaged, or whose files have changed since, are
made anew. A bad clip is left out and reported; the store appears at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from diffgap.corpora.base import Clip, Corpus, Rejected
from diffgap.encoders import EncoderChoice
from diffgap.encoders.base import Encoder
from diffgap.encoders.chunks import (
    WINDOWS,
    EmbeddingTables,
    InputSpec,
    decode_chunk,
    encode_chunk,
    rejection_table,
)
from diffgap.encoders.partial import PartialStore, source_hash
from diffgap.encoders.stream import EncoderPool, stream_chunks
from diffgap.errors import UserError
from diffgap.io.locks import only_maker
from diffgap.store.manifest import EncoderInfo
from diffgap.store.parquet import write_parquet
from diffgap.store.store import EmbeddingStore, write_store

CHUNK = 32  # clips that are decoded, encoded and written together
IN_PROCESS = 8  # chunks that are not worth starting a cluster for
Progress = Callable[[int, int], None]  # called with clips done and clips in all


@dataclass(frozen=True)
class EmbedResult:
    """A finished embedding run."""

    store: EmbeddingStore
    rejected: list[Rejected]
    seconds: float


class TooManyRejectedError(RuntimeError):
    """More clips were left out than allowed; no store was made."""


class StoreExistsError(UserError):
    """The path of the store is taken, maybe since a moment ago by another process."""


def embed(
    corpus: Corpus,
    choice: EncoderChoice,
    out: Path,
    *,
    long_clips: str = "crop",
    max_rejected: float = 1.0,
    pool: EncoderPool = EncoderPool(),  # noqa: B008 - immutable
    progress: Progress | None = None,
) -> EmbedResult:
    """Encodes every clip of a corpus.

    One process at a time makes a store; another one waits, and then raises `StoreExistsError`.

    Args:
        out: the store's directory; must not exist.
        long_clips: crop or mean, for clips longer than the encoder's window.
        max_rejected: fraction of all clips that may be left out.

    Raises:
        StoreExistsError: where `out` exists.
        UserError: where corpus and encoder have too little in common, or no clip can be used.
        TooManyRejectedError: at the end, naming the report; the embeddings are kept, so that the
            same command with a higher limit finishes at once.
    """
    assert long_clips in WINDOWS, long_clips
    start = time.monotonic()
    _check_absent(out)
    with only_maker(out):
        _check_absent(out)  # again, after a wait
        job = _Job.of(corpus, choice, long_clips, pool)
        store, rejected = _make_store(job, out, max_rejected, progress)
    return EmbedResult(store, rejected, time.monotonic() - start)


def _check_absent(out: Path) -> None:
    if out.exists():
        raise StoreExistsError(f"--out: {out} exists already; remove it, or give another path")


def _make_store(
    job: _Job, out: Path, max_rejected: float, progress: Progress | None
) -> tuple[EmbeddingStore, list[Rejected]]:
    """The store, and the clips and captions that are not in it."""
    clips, rejected = _select_clips(job)
    if not clips:
        raise UserError(_no_usable_clip(job.corpus, rejected))
    partial = PartialStore.open(out, job.request())
    tables = _encode(job, clips, partial, progress)
    rejected += [Rejected(**row) for row in tables.rejected.to_pylist()]
    if not len(tables.items):
        partial.remove()
        raise UserError(_no_usable_clip(job.corpus, rejected))
    _check_rejected(rejected, len(tables.items), max_rejected, partial)
    store = _write(out, job, tables, rejected)
    partial.remove()
    return store, rejected


@dataclass(frozen=True)
class _Job:
    """A corpus, an encoder, how clips become its inputs, and where it runs."""

    corpus: Corpus
    choice: EncoderChoice
    encoder: Encoder
    spec: InputSpec
    pool: EncoderPool

    @classmethod
    def of(cls, corpus: Corpus, choice: EncoderChoice, long_clips: str, pool: EncoderPool) -> _Job:
        encoder = choice.load()
        modalities = _common_modalities(corpus, encoder)
        return cls(corpus, choice, encoder, InputSpec.of(encoder, modalities, long_clips), pool)

    def request(self) -> dict[str, object]:
        """What decides the store's content, apart from the clips."""
        return {
            "corpus": self.corpus.name,
            "encoder": self.encoder.name,
            "checkpoint": self.encoder.checkpoint_hash,
            "modalities": list(self.spec.modalities),
            "window": self.spec.long_clips,
            "chunk": CHUNK,
        }


def _common_modalities(corpus: Corpus, encoder: Encoder) -> tuple[str, ...]:
    common = tuple(m for m in corpus.modalities if m in encoder.modalities)
    if len(common) < 2 or "audio" not in common:
        raise UserError(
            f"--encoder: {encoder.name} takes {', '.join(encoder.modalities)} and the corpus "
            f"{corpus.name} has {', '.join(corpus.modalities)}; both need audio and another one"
        )
    return common


def _select_clips(job: _Job) -> tuple[list[Clip], list[Rejected]]:
    """Every clip once, where text is embedded with its captions that have a word."""
    clips: list[Clip] = []
    rejected = list(job.corpus.rejected)
    ids: set[str] = set()
    for clip in job.corpus.clips():
        if clip.id in ids:
            rejected.append(Rejected(clip.id, "corpus", "listed twice; the first is kept"))
            continue
        ids.add(clip.id)
        captions: list[str] = []
        if "text" in job.spec.modalities:
            captions = _usable_captions(clip, rejected)
            if not captions:
                rejected.append(Rejected(clip.id, "corpus", "it has no caption"))
                continue
        clips.append(replace(clip, captions=tuple(captions)))
    return clips, rejected


def _usable_captions(clip: Clip, rejected: list[Rejected]) -> list[str]:
    captions = []
    for caption in clip.captions:
        if any(map(str.isalnum, caption)):
            captions.append(caption)
        else:
            rejected.append(Rejected(clip.id, "text", f"caption {caption!r} has no word"))
    return captions


def _no_usable_clip(corpus: Corpus, rejected: list[Rejected]) -> str:
    reasons = "; ".join(f"{bad.id}: {bad.reason}" for bad in rejected[:3]) or "it is empty"
    return f"corpus {corpus.name}: no clip can be used ({reasons})"


def _check_rejected(
    rejected: list[Rejected], usable: int, max_rejected: float, partial: PartialStore
) -> None:
    # A caption that is left out does not cost its clip.
    lost = len({bad.id for bad in rejected if bad.stage != "text"})
    total = usable + lost
    if lost <= max_rejected * total:
        return
    report = partial.path / "rejected.parquet"
    write_parquet(rejection_table(rejected), report)
    raise TooManyRejectedError(
        f"{lost} of {total} clips ({100 * lost / total:.1f} %) cannot be used, more than "
        f"--max-rejected {100 * max_rejected:g}%; no store was made. Which and why: {report}. "
        "The same command tries them again, and with a higher limit finishes at once"
    )


def _encode(
    job: _Job, clips: list[Clip], partial: PartialStore, progress: Progress | None
) -> EmbeddingTables:
    """The tables of all clips; chunks that an earlier run has finished are not encoded again."""
    chunks: dict[int, list[Clip]] = {}
    for start in range(0, len(clips), CHUNK):
        chunks[start // CHUNK] = clips[start : start + CHUNK]
    # Before any file is read: one that changes meanwhile gets its chunk made anew by the next run.
    sources = {number: source_hash(job.corpus, chunk) for number, chunk in chunks.items()}
    missing = {}
    for number, chunk in chunks.items():
        is_finished = partial.is_finished(number, sources[number])
        if not is_finished or _can_read_more(job, chunk, partial.rejected_ids(number)):
            missing[number] = chunk
    encoded = len(clips) - sum(map(len, missing.values()))
    for number, tables in _encode_each(job, missing):
        partial.write_chunk(number, tables, sources[number])
        encoded += len(missing[number])
        if progress:
            progress(encoded, len(clips))
    return partial.read_all(len(chunks))


def _can_read_more(job: _Job, chunk: list[Clip], rejected: set[str]) -> bool:
    """Whether a clip that an earlier run has left out of a chunk can be read now."""
    # Its file may be the same: a disk was away, or a library that reads it was not installed.
    again = [clip for clip in chunk if clip.id in rejected]
    return bool(decode_chunk(job.corpus, again, job.spec).clips)


def _encode_each(job: _Job, chunks: dict[int, list[Clip]]) -> Iterator[tuple[int, EmbeddingTables]]:
    """The tables of these chunks, in the order in which they are finished."""
    # Whoever names a pool wants it, however few the chunks.
    if len(chunks) > IN_PROCESS or (chunks and job.pool != EncoderPool()):
        yield from stream_chunks(job.corpus, job.choice, job.spec, chunks, job.pool)
        return
    import torch

    # As in a Ray worker: another number of threads may add in another order, and round otherwise.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for number, clips in chunks.items():
            decoded = decode_chunk(job.corpus, clips, job.spec)
            yield number, encode_chunk(job.encoder, decoded, job.spec.modalities)
    finally:
        torch.set_num_threads(threads)


def _write(
    out: Path, job: _Job, tables: EmbeddingTables, rejected: list[Rejected]
) -> EmbeddingStore:
    info = EncoderInfo(
        name=job.encoder.name,
        checkpoint_hash=job.encoder.checkpoint_hash,
        preprocessing={**job.encoder.preprocessing, "long_clips": job.spec.long_clips},
    )
    extra = {"rejected": rejection_table(rejected)} if rejected else {}
    return write_store(out, tables.items, tables.captions, info, job.corpus.name, extra)

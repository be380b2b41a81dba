"""Runs a frozen encoder over a corpus into an embedding store.

Ray Data streams chunks of clips from CPU tasks that decode to actors that encode, on GPUs where
there are any. Finished chunks are on disk at once: killed and started again, a run goes on with
what is missing, and its store is the same byte for byte. A bad clip is left out and reported; the
store appears whole, at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from diffgap.corpora.base import Clip, Corpus, Rejected
from diffgap.encoders import EncoderChoice
from diffgap.encoders.base import Encoder
from diffgap.encoders.chunks import WINDOWS, DecodingRecipe, Tables, decode, encode, rejections
from diffgap.encoders.partial import PartialStore, listing_hash
from diffgap.encoders.stream import Pool, stream
from diffgap.errors import UserError
from diffgap.store.store import EmbeddingStore, EncoderInfo, write_store

CHUNK = 32
"""Clips that are decoded, encoded and written together."""

IN_PROCESS = 8
"""Chunks that are not worth starting a cluster for."""


@dataclass(frozen=True)
class EmbedResult:
    """What an embedding run made."""

    store: EmbeddingStore
    rejected: list[Rejected]
    seconds: float


class TooManyRejectedError(RuntimeError):
    """More clips were left out than allowed; no store was made."""


def embed(
    corpus: Corpus,
    choice: EncoderChoice,
    out: Path,
    *,
    long_clips: str = "crop",
    max_rejected: float = 1.0,
    pool: Pool = Pool(),  # noqa: B008 - immutable
    progress: Callable[[int, int], None] | None = None,
) -> EmbedResult:
    """Encodes every clip of a corpus.

    Args:
        corpus: where the clips come from.
        choice: the encoder.
        out: the store's directory; must not exist.
        long_clips: crop or mean, for clips longer than the encoder's window.
        max_rejected: share of all clips that may be left out.
        pool: where the encoders run.
        progress: called with clips done and clips in all.

    Raises:
        UserError: where `out` is taken, corpus and encoder have too little in common, or no clip
            can be used.
        TooManyRejectedError: at the end, naming the report; the embeddings are kept, so that the
            same command with a higher limit ends at once.
    """
    if out.exists():
        raise UserError(f"--out: {out} exists already; remove it, or give another place")
    assert long_clips in WINDOWS, long_clips
    started = time.monotonic()
    encoder = choice.load()
    modalities = _common(corpus, encoder)
    clips, unusable = _usable(corpus, modalities)
    rejected = [*corpus.rejected, *unusable]
    if not clips:
        raise UserError(_nothing_usable(corpus, rejected))
    recipe = DecodingRecipe.of(encoder, modalities, long_clips)
    partial = PartialStore.open(out, _request(corpus, encoder, clips, recipe))
    chunks = [clips[i : i + CHUNK] for i in range(0, len(clips), CHUNK)]
    missing = {n: chunk for n, chunk in enumerate(chunks) if n not in partial.done()}
    finished = len(clips) - sum(map(len, missing.values()))
    for number, tables in _work(corpus, choice, encoder, recipe, missing, pool):
        partial.add(number, tables)
        finished += len(missing[number])
        if progress:
            progress(finished, len(clips))
    made = partial.tables(len(chunks))
    rejected += [Rejected(**row) for row in made.rejected.to_pylist()]
    if not len(made.items):
        partial.remove()
        raise UserError(_nothing_usable(corpus, rejected))
    _check_share(rejected, len(made.items), max_rejected, partial)
    store = _finish(out, corpus, encoder, recipe, made, rejected)
    partial.remove()
    return EmbedResult(store, rejected, time.monotonic() - started)


def _common(corpus: Corpus, encoder: Encoder) -> tuple[str, ...]:
    common = tuple(m for m in corpus.modalities if m in encoder.modalities)
    if len(common) < 2 or "audio" not in common:
        raise UserError(
            f"--encoder: {encoder.name} takes {', '.join(encoder.modalities)} and the corpus "
            f"{corpus.name} has {', '.join(corpus.modalities)}; audio and one more must be common"
        )
    return common


def _usable(corpus: Corpus, modalities: tuple[str, ...]) -> tuple[list[Clip], list[Rejected]]:
    """Clips listed once, with their captions that say something where text is embedded."""
    usable: list[Clip] = []
    rejected: list[Rejected] = []
    seen: set[str] = set()
    for clip in corpus.clips():
        if clip.id in seen:
            rejected.append(Rejected(clip.id, "corpus", "listed twice; the first is kept"))
            continue
        seen.add(clip.id)
        if "text" not in modalities:
            usable.append(replace(clip, captions=()))
            continue
        told = tuple(text for text in clip.captions if any(map(str.isalnum, text)))
        rejected += [
            Rejected(clip.id, "text", f"caption {text!r} has no word")
            for text in clip.captions
            if text not in told
        ]
        if told:
            usable.append(replace(clip, captions=told))
        else:
            rejected.append(Rejected(clip.id, "corpus", "it has no caption"))
    return usable, rejected


def _nothing_usable(corpus: Corpus, rejected: list[Rejected]) -> str:
    reasons = "; ".join(f"{bad.id}: {bad.reason}" for bad in rejected[:3]) or "it is empty"
    return f"corpus {corpus.name}: no clip can be used ({reasons})"


def _request(
    corpus: Corpus, encoder: Encoder, clips: list[Clip], recipe: DecodingRecipe
) -> dict[str, object]:
    """What decides a store's content."""
    return {
        "corpus": corpus.name,
        "list of clips": listing_hash(clips),
        "encoder": encoder.name,
        "checkpoint": encoder.checkpoint_hash,
        "modalities": list(recipe.modalities),
        "window": recipe.long_clips,
        "chunk": CHUNK,
    }


def _check_share(
    rejected: list[Rejected], kept: int, max_rejected: float, partial: PartialStore
) -> None:
    lost = len({bad.id for bad in rejected if bad.stage != "text"})
    if lost <= max_rejected * (kept + lost):
        return
    report = partial.path / "rejected.parquet"
    pq.write_table(rejections(rejected), report)
    raise TooManyRejectedError(
        f"{lost} of {kept + lost} clips ({100 * lost / (kept + lost):.1f} %) cannot be used, more "
        f"than --max-rejected {100 * max_rejected:g}%; no store was made. Which and why: {report}. "
        "The same command with a higher limit ends at once"
    )


def _finish(
    out: Path,
    corpus: Corpus,
    encoder: Encoder,
    recipe: DecodingRecipe,
    made: Tables,
    rejected: list[Rejected],
) -> EmbeddingStore:
    info = EncoderInfo(
        name=encoder.name,
        checkpoint_hash=encoder.checkpoint_hash,
        preprocessing={**encoder.preprocessing, "long_clips": recipe.long_clips},
    )
    extra: dict[str, pa.Table] = {"rejected": rejections(rejected)} if rejected else {}
    return write_store(out, made.items, made.captions, info, corpus.name, extra)


# Work -------------------------------------------------------------------------------------------


def _work(
    corpus: Corpus,
    choice: EncoderChoice,
    encoder: Encoder,
    recipe: DecodingRecipe,
    chunks: dict[int, list[Clip]],
    pool: Pool,
) -> Iterator[tuple[int, Tables]]:
    """The tables of these chunks, as they are finished."""
    if len(chunks) > IN_PROCESS or (chunks and pool != Pool()):
        yield from stream(corpus, choice, recipe, chunks, pool)
        return
    with _one_thread():
        for number, clips in chunks.items():
            yield number, encode(encoder, decode(corpus, clips, recipe), recipe.modalities)


@contextmanager
def _one_thread() -> Iterator[None]:
    """As in a Ray worker: another number of threads may add in another order."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

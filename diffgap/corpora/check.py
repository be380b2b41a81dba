"""Check of a corpus's files, before an hour of GPU time is spent on them."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from diffgap.corpora import BUILTIN
from diffgap.corpora.base import Clip, Corpus, Rejected
from diffgap.corpora.media import accessible
from diffgap.errors import ClipError, MissingClipError, UserError
from diffgap.io.cpus import usable_cpus

CHUNK = 16  # clips sent to a process at once; a smaller corpus is not worth starting processes for
CHECK_FPS, CHECK_SIZE = 1.0, 32  # every frame is decoded anyway; few small ones scale quickest


@dataclass
class CorpusCheck:
    """Which clips of a corpus can be used, and what is wrong with the others."""

    listed: Counter[str] = field(default_factory=Counter)  # clips by split
    usable: Counter[str] = field(default_factory=Counter)  # clips by split
    missing: list[Rejected] = field(default_factory=list)
    unreadable: list[Rejected] = field(default_factory=list)
    bad_lines: list[Rejected] = field(default_factory=list)  # unusable lines of its lists
    duplicates: list[tuple[str, ...]] = field(default_factory=list)
    """Ids of clips whose files are the same byte for byte, or that are listed twice."""

    @property
    def is_clean(self) -> bool:
        return not (self.missing or self.unreadable or self.bad_lines or self.duplicates)


@dataclass(frozen=True)
class _ClipCheck:
    problem: Rejected | None = None
    is_missing: bool = False
    digest: str = ""  # SHA-256 of its file; empty where there is none


def check_corpus(corpus: Corpus, progress: Callable[[int, int], None] | None = None) -> CorpusCheck:
    """Decodes every clip as embedding would, on all cores.

    `progress` is called with clips done and clips in all.

    Raises:
        UserError: where the corpus has no files to check.
    """
    if corpus.name in BUILTIN:
        raise UserError(f"corpus: {corpus.name} is generated, not read; there is nothing to check")
    clips = corpus.clips()
    result = CorpusCheck(bad_lines=list(corpus.rejected))
    same_content: dict[str, list[str]] = defaultdict(list)
    for number, (clip, check) in enumerate(zip(clips, _check_all(corpus, clips), strict=True), 1):
        result.listed[clip.split] += 1
        # By its id where it has no file: then only a clip that is listed twice is the same.
        same_content[check.digest or clip.id].append(clip.id)
        if check.problem is None:
            result.usable[clip.split] += 1
        elif check.is_missing:
            result.missing.append(check.problem)
        else:
            result.unreadable.append(check.problem)
        if progress:
            progress(number, len(clips))
    result.duplicates = [tuple(ids) for ids in same_content.values() if len(ids) > 1]
    return result


def _check_all(corpus: Corpus, clips: list[Clip]) -> Iterator[_ClipCheck]:
    """The check of each clip, in order."""
    if len(clips) <= CHUNK:
        _set_corpus(corpus)
        yield from map(_check_clip, clips)
        return
    with ProcessPoolExecutor(
        min(usable_cpus(), len(clips) // CHUNK + 1),
        # Not fork: FFmpeg and BLAS have threads, and a lock that one holds would stay held.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_set_corpus,
        initargs=(corpus,),
    ) as pool:
        yield from pool.map(_check_clip, clips, chunksize=CHUNK)


# In the workers ---------------------------------------------------------------------------------

# Sent once a process: the index of a large corpus is many megabytes, too many to go with a clip.
_corpus: Corpus | None = None


def _set_corpus(corpus: Corpus) -> None:
    global _corpus
    _corpus = corpus


def _check_clip(clip: Clip) -> _ClipCheck:
    assert _corpus is not None, "the pool's initializer has run"
    digest, modality = "", "corpus"
    try:
        if path := _corpus.path(clip):
            with accessible(), path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        for modality in _corpus.modalities:
            if modality == "audio":
                _corpus.audio(clip)
            elif modality == "video":
                _corpus.video(clip, CHECK_FPS, CHECK_SIZE)
    except ClipError as error:
        is_missing = isinstance(error, MissingClipError)
        return _ClipCheck(Rejected(clip.id, modality, str(error)), is_missing, digest)
    return _ClipCheck(digest=digest)

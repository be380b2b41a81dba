"""What of a corpus is there and can be read, before an hour of GPU time is spent on it."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from diffgap.corpora import BUILTIN
from diffgap.corpora.base import Clip, Corpus, Rejected
from diffgap.errors import ClipError, MissingClipError, UserError

CHUNK = 16
LOOK_FPS, LOOK_SIZE = 1.0, 32
"""Pictures are decoded, but barely looked at."""


@dataclass
class CorpusCheck:
    """The state of a corpus."""

    listed: Counter[str] = field(default_factory=Counter)
    """Clips by split."""
    usable: Counter[str] = field(default_factory=Counter)
    missing: list[Rejected] = field(default_factory=list)
    unreadable: list[Rejected] = field(default_factory=list)
    bad_lines: list[Rejected] = field(default_factory=list)
    """Lines of its lists that cannot be used."""
    duplicates: list[tuple[str, ...]] = field(default_factory=list)
    """Ids of clips that are the same file, byte for byte, or listed twice."""

    @property
    def is_clean(self) -> bool:
        return not (self.missing or self.unreadable or self.bad_lines or self.duplicates)


@dataclass(frozen=True)
class _Look:
    """One clip, looked at."""

    problem: Rejected | None = None
    missing: bool = False
    digest: str = ""


def check(corpus: Corpus, progress: Callable[[int, int], None] | None = None) -> CorpusCheck:
    """Decodes every clip as embedding would, on all cores.

    Args:
        corpus: of files.
        progress: called with clips done and clips in all.

    Raises:
        UserError: where the corpus has no files to check.
    """
    if corpus.name in BUILTIN:
        raise UserError(f"corpus: {corpus.name} is made, not read; there is nothing to check")
    clips = corpus.clips()
    found = CorpusCheck(bad_lines=list(corpus.rejected))
    same: dict[str, list[str]] = {}
    for done, (clip, look) in enumerate(zip(clips, _looks(corpus, clips), strict=True), 1):
        found.listed[clip.split] += 1
        if look.digest:
            same.setdefault(look.digest, []).append(clip.id)
        if look.problem is None:
            found.usable[clip.split] += 1
        else:
            (found.missing if look.missing else found.unreadable).append(look.problem)
        if progress:
            progress(done, len(clips))
    twice = [name for name, count in Counter(clip.id for clip in clips).items() if count > 1]
    found.duplicates = [tuple(ids) for ids in same.values() if len(ids) > 1]
    found.duplicates += [(name, name) for name in twice if not _told(name, found.duplicates)]
    return found


def _told(name: str, groups: list[tuple[str, ...]]) -> bool:
    return any(name in ids for ids in groups)


# In the workers ---------------------------------------------------------------------------------

_corpus: Corpus | None = None


def _looks(corpus: Corpus, clips: list[Clip]) -> Iterator[_Look]:
    """What each clip looks like, in order."""
    if len(clips) <= CHUNK:
        _start(corpus)
        yield from map(_look, clips)
        return
    with ProcessPoolExecutor(
        min(os.cpu_count() or 1, len(clips) // CHUNK + 1),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start,
        initargs=(corpus,),
    ) as pool:
        yield from pool.map(_look, clips, chunksize=CHUNK)


def _start(corpus: Corpus) -> None:
    global _corpus
    _corpus = corpus


def _look(clip: Clip) -> _Look:
    assert _corpus is not None, "the pool's initializer has run"
    digest, modality = "", "corpus"
    try:
        if path := _corpus.path(clip):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        for modality in _corpus.modalities:
            if modality == "audio":
                _corpus.audio(clip)
            elif modality == "video":
                _corpus.video(clip, LOOK_FPS, LOOK_SIZE)
    except ClipError as error:
        missing = isinstance(error, MissingClipError)
        return _Look(Rejected(clip.id, modality, str(error)), missing, digest)
    return _Look(digest=digest)

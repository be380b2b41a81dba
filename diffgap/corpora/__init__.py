"""Corpora: where pairs of clips and captions come from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from diffgap.errors import UserError, nearest

if TYPE_CHECKING:
    from diffgap.corpora.base import Corpus

BUILTIN = ("soundscapes",)
"""Corpora that need no files."""

NAMES = (*BUILTIN, "folder", "audiocaps", "vggsound")


def load(name: str, root: Path | None) -> Corpus:
    """The corpus of this name.

    Raises:
        UserError: where the name is unknown, or its files' directory is missing or not needed.
    """
    if name not in NAMES:
        raise UserError(f"corpus: unknown corpus {name!r}; {nearest(name, NAMES)}")
    if name in BUILTIN:
        if root is not None:
            raise UserError(f"--root: {name} is made, not read; leave --root out")
        from diffgap.corpora.soundscapes import SoundscapeCorpus

        return SoundscapeCorpus()
    if root is None:
        raise UserError(f"--root: missing; give the directory of the {name} corpus")
    if name == "audiocaps":
        from diffgap.corpora.audiocaps import AudioCapsCorpus

        return AudioCapsCorpus(root)
    if name == "vggsound":
        from diffgap.corpora.vggsound import VGGSoundCorpus

        return VGGSoundCorpus(root)
    from diffgap.corpora.folder import FolderCorpus

    return FolderCorpus(root)

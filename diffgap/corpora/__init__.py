"""Corpora: where pairs of clips and captions come from."""

from __future__ import annotations

import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

from diffgap.errors import UserError, nearest

if TYPE_CHECKING:
    from diffgap.corpora.base import Corpus

# Paths and not classes, so that the names are known before NumPy and soundfile are imported.
CORPORA = {
    "soundscapes": "diffgap.corpora.soundscapes:SoundscapeCorpus",
    "folder": "diffgap.corpora.folder:FolderCorpus",
    "audiocaps": "diffgap.corpora.audiocaps:AudioCapsCorpus",
    "vggsound": "diffgap.corpora.vggsound:VGGSoundCorpus",
}
NAMES = tuple(CORPORA)

BUILTIN = ("soundscapes",)  # generated, without files; the others take a directory


def load(name: str, root: Path | None) -> Corpus:
    """The corpus of this name.

    Raises:
        UserError: where the name is unknown, or its directory is missing or not needed.
    """
    if name not in NAMES:
        raise UserError(f"corpus: unknown corpus {name!r}; {nearest(name, NAMES)}")
    if name in BUILTIN and root is not None:
        raise UserError(f"--root: {name} is generated, not read; leave --root out")
    if name not in BUILTIN and root is None:
        raise UserError(f"--root: missing; give the directory of the {name} corpus")
    corpus_class = pkgutil.resolve_name(CORPORA[name])
    return corpus_class() if root is None else corpus_class(root)

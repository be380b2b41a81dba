"""Finding clips below a directory whatever folder, prefix or format a release gave them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from diffgap.corpora.media import SOUND_SUFFIXES, VIDEO_SUFFIXES
from diffgap.errors import ClipError, MissingClipError


class MediaIndex:
    """All media files below a directory, by the name without its suffix."""

    def __init__(self, root: Path, suffixes: tuple[str, ...] = SOUND_SUFFIXES + VIDEO_SUFFIXES):
        self.root = root.resolve()
        self._files: dict[str, list[str]] = {}
        for path in sorted(self.root.rglob("*")):
            if path.suffix.lower() in suffixes:
                name = path.relative_to(self.root).as_posix()
                self._files.setdefault(path.stem, []).append(name)

    def find(self, stems: Iterable[str], suffixes: tuple[str, ...]) -> Path:
        """The one file with one of these stems.

        Raises:
            MissingClipError: where there is none.
            ClipError: where there are several and none can be preferred.
        """
        found = [
            name
            for stem in stems
            for name in self._files.get(stem, ())
            if name.lower().endswith(suffixes)
        ]
        if not found:
            raise MissingClipError("no such file")
        if len(found) > 1:
            raise ClipError(f"several files: {', '.join(found[:3])}; keep one")
        return self.root / found[0]

"""Index of the media files below a directory, whatever folder or format a release gave them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from diffgap.corpora.media import MEDIA_SUFFIXES
from diffgap.errors import ClipError, MissingClipError


class MediaIndex:
    """All media files below a directory, by the name without its suffix."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._files: dict[str, list[str]] = {}
        for path in sorted(self.root.rglob("*")):
            if path.suffix.lower() in MEDIA_SUFFIXES:
                # Strings, because an index of 200,000 paths is sent to every worker.
                name = path.relative_to(self.root).as_posix()
                self._files.setdefault(path.stem, []).append(name)

    def candidates(self, stems: Iterable[str], suffixes: tuple[str, ...]) -> list[Path]:
        """All files with one of these stems."""
        names: list[str] = []
        for stem in stems:
            names += [n for n in self._files.get(stem, ()) if n.lower().endswith(suffixes)]
        return [self.root / name for name in names]

    def find(self, stems: Iterable[str], suffixes: tuple[str, ...]) -> Path:
        """The one file with one of these stems.

        Raises:
            MissingClipError: where there is none.
            ClipError: where there are several, of which none can be preferred.
        """
        paths = self.candidates(stems, suffixes)
        if not paths:
            raise MissingClipError("no such file")
        if len(paths) > 1:
            names = [path.relative_to(self.root).as_posix() for path in paths[:3]]
            raise ClipError(f"several files: {', '.join(names)}; keep one")
        return paths[0]

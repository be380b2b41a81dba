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

    def find(self, stems: Iterable[str], suffixes: tuple[str, ...]) -> Path:
        """The one file with one of these stems.

        Raises:
            MissingClipError: where there is none.
            ClipError: where there are several, of which none can be preferred.
        """
        names: list[str] = []
        for stem in stems:
            candidates = self._files.get(stem, ())
            names += [name for name in candidates if name.lower().endswith(suffixes)]
        if not names:
            raise MissingClipError("no such file")
        if len(names) > 1:
            raise ClipError(f"several files: {', '.join(names[:3])}; keep one")
        return self.root / names[0]

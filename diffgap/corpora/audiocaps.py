"""AudioCaps (Kim et al., NAACL 2019): captions of ten-second clips of YouTube videos.

Below one directory: a list a split, and the audio in any folder. Lists are the official ones
(``audiocap_id,youtube_id,start_time,caption``, a row a caption) or those of other releases
(``file_name,caption_1..caption_5``, a row a clip), named after their split. Files are named
``<youtube_id>``, ``Y<youtube_id>`` or either with ``_<start>``, in any format.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffgap.corpora.base import Clip, Rejected
from diffgap.corpora.index import MediaIndex
from diffgap.corpora.lists import Row, header_of, read_table
from diffgap.corpora.media import SOUND_SUFFIXES, VIDEO_SUFFIXES, read_audio
from diffgap.errors import ClipError, UserError
from diffgap.store.splits import SPLITS

OFFICIAL = ("audiocap_id", "youtube_id", "start_time", "caption")
ALIASES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "eval", "evaluation"),
}
"""Last words of the names of lists."""


class AudioCapsCorpus:
    """AudioCaps; a clip's id is its YouTube id.

    Raises:
        UserError: where there is no list, or one is not what it should be.
    """

    name = "audiocaps"
    modalities: tuple[str, ...] = ("audio", "text")

    def __init__(self, root: Path) -> None:
        lists = _find_lists(root)
        self.rejected: list[Rejected] = []
        self._clips: list[Clip] = []
        for split in SPLITS:
            for path in lists.get(split, ())[:1]:
                rows = self._usable(path, read_table(path, _columns(path)))
                self._clips += (
                    _official(rows, split) if _is_official(path) else _by_file(rows, split)
                )
        self._files = MediaIndex(root)

    def clips(self) -> list[Clip]:
        return list(self._clips)

    def path(self, clip: Clip) -> Path:
        stems = [clip.id, f"Y{clip.id}"]
        if start := str(clip.extra.get("start", "")):
            stems += [f"{stem}_{start}" for stem in stems]
        return self._files.find(stems, SOUND_SUFFIXES + VIDEO_SUFFIXES)

    def audio(self, clip: Clip) -> tuple[np.ndarray, int]:
        return read_audio(self.path(clip))

    def video(self, clip: Clip, fps: float, size: int) -> np.ndarray:
        raise ClipError("AudioCaps is embedded without its pictures")

    def _usable(self, path: Path, rows: list[Row]) -> list[Row]:
        self.rejected += [
            Rejected(_clip_id(row), "corpus", f"{path.name} line {row.line}: {row.problem}")
            for row in rows
            if row.problem
        ]
        return [row for row in rows if not row.problem]


def _find_lists(root: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*.csv")):
        last_word = path.stem.lower().replace("-", "_").split("_")[-1]
        for split, names in ALIASES.items():
            if last_word in names:
                found.setdefault(split, []).append(path)
    if not found:
        raise UserError(
            f"{root}: has no list of AudioCaps (train.csv, val.csv, test.csv); put the official "
            "split files there, beside the audio"
        )
    if twice := [paths for paths in found.values() if len(paths) > 1]:
        raise UserError(*(f"{p[0]} and {p[1]}: lists of the same split; keep one" for p in twice))
    return found


def _is_official(path: Path) -> bool:
    return "youtube_id" in header_of(path)


def _columns(path: Path) -> list[str]:
    if _is_official(path) or "file_name" not in header_of(path):
        return list(OFFICIAL)
    return ["file_name", "caption_1"]


def _official(rows: list[Row], split: str) -> list[Clip]:
    by_id: dict[str, list[Row]] = {}
    for row in rows:
        by_id.setdefault(row.get("youtube_id"), []).append(row)
    return [
        Clip(
            id=name,
            split=split,
            captions=tuple(row.get("caption") for row in own if row.get("caption")),
            extra={"start": own[0].get("start_time")},
        )
        for name, own in by_id.items()
    ]


def _by_file(rows: list[Row], split: str) -> list[Clip]:
    names = [name for name in (rows[0].values if rows else ()) if name.startswith("caption")]
    return [
        Clip(
            id=_clip_id(row),
            split=split,
            captions=tuple(row.get(name) for name in names if row.get(name)),
        )
        for row in rows
    ]


def _clip_id(row: Row) -> str:
    """The YouTube id, which has eleven characters, also out of ``Y<id>.wav``."""
    if "youtube_id" in row.values:
        return row.get("youtube_id")
    stem = Path(row.get("file_name")).stem
    return stem[1:12] if stem.startswith("Y") and len(stem) >= 12 else stem[:11]

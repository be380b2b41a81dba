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
from diffgap.corpora.lists import Row, group_rows, header_of, read_table, usable_rows
from diffgap.corpora.media import MEDIA_SUFFIXES, read_audio
from diffgap.errors import ClipError, UserError
from diffgap.store.splits import SPLITS

OFFICIAL = ("audiocap_id", "youtube_id", "start_time", "caption")
ALIASES = {  # last words of the names of lists, by split
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "eval", "evaluation"),
}
ID_LENGTH = 11  # characters of a YouTube id


class AudioCapsCorpus:
    """AudioCaps; a clip's id is its YouTube id.

    Raises:
        UserError: where there is no list, two of the same split, or one has wrong columns.
    """

    name = "audiocaps"
    modalities: tuple[str, ...] = ("audio", "text")

    def __init__(self, root: Path) -> None:
        lists = _find_lists(root)
        self.rejected: list[Rejected] = []
        self._clips: list[Clip] = []
        for split in SPLITS:
            if split in lists:
                self._clips += self._read_list(lists[split], split)
        self._files = MediaIndex(root)

    def clips(self) -> list[Clip]:
        return list(self._clips)

    def path(self, clip: Clip) -> Path:
        stems = [clip.id, f"Y{clip.id}"]
        if start := str(clip.extra.get("start", "")):
            stems += [f"{stem}_{start}" for stem in stems]
        return self._files.find(stems, MEDIA_SUFFIXES)

    def files(self, clip: Clip) -> list[Path]:
        return [self.path(clip)]

    def audio(self, clip: Clip) -> tuple[np.ndarray, int]:
        return read_audio(self.path(clip))

    def video(self, clip: Clip, fps: float, size: int) -> np.ndarray:
        raise ClipError("AudioCaps is embedded without its video")

    def _read_list(self, path: Path, split: str) -> list[Clip]:
        header = header_of(path)
        has_row_per_clip = "file_name" in header and "youtube_id" not in header
        table = read_table(path, ("file_name", "caption_1") if has_row_per_clip else OFFICIAL)
        rows = usable_rows(path, table, _clip_id, self.rejected)
        return _clips_of_rows(rows, split) if has_row_per_clip else _official_clips(rows, split)


def _find_lists(root: Path) -> dict[str, Path]:
    lists: dict[str, Path] = {}
    problems = []
    for path in sorted(root.rglob("*.csv")):
        last_word = path.stem.lower().replace("-", "_").split("_")[-1]
        for split, names in ALIASES.items():
            if last_word in names and split in lists:
                problems.append(f"{lists[split]} and {path}: lists of the same split; keep one")
            elif last_word in names:
                lists[split] = path
    if not lists:
        raise UserError(
            f"{root}: has no list of AudioCaps (train.csv, val.csv, test.csv); put the official "
            "split files there, beside the audio"
        )
    if problems:
        raise UserError(*problems)
    return lists


def _official_clips(rows: list[Row], split: str) -> list[Clip]:
    clips = []
    for youtube_id, clip_rows in group_rows(rows, "youtube_id").items():
        captions = filter(None, (row.get("caption") for row in clip_rows))
        start = clip_rows[0].get("start_time")
        clips.append(Clip(youtube_id, split, tuple(captions), extra={"start": start}))
    return clips


def _clips_of_rows(rows: list[Row], split: str) -> list[Clip]:
    clips = []
    for row in rows:
        columns = filter(lambda name: name.startswith("caption"), row.values)
        captions = filter(None, map(row.get, columns))
        clips.append(Clip(_clip_id(row), split, tuple(captions)))
    return clips


def _clip_id(row: Row) -> str:
    if "youtube_id" in row.values:
        return row.get("youtube_id")
    stem = Path(row.get("file_name")).stem
    # An id may itself begin with Y: only where there is a character too many is it the prefix.
    if stem.startswith("Y") and len(stem) > ID_LENGTH:
        stem = stem[1:]
    return stem[:ID_LENGTH]

"""The corpus `folder`: a directory of recordings or videos, and a captions.csv.

captions.csv has a row a caption, with columns file_name and caption; split and label are used
where there are any, further columns are kept. A clip without a split gets one from its name. A
directory of videos needs no captions.csv: it then serves video-audio.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffgap.corpora.base import Clip, Rejected
from diffgap.corpora.lists import Row, group_rows, read_table, usable_rows
from diffgap.corpora.media import is_video, read_audio, read_video, within
from diffgap.errors import UserError
from diffgap.store.splits import SPLITS, split_of

CAPTIONS = "captions.csv"
COLUMNS = ("file_name", "caption", "split", "label")  # columns with a meaning of their own


class FolderCorpus:
    """Audio or video files, with or without captions, below one directory.

    It has video where every file is one.

    Raises:
        UserError: where captions.csv is missing and needed, or has wrong columns or splits.
    """

    name = "folder"

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.rejected: list[Rejected] = []
        files = [] if (root / CAPTIONS).exists() else self.root.rglob("*")
        videos = sorted(p.relative_to(self.root).as_posix() for p in files if is_video(p.name))
        if videos:
            self._clips = [Clip(name, split_of(name), ()) for name in videos]
        else:
            self._clips = self._captioned_clips(root / CAPTIONS)
        modalities = ["audio"]
        if not videos:
            modalities.append("text")
        if all(is_video(clip.id) for clip in self._clips):
            modalities.append("video")
        self.modalities = tuple(modalities)

    def clips(self) -> list[Clip]:
        """One clip a file, in the order of their first rows; its rows are its captions."""
        return list(self._clips)

    def path(self, clip: Clip) -> Path:
        return within(self.root, clip.id)

    def files(self, clip: Clip) -> list[Path]:
        return [self.path(clip)]

    def audio(self, clip: Clip) -> tuple[np.ndarray, int]:
        return read_audio(self.path(clip))

    def video(self, clip: Clip, fps: float, size: int) -> np.ndarray:
        return read_video(self.path(clip), fps, size)

    def _captioned_clips(self, path: Path) -> list[Clip]:
        table = read_table(path, ["file_name", "caption"])
        rows = usable_rows(path, table, lambda row: row.get("file_name"), self.rejected)
        files = group_rows(rows, "file_name")
        files.pop("", None)  # a row without a file is a line to be filled in, not a mistake
        problems = _split_problems(files)
        if problems:
            raise UserError(*problems)
        return [_clip(name, file_rows) for name, file_rows in files.items()]


def _split_problems(files: dict[str, list[Row]]) -> list[str]:
    problems = []
    for name, rows in files.items():
        lines = {row.get("split"): row.line for row in rows if row.get("split")}
        for split, line in lines.items():
            if split not in SPLITS:
                problems.append(
                    f"{CAPTIONS} (line {line}): {name} has split {split!r}, "
                    f"not one of {', '.join(SPLITS)}"
                )
        if len(lines) > 1:
            problems.append(f"{name}: is in the splits {', '.join(sorted(lines))}; keep one")
    return problems


def _clip(name: str, rows: list[Row]) -> Clip:
    first = rows[0]
    splits = filter(None, (row.get("split") for row in rows))
    captions = filter(None, (row.get("caption") for row in rows))
    return Clip(
        id=name,
        split=next(splits, None) or split_of(name),
        captions=tuple(captions),
        label=first.get("label") or None,
        extra={key: value for key, value in first.values.items() if key not in COLUMNS},
    )

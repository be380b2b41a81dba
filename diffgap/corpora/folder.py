"""The corpus `folder`: a directory of recordings or videos, and a captions.csv.

captions.csv has a row a caption, with columns file_name and caption; split and label are used
where they are there, further columns are kept. A clip without a split gets one from its name. A
directory of videos needs no captions.csv: it then serves video-audio.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffgap.corpora.base import Clip, Rejected
from diffgap.corpora.lists import Row, read_table
from diffgap.corpora.media import is_video, read_audio, read_video, within
from diffgap.errors import UserError
from diffgap.store.splits import SPLITS, split_of

CAPTIONS = "captions.csv"


class FolderCorpus:
    """Audio or video files, with or without captions, below one directory.

    It has video where every file is one.

    Raises:
        UserError: where captions.csv is missing and needed, or not what it should be.
    """

    name = "folder"

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        videos = [] if (root / CAPTIONS).exists() else _videos(self.root)
        rows = [] if videos else read_table(root / CAPTIONS, ["file_name", "caption"])
        self.rejected = [_reject(row) for row in rows if row.problem]
        self._clips = [Clip(name, split_of(name), ()) for name in videos] or _clips(
            [row for row in rows if not row.problem and row["file_name"]]
        )
        all_videos = all(is_video(clip.id) for clip in self._clips)
        self.modalities: tuple[str, ...] = ("audio",)
        self.modalities += () if videos else ("text",)
        self.modalities += ("video",) if all_videos else ()

    def clips(self) -> list[Clip]:
        """One clip a file, in the order of their first rows; its rows are its captions."""
        return list(self._clips)

    def path(self, clip: Clip) -> Path:
        return within(self.root, clip.id)

    def audio(self, clip: Clip) -> tuple[np.ndarray, int]:
        return read_audio(self.path(clip))

    def video(self, clip: Clip, fps: float, size: int) -> np.ndarray:
        return read_video(self.path(clip), fps, size)


def _videos(root: Path) -> list[str]:
    found = (p.relative_to(root).as_posix() for p in root.rglob("*") if is_video(p.name))
    return sorted(found)


def _reject(row: Row) -> Rejected:
    return Rejected(row["file_name"], "corpus", f"{CAPTIONS} line {row.line}: {row.problem}")


def _clips(rows: list[Row]) -> list[Clip]:
    problems = [
        f"{CAPTIONS} (line {row.line}): {row['file_name']} has split {row['split']!r}, "
        f"not one of {', '.join(SPLITS)}"
        for row in rows
        if row.get("split") and row.get("split") not in SPLITS
    ]
    by_file: dict[str, list[Row]] = {}
    for row in rows:
        by_file.setdefault(row["file_name"], []).append(row)
    for name, own in by_file.items():
        if len(splits := {row.get("split") for row in own} - {""}) > 1:
            problems.append(f"{name}: stands in the splits {', '.join(sorted(splits))}; keep one")
    if problems:
        raise UserError(*problems)
    return [_clip(name, own) for name, own in by_file.items()]


def _clip(name: str, rows: list[Row]) -> Clip:
    first = rows[0]
    known = {"file_name", "caption", "split", "label"}
    split = next((row.get("split") for row in rows if row.get("split")), None)
    return Clip(
        id=name,
        split=split or split_of(name),
        captions=tuple(row.get("caption") for row in rows if row.get("caption")),
        label=first.get("label") or None,
        extra={key: value for key, value in first.values.items() if key not in known},
    )

"""VGGSound (Chen et al., ICASSP 2020): ten-second clips of YouTube videos in 309 classes.

Below one directory: ``vggsound.csv`` (no header: YouTube id, start in seconds, label, train or
test), or ``train.csv`` and ``test.csv`` (no header: file name, label), and clips named
``<youtube_id>_<start in six digits>`` in any folder. VGGSound has no val split: one in `VAL_ONE_IN`
training clips, chosen by its id, becomes one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from diffgap.corpora.base import Clip, Rejected
from diffgap.corpora.index import MediaIndex
from diffgap.corpora.lists import Row, read_headless, usable_rows
from diffgap.corpora.media import SOUND_SUFFIXES, VIDEO_SUFFIXES, read_audio, read_video
from diffgap.errors import MissingClipError, UserError
from diffgap.store.splits import hash_fraction

WHOLE = "vggsound.csv"
VAL_ONE_IN = 64


class VGGSoundCorpus:
    """VGGSound; a clip's id is its YouTube id and its start, such as ``glLQrEijrKg_000300``.

    Raises:
        UserError: where there is no list with a usable row.
    """

    name = "vggsound"
    modalities: tuple[str, ...] = ("audio", "video")

    def __init__(self, root: Path) -> None:
        # In reverse, so that of two lists of one name the first stays.
        lists = {path.name: path for path in sorted(root.rglob("*.csv"), reverse=True)}
        self.rejected: list[Rejected] = []
        self._clips: list[Clip] = []
        if WHOLE in lists:
            for row in self._rows(lists[WHOLE], ["id", "start", "label", "split"]):
                self._add(f"{row.get('id')}_{int(row.get('start')):06d}", row, row.get("split"))
        else:
            for split in ("train", "test"):
                if path := lists.get(f"{split}.csv"):
                    for row in self._rows(path, ["file", "label"]):
                        self._add(Path(row.get("file")).stem, row, split)
        if not self._clips:
            raise UserError(
                f"{root}: has no list of VGGSound ({WHOLE}, or train.csv and test.csv); put it "
                "there, beside the clips"
            )
        self._files = MediaIndex(root)

    def clips(self) -> list[Clip]:
        return list(self._clips)

    def path(self, clip: Clip) -> Path:
        return self._files.find([clip.id], VIDEO_SUFFIXES)

    def files(self, clip: Clip) -> list[Path]:
        return [*self._files.candidates([clip.id], SOUND_SUFFIXES), self.path(clip)]

    def audio(self, clip: Clip) -> tuple[np.ndarray, int]:
        """The sound track; a sound file of the clip's name is taken first."""
        try:
            return read_audio(self._files.find([clip.id], SOUND_SUFFIXES))
        except MissingClipError:
            return read_audio(self.path(clip))

    def video(self, clip: Clip, fps: float, size: int) -> np.ndarray:
        return read_video(self.path(clip), fps, size)

    def _rows(self, path: Path, columns: list[str]) -> list[Row]:
        rows = []
        for row in read_headless(path, columns):
            rows.append(replace(row, problem=row.problem or _problem(row)))
        return usable_rows(path, rows, lambda row: row.get(columns[0]), self.rejected)

    def _add(self, name: str, row: Row, split: str) -> None:
        # By the id and not by chance, so that val is the same for everybody.
        if split == "train" and hash_fraction(name) < 1 / VAL_ONE_IN:
            split = "val"
        self._clips.append(Clip(name, split, (), label=row.get("label")))


def _problem(row: Row) -> str | None:
    if not row.get("label"):
        return "no label; a row is id,start,label,split or file,label"
    if "start" in row.values and not row.get("start").isdigit():
        return f"start is {row.get('start')!r}, not whole seconds"
    if "split" in row.values and row.get("split") not in ("train", "test"):
        return f"split is {row.get('split')!r}, not train or test"
    return None

"""The corpus `folder`: a directory of audio files and a captions.csv.

captions.csv has a row a caption, with columns file_name and caption; split and label are used
where they are there, further columns are kept. A clip without a split gets one from its name.
"""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from diffgap.corpora.base import Clip
from diffgap.errors import ClipError, UserError
from diffgap.store_content import SPLITS

CAPTIONS = "captions.csv"

SILENCE = 1e-4
"""Peak below which a recording counts as silent (-80 dBFS)."""


class FolderCorpus:
    """Audio files with captions below one directory.

    Raises:
        UserError: where captions.csv is missing or not what it should be.
    """

    name = "folder"
    modalities: tuple[str, ...] = ("audio", "text")

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._rows = _read_rows(root / CAPTIONS)

    def clips(self) -> list[Clip]:
        """One clip a file, in the order of their first rows; its rows are its captions."""
        by_file: dict[str, list[dict[str, str]]] = {}
        for row in self._rows:
            by_file.setdefault(row["file_name"], []).append(row)
        return [_clip(name, rows) for name, rows in by_file.items()]

    def audio(self, clip: Clip) -> tuple[np.ndarray, int]:
        """Reads one file, mixed down to mono."""
        path = (self.root / clip.id).resolve()
        if not path.is_relative_to(self.root):
            raise ClipError("its path climbs out of the corpus's directory")
        if not path.is_file():
            raise ClipError("no such file")
        if not path.stat().st_size:
            raise ClipError("the file is empty")
        try:
            samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise ClipError(f"not readable as audio: {error}") from None
        mono = samples.mean(axis=1)
        if not len(mono):
            raise ClipError("it holds no samples")
        if not np.isfinite(mono).all():
            raise ClipError("it holds samples that are not finite")
        if np.abs(mono).max() < SILENCE:
            raise ClipError("it is silent")
        return mono, int(rate)

    def video(self, clip: Clip) -> np.ndarray:
        raise ClipError("a folder of audio files has no video")


def _read_rows(path: Path) -> list[dict[str, str]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError:
        raise UserError(f"{path}: missing; write it with columns file_name,caption") from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise UserError(f"{path} (line {line}): not UTF-8; save the file as UTF-8") from None
    reader = csv.DictReader(text.splitlines(), restkey="", restval="")
    missing = {"file_name", "caption"} - set(reader.fieldnames or ())
    if missing:
        raise UserError(f"{path} (line 1): no column {', '.join(sorted(missing))}; add it")
    rows = [row for row in reader if row["file_name"]]
    if not rows:
        raise UserError(f"{path}: names no file; add a row file_name,caption for each caption")
    problems = [
        f"{path}: {row['file_name']} has split {row['split']!r}, not one of {', '.join(SPLITS)}"
        for row in rows
        if row.get("split") and row["split"] not in SPLITS
    ]
    if problems:
        raise UserError(*problems)
    return rows


def _clip(name: str, rows: list[dict[str, str]]) -> Clip:
    first = rows[0]
    splits = {row["split"] for row in rows if row.get("split")}
    if len(splits) > 1:
        raise UserError(f"{name}: stands in the splits {', '.join(sorted(splits))}; keep one")
    known = {"file_name", "caption", "split", "label", ""}
    extra: dict[str, Any] = {key: value for key, value in first.items() if key not in known}
    return Clip(
        id=name,
        split=splits.pop() if splits else split_of(name),
        captions=tuple(row["caption"].strip() for row in rows if row["caption"].strip()),
        label=first.get("label") or None,
        extra=extra,
    )


def split_of(name: str) -> str:
    """train for 80 % of all names, val and test for 10 % each: by the name's SHA-256."""
    share = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32
    return "train" if share < 0.8 else "val" if share < 0.9 else "test"

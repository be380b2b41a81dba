"""Generated clips of each cell beside the real ones, for a page to play."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from diffgap.ledger.artifacts import GENERATED, PLAYED
from diffgap.report.results import Cell, read_cells, setting_of
from diffgap.report.tables.generation import cells_by_task, row_names
from diffgap.tracking.reader import LoggedSweep


@dataclass(frozen=True)
class AudioClip:
    """One clip, as it really sounds and as each cell made it.

    Attributes:
        clip: its id.
        caption: the text it was generated from; None where that was a video.
        real: its own sound, as a URL that holds the sound itself.
        generated: the same of each cell's, by the row's name.
    """

    clip: str
    caption: str | None
    real: str
    generated: dict[str, str]


@dataclass(frozen=True)
class AudioGallery:
    """The clips of one task of a sweep."""

    title: str
    clips: tuple[AudioClip, ...]


def audio_galleries(sweeps: Sequence[LoggedSweep]) -> list[AudioGallery]:
    """The clips of all sweeps of generation, as the first finished seed of each cell made them."""
    galleries = []
    for sweep in sweeps:
        finished = [cell for cell in read_cells(sweep) if cell.finished and cell.trial.generates]
        for task, cells in cells_by_task(finished).items():
            setting = replace(setting_of(sweep), task=task)
            title = f"Generated on {setting}, {task} (sweep {sweep.name})"
            galleries.append(AudioGallery(title, tuple(_clips(cells))))
    return galleries


def _clips(cells: Sequence[Cell]) -> list[AudioClip]:
    directories = {}
    for cell, name in zip(cells, row_names(cells), strict=True):
        directory = cell.finished[0].files
        assert directory, "a finished trial has files"
        directories[name] = directory
    first = next(iter(directories.values()))
    # All cells generate the same clips in the same order, and keep the sounds of the first few.
    rows = pq.read_table(first / GENERATED).to_pylist()
    playable = len(list((first / PLAYED).glob("*-real.flac")))
    clips = []
    for number, row in enumerate(rows[:playable]):
        generated = {}
        for name, directory in directories.items():
            generated[name] = _sound_url(directory / PLAYED / f"{number}-made.flac")
        real = _sound_url(first / PLAYED / f"{number}-real.flac")
        clips.append(AudioClip(row["clip"], row.get("caption"), real, generated))
    return clips


def _sound_url(path: Path) -> str:
    return f"data:audio/flac;base64,{base64.b64encode(path.read_bytes()).decode()}"

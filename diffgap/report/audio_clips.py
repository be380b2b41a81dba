"""A few generated clips of each cell, beside the real ones, to be played from a page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from diffgap.ledger.artifacts import GENERATED, PLAYED
from diffgap.report.results import read_cells, setting_of
from diffgap.report.tables.generation import GenerationCell, ordered, row_names
from diffgap.tracking.reader import LoggedSweep


@dataclass(frozen=True)
class AudioClip:
    """One clip, as it really sounds and as each cell made it.

    Attributes:
        clip: its id.
        caption: what asked for it, where that was a text.
        real: the URL of its own sound, which holds the sound itself.
        made: the same of what was made, by the row's name.
    """

    clip: str
    caption: str | None
    real: str
    made: dict[str, str]


@dataclass(frozen=True)
class AudioGallery:
    """The clips of one task of a sweep."""

    title: str
    clips: tuple[AudioClip, ...]


def audio_gallery(sweeps: Sequence[LoggedSweep]) -> list[AudioGallery]:
    """The clips of all sweeps of generation, as the first finished seed of each cell made them."""
    found = []
    for sweep in sweeps:
        by_task: dict[str, list[GenerationCell]] = {}
        for cell in read_cells(sweep):
            if cell.finished and cell.trial.generates:
                by_task.setdefault(cell.trial.task, []).append(GenerationCell(cell))
        for task, cells in by_task.items():
            setting = replace(setting_of(sweep), task=task)
            title = f"Generated on {setting}, {task} (sweep {sweep.name})"
            found.append(AudioGallery(title, tuple(_clips(ordered(cells)))))
    return found


def _clips(cells: Sequence[GenerationCell]) -> list[AudioClip]:
    files = [made.cell.finished[0].files for made in cells]
    first = files[0]
    assert first, "a finished trial has files"
    rows = pq.read_table(first / GENERATED).to_pylist()
    kept = len(list((first / PLAYED).glob("*-real.flac")))
    return [
        AudioClip(
            row["clip"],
            row.get("caption"),
            _sound(first / PLAYED / f"{number}-real.flac"),
            {
                name: _sound(place / PLAYED / f"{number}-made.flac")
                for name, place in zip(row_names(cells), files, strict=True)
                if place
            },
        )
        for number, row in enumerate(rows[:kept])
    ]


def _sound(path: Path) -> str:
    return f"data:audio/flac;base64,{base64.b64encode(path.read_bytes()).decode()}"

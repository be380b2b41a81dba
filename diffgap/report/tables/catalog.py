"""The tables that there are, and the command that makes the runs of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from diffgap.report.tables.table import Table


@dataclass(frozen=True)
class Entry:
    """One table that a report can have.

    Attributes:
        prefix: what the keys of such tables begin with.
        what: it shows.
        command: that makes its runs.
    """

    prefix: str
    what: str
    command: str


CATALOG = (
    Entry(
        "generation-video-audio-vggsound",
        "Table I, video-to-audio generation on VGGSound",
        "diffgap sweep sweeps/paper/generation_vggsound.yaml",
    ),
    Entry(
        "generation-text-audio-audiocaps",
        "Table II, text-to-audio generation on AudioCaps",
        "diffgap sweep sweeps/paper/generation_audiocaps.yaml",
    ),
    Entry(
        "retrieval-video-audio-vggsound",
        "Table III, video-audio retrieval on VGGSound",
        "diffgap sweep sweeps/paper/vggsound.yaml",
    ),
    Entry(
        "retrieval-text-audio-audiocaps",
        "Table IV, text-audio retrieval on AudioCaps",
        "diffgap sweep sweeps/paper/audiocaps.yaml",
    ),
    Entry("ablation", "Table V, the CDM x BST ablation", "diffgap sweep sweeps/ablation.yaml"),
    Entry("schedules", "noise schedules", "diffgap sweep sweeps/noise_schedules.yaml"),
    Entry("methods", "methods", "diffgap sweep sweeps/methods.yaml"),
    Entry("scores", "scores", "diffgap sweep sweeps/scores.yaml"),
    Entry(
        "importance",
        "hyper-parameter importance",
        "diffgap sweep sweeps/hyperparameters.yaml",
    ),
)


def missing(tables: Iterable[Table]) -> list[str]:
    """A line for each table of the catalog whose runs are not there, with the command."""
    keys = [table.key for table in tables if table.rows]
    return [
        f"No runs of {entry.what}: make them with: {entry.command}"
        for entry in CATALOG
        if not any(key.startswith(entry.prefix) for key in keys)
    ]

"""Registry of the tables that a sweep can ask for in its `report:` block.

A table is a function in a module of `diffgap.report.tables` and an entry here. The function is
imported when a table is made, for specs are read long before there is anything to report.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ShippedSweep:
    """A sweep's file in this repository whose runs fill a table."""

    key: str
    """What the keys of such tables begin with."""
    title: str
    path: str


@dataclass(frozen=True)
class TableInfo:
    """A kind of table that a sweep can have."""

    kind: str
    """Its name in ``report.tables`` of a spec."""
    make: str
    """``module:function`` that makes the tables of one sweep, finished or not, from the sweep as
    MLflow has it, published rows, and the row that others are tested against."""
    shipped: tuple[ShippedSweep, ...] = ()
    """Sweeps that make its runs, to be named where a report has none."""
    methods: bool = False
    """Whether its cells are methods, for the tables of retrieval and cost across sweeps."""


TABLES: dict[str, TableInfo] = {
    info.kind: info
    for info in (
        TableInfo(
            "generation",
            "diffgap.report.tables.generation:generation_tables",
            (
                ShippedSweep(
                    "generation-video-audio-vggsound",
                    "Table I, video-to-audio generation on VGGSound",
                    "sweeps/paper/generation_vggsound.yaml",
                ),
                ShippedSweep(
                    "generation-text-audio-audiocaps",
                    "Table II, text-to-audio generation on AudioCaps",
                    "sweeps/paper/generation_audiocaps.yaml",
                ),
            ),
        ),
        TableInfo(
            "ablation",
            "diffgap.report.tables.recall:ablation_tables",
            (ShippedSweep("ablation", "Table V, the CDM x BST ablation", "sweeps/ablation.yaml"),),
            methods=True,
        ),
        TableInfo(
            "methods",
            "diffgap.report.tables.recall:methods_tables",
            (ShippedSweep("methods", "methods", "sweeps/methods.yaml"),),
            methods=True,
        ),
        TableInfo(
            "axes",
            "diffgap.report.tables.recall:axes_tables",
            (
                ShippedSweep("schedules", "noise schedules", "sweeps/noise_schedules.yaml"),
                ShippedSweep("scores", "scores", "sweeps/scores.yaml"),
            ),
        ),
    )
}
"""By kind. Read it when it is needed: constants made from it go stale."""

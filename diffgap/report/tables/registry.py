"""Registry of the report's tables, and the tables of some sweeps, from MLflow alone.

To add a table, write its module, add its kind to ``TableKind`` in ``diffgap/spec/sweep.py`` and an
entry to `TABLES`: every sweep whose ``report.tables`` names the kind then has it in every format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from diffgap.report.references import Reference, references_for
from diffgap.report.results import Setting, setting_of
from diffgap.report.tables.cost import cost_table
from diffgap.report.tables.generation import generation_tables
from diffgap.report.tables.recall import retrieval_table, sweep_table
from diffgap.report.tables.search import importance_table, search_table
from diffgap.report.tables.table import Table
from diffgap.tracking.reader import LoggedSweep

Make = Callable[[LoggedSweep, Sequence[Reference], str | None], list[Table]]
"""(sweep, published rows, row that others are tested against) -> tables."""


@dataclass(frozen=True)
class ShippedSweep:
    """A sweep's file in this repository whose runs fill a table.

    Attributes:
        key: what the keys of such tables begin with.
        title: what they show, for people.
        command: that makes the runs.
    """

    key: str
    title: str
    command: str


@dataclass(frozen=True)
class TableInfo:
    """A kind of table that a sweep can have.

    Attributes:
        kind: its name in ``report.tables`` of a spec.
        make: the tables of this kind of one sweep, finished or not.
        shipped: sweeps that make its runs, to be named where a report has none.
        methods: whether its cells are methods, which may stand beside those of other sweeps on the
            same corpus, in the tables of retrieval and of cost.
    """

    kind: str
    make: Make
    shipped: tuple[ShippedSweep, ...] = ()
    methods: bool = False


def _recall(kind: str) -> Make:
    return lambda sweep, references, against: [sweep_table(sweep, kind, against)]


TABLES: dict[str, TableInfo] = {
    info.kind: info
    for info in (
        TableInfo(
            "generation",
            generation_tables,
            (
                ShippedSweep(
                    "generation-video-audio-vggsound",
                    "Table I, video-to-audio generation on VGGSound",
                    "diffgap sweep sweeps/paper/generation_vggsound.yaml",
                ),
                ShippedSweep(
                    "generation-text-audio-audiocaps",
                    "Table II, text-to-audio generation on AudioCaps",
                    "diffgap sweep sweeps/paper/generation_audiocaps.yaml",
                ),
            ),
        ),
        TableInfo(
            "ablation",
            _recall("ablation"),
            (
                ShippedSweep(
                    "ablation",
                    "Table V, the CDM x BST ablation",
                    "diffgap sweep sweeps/ablation.yaml",
                ),
            ),
            methods=True,
        ),
        TableInfo(
            "methods",
            _recall("methods"),
            (ShippedSweep("methods", "methods", "diffgap sweep sweeps/methods.yaml"),),
            methods=True,
        ),
        TableInfo(
            "axes",
            _recall("axes"),
            (
                ShippedSweep(
                    "schedules", "noise schedules", "diffgap sweep sweeps/noise_schedules.yaml"
                ),
                ShippedSweep("scores", "scores", "diffgap sweep sweeps/scores.yaml"),
            ),
        ),
    )
}
"""By kind. Read it when it is needed: constants made from it go stale."""

OTHER_SHIPPED = (
    ShippedSweep(
        "retrieval-video-audio-vggsound",
        "Table III, video-audio retrieval on VGGSound",
        "diffgap sweep sweeps/paper/vggsound.yaml",
    ),
    ShippedSweep(
        "retrieval-text-audio-audiocaps",
        "Table IV, text-audio retrieval on AudioCaps",
        "diffgap sweep sweeps/paper/audiocaps.yaml",
    ),
    ShippedSweep(
        "importance",
        "hyper-parameter importance",
        "diffgap sweep sweeps/hyperparameters.yaml",
    ),
)
"""For tables that no spec names: those of several sweeps, and of searches."""


def own_tables(
    sweep: LoggedSweep, references: Sequence[Reference], against: str | None = None
) -> list[Table]:
    """The tables of one sweep: those that its spec names; of a search, its trials and winners."""
    if sweep.spec["search"]:
        return _search_tables(sweep, against)
    tables: list[Table] = []
    for kind in sweep.spec["report"]["tables"]:
        tables += TABLES[kind].make(sweep, references, against)
    return tables


def _search_tables(sweep: LoggedSweep, against: str | None) -> list[Table]:
    tables = [search_table(sweep), importance_table(sweep)]
    if any(trial.final for trial in sweep.trials):
        tables.append(sweep_table(sweep, "axes", against))
    return tables


def all_tables(
    sweeps: Sequence[LoggedSweep], references: Sequence[Reference], against: str | None = None
) -> list[Table]:
    """Retrieval by corpus, every sweep's own tables, and cost.

    Args:
        sweeps: finished or not.
        references: published rows.
        against: the row that others are tested against; default the frozen embeddings.

    Raises:
        UserError: where no table has such a row.
    """
    by_setting: dict[Setting, list[LoggedSweep]] = {}
    for sweep in sweeps:
        if compares_methods(sweep):
            by_setting.setdefault(setting_of(sweep), []).append(sweep)
    tables: list[Table] = []
    for setting, group in by_setting.items():
        # Of one sweep without published rows beside it, this would repeat the sweep's own table.
        if len(group) > 1 or references_for(references, setting.retrieval, setting.dataset):
            tables.append(retrieval_table(group, setting, references))
    for sweep in sweeps:
        tables += own_tables(sweep, references, against)
    tables += [cost_table(group, setting) for setting, group in by_setting.items()]
    return tables


def compares_methods(sweep: LoggedSweep) -> bool:
    """Whether the cells of a sweep are methods; the trials of a search are not."""
    kinds = sweep.spec["report"]["tables"]
    return not sweep.spec["search"] and any(TABLES[kind].methods for kind in kinds)


def missing_tables(tables: Iterable[Table]) -> list[str]:
    """A line for each table without runs that a shipped sweep would fill, the paper's first."""
    keys = [table.key for table in tables if table.rows]
    shipped = list(OTHER_SHIPPED)
    for info in TABLES.values():
        shipped += info.shipped
    lines = []
    for sweep in sorted(shipped, key=lambda sweep: sweep.title):  # "Table I" to "Table V" first
        if not any(key.startswith(sweep.key) for key in keys):
            lines.append(f"No runs of {sweep.title}: make them with: {sweep.command}")
    return lines

"""The tables of some sweeps, from MLflow alone; `diffgap.spec.tables` has the kinds there are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pkgutil import resolve_name

from diffgap.report.references import Reference, references_for
from diffgap.report.results import Setting, setting_of
from diffgap.report.tables.cost import cost_table
from diffgap.report.tables.recall import retrieval_table, sweep_table
from diffgap.report.tables.search import importance_table, search_table
from diffgap.report.tables.table import Table
from diffgap.spec.tables import TABLES, ShippedSweep
from diffgap.tracking.reader import LoggedSweep

OTHER_SHIPPED = (
    ShippedSweep(
        "retrieval-video-audio-vggsound",
        "Table III, video-audio retrieval on VGGSound",
        "sweeps/paper/vggsound.yaml",
    ),
    ShippedSweep(
        "retrieval-text-audio-audiocaps",
        "Table IV, text-audio retrieval on AudioCaps",
        "sweeps/paper/audiocaps.yaml",
    ),
    ShippedSweep("importance", "hyper-parameter importance", "sweeps/hyperparameters.yaml"),
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
        make = resolve_name(TABLES[kind].make)
        tables += make(sweep, references, against)
    return tables


def _search_tables(sweep: LoggedSweep, against: str | None) -> list[Table]:
    tables = [search_table(sweep), importance_table(sweep)]
    # Only the winner of each point is scored on test, once the search is over.
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
    for setting, group in by_setting.items():
        tables.append(cost_table(group, setting))
    return tables


def compares_methods(sweep: LoggedSweep) -> bool:
    """Whether the cells of a sweep are methods; the trials of a search are not."""
    kinds = sweep.spec["report"]["tables"]
    return not sweep.spec["search"] and any(TABLES[kind].methods for kind in kinds)


def missing_tables(tables: Iterable[Table]) -> list[str]:
    """A line for each table without runs that a shipped sweep would fill, the paper's first."""
    keys = []
    for table in tables:
        if table.rows:
            keys.append(table.key)
    shipped = list(OTHER_SHIPPED)
    for info in TABLES.values():
        shipped += info.shipped
    lines = []
    for sweep in sorted(shipped, key=lambda sweep: sweep.title):  # "Table I" to "Table V" first
        if not any(key.startswith(sweep.key) for key in keys):
            lines.append(f"No runs of {sweep.title}: make them with: diffgap sweep {sweep.path}")
    return lines

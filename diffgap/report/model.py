"""Contents of a report: sweeps as MLflow has them, with their tables, figures and examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from diffgap.report.examples import Example, examples_of
from diffgap.report.figures import draw
from diffgap.report.figures.style import Picture
from diffgap.report.references import Reference
from diffgap.report.tables.registry import all_tables, missing_tables
from diffgap.report.tables.table import Table
from diffgap.tracking.reader import LoggedSweep, TrialRun


@dataclass(frozen=True)
class Report:
    """A report of some sweeps.

    Attributes:
        sweeps: as MLflow has them.
        tables: of all of them.
        where: the tracking store, without secrets.
        audio: the directory of the corpus's clips, to be played; None where there is none.
    """

    sweeps: tuple[LoggedSweep, ...]
    tables: tuple[Table, ...]
    where: str
    audio: Path | None = None

    @property
    def missing(self) -> list[str]:
        """A line for each known table without runs, with the command that makes them."""
        return missing_tables(self.tables)

    @cached_property
    def pictures(self) -> list[Picture]:
        """The figures, drawn on first use."""
        return draw(self.sweeps, self.tables)

    @cached_property
    def examples(self) -> list[Example]:
        """What each cell retrieved for a few queries."""
        return examples_of(self.sweeps)

    @property
    def trials(self) -> dict[str, TrialRun]:
        """Every trial by its signature; of one that several sweeps have, a complete run."""
        trials: dict[str, TrialRun] = {}
        for sweep in self.sweeps:
            for trial in sweep.trials:
                if trial.is_complete or trial.signature not in trials:
                    trials[trial.signature] = trial
        return trials


def make_report(
    sweeps: Sequence[LoggedSweep],
    references: Sequence[Reference],
    where: str,
    against: str | None = None,
    audio: Path | None = None,
) -> Report:
    """The report of some sweeps; see `Report` and `all_tables`.

    Raises:
        UserError: where no row is called `against`.
    """
    tables = all_tables(sweeps, references, against)
    return Report(tuple(sweeps), tuple(tables), where, audio)

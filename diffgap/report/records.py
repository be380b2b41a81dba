"""Records of sweeps that can be reported, and why the others cannot.

Records come from MLflow: from earlier versions, other people, disks that were full. One that is
damaged must not keep the others from being reported.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from diffgap.ledger.artifacts import CONFIG, HISTORY, METRICS, RANKS
from diffgap.ledger.status import DAMAGED, damage
from diffgap.spec import Trial
from diffgap.spec.label import cell_label
from diffgap.tracking.reader import LoggedSweep, Reader, TrialRun

UNREADABLE = (*DAMAGED, pa.ArrowException)

COLUMNS = {RANKS: ["direction", "clip", "rank", "ap10"]}
"""What the tables need of a file."""


def read_sweeps(reader: Reader, names: Iterable[str]) -> tuple[list[LoggedSweep], list[str]]:
    """The sweeps of these names that can be read, and a line on each of the others."""
    sweeps, problems = [], []
    for name in names:
        try:
            sweeps.append(checked(reader.sweep(name)))
        except DAMAGED as error:
            problems.append(damage(f"SWEEP: {name!r}", error))
    return sweeps, problems


def checked(sweep: LoggedSweep) -> LoggedSweep:
    """The sweep, in which trials with damaged files do not count, and say so.

    Raises:
        ValueError, LookupError, TypeError: where what was planned cannot be read.
    """
    for field in ("task", "split", "search", "axes"):
        sweep.spec[field]
    trials = []
    for trial in sweep.trials:
        cell_label(trial.point, Trial.model_validate(trial.trial))
        problem = _file_problem(trial)
        trials.append(replace(trial, files=None, problem=problem) if problem else trial)
    return replace(sweep, trials=tuple(trials))


def _file_problem(trial: TrialRun) -> str | None:
    """Which file of a complete trial cannot be read."""
    if trial.files is None:
        return None
    name = METRICS
    try:
        # Zero is added to refuse what is no number.
        sum(trial.metrics.values(), 0.0)
        name = CONFIG
        trial.config.get("encoder", {}).get("name"), trial.config["store"]["name"]
        name = HISTORY
        for point in trial.history:
            point["step"] + 0, point["metrics"].items()
        for path in trial.files.glob("*.parquet"):
            name = path.name
            pq.read_table(path).select(COLUMNS.get(name, []))
    except UNREADABLE:
        return f"the {name} of its run is damaged"
    return None

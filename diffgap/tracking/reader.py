"""Reader of sweeps from MLflow, the only source of a report.

A sweep's own run has its record (``sweep.json``), its trials' runs have the results. Where several
runs are of one trial, the finished ones count, and of those the newest.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from diffgap.errors import UserError, nearest
from diffgap.io.paths import StoragePath
from diffgap.io.redact import redact
from diffgap.ledger.artifacts import CONFIG, HISTORY, METRICS, RANKS, REPLICATES
from diffgap.ledger.ledger import Ledger
from diffgap.ledger.states import TrialState
from diffgap.spec.label import recorded_points
from diffgap.tracking.artifacts import ArtifactReader
from diffgap.tracking.client import all_runs, client_of, experiment_of, own_database, tracking_uri
from diffgap.tracking.names import BRIDGE, DATABASE, RESUMABLE, SWEEP_FILE, Kind, Status, Tag
from diffgap.tracking.problems import ask

T = TypeVar("T")

JSON_FILES = (METRICS, CONFIG, HISTORY)  # of a bridge checkpoint
LOG_ANEW = "where a sweep has finished trials, its command logs them anew, and does not repeat them"
MISSING = "MISSING"  # status of a trial without a run: not started yet, or its run was deleted


@dataclass(frozen=True)
class TrialRun:
    """One trial of a sweep, as MLflow has it."""

    signature: str
    label: str
    trial: dict[str, Any]  # the resolved spec
    final: bool = False  # whether it evaluates a search's winner on test
    run_id: str | None = None  # None where MLflow has no run of it
    status: str = MISSING  # MLflow's, or `MISSING`
    reason: str | None = None  # why it failed or was stopped
    logged: dict[str, float] = field(default_factory=dict)  # last value of every metric
    tags: dict[str, str] = field(default_factory=dict)
    files: Path | None = None  # its bridge checkpoint; None unless it is finished and complete
    problem: str | None = None  # why a finished run does not count
    point: dict[str, Any] = field(default_factory=dict)  # values of the axes, and of the space

    @property
    def state(self) -> TrialState:
        """What has become of the trial, as MLflow knows it."""
        if self.status == Status.KILLED:  # of trials that were stopped, and of those to be resumed
            is_resumable = self.reason is None or self.reason in RESUMABLE
            return TrialState.INTERRUPTED if is_resumable else TrialState.STOPPED
        return TrialState[self.status]

    @property
    def is_complete(self) -> bool:
        """Whether it is finished, with everything that a table needs."""
        return self.files is not None

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The final metrics; empty unless the trial is complete."""
        return self._read_json(METRICS, {})

    @cached_property
    def config(self) -> dict[str, Any]:
        """The checkpoint's config.json; empty unless the trial is complete."""
        return self._read_json(CONFIG, {})

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """Points ``{"step", "metrics"}`` of the training; empty unless the trial is complete."""
        return self._read_json(HISTORY, [])

    def _read_json(self, name: str, default: T) -> T:
        content: T = json.loads((self.files / name).read_text()) if self.files else default
        return content


@dataclass(frozen=True)
class LoggedSweep:
    """A sweep, as MLflow has it."""

    name: str
    spec: dict[str, Any]
    store: str
    run_id: str  # of its own run
    experiment_id: str
    trials: tuple[TrialRun, ...]  # in the order of its record
    notes: tuple[str, ...] = ()  # what a reader of its tables should know


class Reader:
    """Reader of one tracking store: that of MLFLOW_TRACKING_URI, or an output directory's.

    Raises:
        UserError: from any method, where the store does not answer.
    """

    def __init__(self, output: StoragePath) -> None:
        self.uri = tracking_uri(output)
        database = own_database(output, self.uri)
        if database and not database.is_file():
            raise UserError(_without_database(output))
        self.client = ask(lambda: client_of(output), self.uri)
        self._artifacts = ArtifactReader(self.client, self.uri, output)

    @property
    def where(self) -> str:
        """The tracking store's address, without secrets."""
        return redact(self.uri)

    def tag(self, run_id: str, name: str) -> str | None:
        """A tag of a run; None where it has no such tag."""
        value = self.ask(lambda: self.client.get_run(run_id)).data.tags.get(name)
        return None if value is None else str(value)

    def sweeps(self) -> list[str]:
        """The names of all sweeps, the newest first."""
        experiments = self.ask(
            lambda: self.client.search_experiments(order_by=["last_update_time DESC"])
        )
        names = {experiment.experiment_id: experiment.name for experiment in experiments}
        if not names:
            return []
        runs = self._runs(list(names), {Tag.KIND: Kind.SWEEP})
        runs.sort(key=lambda run: run.info.start_time, reverse=True)
        return list(dict.fromkeys(names[run.info.experiment_id] for run in runs))

    def sweep(self, name: str) -> LoggedSweep:
        """One sweep; UserError where there is none of this name, or its record is missing."""
        experiment = self.ask(lambda: experiment_of(self.client, name, self.uri))
        experiments = [experiment] if experiment else []
        parents = self._runs(experiments, {Tag.KIND: Kind.SWEEP}) if experiment else []
        if not parents:
            names = self.sweeps()
            hint = nearest(name, names) if names else f"no sweep has been run there; {LOG_ANEW}"
            raise UserError(f"SWEEP: {name!r} is not in {self.where}; {hint}")
        parent = max(parents, key=_start_time).info
        record = self._record(name, parent)
        runs = self._runs(experiments, {Tag.KIND: Kind.TRIAL, Tag.PARENT: parent.run_id})
        runs_of = _by_signature(runs)
        trials, repeated = [], 0
        for entry in record["trials"]:
            trial_runs = runs_of[entry["signature"]]
            repeated += len(trial_runs) > 1
            trials.append(self._trial(entry, trial_runs))
        notes, ids = _notes(name, len(parents), repeated), (parent.run_id, parent.experiment_id)
        return LoggedSweep(name, record["spec"], record["store"], *ids, tuple(trials), notes)

    def download_artifact(self, run_id: str, name: str) -> Path | None:
        """An artifact of a run as a local path; None where the run has no such artifact."""
        return self._artifact(self.ask(lambda: self.client.get_run(run_id)).info, name)

    def has_artifact(self, run_id: str, name: str) -> bool:
        """Whether a run has an artifact, or a directory of them."""
        info = self.ask(lambda: self.client.get_run(run_id)).info
        return name in self.ask(lambda: self._artifacts.sizes(info))

    def _artifact(self, info: Any, name: str) -> Path | None:
        return self.ask(lambda: self._artifacts.path(info, name))

    def _record(self, name: str, info: Any) -> dict[str, Any]:
        file = self._artifact(info, SWEEP_FILE)
        if file is None:
            raise UserError(
                f"SWEEP: {name!r} has no record ({SWEEP_FILE} is missing in its run); {LOG_ANEW}"
            )
        try:
            return _parse_record(file.read_text())
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(
                f"SWEEP: the record of {name!r} ({file}) is broken, or of another version "
                f"({type(error).__name__}: {error}); {LOG_ANEW}"
            ) from None

    def _trial(self, entry: dict[str, Any], runs: Sequence[Any]) -> TrialRun:
        """A trial of a sweep's record, with the run of it that counts."""
        final = bool(entry.get("final"))
        trial = TrialRun(
            entry["signature"], entry["label"], entry["trial"], final, point=entry["point"]
        )
        if not runs:
            return trial
        run = max(runs, key=lambda run: (run.info.status == Status.FINISHED, _start_time(run)))
        files, problem = None, None
        if run.info.status == Status.FINISHED:
            files, problem = self._checkpoint(run.info, _needed_files(entry["trial"]))
        return replace(
            trial,
            run_id=run.info.run_id,
            status=run.info.status,
            reason=run.data.tags.get(Tag.REASON),
            logged=dict(run.data.metrics),
            tags=dict(run.data.tags),
            files=files,
            problem=problem,
        )

    def _checkpoint(self, info: Any, needed: Iterable[str]) -> tuple[Path | None, str | None]:
        """The bridge checkpoint of a run, or why it cannot be used."""
        files = self._artifact(info, BRIDGE)
        missing = [name for name in needed if not (files and (files / name).is_file())]
        if missing:
            return None, f"its run has no {' and no '.join(missing)}"
        broken = [name for name in JSON_FILES if files and _is_broken(files / name)]
        return (None, f"the {broken[0]} of its run is damaged") if broken else (files, None)

    def _runs(self, experiments: list[str], tags: dict[str, str]) -> list[Any]:
        return self.ask(lambda: all_runs(self.client, experiments, tags))

    def ask(self, request: Callable[[], T]) -> T:
        """The answer to a request; UserError of one line where MLflow does not answer."""
        return ask(request, self.uri)


def _parse_record(text: str) -> dict[str, Any]:
    """A sweep's record, with the point of each trial."""
    record: dict[str, Any] = json.loads(text)
    points = recorded_points(record["trials"], record["spec"])
    for entry, point in zip(record["trials"], points, strict=True):
        entry["point"] = point
    return record


def _without_database(output: StoragePath) -> str:
    """Why nothing can be read from an output directory that has no database."""
    if Ledger(output).sweeps():
        return f"SWEEP: {output} has no {DATABASE}, which was deleted or not made yet; {LOG_ANEW}"
    return (
        f"SWEEP: no sweep has been run in {output}; give the --output of one that has, or set "
        "MLFLOW_TRACKING_URI"
    )


def _is_broken(file: Path) -> bool:
    """Whether a file of JSON is there and cannot be read."""
    try:
        json.loads(file.read_text())
    except FileNotFoundError:
        return False
    except ValueError:
        return True
    return False


def _start_time(run: Any) -> int:
    return int(run.info.start_time)


def _by_signature(runs: Iterable[Any]) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = defaultdict(list)
    for run in runs:
        groups[run.data.tags.get(Tag.SIGNATURE, "")].append(run)
    return groups


def _notes(name: str, sweeps: int, repeated: int) -> tuple[str, ...]:
    """Warnings of sweeps that share a name, and of trials that have several runs."""
    notes = []
    if sweeps > 1:
        notes.append(
            f"{sweeps} sweeps are named {name!r}; this is the one that started last. "
            "Give each a name of its own: --set name=..."
        )
    if repeated:
        notes.append(f"{repeated} trials have several runs; the newest finished one counts.")
    return tuple(notes)


def _needed_files(trial: dict[str, Any]) -> tuple[str, str]:
    """The files without which a resolved trial's tables cannot be made."""
    # `get`: a trial of an earlier version may know nothing of generation.
    generates = trial.get("generation", {}).get("generator", "none") != "none"
    return METRICS, REPLICATES if generates else RANKS

"""Sweeps read back from MLflow: all that a report knows of them.

A sweep's own run holds what was asked for (``sweep.json``), its trials' runs what was found. Where
several runs tell of one trial, the finished one counts, of those the newest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from diffgap.errors import UserError, nearest
from diffgap.io.paths import StoragePath
from diffgap.io.redact import redact
from diffgap.ledger.artifacts import CONFIG, HISTORY, METRICS, RANKS, REPLICATES
from diffgap.ledger.states import TrialState
from diffgap.spec.label import recorded_points
from diffgap.tracking.client import (
    BRIDGE,
    DATABASE,
    FAILED,
    FINISHED,
    INTERRUPTED,
    KILLED,
    KIND,
    LOST_PROCESS,
    PARENT,
    REASON,
    RUNNING,
    SIGNATURE,
    SWEEP_FILE,
    SWEEP_KIND,
    TRIAL_KIND,
    all_runs,
    client_of,
    default_uri,
    tracking_uri,
)

MISSING = "MISSING"
"""The status of a trial of which MLflow has no run: it was not started yet, or its run deleted."""

STATES = {
    FINISHED: TrialState.FINISHED,
    FAILED: TrialState.FAILED,
    RUNNING: TrialState.RUNNING,
    MISSING: TrialState.MISSING,
}
"""Of a run that was not killed, by its status."""


@dataclass(frozen=True)
class TrialRun:
    """One trial of a sweep, as MLflow has it.

    Attributes:
        signature, label, trial: as the sweep asked for it; `trial` is the resolved spec.
        final: whether it scores a search's winner on test.
        run_id: None where MLflow has no run of it.
        status: MLflow's, or `MISSING`.
        reason: why it failed or was stopped, if it did.
        logged: the last value of every metric that was logged.
        files: where its bridge checkpoint lies as a directory of this machine; None unless it is
            finished and all there.
        problem: why a finished run cannot be counted.
        point: its values of the sweep's axes, and of a search's space.
    """

    signature: str
    label: str
    trial: dict[str, Any]
    final: bool = False
    run_id: str | None = None
    status: str = MISSING
    reason: str | None = None
    logged: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    files: Path | None = None
    problem: str | None = None
    point: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> TrialState:
        """What has become of the trial, as MLflow knows it."""
        if self.status == KILLED:  # as a trial that was stopped, and one that can be resumed
            is_resumable = self.reason in (None, INTERRUPTED, LOST_PROCESS)
            return TrialState.INTERRUPTED if is_resumable else TrialState.STOPPED
        return STATES[self.status]

    @property
    def is_complete(self) -> bool:
        """Whether it is finished, with all that a table needs."""
        return self.files is not None

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The final metrics; empty unless the trial counts."""
        found: dict[str, float] = self._json(METRICS) or {}
        return found

    @cached_property
    def config(self) -> dict[str, Any]:
        """The checkpoint's config.json; empty unless the trial counts."""
        found: dict[str, Any] = self._json(CONFIG) or {}
        return found

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """Points ``{"step", "metrics"}`` of the training; empty unless the trial counts."""
        found: list[dict[str, Any]] = self._json(HISTORY) or []
        return found

    def _json(self, name: str) -> Any:
        return json.loads((self.files / name).read_text()) if self.files else None


@dataclass(frozen=True)
class LoggedSweep:
    """A sweep, as MLflow has it.

    Attributes:
        name, spec, store: as it was asked for last.
        run_id: of its own run.
        trials: in the order of the sweep.
        notes: what a reader must know of how it was read.
    """

    name: str
    spec: dict[str, Any]
    store: str
    run_id: str
    experiment_id: str
    trials: tuple[TrialRun, ...]
    notes: tuple[str, ...] = ()


class Reader:
    """The reader of one tracking store: that of MLFLOW_TRACKING_URI, or an output directory's.

    Raises:
        UserError: where it does not answer, from any of its methods.
    """

    def __init__(self, output: StoragePath) -> None:
        self.uri = tracking_uri(output)
        own = isinstance(output, Path) and self.uri == default_uri(output)
        if own and not (output / DATABASE).is_file():
            raise UserError(
                f"SWEEP: no sweep has been run in {output}; give the --output of one that has, or "
                "set MLFLOW_TRACKING_URI"
            )
        self.client = client_of(output)
        self._scratch = TemporaryDirectory(prefix="diffgap-report-")

    @property
    def where(self) -> str:
        """The tracking store, without secrets."""
        return redact(self.uri)

    def tag(self, run_id: str, name: str) -> str | None:
        """A tag of a run; None where it has no such tag."""
        found = self._asked(lambda: self.client.get_run(run_id)).data.tags.get(name)
        return None if found is None else str(found)

    def sweeps(self) -> list[str]:
        """The names of all sweeps, the newest first."""
        found = self._asked(
            lambda: self.client.search_experiments(order_by=["last_update_time DESC"])
        )
        named = {e.experiment_id: e.name for e in found}
        runs = self._runs(list(named), {KIND: SWEEP_KIND}) if named else []
        runs.sort(key=lambda run: -run.info.start_time)
        return list(dict.fromkeys(named[run.info.experiment_id] for run in runs))

    def sweep(self, name: str) -> LoggedSweep:
        """One sweep.

        Raises:
            UserError: where there is none of this name, or nothing says what it asked for.
        """
        experiment = self._asked(lambda: self.client.get_experiment_by_name(name))
        place = [experiment.experiment_id] if experiment else []
        parents = self._runs(place, {KIND: SWEEP_KIND}) if experiment else []
        if not parents:
            known = self.sweeps()
            hint = nearest(name, known) if known else "no sweep has been run there"
            raise UserError(f"SWEEP: {name!r} is not in {self.where}; {hint}")
        parent = max(parents, key=lambda run: run.info.start_time)
        record = self._record(name, parent.info.run_id)
        found = self._runs(place, {KIND: TRIAL_KIND, PARENT: parent.info.run_id})
        notes = []
        if len(parents) > 1:
            notes.append(
                f"{len(parents)} sweeps are named {name!r}; this is the one that began last. "
                "Give each a name of its own: --set name=..."
            )
        trials, doubled = self._trials(record["trials"], found)
        if doubled:
            notes.append(f"{doubled} trials have several runs; the newest finished one counts.")
        return LoggedSweep(
            name,
            record["spec"],
            record["store"],
            parent.info.run_id,
            experiment.experiment_id,
            trials,
            tuple(notes),
        )

    def download_artifact(self, run_id: str, name: str) -> Path | None:
        """An artifact of a run as a path of this machine; None where the run has no such thing."""
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        listed = self._asked(lambda: self.client.list_artifacts(run_id))
        if name not in {entry.path for entry in listed}:
            return None
        try:
            return Path(download_artifacts(run_id=run_id, artifact_path=name, **self._to(run_id)))
        except (MlflowException, OSError):
            return None

    def _to(self, run_id: str) -> dict[str, Any]:
        """Where artifacts go: nowhere if they are files of this machine already."""
        if self.uri.startswith("sqlite:"):
            return {"tracking_uri": self.uri}
        place = Path(self._scratch.name) / run_id
        place.mkdir(exist_ok=True)
        return {"tracking_uri": self.uri, "dst_path": str(place)}

    def _record(self, name: str, run_id: str) -> dict[str, Any]:
        file = self.download_artifact(run_id, SWEEP_FILE)
        if file is None:
            raise UserError(
                f"SWEEP: {name!r} does not say what it asked for ({SWEEP_FILE} is missing in its "
                "run); give its sweep command once more: finished trials are not repeated"
            )
        record: dict[str, Any] = json.loads(file.read_text())
        points = recorded_points(record["trials"], record["spec"])
        for entry, point in zip(record["trials"], points, strict=True):
            entry["point"] = point
        return record

    def _trials(
        self, entries: Sequence[dict[str, Any]], found: Iterable[Any]
    ) -> tuple[tuple[TrialRun, ...], int]:
        """The trials that a sweep asks for, and how many of them have several runs."""
        by_signature: dict[str, list[Any]] = {}
        for run in found:
            by_signature.setdefault(run.data.tags.get(SIGNATURE, ""), []).append(run)
        trials, doubled = [], 0
        for entry in entries:
            runs = by_signature.get(entry["signature"], [])
            doubled += len(runs) > 1
            trials.append(self._trial(entry, runs))
        return tuple(trials), doubled

    def _trial(self, entry: dict[str, Any], runs: list[Any]) -> TrialRun:
        asked = {
            "signature": entry["signature"],
            "label": entry["label"],
            "trial": entry["trial"],
            "final": bool(entry.get("final")),
            "point": entry["point"],
        }
        if not runs:
            return TrialRun(**asked)
        run = max(runs, key=lambda r: (r.info.status == FINISHED, r.info.start_time))
        files, problem = None, None
        if run.info.status == FINISHED:
            files = self.download_artifact(run.info.run_id, BRIDGE)
            needed = (METRICS, REPLICATES if _generates(entry["trial"]) else RANKS)
            lacking = [n for n in needed if not (files and (files / n).is_file())]
            if lacking:
                files, problem = None, f"its run has no {' and no '.join(lacking)}"
        return TrialRun(
            **asked,
            run_id=run.info.run_id,
            status=run.info.status,
            reason=run.data.tags.get(REASON),
            logged=dict(run.data.metrics),
            tags=dict(run.data.tags),
            files=files,
            problem=problem,
        )

    def _runs(self, experiments: list[str], tags: dict[str, str]) -> list[Any]:
        return self._asked(lambda: all_runs(self.client, experiments, tags))

    def _asked(self, question: Any) -> Any:
        """The answer, or one line of why there is none."""
        from mlflow.exceptions import MlflowException
        from requests import RequestException

        try:
            return question()
        except (MlflowException, RequestException, OSError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(
                f"MLflow at {self.where} does not answer: {redact(lines[0])}; start it, or "
                "change MLFLOW_TRACKING_URI or --output"
            ) from None


def _generates(trial: dict[str, Any]) -> bool:
    """Whether a resolved trial, maybe of an earlier version, makes sound."""
    return bool(trial.get("generation", {}).get("generator", "none") != "none")

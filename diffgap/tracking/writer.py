"""Writer of a sweep's runs to MLflow.

Only the process that runs the sweep writes. A resumed trial continues in its own run, and no point
is logged twice. Every call may be repeated: what MLflow has already is not sent again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

from diffgap.io.paths import StoragePath
from diffgap.io.redact import redact
from diffgap.tracking.artifacts import strayed
from diffgap.tracking.audit import StoredSweep
from diffgap.tracking.client import all_runs, client_of, experiment_of, sweep_run, tracking_uri
from diffgap.tracking.database import relocate, sqlite_file
from diffgap.tracking.names import (
    ARTIFACTS,
    BRIDGE,
    INTERRUPTED,
    LOST_PROCESS,
    SWEEP_FILE,
    Kind,
    Status,
    Tag,
)

HEADLINE = "R5"

MAX_BATCH = 1000  # metrics in one request: MLflow's limit
MAX_REASON = 5000  # characters of a reason: a tag holds 5,000, with recent versions of MLflow 8,000


class RunWriter:
    """The writer of one sweep's runs.

    Marks as KILLED the runs that an earlier process left RUNNING: no other process runs the sweep.
    Sweeps of one name in two ledgers have two runs; `tags` are of every run. What is logged to a
    file of SQLite has its artifacts in `output`, also after that was moved.
    """

    def __init__(
        self, output: StoragePath, sweep: str, ledger: str, tags: Mapping[str, str]
    ) -> None:
        self.uri, self.output = tracking_uri(output), output
        self.client = client_of(output)
        self.sweep, self.ledger = sweep, ledger
        self.tags = {name: redact(value) for name, value in {**tags, Tag.SWEEP: sweep}.items()}
        self.experiment = self._experiment()
        self.parent = self._sweep_run()
        self._keep_artifacts(all_runs(self.client, [self.experiment], {Tag.PARENT: self.parent}))
        self._end_orphans()
        self._runs: dict[str, str] = {}  # run ids by signature
        self._open_runs: set[str] = set()
        self._last_step: dict[str, dict[str, int]] = {}  # the last step of every metric, by run id

    def start(self, signature: str, label: str, params: Mapping[str, Any]) -> str:
        """Creates or reopens the trial's own run; returns its id."""
        if signature in self._runs:
            return self._runs[signature]
        existing = self._trials(signature)
        if existing:
            run_id = self._reopen(existing[0])
        else:
            tags = {Tag.KIND: Kind.TRIAL, Tag.SIGNATURE: signature, Tag.PARENT: self.parent}
            run_id = self._create(label, tags)
        self._log_params(run_id, params)
        self._last_step[run_id] = self._logged_steps(run_id)
        self._open_runs.add(run_id)
        self._runs[signature] = run_id
        return run_id

    def log(self, signature: str, points: Iterable[Mapping[str, Any]], now: float) -> None:
        """Logs points ``{"step", "metrics"}`` in their order, except what the run has already.

        `now`, in seconds since the epoch, is the same when the call is repeated.
        """
        run_id = self._runs[signature]
        batch: list[Any] = []
        for point in points:
            unlogged = self._unlogged(run_id, point["metrics"], point["step"], now)
            if len(batch) + len(unlogged) > MAX_BATCH:
                self._send(run_id, batch)
                batch = []
            batch += unlogged
        self._send(run_id, batch)

    def finish(
        self, signature: str, metrics: Mapping[str, float], artifacts: Path, now: float
    ) -> None:
        """Logs the final metrics and the bridge checkpoint, and ends the run as FINISHED."""
        run_id = self._runs[signature]
        final = {**self._final(run_id, metrics), **headline(metrics)}
        self._send(run_id, self._unlogged(run_id, final, 0, now))
        self.client.log_artifacts(run_id, str(artifacts), BRIDGE)
        self._end(signature, Status.FINISHED)

    def describe(self, record: Mapping[str, Any]) -> None:
        """Stores the sweep's record with its own run, from where reports read it."""
        self.client.log_dict(self.parent, dict(record), SWEEP_FILE)

    def fail(self, signature: str, reason: str) -> None:
        """Ends a trial's run as FAILED, with the reason."""
        self._end_early(signature, Status.FAILED, reason)

    def kill(self, signature: str, reason: str = INTERRUPTED) -> None:
        """Ends the run of a trial that was stopped or interrupted as KILLED, if it has one."""
        if signature in self._runs:
            self._end_early(signature, Status.KILLED, reason)

    def stored(self) -> StoredSweep:
        """What the tracking store has of the sweep at this moment."""
        run = self.client.get_run(self.parent)
        return StoredSweep(self.client, self.output, self.experiment, run)

    def supersede(self, signature: str) -> None:
        """Retires a trial's earlier run, which stays: the trial will get a new one."""
        for run in self._trials(signature):
            self.client.set_tag(run.info.run_id, Tag.KIND, "superseded trial")

    def prune(self, signature: str) -> None:
        """Marks the run of a trial that its sweep no longer has."""
        for run in self._trials(signature):
            self.client.set_tag(run.info.run_id, Tag.PRUNED, "true")

    def close(self, status: str) -> None:
        """Ends the sweep's own run, and those of interrupted trials as KILLED."""
        for run_id in sorted(self._open_runs):
            self.client.set_terminated(run_id, Status.KILLED)
        self.client.set_terminated(self.parent, status)

    def _end(self, signature: str, status: str) -> None:
        self.client.set_terminated(self._runs[signature], status)
        self._open_runs.discard(self._runs[signature])

    def _end_early(self, signature: str, status: str, reason: str) -> None:
        self.client.set_tag(self._runs[signature], Tag.REASON, redact(reason)[:MAX_REASON])
        self._end(signature, status)

    def _end_orphans(self) -> None:
        """Ends the runs whose process died before it could."""
        tags = {Tag.PARENT: self.parent}
        for run in all_runs(self.client, [self.experiment], tags, "attributes.status = 'RUNNING'"):
            self.client.set_tag(run.info.run_id, Tag.REASON, LOST_PROCESS)
            self.client.set_terminated(run.info.run_id, Status.KILLED)

    def _experiment(self) -> str:
        """The id of the sweep's experiment, which is created if need be."""
        experiment = experiment_of(self.client, self.sweep, self.uri)
        if experiment:
            return experiment
        artifacts = None  # a server chooses their place
        if self.uri.startswith("sqlite:") and isinstance(self.output, Path):
            artifacts = (self.output.absolute() / ARTIFACTS / self.sweep).as_uri()
        return str(self.client.create_experiment(self.sweep, artifact_location=artifacts))

    def _sweep_run(self) -> str:
        """The sweep's own run: its ledger's, or one from before runs named their ledger."""
        run = sweep_run(self.client, self.experiment, self.ledger)
        if run is None:
            return self._create(self.sweep, {Tag.KIND: Kind.SWEEP, Tag.LEDGER: self.ledger})
        self.client.set_tag(run.info.run_id, Tag.LEDGER, self.ledger)
        self._keep_artifacts([run])
        return self._reopen(run)

    def _keep_artifacts(self, runs: Iterable[Any]) -> None:
        """Lets artifacts of this ledger's runs be in its output, wherever that was before.

        MLflow fixes the place with the experiment, which another output may have created.
        """
        if file := sqlite_file(self.uri):
            rows = [(str(run.info.run_id), str(run.info.artifact_uri)) for run in runs]
            relocate(file, strayed(rows, self.output))

    def _trials(self, signature: str) -> list[Any]:
        """The runs of a trial in this sweep."""
        tags = {Tag.KIND: Kind.TRIAL, Tag.SIGNATURE: signature, Tag.PARENT: self.parent}
        return all_runs(self.client, [self.experiment], tags)

    def _create(self, name: str, tags: Mapping[str, str]) -> str:
        run = self.client.create_run(self.experiment, tags={**self.tags, **tags}, run_name=name)
        self._keep_artifacts([run])
        return str(run.info.run_id)

    def _reopen(self, run: Any) -> str:
        """Sets a run RUNNING again."""
        run_id = str(run.info.run_id)
        self.client.update_run(run_id, status=Status.RUNNING)
        for tag in (Tag.REASON, Tag.PRUNED):
            if tag in run.data.tags:
                self.client.delete_tag(run_id, tag)
        return run_id

    def _log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        logged = self.client.get_run(run_id).data.params  # MLflow refuses to change them
        new = [Param(n, redact(str(value))) for n, value in params.items() if n not in logged]
        if new:
            self.client.log_batch(run_id, params=new)

    def _final(self, run_id: str, metrics: Mapping[str, float]) -> dict[str, float]:
        """Final metrics, renamed where a curve has their name: a search evaluates on val, too."""
        final = {}
        for name, value in metrics.items():
            is_curve = self._last_step[run_id].get(name, 0) > 0
            final[f"final/{name}" if is_curve else name] = value
        return final

    def _unlogged(
        self, run_id: str, metrics: Mapping[str, float], step: int, now: float
    ) -> list[Any]:
        """The metrics of one step that a run does not have yet."""
        from mlflow.entities import Metric

        last = self._last_step[run_id]
        return [
            Metric(name, float(value), int(now * 1000), step)
            for name, value in metrics.items()
            if step > last.get(name, -1)
        ]

    def _send(self, run_id: str, metrics: list[Any]) -> None:
        if not metrics:
            return
        self.client.log_batch(run_id, metrics=metrics)
        for metric in metrics:
            self._last_step[run_id][metric.key] = metric.step

    def _logged_steps(self, run_id: str) -> dict[str, int]:
        """The last step of every metric of a run."""
        steps = {}
        for name in self.client.get_run(run_id).data.metrics:
            # A run itself has the last value of each metric, without its step.
            steps[name] = max(map(attrgetter("step"), self.client.get_metric_history(run_id, name)))
        return steps


def headline(metrics: Mapping[str, float]) -> dict[str, float]:
    """``R5``, mean over both directions, under a name that MLflow lists first: to sort runs by."""
    values = [value for name, value in metrics.items() if name.endswith("/R5")]
    return {HEADLINE: sum(values) / len(values)} if values else {}

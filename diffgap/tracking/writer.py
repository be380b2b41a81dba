"""Telling MLflow how a sweep goes.

One process writes: the one that runs the sweep. A resumed trial goes on in its own run and no point
is logged twice. Every call may be repeated: what has arrived is not sent again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from diffgap.io.paths import StoragePath
from diffgap.io.redact import redact
from diffgap.tracking.client import (
    BRIDGE,
    FAILED,
    FINISHED,
    INTERRUPTED,
    KILLED,
    KIND,
    LEDGER,
    LOST_PROCESS,
    PARENT,
    PRUNED,
    REASON,
    RUNNING,
    SIGNATURE,
    SWEEP,
    SWEEP_FILE,
    SWEEP_KIND,
    TRIAL_KIND,
    all_runs,
    client_of,
    tracking_uri,
)

HEADLINE = "R5"

MAX_BATCH = 1000
"""Metrics in one request: MLflow's limit."""


class RunWriter:
    """The writer of one sweep's runs.

    Runs that an earlier process left RUNNING are ended as KILLED: nobody but this process runs
    the sweep.

    Args:
        output: the sweep's output directory, for the default backend and its artifacts.
        sweep: the sweep's name, which is the experiment's.
        ledger: the identity of the ledger: sweeps of one name in two ledgers have two runs.
        tags: facts for every run, such as the store and the git commit.
    """

    def __init__(
        self, output: StoragePath, sweep: str, ledger: str, tags: Mapping[str, str]
    ) -> None:
        self.uri = tracking_uri(output)
        self.client = client_of(output)
        self.sweep, self.ledger = sweep, ledger
        self.tags = {name: redact(value) for name, value in {**tags, SWEEP: sweep}.items()}
        self.experiment = self._experiment(output)
        self.parent = self._sweep_run()
        self._end_forsaken()
        self._runs: dict[str, str] = {}
        self._open_runs: set[str] = set()
        self._last_step: dict[str, dict[str, int]] = {}

    def start(self, signature: str, label: str, params: Mapping[str, Any]) -> str:
        """The trial's own run, created or gone on with; returns its id."""
        if signature in self._runs:
            return self._runs[signature]
        found = self._trials(signature)
        if found:
            run_id = self._reopen(found[0])
        else:
            run_id = self._create(
                label, {KIND: TRIAL_KIND, SIGNATURE: signature, PARENT: self.parent}
            )
        self._log_params(run_id, params)
        self._last_step[run_id] = self._logged_steps(run_id)
        self._open_runs.add(run_id)
        self._runs[signature] = run_id
        return run_id

    def log(self, signature: str, points: Iterable[Mapping[str, Any]], now: float) -> None:
        """Logs points ``{"step", "metrics"}``, but for what the run has of them already.

        Args:
            signature: a started trial's.
            points: in the order of their steps.
            now: seconds since the epoch, the same when the call is repeated.
        """
        run_id = self._runs[signature]
        batch: list[Any] = []
        for point in points:
            fresh = self._fresh(run_id, point["metrics"], point["step"], now)
            if len(batch) + len(fresh) > MAX_BATCH:
                self._send(run_id, batch)
                batch = []
            batch += fresh
        self._send(run_id, batch)

    def finish(
        self, signature: str, metrics: Mapping[str, float], artifacts: Path, now: float
    ) -> None:
        """Logs the final metrics and the bridge checkpoint, and ends the run as FINISHED."""
        run_id = self._runs[signature]
        final = {**self._final(run_id, metrics), **headline(metrics)}
        self._send(run_id, self._fresh(run_id, final, 0, now))
        self.client.log_artifacts(run_id, str(artifacts), BRIDGE)
        self._end(signature, FINISHED)

    def describe(self, record: Mapping[str, Any]) -> None:
        """Keeps what the sweep asks for with its own run, for whoever reads it from there."""
        self.client.log_dict(self.parent, dict(record), SWEEP_FILE)

    def fail(self, signature: str, reason: str) -> None:
        """Ends a trial's run as FAILED, and says why."""
        self._end_early(signature, FAILED, reason)

    def kill(self, signature: str, reason: str = INTERRUPTED) -> None:
        """Ends the run of a trial that was cut short as KILLED; one that never started has none."""
        if signature in self._runs:
            self._end_early(signature, KILLED, reason)

    def supersede(self, signature: str) -> None:
        """Keeps a trial's earlier run, but goes on with it no more."""
        for run in self._trials(signature):
            self.client.set_tag(run.info.run_id, KIND, "superseded trial")

    def prune(self, signature: str) -> None:
        """Marks the run of a trial that its sweep no longer asks for."""
        for run in self._trials(signature):
            self.client.set_tag(run.info.run_id, PRUNED, "true")

    def close(self, status: str) -> None:
        """Ends the sweep's parent run, and the runs of trials that something cut short."""
        for run_id in sorted(self._open_runs):
            self.client.set_terminated(run_id, KILLED)
        self.client.set_terminated(self.parent, status)

    # Runs -----------------------------------------------------------------------------------------

    def _end(self, signature: str, status: str) -> None:
        self.client.set_terminated(self._runs[signature], status)
        self._open_runs.discard(self._runs[signature])

    def _end_early(self, signature: str, status: str, reason: str) -> None:
        self.client.set_tag(self._runs[signature], REASON, redact(reason)[:5000])
        self._end(signature, status)

    def _end_forsaken(self) -> None:
        found = all_runs(
            self.client, [self.experiment], {PARENT: self.parent}, "attributes.status = 'RUNNING'"
        )
        for run in found:
            self.client.set_tag(run.info.run_id, REASON, LOST_PROCESS)
            self.client.set_terminated(run.info.run_id, KILLED)

    def _experiment(self, output: StoragePath) -> str:
        found = self.client.get_experiment_by_name(self.sweep)
        if found:
            return str(found.experiment_id)
        artifacts = None  # a server has a place for them
        if self.uri.startswith("sqlite:") and isinstance(output, Path):
            artifacts = (output.absolute() / "mlartifacts" / self.sweep).as_uri()
        return str(self.client.create_experiment(self.sweep, artifact_location=artifacts))

    def _sweep_run(self) -> str:
        """The sweep's own run: its ledger's, or one from before runs named their ledger."""
        found = all_runs(self.client, [self.experiment], {KIND: SWEEP_KIND})
        for wanted in (self.ledger, None):
            for run in found:
                if run.data.tags.get(LEDGER) == wanted:
                    self.client.set_tag(run.info.run_id, LEDGER, self.ledger)
                    return self._reopen(run)
        return self._create(self.sweep, {KIND: SWEEP_KIND, LEDGER: self.ledger})

    def _trials(self, signature: str) -> list[Any]:
        """The runs of a trial in this sweep."""
        tags = {KIND: TRIAL_KIND, SIGNATURE: signature, PARENT: self.parent}
        return all_runs(self.client, [self.experiment], tags)

    def _create(self, name: str, tags: Mapping[str, str]) -> str:
        run = self.client.create_run(self.experiment, tags={**self.tags, **tags}, run_name=name)
        return str(run.info.run_id)

    def _reopen(self, run: Any) -> str:
        """Sets a run RUNNING again."""
        run_id = str(run.info.run_id)
        self.client.update_run(run_id, status=RUNNING)
        for tag in (REASON, PRUNED):
            if tag in run.data.tags:
                self.client.delete_tag(run_id, tag)
        return run_id

    def _log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        known = self.client.get_run(run_id).data.params
        fresh = [Param(n, redact(str(value))) for n, value in params.items() if n not in known]
        if fresh:
            self.client.log_batch(run_id, params=fresh)

    # Metrics --------------------------------------------------------------------------------------

    def _final(self, run_id: str, metrics: Mapping[str, float]) -> dict[str, float]:
        """Final metrics by names that no curve has: a search scores its trials on val, too."""
        curves = {name for name, step in self._last_step[run_id].items() if step > 0}
        return {f"final/{n}" if n in curves else n: value for n, value in metrics.items()}

    def _fresh(self, run_id: str, metrics: Mapping[str, float], step: int, now: float) -> list[Any]:
        """What a run does not have yet of the metrics of one step."""
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
        names = self.client.get_run(run_id).data.metrics
        return {
            name: max(metric.step for metric in self.client.get_metric_history(run_id, name))
            for name in names
        }


def headline(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metric that people sort runs by, under a name that stands first among all: ``R5``, the
    mean over both directions of the split that the trial was scored on."""
    found = [value for name, value in metrics.items() if name.endswith("/R5")]
    return {HEADLINE: sum(found) / len(found)} if found else {}

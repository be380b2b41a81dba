"""Everything that knows MLflow.

One process writes: the one that runs the sweep. One experiment a sweep name, one parent run a
sweep, one child run a trial, found again by its signature: a resumed trial goes on in its own run
and no point is logged twice.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

SWEEP, SIGNATURE, KIND = "diffgap.sweep", "diffgap.signature", "diffgap.kind"
FINISHED, FAILED, KILLED, RUNNING = "FINISHED", "FAILED", "KILLED", "RUNNING"

MAX_BATCH = 1000
"""Metrics in one request: MLflow's limit."""


def tracking_uri(output: Path) -> str:
    """MLFLOW_TRACKING_URI, else SQLite in the output directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{output.absolute()}/mlflow.db"


def serve(output: Path, port: int) -> int:
    """Runs MLflow's UI on 127.0.0.1 until it is stopped; returns its exit status."""
    output.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", tracking_uri(output)]
    try:
        return subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:
        return 0


class Tracker:
    """The writer of one sweep's runs.

    Args:
        output: the sweep's output directory, for the default backend and its artifacts.
        sweep: the sweep's name, which is the experiment's.
        tags: facts for every run, such as the store and the git commit.
    """

    def __init__(self, output: Path, sweep: str, tags: Mapping[str, str]) -> None:
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")  # read when mlflow is imported
        logging.getLogger("alembic").setLevel(logging.ERROR)
        from mlflow import MlflowClient

        self.uri = tracking_uri(output)
        output.mkdir(parents=True, exist_ok=True)
        self.client = MlflowClient(self.uri)
        self.sweep, self.tags = sweep, {**tags, SWEEP: sweep}
        self.experiment = self._experiment(output)
        self.parent = self._open({KIND: "sweep"}, name=sweep)[0]
        self.status = FINISHED
        """What the parent run will end as."""
        self._runs: dict[str, str] = {}
        self._open_runs: set[str] = set()
        self._last_step: dict[str, int] = {}

    def start(self, signature: str, label: str, params: Mapping[str, Any]) -> str:
        """The trial's own run, created or gone on with; returns its id."""
        if signature in self._runs:
            return self._runs[signature]
        tags = {KIND: "trial", SIGNATURE: signature, "mlflow.parentRunId": self.parent}
        run_id, created = self._open(tags, name=label)
        if created:
            from mlflow.entities import Param

            self.client.log_batch(
                run_id, params=[Param(name, str(value)) for name, value in params.items()]
            )
        self._runs[signature] = run_id
        self._open_runs.add(run_id)
        self._last_step[run_id] = -1 if created else self._logged_step(run_id)
        return run_id

    def log(self, signature: str, points: Iterable[Mapping[str, Any]]) -> None:
        """Logs points ``{"step", "metrics"}`` that come after the last one logged."""
        from mlflow.entities import Metric

        run_id = self._runs[signature]
        now = int(time.time() * 1000)
        fresh = [point for point in points if point["step"] > self._last_step[run_id]]
        metrics = [
            Metric(name, float(value), now, point["step"])
            for point in fresh
            for name, value in point["metrics"].items()
        ]
        for start in range(0, len(metrics), MAX_BATCH):
            self.client.log_batch(run_id, metrics=metrics[start : start + MAX_BATCH])
        if fresh:
            self._last_step[run_id] = max(point["step"] for point in fresh)

    def finish(self, signature: str, metrics: Mapping[str, float], artifacts: Path) -> None:
        """Logs the final metrics and the bridge checkpoint, and ends the run as FINISHED."""
        from mlflow.entities import Metric

        run_id = self._runs[signature]
        now = int(time.time() * 1000)
        final = [Metric(name, float(value), now, 0) for name, value in metrics.items()]
        self.client.log_batch(run_id, metrics=final)
        self.client.log_artifacts(run_id, str(artifacts), "bridge")
        self._end(signature, FINISHED)

    def fail(self, signature: str, reason: str) -> None:
        """Ends a trial's run as FAILED, and says why."""
        self.client.set_tag(self._runs[signature], "diffgap.reason", reason[:5000])
        self._end(signature, FAILED)

    def kill(self, signature: str, reason: str = "interrupted") -> None:
        """Ends the run of a trial that was cut short as KILLED; one that never started has none."""
        if signature in self._runs:
            self.client.set_tag(self._runs[signature], "diffgap.reason", reason)
            self._end(signature, KILLED)

    def set_aside(self, signature: str) -> None:
        """Keeps a trial's earlier run, but goes on with it no more."""
        for run in self._find({KIND: "trial", SIGNATURE: signature}):
            self.client.set_tag(run.info.run_id, KIND, "superseded trial")

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Ends the sweep's parent run, and the runs of trials that an error cut short."""
        if kind:
            self.status = KILLED if issubclass(kind, KeyboardInterrupt) else FAILED
            for run_id in self._open_runs:
                self.client.set_terminated(run_id, KILLED)
        self.client.set_terminated(self.parent, self.status)

    def _end(self, signature: str, status: str) -> None:
        self.client.set_terminated(self._runs[signature], status)
        self._open_runs.discard(self._runs[signature])

    def _experiment(self, output: Path) -> str:
        found = self.client.get_experiment_by_name(self.sweep)
        if found:
            return str(found.experiment_id)
        local = self.uri.startswith("sqlite:")
        artifacts = (output.absolute() / "mlartifacts" / self.sweep).as_uri() if local else None
        return str(self.client.create_experiment(self.sweep, artifact_location=artifacts))

    def _open(self, tags: Mapping[str, str], name: str) -> tuple[str, bool]:
        """The run with these tags, set RUNNING; and whether it had to be created."""
        found = self._find({key: tags[key] for key in (KIND, SIGNATURE) if key in tags})
        if found:
            run_id = found[0].info.run_id
            self.client.update_run(run_id, status=RUNNING)
            return run_id, False
        run = self.client.create_run(self.experiment, tags={**self.tags, **tags}, run_name=name)
        return run.info.run_id, True

    def _find(self, tags: Mapping[str, str]) -> list[Any]:
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        return list(self.client.search_runs([self.experiment], query))

    def _logged_step(self, run_id: str) -> int:
        """The last step with a point: the largest over the run's latest metrics."""
        latest = self.client.get_run(run_id).data.metrics
        histories = [
            self.client.get_metric_history(run_id, name)
            for name in ("train/loss", "val/R5")
            if name in latest
        ]
        return max((metric.step for history in histories for metric in history), default=-1)

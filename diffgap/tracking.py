"""Everything that knows MLflow.

One process writes: the one that runs the sweep. One experiment a sweep name, one parent run a
sweep, one child run a trial, found again by its signature: a resumed trial goes on in its own run
and no point is logged twice. Every call may be repeated: what has arrived is not sent again.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

from diffgap.secrets import redact

SWEEP, SIGNATURE, KIND = "diffgap.sweep", "diffgap.signature", "diffgap.kind"
REASON, PRUNED = "diffgap.reason", "diffgap.pruned"
FINISHED, FAILED, KILLED, RUNNING = "FINISHED", "FAILED", "KILLED", "RUNNING"

MAX_BATCH = 1000
"""Metrics in one request: MLflow's limit."""

SETTINGS = {
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # the links of every run, amid our own lines
    # A server that is away is asked again by us, who can say so; each request ends soon.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
"""Read when mlflow is imported; the user's own win."""

HOPELESS = (
    "INVALID_PARAMETER_VALUE",
    "BAD_REQUEST",
    "RESOURCE_DOES_NOT_EXIST",
    "PERMISSION_DENIED",
)
"""MLflow's codes of errors that the same request would meet again."""


def tracking_uri(output: Path) -> str:
    """MLFLOW_TRACKING_URI, else SQLite in the output directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{output.absolute()}/mlflow.db"


def may_get_better(error: Exception) -> bool:
    """Whether a request that met this error is worth another try: MLflow may be away or locked."""
    if isinstance(error, LookupError | TypeError | AttributeError | AssertionError):
        return False
    return getattr(error, "error_code", None) not in HOPELESS


def warm_up(output: Path) -> None:
    """Begins, in a thread, what a `Tracker` needs: MLflow's import, and its database."""

    def work() -> None:
        with suppress(Exception):  # whoever opens a Tracker will be told
            client_of(output).search_experiments(max_results=1)

    Thread(target=work, name="MLflow warm-up", daemon=True).start()


def client_of(output: Path) -> Any:
    """MLflow's client, quiet and impatient."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    from mlflow import MlflowClient

    output.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri(output))


def serve(output: Path, port: int) -> int:
    """Runs MLflow's UI on 127.0.0.1 until it is stopped; returns its exit status."""
    output.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": tracking_uri(output),
    }  # may hold secrets
    try:
        return subprocess.run(command, check=False, env=environment).returncode
    except KeyboardInterrupt:
        return 0


class Tracker:
    """The writer of one sweep's runs.

    Runs that an earlier process left RUNNING are ended as KILLED: nobody but this process runs
    the sweep.

    Args:
        output: the sweep's output directory, for the default backend and its artifacts.
        sweep: the sweep's name, which is the experiment's.
        tags: facts for every run, such as the store and the git commit.
    """

    def __init__(self, output: Path, sweep: str, tags: Mapping[str, str]) -> None:
        self.uri = tracking_uri(output)
        self.client = client_of(output)
        self.sweep = sweep
        self.tags = {name: redact(value) for name, value in {**tags, SWEEP: sweep}.items()}
        self.experiment = self._experiment(output)
        self._end_forsaken()
        self.parent = self._open({KIND: "sweep"}, name=sweep)
        self._runs: dict[str, str] = {}
        self._open_runs: set[str] = set()
        self._last_step: dict[str, dict[str, int]] = {}

    def start(self, signature: str, label: str, params: Mapping[str, Any]) -> str:
        """The trial's own run, created or gone on with; returns its id."""
        if signature in self._runs:
            return self._runs[signature]
        tags = {KIND: "trial", SIGNATURE: signature, "mlflow.parentRunId": self.parent}
        run_id = self._open(tags, name=label)
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
        self._send(run_id, self._fresh(run_id, metrics, 0, now))
        self.client.log_artifacts(run_id, str(artifacts), "bridge")
        self._end(signature, FINISHED)

    def fail(self, signature: str, reason: str) -> None:
        """Ends a trial's run as FAILED, and says why."""
        self._end_early(signature, FAILED, reason)

    def kill(self, signature: str, reason: str = "interrupted") -> None:
        """Ends the run of a trial that was cut short as KILLED; one that never started has none."""
        if signature in self._runs:
            self._end_early(signature, KILLED, reason)

    def set_aside(self, signature: str) -> None:
        """Keeps a trial's earlier run, but goes on with it no more."""
        for run in self._find({KIND: "trial", SIGNATURE: signature}):
            self.client.set_tag(run.info.run_id, KIND, "superseded trial")

    def prune(self, signature: str) -> None:
        """Marks the run of a trial that its sweep no longer asks for."""
        for run in self._find({KIND: "trial", SIGNATURE: signature}):
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
        for run in self._search("attributes.status = 'RUNNING'"):
            self.client.set_tag(run.info.run_id, REASON, "its process ended without a word")
            self.client.set_terminated(run.info.run_id, KILLED)

    def _experiment(self, output: Path) -> str:
        found = self.client.get_experiment_by_name(self.sweep)
        if found:
            return str(found.experiment_id)
        local = self.uri.startswith("sqlite:")
        artifacts = (output.absolute() / "mlartifacts" / self.sweep).as_uri() if local else None
        return str(self.client.create_experiment(self.sweep, artifact_location=artifacts))

    def _open(self, tags: Mapping[str, str], name: str) -> str:
        """The run with these tags, set RUNNING, or a new one."""
        found = self._find({key: tags[key] for key in (KIND, SIGNATURE) if key in tags})
        if not found:
            run = self.client.create_run(self.experiment, tags={**self.tags, **tags}, run_name=name)
            return str(run.info.run_id)
        run_id = str(found[0].info.run_id)
        self.client.update_run(run_id, status=RUNNING)
        for tag in (REASON, PRUNED):
            if tag in found[0].data.tags:
                self.client.delete_tag(run_id, tag)
        return run_id

    def _log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        known = self.client.get_run(run_id).data.params
        fresh = [Param(n, redact(str(value))) for n, value in params.items() if n not in known]
        if fresh:
            self.client.log_batch(run_id, params=fresh)

    def _find(self, tags: Mapping[str, str]) -> list[Any]:
        return self._search(" and ".join(f"tags.`{key}` = '{v}'" for key, v in tags.items()))

    def _search(self, query: str) -> list[Any]:
        runs: list[Any] = []
        token: str | None = None
        while True:
            page = self.client.search_runs([self.experiment], query, page_token=token)
            runs += page
            token = page.token
            if not token:
                return runs

    # Metrics --------------------------------------------------------------------------------------

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

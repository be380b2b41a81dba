"""Everything that knows MLflow.

One experiment a sweep name; in it a parent run a sweep, whose artifact sweep.json says what was
asked for, and a child run a trial, found again by its signature. `writer` tells, `reader` asks.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from threading import Thread
from typing import Any

from diffgap.errors import UserError
from diffgap.io.paths import RemotePath, StoragePath
from diffgap.io.redact import redact

SWEEP, SIGNATURE, KIND = "diffgap.sweep", "diffgap.signature", "diffgap.kind"
REASON, PRUNED, LEDGER = "diffgap.reason", "diffgap.pruned", "diffgap.ledger"
SWEEP_KIND, TRIAL_KIND = "sweep", "trial"
PARENT, NOTE = "mlflow.parentRunId", "mlflow.note.content"
REPORT = "diffgap.report"
"""The digest of the tables that a sweep's own run carries."""

FINISHED, FAILED, KILLED, RUNNING = "FINISHED", "FAILED", "KILLED", "RUNNING"

INTERRUPTED, LOST_PROCESS = "interrupted", "its process ended without a word"
"""Reasons of runs that were killed, though nobody stopped their trials."""

DATABASE = "mlflow.db"
"""MLflow's own, in an output directory."""

SWEEP_FILE, BRIDGE = "sweep.json", "bridge"
"""Artifacts: of a sweep's own run, what was asked for; of a trial's, its bridge checkpoint."""

SETTINGS = {
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # the links of every run, amid our own lines
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",  # a sweep tells its own MLflow, and nobody else
    # A server that is away is asked again by us, who can say so; each request ends soon.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
"""Read when mlflow is imported; the user's own win."""

PERMANENT = (
    "INVALID_PARAMETER_VALUE",
    "BAD_REQUEST",
    "RESOURCE_DOES_NOT_EXIST",
    "PERMISSION_DENIED",
)
"""MLflow's codes of errors that the same request would meet again."""


def all_runs(
    client: Any, experiments: list[str], tags: Mapping[str, str], more: str = ""
) -> list[Any]:
    """Every run with these tags, and whatever more a query asks, over all of MLflow's pages."""
    terms = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
    query = " and ".join([*terms, *([more] if more else [])])
    runs: list[Any] = []
    token: str | None = None
    while True:
        page = client.search_runs(experiments, query, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs


def tracking_uri(output: StoragePath) -> str:
    """MLFLOW_TRACKING_URI, else SQLite in the output directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or default_uri(output)


def default_uri(output: StoragePath) -> str:
    """SQLite in an output directory.

    Raises:
        UserError: where that is on an object store, which holds no database.
    """
    if isinstance(output, RemotePath):
        raise UserError(
            f"--output {redact(str(output))} cannot hold MLflow's database; set "
            "MLFLOW_TRACKING_URI to a tracking server, such as http://mlflow.example.org:5000"
        )
    return f"sqlite:///{output.absolute()}/{DATABASE}"


def is_transient(error: Exception) -> bool:
    """Whether a request that met this error is worth another try: MLflow may be away or locked."""
    if isinstance(error, LookupError | TypeError | AttributeError | AssertionError):
        return False
    return getattr(error, "error_code", None) not in PERMANENT


def warm_up(output: StoragePath) -> None:
    """Begins, in a thread, what a `RunWriter` needs: MLflow's import, and its database."""

    def work() -> None:
        with suppress(Exception):  # whoever opens a Tracker will be told
            client_of(output).search_experiments(max_results=1)

    Thread(target=work, name="MLflow warm-up", daemon=True).start()


def client_of(output: StoragePath) -> Any:
    """MLflow's client, quiet and impatient."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    from mlflow import MlflowClient

    output.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri(output))


def serve(output: StoragePath, port: int) -> int:
    """Runs MLflow's UI on 127.0.0.1 until it is stopped; returns its exit status."""
    output.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": tracking_uri(output),  # may hold secrets
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # else it starts a queue of its own
    }
    try:
        return subprocess.run(command, check=False, env=environment).returncode
    except KeyboardInterrupt:
        return 0

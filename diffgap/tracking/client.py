"""MLflow's client, quiet and with short timeouts."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from diffgap.errors import UserError
from diffgap.io.paths import RemotePath, StoragePath
from diffgap.io.redact import redact
from diffgap.tracking.artifacts import strayed
from diffgap.tracking.database import (
    artifact_uris,
    ensure_database,
    is_plain,
    relocate,
    sqlite_file,
)
from diffgap.tracking.names import DATABASE, Kind, Tag
from diffgap.tracking.problems import ask

SETTINGS = {
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # the links of every run
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",  # no data to anybody but the user's own MLflow
    # Requests fail soon: DeliveryQueue tries them again, and says so.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
"""Environment variables that mlflow reads when imported; those that are set already win."""

_making = Lock()  # by which `warm_up` is waited for without a word

CONNECTION_ATTEMPTS = 2
"""To a database. MLflow's own ten take 100 silent seconds, and DeliveryQueue tries again anyway."""


def all_runs(
    client: Any, experiments: list[str], tags: Mapping[str, str], *conditions: str
) -> list[Any]:
    """Every run with these tags that meets all conditions, over all of MLflow's pages."""
    tag_conditions = (f"tags.`{key}` = '{value}'" for key, value in tags.items())
    query = " and ".join([*tag_conditions, *conditions])
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


def experiment_of(client: Any, sweep: str, uri: str) -> str | None:
    """The id of a sweep's experiment; None where there is none, UserError where it is deleted."""
    experiment = client.get_experiment_by_name(sweep)
    if experiment is None:
        return None
    number = str(experiment.experiment_id)
    if experiment.lifecycle_stage == "deleted":
        where = redact(uri)
        raise UserError(
            f"SWEEP: the experiment {sweep!r} is in the trash of MLflow at {where}; get it back: "
            f"MLFLOW_TRACKING_URI={where} mlflow experiments restore -x {number}, or delete it for "
            f"good: mlflow gc --backend-store-uri {where} --experiment-ids {number}, or give the "
            "sweep another name: --set name=..."
        )
    return number


def sweep_run(client: Any, experiment: str, ledger: str) -> Any:
    """A ledger's run of a sweep, or one from before runs named their ledger; None without one."""
    runs = all_runs(client, [experiment], {Tag.KIND: Kind.SWEEP})
    for owner in (ledger, None):
        for run in runs:
            if run.data.tags.get(Tag.LEDGER) == owner:
                return run
    return None


def default_uri(output: StoragePath) -> str:
    """SQLite in an output directory; UserError where that cannot hold a database."""
    if isinstance(output, RemotePath):
        raise UserError(
            f"--output {redact(str(output))} cannot hold MLflow's database; set "
            "MLFLOW_TRACKING_URI to a tracking server, such as http://mlflow.example.org:5000"
        )
    path = f"{output.absolute()}/{DATABASE}"
    if not is_plain(path):
        raise UserError(
            f"--output {output.absolute()} cannot hold MLflow's database: in its URI, % and ? mean "
            "something else; give an output without them, or set MLFLOW_TRACKING_URI"
        )
    return f"sqlite:///{path}"


def own_database(output: StoragePath, uri: str) -> Path | None:
    """The database in an output directory, if that is its tracking store."""
    file = sqlite_file(uri)
    is_own = isinstance(output, Path) and file == output.absolute() / DATABASE
    return file if is_own else None


def warm_up(output: StoragePath) -> None:
    """Starts importing MLflow and creating its database in a thread, for a `RunWriter` to come."""

    def work() -> None:
        with suppress(Exception):  # RunWriter will raise it
            client_of(output).search_experiments(max_results=1)

    Thread(target=work, name="MLflow warm-up", daemon=True).start()


def client_of(output: StoragePath) -> Any:
    """MLflow's client of an output directory's runs, quiet and with short timeouts.

    A database of SQLite that is missing is made.

    Raises:
        Exception: of the libraries below MLflow, where the store cannot be used; see `problem`.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    import mlflow.store.db.utils
    from mlflow import MlflowClient

    mlflow.store.db.utils.MAX_RETRY_COUNT = CONNECTION_ATTEMPTS
    uri = tracking_uri(output)
    output.mkdir(parents=True, exist_ok=True)
    if file := sqlite_file(uri):
        with _making:
            ensure_database(file)
    return MlflowClient(uri)


def prepare(output: StoragePath) -> None:
    """Makes an output's own database if need be, whose artifacts may have moved with it.

    Raises:
        UserError: where the tracking store cannot be used.
    """
    uri = tracking_uri(output)
    output.mkdir(parents=True, exist_ok=True)
    if database := own_database(output, uri):
        ask(lambda: ensure_database(database), uri)
        ask(lambda: relocate(database, strayed(artifact_uris(database), output)), uri)

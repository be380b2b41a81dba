"""MLflow's client, quiet and with short timeouts."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from threading import Thread
from typing import Any

from diffgap.errors import UserError
from diffgap.io.paths import RemotePath, StoragePath
from diffgap.io.redact import redact
from diffgap.tracking.names import DATABASE

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

# MLflow's codes of errors that no retry can cure.
FATAL = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED")


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


def default_uri(output: StoragePath) -> str:
    """SQLite in an output directory; UserError on an object store, which cannot hold a database."""
    if isinstance(output, RemotePath):
        raise UserError(
            f"--output {redact(str(output))} cannot hold MLflow's database; set "
            "MLFLOW_TRACKING_URI to a tracking server, such as http://mlflow.example.org:5000"
        )
    return f"sqlite:///{output.absolute()}/{DATABASE}"


def is_transient(error: Exception) -> bool:
    """Whether a request that failed so is worth a retry: a server is away, a database locked."""
    if isinstance(error, LookupError | TypeError | AttributeError | AssertionError):
        return False
    return getattr(error, "error_code", None) not in FATAL


def warm_up(output: StoragePath) -> None:
    """Starts importing MLflow and creating its database in a thread, for a `RunWriter` to come."""

    def work() -> None:
        with suppress(Exception):  # RunWriter will raise it
            client_of(output).search_experiments(max_results=1)

    Thread(target=work, name="MLflow warm-up", daemon=True).start()


def client_of(output: StoragePath) -> Any:
    """MLflow's client of an output directory's runs, quiet and with short timeouts."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    from mlflow import MlflowClient

    output.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri(output))

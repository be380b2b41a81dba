"""The installed command, as tests call it, and what MLflow has of its runs."""

import os
import subprocess
import sys
from pathlib import Path

from mlflow import MlflowClient

COMMAND = str(Path(sys.executable).parent / "diffgap")


def environment():
    """Nobody's Ray cluster but our own, and one thread in every process, as in Ray's workers."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**clean, "OMP_NUM_THREADS": "1"}


def diffgap(*arguments, cwd, **variables):
    return subprocess.run(
        [COMMAND, *map(str, arguments)], cwd=cwd, env=environment() | variables,
        capture_output=True, text=True, timeout=230,
    )  # fmt: skip


def client(place):
    return MlflowClient(f"sqlite:///{place}/runs/mlflow.db")


def runs_of(place, name="tiny"):
    mlflow = client(place)
    experiment = mlflow.get_experiment_by_name(name)
    return mlflow.search_runs([experiment.experiment_id])

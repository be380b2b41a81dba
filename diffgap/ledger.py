"""The ledger: what is finished, told by files alone, whichever sweep, machine or command did it.

OUTPUT/trials/SIGNATURE/bridge/        a finished trial: its bridge checkpoint
OUTPUT/trials/SIGNATURE/checkpoints/   an unfinished one: what it resumes from
OUTPUT/trials/SIGNATURE/failed.json    why it cannot be finished, or stop.json: why it should not
OUTPUT/trials/SIGNATURE/runs/SWEEP.json   its MLflow run in a sweep
OUTPUT/trained/TRAINING.json           which trial trained this; others evaluate its weights
OUTPUT/sweeps/NAME.json                a sweep: its spec and its trials
OUTPUT/search/NAME.journal             what a search has tried
OUTPUT/mlflow.db, OUTPUT/mlartifacts/  MLflow, unless MLFLOW_TRACKING_URI names another
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffgap.errors import UserError, nearest
from diffgap.files import write_json

METRICS, RANKS, HISTORY = "metrics.json", "ranks.parquet", "history.json"
FAILURE, STOP = "failed.json", "stop.json"


@dataclass(frozen=True)
class TrialRecord:
    """The directory of one trial."""

    path: Path

    @property
    def bridge(self) -> Path:
        """The bridge checkpoint; it exists, whole, when the trial is finished."""
        return self.path / "bridge"

    @property
    def checkpoints(self) -> Path:
        """What an unfinished trial resumes from."""
        return self.path / "checkpoints"

    @property
    def finished(self) -> bool:
        return (self.bridge / METRICS).is_file()

    @property
    def started(self) -> bool:
        """Whether there is something to resume from."""
        return self.checkpoints.is_dir()

    @property
    def failure(self) -> str | None:
        """Why the trial cannot be finished as it is, if it has said so."""
        path = self.path / FAILURE
        return str(json.loads(path.read_text())["reason"]) if path.is_file() else None

    def fail(self, reason: str) -> None:
        """Notes why the trial cannot be finished: trying again would end the same."""
        write_json(self.path / FAILURE, {"reason": reason})

    @property
    def stop(self) -> dict[str, Any] | None:
        """Why, at which step and with which value of a search the trial was told to stop."""
        path = self.path / STOP
        return dict(json.loads(path.read_text())) if path.is_file() else None

    def tell_to_stop(self, reason: str, step: int, value: float) -> None:
        """Asks the trial to end after the epoch it is in."""
        write_json(self.path / STOP, {"reason": reason, "step": step, "value": value})

    def try_again(self) -> None:
        """Takes the notes of a failure or a stop back."""
        for name in (FAILURE, STOP):
            (self.path / name).unlink(missing_ok=True)

    def metrics(self) -> dict[str, float]:
        """The final metrics of a finished trial."""
        metrics: dict[str, float] = json.loads((self.bridge / METRICS).read_text())
        return metrics

    def history(self) -> list[dict[str, Any]]:
        """The points of a finished trial, as `training.checkpoint.Point` fields."""
        points: list[dict[str, Any]] = json.loads((self.bridge / HISTORY).read_text())
        return points

    def run_id(self, sweep: str) -> str | None:
        """The finished MLflow run of this trial in a sweep, if it has one."""
        path = self.path / "runs" / f"{sweep}.json"
        return str(json.loads(path.read_text())["run_id"]) if path.is_file() else None

    def record_run(self, sweep: str, run_id: str) -> None:
        """Notes that a sweep's MLflow run tells all of this finished trial."""
        write_json(self.path / "runs" / f"{sweep}.json", {"run_id": run_id})

    def forget(self) -> None:
        """Drops result and checkpoints, so that the trial is done anew."""
        shutil.rmtree(self.path, ignore_errors=True)


@dataclass(frozen=True)
class SweepRecord:
    """A sweep as it was last asked for."""

    name: str
    spec: dict[str, Any]
    store: str
    trials: list[dict[str, Any]]
    """One a trial: signature, label, and the resolved trial."""


class Ledger:
    """All trials and sweeps below one output directory."""

    def __init__(self, output: Path) -> None:
        self.output = output.absolute()

    def trial(self, signature: str) -> TrialRecord:
        return TrialRecord(self.output / "trials" / signature)

    def trained(self, training: str) -> TrialRecord | None:
        """The finished trial that holds the weights of a training signature, if there is one."""
        path = self._training(training)
        if not path.is_file():
            return None
        record = self.trial(json.loads(path.read_text())["signature"])
        return record if record.finished else None

    def record_training(self, training: str, signature: str) -> None:
        """Notes that a finished trial holds the weights of a training signature."""
        write_json(self._training(training), {"signature": signature})

    def _training(self, training: str) -> Path:
        return self.output / "trained" / f"{training}.json"

    def record_sweep(self, record: SweepRecord) -> None:
        write_json(self._sweep(record.name), asdict(record))

    def sweep(self, name: str) -> SweepRecord:
        """A recorded sweep; UserError names the ones there are."""
        path = self._sweep(name)
        if not path.is_file():
            known = [entry.stem for entry in path.parent.glob("*.json")]
            hint = nearest(name, known) if known else "no sweep has been run there"
            raise UserError(f"sweep {name!r} is not in {self.output}; {hint}")
        return SweepRecord(**json.loads(path.read_text()))

    def _sweep(self, name: str) -> Path:
        return self.output / "sweeps" / f"{name}.json"

"""Ledger of trials and sweeps: files alone say what is finished, whoever finished it.

OUTPUT/trials/SIGNATURE/trial.json     the trial's spec, written before it starts
OUTPUT/trials/SIGNATURE/bridge/        a finished trial: its bridge checkpoint
OUTPUT/trials/SIGNATURE/checkpoints/   an unfinished one: what it resumes from
OUTPUT/trials/SIGNATURE/progress.json  the step it reached when it reported last
OUTPUT/trials/SIGNATURE/attempts.json  how often it was started by the sweep that runs it
OUTPUT/trials/SIGNATURE/log.txt        output of its processes, over all attempts
OUTPUT/trials/SIGNATURE/failed.json    why it failed; or stop.json, why it should stop
OUTPUT/trials/SIGNATURE/rungs/STUDY.json  its values at a search's rungs, and whether it survived
OUTPUT/trained/TRAINING.json           which trial trained these weights; others evaluate them
OUTPUT/sweeps/NAME.json                a sweep: its spec and its trials
OUTPUT/ledger.json                     the ledger's identity
OUTPUT/running/NAME.*                  a running sweep: see `diffgap.ledger.locks`
OUTPUT/search/NAME.journal             a search's suggestions, and their values
OUTPUT/mlflow.db, OUTPUT/mlartifacts/  MLflow, unless MLFLOW_TRACKING_URI names another
"""

from __future__ import annotations

import copy
import json
import uuid
from dataclasses import asdict, dataclass, field
from typing import Any

from diffgap.errors import UserError, nearest
from diffgap.io.atomic import create_text, remove_leftovers, write_json
from diffgap.io.paths import StoragePath, parse_path, remove
from diffgap.io.redact import HIDDEN, redact
from diffgap.ledger.artifacts import ATTEMPTS, FAILURE, HISTORY, LOG, METRICS, PROGRESS, STOP, TRIAL

IDENTITY = "ledger.json"
ANEW = "move it away, and give its sweep's command again, which repeats no finished trial"
"""What to do about a file that cannot be read."""


@dataclass(frozen=True)
class TrialRecord:
    """The directory of one trial."""

    path: StoragePath

    @property
    def bridge(self) -> StoragePath:
        """The bridge checkpoint; it exists, and is whole, once the trial is finished."""
        return self.path / "bridge"

    @property
    def checkpoints(self) -> StoragePath:
        """What an unfinished trial resumes from."""
        return self.path / "checkpoints"

    @property
    def log(self) -> StoragePath:
        """Output of its processes, over all attempts."""
        return self.path / LOG

    @property
    def finished(self) -> bool:
        return (self.bridge / METRICS).is_file()

    @property
    def finished_bridge(self) -> StoragePath | None:
        """The bridge checkpoint of a finished trial; None for any other."""
        return self.bridge if self.finished else None

    def begin(self, facts: dict[str, Any]) -> None:
        """Records what the trial is before it starts, and forgets how it ended before."""
        self.path.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.path)
        for name in (FAILURE, STOP, ATTEMPTS):
            (self.path / name).unlink(missing_ok=True)
        write_json(self.path / TRIAL, facts)

    @property
    def facts(self) -> dict[str, Any] | None:
        """What `begin` recorded; None for a trial that was never started."""
        return read_json(self.path / TRIAL)

    @property
    def progress(self) -> dict[str, Any] | None:
        """Step, steps, val metrics, host and time, as its first worker recorded them last."""
        return read_json(self.path / PROGRESS)

    def record_progress(self, facts: dict[str, Any]) -> None:
        write_json(self.path / PROGRESS, facts)

    @property
    def failure(self) -> str | None:
        """Why the trial failed, if it did."""
        content = read_json(self.path / FAILURE)
        return str(content["reason"]) if content else None

    def fail(self, reason: str) -> None:
        """Records why the trial failed."""
        write_json(self.path / FAILURE, {"reason": reason})

    @property
    def ended(self) -> bool:
        """Whether a sweep is through with it: it finished, failed or was stopped."""
        return self.finished or self.failure is not None or self.stop is not None

    @property
    def attempts(self) -> int:
        """How often it was started or resumed since `begin`."""
        content = read_json(self.path / ATTEMPTS)
        return int(content["count"]) if content else 0

    def record_attempt(self) -> int:
        """Records a start or a resumption; returns how many there were."""
        # Before the attempt, so that one that kills its process counts too.
        count = self.attempts + 1
        write_json(self.path / ATTEMPTS, {"count": count})
        return count

    @property
    def stop(self) -> dict[str, Any] | None:
        """Why the trial is to stop; by a search, also at which step and with which value."""
        return read_json(self.path / STOP)

    def request_stop(
        self, reason: str, step: int | None = None, value: float | None = None
    ) -> None:
        """Asks the trial to stop at its next validation."""
        write_json(self.path / STOP, {"reason": reason, "step": step, "value": value})

    def rungs(self, study: str) -> dict[int, Rung]:
        """The rungs of a study that the trial has reached, by step."""
        content = read_json(self._rungs_path(study)) or {}
        return {int(step): Rung(**rung) for step, rung in content.items()}

    def record_rung(self, study: str, step: int, rung: Rung) -> None:
        """Records the verdict at a rung; the trial waits there until it is written."""
        rungs = {**self.rungs(study), step: rung}
        content = {str(step): asdict(rung) for step, rung in rungs.items()}
        write_json(self._rungs_path(study), content)

    def _rungs_path(self, study: str) -> StoragePath:
        return self.path / "rungs" / f"{study}.json"

    def metrics(self) -> dict[str, float]:
        """The final metrics of a finished trial."""
        return dict(json.loads((self.bridge / METRICS).read_text()))

    def history(self) -> list[dict[str, Any]]:
        """The points of a finished trial, as `training.checkpoint.Point` fields."""
        return list(json.loads((self.bridge / HISTORY).read_text()))

    def partial_history(self) -> list[dict[str, Any]]:
        """The same of a trial that stopped or failed, up to its newest checkpoint; else empty."""
        names = [path.name for path in self.checkpoints.glob("step-*")]
        for name in sorted(names, reverse=True):
            if content := read_json(self.checkpoints / name / PROGRESS):
                return list(content["history"])
        return []

    def forget(self) -> None:
        """Removes result and checkpoints, so that the trial runs anew."""
        remove(self.path)


@dataclass(frozen=True)
class Rung:
    """Where successive halving compares a trial with those that were there before it."""

    value: float
    goes_on: bool


@dataclass(frozen=True)
class SweepRecord:
    """A sweep as it was requested last."""

    name: str
    spec: dict[str, Any]
    store: str
    trials: list[dict[str, Any]]  # one a trial: signature, label, and the resolved trial
    dropped: list[dict[str, Any]] = field(default_factory=list)
    """The same of trials that only an earlier spec had; ``pruned`` where MLflow marks them so."""

    def public_facts(self) -> dict[str, Any]:
        """The sweep as others may read it: without secrets, and without what was dropped."""
        spec = copy.deepcopy(self.spec)
        environment = spec.get("resources", {}).get("environment", {})
        environment.update(dict.fromkeys(environment, HIDDEN))  # whatever it is that they say
        facts = {"name": self.name, "spec": spec, "store": self.store, "trials": self.trials}
        return dict(json.loads(redact(json.dumps(facts))))


class Ledger:
    """All trials and sweeps below one output directory."""

    def __init__(self, output: StoragePath) -> None:
        self.output: StoragePath = output.absolute()

    @classmethod
    def at(cls, output: str) -> Ledger:
        """The ledger of an output given as a path or a URI."""
        return cls(parse_path(output))

    def identity(self) -> str:
        """The ledger's id, which stays when its directory is moved; created on first use."""
        path = self.output / IDENTITY
        if not path.is_file():
            create_text(path, json.dumps({"id": uuid.uuid4().hex}, indent=2) + "\n")
        return str(json.loads(path.read_text())["id"])

    def trial(self, signature: str) -> TrialRecord:
        return TrialRecord(self.output / "trials" / signature)

    def find(self, prefix: str) -> TrialRecord:
        """The trial whose signature begins with a prefix; UserError unless there is just one."""
        trials = (self.output / "trials").glob("*")
        matching = sorted(t.name for t in trials if prefix and t.name.startswith(prefix))
        if len(matching) == 1:
            return self.trial(matching[0])
        if matching:
            raise UserError(f"signature {prefix!r} matches {', '.join(matching)}; give one in full")
        raise UserError(
            f"signature {prefix!r} matches no trial in {self.output}; "
            "list them with: diffgap status --output DIR"
        )

    def trained(self, training: str) -> TrialRecord | None:
        """The finished trial that has the weights of a training signature, if there is one."""
        content = read_json(self._training_path(training))
        record = self.trial(content["signature"]) if content else None
        return record if record and record.finished else None

    def record_training(self, training: str, signature: str) -> None:
        """Records that a finished trial has the weights of a training signature."""
        write_json(self._training_path(training), {"signature": signature})

    def forget_training(self, training: str) -> None:
        """Makes the next trial of a training signature train by itself."""
        self._training_path(training).unlink(missing_ok=True)

    def _training_path(self, training: str) -> StoragePath:
        return self.output / "trained" / f"{training}.json"

    def sweeps(self) -> list[str]:
        """The names of all sweeps, the one requested last first."""
        directory = self.output / "sweeps"
        if not directory.is_dir():
            return []
        # Not by `glob`, for which a directory that may not be read is an empty one.
        files = [path for path in directory.iterdir() if path.name.endswith(".json")]
        # A name with a dot is a temporary one that a killed process has left.
        paths = [path for path in files if not path.name.startswith(".")]
        paths.sort(key=lambda path: path.stat().st_mtime if path.exists() else 0, reverse=True)
        return [path.stem for path in paths]

    def sweep(self, name: str) -> SweepRecord:
        """A recorded sweep; UserError where there is none of this name, or its record is broken."""
        content = read_json(self._sweep_path(name))
        if content is None:
            names = self.sweeps()
            hint = nearest(name, names) if names else "no sweep has been run there"
            raise UserError(f"sweep {name!r} is not in {self.output}; {hint}")
        try:
            return SweepRecord(**content)
        except TypeError as error:
            raise UserError(
                f"{self._sweep_path(name)}: this version of diffgap does not know such a record "
                f"({str(error).removeprefix('SweepRecord.__init__() ')}); {ANEW}"
            ) from None

    def record_sweep(self, record: SweepRecord) -> None:
        """Records a sweep as it is requested now, and the trials that only earlier specs had."""
        path = self._sweep_path(record.name)
        previous = read_json(path) or {}
        entries = [*previous.get("trials", ()), *previous.get("dropped", ()), *record.dropped]
        dropped = {entry["signature"]: entry for entry in entries}
        for entry in record.trials:
            dropped.pop(entry["signature"], None)
        write_json(path, {**asdict(record), "dropped": list(dropped.values())})

    def _sweep_path(self, name: str) -> StoragePath:
        return self.output / "sweeps" / f"{name}.json"


def read_json(path: StoragePath) -> dict[str, Any] | None:
    """A file's content; None where there is no such file, UserError where it is damaged."""
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: is damaged ({error}); {ANEW}") from None

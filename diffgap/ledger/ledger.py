"""The ledger: what is finished, told by files alone, whichever sweep, machine or command did it.

OUTPUT/trials/SIGNATURE/trial.json     what the trial is, written before it starts
OUTPUT/trials/SIGNATURE/bridge/        a finished trial: its bridge checkpoint
OUTPUT/trials/SIGNATURE/checkpoints/   an unfinished one: what it resumes from
OUTPUT/trials/SIGNATURE/progress.json  how far it was when it last said so
OUTPUT/trials/SIGNATURE/attempts.json  how often it has been begun in the sweep that runs it
OUTPUT/trials/SIGNATURE/log.txt        all that its processes have said, over all attempts
OUTPUT/trials/SIGNATURE/failed.json    why it cannot be finished, or stop.json: why it should not
OUTPUT/trials/SIGNATURE/rungs/STUDY.json  its values at a search's rungs, and whether it went on
OUTPUT/trials/SIGNATURE/runs/SWEEP.json   its MLflow run in a sweep
OUTPUT/trained/TRAINING.json           which trial trained this; others evaluate its weights
OUTPUT/sweeps/NAME.json                a sweep: its spec and its trials
OUTPUT/sweeps/NAME.told                the digest of what MLflow was told of these last
OUTPUT/ledger.json                     what tells this ledger from others
OUTPUT/running/NAME.*                  a sweep that is running: see `diffgap.ledger.locks`
OUTPUT/search/NAME.journal             what a search has tried
OUTPUT/mlflow.db, OUTPUT/mlartifacts/  MLflow, unless MLFLOW_TRACKING_URI names another
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import asdict, dataclass, field
from typing import Any

from diffgap.errors import UserError, nearest
from diffgap.io.atomic import sweep_up, write_json
from diffgap.io.paths import StoragePath, parse_path, remove
from diffgap.io.redact import redact
from diffgap.ledger.artifacts import ATTEMPTS, FAILURE, HISTORY, LOG, METRICS, PROGRESS, STOP, TRIAL

IDENTITY = "ledger.json"


@dataclass(frozen=True)
class TrialRecord:
    """The directory of one trial."""

    path: StoragePath

    @property
    def bridge(self) -> StoragePath:
        """The bridge checkpoint; it exists, whole, when the trial is finished."""
        return self.path / "bridge"

    @property
    def checkpoints(self) -> StoragePath:
        """What an unfinished trial resumes from."""
        return self.path / "checkpoints"

    @property
    def log(self) -> StoragePath:
        """What its processes said, over all attempts."""
        return self.path / LOG

    @property
    def finished(self) -> bool:
        return (self.bridge / METRICS).is_file()

    @property
    def started(self) -> bool:
        """Whether there is something to resume from."""
        return self.checkpoints.is_dir()

    def begin(self, facts: dict[str, Any]) -> None:
        """Notes what the trial is before it is started, and takes old notes of its end back."""
        self.path.mkdir(parents=True, exist_ok=True)
        sweep_up(self.path)
        for name in (FAILURE, STOP, ATTEMPTS):
            (self.path / name).unlink(missing_ok=True)
        write_json(self.path / TRIAL, facts)

    @property
    def facts(self) -> dict[str, Any] | None:
        """What `begin` noted; None for a trial that was never started."""
        return _read(self.path / TRIAL)

    @property
    def progress(self) -> dict[str, Any] | None:
        """Step, steps, val metrics, host and time, as its first worker last noted them."""
        return _read(self.path / PROGRESS)

    def note_progress(self, facts: dict[str, Any]) -> None:
        write_json(self.path / PROGRESS, facts)

    @property
    def failure(self) -> str | None:
        """Why the trial cannot be finished as it is, if it has said so."""
        note = _read(self.path / FAILURE)
        return str(note["reason"]) if note else None

    def fail(self, reason: str) -> None:
        """Notes why the trial could not be finished."""
        write_json(self.path / FAILURE, {"reason": reason})

    @property
    def ended(self) -> bool:
        """Whether a sweep has nothing more to do for it: finished, failed or told to stop."""
        return self.finished or self.failure is not None or self.stop is not None

    @property
    def attempts(self) -> int:
        """How often it has been begun since `begin`."""
        note = _read(self.path / ATTEMPTS)
        return int(note["count"]) if note else 0

    def note_attempt(self) -> int:
        """Notes that it is begun, or gone on with; returns how often that was so."""
        count = self.attempts + 1
        write_json(self.path / ATTEMPTS, {"count": count})
        return count

    @property
    def stop(self) -> dict[str, Any] | None:
        """Why the trial was told to stop; by a search, also at which step and with which value."""
        return _read(self.path / STOP)

    def tell_to_stop(
        self, reason: str, step: int | None = None, value: float | None = None
    ) -> None:
        """Asks the trial to end at its next validation."""
        write_json(self.path / STOP, {"reason": reason, "step": step, "value": value})

    def rungs(self, study: str) -> dict[int, Rung]:
        """The trial's rungs in a study that can stop it, by step."""
        found = _read(self._rungs(study)) or {}
        return {int(step): Rung(**rung) for step, rung in found.items()}

    def note_rung(self, study: str, step: int, rung: Rung) -> None:
        """Keeps a rung; the trial waits there until it is written."""
        rungs = {**self.rungs(study), step: rung}
        write_json(self._rungs(study), {str(at): asdict(rung) for at, rung in rungs.items()})

    def _rungs(self, study: str) -> StoragePath:
        return self.path / "rungs" / f"{study}.json"

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
        note = _read(self.path / "runs" / f"{sweep}.json")
        return str(note["run_id"]) if note else None

    def record_run(self, sweep: str, run_id: str) -> None:
        """Notes that a sweep's MLflow run tells all of this finished trial."""
        write_json(self.path / "runs" / f"{sweep}.json", {"run_id": run_id})

    def forget(self) -> None:
        """Drops result and checkpoints, so that the trial is done anew."""
        remove(self.path)


@dataclass(frozen=True)
class Rung:
    """Where successive halving compares a trial with those that were there before it."""

    value: float
    goes_on: bool


@dataclass(frozen=True)
class SweepRecord:
    """A sweep as it was last asked for."""

    name: str
    spec: dict[str, Any]
    store: str
    trials: list[dict[str, Any]]
    """One a trial: signature, label, and the resolved trial."""
    dropped: list[dict[str, Any]] = field(default_factory=list)
    """The same of trials that an earlier spec asked for; ``pruned`` where MLflow says so."""

    def asked(self) -> dict[str, Any]:
        """What is asked for now, as others may read it: without secrets."""
        facts = {"name": self.name, "spec": self.spec, "store": self.store, "trials": self.trials}
        found: dict[str, Any] = json.loads(redact(json.dumps(facts)))
        return found

    @property
    def digest(self) -> str:
        """Of what is asked for."""
        return hashlib.sha256(json.dumps(self.asked(), sort_keys=True).encode()).hexdigest()


class Ledger:
    """All trials and sweeps below one output directory."""

    def __init__(self, output: StoragePath) -> None:
        self.output: StoragePath = output.absolute()

    @classmethod
    def at(cls, output: str) -> Ledger:
        """The ledger of an output as it is written: a path or a URI."""
        return cls(parse_path(output))

    def identity(self) -> str:
        """What tells this ledger from others, wherever it is moved to; made when first asked."""
        path = self.output / IDENTITY
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {"id": uuid.uuid4().hex})
        return str(json.loads(path.read_text())["id"])

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

    def forget_training(self, training: str) -> None:
        """Lets the next trial of a training signature train by itself."""
        self._training(training).unlink(missing_ok=True)

    def _training(self, training: str) -> StoragePath:
        return self.output / "trained" / f"{training}.json"

    def record_sweep(self, record: SweepRecord) -> None:
        """Keeps a sweep as it is asked for now, and what an earlier spec asked for beyond it."""
        asked = {entry["signature"] for entry in record.trials}
        before = _read(self._sweep(record.name)) or {"trials": [], "dropped": []}
        earlier = {e["signature"]: e for e in (*before["trials"], *before.get("dropped", ()))}
        earlier |= {entry["signature"]: entry for entry in record.dropped}
        dropped = [entry for signature, entry in earlier.items() if signature not in asked]
        write_json(self._sweep(record.name), {**asdict(record), "dropped": dropped})

    def synced_digest(self, name: str) -> str | None:
        """The digest of a sweep's record as MLflow was told of it last."""
        note = _read(self._synced_path(name))
        return str(note["digest"]) if note else None

    def record_synced(self, name: str, digest: str) -> None:
        """Notes that MLflow has the record of a sweep with this digest."""
        write_json(self._synced_path(name), {"digest": digest})

    def sweeps(self) -> list[str]:
        """The names of all sweeps, the one asked for last first."""
        files: list[StoragePath] = [*(self.output / "sweeps").glob("*.json")]
        return [file.stem for file in sorted(files, key=lambda f: -f.stat().st_mtime)]

    def find(self, start: str) -> TrialRecord:
        """The trial whose signature starts so.

        Raises:
            UserError: where there is none, or more than one.
        """
        trials = self.output / "trials"
        known = sorted(entry.name for entry in trials.iterdir()) if trials.is_dir() else []
        matching = [name for name in known if start and name.startswith(start)]
        if len(matching) == 1:
            return self.trial(matching[0])
        if matching:
            raise UserError(f"signature {start!r} is that of {', '.join(matching)}; give one whole")
        raise UserError(
            f"signature {start!r} is no trial's in {self.output}; "
            "list them with: diffgap status --output DIR"
        )

    def sweep(self, name: str) -> SweepRecord:
        """A recorded sweep; UserError names the ones there are."""
        path = self._sweep(name)
        if not path.is_file():
            known = [entry.stem for entry in path.parent.glob("*.json")]
            hint = nearest(name, known) if known else "no sweep has been run there"
            raise UserError(f"sweep {name!r} is not in {self.output}; {hint}")
        return SweepRecord(**json.loads(path.read_text()))

    def _synced_path(self, name: str) -> StoragePath:
        return self.output / "sweeps" / f"{name}.told"

    def _sweep(self, name: str) -> StoragePath:
        return self.output / "sweeps" / f"{name}.json"


def _read(path: StoragePath) -> dict[str, Any] | None:
    """A note's content; None where there is none."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return content

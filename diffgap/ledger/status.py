"""How a sweep goes, read from the ledger: from another terminal, or a machine that shares it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from diffgap.errors import UserError
from diffgap.io.paths import StoragePath
from diffgap.io.redact import redact
from diffgap.ledger.leases import sweep_lock
from diffgap.ledger.ledger import Ledger, SweepRecord
from diffgap.ledger.logs import log_files, news

DONE, RUNNING, WAITING, INTERRUPTED = "done", "running", "waiting", "interrupted"
STOPPED, FAILED, NOT_STARTED = "stopped", "failed", "not started"
STATES = (DONE, RUNNING, WAITING, INTERRUPTED, NOT_STARTED, STOPPED, FAILED)

FOLLOW_S = 0.5
"""Between two looks at a log that is followed."""


@dataclass(frozen=True)
class TrialState:
    """One trial of a sweep, as it stands."""

    signature: str
    label: str
    state: str
    step: int | None
    steps: int | None
    best: float | None
    """Mean R@5 of both directions on val, at its best."""
    last_seen: float | None
    """When it last said how far it is, in seconds since the epoch."""
    reason: str | None
    """Why it failed or was stopped."""
    log: StoragePath


@dataclass(frozen=True)
class SweepState:
    """A sweep, as it stands."""

    name: str
    alive: bool
    who: dict[str, Any] | None
    """Host, pid and times of the process that runs it, or was cut short."""
    trials: tuple[TrialState, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many trials are in each state."""
        found = Counter(trial.state for trial in self.trials)
        return {state: found[state] for state in STATES if found[state]}

    @property
    def best(self) -> TrialState | None:
        """The trial that is best on val so far."""
        known = [trial for trial in self.trials if trial.best is not None]
        return max(known, key=lambda trial: trial.best or 0.0, default=None)


def sweep_state(ledger: Ledger, name: str) -> SweepState:
    """A recorded sweep; UserError names the ones there are."""
    record = ledger.sweep(name)
    lock = sweep_lock(ledger.output, name)
    alive = lock.is_alive()
    note = lock.note()
    began = note["began"] if alive and note else None
    trials = tuple(_trial_state(ledger, entry, alive, began) for entry in record.trials)
    return SweepState(name, alive, note, trials)


def _trial_state(
    ledger: Ledger, entry: dict[str, Any], alive: bool, began: float | None
) -> TrialState:
    record = ledger.trial(entry["signature"])
    progress = record.progress or {}
    stop, last_seen = record.stop, progress.get("time")
    if record.finished:
        state = DONE
    elif record.failure:
        state = FAILED
    elif stop:
        state = STOPPED
    elif alive:
        state = RUNNING if last_seen and began and last_seen >= began else WAITING
    else:
        state = INTERRUPTED if progress else NOT_STARTED
    best = record.metrics().get("best/val_R5") if record.finished else progress.get("best")
    return TrialState(
        signature=entry["signature"],
        label=entry["label"] + (" (final)" if entry.get("final") else ""),
        state=state,
        step=progress.get("step"),
        steps=progress.get("steps"),
        best=best,
        last_seen=last_seen,
        reason=record.failure or (str(stop["reason"]) if stop else None),
        log=record.log,
    )


def sweeps_of(ledger: Ledger, signature: str) -> list[SweepRecord]:
    """The sweeps that ask for a trial."""
    records = [ledger.sweep(name) for name in ledger.sweeps()]
    return [r for r in records if signature in {entry["signature"] for entry in r.trials}]


def cancel(ledger: Ledger, target: str) -> str:
    """Asks a running sweep, or one trial of it, to end; returns what will happen.

    Raises:
        UserError: where there is nothing to cancel, with its state.
    """
    if target in ledger.sweeps():
        return _cancel_sweep(ledger, target)
    record = ledger.find(target)
    signature = record.path.name
    for sweep in sweeps_of(ledger, signature):
        state = sweep_state(ledger, sweep.name)
        (trial,) = [t for t in state.trials if t.signature == signature]
        if state.alive and trial.state in (RUNNING, WAITING):
            record.tell_to_stop("cancelled")
            return (
                f"Trial {signature} ({trial.label}) ends at its next validation; sweep "
                f"{sweep.name} goes on with the others. The same sweep command runs it again."
            )
    raise UserError(f"trial {signature} is not running; see: diffgap status")


def _cancel_sweep(ledger: Ledger, name: str) -> str:
    lock = sweep_lock(ledger.output, name)
    if not lock.is_alive():
        raise UserError(f"sweep {name!r} is not running; see: diffgap status {name}")
    lock.cancel()
    return (
        f"Sweep {name} ends once its running trials come to their next validation. "
        "The same command goes on from there."
    )


def log_lines(
    ledger: Ledger, signature: str, follow: bool, wait: Callable[[float], None] = time.sleep
) -> Iterator[str]:
    """A trial's log, as text that a terminal may be shown; with `follow`, until the trial ends."""
    record = ledger.find(signature)
    read: dict[str, int] = {}
    while True:
        ended = record.finished or record.failure or record.stop  # before the last look
        for file in log_files(record.log):
            said = news(file, read.get(file.name, 0))
            read[file.name] = read.get(file.name, 0) + len(said)
            yield from map(_shown, said.decode(errors="replace").splitlines())
        if not follow or ended:
            return
        wait(FOLLOW_S)


def _shown(line: str) -> str:
    """A line without secrets and without what could steer a terminal."""
    plain = "".join(c for c in line.rstrip("\n") if c.isprintable() or c == "\t")
    return redact(plain)

"""Status of sweeps, read from the ledger in another terminal or on a machine that shares it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from diffgap.errors import UserError
from diffgap.io.paths import StoragePath
from diffgap.io.places import place_problem
from diffgap.io.printable import log_text
from diffgap.io.redact import redact
from diffgap.ledger.leases import sweep_lock
from diffgap.ledger.ledger import ANEW, Ledger, SweepRecord
from diffgap.ledger.logs import log_parts, read_from
from diffgap.ledger.states import CANCELLED, TrialState, state_at_rest

DAMAGED = (AttributeError, LookupError, OSError, TypeError, ValueError)
"""Errors of reading records that are damaged, or another version's."""

FOLLOW_S = 0.5  # interval at which a log that is followed is read


@dataclass(frozen=True)
class TrialStatus:
    """A trial of a sweep at this moment."""

    signature: str
    label: str
    state: TrialState
    step: int | None
    steps: int | None
    best: float | None  # mean R@5 of both directions on val, at its best
    last_seen: float | None  # when it last reported a step, in seconds since the epoch
    reason: str | None  # why it failed or was stopped
    log: StoragePath


@dataclass(frozen=True)
class SweepStatus:
    """A sweep at this moment."""

    name: str
    alive: bool
    heartbeat: dict[str, Any] | None
    """Host, pid and times of the process that runs it, or was interrupted."""
    trials: tuple[TrialStatus, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many trials are in each state."""
        counts = Counter(trial.state for trial in self.trials)
        return {state: counts[state] for state in TrialState if counts[state]}

    @property
    def best(self) -> TrialStatus | None:
        """The trial that is best on val so far."""
        validated = [trial for trial in self.trials if trial.best is not None]
        return max(validated, key=lambda trial: trial.best or 0.0, default=None)


def sweep_status(ledger: Ledger, name: str) -> SweepStatus:
    """The status of a recorded sweep; UserError where there is none of this name."""
    record = ledger.sweep(name)
    lock = sweep_lock(ledger.output, name)
    alive, heartbeat = lock.is_alive(), lock.last_heartbeat()
    start = heartbeat["began"] if alive and heartbeat else None
    trials = tuple(_trial_status(ledger, entry, alive, start) for entry in record.trials)
    return SweepStatus(name, alive, heartbeat, trials)


def _trial_status(
    ledger: Ledger, entry: dict[str, Any], alive: bool, start: float | None
) -> TrialStatus:
    record = ledger.trial(entry["signature"])
    progress = record.progress or {}
    stop, last_seen = record.stop, progress.get("time")
    state = state_at_rest(record)
    if alive and not state.is_final:
        # A report from before the process started is of an earlier run of the sweep.
        is_running = last_seen and start and last_seen >= start
        state = TrialState.RUNNING if is_running else TrialState.WAITING
    best = record.metrics().get("best/val_R5") if record.finished else progress.get("best")
    return TrialStatus(
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


def all_statuses(ledger: Ledger) -> tuple[list[SweepStatus], list[str]]:
    """Every sweep's status, the one requested last first, and what is wrong with the others."""
    statuses, problems = [], []
    for name in ledger.sweeps():
        try:
            statuses.append(sweep_status(ledger, name))
        except DAMAGED as error:
            problems.append(damage(f"sweep {name!r}", error))
    return statuses, problems


def damage(what: str, error: Exception) -> str:
    """Why a record cannot be read, and what to do about it; `error` is one of `DAMAGED`."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        return f"{what}: {place_problem(error)}"
    line = " ".join(map(str.strip, str(error).splitlines()[:3]))  # pydantic names the field below
    return f"{what}: its record is damaged ({type(error).__name__}: {line}); {ANEW}"


def sweeps_of(ledger: Ledger, signature: str) -> list[SweepRecord]:
    """The sweeps that a trial belongs to; those whose records are damaged are passed over."""
    sweeps = []
    for name in ledger.sweeps():
        with suppress(*DAMAGED):  # `status` names them
            record = ledger.sweep(name)
            if signature in map(itemgetter("signature"), record.trials):
                sweeps.append(record)
    return sweeps


def cancel(ledger: Ledger, target: str) -> str:
    """Asks a running sweep, or one of its trials, to stop; returns a line on what will happen."""
    if target in ledger.sweeps():
        return _cancel_sweep(ledger, target)
    record = ledger.find(target)
    signature = record.path.name
    for sweep in sweeps_of(ledger, signature):
        status = sweep_status(ledger, sweep.name)
        (trial,) = [trial for trial in status.trials if trial.signature == signature]
        if status.alive and trial.state in (TrialState.RUNNING, TrialState.WAITING):
            record.request_stop(CANCELLED)
            return (
                f"Trial {signature} ({trial.label}) stops at its next validation; sweep "
                f"{sweep.name} continues with the others. The same sweep command resumes it."
            )
    raise UserError(f"trial {signature} is not running; see: diffgap status")


def _cancel_sweep(ledger: Ledger, name: str) -> str:
    lock = sweep_lock(ledger.output, name)
    if not lock.is_alive():
        raise UserError(f"sweep {name!r} is not running; see: diffgap status {name}")
    lock.cancel()
    return (
        f"Sweep {name} stops once its running trials reach their next validation. "
        "The same command resumes it."
    )


def log_lines(
    ledger: Ledger, prefix: str, follow: bool, wait: Callable[[float], None] = time.sleep
) -> Iterator[str]:
    """The lines of a trial's log, safe to print in a terminal; with `follow` until it ends."""
    record = ledger.find(prefix)
    positions: dict[str, int] = {}
    while True:
        ended = record.ended  # asked before the last read, so that no line is missed
        for file in log_parts(record.log):
            content = read_from(file, positions.get(file.name, 0))
            positions[file.name] = positions.get(file.name, 0) + len(content)
            yield from map(_printable, content.decode(errors="replace").splitlines())
        if not follow or ended:
            return
        wait(FOLLOW_S)


def _printable(line: str) -> str:
    """A line without secrets, and without escape sequences that could control a terminal."""
    return redact(log_text(line))

"""States of a trial, in the words that every command and report uses."""

from __future__ import annotations

from enum import StrEnum

from diffgap.ledger.ledger import TrialRecord

CANCELLED = "cancelled"
"""Why a trial is stopped that somebody asked to stop, by its signature."""


class TrialState(StrEnum):
    """What has become of a trial."""

    FINISHED = "finished"
    RUNNING = "running"
    PAUSED = "paused"
    WAITING = "waiting"
    INTERRUPTED = "interrupted"
    NOT_STARTED = "not started"
    STOPPED = "stopped"
    FAILED = "failed"
    MISSING = "not in MLflow (not started, or deleted)"
    """Of a report alone, which knows a sweep by MLflow only."""

    @property
    def is_final(self) -> bool:
        """Whether the sweep that has brought a trial there does no more for it."""
        return self in (TrialState.FINISHED, TrialState.STOPPED, TrialState.FAILED)


def state_at_rest(record: TrialRecord) -> TrialState:
    """The state of a trial that no process is working on."""
    if record.finished:
        return TrialState.FINISHED
    if record.failure:
        return TrialState.FAILED
    if record.stop:
        return TrialState.STOPPED
    return TrialState.INTERRUPTED if record.progress else TrialState.NOT_STARTED

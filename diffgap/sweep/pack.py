"""The trials of one pack, in one process: each with its own log, failure, checkpoint and result.

A trial in a pack is the same experiment as alone. What one of them runs into is its own: an error
that would come again fails that trial, and the next one begins.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import Any

from diffgap.ledger import Ledger
from diffgap.places import remove
from diffgap.spec import Trial
from diffgap.sweep.host import Seat, SweepHost
from diffgap.training.faults import is_hopeless, reason_of
from diffgap.training.loop import StoppedError
from diffgap.training.trial import run_trial
from diffgap.training.trial_log import captured_output, log_file, trial_log


def run_pack(pack: dict[str, Any], seat: Seat) -> None:
    """Runs what is left of a pack's trials, one after another.

    Raises:
        Exception: what may get better in another process, for Ray to try again; with several
            workers every error, on which Ray ends the others.
    """
    ledger = Ledger.at(pack["output"])
    for job in pack["members"]:
        _Attempt(job, pack["store"], pack["retries"], ledger, seat).make()


class _Attempt:
    """One attempt at one trial."""

    def __init__(
        self, job: dict[str, Any], store: str, retries: int, ledger: Ledger, seat: Seat
    ) -> None:
        self.job, self.store, self.retries = job, store, retries
        self.ledger, self.seat = ledger, seat
        self.record = ledger.trial(job["signature"])

    def make(self) -> None:
        """Makes it, unless the trial has come to its end before."""
        seat, record = self.seat, self.record
        speaker = f"worker {seat.rank}"
        if seat.agreed(seat.rank == 0 and (record.ended or self.job["taken"])):
            return
        with ExitStack() as stack:
            said = stack.enter_context(log_file(record.log, speaker))
            log = stack.enter_context(trial_log(said, speaker))
            stack.enter_context(captured_output(said))
            host = SweepHost(record, self.job, seat)
            host.begun()
            if seat.agreed(seat.rank == 0 and self._may_try()):
                self._run(host, log)
            host.ended()
        if seat.rank == 0 and record.finished:
            remove(record.checkpoints)

    def _may_try(self) -> bool:
        """Counts the attempt; one too many is a trial that takes its process with it."""
        attempts = self.record.note_attempt()
        if attempts <= self.retries + 1:
            return True
        self.record.fail(f"its process was lost {attempts - 1} times; see its log")
        return False

    def _run(self, host: SweepHost, log: logging.Logger) -> None:
        signature = self.job["signature"]
        try:
            trial = Trial.model_validate(self.job["trial"])
            run_trial(trial, signature, self.store, self.ledger, host)
            log.info("Finished")
        except StoppedError as stop:
            log.info("%s", stop)
        except Exception as error:
            log.exception("The attempt ends in an error")
            if not self._fails(error) or self.seat.workers > 1:
                raise

    def _fails(self, error: Exception) -> bool:
        """Notes an error that would come again, or has come often enough."""
        attempts = self.record.attempts
        if is_hopeless(error):
            self.record.fail(reason_of(error))
        elif attempts > self.retries:
            self.record.fail(f"{reason_of(error)} (tried {attempts} times)")
        return self.record.failure is not None

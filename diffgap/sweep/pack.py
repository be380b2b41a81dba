"""Trials of one pack in one process, each with its own log, failure, checkpoints and result.

A permanent error fails its own trial, and the others of the pack continue.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch

from diffgap.io.paths import remove
from diffgap.ledger.ledger import Ledger
from diffgap.ledger.logs import captured_output, log_file, trial_log
from diffgap.sweep.messages import PackJob, TrialEvent, TrialJob
from diffgap.sweep.worker import SweepTrialContext, WorkerContext
from diffgap.training.autotune import batch_pays
from diffgap.training.batched import PackMember, can_batch, run_batched
from diffgap.training.failures import is_permanent, reason_of
from diffgap.training.loop import StoppedError
from diffgap.training.trial import run_trial

log = logging.getLogger(__name__)


def run_pack(pack: PackJob, worker: WorkerContext) -> None:
    """Runs the remaining trials of a pack, as one batch or one after another.

    Raises:
        Exception: a transient error, for Ray to try again in another process; with several
            workers every error, on which Ray ends the other workers.
    """
    ledger = Ledger.at(pack.output)
    attempts = [TrialAttempt(job, pack, ledger, worker) for job in pack.trials]
    remaining = [attempt for attempt in attempts if not attempt.is_over]
    if _should_batch(remaining, pack):
        _run_batched(remaining)
        return
    for attempt in remaining:
        if not attempt.is_over:  # it may have been cancelled meanwhile
            with attempt.logged():
                attempt.run()


class TrialAttempt:
    """One attempt at one trial of a pack."""

    def __init__(self, job: TrialJob, pack: PackJob, ledger: Ledger, worker: WorkerContext) -> None:
        self.job, self.ledger, self.worker = job, ledger, worker
        self.store, self.retries = pack.store, pack.retries
        self.record = ledger.trial(job.signature)
        self.context = SweepTrialContext(self.record, job, worker)
        self.member = PackMember(job.trial, job.signature, self.context)

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to do: the trial has ended."""
        return self.worker.decide(lambda: self.record.ended)

    @contextmanager
    def logged(self, alone: bool = True) -> Iterator[None]:
        """Sends log records to the trial's log; `alone`, also what C++ libraries print."""
        speaker = f"worker {self.worker.rank}"
        with ExitStack() as stack:
            file = stack.enter_context(log_file(self.record.log, speaker))
            stack.enter_context(trial_log(file, speaker, None if alone else self.job.signature))
            if alone:  # a file descriptor is the whole process's, with all its trials
                stack.enter_context(captured_output(file))
            yield

    def run(self) -> None:
        if not self.start():
            return
        try:
            run_trial(self.job.trial, self.job.signature, self.store, self.ledger, self.context)
        except StoppedError as error:
            self.end(error)
        except Exception as error:
            # A worker that returned would leave the others waiting in a collective operation.
            if not self.end(error) or self.worker.workers > 1:
                raise
        else:
            self.end(None)

    def start(self) -> bool:
        """Reports and counts the attempt; False where the trial has used up its attempts."""
        self.context.send(TrialEvent.STARTED)
        may_try = self.worker.decide(self._count_attempt)
        if not may_try:
            self.context.send(TrialEvent.ENDED)
        return may_try

    def end(self, error: Exception | None) -> bool:
        """Logs, notes and reports how the attempt ended; False where another one may succeed."""
        if error is None:
            self._log(logging.INFO, "Finished")
        elif isinstance(error, StoppedError):
            self._log(logging.INFO, str(error))
        else:
            self._log(logging.ERROR, "The attempt failed", error)
            if not self._note_failure(error):
                return False
        self.context.send(TrialEvent.ENDED)
        if self.worker.rank == 0 and self.record.finished:
            remove(self.record.checkpoints)
        return True

    def _count_attempt(self) -> bool:
        """Counts the attempt before it is made, so that one that kills its process counts too."""
        attempts = self.record.record_attempt()
        if attempts <= self.retries + 1:
            return True
        self.record.fail(f"its process was lost {attempts - 1} times; see its log")
        return False

    def _note_failure(self, error: Exception) -> bool:
        """Fails the trial where the error would come again, or has come often enough."""
        attempts = self.record.attempts
        if is_permanent(error):
            self.record.fail(reason_of(error))
        elif attempts > self.retries:
            self.record.fail(f"{reason_of(error)} (tried {attempts} times)")
        return self.record.failure is not None

    def _log(self, level: int, text: str, error: Exception | None = None) -> None:
        # `trial` sends the record to this trial's log alone where several train as one batch
        log.log(level, text, exc_info=error, extra={"trial": self.job.signature})


def _should_batch(attempts: Sequence[TrialAttempt], pack: PackJob) -> bool:
    members = [attempt.member for attempt in attempts]
    if pack.pack_mode == "in_turn" or len(members) < 2 or not can_batch(members):
        return False
    return pack.pack_mode == "batched" or batch_pays(members, pack.store)


def _run_batched(attempts: Sequence[TrialAttempt]) -> None:
    """Runs trials as one network; a transient error is raised once the others have ended."""
    with ExitStack() as stack:
        for attempt in attempts:
            stack.enter_context(attempt.logged(alone=False))
        errors = _train_batch([attempt for attempt in attempts if attempt.start()])
    if errors:
        raise errors[0]


def _train_batch(attempts: Sequence[TrialAttempt]) -> list[Exception]:
    """Trains trials at once, or in halves that fit the memory; returns the transient errors."""
    if not attempts:
        return []
    unfinished = {attempt.job.signature: attempt for attempt in attempts}
    errors: list[Exception] = []

    def on_end(member: PackMember, error: Exception | None) -> None:
        is_settled = unfinished.pop(member.signature).end(error)
        if error and not is_settled:
            errors.append(error)

    first = attempts[0]
    members = [attempt.member for attempt in attempts]
    try:
        run_batched(members, first.store, first.ledger, on_end)
    except Exception as error:
        # Workers could not agree on halves: one may fit the batch where another does not.
        halves_may_fit = isinstance(error, torch.OutOfMemoryError) and len(attempts) > 1
        if not halves_may_fit or first.worker.workers > 1:
            for attempt in unfinished.values():  # the error concerns every one of them
                attempt.end(error)
            raise
    # Out of the except block, for the traceback keeps all of the batch's tensors alive.
    if unfinished:
        torch.cuda.empty_cache()
        rest = list(unfinished.values())
        half = -(-len(rest) // 2)
        log.info("A batch of %d trials does not fit the GPU's memory; trying %d", len(rest), half)
        errors += [*_train_batch(rest[:half]), *_train_batch(rest[half:])]
    return errors

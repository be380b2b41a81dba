"""The trials of one pack, in one process: each with its own log, failure, checkpoint and result.

A trial in a pack is the same experiment as alone. What one of them runs into is its own: an error
that would come again fails that trial, and the others go on.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from diffgap.io.paths import remove
from diffgap.ledger.ledger import Ledger
from diffgap.ledger.logs import captured_output, log_file, trial_log
from diffgap.spec import Trial
from diffgap.sweep.driver import BEGUN, ENDED
from diffgap.sweep.worker import SweepTrialContext, WorkerContext
from diffgap.training.autotune import BATCHED, IN_TURN, faster_way, implied_way
from diffgap.training.batched import PackMember, can_batch, run_batched
from diffgap.training.failures import is_permanent, reason_of
from diffgap.training.loop import StoppedError
from diffgap.training.shape import shape_of
from diffgap.training.trial import run_trial

log = logging.getLogger(__name__)

_verdicts: dict[Hashable, dict[int, str]] = {}
"""The faster way for packs of a shape, by their size, as this process has measured it."""


def run_pack(pack: dict[str, Any], worker: WorkerContext) -> None:
    """Runs what is left of a pack's trials, at once or one after another.

    Raises:
        Exception: what may get better in another process, for Ray to try again; with several
            workers every error, on which Ray ends the others.
    """
    ledger = Ledger.at(pack["output"])
    attempts = [_Attempt(job, pack, ledger, worker) for job in pack["members"]]
    left = [attempt for attempt in attempts if not attempt.is_over]
    if _train_at_once(left, pack):
        _run_batched(left)
    else:
        for attempt in left:
            if not attempt.is_over:  # somebody may have cancelled it meanwhile
                with attempt.logged():
                    attempt.run()


class _Attempt:
    """One attempt at one trial of a pack."""

    def __init__(
        self, job: dict[str, Any], pack: dict[str, Any], ledger: Ledger, worker: WorkerContext
    ) -> None:
        self.job, self.ledger, self.worker = job, ledger, worker
        self.store, self.retries = pack["store"], pack["retries"]
        self.record = ledger.trial(job["signature"])
        self.context = SweepTrialContext(self.record, job, worker)
        self.member = PackMember(Trial.model_validate(job["trial"]), job["signature"], self.context)

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to do: the trial has ended, or another sweep runs it."""
        return self.worker.decide(lambda: self.record.ended or self.job["taken"])

    @contextmanager
    def logged(self, alone: bool = True) -> Iterator[None]:
        """Sends what is said to the trial's log; `alone`, also what C++ libraries write."""
        speaker = f"worker {self.worker.rank}"
        with ExitStack() as stack:
            said = stack.enter_context(log_file(self.record.log, speaker))
            stack.enter_context(trial_log(said, speaker, None if alone else self.job["signature"]))
            if alone:
                stack.enter_context(captured_output(said))
            yield

    def run(self) -> None:
        """Makes it, by itself."""
        if self.begin():
            self._train()

    def begin(self) -> bool:
        """Tells that it begins, and counts it; False where the trial has had its attempts."""
        self.context.tell(BEGUN)
        may = self.worker.decide(self._may_try)
        if not may:
            self.context.tell(ENDED)
        return may

    def end(self, error: Exception | None) -> bool:
        """Notes and tells how it ended; False where that may get better in another attempt."""
        if error is None:
            self._log(logging.INFO, "Finished")
        elif isinstance(error, StoppedError):
            self._log(logging.INFO, str(error))
        else:
            self._log(logging.ERROR, "The attempt ends in an error", error)
            if not self._fails(error):
                return False
        self.context.tell(ENDED)
        if self.worker.rank == 0 and self.record.finished:
            remove(self.record.checkpoints)
        return True

    def _train(self) -> None:
        error = None
        member = self.member
        try:
            run_trial(member.trial, member.signature, self.store, self.ledger, self.context)
        except Exception as found:
            error = found
        settled = self.end(error)
        if (
            error
            and not isinstance(error, StoppedError)
            and (not settled or self.worker.workers > 1)
        ):
            raise error

    def _may_try(self) -> bool:
        """Counts the attempt; one too many is a trial that takes its process with it."""
        attempts = self.record.note_attempt()
        if attempts <= self.retries + 1:
            return True
        self.record.fail(f"its process was lost {attempts - 1} times; see its log")
        return False

    def _fails(self, error: Exception) -> bool:
        """Notes an error that would come again, or has come often enough."""
        attempts = self.record.attempts
        if is_permanent(error):
            self.record.fail(reason_of(error))
        elif attempts > self.retries:
            self.record.fail(f"{reason_of(error)} (tried {attempts} times)")
        return self.record.failure is not None

    def _log(self, level: int, text: str, error: Exception | None = None) -> None:
        log.log(level, text, exc_info=error, extra={"trial": self.job["signature"]})


def _train_at_once(attempts: Sequence[_Attempt], pack: dict[str, Any]) -> bool:
    """Whether these trials train as one network."""
    members = [attempt.member for attempt in attempts]
    if pack["mode"] == IN_TURN or len(members) < 2 or not can_batch(members):
        return False
    if pack["mode"] == BATCHED:
        return True
    known = _verdicts.setdefault(shape_of(members[0].trial), {})
    way = implied_way(known, len(members))
    if way is None:
        way = known[len(members)] = faster_way(members, pack["store"], attempts[0].worker.device)
    return way == BATCHED


def _run_batched(attempts: Sequence[_Attempt]) -> None:
    """Runs trials as one network; where that does not fit a GPU's memory, each half by itself.

    An error that may get better ends the whole pack, once the others have come to their ends.
    """
    with ExitStack() as stack:
        for attempt in attempts:
            stack.enter_context(attempt.logged(alone=False))
        begun = [attempt for attempt in attempts if attempt.begin()]
        errors = _at_once(begun)
    if errors:
        raise errors[0]


def _at_once(attempts: Sequence[_Attempt]) -> list[Exception]:
    """Trains some trials at once; returns the errors of those that may be tried again."""
    if not attempts:
        return []
    waiting = {attempt.member.signature: attempt for attempt in attempts}
    errors: list[Exception] = []

    def ended(member: PackMember, error: Exception | None) -> None:
        if not waiting.pop(member.signature).end(error):
            assert error
            errors.append(error)

    first = attempts[0]
    members = [attempt.member for attempt in attempts]
    try:
        run_batched(members, first.store, first.ledger, ended)
    except Exception as error:
        fits_less = isinstance(error, torch.OutOfMemoryError) and len(attempts) > 1
        if not fits_less or first.worker.workers > 1:
            for attempt in waiting.values():  # it concerns all that are still under way
                attempt.end(error)
            raise
    # Here, for the error's traceback holds on to all that the batch had in memory.
    left = list(waiting.values())
    if left:
        torch.cuda.empty_cache()
        half = -(-len(left) // 2)
        log.info("%d trials at once do not fit the GPU's memory; %d do next", len(left), half)
        errors += [*_at_once(left[:half]), *_at_once(left[half:])]
    return errors

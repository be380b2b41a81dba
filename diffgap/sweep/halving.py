"""Asynchronous successive halving (ASHA, Li et al. 2020): which trials continue from a rung.

A trial that reaches a rung continues if it is among the best 1/reduction of those that have been
there so far. It waits at the rung for its verdict, and both are kept with the trial: a search that
was killed decides as it would have, and a verdict stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from diffgap.ledger.ledger import Ledger, Rung
from diffgap.spec.sweep import Scheduler
from diffgap.sweep.plan import PlannedTrial


class SuccessiveHalving:
    """The verdicts of the study with an identity; without a scheduler it stops nobody."""

    def __init__(self, scheduler: Scheduler | None, ledger: Ledger, study: str) -> None:
        self.scheduler, self.ledger, self.study = scheduler, ledger, study

    def rungs(self, planned: PlannedTrial) -> tuple[int, ...]:
        """The steps at which a trial waits for its verdict."""
        if self.scheduler is None or not planned.trial.trains:
            return ()
        train = planned.trial.train
        return self.scheduler.rungs(train.steps, train.epoch_steps)

    def is_decided(self, signature: str, step: int) -> bool:
        """Whether a trial has its verdict at a rung."""
        return step in self.ledger.trial(signature).rungs(self.study)

    def is_stopped(self, signature: str) -> bool:
        """Whether the study has stopped a trial at one of its rungs."""
        rungs = self.ledger.trial(signature).rungs(self.study)
        return any(not rung.goes_on for rung in rungs.values())

    def decide(self, signature: str, step: int, value: float, others: Iterable[str]) -> None:
        """Decides whether a trial continues from a rung, given its objective there; records it."""
        assert self.scheduler
        rungs = [self.ledger.trial(other).rungs(self.study).get(step) for other in others]
        earlier = [rung.value for rung in rungs if rung]
        goes_on = survives(value, earlier, self.scheduler.reduction)
        record = self.ledger.trial(signature)
        if not goes_on:
            # Before the rung, for which the trial waits: once that is there, so is the stop.
            record.request_stop(f"behind the others at step {step} (ASHA)", step, value)
        record.record_rung(self.study, step, Rung(value, goes_on))


def survives(value: float, earlier: Sequence[float], reduction: int) -> bool:
    """Whether a trial continues from a rung: one of `reduction` does, and always the best.

    `value` is its objective, `earlier` those of the trials that were there before it (ASHA, Li et
    al. 2020, algorithm 2).
    """
    ranked = sorted([*earlier, value], reverse=True)
    last_survivor = max(1, len(ranked) // reduction) - 1
    return value >= ranked[last_survivor]

"""Hands Tune its packs of trials, as many at once as the cluster has room for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ray.tune.search import Searcher

from diffgap.spec import Resources
from diffgap.sweep.driver import JOB
from diffgap.sweep.packing import Packer
from diffgap.sweep.plan import PlannedTrial

if TYPE_CHECKING:
    from diffgap.sweep.observer import Observer
    from diffgap.sweep.tune import SweepContext, TrialOptions


class PackSearcher(Searcher):
    """Hands Tune one pack after another, as many at once as the cluster has room for."""

    def __init__(self, context: SweepContext, observer: Observer) -> None:
        super().__init__()
        self.context, self.observer = context, observer
        self.running: dict[str, list[str]] = {}
        """Signatures of the packs in flight, by Tune's ids."""

    @abstractmethod
    def next_pack(self) -> dict[str, Any] | str | None:
        """The next pack; None while others must end first; Searcher.FINISHED at the end."""

    @property
    @abstractmethod
    def left(self) -> int:
        """Packs to come."""

    @property
    @abstractmethod
    def largest(self) -> int:
        """Trials of the largest pack to come."""

    def ended(self, signature: str) -> None:
        """Hears that a trial is in flight no more."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        self.context.capacity.request(len(self.running) + self.left)
        if len(self.running) >= self.context.capacity.trials():
            return None
        pack = self.next_pack()
        if not isinstance(pack, dict):
            return pack
        self.running[trial_id] = [job["signature"] for job in pack["members"]]
        return {JOB: pack}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        for signature in self.running.pop(trial_id, ()):
            self.ended(signature)
        self.context.capacity.request(len(self.running) + self.left)

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        return True

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles searchers with its state, which is not used again."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing, for the same reason."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, for the same reason."""


class QueueSearcher(PackSearcher):
    """Trials that are all known, in their order."""

    def __init__(
        self,
        context: SweepContext,
        observer: Observer,
        trials: Iterable[PlannedTrial],
        options: TrialOptions,
    ) -> None:
        super().__init__(context, observer)
        self._options = options
        self._packer = Packer(trials, context.plan.spec.resources, context.capacity)

    @property
    def left(self) -> int:
        return self._packer.packs

    @property
    def largest(self) -> int:
        return self._packer.size

    def next_pack(self) -> dict[str, Any] | str | None:
        members = [(planned, self._options) for planned in self._packer.next()]
        return pack_of(self.context, members) if members else str(Searcher.FINISHED)


def is_apart(resources: Resources) -> bool:
    """Whether packs get processes of their own, beside their driver's."""
    return resources.workers > 1 or resources.pack == "off"


def pack_of(
    context: SweepContext, members: Sequence[tuple[PlannedTrial, TrialOptions]]
) -> dict[str, Any]:
    """All that the workers of a pack need, as plain data."""
    resources = context.plan.spec.resources
    return {
        "members": [
            {
                "signature": planned.signature,
                "trial": planned.trial.model_dump(mode="json"),
                "study": options.study,
                "rungs": list(options.rungs),
                "until": options.until,
                "taken": options.taken,
            }
            for planned, options in members
        ],
        "apart": is_apart(resources),
        "mode": resources.pack_mode,
        "store": context.plan.store,
        "output": str(context.ledger.output),
        "scaling": context.capacity.placement.scaling,
        "retries": context.plan.spec.retries,
        "environment": resources.environment,
    }

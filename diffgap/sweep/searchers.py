"""Source of Ray Tune's packs of trials: as many at once as the cluster has room for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

from ray.tune.search import Searcher

from diffgap.spec import Resources
from diffgap.sweep.context import SweepContext
from diffgap.sweep.messages import JOB, PackJob, TrialJob
from diffgap.sweep.observer import Observer
from diffgap.sweep.packing import Packer
from diffgap.sweep.plan import PlannedTrial


class PackSearcher(Searcher):
    def __init__(self, observer: Observer) -> None:
        super().__init__()
        self.context, self.observer = observer.context, observer
        self.in_flight: dict[str, list[str]] = {}
        """Signatures of the packs in flight, by Tune's ids."""

    @abstractmethod
    def next_pack(self) -> PackJob | None:
        """The next pack; None where there is none, for now or for good (`is_exhausted`)."""

    @property
    @abstractmethod
    def remaining(self) -> int:
        """Packs to come."""

    @property
    @abstractmethod
    def largest_pack(self) -> int:
        """Trials of the largest pack to come."""

    @property
    def is_exhausted(self) -> bool:
        """Whether no pack will come any more."""
        return self.remaining == 0

    def on_trial_end(self, signature: str) -> None:
        """Called when a trial is no longer in flight, however it ended."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        self._request_room()
        if len(self.in_flight) >= self.context.capacity.trials():
            return None
        pack = self.next_pack()
        if pack is None:
            return str(Searcher.FINISHED) if self.is_exhausted else None
        self.in_flight[trial_id] = pack.signatures
        return {JOB: pack.to_dict()}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        for signature in self.in_flight.pop(trial_id, ()):
            self.on_trial_end(signature)
        self._request_room()

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        return True

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune saves searchers with its own state, which is never read again

    def save(self, checkpoint_path: str) -> None:
        pass

    def _request_room(self) -> None:
        self.context.capacity.request(len(self.in_flight) + self.remaining)


class QueueSearcher(PackSearcher):
    """Trials that are all known, in their order."""

    def __init__(
        self, observer: Observer, trials: Iterable[PlannedTrial], pause_at: int | None
    ) -> None:
        super().__init__(observer)
        self._pause_at = pause_at
        self._packer = Packer(trials, self.context.plan.spec.resources, self.context.capacity)

    @property
    def remaining(self) -> int:
        return self._packer.packs

    @property
    def is_exhausted(self) -> bool:
        return not (self.remaining or self.observer.shared)

    @property
    def largest_pack(self) -> int:
        return self._packer.size

    def next_pack(self) -> PackJob | None:
        ours, _ = self.observer.claim_shared()
        self._packer.add(ours)
        pack = self._packer.next()
        jobs = [TrialJob(each.signature, each.trial, pause_at=self._pause_at) for each in pack]
        return pack_job(self.context, jobs) if jobs else None


def needs_own_processes(resources: Resources) -> bool:
    """Whether packs train in processes of their own, beside their driver's."""
    return resources.workers > 1 or resources.pack == "off"


def pack_job(context: SweepContext, jobs: Sequence[TrialJob]) -> PackJob:
    resources = context.plan.spec.resources
    return PackJob(
        trials=tuple(jobs),
        own_processes=needs_own_processes(resources),
        pack_mode=resources.pack_mode,
        store=context.plan.store,
        output=str(context.ledger.output),
        scaling=context.capacity.placement.scaling,
        retries=context.plan.spec.retries,
        environment=resources.environment,
    )

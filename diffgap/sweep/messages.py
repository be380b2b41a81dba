"""Messages between a sweep and its workers, as plain data: what to run, and how it goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from diffgap.spec import Trial

JOB = "job"
"""Ray Tune's one parameter: a `PackJob` as a dict."""


@dataclass(frozen=True)
class TrialJob:
    """One trial of a pack, and what it is run with beyond its spec."""

    signature: str
    trial: Trial
    study: str = ""
    """The search that it belongs to."""
    rungs: tuple[int, ...] = ()
    """Steps at which it waits for the study's verdict."""
    pause_at: int | None = None
    """The step at which it pauses, with a checkpoint."""

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "trial": self.trial.model_dump(mode="json")}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> TrialJob:
        trial, rungs = Trial.model_validate(content["trial"]), tuple(content["rungs"])
        return cls(**{**content, "trial": trial, "rungs": rungs})


@dataclass(frozen=True)
class PackJob:
    """A pack of trials, and everything that its workers need."""

    trials: tuple[TrialJob, ...]
    own_processes: bool
    """Whether it trains in processes of its own, beside its driver's."""
    pack_mode: str
    store: str
    output: str
    scaling: dict[str, Any]
    """Arguments of Ray Train's ScalingConfig."""
    retries: int
    environment: dict[str, str]
    """Variables of its own processes."""

    @property
    def signatures(self) -> list[str]:
        return [job.signature for job in self.trials]

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "trials": [job.to_dict() for job in self.trials]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> PackJob:
        return cls(**{**content, "trials": tuple(map(TrialJob.from_dict, content["trials"]))})


class TrialEvent(StrEnum):
    """What a report of a trial is about."""

    STARTED = "started"
    PROGRESS = "progress"
    ENDED = "ended"


@dataclass(frozen=True)
class TrialReport:
    """What a worker reports of a trial to the sweep, through Ray."""

    signature: str
    event: TrialEvent
    step: int = 0
    points: tuple[dict[str, Any], ...] = ()
    """The points of the history since the last report, as `training.checkpoint.Point` fields."""

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "event": str(self.event)}

    @classmethod
    def from_result(cls, result: Mapping[str, Any]) -> TrialReport | None:
        """The report in a result of Tune's; None in the empty result that ends a trainable."""
        if "signature" not in result:
            return None
        event = TrialEvent(result["event"])
        return cls(result["signature"], event, result["step"], result["points"])
